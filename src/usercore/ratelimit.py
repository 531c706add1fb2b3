"""Limits per subject in a sliding window, kept in Redis, or in this process while Redis is away."""

import asyncio
import contextvars
import functools
import hashlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import redis.asyncio
import redis.exceptions
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from usercore.db import outside_transaction
from usercore.errors import RateLimited, UsercoreError
from usercore.logs import logger
from usercore.telemetry import Metrics

REDIS_TIMEOUT_S = 0.05
"""For a connection and for an answer. Redis is never needed, so nobody waits for it."""
REDIS_CONNECTIONS = 16
BREAKER_FAILURES = 3
BREAKER_PAUSE_S = 1.0
"""After so many failures in a row Redis is left alone for so long; then one call tries."""
LARGEST_BATCH = 64
"""Attempts a call: Redis does nothing else meanwhile, for a fifth of a millisecond."""
LOCAL_SUBJECTS = 10_000
"""Windows kept in this process; beyond it the oldest is forgotten."""

PROFILE_PATCH = "profile_patch"
KYC_INITIATE = "kyc_initiate"

T = TypeVar("T")
log = logger(__name__)


class RedisAway(UsercoreError):
    """Redis did not answer in time, or was not asked because it did not before."""


class RedisGuard:
    """A Redis client that fails fast: short time-outs, no retries, and a breaker."""

    def __init__(self, url: str, metrics: Metrics | None = None) -> None:
        # The defaults would block one call for 58 s on a server that swallows packets.
        # A bounded pool that is waited for: a burst that opens a connection each would time out on connecting.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=REDIS_CONNECTIONS,
            timeout=REDIS_TIMEOUT_S,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            # Three round trips a new connection that we have no use for.
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._metrics = metrics
        self._failures = 0
        self._closed_until = 0.0

    @property
    def up(self) -> bool:
        """What the last calls said."""
        return self._failures == 0

    async def run(self, work: Callable[[redis.asyncio.Redis], Awaitable[T]]) -> T:
        """Raises RedisAway; errors that Redis answers with pass through."""
        outside_transaction()
        if self._failures >= BREAKER_FAILURES:
            now = time.monotonic()
            if now < self._closed_until:
                raise RedisAway()
            # This call is the probe; the others go on as if Redis were away until it knows.
            self._closed_until = now + BREAKER_PAUSE_S
        try:
            result = await work(self._client)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
            self._failed(error)
            raise RedisAway() from error
        if self._failures:
            self._failures = 0
            log.info("redis_back")
        if self._metrics is not None:
            self._metrics.redis_up(True)
        return result

    async def ping(self) -> bool:
        try:
            await self.run(lambda client: client.ping())
        except (RedisAway, redis.exceptions.RedisError):
            return False
        return True

    async def close(self) -> None:
        await self._client.aclose()

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        self._closed_until = time.monotonic() + BREAKER_PAUSE_S
        if self._failures == 1:
            log.warning("redis_away", error)
        if self._metrics is not None:
            self._metrics.redis_up(False)


class Verdict(Struct, frozen=True):
    """Whether this attempt may go on, how many are left in the window, and in how many seconds one more is."""

    name: str
    allowed: bool
    limit: int
    window_s: int
    remaining: int
    reset_s: int


Limit = Callable[[str], Awaitable[Verdict]]
"""Counts an attempt of a subject against one limit."""

# The last `limit` attempts that were let through, newest first. Attempts count whatever becomes of them; those that are
# refused here do not, or who keeps trying would never get in again. Redis' own clock serves all of our processes.
# One call counts many attempts, and what is wrong with the key of one is no matter of the others.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function count(key, limit, window)
  local used = redis.call('LLEN', key)
  while used > 0 and tonumber(redis.call('LINDEX', key, -1)) <= now - window do
    redis.call('RPOP', key)
    used = used - 1
  end
  if used >= limit then
    return {0, 0, tonumber(redis.call('LINDEX', key, limit - 1)) + window - now}
  end
  redis.call('LPUSH', key, string.format('%.0f', now))
  redis.call('PEXPIRE', key, math.ceil(window / 1000))
  return {1, limit - used - 1, tonumber(redis.call('LINDEX', key, -1)) + window - now}
end

local answers = {}
for n, key in ipairs(KEYS) do
  local counted, answer = pcall(count, key, tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n]))
  answers[n] = counted and answer or {type(answer) == 'table' and answer.err or tostring(answer)}
end
return answers
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class _Attempt(Struct, frozen=True):
    key: str
    limit: int
    window_s: int
    answer: asyncio.Future[list[int]]


class Limiter:
    """Counts attempts of subjects under named limits. Attempts that come while Redis is asked share the next call."""

    def __init__(self, guard: RedisGuard) -> None:
        self._guard = guard
        self._local: dict[str, deque[float]] = {}
        self._waiting: list[_Attempt] = []
        self._asking: asyncio.Task[None] | None = None

    async def hit(self, name: str, subject: str, limit: int, window_s: int) -> Verdict:
        """Count an attempt of `subject` and say whether it may go on.

        Redis counts for all processes. What this one let through it knows itself, so that it never lets through more
        than the limit, whatever becomes of Redis in between.
        """
        outside_transaction()
        key = f"user:rate:{subject}" if name == PROFILE_PATCH else f"user:rate:{subject}:{name}"
        attempts = self._window(key, window_s)
        if len(attempts) >= limit:
            # All of them came through here: Redis need not be asked, and one that comes back empty changes nothing.
            return self._hit_locally(name, key, limit, window_s)
        try:
            allowed, remaining, reset_us = await self._ask(key, limit, window_s)
        except RedisAway:
            return self._hit_locally(name, key, limit, window_s)
        except redis.exceptions.RedisError as error:
            # It answers, but not to this: read-only replica, out of memory, another type under the key.
            log.error("rate_limit_failed", error)
            return self._hit_locally(name, key, limit, window_s)
        if allowed:
            self._window(key, window_s).append(time.monotonic())
        return Verdict(name, allowed == 1, limit, window_s, remaining, _seconds(reset_us / 1e6))

    async def close(self) -> None:
        """Wait for what is being asked."""
        if self._asking is not None:
            await self._asking

    def _ask(self, key: str, limit: int, window_s: int) -> asyncio.Future[list[int]]:
        loop = asyncio.get_running_loop()
        attempt = _Attempt(key, limit, window_s, loop.create_future())
        self._waiting.append(attempt)
        if self._asking is None:
            # A fresh context: it outlives the request that happened to start it.
            self._asking = loop.create_task(self._ask_for_all(), context=contextvars.Context())
        return attempt.answer

    async def _ask_for_all(self) -> None:
        batch: list[_Attempt] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
                try:
                    answers = await self._guard.run(functools.partial(_count, batch))
                except (RedisAway, redis.exceptions.RedisError) as error:
                    _settle(batch, [error] * len(batch))
                else:
                    _settle(batch, answers)
        finally:
            left = [*batch, *self._waiting]
            self._asking, self._waiting = None, []
            _settle(left, [RedisAway()] * len(left))

    def _window(self, key: str, window_s: int) -> deque[float]:
        """When the attempts of the window were let through, oldest first."""
        attempts = self._local.pop(key, None) or deque[float]()
        while attempts and attempts[0] <= time.monotonic() - window_s:
            attempts.popleft()
        # Back in as the newest, so that the first of the dict is the one that was idle longest.
        self._local[key] = attempts
        if len(self._local) > LOCAL_SUBJECTS:
            del self._local[next(iter(self._local))]
        return attempts

    def _hit_locally(self, name: str, key: str, limit: int, window_s: int) -> Verdict:
        now = time.monotonic()
        attempts = self._window(key, window_s)
        allowed = len(attempts) < limit
        if allowed:
            attempts.append(now)
        reset = attempts[0 if allowed else len(attempts) - limit] + window_s - now
        return Verdict(name, allowed, limit, window_s, max(0, limit - len(attempts)), _seconds(reset))


def headers(verdict: Verdict) -> dict[str, str]:
    """RateLimit and RateLimit-Policy as in draft-ietf-httpapi-ratelimit-headers, and Retry-After when refused."""
    found = {
        "RateLimit-Policy": f'"{verdict.name}";q={verdict.limit};w={verdict.window_s}',
        "RateLimit": f'"{verdict.name}";r={verdict.remaining};t={verdict.reset_s}',
    }
    if not verdict.allowed:
        found["Retry-After"] = str(verdict.reset_s)
    return found


def refusal(verdict: Verdict) -> RateLimited:
    return RateLimited(headers=headers(verdict))


def _seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


async def _count(batch: Sequence[_Attempt], client: redis.asyncio.Redis) -> "list[list[int] | Exception]":
    """The answer of the script to each attempt."""
    keys = [attempt.key for attempt in batch]
    numbers = [str(each) for attempt in batch for each in (attempt.limit, attempt.window_s * 1_000_000)]
    arguments = (len(keys), *keys, *numbers)
    try:
        answers = await cast("Awaitable[list[list[Any]]]", client.evalsha(_SHA, *arguments))
    except redis.exceptions.NoScriptError:
        answers = await cast("Awaitable[list[list[Any]]]", client.eval(_SCRIPT, *arguments))
    return [
        answer if len(answer) > 1 else redis.exceptions.ResponseError(answer[0].decode("utf-8", "replace"))
        for answer in answers
    ]


def _settle(batch: Sequence[_Attempt], answers: "Sequence[list[int] | Exception]") -> None:
    for attempt, answer in zip(batch, answers, strict=True):
        if attempt.answer.done():  # whoever asked was cancelled
            continue
        if isinstance(answer, Exception):
            attempt.answer.set_exception(answer)
        else:
            attempt.answer.set_result(answer)
