"""Readiness: which backing services can be had. Without a migrated Postgres nothing works; all others degrade."""

import asyncio
import time

from usercore import migrate
from usercore.clickhouse import ClickHouse
from usercore.db import Db
from usercore.errors import DatabaseUnavailable
from usercore.operations import Readiness
from usercore.pii.keyring import Keyring
from usercore.ratelimit import RedisGuard

PROBE_TIMEOUT_S = 1.0
REMEMBERED_S = 1.0
"""However often it is asked: a probe must not become a load."""


class Health:
    """Looks at each component, at most once a second."""

    def __init__(
        self,
        db: Db,
        keyring: Keyring,
        redis: RedisGuard,
        kafka_brokers: tuple[str, ...],
        archive: ClickHouse | None,
    ) -> None:
        self._db = db
        self._keyring = keyring
        self._redis = redis
        self._brokers = kafka_brokers
        self._archive = archive
        self._expected_head = migrate.expected_head()
        self._looking = asyncio.Lock()
        self._found: tuple[float, Readiness] | None = None

    async def ready(self) -> Readiness:
        async with self._looking:
            if self._found is not None and time.monotonic() - self._found[0] < REMEMBERED_S:
                return self._found[1]
            found = await self._look()
            self._found = (time.monotonic(), found)
            return found

    async def _look(self) -> Readiness:
        postgres, redis, kafka, archive = await asyncio.gather(
            self._postgres(), self._redis.ping(), self._kafka(), self._clickhouse()
        )
        components = {
            "postgres": postgres,
            "redis": "ok" if redis else "unavailable",
            "kafka": "ok" if kafka else "unavailable",
            "kms": "ok" if self._keyring.available and not self._keyring.unopened else "unavailable",
        }
        if archive is not None:
            components["clickhouse"] = "ok" if archive else "unavailable"
        if postgres != "ok":
            return Readiness("unavailable", components)
        return Readiness("ready" if set(components.values()) == {"ok"} else "degraded", components)

    async def _postgres(self) -> str:
        try:
            async with self._db.read() as conn:
                head = await migrate.applied_head(conn)
        except DatabaseUnavailable:
            return "unavailable"
        # A newer schema than ours is fine: migrations expand before new code comes and contract after old code is gone.
        return "ok" if head is not None and head >= self._expected_head else "migrations pending"

    async def _clickhouse(self) -> bool | None:
        return None if self._archive is None else await self._archive.ping()

    async def _kafka(self) -> bool:
        """One broker that accepts a connection is enough to find the others."""
        for broker in self._brokers:
            host, _, port = broker.rpartition(":")
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, TimeoutError):
                continue
            writer.close()
            return True
        return False
