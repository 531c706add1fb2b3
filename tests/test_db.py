"""The pool, transactions, what is reported as unavailable, and how statements are compiled and called."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import psycopg
import pytest
from msgspec import Struct

from tests.databases import DatabaseUrls
from tests.servers import Postgres
from tests.waiting import eventually
from usercore.db import Conn, Db, PoolStats, Sql, network_allowed, outside_transaction
from usercore.errors import DatabaseUnavailable, NetworkInTransaction, NoRow, UserNotFound

SQL = """\
-- name: add_consumed
insert into inbox (topic, event_id) values (:topic, :event_id);

-- name: count_consumed
select count(*) from inbox where topic = :topic;

-- name: list_numbers
-- Numbers of which some
-- are odd.
select n::int, 'odd: :n' as text from generate_series(1, :most::int) as n where n % 2 = 1; -- :comment

-- name: get_number
select n::int from generate_series(1, :most::int) as n;

-- name: list_pairs
select * from unnest(:pairs.left::int[], :pairs.right::text[]);

-- name: get_sum
select :pair.left::int + :more::int as sum, :pair.right::text || $$ :no $$ || $tag$ $$ :no $tag$ || E'\\' :no' as text;

-- name: run_sleep
select pg_sleep(:seconds::float8);
"""


class Pair(Struct, frozen=True):
    left: int
    right: str


@pytest.fixture
def sql(tmp_path: Path) -> Sql:
    (tmp_path / "sample.sql").write_text(SQL, encoding="utf-8")
    return Sql("sample", directory=tmp_path)


# -------------------------------------------------------------------------------------------------------- statements


async def test_cardinality_is_the_return_annotation(sql: Sql, tx: Conn):
    @sql
    async def list_numbers(conn: Conn, *, most: int) -> list[Pair]: ...
    @sql
    async def get_number(conn: Conn, *, most: int = 1) -> int: ...

    assert await list_numbers(tx, most=3) == [Pair(1, "odd: :n"), Pair(3, "odd: :n")]
    assert await list_numbers(tx, most=0) == []
    assert await get_number(tx) == 1
    with pytest.raises(NoRow, match=r"sample\.get_number"):
        await get_number(tx, most=0)
    with pytest.raises(RuntimeError, match=r"sample\.get_number promised at most one row and gave 2"):
        await get_number(tx, most=2)


async def test_optional_is_none_without_a_row(sql: Sql, tx: Conn):
    @sql
    async def get_number(conn: Conn, *, most: int) -> int | None: ...

    assert await get_number(tx, most=1) == 1
    assert await get_number(tx, most=0) is None


async def test_fields_of_structs_and_of_their_sequences(sql: Sql, tx: Conn):
    @sql
    async def list_pairs(conn: Conn, *, pairs: Sequence[Pair]) -> list[Pair]: ...
    @sql
    async def get_sum(conn: Conn, *, pair: Pair, more: int) -> Pair: ...

    rows = [Pair(1, "a"), Pair(2, "b")]
    assert await list_pairs(tx, pairs=rows) == rows
    assert await list_pairs(tx, pairs=[]) == []
    assert await get_sum(tx, pair=Pair(1, "x"), more=2) == Pair(3, "x :no  $$ :no ' :no")


def test_a_statement_carries_its_name_and_description(sql: Sql):
    @sql
    async def list_numbers(conn: Conn, *, most: int) -> list[Pair]: ...

    statement = sql.statements["list_numbers"]
    assert statement.text.startswith(
        "-- name: sample.list_numbers\nselect /* sample.list_numbers */ n::int, 'odd: :n' as"
    )
    assert "generate_series(1, $1::int)" in statement.text
    assert statement.description == "Numbers of which some are odd."
    assert list_numbers.__name__ == "list_numbers"


async def test_wrong_arguments_are_type_errors(sql: Sql, tx: Conn):
    @sql
    async def get_number(conn: Conn, *, most: int) -> int: ...

    for arguments in ({}, {"most": 1, "least": 0}):
        with pytest.raises(TypeError):
            await get_number(tx, **arguments)


# ------------------------------------------------------------------------------------------------------ transactions


def declare_consumed(sql: Sql):
    @sql
    async def add_consumed(conn: Conn, *, topic: str, event_id: UUID) -> None: ...
    @sql
    async def count_consumed(conn: Conn, *, topic: str) -> int: ...

    return add_consumed, count_consumed


async def test_begin_commits_and_rolls_back(sql: Sql, db: Db):
    add, count = declare_consumed(sql)
    async with db.begin() as tx:
        await add(tx, topic="kept", event_id=uuid4())

    async def refuse() -> None:
        async with db.begin() as tx:
            await add(tx, topic="gone", event_id=uuid4())
            raise UserNotFound

    with pytest.raises(UserNotFound):
        await refuse()
    async with db.read() as conn:
        assert await count(conn, topic="kept") == 1
        assert await count(conn, topic="gone") == 0
    assert db.pool_stats() == PoolStats(size=2, idle=2, in_use=0, max_size=10)


async def test_a_cancelled_transaction_leaves_nothing_and_returns_its_connection(sql: Sql, db: Db):
    add, count = declare_consumed(sql)

    @sql
    async def run_sleep(conn: Conn, *, seconds: float) -> None: ...

    async def verb() -> None:
        async with db.begin() as tx:
            await add(tx, topic="cancelled", event_id=uuid4())
            started.set()
            await run_sleep(tx, seconds=60)

    started = asyncio.Event()
    task = asyncio.create_task(verb())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.read() as conn:
        assert await count(conn, topic="cancelled") == 0
    assert db.pool_stats().in_use == 0


async def test_no_network_inside_a_transaction(db: Db):
    outside_transaction()
    async with db.read():
        outside_transaction()
    async with db.begin():
        with pytest.raises(NetworkInTransaction):
            outside_transaction()
        with network_allowed():
            outside_transaction()
        with pytest.raises(NetworkInTransaction):
            outside_transaction()
    outside_transaction()


async def test_a_task_that_outlives_the_transaction_is_outside_again(db: Db):
    ended = asyncio.Event()

    async def later() -> None:
        await ended.wait()
        outside_transaction()

    async with db.begin():
        task = asyncio.create_task(later())
    ended.set()
    await task


# ---------------------------------------------------------------------------------------------------- unavailability


async def test_data_errors_pass_through(sql: Sql, db: Db):
    add, _ = declare_consumed(sql)
    event_id = uuid4()

    async def repeat() -> None:
        async with db.begin() as tx:
            await add(tx, topic="twice", event_id=event_id)
            await add(tx, topic="twice", event_id=event_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await repeat()
    with pytest.raises(asyncpg.DataError):
        async with db.read() as conn:
            await add(conn, topic="bad", event_id="no uuid")  # pyright: ignore[reportArgumentType] - that is the point


async def test_a_full_pool_and_a_slow_command_are_unavailable(
    sql: Sql, database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("usercore.db.ACQUIRE_SECONDS", 0.5)
    monkeypatch.setattr("usercore.db.COMMAND_SECONDS", 0.2)

    @sql
    async def run_sleep(conn: Conn, *, seconds: float) -> None: ...

    db = await Db.connect(database.app, max_size=1)
    with pytest.raises(DatabaseUnavailable) as slow:
        async with db.begin() as tx:
            await run_sleep(tx, seconds=10)
    assert isinstance(slow.value.__cause__, TimeoutError)
    async with db.read():
        with pytest.raises(DatabaseUnavailable) as full:
            async with db.read():
                pass
    assert isinstance(full.value.__cause__, TimeoutError)
    await db.close()


async def test_a_connection_that_is_killed_is_unavailable_and_replaced(db: Db, admin: psycopg.Connection):
    async def lose() -> None:
        async with db.begin() as tx:
            pid = await tx.fetchval("select pg_backend_pid()")
            admin.execute("select pg_terminate_backend(%s)", [pid])
            await tx.fetchval("select 1")

    with pytest.raises(DatabaseUnavailable):
        await lose()
    async with db.begin() as tx:
        assert await tx.fetchval("select 1") == 1


async def test_a_start_without_postgres_and_its_return(fresh_postgres: Callable[[], Postgres]):
    server = fresh_postgres()
    server.create_database("away")
    url = server.app_url("away")
    server.kill()
    db = await Db.connect(url)
    assert db.pool_stats().size == 0
    with pytest.raises(DatabaseUnavailable):
        async with db.begin():
            pass
    server.start()
    async with db.begin() as tx:
        assert await tx.fetchval("select 1") == 1
    server.kill()
    with pytest.raises(DatabaseUnavailable):
        async with db.begin() as tx:
            await tx.fetchval("select 1")
    server.start()

    async def back() -> bool:
        # A connection that was broken while it lay in the pool shows at its next use, and is thrown away then.
        try:
            async with db.read() as conn:
                return await conn.fetchval("select 1") == 1
        except DatabaseUnavailable:
            return False

    await eventually(back)
    await db.close()


async def test_a_closed_db_is_unavailable(database: DatabaseUrls):
    db = await Db.connect(database.app)
    await db.close()
    await db.close()
    with pytest.raises(DatabaseUnavailable):
        async with db.read():
            pass


async def test_the_session_is_as_we_rely_on(db: Db):
    async with db.read() as conn:
        assert await conn.fetchval("show jit") == "off"
        assert await conn.fetchval("show application_name") == "usercore-test"
