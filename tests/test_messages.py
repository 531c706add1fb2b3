"""`usercore emit`, `tail`, `outbox-status`, `dlq-list` and `dlq-replay`, as an operator runs them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.servers import Kafka
from usercore.consumer import Dead, bury
from usercore.events import AUTH_CREATED
from usercore.kafka import Record


@pytest.fixture
def environ(environ: dict[str, str], kafka: Kafka, tmp_path: Path) -> dict[str, str]:
    return {
        **environ,
        "PATH": os.environ["PATH"],
        "KAFKA_BROKERS": kafka.brokers,
        "USERCORE_HOME": str(tmp_path),
    }


def usercore(environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "usercore", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def dead_letter(kafka: Kafka) -> None:
    """Bury one record as the consumer does."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.brokers)
    await producer.start()
    poison: Record = Record(AUTH_CREATED, 0, 7, 0, 0, b"key", b'{"email":"secret@', 0, 3, 9, (("h", b"v"),))
    await bury(producer, [Dead(poison, "DecodeError")])
    await producer.stop()


def test_an_event_goes_in_and_comes_out(environ: dict[str, str], kafka: Kafka) -> None:
    kafka.create_topics({"user.test.v1": {}})
    said = usercore(environ, "emit", "user.test.v1", '{"auth_id":"1","email":"asha@example.in"}')
    event_id = said.split()[-1]
    (line,) = usercore(environ, "tail", "user.test.v1", "--seconds", "0").splitlines()
    shown = json.loads(line)
    assert (shown["topic"], shown["key"]) == ("user.test.v1", "1")
    assert shown["value"]["event_id"] == event_id
    assert shown["value"]["email"] == "asha@example.in"


def test_what_is_no_event_is_refused(environ: dict[str, str]) -> None:
    for value in ("{", "[]", '"x"'):
        done = subprocess.run(
            [sys.executable, "-m", "usercore", "emit", "t", value], env=environ, capture_output=True, check=False
        )
        assert done.returncode == 2


def test_outbox_status(environ: dict[str, str]) -> None:
    assert json.loads(usercore(environ, "outbox-status", "--json")) == {"depth": 0, "oldest_seconds": 0.0}


def test_dead_letters_are_listed_without_their_content_and_replayed_once(environ: dict[str, str], kafka: Kafka) -> None:
    kafka.create_topics({AUTH_CREATED: {}, "usercore.dlq.v1": {}})
    before = json.loads(usercore(environ, "dlq-list", "--json"))
    asyncio.run(dead_letter(kafka))
    listed = usercore(environ, "dlq-list", "--json")
    assert "secret" not in listed
    letter = next(letter for letter in json.loads(listed) if letter not in before)
    assert (letter["error"], letter["topic"], letter["from_partition"], letter["from_offset"]) == (
        "DecodeError",
        AUTH_CREATED,
        "0",
        "7",
    )
    assert (letter["attempts"], letter["replayed"]) == ("1", False)

    plan = json.loads(usercore(environ, "dlq-replay", "--json"))
    assert (plan["executed"], plan["replayed"]) == (False, 0)
    assert letter in plan["waiting"]
    done = json.loads(usercore(environ, "dlq-replay", "--execute", "--json"))
    assert done["replayed"] == len(plan["waiting"])
    again = json.loads(usercore(environ, "dlq-replay", "--execute", "--json"))
    assert (again["waiting"], again["replayed"]) == ([], 0), "nothing is replayed twice"
    records = [json.loads(line) for line in usercore(environ, "tail", AUTH_CREATED, "--seconds", "0").splitlines()]
    replayed = [record for record in records if record["headers"].get("dlq_offset") == "7"]
    assert [record["value"] for record in replayed] == ['{"email":"secret@']
    assert replayed[0]["headers"]["h"] == "v"


def test_without_kafka_there_is_a_sentence(environ: dict[str, str]) -> None:
    away = {**environ, "KAFKA_BROKERS": "127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "usercore", "dlq-list"], env=away, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Kafka cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
