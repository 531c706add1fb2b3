"""The background loops of `usercore work`: each runs until told to stop, and any number of copies may run."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from uuid import uuid4

import asyncpg
from msgspec import Struct

from usercore import loops, telemetry
from usercore.archive.actions import look_after, retire, ship
from usercore.artifacts.actions import Artifacts, fetch_waiting
from usercore.attempts.actions import Kyc, fresh_url
from usercore.audit.actions import keep_partitions
from usercore.checkpoints import Publisher
from usercore.clickhouse import ClickHouse
from usercore.consumer import AuthConsumer
from usercore.db import Db
from usercore.erased.actions import Erasing, finish_open, get_outstanding
from usercore.erasure.actions import erase_forgotten, fall_due, forget_late_addresses, replay
from usercore.errors import ServiceUnavailable
from usercore.events import now
from usercore.idempotency import take_expired
from usercore.lapses.actions import end_validities
from usercore.outbox import get_backlog, take_consumed
from usercore.pii.keyring import KeyPurpose, Keyring
from usercore.relay import Relay
from usercore.rewraps.actions import Step, is_unfinished, paced, reindex, rewrap
from usercore.settings import Settings
from usercore.trail.actions import seal
from usercore.upkeep.actions import sweep
from usercore.webhooks.actions import apply_waiting, forget_old

log = telemetry.logger(__name__)


class Parts(Struct, frozen=True):
    """What the loops work with."""

    settings: Settings
    db: Db
    keyring: Keyring
    kyc: Kyc
    artifacts: Artifacts
    archive: ClickHouse | None

    @property
    def erasing(self) -> Erasing:
        return Erasing(self.kyc, self.artifacts, self.settings.retention, self.settings.controller_name)


SWEEP_PAUSE_S = 0.1
"""Between two rounds of a sweep: 50 cases a second, and time for everything else."""
WEBHOOK_PAUSE_S = 0.05
"""Between looks at an empty inbox: the whole way of a webhook may take half a second."""

SEAL_EVERY_S = 2.0
"""What was not sealed for longer than ten seconds could be changed unseen."""

SHIP_EVERY_S = 1.0
LOOK_EVERY_S = 60.0

REWRAPS_PER_S = 2000
"""A tenth of what a worker can do: nobody should notice."""
REWRAP_EVERY_S = 60.0

ERASE_EVERY_S = 5.0
REPLAY_EVERY_S = 3600.0

Loop = Callable[[Parts, asyncio.Event], Awaitable[None]]


async def consume(parts: Parts, stop: asyncio.Event) -> None:
    await AuthConsumer(parts.db, parts.keyring, parts.settings).run(stop)


async def relay(parts: Parts, stop: asyncio.Event) -> None:
    await Relay(parts.db, parts.settings).run(stop)


async def keep_audit_partitions(parts: Parts, stop: asyncio.Event) -> None:
    async def once() -> None:
        if made := await keep_partitions(parts.db):
            log.info("audit_partitions_made", count=made)

    await loops.every(3600, once, stop)


async def seal_trail(parts: Parts, stop: asyncio.Event) -> None:
    async def once() -> None:
        while await seal(parts.db, parts.keyring) and not stop.is_set():
            pass

    await loops.every(SEAL_EVERY_S, once, stop)


async def publish_checkpoints(parts: Parts, stop: asyncio.Event) -> None:
    await Publisher(parts.db, parts.settings).run(stop)


async def ship_trail(parts: Parts, stop: asyncio.Event) -> None:
    """Sealed rows go to the archive, which is looked at now and then: it may have lost what it had."""
    archive, holder = parts.archive, uuid4()
    if archive is None:
        await stop.wait()
        return
    looked_at, missing = -math.inf, 0

    async def once() -> None:
        nonlocal looked_at, missing
        if time.monotonic() - looked_at > LOOK_EVERY_S:
            missing = await look_after(parts.db, archive, holder, known=missing)
            looked_at = time.monotonic()
        while await ship(parts.db, archive, holder) and not stop.is_set():
            pass

    await loops.every(SHIP_EVERY_S, once, stop)


async def retire_months(parts: Parts, stop: asyncio.Event) -> None:
    archive = parts.archive
    if archive is None:
        await stop.wait()
        return

    async def once() -> None:
        kept = timedelta(days=31 * parts.settings.audit_postgres_months)
        while await retire(parts.db, archive, before=now() - kept) and not stop.is_set():
            pass

    await loops.every(3600, once, stop)


async def prune(parts: Parts, stop: asyncio.Event) -> None:
    async def once() -> None:
        await forget(parts.db)
        await forget_old(parts.kyc)

    await loops.every(900, once, stop)


async def forget(db: Db) -> None:
    """Delete what is kept for a time only: answers to idempotency keys, and events that were consumed."""
    async with db.begin() as tx:
        await take_expired(tx)
        await take_consumed(tx)


async def apply_webhooks(parts: Parts, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            applied = await apply_waiting(parts.kyc)
        except (ServiceUnavailable, asyncpg.PostgresError) as error:
            log.warning("loop_waits", error)
            await loops.wait(stop, 1)
        else:
            if not applied:
                await loops.wait(stop, WEBHOOK_PAUSE_S)


async def sweep_kyc(parts: Parts, stop: asyncio.Event) -> None:
    async def once() -> None:
        while await sweep(parts.kyc) and not await loops.wait(stop, SWEEP_PAUSE_S):
            pass
        await end_validities(parts.db, parts.kyc.rules)

    await loops.every(1, once, stop)


async def fetch_artifacts(parts: Parts, stop: asyncio.Event) -> None:
    async def once() -> None:
        while await fetch_waiting(parts.artifacts, partial(fresh_url, parts.kyc)) and not stop.is_set():
            pass

    await loops.every(1, once, stop)


_REWRAPS: Mapping[KeyPurpose, Callable[[Db, Keyring], AsyncGenerator[Step]]] = {
    "user_keys": rewrap,
    "blind_index": reindex,
}


async def rewrap_keys(parts: Parts, stop: asyncio.Event) -> None:
    """What a rotation left under older keys, slowly: whoever is in a hurry runs keys-rewrap."""

    async def once() -> None:
        for purpose, steps in _REWRAPS.items():
            if await is_unfinished(parts.db, purpose):
                async for step in paced(steps(parts.db, parts.keyring), REWRAPS_PER_S):
                    if step.moved:
                        log.info("keys_rewrapped", count=step.moved)
                    if stop.is_set():
                        return

    await loops.every(REWRAP_EVERY_S, once, stop)


async def erase_people(parts: Parts, stop: asyncio.Event) -> None:
    """Goes on with erasures that are not complete, erases what falls due, and hourly whom a backup brought back."""
    work = parts.erasing
    replayed_at = -math.inf

    async def once() -> None:
        nonlocal replayed_at
        if time.monotonic() - replayed_at > REPLAY_EVERY_S:
            await replay(work)
            replayed_at = time.monotonic()
        while not stop.is_set() and await finish_open(work):
            pass
        while not stop.is_set() and await forget_late_addresses(work, now()):
            pass
        while not stop.is_set() and (await fall_due(work, now()) or await erase_forgotten(work, now())):
            pass

    await loops.every(ERASE_EVERY_S, once, stop)


async def watch(parts: Parts, stop: asyncio.Event) -> None:
    """Gauges that need a look at the database."""

    async def once() -> None:
        async with parts.db.read() as conn:
            backlog = await get_backlog(conn)
            outstanding = await get_outstanding(conn)
        age = 0.0 if backlog.oldest is None else (now() - backlog.oldest).total_seconds()
        telemetry.metrics.outbox(backlog.depth, age)
        telemetry.metrics.erasures_outstanding(outstanding.count, outstanding.most_tries)
        pool = parts.db.pool_stats()
        telemetry.metrics.db_pool(in_use=pool.in_use, idle=pool.idle)

    await loops.every(5, once, stop)


LOOPS: Mapping[str, Loop] = {
    "consumer": consume,
    "relay": relay,
    "partitions": keep_audit_partitions,
    "webhooks": apply_webhooks,
    "kyc": sweep_kyc,
    "artifacts": fetch_artifacts,
    "sealer": seal_trail,
    "checkpoints": publish_checkpoints,
    "shipper": ship_trail,
    "retirement": retire_months,
    "pruning": prune,
    "rewrap": rewrap_keys,
    "erasures": erase_people,
    "gauges": watch,
}


async def run(parts: Parts, names: Sequence[str], stop: asyncio.Event) -> None:
    """Run the loops of these names until `stop` is set; each ends at a place where nothing is half done."""
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(loops.keep_running(name, partial(LOOPS[name], parts), stop), name=name)
