"""Locks in Postgres that a test holds, so that a program stands still where the test wants it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg

from tests.databases import DatabaseUrls
from tests.waiting import eventually
from usercore.db import Conn

LOCKS_WAITED_FOR = """
    select count(*) from pg_locks l join pg_stat_activity a using (pid)
    where a.datname = current_database() and not l.granted
"""
SHARDS_HELD = """
    select count(*) from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and l.classid = 1869968498
"""


@asynccontextmanager
async def holding(database: DatabaseUrls, statement: str) -> AsyncGenerator[None]:
    """What the statement locks stays locked until the end."""
    conn: Conn = await asyncpg.connect(database.owner)
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(statement)
    try:
        yield
    finally:
        await transaction.rollback()
        await conn.close()


async def becomes(owner: Conn, statement: str, count: int, *arguments: object) -> None:
    """Returns when the statement counts so many."""

    async def counted() -> bool:
        return await owner.fetchval(statement, *arguments) == count

    await eventually(counted, why=statement)
