"""Verbs of the archive: ship what is sealed, read it, compare it, and let a month leave PostgreSQL for it.

A sealed segment is a batch: its rows never change, so it can be sent again after any crash. ClickHouse keeps one of
each event id, at a merge, and every reader takes one. Transactions begin and end here, and none spans ClickHouse.
"""

import bisect
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from msgspec import Struct

from usercore import cursors, telemetry
from usercore.archive import queries, store
from usercore.archive.queries import Month
from usercore.archive.store import Row, WholeRow, at, distinct
from usercore.clickhouse import ClickHouse
from usercore.cursors import Position
from usercore.db import Db
from usercore.errors import ArchiveUnavailable
from usercore.outbox import ActorKind, AuditAction, microseconds
from usercore.trail.actions import (
    SealedRow,
    Segment,
    SegmentRange,
    count_sealed,
    first_difference,
    leaf_of,
    list_ranges,
    list_rows,
    list_segments,
)

__all__ = ["Row", "at"]

log = telemetry.logger(__name__)

ROWS = 20_000
"""Of an insert, and of a look at the archive: ClickHouse wants more than ten thousand at a time."""
MOST_SEGMENTS = 1_000
EVERYTHING: tuple[AuditAction, ...] = get_args(AuditAction)
EVERYBODY: tuple[ActorKind, ...] = get_args(ActorKind)

Side = Literal["postgres", "archive"]


class Difference(Struct, frozen=True):
    """The first row of a segment that is not what was sealed, and in which of the two stores."""

    side: Side
    kind: str
    segment: int
    event_id: UUID | None


class Reconciled(Struct, frozen=True):
    """What was compared; `waiting` segments are sealed and not shipped yet."""

    segments: int
    rows: int
    waiting: int
    differences: list[Difference]


async def ship(db: Db, clickhouse: ClickHouse, holder: UUID) -> int:
    """Send the next sealed segments; the number of their rows, 0 when there are none or somebody else is at it.

    `holder` names the process. Raises ArchiveUnavailable.
    """
    async with db.begin() as tx:
        shipped = await queries.take_lease(tx, holder=holder)
    if shipped is None:
        return 0
    async with db.snapshot() as conn:
        ranges = _batch(await list_ranges(conn, after=shipped, most=MOST_SEGMENTS))
        if not ranges:
            return 0
        rows = await list_rows(conn, from_xid=ranges[0].from_xid, to_xid=ranges[-1].to_xid)
    await _send(clickhouse, ranges, rows)
    async with db.begin() as tx:
        await queries.set_shipped(tx, holder=holder, shipped_to=ranges[-1].number)
    telemetry.metrics.audit_shipped(len(rows))
    return sum(each.count for each in ranges)


async def look_after(db: Db, clickhouse: ClickHouse, holder: UUID, *, known: int = 0) -> int:
    """Begin anew when ClickHouse has less than was shipped, as after it was wiped; how many rows are missing.

    What is sent again and is there already changes nothing. `known` is what was missing when it was begun anew before:
    rows that PostgreSQL has no more do not come back, however often. Raises ArchiveUnavailable.
    """
    extent = await store.get_extent(clickhouse)
    async with db.begin() as tx:
        shipped = await queries.take_lease(tx, holder=holder)
        if shipped is None:
            return known
        missing = max(0, await count_sealed(tx, number=shipped) - extent.rows)
        if missing <= known and extent.newest_segment >= shipped:
            return missing
        await queries.set_shipped(tx, holder=holder, shipped_to=0)
    log.error("audit_archive_incomplete", count=missing)
    return missing


async def list_older(
    db: Db,
    clickhouse: ClickHouse | None,
    user_id: UUID,
    before: Position,
    most: int,
    *,
    since: datetime = cursors.OLDEST.at,
    until: datetime | None = None,
    actions: tuple[AuditAction, ...] = EVERYTHING,
    actor_kinds: tuple[ActorKind, ...] = EVERYBODY,
) -> list[Row]:
    """Rows of a user that are in the archive alone, before a position, newest first.

    Asked after PostgreSQL: a month that leaves it in between is here then, and what was read there is not before
    `before`. Raises ArchiveUnavailable.
    """
    async with db.read() as conn:
        border = await queries.get_border(conn)
    if border is None or since >= border:
        return []
    if clickhouse is None:
        raise ArchiveUnavailable
    return await store.list_trail(
        clickhouse,
        user_id=user_id,
        since_us=microseconds(since),
        until_us=microseconds(border if until is None else min(until, border)),
        before_us=microseconds(before.at),
        before_id=before.id,
        actions=actions,
        actor_kinds=actor_kinds,
        most=most,
    )


async def list_archived(db: Db, clickhouse: ClickHouse | None, number: int) -> list[SealedRow]:
    """The rows of a segment that have left PostgreSQL. Raises ArchiveUnavailable."""
    async with db.read() as conn:
        border = await queries.get_border(conn)
    if border is None:
        return []
    if clickhouse is None:
        raise ArchiveUnavailable
    rows = distinct(await store.list_segment(clickhouse, first=number, last=number))
    return [row for row in rows if row.timestamp < border]


async def reconcile(
    db: Db,
    clickhouse: ClickHouse,
    *,
    mend: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reconciled:
    """Compare every shipped segment in PostgreSQL and in the archive with what was sealed.

    With `mend`, a segment that the archive does not have right is sent again, when PostgreSQL has all of it: that
    brings back what is missing, and never takes anything away. Raises ArchiveUnavailable.
    """
    number, rows = 0, 0
    differences: list[Difference] = []
    async with db.read() as conn:
        shipped = await queries.get_shipped(conn)
        waiting = len(await list_ranges(conn, after=shipped, most=1_000_000))
    while number < shipped:
        async with db.read() as conn:
            ranges = _batch(await list_ranges(conn, after=number, most=min(MOST_SEGMENTS, shipped - number)))
        if not ranges:
            break
        found, _ = await _compare(db, clickhouse, ranges)
        if mend:
            broken = {each.segment for each in found}
            await _mend(db, clickhouse, [each for each in ranges if each.number in broken])
        differences += found
        number, rows = ranges[-1].number, rows + sum(each.count for each in ranges)
        progress(number, shipped)
    return Reconciled(number, rows, waiting, differences)


async def retire(db: Db, clickhouse: ClickHouse, *, before: datetime) -> str | None:
    """Drop the oldest month of the trail from PostgreSQL when it ended before a time and the archive has all of it.

    Its name, or None when there is nothing to drop. Raises ArchiveUnavailable.
    """
    async with db.snapshot() as conn:
        month = await queries.get_retirable(conn, before=before)
        if month is None:
            return None
        span = await queries.get_range(conn, since=month.starts_at, until=month.ends_at)
        shipped = await queries.get_shipped(conn)
    count, digest = 0, hashlib.sha256()
    number, reached = 0, span.last is None
    while not reached:
        async with db.read() as conn:
            ranges = _batch(await list_ranges(conn, after=number, most=MOST_SEGMENTS))
        if not ranges or ranges[-1].number > shipped:
            log.warning("audit_partition_stays", reason="not_shipped")
            return None
        number, reached = ranges[-1].number, span.last is not None and ranges[-1].to_xid > span.last
        ranges = [each for each in ranges if span.first is not None and each.to_xid > span.first]
        differences, archived = await _compare(db, clickhouse, ranges)
        if differences:
            log.error("audit_partition_stays", reason="archive_differs")
            return None
        for each in ranges:
            if leaves := [leaf_of(row) for row in archived[each.number] if _is_in(row, month)]:
                count += len(leaves)
                digest.update(hashlib.sha256(b"".join(leaves)).digest())
    conn = await db.dedicated(within_s=600)
    try:
        taken = await queries.take_partition(conn, name=month.name, rows=count, digest=digest.digest())
    finally:
        await conn.close()
    if not taken:
        log.error("audit_partition_stays", reason="count_or_digest")
        return None
    log.info("audit_partition_retired", count=count)
    return month.name


async def _compare(
    db: Db, clickhouse: ClickHouse, ranges: Sequence[SegmentRange]
) -> tuple[list[Difference], dict[int, list[SealedRow]]]:
    """At most one difference for each segment and store; and what the archive has, by segment."""
    if not ranges:
        return [], {}
    first, last = ranges[0].number, ranges[-1].number
    async with db.snapshot() as conn:
        border = await queries.get_border(conn)
        segments = await list_segments(conn, after=first - 1, most=last - first + 1)
        here = await list_rows(conn, from_xid=ranges[0].from_xid, to_xid=ranges[-1].to_xid)
    sent: dict[int, list[WholeRow]] = defaultdict(list)
    for row in await store.list_segment(clickhouse, first=first, last=last):
        sent[row.segment].append(row)
    archived = {each.number: distinct(sent[each.number]) for each in ranges}
    differences: list[Difference] = []
    for segment in segments:
        there = archived[segment.number]
        if found := first_difference(segment, there):
            differences.append(Difference("archive", found.kind, segment.number, found.event_id))
        start, end = (bisect.bisect_left(here, xid, key=_xid) for xid in (segment.from_xid, segment.to_xid))
        gone = [] if border is None else [row for row in there if row.timestamp < border]
        both = sorted([*here[start:end], *gone], key=lambda row: (row.xid, row.event_id))
        if found := first_difference(segment, both):
            differences.append(Difference("postgres", found.kind, segment.number, found.event_id))
    return differences, archived


async def _mend(db: Db, clickhouse: ClickHouse, ranges: Sequence[SegmentRange]) -> None:
    for each in ranges:
        async with db.snapshot() as conn:
            segments: list[Segment] = await list_segments(conn, after=each.number - 1, most=1)
            rows = await list_rows(conn, from_xid=each.from_xid, to_xid=each.to_xid)
        if first_difference(segments[0], rows) is None:
            await _send(clickhouse, [each], rows)


async def _send(clickhouse: ClickHouse, ranges: Sequence[SegmentRange], rows: Sequence[SealedRow]) -> None:
    ends = [each.to_xid for each in ranges]
    numbered = [store.values(ranges[bisect.bisect_right(ends, row.xid)].number, row) for row in rows]
    await store.add_rows(clickhouse, rows=numbered)


def _xid(row: SealedRow) -> int:
    return row.xid


def _batch(ranges: Sequence[SegmentRange]) -> list[SegmentRange]:
    """As many of the first ones as make up an insert, and one at least."""
    taken: list[SegmentRange] = []
    rows = 0
    for each in ranges:
        if taken and rows + each.count > ROWS:
            break
        taken.append(each)
        rows += each.count
    return taken


def _is_in(row: SealedRow, month: Month) -> bool:
    return month.starts_at <= row.timestamp < month.ends_at
