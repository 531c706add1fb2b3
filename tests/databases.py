"""Fixtures that give a test a migrated database: a clone of its own, or a transaction on a shared one."""

import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Generator
from typing import LiteralString, NamedTuple, cast

import asyncpg
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from tests.servers import Postgres
from usercore import migrate
from usercore.db import Conn, Db

TEMPLATE = "usercore_template"
OWNER_ROLE = "usercore_owner"

_numbers = itertools.count(1)


class DatabaseUrls(NamedTuple):
    """One database as both roles see it."""

    app: str
    owner: str
    name: str


@pytest.fixture(scope="session")
def admin(postgres: Postgres) -> Generator[psycopg.Connection]:
    """A superuser's connection to the server, for creating and dropping databases."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def template(postgres: Postgres, admin: psycopg.Connection) -> str:
    """Name of a migrated database that no test connects to."""
    _execute(admin, "create database {} owner {}", TEMPLATE, OWNER_ROLE)
    migrate.apply(postgres.owner_url(TEMPLATE), lambda _: None)
    return TEMPLATE


@pytest.fixture
def empty_database(postgres: Postgres, admin: psycopg.Connection) -> Generator[DatabaseUrls]:
    """A database that was never migrated."""
    with _database(postgres, admin, "template1") as urls:
        yield urls


@pytest.fixture
def database(postgres: Postgres, admin: psycopg.Connection, template: str) -> Generator[DatabaseUrls]:
    """A clone for this test alone, where commits matter."""
    with _database(postgres, admin, template) as urls:
        yield urls


@pytest.fixture
def databases(postgres: Postgres, admin: psycopg.Connection, template: str) -> Generator[Callable[[], DatabaseUrls]]:
    """Makes clones, for a test of several services."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(_database(postgres, admin, template))


@pytest_asyncio.fixture
async def db(database: DatabaseUrls) -> AsyncGenerator[Db]:
    """The app's pool on `database`."""
    db = await Db.connect(database.app, name="usercore-test")
    yield db
    await db.close()


@pytest_asyncio.fixture
async def owner(database: DatabaseUrls) -> AsyncGenerator[Conn]:
    """The owner's connection to `database`: sees and changes what the app may not."""
    conn = cast(asyncpg.Connection, await asyncpg.connect(database.owner))
    yield conn
    await conn.close()


@pytest_asyncio.fixture
async def operator(database: DatabaseUrls) -> AsyncGenerator[Db]:
    """Connects as the owner of the tables."""
    db = await Db.connect(database.owner, min_size=1, max_size=4)
    yield db
    await db.close()


@pytest.fixture(scope="session")
def shared_database(postgres: Postgres, admin: psycopg.Connection, template: str) -> Generator[DatabaseUrls]:
    """One clone for all tests that leave nothing behind."""
    with _database(postgres, admin, template) as urls:
        yield urls


@pytest_asyncio.fixture(scope="session")
async def shared_connection(shared_database: DatabaseUrls) -> AsyncGenerator[Conn]:
    conn = cast(asyncpg.Connection, await asyncpg.connect(shared_database.app))
    yield conn
    await conn.close()


@pytest_asyncio.fixture
async def tx(shared_connection: Conn) -> AsyncGenerator[Conn]:
    """The app's connection in a transaction that is rolled back after the test; 0.1 ms instead of a clone's 20."""
    transaction = shared_connection.transaction()
    await transaction.start()
    yield shared_connection
    await transaction.rollback()


@contextlib.contextmanager
def _database(postgres: Postgres, admin: psycopg.Connection, template: str) -> Generator[DatabaseUrls]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _execute(admin, "create database {} template {} owner {}", name, template, OWNER_ROLE)
    try:
        yield DatabaseUrls(app=postgres.app_url(name), owner=postgres.owner_url(name), name=name)
    finally:
        _execute(admin, "drop database {} with (force)", name)


def _execute(admin: psycopg.Connection, statement: LiteralString, *names: str) -> None:
    admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
