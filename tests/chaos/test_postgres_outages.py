"""Postgres stopped, killed and silent: 503 in time, not a byte without its audit row, and well again by itself."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest_asyncio

from tests.chaos.auth_events import AuthService, created
from tests.chaos.outages import ALL_WELL, BACK_WITHIN_S, Table, ask, component_becomes, running
from tests.proxy import Proxy, proxy_to
from tests.service import Client, Person, Signer
from tests.waiting import eventually
from usercore import migrate
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.settings import Settings

AT_MOST_S = 8.0
"""Two seconds for a connection and five for a statement, which a server that says nothing takes in full."""
DATABASE = "usercore"
READERS = 4

AWAY: Table = {
    "GET /v1/me": "audit_unavailable",
    "HEAD /v1/me": 503,
    "first GET /v1/me": "audit_unavailable",
    "PATCH /v1/me": "database_unavailable",
    "POST /v1/me/consents": "database_unavailable",
    "GET /v1/me/consents": "database_unavailable",
    "PUT /v1/me/notification-prefs": "database_unavailable",
    "GET /v1/me/notification-prefs": "database_unavailable",
    "GET /health/live": 200,
    "GET /metrics": 200,
}


class Stack(NamedTuple):
    postgres: Postgres
    proxy: Proxy
    client: Client


@pytest_asyncio.fixture
async def stack(
    fresh_postgres: Callable[[], Postgres], on_kafka: Settings, environ: dict[str, str], signer: Signer
) -> AsyncGenerator[Stack]:
    """The service with all of its loops on a Postgres of its own, behind a proxy."""
    postgres = fresh_postgres()
    postgres.create_database(DATABASE)
    migrate.apply(postgres.owner_url(DATABASE), lambda _: None)
    url = urlsplit(postgres.app_url(DATABASE))
    async with proxy_to("127.0.0.1", postgres.port) as proxy:
        netloc = f"{url.username}:{url.password}@127.0.0.1:{proxy.port}"
        environ["POSTGRES_URL"] = url._replace(netloc=netloc).geturl()
        environ["POSTGRES_OWNER_URL"] = postgres.owner_url(DATABASE)
        environ["KAFKA_BROKERS"] = on_kafka.kafka_brokers[0]
        async with running(environ, signer, ("consumer", "relay")) as client:
            yield Stack(postgres, proxy, client)


class Readers:
    """People who read their profile all the time, whatever comes of it."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self.statuses: Counter[int] = Counter()
        self.longest = 0.0
        self._stop = asyncio.Event()
        self._reading = [asyncio.create_task(self._read()) for _ in range(READERS)]

    async def _read(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            reply = await self._person.get()
            self.longest = max(self.longest, time.monotonic() - began)
            self.statuses[reply.status] += 1
            assert reply.status == 200 or b"asha" not in reply.body

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._reading)


async def outage(
    stack: Stack, kafka: Kafka, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]
) -> None:
    asha = stack.client.user()
    assert await ask(asha, within_s=AT_MOST_S) == ALL_WELL
    readers = Readers(asha)
    await begin()
    answers, _ = await asyncio.gather(
        ask(asha, within_s=AT_MOST_S), component_becomes(stack.client, "postgres", "unavailable")
    )
    assert answers == AWAY
    event = created(uuid4())
    await asyncio.to_thread(AuthService(kafka.brokers).send, [event])

    await end()
    began = time.monotonic()
    await component_becomes(stack.client, "postgres", "ok")

    async def well() -> bool:
        return await ask(asha, within_s=AT_MOST_S) == ALL_WELL

    await eventually(well, within_s=BACK_WITHIN_S)
    owner: Conn = await asyncpg.connect(stack.postgres.owner_url(DATABASE))

    async def consumed_and_published() -> bool:
        users = await owner.fetchval("select count(*) from users where id = $1", event.user_id)
        return users == 1 and not await owner.fetchval("select count(*) from outbox")

    await eventually(consumed_and_published, within_s=BACK_WITHIN_S)
    back = time.monotonic() - began
    await readers.stop()
    reads = await owner.fetchval(
        "select count(*) from user_audit where user_id = $1 and action = 'profile.read'", asha.id
    )
    await owner.close()
    print(
        f"\n{dict(readers.statuses)} of the readers, the longest after {readers.longest:.1f} s; back after {back:.1f} s"
    )
    assert readers.statuses.keys() == {200, 503}
    assert reads >= readers.statuses[200], "each answer has its audit row"
    assert readers.longest < AT_MOST_S
    assert back < BACK_WITHIN_S


async def test_postgres_restarted(stack: Stack, kafka: Kafka) -> None:
    await outage(
        stack, kafka, lambda: asyncio.to_thread(stack.postgres.stop), lambda: asyncio.to_thread(stack.postgres.start)
    )


async def test_postgres_killed(stack: Stack, kafka: Kafka) -> None:
    await outage(
        stack, kafka, lambda: asyncio.to_thread(stack.postgres.kill), lambda: asyncio.to_thread(stack.postgres.start)
    )


async def test_postgres_silent(stack: Stack, kafka: Kafka) -> None:
    async def swallow(yes: bool) -> None:
        stack.proxy.swallow = yes

    await outage(stack, kafka, lambda: swallow(True), lambda: swallow(False))
