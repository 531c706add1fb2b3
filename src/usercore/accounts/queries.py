"""Typed SQL of accounts: sql/accounts.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import UserStatus
from usercore.lifecycle.actions import HoldEffect
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


class StatusRow(Struct, frozen=True):
    status: UserStatus
    erased_at: datetime | None


class OpenHold(Struct, frozen=True):
    """A hold that was not lifted."""

    id: UUID
    effect: HoldEffect
    source: str
    reason: str
    placed_at: datetime


@sql
async def list_accesses(
    conn: Conn, *, user_id: UUID, before_at: datetime, before_id: UUID, most: int
) -> list[AccessRow]: ...


@sql
async def get_status(conn: Conn, *, user_id: UUID) -> StatusRow | None: ...


@sql
async def list_open_holds(conn: Conn, *, user_id: UUID) -> list[OpenHold]: ...
