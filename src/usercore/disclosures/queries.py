"""Typed SQL of disclosures: sql/disclosures.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.outbox import ActorKind

sql = Sql("disclosures")


class NewDisclosure(Struct, frozen=True):
    """Who (`recipient`: a vendor or a client) received which fields, for what."""

    id: UUID
    user_id: UUID
    recipient: str
    recipient_kind: ActorKind
    actor_id: UUID | None
    fields: list[str]
    purpose: str
    action: str
    attempt_id: UUID | None
    at: datetime


@sql
async def add_disclosure(conn: Conn, *, disclosure: NewDisclosure) -> None: ...
