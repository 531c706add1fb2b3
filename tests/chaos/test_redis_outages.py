"""Redis away, slow, silent and wiped: nobody notices but the readiness probe, and limits go on."""

from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import redis.asyncio

from tests.chaos.outages import ALL_WELL, ask, component_becomes, running
from tests.proxy import Proxy, proxy_to
from tests.service import Client, Person, Signer
from usercore.devstack.redis import Redis

LIMIT = 6
AT_MOST_S = 2.0


@pytest_asyncio.fixture
async def proxy(fresh_redis: Callable[[], Redis], environ: dict[str, str]) -> AsyncGenerator[Proxy]:
    """Between the service and a Redis of its own."""
    url = urlsplit(fresh_redis().url)
    async with proxy_to(str(url.hostname), url.port or 6379) as proxy:
        environ["REDIS_URL"] = url._replace(netloc=f":{url.password}@127.0.0.1:{proxy.port}").geturl()
        environ["PROFILE_PATCH_LIMIT_PER_MINUTE"] = str(LIMIT)
        yield proxy


@pytest_asyncio.fixture
async def client(proxy: Proxy, environ: dict[str, str], signer: Signer) -> AsyncGenerator[Client]:
    async with running(environ, signer) as client:
        yield client


async def patch(person: Person) -> int:
    return (await person.patch({"first_name": "Asha"})).status


@pytest.mark.parametrize("state", ["closed", "slow", "silent"])
async def test_redis_away(proxy: Proxy, client: Client, state: str) -> None:
    asha = client.user()
    assert await ask(asha, within_s=AT_MOST_S) == ALL_WELL
    assert await patch(asha) == 200
    if state == "closed":
        proxy.refuse = True
        proxy.cut()
    elif state == "slow":
        proxy.delay_s = 0.2
    else:
        proxy.swallow = True

    assert await ask(asha, within_s=AT_MOST_S) == ALL_WELL
    await component_becomes(client, "redis", "unavailable")
    statuses = [await patch(asha) for _ in range(LIMIT)]
    assert statuses == [200] * (LIMIT - 3) + [429] * 3, "attempts before the outage count"
    assert (await asha.get()).headers["ETag"] == '"4"'

    proxy.refuse, proxy.delay_s, proxy.swallow = False, 0.0, False
    await component_becomes(client, "redis", "ok")
    ravi = client.user()
    assert await ask(ravi, within_s=AT_MOST_S) == ALL_WELL
    assert [await patch(ravi) for _ in range(LIMIT)] == [200] * (LIMIT - 1) + [429]


async def test_redis_wiped(client: Client, environ: dict[str, str]) -> None:
    """It has to be taught its script again, and this process remembers the attempts that it has let through."""
    asha = client.user()
    assert [await patch(asha) for _ in range(2)] == [200] * 2
    async with redis.asyncio.Redis.from_url(environ["REDIS_URL"]) as server:
        assert await server.dbsize() == 1
        await server.flushall()
        await server.script_flush()
        assert [await patch(asha) for _ in range(LIMIT)] == [200] * (LIMIT - 2) + [429] * 2
        assert await server.dbsize() == 1, "it is counted there again"
    assert await ask(client.user(), within_s=AT_MOST_S) == ALL_WELL
