"""The consumer of the Auth Service's topics: batches in, one transaction each, poison to the dead letters.

A batch is applied in one transaction together with its inbox rows; offsets are committed after it. Whatever dies in
between is delivered again, and the inbox makes the second time a no-op. A record that cannot be understood, or whose
data PostgreSQL refuses, goes to the dead letters with its original bytes; a cluster, database or KMS that is away makes
the batch wait and never costs a record.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, MessageSizeTooLargeError
from msgspec import Struct

from usercore import avro, kafka, loops, telemetry
from usercore.db import Db
from usercore.errors import ServiceUnavailable
from usercore.events import AUTH_CREATED, AUTH_DEACTIVATED, DEAD_LETTERS, AuthAccountDeactivated, AuthCreated
from usercore.kafka import Record
from usercore.lifecycle.actions import apply_auth_events
from usercore.pii.keyring import Keyring
from usercore.settings import Settings
from usercore.users.actions import valid_email

log = telemetry.logger(__name__)

GROUP = "usercore"
TOPICS = (AUTH_CREATED, AUTH_DEACTIVATED)
BATCH = 500
"""Records a transaction: some 4,000 rows, about 100 ms; more gains nothing and holds locks longer."""
POLL_MS = 200
RETRY_PAUSE_S = 1.0
LAG_EVERY_S = 5.0
STALLED_AFTER_S = 15.0  # "back to normal in under 30 s", also when it went deaf in an outage
"""A consumer that has something to read and has read nothing for so long is made anew (aiokafka issue 1154)."""
LONGEST_REASON = 500

_DECODERS = {
    AUTH_CREATED: msgspec.json.Decoder(AuthCreated),
    AUTH_DEACTIVATED: msgspec.json.Decoder(AuthAccountDeactivated),
}

Schemas = Mapping[int, avro.Schema]
NO_SCHEMAS: Schemas = {}

AuthEvent = AuthCreated | AuthAccountDeactivated
Polled = dict[TopicPartition, list[Record]]


class Incoming(Struct, frozen=True):
    """A record with what it says."""

    record: Record
    event: AuthEvent


class Dead(Struct, frozen=True):
    """A record that cannot be applied, and the class of the error: its message could hold what the record holds."""

    record: Record
    error: str


class InvalidEvent(ValueError):
    """The event is well-formed and says something that cannot be."""


class UnknownSchema(InvalidEvent):
    """It is Avro, and of a schema that the registry does not have, or there is no registry."""


class Stalled(Exception):
    """The consumer reads nothing although there is something."""


class AuthConsumer:
    """Consumes until told to stop. Survives Kafka, Postgres and the KMS being away."""

    def __init__(self, db: Db, keyring: Keyring, settings: Settings) -> None:
        self._db = db
        self._keyring = keyring
        self._settings = settings
        self._registry = avro.registry_of(settings)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                try:
                    await self._consume(stop)
                except (*kafka.AWAY, Stalled) as error:
                    log.warning("consumer_restarts", error)
                    await loops.wait(stop, RETRY_PAUSE_S)
        finally:
            if self._registry is not None:
                await self._registry.close()

    async def _consume(self, stop: asyncio.Event) -> None:
        consumer = kafka.consumer(self._settings, *TOPICS, group=GROUP)
        producer = kafka.producer(self._settings)
        try:
            async with asyncio.timeout(kafka.START_TIMEOUT_S):
                await consumer.start()
                await producer.start()
            lag = Lag(consumer)
            while not stop.is_set():
                polled = cast(Polled, await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH))
                records = [record for batch in polled.values() for record in batch]
                if records:
                    dead = await self._apply_or_wait(records, stop)
                    if dead is None:
                        return
                    await bury(producer, dead)
                    try:
                        # Without a bound it would go on for as long as the cluster is away, also when told to stop.
                        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                            await consumer.commit({tp: batch[-1].offset + 1 for tp, batch in polled.items() if batch})
                    except (CommitFailedError, IllegalStateError):
                        # The partitions went to another worker meanwhile; for it the inbox makes these a no-op.
                        log.warning("commit_lost", count=len(records))
                await lag.watch(len(records))
        finally:
            await kafka.stop(consumer)
            await kafka.stop(producer)

    async def _apply_or_wait(self, records: Sequence[Record], stop: asyncio.Event) -> list[Dead] | None:
        """Apply, again and again while something is away; None when told to stop before it worked."""
        while not stop.is_set():
            try:
                return await apply(self._db, self._keyring, records, await schemas_of(self._registry, records))
            except (ServiceUnavailable, asyncpg.PostgresError) as error:
                # Also what looks like our own mistake (a missing grant): a wrong deployment must not empty a topic.
                log.error("consumer_waits", error, count=len(records))
                await loops.wait(stop, RETRY_PAUSE_S)
        return None


async def schemas_of(registry: avro.Registry | None, records: Sequence[Record]) -> Schemas:
    """The schemas of those records that are Avro; ids that nobody knows are left out. Raises RegistryUnavailable."""
    found: dict[int, avro.Schema] = {}
    ids = {avro.schema_id_of(record.value or b"") for record in records} - {None}
    for schema_id in ids:
        if registry is not None and schema_id is not None:
            schema = await registry.schema(schema_id)
            found |= {} if schema is None else {schema_id: schema}
    return found


async def apply(db: Db, keyring: Keyring, records: Sequence[Record], schemas: Schemas = NO_SCHEMAS) -> list[Dead]:
    """Apply the records in as few transactions as their quality allows; those that cannot be applied come back.

    Raises ServiceUnavailable, or PostgresError other than one about data, when nothing can be said of the records.
    """
    incoming: list[Incoming] = []
    dead: list[Dead] = []
    for record in records:
        try:
            incoming.append(Incoming(record, read(record, schemas)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidEvent) as error:
            dead.append(Dead(record, type(error).__name__))
    dead += await _apply_bisecting(db, keyring, incoming)
    for topic in TOPICS:
        poisoned = sum(1 for letter in dead if letter.record.topic == topic)
        telemetry.metrics.consumer_events(topic, "dead", poisoned)
        telemetry.metrics.consumer_events(topic, "applied", sum(1 for r in records if r.topic == topic) - poisoned)
    return dead


def read(record: Record, schemas: Schemas = NO_SCHEMAS) -> AuthEvent:
    """What a record says, in JSON or in Avro by one of the schemas.

    Raises MsgspecError, UnicodeDecodeError, RecursionError, or InvalidEvent.
    """
    value, decoder = record.value or b"", _DECODERS[record.topic]
    event: AuthEvent = decoder.decode(value) if value[:1] != avro.MAGIC else _read_avro(value, decoder.type, schemas)
    if isinstance(event, AuthCreated):
        if valid_email(event.email) is None:
            raise InvalidEvent
        return event
    return msgspec.structs.replace(event, reason=event.reason.replace("\0", "")[:LONGEST_REASON])


def _read_avro(value: bytes, kind: type[AuthEvent], schemas: Schemas) -> AuthEvent:
    schema = schemas.get(avro.schema_id_of(value) or 0)
    if schema is None:
        raise UnknownSchema
    try:
        return msgspec.convert(avro.decode(value, schema), kind)
    except ValueError as error:
        raise InvalidEvent from error


async def _apply_bisecting(db: Db, keyring: Keyring, incoming: Sequence[Incoming]) -> list[Dead]:
    if not incoming:
        return []
    events = [entry.event for entry in incoming]
    try:
        await apply_auth_events(
            db,
            keyring,
            [event for event in events if isinstance(event, AuthCreated)],
            [event for event in events if isinstance(event, AuthAccountDeactivated)],
        )
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, OverflowError) as error:
        if len(incoming) == 1:
            return [Dead(incoming[0].record, type(error).__name__)]
        middle = len(incoming) // 2
        first = await _apply_bisecting(db, keyring, incoming[:middle])
        return first + await _apply_bisecting(db, keyring, incoming[middle:])
    return []


async def bury(producer: AIOKafkaProducer, dead: Sequence[Dead]) -> None:
    """Write the dead letters and wait until they are acknowledged."""
    if not dead:
        return
    async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
        await asyncio.gather(*(_bury(producer, letter) for letter in dead))
    for letter in dead:
        record = letter.record
        telemetry.metrics.dead_letters(record.topic)
        log.error(
            "dead_letter", topic=record.topic, partition=record.partition, offset=record.offset, error=letter.error
        )


async def _bury(producer: AIOKafkaProducer, letter: Dead) -> None:
    record, headers = letter.record, dead_letter_headers(letter)
    # aiokafka sends no record that has neither key nor value.
    value = record.value if record.key is not None else record.value or b""
    try:
        await producer.send_and_wait(DEAD_LETTERS, value, key=record.key, headers=headers)
    except MessageSizeTooLargeError:
        # Better a letter without its bytes, which stay where its headers point, than a partition that stands still.
        headers.append(("dlq_dropped_bytes", str(len(value or b"")).encode()))
        await producer.send_and_wait(DEAD_LETTERS, b"", key=record.key, headers=headers)


def dead_letter_headers(letter: Dead) -> list[tuple[str, bytes]]:
    """The record's own headers, and where it comes from. `dlq_attempts` counts the times it was tried and buried."""
    record = letter.record
    found = {name: value for name, value in record.headers if name.startswith("dlq_")}
    attempts = int(found.get("dlq_attempts", b"0")) if found.get("dlq_attempts", b"0").isdigit() else 0
    return [
        *((name, value) for name, value in record.headers if not name.startswith("dlq_")),
        ("dlq_error", letter.error.encode()),
        ("dlq_topic", record.topic.encode()),
        ("dlq_partition", str(record.partition).encode()),
        ("dlq_offset", str(record.offset).encode()),
        ("dlq_attempts", str(attempts + 1).encode()),
    ]


class Lag:
    """Measures how far behind the consumer is, and notices when it has gone deaf."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._clock = asyncio.get_running_loop().time
        self._measured = 0.0
        self._progress = self._clock()

    async def watch(self, records: int) -> None:
        """Call after each poll. Raises Stalled."""
        at = self._clock()
        if records:
            self._progress = at
        if at - self._measured < LAG_EVERY_S:
            return
        self._measured = at
        try:
            async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                behind = await self._measure()
        except IllegalStateError:
            return  # partitions are on their way to another worker
        if not behind:
            self._progress = at
        elif at - self._progress > STALLED_AFTER_S:
            raise Stalled

    async def _measure(self) -> int:
        behind = 0
        partitions: list[TopicPartition] = list(self._consumer.assignment())
        ends = cast(dict[TopicPartition, int], await self._consumer.end_offsets(partitions))
        for partition, end in ends.items():
            lag = max(0, end - await self._consumer.position(partition))
            telemetry.metrics.consumer_lag(partition.topic, partition.partition, lag)
            behind += lag
        return behind
