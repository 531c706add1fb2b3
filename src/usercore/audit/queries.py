"""Typed SQL of the audit trail's partitions: sql/audit.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.outbox import AuditAction

sql = Sql("audit")


class TrailRow(Struct, frozen=True):
    """A row of the trail as it is kept; the values are JSON text."""

    event_id: UUID
    user_id: UUID
    actor_id: UUID | None
    action: AuditAction
    resource: str
    old_value: str | None
    new_value: str | None
    ip_addr: str | None
    timestamp: datetime


@sql
async def add_partitions(conn: Conn, *, months_ahead: int) -> int: ...


@sql
async def get_horizon(conn: Conn) -> datetime | None: ...


@sql
async def has_user(conn: Conn, *, user_id: UUID) -> bool: ...


@sql
async def list_trail(
    conn: Conn,
    *,
    user_id: UUID,
    action: AuditAction | None,
    since: datetime,
    until: datetime,
    before_at: datetime,
    before_id: UUID,
    most: int,
) -> list[TrailRow]: ...
