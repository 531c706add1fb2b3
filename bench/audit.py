"""The trail: sealed, shipped and verified in rows a second, how late it is sealed, and a page with much behind it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from uuid import UUID, uuid4

import asyncpg
import msgspec
from msgspec import Struct

from bench import load
from bench.load import Job
from bench.report import Result, at_least, below
from bench.servers import Servers
from usercore import app
from usercore.accounts.actions import Freeze, freeze
from usercore.archive.actions import ship
from usercore.audit.actions import BEGINNING, END, list_trail
from usercore.clickhouse import ClickHouse
from usercore.commands.audit_parts import verify_parts
from usercore.db import Db
from usercore.lookup.actions import Search, search
from usercore.outbox import SYSTEM, Actor, AuditRow, Change, add_records, audit_row
from usercore.server import settle
from usercore.settings import load as load_settings
from usercore.trail.actions import seal
from usercore.users.actions import create_user
from usercore.worker import Parts, seal_trail

ROWS = 200_000
VERIFIED = 1_000_000
BATCH = 5_000
LAG_S = 10
BEHIND = 10_000_000
USERS = 1_000_000
CALLS = 200
ADMIN = Actor(kind="admin", client="backoffice")


class Rates(Struct):
    seal: float = 0
    ship: float = 0
    lag_s: float = 0
    page_ms: float = 0
    search_ms: float = 0
    freeze_ms: float = 0


def run(servers: Servers) -> list[Result]:
    # First, while PostgreSQL has nothing else to do: it cleans up for a while after a million of users.
    verified = _verify(servers.environ("bench_verify"))
    with servers.archive(servers.environ("bench_audit")) as environ:
        rates = asyncio.run(_measure(environ))
        searched, frozen = _over_http(servers, environ)
    return [
        at_least("audit", "sealed, one worker", rates.seal, "rows/s", 5_000),
        at_least("audit", "shipped into ClickHouse, one worker", rates.ship, "rows/s", 50_000),
        at_least("audit", "verified", verified, "rows/s", 200_000),
        below("audit", f"seal lag at {BATCH:,} rows/s, largest", rates.lag_s, "s", 10),
        below("audit", f"first trail page from the archive, {BEHIND:,} rows there, p95", rates.page_ms, "ms", 50),
        below("audit", f"search among {USERS:,} users, p95", rates.search_ms, "ms", 20),
        below("audit", "freeze, p95", rates.freeze_ms, "ms", 30),
        below("audit", f"POST /admin/users/search among {USERS:,} users, p95", searched, "ms", 20),
        below("audit", "POST /internal/users/{id}/freeze, p95", frozen, "ms", 30),
    ]


def _over_http(servers: Servers, environ: dict[str, str]) -> tuple[float, float]:
    """The p95 of searches and of freezes, one after the other, of users who are there."""
    emails, users = asyncio.run(_found(environ))
    who = {"authorization": f"Bearer {servers.token(uuid4(), 'admin')}"}
    searches = [load.post("/admin/users/search", who, msgspec.json.encode({"email": email})) for email in emails]
    why = msgspec.json.encode({"reason": "risk_review"})
    freezes = [load.post(f"/internal/users/{user}/freeze", who, why) for user in users]
    with servers.running("usercore", "serve", environ=environ, port=environ["PORT"]), load.client() as client:
        took: list[float] = []
        for requests in (searches, freezes):
            outcome = client.run(Job(int(environ["PORT"]), requests, connections=1))
            assert outcome.statuses.keys() == {200}, outcome.statuses
            took.append(outcome.p95)
    return took[0], took[1]


async def _found(environ: dict[str, str]) -> tuple[list[str], list[UUID]]:
    """Addresses of some users, and others who have keys and are not frozen."""
    owner = await asyncpg.connect(environ["POSTGRES_OWNER_URL"])
    emails = [
        row[0] for row in await owner.fetch("select email from user_profiles where email is not null limit $1", CALLS)
    ]
    await owner.close()
    users = [uuid4() for _ in range(CALLS)]
    async with app.opened(load_settings(environ)) as parts:
        for user in users:
            await create_user(parts.db, parts.keyring, user, None, SYSTEM)
    return emails, users


async def _measure(environ: dict[str, str]) -> Rates:
    async with app.opened(load_settings(environ)) as parts:
        settle()
        assert parts.archive is not None
        owner = await asyncpg.connect(environ["POSTGRES_OWNER_URL"])
        rates = Rates()
        for _ in range(ROWS // BATCH):
            await _write(parts.db, BATCH)
        rates.seal = await _rate(_seal_all(parts))
        rates.ship = await _rate(_ship_all(parts.db, parts.archive))
        rates.lag_s = await _lag(parts)
        rates.page_ms = await _page(parts, parts.archive, owner)
        await owner.execute(
            "insert into users (id, auth_id, status, created_at, updated_at) "
            "select id, id, 'active', at, at from (select gen_random_uuid() as id, "
            f"now() - n * interval '1 second' as at from generate_series(1, {USERS}) n) x; "
            "insert into user_profiles (id, user_id, email, updated_at) "
            "select gen_random_uuid(), id, 'u' || id || '@example.in', now() from users; analyze users, user_profiles"
        )
        rates.search_ms = await _search(parts, owner)
        rates.freeze_ms = await _freeze(parts)
        await owner.close()
        return rates


async def _write(db: Db, count: int) -> None:
    rows: list[AuditRow] = []
    for _ in range(count):
        change = Change(
            action="profile.read", user_id=uuid4(), resource="user_profiles", new={"fields": ["first_name", "phone"]}
        )
        rows.append(audit_row(change, SYSTEM))
    async with db.begin() as tx:
        await add_records(tx, audit=rows, events=[])


async def _rate(work: Awaitable[int]) -> float:
    started = time.perf_counter()
    rows = await work
    return rows / (time.perf_counter() - started)


async def _seal_all(parts: Parts) -> int:
    rows = 0
    while sealed := await seal(parts.db, parts.keyring):
        rows += sealed
    return rows


async def _ship_all(db: Db, archive: ClickHouse) -> int:
    rows, holder = 0, uuid4()
    while sent := await ship(db, archive, holder):
        rows += sent
    return rows


def _verify(environ: dict[str, str]) -> float:
    """As the command does it, with the start of its processes."""

    async def fill() -> None:
        async with app.opened(load_settings(environ)) as parts:
            settle()
            for _ in range(VERIFIED // BATCH):
                await _write(parts.db, BATCH)
            assert await _seal_all(parts) == VERIFIED

    asyncio.run(fill())
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        started = time.perf_counter()
        found = verify_parts(1, None, os.cpu_count() or 1, (), lambda part, count: None)
        seconds = time.perf_counter() - started
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert (found.finding, found.rows) == (None, VERIFIED)
    return found.rows / seconds


async def _lag(parts: Parts) -> float:
    """The age of the oldest row that was not sealed, at its largest."""
    stop = asyncio.Event()
    sealing = asyncio.create_task(seal_trail(parts, stop))
    worst, began = 0.0, time.monotonic()
    written: list[tuple[float, int]] = []
    for second in range(LAG_S):
        await asyncio.sleep(max(0.0, began + second - time.monotonic()))
        written.append((time.monotonic(), (second + 1) * BATCH))
        await _write(parts.db, BATCH)
        async with parts.db.read() as conn:
            sealed = int(await conn.fetchval("select sum(count) from audit_segments") or 0) - ROWS
        waiting = [at for at, upto in written if upto > sealed]
        worst = max(worst, time.monotonic() - min(waiting, default=time.monotonic()))
    stop.set()
    await sealing
    return worst


async def _page(parts: Parts, archive: ClickHouse, owner: asyncpg.Connection) -> float:
    user = UUID(int=7)
    border = datetime(2026, 1, 1, tzinfo=UTC)
    await owner.execute("insert into users (id, auth_id, created_at, updated_at) values ($1, $1, now(), now())", user)
    await owner.execute(
        "insert into audit_partitions values ('gone', $1, $2, now())", border - timedelta(days=31), border
    )
    at = int((border - timedelta(days=20)).timestamp()) * 1_000_000
    for part in range(10):
        await archive.fetch(
            "insert into user_audit (segment, xid, event_id, user_id, actor_kind, action, resource, timestamp_us, "
            f"leaf_hash) select {10**9 + part}, number, toUUID(concat('{part:08}-0000-4000-8000-', "
            "leftPad)), toUUID(concat('00000000-0000-0000-0000-', leftPad2)), 'internal', 'profile.read', "
            f"'user_profiles', {at} + number, toFixedString('', 32) from (select number, "
            "substring(concat('000000000000', toString(number)), -12) as leftPad, "
            "substring(concat('000000000000', toString(number % 10000)), -12) as leftPad2 "
            f"from system.numbers limit {BEHIND // 10})",
            within_s=120,
        )

    async def call() -> None:
        page = await list_trail(
            parts.db, parts.keyring, user, action=None, since=BEGINNING, until=END, limit=50, cursor=None,
            archive=archive,
        )  # fmt: skip
        assert len(page.items) == 50

    return await _p95_ms(call)


async def _search(parts: Parts, owner: asyncpg.Connection) -> float:
    emails = [row[0] for row in await owner.fetch("select email from user_profiles limit $1", CALLS)]

    async def call() -> None:
        await search(parts.db, parts.keyring, Search(email=emails.pop(), status="active"), ADMIN)

    return await _p95_ms(call)


async def _freeze(parts: Parts) -> float:
    users = [uuid4() for _ in range(CALLS)]
    for user in users:
        await create_user(parts.db, parts.keyring, user, None, SYSTEM)

    async def call() -> None:
        await freeze(parts.db, parts.keyring, users.pop(), Freeze("risk_review"), "risk", ADMIN, None)

    return await _p95_ms(call)


async def _p95_ms(call: Callable[[], Awaitable[None]]) -> float:
    took: list[float] = []
    for _ in range(CALLS):
        started = time.perf_counter()
        await call()
        took.append(1000 * (time.perf_counter() - started))
    return quantiles(took, n=20)[-1]
