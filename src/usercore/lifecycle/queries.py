"""Typed SQL of holds, statuses and consumed auth events: sql/lifecycle.sql."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import UserStatus
from usercore.pii.sealed import Sealed

sql = Sql("lifecycle")

HoldEffect = Literal["freeze", "suspend"]


class NewHold(Struct, frozen=True):
    id: UUID
    user_id: UUID
    effect: HoldEffect
    source: str
    reason: str
    note_enc: Sealed | None
    placed_by: UUID | None
    placed_at: datetime
    source_event_id: UUID | None


class LiftedHold(Struct, frozen=True):
    id: UUID
    effect: HoldEffect
    reason: str


@sql
async def list_open_effects(conn: Conn, *, user_id: UUID) -> list[HoldEffect]: ...


@sql
async def accept_hold(conn: Conn, *, hold: NewHold) -> bool | None: ...


@sql
async def has_open_freeze(conn: Conn, *, user_id: UUID, source: str, reason: str | None) -> bool: ...


@sql
async def take_holds(
    conn: Conn,
    *,
    user_id: UUID,
    source: str,
    reason: str,
    note_enc: Sealed | None,
    lifted_by: UUID | None,
    at: datetime,
) -> list[LiftedHold]: ...


@sql
async def set_closed(conn: Conn, *, user_id: UUID, at: datetime) -> None: ...


@sql
async def set_status(conn: Conn, *, user_id: UUID, status: UserStatus, at: datetime) -> int: ...


@sql
async def set_activated(conn: Conn, *, user_id: UUID, at: datetime) -> None: ...


@sql
async def take_overdue_holds(conn: Conn, *, user_id: UUID, at: datetime) -> list[UUID]: ...


@sql
async def accept_auth_events(conn: Conn, *, topics: Sequence[str], event_ids: Sequence[UUID]) -> list[UUID]: ...
