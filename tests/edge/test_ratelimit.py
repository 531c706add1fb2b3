"""Limits: exact in Redis, still there without it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from uuid import uuid4

import pytest

from tests.servers import Redis
from tests.waiting import eventually
from usercore import ratelimit
from usercore.errors import RateLimited
from usercore.ratelimit import PROFILE_PATCH, Limiter, RedisAway, RedisGuard, Verdict
from usercore.telemetry import Metrics


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact counts need Redis' answers, also on a machine that is busy with something else."""
    monkeypatch.setattr(ratelimit, "REDIS_TIMEOUT_S", 5.0)


@pytest.fixture
async def guard(redis_server: Redis, patience: None) -> AsyncGenerator[RedisGuard, None]:
    guard = RedisGuard(redis_server.url)
    yield guard
    await guard.close()


def subject() -> str:
    return str(uuid4())


async def allowed(limiter: Limiter, user: str, attempts: int, limit: int = 10) -> int:
    verdicts = await asyncio.gather(*[limiter.hit(PROFILE_PATCH, user, limit, 60) for _ in range(attempts)])
    return sum(verdict.allowed for verdict in verdicts)


async def test_ten_of_eleven_are_allowed(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    verdicts = [await limiter.hit(PROFILE_PATCH, user, 10, 60) for _ in range(11)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 10 + [False]
    assert [verdict.remaining for verdict in verdicts] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert all(1 <= verdict.reset_s <= 60 for verdict in verdicts)


async def test_a_burst_over_two_processes_is_counted_once(redis_server: Redis, patience: None) -> None:
    guards = [RedisGuard(redis_server.url) for _ in range(2)]
    user = subject()
    counts = await asyncio.gather(*[allowed(Limiter(guard), user, 60) for guard in guards])
    assert sum(counts) == 10
    for guard in guards:
        await guard.close()


async def test_the_window_slides(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    key = f"user:rate:{user}"
    assert await allowed(limiter, user, 12) == 10
    # Three attempts grow older than the window, in Redis' own clock.
    seconds, micros = await guard.run(lambda client: client.time())
    old = str((seconds - 61) * 1_000_000 + micros)
    for index in range(-3, 0):
        await guard.run(lambda client, at=index: client.lset(key, at, old))
    assert await allowed(Limiter(guard), user, 12) == 3
    ttl = await guard.run(lambda client: client.ttl(key))
    assert 0 < ttl <= 60


async def test_limits_of_other_names_and_people_are_their_own(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    assert await allowed(limiter, user, 11) == 10
    assert await allowed(limiter, subject(), 11) == 10
    assert (await limiter.hit("kyc_initiate", user, 5, 3600)).remaining == 4
    keys = await guard.run(lambda client: client.keys(f"user:rate:{user}*"))
    assert sorted(keys) == [f"user:rate:{user}".encode(), f"user:rate:{user}:kyc_initiate".encode()]


async def test_a_lowered_limit_holds_at_once(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    assert await allowed(limiter, user, 8) == 8
    verdict = await limiter.hit(PROFILE_PATCH, user, 3, 60)
    assert (verdict.allowed, verdict.remaining) == (False, 0)
    assert 1 <= verdict.reset_s <= 60


async def test_a_wiped_redis_lets_nobody_through_twice(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    assert await allowed(limiter, user, 6) == 6
    await guard.run(lambda client: client.script_flush())
    await guard.run(lambda client: client.delete(f"user:rate:{user}"))
    # Known here: four are left. Another process knows only what Redis does.
    assert await allowed(limiter, user, 4) == 4
    assert await allowed(limiter, user, 11) == 0
    assert await allowed(Limiter(guard), user, 11) == 6


async def test_a_strange_value_under_the_key_limits_here(guard: RedisGuard) -> None:
    limiter, user = Limiter(guard), subject()
    await guard.run(lambda client: client.set(f"user:rate:{user}", "x"))
    assert await allowed(limiter, user, 12) == 10


async def test_attempts_that_come_together_share_a_call_and_nothing_else(
    guard: RedisGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratelimit, "LARGEST_BATCH", 7)
    limiter, strange = Limiter(guard), subject()
    await guard.run(lambda client: client.set(f"user:rate:{strange}", "x"))
    before = await guard.run(lambda client: client.info("commandstats"))
    people = [subject() for _ in range(20)]
    hits = [asyncio.ensure_future(limiter.hit(PROFILE_PATCH, user, 10, 60)) for user in [strange, *people] * 2]
    await asyncio.sleep(0)
    hits[5].cancel()
    await asyncio.wait(hits)
    assert [hit.result().remaining for hit in hits[22:]] == [8] * 20  # an attempt counts also when nobody waits for it
    assert [hit.result().remaining for hit in (hits[0], hits[21])] == [9, 8]
    after = await guard.run(lambda client: client.info("commandstats"))
    calls = [stats["cmdstat_evalsha"]["calls"] if "cmdstat_evalsha" in stats else 0 for stats in (before, after)]
    assert calls[1] - calls[0] == 6


async def test_redis_away_limits_here_and_costs_nothing(fresh_redis: Callable[[], Redis]) -> None:
    server = fresh_redis()
    metrics = Metrics()
    guard = RedisGuard(server.url, metrics)
    limiter, user = Limiter(guard), subject()
    assert await allowed(limiter, user, 6) == 6
    assert b"usercore_redis_up 1.0" in metrics.render()[0]
    server.kill()
    # What Redis knew of this window is known here too.
    assert await allowed(limiter, user, 20) == 4
    assert not guard.up
    assert b"usercore_redis_up 0.0" in metrics.render()[0]
    clock = asyncio.get_running_loop().time
    started = clock()
    for _ in range(100):
        await limiter.hit(PROFILE_PATCH, user, 10, 60)
    # The breaker is open: 100 calls cost less than two time-outs.
    assert clock() - started < 2 * ratelimit.REDIS_TIMEOUT_S
    server.start()
    assert await eventually(guard.ping, within_s=10)
    assert (await limiter.hit(PROFILE_PATCH, subject(), 10, 60)).remaining == 9
    await guard.close()


async def test_a_server_that_answers_nothing_is_given_up_quickly() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    guard = RedisGuard(f"redis://127.0.0.1:{port}/0")
    clock = asyncio.get_running_loop().time
    started = clock()
    with pytest.raises(RedisAway):
        await guard.run(lambda client: client.get("x"))
    assert clock() - started < 1.0
    await guard.close()
    server.close()
    await server.wait_closed()


def test_headers_say_what_the_draft_says() -> None:
    open_ = Verdict("profile_patch", True, 10, 60, 9, 60)
    assert ratelimit.headers(open_) == {
        "RateLimit-Policy": '"profile_patch";q=10;w=60',
        "RateLimit": '"profile_patch";r=9;t=60',
    }
    error = ratelimit.refusal(Verdict("profile_patch", False, 10, 60, 0, 42))
    assert isinstance(error, RateLimited)
    assert error.headers["Retry-After"] == "42"
    assert error.headers["RateLimit"] == '"profile_patch";r=0;t=42'


async def test_windows_kept_here_are_bounded(guard: RedisGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "LOCAL_SUBJECTS", 50)
    limiter = Limiter(guard)
    for _ in range(120):
        await limiter.hit(PROFILE_PATCH, subject(), 10, 60)
    windows: dict[str, object] = getattr(limiter, "_local")  # noqa: B009
    assert len(windows) == 50
