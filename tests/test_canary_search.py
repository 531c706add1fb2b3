"""The searcher of the canary sweep: it finds a value in each form and each store, and nothing where nothing is."""

import asyncio
import base64
import json
import random
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import redis.asyncio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.canary import Canary, Place, Searcher
from tests.stores import SpanReceiver, kafka_places, postgres_places, redis_places
from tests.zyx import CANARIES, SEARCHER, V
from usercore import kafka
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.redis import Redis
from usercore.errors import ApiError, problem
from usercore.settings import load
from usercore.telemetry import Metrics


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Written apart from the searcher's own list: what a leak looks like.
LOOKS: Mapping[str, Callable[[str], str]] = {
    "as it is": lambda value: f"before {value} after",
    "in capitals": str.upper,
    "in small letters": str.lower,
    "reversed": lambda value: value[::-1],
    "reversed capitals": lambda value: value[::-1].upper(),
    "base64 at 0": lambda value: b64(f"123{value}456"),
    "base64 at 1": lambda value: b64(f"1234{value}56"),
    "base64 at 2": lambda value: b64(f"12345{value}6"),
    "base64 of capitals": lambda value: b64(f"12{value.upper()}"),
    "base64 of the reversed": lambda value: b64(value[::-1]),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(f"??>{value}>>?".encode()).decode(),
    "hex": lambda value: f"before {value}".encode().hex(),
    "capital hex": lambda value: value.encode().hex().upper(),
    "reversed hex": lambda value: value[::-1].encode().hex(),
    "JSON": lambda value: json.dumps({"a": value}),
    "JSON in JSON": lambda value: json.dumps({"a": json.dumps({"b": value})}),
    "JSON in UTF-8": lambda value: json.dumps([value], ensure_ascii=False),
    "JSON escapes": lambda value: "".join(f"\\u{ord(character):04X}" for character in value),
    "URL": lambda value: f"?a={quote(value, safe='')}&b=",
    "URL with plus": lambda value: f"?a={quote_plus(value)}&b=",
    "URL all escaped": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
    "reversed URL": lambda value: quote(value[::-1], safe=""),
}
TEXTS = [look(V["line2"]) for look in LOOKS.values()]


@pytest.mark.parametrize("look", LOOKS)
def test_each_canary_is_found_however_it_looks(look: str) -> None:
    for canary in CANARIES:
        if canary.value.isdecimal() and len(canary.value) < 8:
            continue  # the next test
        text = f"log line {LOOKS[look](canary.value)} end"
        found = SEARCHER.search([Place("here", "it is", text.encode())])
        assert canary.name in {finding.canary for finding in found}, text


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("8362", True),
        ('{"aadhaar_last4":"8362"}', True),
        (r"{\"aadhaar_last4\":\"8362\"}", True),
        ("aadhaar_last4=8362, …", True),
        ("(2638)", True),
        (b64('x{"a":"8362"}'), True),
        (b64('{"a":"8362"}'), True),
        (b64('{"":"8362"}'), True),
        (b'"8362"'.hex(), True),
        ("18362", False),
        ("836.2", False),
        ("12:00:00.8362Z", False),
        ("0190a8b0-8362-7000", False),
        ("duration_ms: 3.8362", False),
    ],
)
def test_four_digits_count_where_they_stand_alone(text: str, there: bool) -> None:
    searcher = Searcher([Canary("aadhaar_last4", "8362")])
    assert bool(searcher.search([Place("here", "it is", text.encode())])) is there


def test_nothing_is_found_in_noise() -> None:
    """Ciphertext, ids and times in every encoding, a megabyte of them."""
    noise = random.Random(7391)
    raw = noise.randbytes(250_000)
    numbers = " ".join(f"{noise.random():.6f} {noise.getrandbits(128):032x}" for _ in range(6000))
    places = [Place("noise", str(n), data) for n, data in enumerate((raw, base64.b64encode(raw), numbers.encode()))]
    assert SEARCHER.search(places) == []


def test_a_value_across_the_searchers_own_chunks_is_found() -> None:
    for at in range((1 << 16) - 12, (1 << 16) + 2):
        data = bytes(at) + V["pan_number"].encode() + bytes(50)
        assert {finding.canary for finding in SEARCHER.search([Place("here", "it is", data)])} == {"pan_number"}


def missed(places: list[Place]) -> list[str]:
    """Looks that are not found; each was planted under the name of its number."""
    found = {finding.place for finding in SEARCHER.search(places) if finding.canary == "line2"}
    return [look for number, look in enumerate(LOOKS) if not any(f"planted_{number}." in place for place in found)]


async def test_postgres(owner: Conn) -> None:
    """A new table in a new schema, in columns of text, bytes, JSON and arrays, one for each look."""
    await owner.execute("create schema elsewhere")
    for number, text in enumerate(TEXTS):
        for name, kind, value in (
            ("text", "text", text),
            ("bytea", "sealed", b"\x01" + text.encode() + bytes(40)),
            ("jsonb", "jsonb", json.dumps({"deep": [text]})),
            ("array", "citext[]", [text]),
        ):
            await owner.execute(f'create table elsewhere."planted_{number}.{name}" (n serial, "The value" {kind})')
            await owner.execute(f'insert into elsewhere."planted_{number}.{name}" values (1, $1)', value)
    places = await postgres_places(owner)
    for name in ("text", "bytea", "jsonb", "array"):
        assert missed([place for place in places if f".{name}" in place.name]) == []


async def test_redis(own_redis: Redis) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        for number, text in enumerate(TEXTS):
            name = f"planted_{number}."
            await client.set(f"{name}string", text)
            await client.rpush(f"{name}list", "a", text)
            await client.sadd(f"{name}set", "a", text)
            await client.zadd(f"{name}zset", {text: 1})
            await client.hset(f"{name}hash", "a", text)
            await client.hset(f"{name}field", text, "a")
            await client.xadd(f"{name}stream", {"a": text})
            await client.set(f"{name}key {text}", "a")
    places = await redis_places(own_redis.url)
    for kind in ("string", "list", "set", "zset", "hash", "field", "stream"):
        assert missed([place for place in places if place.name.startswith("value") and f".{kind}" in place.name]) == []
    assert missed([place for place in places if place.name.startswith("key ")]) == []


async def test_kafka(environ: dict[str, str], mock_kafka: Kafka) -> None:
    """Topics that nobody knew before, one for each look."""
    producer = kafka.producer(load(environ))
    await producer.start()
    try:
        for number, text in enumerate(TEXTS):
            data = text.encode()
            await producer.send_and_wait(f"planted_{number}.", data, key=data, headers=[("x", data), (text, b"")])
    finally:
        await producer.stop()
    places = await kafka_places(load(environ))
    for part in ("key", "value", "header x", "header"):
        assert missed([place for place in places if f" {part}" in place.name]) == []


async def test_spans() -> None:
    async with SpanReceiver() as receiver:

        def export() -> None:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = OTLPSpanExporter(endpoint=f"{receiver.endpoint}/v1/traces")
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("test")
            for number, text in enumerate(TEXTS):
                tracer.start_span(f"planted_{number}.", attributes={"a": text}).end()
            provider.shutdown()

        # The exporter blocks its thread until this one has answered.
        await asyncio.to_thread(export)
        assert missed(numbered(receiver.places)) == []


def test_logs(tmp_path: Path) -> None:
    """What a process prints on either of its streams."""
    for stream in ("", ">&2"):
        places: list[Place] = []
        for text in TEXTS:
            with (tmp_path / "log").open("wb") as log:
                command = ["/bin/sh", "-c", f'printf "%s\\n" "$1" {stream}', "sh", text]
                subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
            places.append(Place("logs", "of a process", (tmp_path / "log").read_bytes()))
        assert missed(numbered(places)) == []


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_metrics(accept: str) -> None:
    places: list[Place] = []
    for text in TEXTS:
        metrics = Metrics()
        metrics.rate_limited(text)
        places.append(Place("metrics", "of a process", metrics.render(accept)[0]))
    assert missed(numbered(places)) == []


def test_error_bodies() -> None:
    assert missed(numbered(Place("error bodies", "422", problem(ApiError(text), "0")) for text in TEXTS)) == []


def numbered(places: Iterable[Place]) -> list[Place]:
    return [Place(place.store, f"planted_{number}.", place.data) for number, place in enumerate(places)]
