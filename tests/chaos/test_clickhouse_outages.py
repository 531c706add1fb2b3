"""ClickHouse killed, paused, slow and wiped under load: the API does not notice, and afterwards all of it is there."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.accounts.test_holds import party
from tests.chaos.outages import component_becomes
from tests.proxy import Proxy, proxy_to
from tests.servers import ClickHouse as Server
from tests.service import Client, Person
from tests.waiting import eventually
from usercore import worker
from usercore.archive.actions import reconcile
from usercore.clickhouse import ClickHouse
from usercore.outbox import SYSTEM
from usercore.users.actions import create_user
from usercore.worker import Parts

REQUESTS_PER_S = 200
SECONDS = 3
AT_MOST_S = 1.0
"""For one request, whatever ClickHouse does: far below the time-outs of its connections."""


@pytest.fixture
def server(fresh_clickhouse: Callable[[], Server]) -> Server:
    return fresh_clickhouse()


@pytest_asyncio.fixture
async def proxy(server: Server, environ: dict[str, str]) -> AsyncGenerator[Proxy]:
    """Between the service and a ClickHouse of its own."""
    direct = ClickHouse(server.url())
    await direct.migrate()
    await direct.close()
    async with proxy_to("127.0.0.1", server.port) as proxy:
        url = urlsplit(server.url())
        environ["CLICKHOUSE_URL"] = url._replace(
            netloc=f"{url.username}:{url.password}@127.0.0.1:{proxy.port}"
        ).geturl()
        yield proxy


async def load(client: Client, people: list[Person]) -> list[float]:
    """Reads at a steady rate; how long each took. Every one of them is answered."""
    risk = party(client, "risk-engine")

    async def one(number: int) -> float:
        asha = people[number % len(people)]
        started = time.monotonic()
        reply = await (risk.get(f"/internal/users/{asha.id}/audit?limit=5") if number % 10 == 0 else asha.get())
        assert reply.status == 200, reply.body
        return time.monotonic() - started

    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[float]] = []

    def begin(number: int) -> None:
        tasks.append(loop.create_task(one(number)))

    async def all_begun() -> bool:
        return len(tasks) == REQUESTS_PER_S * SECONDS

    began = loop.time()
    for number in range(REQUESTS_PER_S * SECONDS):
        loop.call_at(began + number / REQUESTS_PER_S, begin, number)
    await eventually(all_begun)
    return list(await asyncio.gather(*tasks))


@pytest.mark.parametrize("state", ["killed", "paused", "slow", "wiped"])
async def test_clickhouse_away(
    monkeypatch: pytest.MonkeyPatch, server: Server, proxy: Proxy, parts: Parts, client: Client, state: str
) -> None:
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 1.0)
    people = [client.user() for _ in range(20)]
    for person in people:
        await create_user(parts.db, parts.keyring, person.id, None, SYSTEM)
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(parts, ("sealer", "shipper"), stop))
    direct = ClickHouse(server.url())
    try:
        await eventually(lambda: has_rows(direct, 20))
        pid = server.pid()
        assert pid
        if state == "killed":
            server.kill()
        elif state == "paused":
            os.kill(pid, signal.SIGSTOP)
        elif state == "slow":
            proxy.delay_s = 2.0
        else:
            await direct.fetch("truncate table user_audit")
        took = await load(client, people)
        assert sorted(took)[int(len(took) * 0.99)] < AT_MOST_S
        if state in ("killed", "paused"):
            await component_becomes(client, "clickhouse", "unavailable")
        if state == "killed":
            server.start()
        elif state == "paused":
            os.kill(pid, signal.SIGCONT)
        proxy.delay_s = 0.0
        await component_becomes(client, "clickhouse", "ok")
        rows = 20 + REQUESTS_PER_S * SECONDS * 9 // 10
        await eventually(lambda: has_rows(direct, rows), within_s=90)
    finally:
        stop.set()
        await working
    found = await reconcile(parts.db, direct)
    assert (found.differences, found.waiting) == ([], 0)
    events = await direct.fetch("select count(), uniqExact(event_id) from user_audit")
    assert events[0][1] == found.rows
    await direct.close()


async def has_rows(archive: ClickHouse, count: int) -> bool:
    return (await archive.fetch("select uniqExact(event_id) from user_audit"))[0][0] >= count
