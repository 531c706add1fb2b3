"""The way to Postgres: `Db` (pool, begin, read), `outside_transaction`, and `Sql` from `statements`."""

import asyncio
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import cast

import asyncpg
import msgspec
from asyncpg.pool import Pool, PoolConnectionProxy

from usercore.errors import DatabaseUnavailable, NetworkInTransaction
from usercore.logs import logger
from usercore.statements import Conn, Sql, Statement, all_statements, resource_dir

__all__ = [
    "Conn",
    "Db",
    "PoolStats",
    "Sql",
    "Statement",
    "all_statements",
    "is_away",
    "network_allowed",
    "outside_transaction",
    "resource_dir",
]

sql = Sql("db")
log = logger(__name__)

ACQUIRE_SECONDS = 2.0  # asyncpg waits for ever by default; a client gets 503 while it still waits for us
COMMAND_SECONDS = 5.0
BATCH_SECONDS = 3.0  # a batch takes milliseconds, and those who come meanwhile wait for it and for their own
# Left to itself PostgreSQL plans a statement over arrays anew whenever they are short, which takes it a millisecond.
PLANNED_ONCE = {"jit": "off", "plan_cache_mode": "force_generic_plan"}
MAX_QUERIES = 1_000_000  # asyncpg replaces a connection after 50,000 queries by default: every few seconds under load

# ---------------------------------------------------------------------------------------------------- unavailability

# Nothing here is the request's fault, and the same call may work in a second. Class 40 (deadlock, serialisation) too:
# a consumer that took it for bad data would throw a good event away.
_AWAY: tuple[type[BaseException], ...] = (
    OSError,  # ConnectionError and TimeoutError (pool, command) are OSErrors
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.LockNotAvailableError,  # somebody holds the row for longer than we wait
)


def is_away(error: BaseException | None) -> bool:
    """True when the error says that Postgres cannot be had now, false for bad data and for everything of our own."""
    # asyncpg reports an argument that it cannot encode as an InterfaceError that is also a ValueError.
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


# -------------------------------------------------------------------------------------- no network in a transaction


class _Open(msgspec.Struct):
    # A task started inside a transaction inherits the variable and may outlive the transaction: so the mark is closed.
    open: bool


_transaction: ContextVar[_Open | None] = ContextVar("usercore_transaction", default=None)


def outside_transaction() -> None:
    """Raise NetworkInTransaction inside `begin`. Every client that leaves the process calls this first."""
    mark = _transaction.get()
    if mark is not None and mark.open:
        raise NetworkInTransaction


@contextmanager
def network_allowed() -> Generator[None]:
    """For the relay alone: the one documented transaction that spans the network."""
    outer = _transaction.get()
    _transaction.set(None)
    try:
        yield
    finally:
        _transaction.set(outer)


# ---------------------------------------------------------------------------------------------------------------- Db


class PoolStats(msgspec.Struct, frozen=True):
    size: int
    idle: int
    in_use: int
    max_size: int


@sql
async def check_cluster(conn: Conn) -> None: ...


async def _at_home(conn: Conn) -> None:
    """Nothing is written to a trail that was restored into another cluster until it was told to go on there."""
    try:
        with suppress(asyncpg.UndefinedFunctionError):  # of a database that was not migrated yet, readiness tells
            await check_cluster(conn)
    except BaseException as error:
        conn.terminate()
        if isinstance(error, asyncpg.ObjectNotInPrerequisiteStateError):
            log.error("database_restored_elsewhere", error)
        raise


async def _keep_session(_: Conn) -> None:
    """Instead of asyncpg's reset, a round trip per release: no session state is ever set on a pooled connection."""


class Db:
    """One pool. It is opened at the first use and again after Postgres was away, so a start never fails for it."""

    def __init__(self, url: str, *, min_size: int, max_size: int, name: str) -> None:
        self._url = url
        self._min_size = min_size
        self._max_size = max_size
        self._name = name
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @classmethod
    async def connect(cls, url: str, *, min_size: int = 2, max_size: int = 10, name: str = "usercore") -> "Db":
        """`name` is the application_name that pg_stat_activity shows."""
        db = cls(url, min_size=min(min_size, max_size), max_size=max_size, name=name)
        try:
            await db._ready()
        except Exception as error:
            if not _is_refused(error):
                raise
        return db

    def begin(self) -> AbstractAsyncContextManager[Conn]:
        """A connection in a transaction: commits at the end of the block, rolls back on any exception.

        Raises DatabaseUnavailable, also for a commit whose outcome is not known.
        """
        return _Begin(self)

    def snapshot(self) -> AbstractAsyncContextManager[Conn]:
        """As `begin`, for statements that have to see the same moment; they only read. Raises DatabaseUnavailable."""
        return _Begin(self, snapshot=True)

    def read(self) -> AbstractAsyncContextManager[Conn]:
        """A connection without a transaction: each statement is its own. Raises DatabaseUnavailable."""
        return _Read(self)

    async def dedicated(self, *, within_s: float = BATCH_SECONDS) -> asyncpg.Connection:
        """A connection beside the pool, which the caller closes. Raises what asyncpg raises when it cannot be had."""
        conn = cast(
            asyncpg.Connection,
            await asyncpg.connect(
                self._url,
                timeout=int(ACQUIRE_SECONDS),
                command_timeout=within_s,
                statement_cache_size=500,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=0,
                server_settings={"application_name": f"{self._name}-batch", **PLANNED_ONCE},
            ),
        )
        await _at_home(conn)
        return conn

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    def pool_stats(self) -> PoolStats:
        if self._pool is None:
            return PoolStats(size=0, idle=0, in_use=0, max_size=self._max_size)
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return PoolStats(size=size, idle=idle, in_use=size - idle, max_size=self._max_size)

    async def _acquire(self) -> tuple[Pool, PoolConnectionProxy]:
        try:
            pool = self._pool or await self._ready()
            # asyncpg's own `timeout` argument makes a task of every acquire: 30 µs.
            async with asyncio.timeout(ACQUIRE_SECONDS):
                return pool, cast(PoolConnectionProxy, await pool.acquire())
        except Exception as error:
            if _is_refused(error):
                raise DatabaseUnavailable from error
            raise

    async def _ready(self) -> Pool:
        async with asyncio.timeout(ACQUIRE_SECONDS), self._opening:
            if self._closed:
                raise asyncpg.InterfaceError("this Db is closed")
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=self._min_size,
                    max_size=self._max_size,
                    max_queries=MAX_QUERIES,
                    timeout=ACQUIRE_SECONDS,
                    command_timeout=COMMAND_SECONDS,
                    init=_at_home,
                    reset=_keep_session,
                    statement_cache_size=500,
                    max_cached_statement_lifetime=0,  # the default prepares everything again every five minutes
                    max_cacheable_statement_size=0,  # the default prepares a long statement at every call
                    server_settings={"application_name": self._name, "jit": "off"},
                )
            return self._pool


def _is_refused(error: BaseException) -> bool:
    # While connecting, whatever Postgres answers (wrong password, no such database) means that it cannot be had.
    return is_away(error) or isinstance(error, asyncpg.PostgresError)


async def _give_back(pool: Pool, conn: PoolConnectionProxy, error: BaseException | None) -> None:
    if isinstance(error, OSError):
        # It is lost, or it has not answered in time: to ask it to cancel and to roll back would take as long again.
        conn.terminate()
    try:
        await pool.release(conn, timeout=ACQUIRE_SECONDS)
    except Exception as failure:
        # The pool has thrown it away then, and what became of the work is known without it.
        if not is_away(failure):
            raise


class _Read:
    __slots__ = ("_conn", "_db", "_pool")

    def __init__(self, db: Db) -> None:
        self._db = db

    async def __aenter__(self) -> Conn:
        self._pool, self._conn = await self._db._acquire()  # pyright: ignore[reportPrivateUsage]
        return self._conn

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        await _give_back(self._pool, self._conn, error)
        if is_away(error):
            raise DatabaseUnavailable from error


class _Begin:
    __slots__ = ("_conn", "_db", "_mark", "_outer", "_pool", "_snapshot", "_transaction")

    def __init__(self, db: Db, *, snapshot: bool = False) -> None:
        self._db = db
        self._snapshot = snapshot

    async def __aenter__(self) -> Conn:
        self._pool, self._conn = await self._db._acquire()  # pyright: ignore[reportPrivateUsage]
        self._transaction = (
            self._conn.transaction(isolation="repeatable_read", readonly=True)
            if self._snapshot
            else self._conn.transaction()
        )
        try:
            await self._transaction.start()
        except BaseException as error:
            await _give_back(self._pool, self._conn, error)
            if is_away(error):
                raise DatabaseUnavailable from error
            raise
        self._outer = _transaction.get()
        self._mark = _Open(open=True)
        _transaction.set(self._mark)
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = error
        try:
            if error is None:
                await self._transaction.commit()
            elif not isinstance(error, OSError):
                await self._rollback()
        except Exception as failure:
            lost = failure
            if is_away(failure):
                raise DatabaseUnavailable from failure
            raise
        finally:
            self._mark.open = False
            _transaction.set(self._outer)
            await _give_back(self._pool, self._conn, lost)
        if is_away(error):
            raise DatabaseUnavailable from error

    async def _rollback(self) -> None:
        try:
            await self._transaction.rollback()
        except Exception as failure:
            # Without its connection the transaction is rolled back by the server; the first error says more.
            if not is_away(failure):
                raise
