"""Typed SQL of the archive itself: sql/clickhouse/archive.sql."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from usercore.clickhouse import ClickHouse, ClickHouseSql
from usercore.outbox import AccessPurpose, ActorKind, AuditAction, from_microseconds, microseconds
from usercore.trail.actions import SealedRow

sql = ClickHouseSql("archive")

NOBODY = UUID(int=0)
"""The user of a row that is about none."""


class Row(Struct, frozen=True):
    """What is shown of an archived row. The caller's address is not archived, only its keyed digest."""

    event_id: UUID
    user_id: UUID
    actor_id: UUID | None
    actor_kind: ActorKind
    client: str | None
    action: AuditAction
    resource: str
    old_value: str | None
    new_value: str | None
    timestamp_us: int
    purpose: AccessPurpose | None


class WholeRow(Struct, frozen=True):
    """An archived row with everything that its leaf covers; digests in hexadecimal."""

    segment: int
    xid: int
    event_id: UUID
    user_id: UUID
    actor_id: UUID | None
    actor_kind: ActorKind
    client: str | None
    action: AuditAction
    resource: str
    old_value: str | None
    new_value: str | None
    ip_mac: str | None
    timestamp_us: int
    scope: str | None
    purpose: AccessPurpose | None
    request_id: str | None
    trace_id: str | None
    leaf_hash: str


class Extent(Struct, frozen=True):
    rows: int
    newest_segment: int


@sql
async def add_rows(conn: ClickHouse, *, rows: Sequence[tuple[Any, ...]]) -> None: ...


@sql
async def list_trail(
    conn: ClickHouse,
    *,
    user_id: UUID,
    since_us: int,
    until_us: int,
    before_us: int,
    before_id: UUID,
    actions: tuple[AuditAction, ...],
    actor_kinds: tuple[ActorKind, ...],
    most: int,
) -> list[Row]: ...


@sql
async def list_segment(conn: ClickHouse, *, first: int, last: int) -> list[WholeRow]: ...


@sql
async def get_extent(conn: ClickHouse) -> Extent: ...


def at(row: Row | WholeRow) -> datetime:
    """When an archived row was written."""
    return from_microseconds(row.timestamp_us)


def values(segment: int, row: SealedRow) -> tuple[Any, ...]:
    """A row as `add_rows` takes it."""
    return (
        segment,
        row.xid,
        row.event_id,
        row.user_id or NOBODY,
        row.actor_id,
        row.actor_kind,
        row.client,
        row.action,
        row.resource,
        row.old_value,
        row.new_value,
        row.ip_mac,
        microseconds(row.timestamp),
        row.scope,
        row.purpose,
        row.request_id,
        row.trace_id,
        row.leaf_hash,
    )


def distinct(rows: Iterable[WholeRow]) -> list[SealedRow]:
    """Each row once; rows of one event id that differ are all there, and one of them is not what was sealed."""
    return [_sealed(row) for row in dict.fromkeys(rows)]


def _sealed(row: WholeRow) -> SealedRow:
    return SealedRow(
        xid=row.xid,
        event_id=row.event_id,
        user_id=None if row.user_id == NOBODY else row.user_id,
        actor_id=row.actor_id,
        actor_kind=row.actor_kind,
        client=row.client,
        action=row.action,
        resource=row.resource,
        old_value=row.old_value,
        new_value=row.new_value,
        ip_mac=None if row.ip_mac is None else bytes.fromhex(row.ip_mac),
        timestamp=at(row),
        scope=row.scope,
        purpose=row.purpose,
        request_id=row.request_id,
        trace_id=row.trace_id,
        leaf_hash=bytes.fromhex(row.leaf_hash),
    )
