"""What pending migrations would run and which locks they would take, found by trying them."""

import re
import time
from pathlib import Path
from typing import Any, LiteralString, cast

import msgspec
import psycopg

from usercore.migrate.files import read
from usercore.migrate.store import HeldLock, applied, connect, fetch, pending_files, refuse_edited

PLAN_LOCK_SECONDS = 1.0
PLAN_SECONDS = 5.0  # for the whole plan: as long may a writer wait for what it holds


class PlannedMigration(msgspec.Struct, frozen=True):
    """What would run, and the locks it takes on what others may use; `note` says what is not known."""

    id: str
    statements: list[str]
    locks: list[str]
    note: str | None = None


def plan(url: str, directory: Path | None = None) -> list[PlannedMigration]:
    """What `apply` would run. Writes nothing: each migration is tried in one transaction that is rolled back."""
    files = read(directory)
    with connect(url) as conn:
        known = applied(conn)
        refuse_edited(files, known)
        todo = [(m.id, m.statements, m.transactional) for m in pending_files(files, known)]
        return try_all(conn, todo)


_LIMIT = re.compile(r"\s*set\s+(local\s+)?(lock_timeout|statement_timeout)\b", re.IGNORECASE)
_CONCURRENT = re.compile(r"\b(concurrently|validate\s+constraint|vacuum)\b", re.IGNORECASE)


def try_all(conn: psycopg.Connection[Any], todo: list[tuple[str, list[str], bool]]) -> list[PlannedMigration]:
    plans: list[PlannedMigration] = []
    deadline = time.monotonic() + PLAN_SECONDS
    stopped: str | None = None
    with conn.transaction(force_rollback=True):
        before = {row[0] for row in fetch(conn, "list_relations")}
        seen: set[tuple[str, str]] = set()
        for name, statements, transactional in todo:
            shown = [statement for statement in statements if not _LIMIT.match(statement)]
            if not transactional:
                plans.append(PlannedMigration(name, statements, *_derived(shown)))
                stopped = stopped or f"not tried: it may build on {name}, which runs without a transaction"
                continue
            stopped_here = stopped or _try(conn, shown, deadline)
            locks: list[str] = []
            if stopped_here is None:
                held = [HeldLock(*row) for row in fetch(conn, "list_locks")]
                now = {(lock.relation, lock.mode) for lock in held if lock.oid in before}
                locks = [f"{relation}: {mode}" for relation, mode in sorted(now - seen)]
                seen |= now
            elif stopped is None:
                stopped = f"not tried: {name} could not be"
            plans.append(PlannedMigration(name, statements, locks, stopped_here))
    return plans


def _try(conn: psycopg.Connection[Any], statements: list[str], deadline: float) -> str | None:
    """Run the statements in the open transaction; None, or why that did not go."""
    try:
        with conn.transaction():
            for statement in statements:
                left = max(1, int((deadline - time.monotonic()) * 1000))
                fetch(conn, "set_plan_limits", f"{int(PLAN_LOCK_SECONDS * 1000)}ms", f"{left}ms")
                conn.execute(cast(LiteralString, statement))
    except psycopg.errors.LockNotAvailable:
        return "its locks were not free within a second: other sessions hold them now"
    except psycopg.errors.QueryCanceled:
        return f"it takes more than {PLAN_SECONDS:.0f} s: its locks were not held longer to find them all"
    except psycopg.Error as error:
        return f"it would fail: {(error.diag.message_primary or type(error).__name__).rstrip('.')}"
    return None


def _derived(statements: list[str]) -> tuple[list[str], str]:
    if all(_CONCURRENT.search(statement) for statement in statements):
        return ["its tables: ShareUpdateExclusiveLock"], "runs without a transaction: reads and writes go on"
    return [], "runs without a transaction: its locks cannot be tried and are not known"
