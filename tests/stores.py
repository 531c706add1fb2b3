"""Everything that a running service leaves somewhere, read as it lies there: the places that a sweep searches."""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
import redis.asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.canary import Place
from tests.chaos.programs import read_topics
from usercore import kafka
from usercore.clickhouse import ClickHouse, migrations
from usercore.db import Conn
from usercore.devstack.clickhouse import ClickHouse as ClickHouseServer
from usercore.devstack.kafka import Kafka
from usercore.devstack.provision import TOPICS
from usercore.devstack.redis import Redis
from usercore.settings import Settings

_numbers = itertools.count(1)

# Partitions as the tables that they are; a partitioned table holds nothing itself. Binary columns as their bytes,
# all others as text.
_COLUMNS = """
select
    format('%I.%I.%I', n.nspname, c.relname, a.attname) as name,
    format(
        case when coalesce(nullif(t.typbasetype, 0), t.oid) = 'bytea'::regtype
        then 'select %1$I::bytea as data from %2$I.%3$I where %1$I is not null'
        else 'select convert_to(%1$I::text, ''UTF8'') as data from %2$I.%3$I where %1$I is not null' end,
        a.attname, n.nspname, c.relname
    ) as query
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
where c.relkind in ('r', 'm', 'f') and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
order by 1
"""


async def postgres_places(owner: Conn) -> list[Place]:
    """Every column of every table that is there, whatever schema it is in."""
    found: list[Place] = []
    for column in await owner.fetch(_COLUMNS):
        values = [bytes(row["data"]) for row in await owner.fetch(column["query"])]
        found.append(Place("postgres", column["name"], b"\n".join(values)))
    return found


async def clickhouse_places(archive: ClickHouse) -> list[Place]:
    """Every column of the archive."""
    found: list[Place] = []
    for (name,) in await archive.fetch("select name from system.columns where database = currentDatabase()"):
        rows = await archive.fetch(f"select hex(toString({name})) from user_audit")
        found.append(Place("clickhouse", name, b"\n".join(bytes.fromhex(row[0] or "") for row in rows)))
    return found


async def redis_places(url: str) -> list[Place]:
    """Every key with its value, of whatever type."""
    client = redis.asyncio.Redis.from_url(url)
    found: list[Place] = []
    try:
        async for key in client.scan_iter():
            name = repr(key)[1:]
            found += [Place("redis", f"key {name}", key), Place("redis", f"value of {name}", await _value(client, key))]
    finally:
        await client.aclose()
    return found


async def _value(client: redis.asyncio.Redis, key: bytes) -> bytes:
    kind = cast("bytes", await client.type(key)).decode()
    read = {
        "none": ["exists", key],
        "string": ["get", key],
        "list": ["lrange", key, 0, -1],
        "set": ["smembers", key],
        "zset": ["zrange", key, 0, -1],
        "hash": ["hgetall", key],
        "stream": ["xrange", key, "-", "+"],
    }[kind]
    return b"\n".join(_flat(await client.execute_command(*read)))


def _flat(value: object) -> Iterable[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for pair in cast("dict[object, object]", value).items():
            yield from _flat(pair)
    elif isinstance(value, list | tuple | set):
        for item in cast("Iterable[object]", value):
            yield from _flat(item)


async def topics_of(settings: Settings) -> list[str]:
    """Every topic that the cluster has, its own ones too."""
    client = kafka.consumer(settings, group=None)
    await client.start()
    try:
        return sorted(cast("set[str]", await client.topics()))
    finally:
        await client.stop()


async def kafka_places(settings: Settings) -> list[Place]:
    """Key, value and each header of every record."""
    found: list[Place] = []
    for record in await read_topics(settings, *await topics_of(settings)):
        name = f"{record.topic} {record.partition}:{record.offset}"
        found.append(Place("kafka", f"{name} key", record.key or b""))
        found.append(Place("kafka", f"{name} value", record.value or b""))
        for header, value in record.headers:
            found.append(Place("kafka", f"{name} header {header}", header.encode() + b"\n" + value))
    return found


async def is_archived(owner: Conn) -> bool:
    """But for what is written meanwhile: the probes of this test read nothing."""
    archived = await owner.fetchval(
        "select shipped_to = (select max(number) from audit_segments) and not exists (select from user_audit "
        "where xid >= (select max(to_xid) from audit_segments)) from audit_archive"
    )
    return archived is True


async def is_published(owner: Conn) -> bool:
    return await owner.fetchval("select count(*) from outbox") == 0


class SpanReceiver:
    """An OTLP receiver over HTTP: keeps what is exported as it came."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._server = TestServer(app)

    async def __aenter__(self) -> "SpanReceiver":
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def endpoint(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def _take(self, request: web.Request) -> web.Response:
        # aiohttp has undone a compression by here. Strings lie in protobuf as they are.
        sent = b"\n".join(name + b": " + value for name, value in request.raw_headers)
        self.places.append(Place("spans", f"export {len(self.places)}", sent + b"\n\n" + await request.read()))
        return web.Response(content_type="application/x-protobuf")


@pytest.fixture
def archive_url(clickhouse: ClickHouseServer, environ: dict[str, str]) -> Generator[str]:
    """A migrated database of its own, of which a service is told that starts after this."""
    name = f"test_{os.getpid()}_{next(_numbers)}"

    async def run(database: str, *statements: str) -> None:
        server = ClickHouse(clickhouse.url(database))
        for statement in statements or migrations(None):
            await server.fetch(statement)
        await server.close()

    # In a thread, for this may be asked for where a loop is running.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run("default", f"create database {name}")).result()
        thread.submit(asyncio.run, run(name)).result()
        environ["CLICKHOUSE_URL"] = clickhouse.url(name)
        yield clickhouse.url(name)
        thread.submit(asyncio.run, run("default", f"drop database {name}")).result()


@pytest_asyncio.fixture
async def archive(archive_url: str) -> AsyncGenerator[ClickHouse]:
    archive = ClickHouse(archive_url)
    yield archive
    await archive.close()


@pytest.fixture
def mock_kafka(server_home: Callable[[str], Path], environ: dict[str, str]) -> Generator[Kafka]:
    """For one test alone, so that everything on its topics is that test's; up in half a second."""
    server = Kafka(server_home("kafka"), kind="mock")
    server.start()
    server.create_topics(TOPICS)
    environ["KAFKA_BROKERS"] = server.brokers
    yield server
    server.kill()


@pytest.fixture
def own_redis(fresh_redis: Callable[[], Redis], environ: dict[str, str]) -> Redis:
    server = fresh_redis()
    environ["REDIS_URL"] = server.url
    return server
