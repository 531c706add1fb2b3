"""Typed SQL of accounts: sql/accounts.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.outbox import ActorKind

sql = Sql("accounts")


class AccessRow(Struct, frozen=True):
    """Somebody who read or received fields of a profile."""

    at: datetime
    id: UUID
    actor_kind: ActorKind
    client: str
    fields: list[str]
    purpose: str | None
    action: str


@sql
async def list_accesses(
    conn: Conn, *, user_id: UUID, before_at: datetime, before_id: UUID, most: int
) -> list[AccessRow]: ...
