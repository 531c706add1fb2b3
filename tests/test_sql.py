"""Every typed statement of the service, held against the migrated database: see sqlcheck."""

import importlib
from collections.abc import Generator, Mapping
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import usercore
from tests.databases import DatabaseUrls
from tests.sqlcheck import Checker, missing_stubs
from usercore.db import Conn, Statement, all_statements, resource_dir
from usercore.statements import read_blocks
from usercore.users.queries import get_version

# Statements that only the owner runs.
OWNER_FILES = frozenset({"keys", "migrate"})

# Table → why reading all of it is right, whoever does.
TINY: Mapping[str, str] = {
    "audit_partitions": "one row a month",
    "pii_keyring": "a handful of epochs, read once at start and every few seconds",
    "user_keys_quarantine": "data keys that are damaged; a handful if any",
    "webhook_inbox_keys": "one row a day for a week",
    "usercore_migrations": "one row a migration",
    "yoyo_lock": "one row",
}

# Statement → table → why this statement reads all of it.
UNINDEXED: Mapping[str, Mapping[str, str]] = {
    "keys.list_dependents": {
        table: "an operator asks what depends on each key: all of it has to be counted"
        for table in ("user_keys", "user_profiles", "identity_claims", "audit_segments")
    },
    "keys.count_quarantined": {"user_keys": "the few rows that were put aside are looked up; empty tables are merged"},
    "outbox.get_backlog": {"outbox": "counts all that waits, for a gauge; a row lives for moments"},
}


def import_declarations() -> None:
    """Import every module that declares statements, and only those: the rest has tests of its own."""
    package = Path(usercore.__path__[0])
    for path in sorted(package.rglob("*.py")):
        if "= Sql(" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(["usercore", *path.relative_to(package).with_suffix("").parts]))


import_declarations()
STATEMENTS = sorted(all_statements(), key=lambda statement: statement.name)


@pytest.fixture(scope="module")
def checkers(shared_database: DatabaseUrls) -> Generator[Mapping[bool, Checker]]:
    """By whether the owner runs the statement."""
    with (
        psycopg.connect(shared_database.owner, autocommit=True) as owner,
        psycopg.connect(shared_database.app, autocommit=True) as app,
    ):
        yield {True: Checker(owner, owner), False: Checker(owner, app)}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_declaration_is_that_of_the_database(statement: Statement, checkers: Mapping[bool, Checker]):
    checker = checkers[statement.name.split(".")[0] in OWNER_FILES]
    assert checker.check(statement, {**TINY, **UNINDEXED.get(statement.name, {})}) == []


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
async def test_asyncpg_prepares_it(statement: Statement, shared_connection: Conn):
    await shared_connection.prepare(statement.text)


def test_every_block_has_a_stub():
    blocks = {path.stem: read_blocks(path) for path in resource_dir("sql").glob("*.sql")}
    assert missing_stubs(blocks, STATEMENTS) == []


def test_every_name_is_declared_once():
    names = [statement.name for statement in STATEMENTS]
    assert sorted(set(names)) == names


def test_exceptions_are_used_and_have_a_reason(checkers: Mapping[bool, Checker]):
    by_name = {statement.name: statement for statement in STATEMENTS}
    for name, tables in UNINDEXED.items():
        problems = checkers[False].check(by_name[name], TINY)
        for table, reason in tables.items():
            assert reason
            assert any(table in problem for problem in problems), f"{name} has an index by now: drop its exception"


async def test_pg_stat_statements_speaks_our_names(tx: Conn, admin: psycopg.Connection):
    """PostgreSQL 18 cuts off a comment before the statement: the name has to be inside it as well."""
    admin.execute("create extension if not exists pg_stat_statements")
    for _ in range(2):  # a statement is counted when the next one takes its portal
        await get_version(tx, user_id=uuid4())
    found = admin.execute("select query from pg_stat_statements where query like '%users.get_version%'").fetchall()
    assert any(query.startswith("select /* users.get_version */") for (query,) in found)
