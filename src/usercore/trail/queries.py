"""Typed SQL of the sealed trail: sql/trail.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.outbox import AccessPurpose, ActorKind, AuditAction

sql = Sql("trail")


class Segment(Struct, frozen=True):
    """A sealed piece: rows of the transactions from `from_xid` on and before `to_xid`."""

    number: int
    from_xid: int
    to_xid: int
    count: int
    leaves: bytes
    root: bytes
    previous: bytes
    hash: bytes
    sealed_at: datetime
    key_version: int
    signature: bytes


class LastSegment(Struct, frozen=True):
    number: int
    to_xid: int
    hash: bytes


class SegmentRange(Struct, frozen=True):
    """Which transactions a segment has the rows of."""

    number: int
    from_xid: int
    to_xid: int
    count: int


class LeafRow(Struct, frozen=True):
    xid: int
    event_id: UUID
    leaf_hash: bytes


class SealedRow(Struct, frozen=True):
    """A row of the trail with everything that its leaf covers."""

    xid: int
    event_id: UUID
    user_id: UUID | None
    actor_id: UUID | None
    actor_kind: ActorKind
    client: str | None
    action: AuditAction
    resource: str
    old_value: str | None
    new_value: str | None
    ip_mac: bytes | None
    timestamp: datetime
    scope: str | None
    purpose: AccessPurpose | None
    request_id: str | None
    trace_id: str | None
    leaf_hash: bytes


@sql
async def has_sealer_lock(conn: Conn) -> bool: ...


@sql
async def get_horizon(conn: Conn) -> int: ...


@sql
async def get_last_segment(conn: Conn) -> LastSegment | None: ...


@sql
async def list_leaves(conn: Conn, *, from_xid: int, to_xid: int, most: int) -> list[LeafRow]: ...


@sql
async def add_segment(conn: Conn, *, segment: Segment) -> None: ...


@sql
async def list_segments(conn: Conn, *, after: int, most: int) -> list[Segment]: ...


@sql
async def list_ranges(conn: Conn, *, after: int, most: int) -> list[SegmentRange]: ...


@sql
async def count_sealed(conn: Conn, *, number: int) -> int: ...


@sql
async def list_rows(conn: Conn, *, from_xid: int, to_xid: int | None) -> list[SealedRow]: ...


@sql
async def get_row_xid(conn: Conn, *, event_id: UUID) -> int | None: ...


@sql
async def get_segment_of(conn: Conn, *, xid: int) -> Segment | None: ...
