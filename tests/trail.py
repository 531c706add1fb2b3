"""What a user left behind, as tests ask for it."""

from typing import Any
from uuid import UUID

import msgspec

from usercore.db import Conn


async def actions_of(owner: Conn, user_id: UUID) -> list[str]:
    """The actions of the user's audit rows, in order."""
    rows = await owner.fetch('select action from user_audit where user_id = $1 order by "timestamp", event_id', user_id)
    return [row["action"] for row in rows]


async def events_of(owner: Conn, user_id: UUID) -> list[dict[str, Any]]:
    """The user's events that wait in the outbox, in order."""
    rows = await owner.fetch("select payload from outbox where user_id = $1 order by id", user_id)
    return [msgspec.json.decode(row["payload"]) for row in rows]
