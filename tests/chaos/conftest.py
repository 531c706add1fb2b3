"""Fixtures of the chaos tests: programs of ours, and a Kafka with our topics."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.programs import Program
from usercore.db import Db
from usercore.devstack.kafka import Kafka
from usercore.devstack.provision import TOPICS
from usercore.events import AUTH_CREATED
from usercore.pii import keystore
from usercore.pii.keyring import Keyring
from usercore.pii.kms import open_kms
from usercore.settings import Settings, load

Start = Callable[..., Program]


@pytest.fixture
def programs(server_home: Callable[[str], Path], environ: dict[str, str]) -> Generator[Start]:
    """Starts `python -m usercore ARGUMENTS…` with the environment of the test and what is given besides."""
    made: list[Program] = []

    def start(*arguments: str, **settings: str) -> Program:
        program = Program(server_home("program"), arguments, {**environ, **settings})
        made.append(program)
        program.start()
        return program

    yield start
    for program in made:
        program.kill()


@pytest.fixture
def on_kafka(kafka: Kafka, environ: dict[str, str]) -> Settings:
    """Settings with the tests' Kafka, which has the topics; the programs get it too."""
    kafka.create_topics(TOPICS)
    environ["KAFKA_BROKERS"] = kafka.brokers
    return load(environ)


@pytest.fixture
def own_kafka(fresh_kafka: Callable[[], Kafka], environ: dict[str, str]) -> Kafka:
    """A Kafka for this test alone: nothing else is on its topics, and it may be killed.

    It takes larger events from the Auth Service than dead letters from us.
    """
    server = fresh_kafka()
    server.create_topics({**TOPICS, AUTH_CREATED: {"max.message.bytes": str(4 * 1024 * 1024)}})
    environ["KAFKA_BROKERS"] = server.brokers
    return server


@pytest_asyncio.fixture
async def keyring(db: Db, environ: dict[str, str]) -> Keyring:
    keyring = Keyring()
    kms = open_kms(environ["PII_ENCRYPTION_KEY_ID"])
    await keystore.load(db, kms, keyring)
    await kms.close()
    return keyring
