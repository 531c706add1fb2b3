"""`usercore emit`, `tail`, `outbox-status`, `dlq-list` and `dlq-replay`."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import click
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata

from usercore import avro, kafka
from usercore.commands.options import EXECUTE, JSON
from usercore.commands.settings import current
from usercore.consumer import TOPICS
from usercore.db import Db
from usercore.events import DEAD_LETTERS, new_event_id
from usercore.kafka import Record
from usercore.outbox import get_backlog

REPLAY_GROUP = "usercore.dlq-replay"
"""Its committed offsets say which dead letters were replayed."""
QUIET_S = 1.5


@click.command(epilog="""Example: usercore emit auth.created.v1 '{"auth_id":"6f…","email":"asha@example.in"}'""")
@click.argument("topic")
@click.argument("value")
def emit(topic: str, value: str) -> None:
    """Put one event on TOPIC. VALUE is a JSON object; event_id and occurred_at are added when it has none."""
    try:
        event = json.loads(value)
    except ValueError as error:
        raise click.BadParameter("not JSON", param_hint="VALUE") from error
    if not isinstance(event, dict):
        raise click.BadParameter("not a JSON object", param_hint="VALUE")
    filled: dict[str, Any] = {"event_id": str(new_event_id()), "occurred_at": datetime.now(UTC).isoformat(), **event}
    key = str(filled.get("auth_id") or filled.get("user_id") or filled["event_id"])

    async def send() -> str:
        async with _producer() as producer:
            sent = cast(
                RecordMetadata, await producer.send_and_wait(topic, json.dumps(filled).encode(), key=key.encode())
            )
            return f"{sent.topic} partition {sent.partition} offset {sent.offset} event_id {filled['event_id']}"

    click.echo(_run(send()))


@click.command(epilog="Example: usercore tail user.created.v1 --count 1")
@click.argument("topic")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--seconds", type=click.FloatRange(0), help="Stop after so long; 0 stops at the end of the topic.")
@click.option("--new", is_flag=True, help="Only events from now on.")
def tail(topic: str, count: int | None, seconds: float | None, new: bool) -> None:
    """Print the events of TOPIC, a JSON object a line with headers and value, until Ctrl-C.

    Events in Avro are shown as JSON too, by the registry of SCHEMA_REGISTRY_URL.
    """

    async def follow() -> None:
        printed = 0
        source = _consumer(topic, group=None, from_beginning=not new)
        async with source as consumer, avro.opened(current()) as registry:
            async for record in _records(consumer, seconds):
                value = await avro.said(registry, record.value or b"")
                click.echo(json.dumps(_shown(record) | ({} if value is None else {"value": value})))
                sys.stdout.flush()
                printed += 1
                if printed == count:
                    return

    _run(follow())


@click.command(epilog="Example: usercore outbox-status --json")
@JSON
def outbox_status(as_json: bool) -> None:
    """Show how many events wait for Kafka, and since when."""

    async def look() -> Mapping[str, object]:
        db = await Db.connect(current().postgres_url.reveal(), min_size=1, max_size=1, name="usercore-cli")
        try:
            async with db.read() as conn:
                backlog = await get_backlog(conn)
        finally:
            await db.close()
        age = (datetime.now(UTC) - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        return {"depth": backlog.depth, "oldest_seconds": round(age, 3)}

    status = _run(look())
    if as_json:
        click.echo(json.dumps(status))
    else:
        click.echo(f"{status['depth']} events wait, the oldest for {status['oldest_seconds']} s")


@click.command(epilog="Example: usercore dlq-list")
@JSON
def dlq_list(as_json: bool) -> None:
    """List the dead letters: where each comes from and why, never what is in it."""
    letters = _run(_letters(REPLAY_GROUP))
    if as_json:
        click.echo(json.dumps(letters, indent=2))
        return
    for letter in letters:
        click.echo(
            f"{letter['partition']}:{letter['offset']}  {letter['at']}  {letter['error']}  from {letter['topic']} "
            f"{letter['from_partition']}:{letter['from_offset']}  attempts {letter['attempts']}"
            + ("  replayed" if letter["replayed"] else "")
        )
    click.echo(f"{len(letters)} dead letters, {sum(not letter['replayed'] for letter in letters)} not replayed")


@click.command(epilog="Example: usercore dlq-replay --execute")
@EXECUTE
@JSON
def dlq_replay(execute: bool, as_json: bool) -> None:
    """Put the dead letters that were not replayed yet back on the topics they came from.

    What is still wrong comes back as a dead letter with one more attempt.
    """
    waiting = [letter for letter in _run(_letters(REPLAY_GROUP)) if not letter["replayed"]]
    replayed = _run(_replay()) if execute and waiting else 0
    if as_json:
        click.echo(json.dumps({"waiting": waiting, "replayed": replayed, "executed": execute}, indent=2))
        return
    for letter in waiting:
        click.echo(f"{letter['partition']}:{letter['offset']} → {letter['topic']}  attempts {letter['attempts']}")
    click.echo(f"{replayed} replayed" if execute else f"{len(waiting)} would be replayed: add --execute to do it")


async def _letters(group: str) -> list[dict[str, object]]:
    letters: list[dict[str, object]] = []
    async with _consumer(DEAD_LETTERS, group=None) as reader, _consumer(group=group) as cursor:
        cursor.assign(list(reader.assignment()))
        done: dict[TopicPartition, int] = {
            partition: await cursor.committed(partition) or 0 for partition in reader.assignment()
        }
        async for record in _records(reader, 0):
            headers = _headers(record)
            letters.append(
                {
                    "partition": record.partition,
                    "offset": record.offset,
                    "at": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(),
                    "error": headers.get("dlq_error"),
                    "topic": headers.get("dlq_topic"),
                    "from_partition": headers.get("dlq_partition"),
                    "from_offset": headers.get("dlq_offset"),
                    "attempts": headers.get("dlq_attempts"),
                    "replayed": record.offset < done[TopicPartition(DEAD_LETTERS, record.partition)],
                }
            )
    return letters


async def _replay() -> int:
    replayed = 0
    async with (
        _consumer(DEAD_LETTERS, group=None) as reader,
        _consumer(group=REPLAY_GROUP) as cursor,
        _producer() as producer,
    ):
        cursor.assign(list(reader.assignment()))
        for partition in reader.assignment():
            reader.seek(partition, await cursor.committed(partition) or 0)
        async for record in _records(reader, 0):
            topic = _headers(record).get("dlq_topic")
            if topic in TOPICS:
                await producer.send_and_wait(topic, record.value, key=record.key, headers=list(record.headers))
                replayed += 1
            await cursor.commit({TopicPartition(DEAD_LETTERS, record.partition): record.offset + 1})
    return replayed


async def _records(consumer: AIOKafkaConsumer, seconds: float | None) -> AsyncIterator[Record]:
    """Records until `seconds` have passed, or with 0 until the topic is read to its end."""
    clock = asyncio.get_running_loop().time
    deadline = None if not seconds else clock() + seconds
    last = clock()
    while deadline is None or clock() < deadline:
        batches = cast(dict[TopicPartition, list[Record]], await consumer.getmany(timeout_ms=200))
        for batch in batches.values():
            for record in batch:
                yield record
        if batches:
            last = clock()
        elif seconds == 0 and clock() - last > QUIET_S:
            return


def _headers(record: Record) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in record.headers}


def _shown(record: Record) -> dict[str, object]:
    text = (record.value or b"").decode(errors="replace")
    try:
        value: object = json.loads(text)
    except ValueError:
        value = text
    key = record.key.decode(errors="replace") if record.key else None
    at = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return {**at, "key": key, "headers": _headers(record), "value": value}


@asynccontextmanager
async def _producer() -> AsyncGenerator[AIOKafkaProducer]:
    producer = kafka.producer(current())
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consumer(*topics: str, group: str | None, from_beginning: bool = True) -> AsyncGenerator[AIOKafkaConsumer]:
    consumer = kafka.consumer(current(), *topics, group=group, from_beginning=from_beginning)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


def _run(work: Any) -> Any:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return None
    except kafka.AWAY as error:
        raise click.ClickException(f"Kafka cannot be reached ({type(error).__name__}): is the stack up?") from error
