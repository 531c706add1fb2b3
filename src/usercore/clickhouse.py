"""The way to ClickHouse: a few connections, and typed statements from sql/clickhouse/.

ClickHouse's old servers know no bound parameters, so values go into the text: the driver escapes text and UUIDs, and
nothing but these, numbers and tuples of them is let through.
"""

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import update_wrapper
from typing import Any, ParamSpec, TypeVar, cast, get_args, get_type_hints
from uuid import UUID

from asynch.connection import Connection
from asynch.errors import ClickHouseException

from usercore.db import outside_transaction, resource_dir
from usercore.errors import ArchiveUnavailable
from usercore.statements import PLACEHOLDER, read_blocks

CONNECT_S = 2.0
READ_S = 3.0
"""A page of the trail waits no longer; then it is 503."""
WORK_S = 60.0
"""An insert of a batch, or a look at a whole segment."""
MOST_CONNECTIONS = 4

P = ParamSpec("P")
R = TypeVar("R")


class ClickHouse:
    """Connections are opened when needed; one that failed is dropped, for what is left in it belongs to nobody."""

    def __init__(self, url: str, cluster: str | None = None) -> None:
        self._url = url
        self._cluster = cluster
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def fetch(self, text: str, values: dict[str, Any] | None = None, *, within_s: float = READ_S) -> list[Any]:
        """Rows as tuples. Raises ArchiveUnavailable."""
        async with self._connection(within_s) as conn, conn.cursor() as cursor:
            await cursor.execute(text, values)
            return await cursor.fetchall()

    async def insert(self, text: str, rows: Sequence[tuple[Any, ...]], *, within_s: float = WORK_S) -> None:
        """Raises ArchiveUnavailable, also when the rows may have arrived: send them again."""
        async with self._connection(within_s) as conn, conn.cursor() as cursor:
            await cursor.execute(text, list(rows))

    async def migrate(self) -> int:
        """Make what is missing, in the form for one server or for the cluster; how many statements ran.

        Raises ArchiveUnavailable.
        """
        statements = migrations(self._cluster)
        for statement in statements:
            async with self._connection(WORK_S) as conn, conn.cursor() as cursor:
                await cursor.execute(statement)
        return len(statements)

    async def ping(self) -> bool:
        try:
            async with self._connection(1.0) as conn:
                await conn.ping()
        except ArchiveUnavailable:
            return False
        return True

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for conn in idle:
            await _drop(conn)

    @asynccontextmanager
    async def _connection(self, within_s: float) -> AsyncGenerator[Connection]:
        outside_transaction()
        conn: Connection | None = None
        try:
            async with asyncio.timeout(within_s), self._slots:
                conn = self._idle.pop() if self._idle else await self._open()
                yield conn
        except (ClickHouseException, OSError, EOFError) as error:
            # A connection that was idle may have died long ago, and so may all the others.
            await self.close()
            await _drop(conn)
            raise ArchiveUnavailable from error
        except BaseException:
            await _drop(conn)
            raise
        assert conn is not None
        self._idle.append(conn)

    async def _open(self) -> Connection:
        conn = Connection(dsn=self._url)
        async with asyncio.timeout(CONNECT_S):
            await conn.connect()
        return conn


async def _drop(conn: Connection | None) -> None:
    if conn is not None:
        try:
            async with asyncio.timeout(0.1):
                await conn.close()
        except (ClickHouseException, OSError, EOFError):
            return


def migrations(cluster: str | None) -> list[str]:
    """The statements of migrations/clickhouse/, in their order."""
    form = "single" if cluster is None else "cluster"
    files = sorted((resource_dir("migrations") / "clickhouse").glob(f"*.{form}.sql"))
    texts = [re.sub(r"--[^\n]*", "", file.read_text(encoding="utf-8")) for file in files]
    found = [part.strip() for text in texts for part in text.split(";")]
    return [part.replace("$cluster", cluster or "") for part in found if part]


class ClickHouseSql:
    """The statements of sql/clickhouse/<name>.sql, as a decorator for typed stubs; as `Sql` for PostgreSQL."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks = read_blocks(resource_dir("sql") / "clickhouse" / f"{name}.sql")
        self.texts: dict[str, str] = {}

    def __call__(self, stub: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """`list[T]` of Structs built by position, or one T; a stub that takes `rows` inserts them."""
        text = self.blocks[stub.__name__][1]
        hints = get_type_hints(stub)
        arguments = list(inspect.signature(stub).parameters)[1:]
        if arguments == ["rows"]:
            return cast("Callable[P, Coroutine[Any, Any, R]]", update_wrapper(_inserter(text), stub))
        used = {match["argument"] for match in PLACEHOLDER.finditer(text) if match["argument"]}
        if used != set(arguments):
            raise TypeError(f"{self.name}.{stub.__name__}: the SQL and the stub differ in {used ^ set(arguments)}")
        text = PLACEHOLDER.sub(
            lambda match: f"%({match['argument']})s" if match["argument"] else match[0], text.replace("%", "%%")
        )
        self.texts[stub.__name__] = text
        many = get_args(hints["return"])
        row = many[0] if many else hints["return"]

        async def call(conn: ClickHouse, **values: Any) -> Any:
            for name, value in values.items():
                _allow(name, value)
            found = await conn.fetch(text, values, within_s=WORK_S if "first" in values else READ_S)
            return [row(*each) for each in found] if many else row(*found[0])

        return cast("Callable[P, Coroutine[Any, Any, R]]", update_wrapper(call, stub))


def _inserter(text: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def call(conn: ClickHouse, *, rows: Sequence[tuple[Any, ...]]) -> None:
        await conn.insert(text, rows)

    return call


def _allow(name: str, value: object) -> None:
    parts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    # asyncpg's UUIDs are of a class of their own.
    if not all(type(part) in (int, str) or isinstance(part, UUID) for part in parts):
        raise TypeError(f"{name}: only int, str, UUID and tuples of them go into ClickHouse's SQL")
