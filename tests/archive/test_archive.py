"""The archive in ClickHouse: shipped once and again, compared, read as one trail with Postgres, and left alone."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.accounts.test_holds import party
from tests.accounts.test_sealed_trail import all_sealed, users
from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.service import Client
from tests.waiting import eventually
from usercore.archive.actions import Difference, list_archived, look_after, reconcile, retire, ship
from usercore.archive.queries import get_border, get_range
from usercore.clickhouse import ClickHouse
from usercore.db import Conn
from usercore.errors import ArchiveUnavailable
from usercore.events import now
from usercore.outbox import Actor, AuditRow, Change, add_records, audit_row, record
from usercore.trail.actions import list_rows, verify
from usercore.users.actions import create_user
from usercore.worker import Parts

HOLDER = uuid4()
STAFF = Actor(kind="internal", client="risk-engine")


async def shipped(parts: Parts, archive: ClickHouse, holder: UUID = HOLDER) -> int:
    rows = 0
    while sent := await ship(parts.db, archive, holder):
        rows += sent
    return rows


async def rows_of(archive: ClickHouse) -> list[Any]:
    return await archive.fetch("select segment, toString(event_id), resource from user_audit order by segment, xid")


async def a_shipped_trail(parts: Parts, archive: ClickHouse, segments: int = 3) -> None:
    """Segments of four rows."""
    for _ in range(segments):
        await users(parts, 4)
        assert await all_sealed(parts) == 4
    assert await shipped(parts, archive) == 4 * segments


async def an_old_month(owner: Conn, starts: datetime) -> datetime:
    """A partition for a month that is over; when it ends."""
    ends = (starts + timedelta(days=31)).replace(day=1)
    name = f"user_audit_{starts:%Y_%m}"
    await owner.execute(f"create table {name} (like user_audit including defaults including constraints)")
    await owner.execute(
        f"create trigger user_audit_no_truncate before truncate on {name} "
        "for each statement execute function user_audit_guard()"
    )
    await owner.execute(
        f"alter table user_audit attach partition {name} for values from ('{starts:%Y-%m-%d}+00') "
        f"to ('{ends:%Y-%m-%d}+00')"
    )
    await owner.execute("insert into audit_partitions values ($1, $2, $3)", name, starts, ends)
    return ends


OLD = datetime(2026, 1, 1, tzinfo=UTC)


async def old_rows(parts: Parts, user: UUID, count: int, starts: datetime = OLD) -> list[UUID]:
    """Masked reads of a user in an old month, three at each moment; their event ids, oldest first."""
    rows: list[AuditRow] = []
    for number in range(count):
        change = Change(
            action="profile.read" if number % 2 else "prefs.updated",
            user_id=user,
            resource="user_profiles",
            new={"fields": ["phone"]},
        )
        rows.append(audit_row(change, STAFF, starts + timedelta(minutes=number // 3)))
    async with parts.db.begin() as tx:
        await add_records(tx, audit=rows, events=[])
    return [row.event_id for row in sorted(rows, key=lambda row: (row.timestamp, row.event_id))]


async def test_shipped_once_and_again(archive: ClickHouse, parts: Parts) -> None:
    await a_shipped_trail(parts, archive)
    assert [row[0] for row in await rows_of(archive)] == [1] * 4 + [2] * 4 + [3] * 4
    found = await reconcile(parts.db, archive)
    assert (found.segments, found.rows, found.waiting, found.differences) == (3, 12, 0, [])
    # A crash after the insert and before it was written down: all of it is sent again.
    async with parts.db.begin() as tx:
        await tx.execute("update audit_archive set shipped_to = 1")
    assert await shipped(parts, archive) == 8
    assert (await reconcile(parts.db, archive)).differences == []
    await users(parts, 2)
    assert await all_sealed(parts) == 2
    assert (await reconcile(parts.db, archive)).waiting == 1


async def test_one_ships_at_a_time(archive: ClickHouse, parts: Parts, owner: Conn) -> None:
    await users(parts, 4)
    await all_sealed(parts)
    assert await ship(parts.db, archive, HOLDER) == 4
    await users(parts, 4)
    await all_sealed(parts)
    assert await ship(parts.db, archive, uuid4()) == 0
    await owner.execute("update audit_archive set leased_until = now() - interval '1 second'")
    assert await ship(parts.db, archive, uuid4()) == 4


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        ("alter table user_audit delete where event_id = toUUID('{event}')", "removed"),
        ("insert into user_audit (segment, xid, event_id, actor_kind, action, resource, timestamp_us, leaf_hash) "
         "select segment, xid, toUUID('{new}'), actor_kind, action, resource, timestamp_us, leaf_hash "
         "from user_audit where event_id = toUUID('{event}')", "inserted"),
        ("insert into user_audit (segment, xid, event_id, user_id, actor_kind, action, resource, timestamp_us, "
         "leaf_hash) select segment, xid, event_id, user_id, actor_kind, action, 'nothing', timestamp_us, leaf_hash "
         "from user_audit where event_id = toUUID('{event}')", "changed"),
        ("truncate table user_audit", "removed"),
    ],
)  # fmt: skip
async def test_what_was_done_to_the_archive_is_said(archive: ClickHouse, parts: Parts, edit: str, kind: str) -> None:
    await a_shipped_trail(parts, archive)
    event = (await rows_of(archive))[5][1]
    await archive.fetch(edit.format(event=event, new=UUID(int=0)))
    if "delete" in edit:
        await finished(archive)
    found = await reconcile(parts.db, archive)
    first = found.differences[0]
    assert (first.side, first.kind) == ("archive", kind)
    if "truncate" not in edit:
        assert len(found.differences) == 1
        assert first.segment == 2
    await reconcile(parts.db, archive, mend=True)
    again = await reconcile(parts.db, archive)
    assert bool(again.differences) == (kind in ("inserted", "changed"))


async def finished(archive: ClickHouse) -> None:
    async def done() -> bool:
        waiting = await archive.fetch(
            "select count() from system.mutations where database = currentDatabase() and not is_done"
        )
        return waiting == [(0,)]

    await eventually(done)


async def test_a_row_changed_in_postgres_is_said(archive: ClickHouse, parts: Parts, owner: Conn) -> None:
    await a_shipped_trail(parts, archive)
    event = await owner.fetchval("select event_id from user_audit order by xid, event_id offset 5 limit 1")
    await owner.execute("alter table user_audit disable trigger all")
    await owner.execute("update user_audit set resource = 'nothing' where event_id = $1", event)
    found = await reconcile(parts.db, archive, mend=True)
    assert found.differences == [Difference("postgres", "changed", 2, UUID(str(event)))]


async def test_a_wiped_archive_is_filled_again(archive: ClickHouse, parts: Parts) -> None:
    await a_shipped_trail(parts, archive)
    assert await look_after(parts.db, archive, HOLDER) == 0
    await archive.fetch("drop table user_audit")
    with pytest.raises(ArchiveUnavailable):
        await look_after(parts.db, archive, HOLDER)
    await archive.migrate()
    assert await look_after(parts.db, archive, HOLDER) == 12
    assert await shipped(parts, archive) == 12
    assert await look_after(parts.db, archive, HOLDER) == 0
    assert (await reconcile(parts.db, archive)).differences == []


async def test_what_is_lost_for_good_is_not_sent_for_ever(archive: ClickHouse, parts: Parts, owner: Conn) -> None:
    await an_old_month(owner, OLD)
    user = uuid4()
    await create_user(parts.db, parts.keyring, user, None, STAFF)
    await old_rows(parts, user, 10)
    await all_sealed(parts)
    await shipped(parts, archive)
    assert await retire(parts.db, archive, before=now())
    await archive.fetch("truncate table user_audit")
    missing = await look_after(parts.db, archive, HOLDER)
    assert missing == 11
    await shipped(parts, archive)
    missing = await look_after(parts.db, archive, HOLDER, known=missing)
    assert missing == 10
    assert await shipped(parts, archive) == 0
    found = await reconcile(parts.db, archive)
    assert {(each.side, each.kind) for each in found.differences} == {("archive", "removed"), ("postgres", "removed")}


async def test_a_month_leaves_when_the_archive_has_it(archive: ClickHouse, parts: Parts, owner: Conn) -> None:
    await an_old_month(owner, OLD)
    user = uuid4()
    await create_user(parts.db, parts.keyring, user, None, STAFF)
    events = await old_rows(parts, user, 10)
    assert await retire(parts.db, archive, before=OLD) is None
    assert await retire(parts.db, archive, before=now()) is None, "not sealed yet"
    await all_sealed(parts)
    assert await retire(parts.db, archive, before=now()) is None, "not shipped yet"
    await shipped(parts, archive)
    assert await retire(parts.db, archive, before=now()) == "user_audit_2026_01"
    assert await retire(parts.db, archive, before=now()) is None
    here = await owner.fetchval("select count(*) from user_audit where timestamp < '2026-02-01'")
    assert here == 0
    found = await verify(parts.db, parts.keyring, archived=lambda n: list_archived(parts.db, archive, n))
    assert (found.finding, found.rows) == (None, 11)
    assert (await reconcile(parts.db, archive)).differences == []
    missing = await verify(parts.db, parts.keyring)
    assert missing.finding is not None
    assert missing.finding.kind == "removed"
    assert missing.finding.event_id in events


async def test_a_month_stays_when_the_archive_differs(archive: ClickHouse, parts: Parts, owner: Conn) -> None:
    await an_old_month(owner, OLD)
    user = uuid4()
    await create_user(parts.db, parts.keyring, user, None, STAFF)
    events = await old_rows(parts, user, 10)
    await all_sealed(parts)
    await shipped(parts, archive)
    await archive.fetch(f"alter table user_audit delete where event_id = toUUID('{events[3]}')")
    await finished(archive)
    assert await retire(parts.db, archive, before=now()) is None
    assert await owner.fetchval("select count(*) from user_audit_2026_01") == 10
    # Not by itself either: the function compares what it is told with what is there.
    for rows, digest in ((9, bytes(32)), (10, bytes(32))):
        async with parts.db.begin() as tx:
            assert not await tx.fetchval("select audit_retire_partition('user_audit_2026_01', $1, $2)", rows, digest)
    assert (await reconcile(parts.db, archive, mend=True)).differences != []
    assert await retire(parts.db, archive, before=now()) == "user_audit_2026_01"


@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_a_month_that_leaves_is_here_or_gone(
    archive: ClickHouse, parts: Parts, owner: Conn, how: Callable[[], Interruption]
) -> None:
    """Retirement interrupted at each of its awaits: the month is whole, and it leaves when somebody comes again."""
    user = uuid4()
    await create_user(parts.db, parts.keyring, user, None, STAFF)
    at, starts, gone, here = 0, datetime(2015, 1, 1, tzinfo=UTC), 0, 0
    while True:
        at += 1
        name, ends = f"user_audit_{starts:%Y_%m}", await an_old_month(owner, starts)
        await old_rows(parts, user, 10, starts)
        await all_sealed(parts)
        await shipped(parts, archive)
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(retire(parts.db, archive, before=now()))
        if steps.interrupted_at is None:
            break
        async with parts.db.read() as conn:
            span = await get_range(conn, since=starts, until=ends)
            rows = [] if span.first is None else await list_rows(conn, from_xid=span.first, to_xid=None)
            border = await get_border(conn)
        left = sum(starts <= row.timestamp < ends for row in rows)
        assert (left, border == ends) in ((10, False), (0, True)), steps.interrupted_at
        here, gone = here + (left == 10), gone + (left == 0)
        found = await verify(parts.db, parts.keyring, archived=lambda n: list_archived(parts.db, archive, n))
        assert (found.finding, found.rows) == (None, 10 * at + 1), steps.interrupted_at
        if left:
            assert await retire(parts.db, archive, before=now()) == name
        starts = ends
    assert here > 5
    assert gone >= 1


MANY = 1_000


async def test_one_trail_over_both(archive: ClickHouse, parts: Parts, client: Client, owner: Conn) -> None:
    """Every page size and filter over the border: no gap, no repeat, also while rows come and a month leaves."""
    await an_old_month(owner, OLD)
    user = uuid4()
    await create_user(parts.db, parts.keyring, user, None, STAFF)
    await old_rows(parts, user, MANY)
    async with parts.db.begin() as tx:
        change = Change(action="prefs.updated", user_id=user, resource="notification_prefs", new={"push": True})
        await record(tx, *[change] * MANY, actor=STAFF)
    risk = party(client, "risk-engine")

    async def pages(limit: int, query: str = "", between: Callable[[int], Any] | None = None) -> list[str]:
        seen: list[str] = []
        cursor, page = "", 0
        while True:
            reply = await risk.get(f"/internal/users/{user}/audit?limit={limit}{query}{cursor}")
            assert reply.status == 200, reply.body
            seen += [item["event_id"] for item in reply.json()["items"]]
            page += 1
            if between is not None:
                await between(page)
            if reply.json()["next_cursor"] is None:
                return seen
            cursor = f"&cursor={reply.json()['next_cursor']}"

    queries = (
        "",
        "&action=prefs.updated",
        "&action=profile.read",
        "&from=2026-01-01T00:05:00Z&to=2026-01-01T00:15:00Z",
    )
    before = {query: await pages(200, query) for query in queries}
    assert len(before[""]) == 2 * MANY + 1
    await all_sealed(parts)
    await shipped(parts, archive)

    async def one_more_and_retire(page: int) -> None:
        async with parts.db.begin() as tx:
            await record(tx, change, actor=STAFF)
        if page == 4:
            assert await retire(parts.db, archive, before=now())

    assert await pages(137, between=one_more_and_retire) == before[""]
    for query in queries:
        for limit in (33, 199, 200) if query == "" else (1, 7) if "from" in query else (77,):
            found = await pages(limit, query)
            assert found[-len(before[query]) :] == before[query], (query, limit)
            assert len(found) == len(set(found))


async def test_the_access_log_over_both(archive: ClickHouse, parts: Parts, client: Client, owner: Conn) -> None:
    await an_old_month(owner, OLD)
    asha = client.user()
    assert (await asha.get()).status == 200
    await old_rows(parts, asha.id, 20)

    async def log(limit: int) -> list[Any]:
        seen: list[Any] = []
        cursor = ""
        while True:
            page = (await asha.get(f"/v1/me/access-log?limit={limit}{cursor}")).json()
            seen += page["items"]
            if page["next_cursor"] is None:
                return seen
            cursor = f"&cursor={page['next_cursor']}"

    before = await log(50)
    assert len(before) == 10
    await all_sealed(parts)
    await shipped(parts, archive)
    assert await retire(parts.db, archive, before=now())
    for limit in (1, 3, 10, 50):
        assert await log(limit) == before


async def test_a_page_that_needs_the_archive_says_so(
    archive: ClickHouse, parts: Parts, client: Client, owner: Conn
) -> None:
    await an_old_month(owner, OLD)
    asha = client.user()
    assert (await asha.get()).status == 200
    await old_rows(parts, asha.id, 20)
    await all_sealed(parts)
    await shipped(parts, archive)
    assert await retire(parts.db, archive, before=now())
    risk = party(client, "risk-engine")
    path = f"/internal/users/{asha.id}/audit"
    assert len((await risk.get(path)).json()["items"]) == 22
    await archive.fetch("rename table user_audit to elsewhere")
    reply = await risk.get(path)
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "audit_archive_unavailable", "1")
    # What PostgreSQL has is served all the same, as long as the page needs no more.
    assert (await risk.get(f"{path}?limit=1")).status == 200
    assert (await risk.get(f"{path}?from=2026-02-01T00:00:00Z")).status == 200
    await archive.fetch("rename table elsewhere to user_audit")
    assert (await risk.get(path)).status == 200
