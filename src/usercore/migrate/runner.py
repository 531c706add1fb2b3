"""Applies and rolls back over yoyo: it reads the files and keeps its table; around it is what it lacks.

An advisory lock that dies with its holder, the mark of a migration in the migration's own transaction, and the hash of
what was applied.
"""

import contextlib
import io
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import psycopg
import yoyo.connections
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table

from usercore.migrate.files import Migration, MigrationError, read
from usercore.migrate.planning import PlannedMigration, try_all
from usercore.migrate.store import Applied, applied, connect, fetch, pending_files, refuse_edited

APP_ROLE = "usercore_app"
LOCK_KEY = int.from_bytes(b"usercore", "big")

Progress = Callable[[str], None]


def apply(url: str, progress: Progress, directory: Path | None = None) -> list[str]:
    """Apply what is pending, each migration and its mark in one transaction. Returns the ids; raises MigrationError."""
    files = read(directory)
    done: list[str] = []
    with _runner(url, progress) as backend:
        for migration in pending_files(files, _prepare(backend, files, progress)):
            started = time.monotonic()
            progress(f"Applying {migration.id} ({len(migration.statements)} statements) …")
            _run(backend, migration, "apply")
            progress(f"Applied {migration.id} in {time.monotonic() - started:.1f} s.")
            done.append(migration.id)
        _go_on(_conn(backend), progress)
    if not done:
        progress(f"Nothing to apply: the database is at {files[-1].id if files else 'nothing'}.")
    return done


def pending(url: str, directory: Path | None = None) -> list[str]:
    """Ids that `apply` would apply. Writes nothing."""
    files = read(directory)
    with connect(url) as conn:
        return [migration.id for migration in pending_files(files, applied(conn))]


def rollback(
    url: str, count: int, execute: bool, progress: Progress = lambda _: None, directory: Path | None = None
) -> list[PlannedMigration]:
    """The newest `count` migrations, to be undone newest first; undone only with `execute`."""
    files = {migration.id: migration for migration in read(directory)}
    with _runner(url, progress) if execute else _reader(url) as backend:
        undo: list[Migration] = []
        for row in sorted(applied(_conn(backend)).values(), key=lambda row: row.id, reverse=True)[:count]:
            migration = files.get(row.id)
            if migration is None:
                raise MigrationError(f"{row.id} is not among the files of this version: use the version that made it.")
            if not migration.rollback_statements:
                raise MigrationError(f"{migration.rollback_path.name} is missing or empty: {row.id} cannot be undone.")
            undo.append(migration)
        if not execute:
            return try_all(_conn(backend), [(m.id, m.rollback_statements, m.transactional) for m in undo])
        for migration in undo:
            progress(f"Rolling back {migration.id} ({len(migration.rollback_statements)} statements) …")
            _run(backend, migration, "rollback")
        return [PlannedMigration(m.id, m.rollback_statements, []) for m in undo]


@contextlib.contextmanager
def _runner(url: str, progress: Progress) -> Generator[PostgresqlPsycopgBackend]:
    """yoyo's backend, under our lock and with yoyo's own lock out of the way."""
    with connect(url) as lock:
        if not fetch(lock, "has_lock", LOCK_KEY)[0][0]:
            progress("Another migration is running: waiting for it to end …")
            fetch(lock, "lock_runner", LOCK_KEY)
        with _reader(url) as backend:
            yield backend


@contextlib.contextmanager
def _reader(url: str) -> Generator[PostgresqlPsycopgBackend]:
    connect(url).close()  # for its sentence: yoyo would show a traceback
    # yoyo's get_backend would create and drop a table at each call to see whether DDL is transactional. It is.
    backend = PostgresqlPsycopgBackend(
        yoyo.connections.parse_uri(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)), default_migration_table
    )
    with backend:
        yield backend


def _conn(backend: PostgresqlPsycopgBackend) -> psycopg.Connection[Any]:
    return cast(psycopg.Connection[Any], backend.connection)


def _prepare(backend: PostgresqlPsycopgBackend, files: list[Migration], progress: Progress) -> dict[str, Applied]:
    conn = _conn(backend)
    if not fetch(conn, "has_role", APP_ROLE)[0][0]:
        raise MigrationError(f"The role {APP_ROLE} is missing: create it (login, owning nothing) before migrating.")
    if backend.lock_table not in backend.list_tables():
        backend.create_lock_table()
    elif stale := fetch(conn, "list_stale_locks"):
        progress(f"Removing the lock that process {stale[0][0]} left behind.")
        backend.break_lock()
    backend.ensure_internal_schema_updated()
    if not fetch(conn, "has_bookkeeping")[0][0]:
        fetch(conn, "add_bookkeeping")
        fetch(conn, "add_bookkeeping_grant")
    known = applied(conn)
    refuse_edited(files, known)
    marked = set(cast(list[str], backend.get_applied_migration_hashes()))
    for migration in pending_files(files, known):
        if migration.source.hash in marked:
            progress(f"{migration.id} was applied by yoyo itself: taking its content as it is now.")
            fetch(conn, "add_applied", migration.id, migration.content_hash)
    for unknown in known.keys() - {migration.id for migration in files}:
        progress(f"The database also has {unknown}, which is newer than this version.")
    return applied(conn)


def _go_on(conn: psycopg.Connection[Any], progress: Progress) -> None:
    """A restored database writes its audit trail on after all that was restored with it."""
    if not fetch(conn, "has_clusters")[0][0]:
        return
    (shift,) = fetch(conn, "go_on")[0]
    if shift is not None:
        progress(f"This database was restored from another cluster: its audit trail goes on, transactions + {shift}.")


def _run(backend: PostgresqlPsycopgBackend, migration: Migration, direction: str) -> None:
    """All steps and the mark in one transaction; without one, the mark follows the last step."""
    try:
        # A connection for each, so that what a file sets for its session ends with it. yoyo prints every row it gets.
        with backend.copy() as own, contextlib.redirect_stdout(io.StringIO()):
            if migration.transactional:
                with own.transaction():
                    _steps(own, migration, direction)
                    _mark(own, migration, direction)
            else:
                with own.disable_transactions():
                    _steps(own, migration, direction)
                with own.transaction():
                    _mark(own, migration, direction)
    except psycopg.Error as error:
        raise MigrationError(f"{migration.id}: the connection to Postgres was lost; run it again.") from error


def _steps(own: PostgresqlPsycopgBackend, migration: Migration, direction: str) -> None:
    steps: list[Any] = migration.source.steps
    for number, step in enumerate(steps if direction == "apply" else reversed(steps), 1):
        try:
            getattr(step, direction)(own)
        except psycopg.Error as error:
            raise MigrationError(_failure(migration, number, direction, error)) from error


def _mark(backend: PostgresqlPsycopgBackend, migration: Migration, direction: str) -> None:
    if direction == "rollback":
        backend.unmark_one(migration.source, log=False)
        fetch(_conn(backend), "take_applied", migration.id)
    else:
        backend.mark_one(migration.source, log=False)
        fetch(_conn(backend), "add_applied", migration.id, migration.content_hash)


def _failure(migration: Migration, number: int, direction: str, error: psycopg.Error) -> str:
    what = f"{migration.id} failed" if direction == "apply" else f"The rollback of {migration.id} failed"
    kept = (
        "nothing of it was kept"
        if migration.transactional
        else "the statements before it stay, as it has no transaction"
    )
    # The detail of an error may hold values of rows; its primary message does not.
    reason = (error.diag.message_primary or type(error).__name__).rstrip(".")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        reason = "another session holds a lock that it needs; run it again when traffic is low"
    return f"{what} at statement {number}; {kept}: {reason}."
