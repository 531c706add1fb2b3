"""What the database knows of its migrations: connecting, our table beside yoyo's, and the runner's statements."""

from datetime import datetime
from typing import Any, LiteralString, cast
from urllib.parse import urlsplit

import asyncpg
import msgspec
import psycopg

from usercore.migrate.files import Migration, MigrationError
from usercore.statements import Conn, Sql

# yoyo is synchronous, so the runner sends these statements itself, through `fetch`; the stubs hold their types.
sql = Sql("migrate")


class Applied(msgspec.Struct, frozen=True):
    id: str
    content_hash: str
    applied_at: datetime


class HeldLock(msgspec.Struct, frozen=True):
    oid: int
    relation: str
    mode: str


class PlanLimits(msgspec.Struct, frozen=True):
    lock_timeout: str
    statement_timeout: str


@sql
async def has_role(conn: Conn, *, role: str) -> bool: ...
@sql
async def has_bookkeeping(conn: Conn) -> bool: ...
@sql
async def add_bookkeeping(conn: Conn) -> None: ...
@sql
async def add_bookkeeping_grant(conn: Conn) -> None: ...
@sql
async def list_applied(conn: Conn) -> list[Applied]: ...
@sql
async def get_applied_head(conn: Conn) -> str | None: ...
@sql
async def add_applied(conn: Conn, *, id: str, content_hash: str) -> None: ...
@sql
async def take_applied(conn: Conn, *, id: str) -> None: ...
@sql
async def list_stale_locks(conn: Conn) -> list[int]: ...


@sql
async def has_clusters(conn: Conn) -> bool: ...
@sql
async def go_on(conn: Conn) -> int | None: ...
@sql
async def has_lock(conn: Conn, *, key: int) -> bool: ...
@sql
async def lock_runner(conn: Conn, *, key: int) -> None: ...
@sql
async def list_relations(conn: Conn) -> list[int]: ...
@sql
async def list_locks(conn: Conn) -> list[HeldLock]: ...
@sql
async def set_plan_limits(conn: Conn, *, lock_timeout: str, statement_timeout: str) -> PlanLimits: ...


async def applied_head(conn: Conn) -> str | None:
    """Id of the newest migration in the database; None when it was never migrated."""
    try:
        return await get_applied_head(conn)
    except asyncpg.UndefinedTableError:
        return None


def connect(url: str) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="usercore-migrate")
    except psycopg.OperationalError as error:
        at = urlsplit(url)
        reason = str(error).strip().splitlines()[-1].strip()
        raise MigrationError(
            f"Cannot connect to Postgres at {at.hostname}:{at.port or 5432} as {at.username}: {reason}."
        ) from error


def fetch(conn: psycopg.Connection[Any], name: str, *values: object) -> list[tuple[Any, ...]]:
    cursor = psycopg.RawCursor(conn)  # takes $1, as our statements are compiled for asyncpg
    cursor.execute(cast(LiteralString, sql.statements[name].text), values)
    return cursor.fetchall() if cursor.description else []


def applied(conn: psycopg.Connection[Any]) -> dict[str, Applied]:
    if not fetch(conn, "has_bookkeeping")[0][0]:
        return {}
    return {row[0]: Applied(*row) for row in fetch(conn, "list_applied")}


def pending_files(files: list[Migration], known: dict[str, Applied]) -> list[Migration]:
    return [migration for migration in files if migration.id not in known]


def refuse_edited(files: list[Migration], known: dict[str, Applied]) -> None:
    for migration in files:
        row = known.get(migration.id)
        if row is not None and row.content_hash != migration.content_hash:
            raise MigrationError(
                f"{migration.path.name} was edited after it was applied on {row.applied_at:%Y-%m-%d}: "
                "restore it, and put the change into a new migration."
            )
