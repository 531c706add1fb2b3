"""The batched, audited read: what each reader gets, and what the audit trail says, when things break."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.databases import DatabaseUrls
from tests.proxy import Proxy
from tests.waiting import eventually, turns
from usercore import batcher as batching
from usercore.batcher import Batcher
from usercore.db import Conn, Db
from usercore.errors import AuditUnavailable, NetworkInTransaction
from usercore.outbox import SYSTEM, Actor
from usercore.pii.keyring import Keyring
from usercore.profiles import queries
from usercore.profiles.actions import ProfileReader
from usercore.users.actions import UnknownUser, add_users

READERS = 64


@pytest_asyncio.fixture
async def users(db: Db, keyring: Keyring) -> list[UUID]:
    ids = [uuid4() for _ in range(READERS)]
    async with db.begin() as tx:
        await add_users(tx, keyring, [(user_id, f"{user_id}@example.in") for user_id in sorted(ids)], SYSTEM)
    return ids


Outcomes = list[tuple[str, int]]


class Reading:
    """A reader on one database, with what it observed."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self.outcomes: Outcomes = []
        self.reader = ProfileReader(db.dedicated, keyring, lambda outcome, rows: self.outcomes.append((outcome, rows)))


@pytest_asyncio.fixture
async def reading(db: Db, keyring: Keyring) -> AsyncGenerator[Reading]:
    reading = Reading(db, keyring)
    yield reading
    await reading.reader.close()


def actor_of(user_id: UUID) -> Actor:
    return Actor(kind="user", id=user_id)


async def read_all(reader: ProfileReader, users: Sequence[UUID]) -> list[bool]:
    """True for each reader that got its own profile, false for each that got AuditUnavailable."""

    async def one(user_id: UUID) -> bool:
        try:
            me, version = await reader.read(user_id, actor_of(user_id))
        except AuditUnavailable:
            return False
        assert (me.id, version, me.profile.email) == (user_id, 1, f"{user_id}@example.in")
        return True

    return await asyncio.gather(*(one(user_id) for user_id in users))


async def read_rows(owner: Conn) -> dict[UUID, int]:
    rows = await owner.fetch("select user_id, count(*) from user_audit where action = 'profile.read' group by user_id")
    return {row["user_id"]: row["count"] for row in rows}


async def test_each_reader_gets_its_own_profile_and_one_audit_row(
    reading: Reading, users: list[UUID], owner: Conn
) -> None:
    assert all(await read_all(reading.reader, users))
    assert await read_rows(owner) == dict.fromkeys(users, 1)
    assert len(reading.outcomes) < READERS / 2, "64 readers that come together share statements"
    assert sum(rows for _, rows in reading.outcomes) == READERS


async def test_no_audit_no_plaintext(reading: Reading, users: list[UUID], owner: Conn) -> None:
    await owner.execute("revoke insert on user_audit from usercore_app")
    assert not any(await read_all(reading.reader, users))
    assert await read_rows(owner) == {}
    await owner.execute("grant insert on user_audit to usercore_app")
    assert all(await read_all(reading.reader, users))


async def test_an_error_that_is_no_outage_costs_no_connection(
    db: Db, keyring: Keyring, users: list[UUID], owner: Conn
) -> None:
    connections = 0

    async def connect() -> asyncpg.Connection:
        nonlocal connections
        connections += 1
        return await db.dedicated()

    reader = ProfileReader(connect, keyring, lambda outcome, rows: None)
    await owner.execute("revoke insert on user_audit from usercore_app")
    assert not any(await read_all(reader, users)), "each was tried by itself"
    await owner.execute("grant insert on user_audit to usercore_app")
    assert all(await read_all(reader, users))
    assert connections <= batching.LANES
    await reader.close()


async def test_unknown_users_leave_no_row(reading: Reading, owner: Conn) -> None:
    stranger = uuid4()
    with pytest.raises(UnknownUser):
        await reading.reader.read(stranger, actor_of(stranger))
    assert await read_rows(owner) == {}


async def test_one_readers_bad_value_costs_only_that_reader(reading: Reading, users: list[UUID], owner: Conn) -> None:
    reader = reading.reader
    bad = Actor(kind="user", id=users[0], request_id="nul\0byte")  # PostgreSQL text holds no NUL
    results = await asyncio.gather(
        reader.read(users[0], bad),
        *(reader.read(user_id, actor_of(user_id)) for user_id in users[1:]),
        return_exceptions=True,
    )
    assert isinstance(results[0], AuditUnavailable)
    assert not any(isinstance(result, BaseException) for result in results[1:])
    assert await read_rows(owner) == dict.fromkeys(users[1:], 1)


async def test_a_cancelled_reader_does_not_cancel_its_neighbours(
    reading: Reading, users: list[UUID], owner: Conn
) -> None:
    reader = reading.reader
    tasks = [asyncio.create_task(reader.read(user_id, actor_of(user_id))) for user_id in users]
    await turns(1)  # all of them wait now, none has been answered
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert not any(isinstance(result, BaseException) for result in results[1::2])
    assert set(users[1::2]) <= (await read_rows(owner)).keys()


async def test_connections_killed_at_random_moments(
    reading: Reading, users: list[UUID], owner: Conn, database: DatabaseUrls
) -> None:
    reader = reading.reader
    stop = asyncio.Event()
    killed = 0

    async def kill() -> None:
        nonlocal killed
        conn: Conn = await asyncpg.connect(database.app)
        while not stop.is_set():
            killed += cast(
                int,
                await conn.fetchval(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                    "where application_name = 'usercore-test-batch' and datname = current_database()"
                ),
            )
            await conn.execute("select pg_sleep(random() * 0.06)")
        await conn.close()

    killing = asyncio.create_task(kill())
    answered = [result for _ in range(40) for result in await read_all(reader, users)]
    stop.set()
    await killing
    assert killed >= 3
    # A batch whose answer was lost after its commit is tried again with the same event ids: still one row for each.
    rows = sum((await read_rows(owner)).values())
    assert sum(answered) <= rows <= len(answered)
    assert sum(answered) > 0


@pytest.mark.parametrize("moment", ["before", "during", "after"])
async def test_a_connection_lost_around_the_commit(
    proxied: tuple[Proxy, Db], keyring: Keyring, users: list[UUID], owner: Conn, moment: str
) -> None:
    proxy, db = proxied
    reading = Reading(db, keyring)
    reader = reading.reader
    assert all(await read_all(reader, users[:2])), "connects the lanes"
    committed_before = sum((await read_rows(owner)).values())
    if moment == "before":
        proxy.cut()
    elif moment == "after":
        proxy.swallow = True  # the statement commits; its answer is lost
    pending = asyncio.create_task(read_all(reader, users))
    if moment == "after":

        async def committed() -> bool:
            return sum((await read_rows(owner)).values()) > committed_before

        await eventually(committed)
        proxy.swallow = False
    elif moment == "during":
        await turns(3)
    proxy.cut()
    answered = await pending
    assert all(answered), "each is tried again on a new connection"
    rows = await read_rows(owner)
    assert {user_id: rows[user_id] - (user_id in users[:2]) for user_id in users} == dict.fromkeys(users, 1)
    await reading.reader.close()


async def test_the_queue_is_bounded(
    proxied: tuple[Proxy, Db], keyring: Keyring, users: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, db = proxied
    monkeypatch.setattr(batching, "QUEUE_BOUND", 16)
    monkeypatch.setattr(batching, "LARGEST_BATCH", 4)
    reading = Reading(db, keyring)
    reader = reading.reader
    proxy.delay_s = 0.05
    answered = await read_all(reader, users)
    assert answered.count(True) == 16, "what fits waits and is answered"
    assert reading.outcomes.count(("rejected", 1)) == READERS - 16
    await reading.reader.close()


async def test_a_read_inside_a_transaction_is_a_bug(reading: Reading, db: Db) -> None:
    async with db.begin():
        with pytest.raises(NetworkInTransaction):
            await reading.reader.read(uuid4(), SYSTEM)


asker: ContextVar[int] = ContextVar("asker")


async def test_what_fails_for_one_reader_before_or_after_the_statement_costs_only_that_reader(db: Db) -> None:
    def prepare(number: int) -> int:
        if number % 3 == 1:
            raise LookupError(number)
        return number

    async def run(conn: Conn, numbers: Sequence[int]) -> Sequence[int]:
        await conn.fetchval("select 1")
        return numbers

    def finish(number: int) -> int:
        if number % 3 == 2:
            raise ArithmeticError(number)
        assert asker.get() == number, "each is finished in the context of whoever asked"
        return number

    outcomes: Outcomes = []
    batcher = Batcher(
        db.dedicated,
        prepare=prepare,
        run=run,
        finish=finish,
        observe=lambda outcome, rows: outcomes.append((outcome, rows)),
        refusal=lambda _: AuditUnavailable(),
    )

    async def ask(number: int) -> int:
        asker.set(number)
        return await batcher.read(number)

    got = await asyncio.gather(*(ask(number) for number in range(30)), return_exceptions=True)
    assert got[::3] == list(range(0, 30, 3))
    assert all(isinstance(failed, LookupError) for failed in got[1::3])
    assert all(isinstance(failed, ArithmeticError) for failed in got[2::3])
    assert sum(rows for _, rows in outcomes) == 20, "what could not be prepared is not in a statement"
    assert await ask(33) == 33, "the lanes go on"
    await batcher.close()


async def test_no_wake_up_is_lost_in_100_000_rounds(db: Db) -> None:
    async def echo(conn: Conn, requests: Sequence[int]) -> Sequence[int]:
        await conn.fetchval("select 1")
        return [request + 1 for request in requests]

    def same(number: int) -> int:
        return number

    batcher = Batcher(db.dedicated, prepare=same, run=echo, finish=same, refusal=lambda _: AuditUnavailable())

    async def caller(seed: int) -> None:
        pause = random.Random(seed)
        for number in range(100_000 // 32):
            assert await batcher.read(number) == number + 1
            await turns(pause.randrange(3))

    async with asyncio.timeout(120):
        await asyncio.gather(*(caller(seed) for seed in range(32)))
    await batcher.close()


async def test_closing_answers_who_waits(db: Db, keyring: Keyring, users: list[UUID]) -> None:
    reading = Reading(db, keyring)
    reader = reading.reader
    pending = asyncio.create_task(read_all(reader, users))
    await turns(2)
    await reading.reader.close()
    assert all(await pending)
    assert await read_all(reader, users[:1]) == [False]


async def test_statement_promises_one_row_for_each_read(db: Db) -> None:
    async with db.read() as conn:
        assert await queries.read_profiles(conn, reads=[]) == []
