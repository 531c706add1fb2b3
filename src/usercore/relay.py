"""The relay: outbox rows to Kafka, in order for each user, deleted when acknowledged.

A relay takes a whole shard of users, holding an advisory lock in the transaction that selects, publishes and deletes:
this is the one documented transaction that spans the network, and it is bounded by `SEND_TIMEOUT_S`. Any number of
relays may run. A crash after the acknowledgement and before the commit publishes a row again: at least once, and
consumers see the same event id.
"""

import asyncio
from collections.abc import Sequence
from typing import cast
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from usercore import avro, kafka, loops, telemetry
from usercore.db import Conn, Db, Sql, network_allowed
from usercore.errors import ServiceUnavailable
from usercore.events import PUBLISHED, UserEvent
from usercore.outbox import OutboxRow
from usercore.settings import Settings

sql = Sql("relay")
log = telemetry.logger(__name__)

BATCH = 1000
"""Rows a shard and transaction: some 300 KiB, published in about 20 ms."""
SHARDS_AT_ONCE = 4
IDLE_PAUSE_S = 0.05
FAILURE_PAUSE_S = 1.0


class WaitingRow(OutboxRow, frozen=True):
    id: int


@sql
async def list_pending_shards(conn: Conn) -> list[int]: ...


@sql
async def has_shard_lock(conn: Conn, *, shard: int) -> bool: ...


@sql
async def list_shard(conn: Conn, *, shard: int, most: int) -> list[WaitingRow]: ...


@sql
async def take_published(conn: Conn, *, shard: int, ids: Sequence[int]) -> None: ...


class Relay:
    """Publishes until told to stop. Survives Kafka and Postgres being away."""

    def __init__(self, db: Db, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._wire = Wire(settings)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                try:
                    published = await self.round()
                except (*kafka.AWAY, ServiceUnavailable) as error:
                    log.warning("relay_waits", error)
                    await self._drop_producer()
                    await loops.wait(stop, FAILURE_PAUSE_S)
                else:
                    if not published:
                        await loops.wait(stop, IDLE_PAUSE_S)
        finally:
            await self._drop_producer()
            await self._wire.close()

    async def round(self) -> int:
        """Publish a batch of each shard that holds something; the number of events published.

        Raises what Kafka or Postgres raise when they are away; what was acknowledged is deleted all the same.
        """
        async with self._db.read() as conn:
            shards = await list_pending_shards(conn)
        if not shards:
            return 0
        await self._wire.prepare()
        producer = await self._started_producer()
        published = 0
        failure: BaseException | None = None
        for start in range(0, len(shards), SHARDS_AT_ONCE):
            some = shards[start : start + SHARDS_AT_ONCE]
            results = await asyncio.gather(
                *(self._publish_shard(producer, shard) for shard in some), return_exceptions=True
            )
            failure = failure or next((result for result in results if isinstance(result, BaseException)), None)
            through = sum(result for result in results if isinstance(result, int))
            published += through
            if failure is not None and not through:
                break  # it is not one topic, it is Kafka
        if failure is not None:
            raise failure
        return published

    async def _publish_shard(self, producer: AIOKafkaProducer, shard: int) -> int:
        async with self._db.begin() as tx:
            if not await has_shard_lock(tx, shard=shard):
                return 0
            rows = await list_shard(tx, shard=shard, most=BATCH)
            with network_allowed():
                acknowledged, failure = await publish(producer, rows, self._wire)
            await take_published(tx, shard=shard, ids=acknowledged)
        telemetry.metrics.relay_events("published", len(acknowledged))
        if failure is not None:
            telemetry.metrics.relay_events("failed", len(rows) - len(acknowledged))
            raise failure
        return len(acknowledged)

    async def _started_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = kafka.producer(self._settings)
            try:
                async with asyncio.timeout(kafka.START_TIMEOUT_S):
                    await producer.start()
            except BaseException:
                await kafka.stop(producer)
                raise
            self._producer = producer
        return self._producer

    async def _drop_producer(self) -> None:
        """A new producer after any failure: one that lost its sequence never recovers (aiokafka issue 1017)."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await kafka.stop(producer)


async def publish(
    producer: AIOKafkaProducer, rows: Sequence[WaitingRow], wire: "Wire"
) -> tuple[list[int], Exception | None]:
    """Send the rows; the ids that may be deleted, and the first failure.

    What follows a failed row of the same user stays, even when it was acknowledged, so that the user's events are sent
    again in their order. A topic that cannot be had holds up the users who have an event for it and nobody else.
    """
    sent: dict[int, asyncio.Future[object]] = {}
    held_up: set[UUID] = set()
    refused: set[str] = set()
    failure: Exception | None = None
    try:
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            for row in rows:
                if row.user_id in held_up or row.topic in refused:
                    held_up.add(row.user_id)
                    continue
                try:
                    sent[row.id] = await _send(producer, row, wire)
                except (KafkaError, avro.EventRefused) as error:
                    failure = failure or error
                    held_up.add(row.user_id)
                    refused.add(row.topic)
            if sent:
                await asyncio.wait(sent.values())
    except (OSError, TimeoutError) as error:
        failure = failure or error
    acknowledged: list[int] = []
    held_up.clear()
    for row in rows:
        future = sent.get(row.id)
        if future is None or not future.done() or future.cancelled():
            held_up.add(row.user_id)
        elif error := future.exception():
            failure = failure or (error if isinstance(error, Exception) else None)
            held_up.add(row.user_id)
        elif row.user_id not in held_up:
            acknowledged.append(row.id)
    return acknowledged, failure


async def _send(producer: AIOKafkaProducer, row: WaitingRow, wire: "Wire") -> asyncio.Future[object]:
    key, value, found = str(row.user_id).encode(), wire.value(row), headers(row, wire.media_type)
    return cast("asyncio.Future[object]", await producer.send(row.topic, value, key=key, headers=found))


class Wire:
    """How events are written: JSON as it lies in the outbox, or Avro by the schemas that the registry has of us."""

    def __init__(self, settings: Settings) -> None:
        self._registry = avro.registry_of(settings) if settings.event_format == "avro" else None
        self._schemas: dict[str, tuple[type[UserEvent], int, avro.Schema]] = {}
        self.media_type = "application/json" if self._registry is None else "application/avro"

    async def prepare(self) -> None:
        """Register the schemas of all events, once. Raises RegistryUnavailable and SchemaRefused."""
        if self._registry is None or self._schemas:
            return
        found: dict[str, tuple[type[UserEvent], int, avro.Schema]] = {}
        for event in PUBLISHED:
            schema = avro.schema_of(event, "events")
            schema_id = await self._registry.register(event.topic, schema)
            found[event.topic] = (event, schema_id, avro.parsed(schema))
        self._schemas = found

    def value(self, row: OutboxRow) -> bytes:
        """Raises EventRefused."""
        if self._registry is None:
            return row.payload.encode()
        try:
            event, schema_id, schema = self._schemas[row.topic]
            return avro.encode(msgspec.json.decode(row.payload, type=event), schema_id, schema)
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            raise avro.EventRefused from error

    async def close(self) -> None:
        if self._registry is not None:
            await self._registry.close()


def headers(row: OutboxRow, media_type: str = "application/json") -> list[tuple[str, bytes]]:
    """CloudEvents 1.0, Kafka protocol binding, binary content mode."""
    found = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(row.event_id).encode()),
        ("ce_type", row.topic.encode()),
        ("ce_source", b"usercore"),
        ("ce_subject", str(row.user_id).encode()),
        ("ce_time", row.occurred_at.isoformat().replace("+00:00", "Z").encode()),
        ("content-type", media_type.encode()),
    ]
    if row.traceparent is not None:
        found.append(("traceparent", row.traceparent.encode()))
    return found
