"""The relay when Kafka fails it halfway, when there are two, and when one topic cannot be had."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import msgspec
import pytest

from tests.chaos.kafka_proxy import proxy_to_kafka
from tests.chaos.programs import decoded, read_topics
from tests.databases import DatabaseUrls
from tests.waiting import eventually
from usercore import kafka as clients
from usercore import outbox
from usercore import relay as relaying
from usercore.db import Conn, Db
from usercore.devstack.kafka import Kafka
from usercore.events import UserUpdated, new_event_id, now
from usercore.kafka import Record
from usercore.outbox import SYSTEM, OutboxRow
from usercore.relay import Relay
from usercore.settings import Settings

TOPIC = UserUpdated.topic
NO_TOPIC = "no topic has spaces"
SHARDS = 16


def user_in(shard: int) -> UUID:
    """A user's shard is in the last four bits of the id."""
    return UUID(int=uuid4().int >> 4 << 4 | shard)


def update(user_id: UUID, version: int, *, size: int = 0) -> OutboxRow:
    event = UserUpdated(
        event_id=new_event_id(), occurred_at=now(), user_id=user_id, version=version, changed_fields=["x" * size]
    )
    return outbox.outbox_row(event, SYSTEM)


async def add(db: Db, rows: Sequence[OutboxRow]) -> None:
    async with db.begin() as tx:
        await outbox.add_records(tx, audit=[], events=rows)


async def waiting(owner: Conn) -> dict[UUID, list[int]]:
    """The versions that wait in the outbox, by user, in their order."""
    found: dict[UUID, list[int]] = defaultdict(list)
    for row in await owner.fetch("select user_id, payload::json->>'version' from outbox order by id"):
        found[row[0]].append(int(row[1]))
    return found


async def published(settings: Settings, users: Sequence[UUID]) -> list[Record]:
    keys = {str(user_id).encode() for user_id in users}
    return [record for record in await read_topics(settings, TOPIC) if record.key in keys]


def check_order(records: Sequence[Record]) -> None:
    """Versions of a user rise, but for events that were there before."""
    seen: dict[bytes | None, list[str]] = defaultdict(list)
    last: dict[bytes | None, int] = defaultdict(int)
    for record in records:
        event = decoded(record)
        if event["event_id"] not in seen[record.key]:
            assert event["version"] == last[record.key] + 1, record.key
            last[record.key] = event["version"]
            seen[record.key].append(event["event_id"])


class Counting(Relay):
    """A relay that says how much it published."""

    published = 0

    async def round(self) -> int:
        published = await super().round()
        self.published += published
        return published


@asynccontextmanager
async def running(relay: Relay) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until_empty(owner: Conn, *, within_s: float = 30) -> None:
    async def empty() -> bool:
        return not await waiting(owner)

    await eventually(empty, within_s=within_s, why="the outbox empties")


def senders() -> int:
    """Producers of this process that still have something going on."""
    return sum("Sender._sender_routine" in repr(task) for task in asyncio.all_tasks())


async def test_two_relays_share_the_work(on_kafka: Settings, db: Db, owner: Conn, database: DatabaseUrls) -> None:
    users = [user_in(number % SHARDS) for number in range(64)]
    other_db = await Db.connect(database.app, name="other-relay")
    one, other = Counting(db, on_kafka), Counting(other_db, on_kafka)
    async with running(one), running(other):
        for version in range(1, 51):
            await add(db, [update(user_id, version) for user_id in users])
        await until_empty(owner)
    await other_db.close()
    records = await published(on_kafka, users)
    ids = Counter(decoded(record)["event_id"] for record in records)
    assert len(ids) == 50 * len(users)
    assert set(ids.values()) == {1}, "nobody crashed, so nothing is there twice"
    check_order(records)
    assert one.published + other.published == len(records)
    assert min(one.published, other.published) > 0, "both have worked"


@pytest.mark.parametrize("passing", [0, 1, 3])
async def test_acknowledgements_that_get_lost(
    on_kafka: Settings, kafka: Kafka, db: Db, owner: Conn, monkeypatch: pytest.MonkeyPatch, passing: int
) -> None:
    """Kafka has the events and cannot say so: they stay, and go out again in their order, from a new producer."""
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(clients, "STOP_TIMEOUT_S", 0.3)
    monkeypatch.setattr(relaying, "FAILURE_PAUSE_S", 0.1)
    users = [user_in(0) for _ in range(10)]
    async with proxy_to_kafka(kafka.brokers) as proxy:
        relay = Relay(db, msgspec.structs.replace(on_kafka, kafka_brokers=(proxy.brokers,)))
        first = [update(user_id, 1) for user_id in users]
        await add(db, first)
        assert await relay.round() == len(first)
        producer = relay._producer
        monkeypatch.setattr(clients, "SEND_TIMEOUT_S", 0.7)

        # Of this size that they do not fit into one request to a partition.
        await add(db, [update(user_id, version, size=20_000) for version in range(2, 22) for user_id in users])
        proxy.passing = passing
        async with running(relay):

            async def given_up() -> bool:
                return relay._producer is not producer and senders() == 0

            await eventually(given_up, why="the producer that failed is gone, with what it still had to send")
            left = await waiting(owner)
            for versions in left.values():
                assert versions == list(range(versions[0], 22)), "what follows a failed event stays behind it"
            acknowledged = 20 * len(users) - sum(map(len, left.values()))
            assert bool(acknowledged) == bool(passing)
            proxy.passing, proxy.swallow = None, False
            await until_empty(owner)
    records = await published(on_kafka, users)
    check_order(records)
    assert len({decoded(record)["event_id"] for record in records}) == 21 * len(users)
    assert senders() == 0


async def test_a_topic_that_cannot_be_had(
    on_kafka: Settings, db: Db, owner: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up the users who have an event for it, from there on, and nobody else in their shard or another."""
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT_MS", 300)
    monkeypatch.setattr(relaying, "FAILURE_PAUSE_S", 0.1)
    users = [user_in(number % SHARDS) for number in range(3 * SHARDS)]
    unlucky = set(users[:SHARDS])
    for version in range(1, 4):
        rows = [update(user_id, version) for user_id in users]
        if version == 2:
            rows = [msgspec.structs.replace(row, topic=NO_TOPIC) if row.user_id in unlucky else row for row in rows]
        await add(db, rows)
    async with running(Relay(db, on_kafka)):

        async def only_the_unlucky_wait() -> bool:
            return await waiting(owner) == {user_id: [2, 3] for user_id in unlucky}

        await eventually(only_the_unlucky_wait)
        ids = Counter(decoded(record)["event_id"] for record in await published(on_kafka, users))
        assert len(ids) == 3 * len(users) - 2 * len(unlucky)
        assert set(ids.values()) == {1}, "what is out is not sent again while others wait"
        await owner.execute("update outbox set topic = $1", TOPIC)
        await until_empty(owner)
    records = await published(on_kafka, users)
    check_order(records)
    assert len(records) == 3 * len(users)
