"""The service with an archive: a database of its own on a real ClickHouse."""

import itertools
import os
from collections.abc import AsyncGenerator

import pytest_asyncio

from tests.servers import ClickHouse as Server
from usercore.clickhouse import ClickHouse

_numbers = itertools.count(1)


@pytest_asyncio.fixture
async def archive(clickhouse: Server, environ: dict[str, str]) -> AsyncGenerator[ClickHouse]:
    """Migrated, and what the service under test is told of when it starts after this."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    server = ClickHouse(clickhouse.url())
    await server.fetch(f"create database {name}")
    environ["CLICKHOUSE_URL"] = clickhouse.url(name)
    own = ClickHouse(clickhouse.url(name))
    await own.migrate()
    yield own
    await own.close()
    await server.fetch(f"drop database {name}")
    await server.close()
