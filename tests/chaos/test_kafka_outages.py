"""Kafka away at the start, killed and silent in the middle: people do not notice, and no event is lost or reordered."""

import asyncio
import os
import signal
import time
from uuid import uuid4

import psutil

from tests.chaos.auth_events import AuthService, created
from tests.chaos.locks import becomes
from tests.chaos.outages import ALL_WELL, BACK_WITHIN_S, ask, component, component_becomes, running
from tests.chaos.programs import decoded, read_topics
from tests.service import Client, Signer
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.events import UserUpdated
from usercore.settings import load

AT_MOST_S = 3.0


class Outage:
    """A Kafka that can be taken away; what is in the mock cluster would not survive more than being stopped."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._killed = False

    async def begin(self, *, silent: bool) -> None:
        self._killed = not silent and self._kafka.kind == "apache"
        if self._killed:
            await asyncio.to_thread(self._kafka.kill)
        else:
            self._send(signal.SIGSTOP)

    async def end(self) -> None:
        if self._killed:
            await asyncio.to_thread(self._kafka.start)
        else:
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        pid = self._kafka.pid()
        assert pid is not None
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            os.kill(process.pid, number)


async def is_back(client: Client, kafka: Kafka, owner: Conn) -> float:
    """Seconds until the outbox is empty and a new auth event has made its user, as it was before."""
    began = time.monotonic()
    await becomes(owner, "select count(*) from outbox", 0)
    event = created(uuid4())
    await asyncio.to_thread(AuthService(kafka.brokers).send, [event])
    await becomes(owner, "select count(*) from users where id = $1", 1, event.user_id)
    await component_becomes(client, "kafka", "ok")
    return time.monotonic() - began


async def test_kafka_away(own_kafka: Kafka, environ: dict[str, str], signer: Signer, owner: Conn) -> None:
    outage = Outage(own_kafka)
    seconds: list[float] = []
    patches = 0
    await outage.begin(silent=False)
    async with running(environ, signer, ("consumer", "relay", "gauges")) as client:
        asha = client.user()
        for silent in (False, False, True):
            if seconds:
                await outage.begin(silent=silent)
            if not silent:
                await component_becomes(client, "kafka", "unavailable")
            for _ in range(3):
                assert await ask(asha, within_s=AT_MOST_S) == ALL_WELL
                patches += 1
            assert await component(client, "postgres") == "ok"
            waiting = await owner.fetchval("select count(*) from outbox")
            assert waiting >= 6, "a new user and a change each time"
            await outage.end()
            seconds.append(await is_back(client, own_kafka, owner))
            assert seconds[-1] < BACK_WITHIN_S
    print(f"\nKafka: back after {', '.join(f'{s:.1f}' for s in seconds)} s")
    versions: list[int] = []
    for record in await read_topics(load(environ), UserUpdated.topic):
        if record.key == str(asha.id).encode() and (version := decoded(record)["version"]) not in versions:
            versions.append(version)
    assert versions == list(range(2, 2 + patches))
