"""Events as Avro: schemas held against golden files, compatible with every earlier one, and through a real Kafka."""

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fastavro
import msgspec
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from tests.accounts.test_commands import run
from tests.chaos.auth_events import created
from tests.chaos.programs import read_topics
from tests.chaos.test_relay import add, update, user_in
from tests.test_golden_events import EXAMPLES
from tests.waiting import eventually
from usercore import avro
from usercore import kafka as clients
from usercore.consumer import AuthConsumer, UnknownSchema, read, schemas_of
from usercore.db import Conn, Db
from usercore.devstack.kafka import Kafka
from usercore.events import AUTH_CREATED, PUBLISHED, AuthCreated, UserEvent, UserUpdated
from usercore.relay import Relay
from usercore.settings import Settings, load
from usercore.testing.registry import RegistryServer, unreadable
from usercore.worker import Parts

GOLDEN = Path(__file__).parent / "golden" / "avro"


def golden_of(topic: str) -> list[Path]:
    """Every schema that a topic ever had, oldest first."""
    return sorted(GOLDEN.glob(f"{topic}-*.avsc"), key=lambda file: int(file.stem.rpartition("-")[2]))


@pytest.mark.parametrize("event", PUBLISHED, ids=lambda event: event.topic)
def test_the_schema_is_the_newest_golden_one(event: type[UserEvent]) -> None:
    text = msgspec.json.format(msgspec.json.encode(avro.schema_of(event, "events")), indent=2) + b"\n"
    files = golden_of(event.topic)
    assert files, f"golden/avro/{event.topic}-1.avsc is missing; it would be\n{text.decode()}"
    assert files[-1].read_bytes() == text, "add a file with the next number; the older ones stay"
    assert avro.parsed(msgspec.json.decode(text))


@pytest.mark.parametrize("event", PUBLISHED, ids=lambda event: event.topic)
def test_a_reader_of_today_reads_what_was_ever_written(event: type[UserEvent]) -> None:
    """BACKWARD, against every earlier schema, by the rule and by reading."""
    today = avro.schema_of(event, "events")
    examples = [example for example in EXAMPLES.values() if type(example) is event]
    assert examples
    for file in golden_of(event.topic):
        earlier = msgspec.json.decode(file.read_bytes())
        assert unreadable(today, earlier) == []
        for example in examples:
            message = avro.encode(example, 7, avro.parsed(earlier))
            found: Any = fastavro.schemaless_reader(io.BytesIO(message[5:]), avro.parsed(earlier), avro.parsed(today))
            assert msgspec.convert(found, event) == example


@pytest.mark.parametrize(
    ("at", "field", "problem"),
    [
        (7, {"name": "new", "type": "string"}, "new is new and has no default"),
        (7, {"name": "new", "type": ["null", "string"], "default": None}, None),
        (5, None, None),
        (0, {"name": "event_id", "type": "long"}, "event_id has another type"),
        (4, {"name": "version", "type": "int"}, "version has another type"),
        (4, {"name": "version", "type": ["null", "long"]}, None),
    ],
)
def test_what_breaks_readers_is_seen(at: int, field: avro.Schema | None, problem: str | None) -> None:
    before = avro.schema_of(UserUpdated, "events")
    fields = list(before["fields"])
    fields[at : at + 1] = [] if field is None else [field]
    assert unreadable({**before, "fields": fields}, before) == ([] if problem is None else [problem])


def test_golden_schemas_are_never_changed() -> None:
    git = ["git", "-C", str(GOLDEN)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("not a git checkout")
    changes = "--diff-filter=DMRT"
    for command in (["log", "--format=%h", changes, "--", "."], ["diff", "HEAD", "--name-only", changes, "--", "."]):
        assert subprocess.run([*git, *command], capture_output=True, check=True, text=True).stdout == ""


@pytest.mark.parametrize("kind", [set[str], dict[str, str], float, int | str])
def test_a_type_without_a_form_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="no form in Avro"):
        avro.schema_of(msgspec.defstruct("Odd", [("member", kind)]), "events")


# Through Kafka --------------------------------------------------------------------------------------------------------


class Switch:
    """A registry of ours on one port, which can go away and come back with what it had."""

    def __init__(self) -> None:
        self.registry = RegistryServer()
        self._server = TestServer(self.registry.app, port=0)

    async def start(self) -> str:
        await self._server.start_server()
        return str(self._server.make_url("")).rstrip("/")

    async def stop(self) -> None:
        await self._server.close()


@pytest_asyncio.fixture
async def registry() -> AsyncGenerator[tuple[RegistryServer, str]]:
    switch = Switch()
    yield switch.registry, await switch.start()
    await switch.stop()


@pytest.fixture
def avro_settings(mock_kafka: Kafka, environ: dict[str, str], registry: tuple[RegistryServer, str]) -> Settings:
    return load({**environ, "EVENT_FORMAT": "avro", "SCHEMA_REGISTRY_URL": registry[1]})


async def test_the_registry_speaks_its_api(registry: tuple[RegistryServer, str]) -> None:
    server, url = registry
    client, other, third, fourth, away = (avro.Registry(each) for each in (*[url] * 4, "http://127.0.0.1:9"))
    schema = avro.schema_of(UserUpdated, "events")
    first = await client.register("user.updated.v1", schema)
    assert await third.register("user.updated.v1", schema) == first
    assert await client.schema(first) == avro.parsed(schema)
    assert await client.schema(99) is None
    assert server.subjects == {"user.updated.v1-value": [first]}
    wider = msgspec.json.decode(msgspec.json.encode(schema))
    wider["fields"].append({"name": "new", "type": ["null", "string"], "default": None})
    assert await other.register("user.updated.v1", wider) == first + 1
    broken = msgspec.json.decode(msgspec.json.encode(schema))
    broken["fields"].append({"name": "new2", "type": "string"})
    with pytest.raises(avro.SchemaRefused):
        await fourth.register("user.updated.v1", broken)
    with pytest.raises(avro.RegistryUnavailable):
        await away.register("user.updated.v1", schema)
    for each in (client, other, third, fourth, away):
        await each.close()


async def test_events_are_published_as_avro(
    db: Db,
    owner: Conn,
    avro_settings: Settings,
    registry: tuple[RegistryServer, str],
    environ: dict[str, str],
) -> None:
    user = user_in(3)
    rows = [update(user, version) for version in (1, 2, 3)]
    await add(db, rows)
    relay = Relay(db, avro_settings)
    stop = asyncio.Event()
    working = asyncio.create_task(relay.run(stop))
    await eventually(lambda: is_empty(owner))
    stop.set()
    await working
    assert registry[0].subjects.keys() == {f"{event.topic}-value" for event in PUBLISHED}
    client = avro.Registry(registry[1])
    records = await read_topics(avro_settings, UserUpdated.topic)
    events: list[UserUpdated] = []
    for record in records:
        assert dict(record.headers)["content-type"] == b"application/avro"
        assert record.value
        schema_id = avro.schema_id_of(record.value)
        assert schema_id is not None
        schema = await client.schema(schema_id)
        assert schema is not None
        events.append(msgspec.convert(avro.decode(record.value, schema), UserUpdated))
    assert events == [msgspec.json.decode(row.payload, type=UserUpdated) for row in rows]
    await client.close()
    told = {**environ, "SCHEMA_REGISTRY_URL": registry[1]}
    code, lines, errors = await run(told, "tail", UserUpdated.topic, "--seconds", "0")
    assert code == 0, errors
    assert [msgspec.convert(json.loads(line)["value"], UserUpdated) for line in lines.splitlines()] == events


async def test_the_relay_waits_for_the_registry(
    db: Db, owner: Conn, mock_kafka: Kafka, environ: dict[str, str]
) -> None:
    switch = Switch()
    url = await switch.start()
    await switch.stop()
    settings = load({**environ, "EVENT_FORMAT": "avro", "SCHEMA_REGISTRY_URL": url})
    await add(db, [update(user_in(1), 1)])
    relay = Relay(db, settings)
    with pytest.raises(avro.RegistryUnavailable):
        await relay.round()
    await relay._wire.close()
    assert not await is_empty(owner)
    assert await read_topics(settings, UserUpdated.topic) == []
    again = Switch()
    found = await again.start()
    relay = Relay(db, load({**environ, "EVENT_FORMAT": "avro", "SCHEMA_REGISTRY_URL": found}))
    assert await relay.round() == 1
    await again.stop()
    # What is registered stays known.
    await add(db, [update(user_in(1), 2)])
    assert await relay.round() == 1
    await relay._drop_producer()
    await relay._wire.close()


async def is_empty(owner: Conn) -> bool:
    return await owner.fetchval("select count(*) from outbox") == 0


# What Auth might write: other names, fields that we do not know, milliseconds.
AUTH_SCHEMA: avro.Schema = {
    "type": "record",
    "name": "AccountCreated",
    "namespace": "auth",
    "fields": [
        {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "auth_id", "type": "string"},
        {"name": "email", "type": "string"},
        {"name": "plan", "type": ["null", "string"], "default": None},
    ],
}
AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)


def written(schema_id: int, schema: avro.Schema, values: dict[str, object]) -> bytes:
    out = io.BytesIO()
    out.write(avro.PREFIX.pack(0, schema_id))
    fastavro.schemaless_writer(out, avro.parsed(schema), values)
    return out.getvalue()


async def test_the_consumer_takes_both(
    parts: Parts, owner: Conn, avro_settings: Settings, registry: tuple[RegistryServer, str]
) -> None:
    client = avro.Registry(registry[1])
    schema_id = await client.register(AUTH_CREATED, AUTH_SCHEMA)
    in_avro, in_json, unknown, broken = uuid4(), created(uuid4()), uuid4(), uuid4()

    def event(user: object) -> dict[str, object]:
        return {"event_id": uuid4(), "occurred_at": AT, "auth_id": str(user), "email": "a@example.in", "plan": "gold"}

    values = [
        written(schema_id, AUTH_SCHEMA, event(in_avro)),
        in_json.value or b"",
        written(999, AUTH_SCHEMA, event(unknown)),
        written(schema_id, AUTH_SCHEMA, event(broken))[:20],
        b"\0",
    ]
    producer = clients.producer(avro_settings)
    await producer.start()
    for value in values:
        await producer.send_and_wait(AUTH_CREATED, value, key=b"key")
    await producer.stop()
    stop = asyncio.Event()
    consuming = asyncio.create_task(AuthConsumer(parts.db, parts.keyring, avro_settings).run(stop))

    async def all_there() -> bool:
        letters = await read_topics(avro_settings, "usercore.dlq.v1")
        return await owner.fetchval("select count(*) from users") == 2 and len(letters) == 3

    await eventually(all_there)
    stop.set()
    await consuming
    assert {row[0] for row in await owner.fetch("select id::text from users")} == {str(in_avro), str(in_json.user_id)}
    letters = await read_topics(avro_settings, "usercore.dlq.v1")
    assert sorted(record.value or b"" for record in letters) == sorted(values[2:])
    errors = sorted(dict(record.headers)["dlq_error"] for record in letters)
    assert errors == [b"InvalidEvent", b"UnknownSchema", b"UnknownSchema"]
    await client.close()


async def test_the_consumer_waits_for_the_registry() -> None:
    class Said:
        value = written(1, AUTH_SCHEMA, {"event_id": uuid4(), "occurred_at": AT, "auth_id": str(uuid4()), "email": "a"})
        topic = AUTH_CREATED

    record: Any = Said()
    away = avro.Registry("http://127.0.0.1:9")
    with pytest.raises(avro.RegistryUnavailable):
        await schemas_of(away, [record])
    await away.close()
    assert await schemas_of(None, [record]) == {}
    with pytest.raises(UnknownSchema):
        read(record)
    event: dict[str, object] = {
        "event_id": uuid4(),
        "occurred_at": AT,
        "auth_id": str(uuid4()),
        "email": "a@example.in",
    }
    record.value = written(1, AUTH_SCHEMA, event)
    found = read(record, {1: avro.parsed(AUTH_SCHEMA)})
    assert isinstance(found, AuthCreated)
    assert (found.occurred_at, found.email) == (AT, "a@example.in")
