"""What `usercore doctor` looks at on this machine and in this checkout, each finding with what to do."""

import platform
import shutil
import sys
from collections.abc import Callable, Generator
from typing import NamedTuple

from usercore.devstack import clickhouse, kafka_jars, room
from usercore.devstack.kafka import KINDS
from usercore.devstack.processes import StackError
from usercore.devstack.stack import Stack, answers


class Finding(NamedTuple):
    name: str
    ok: bool
    text: str


def examine(stack: Stack) -> Generator[Finding]:
    """In the order in which a newcomer would look; a part that is not running is not a fault, one that is ill is."""
    yield Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")
    yield _asked("disk", lambda: room.check_disk(stack.home.parent, first=False), "enough room for the stack")
    yield Finding("kafka", True, _kafka_kind())
    yield Finding("clickhouse", True, _clickhouse_kind())
    if stack.kafka.pid() is None:
        kind = "apache" if kafka_jars.java() and kafka_jars.cached() else "mock"
        yield _asked("memory", lambda: room.check_memory(KINDS[kind]), "enough memory for the stack")
    parts = stack.status()
    if not any(part.pid for part in parts):
        yield Finding("stack", True, "not running; ./justw up starts it")
        return
    for part in parts:
        if part.pid:
            yield Finding(part.name, True, f"{part.what} at {part.where}, pid {part.pid}")
        else:
            yield Finding(
                part.name, False, f"not running while others are: ./justw up starts it; see {stack.logs()[part.name]}"
            )
    yield from _api(stack)


def _kafka_kind() -> str:
    if kafka_jars.java() is None:
        return f"no Java {kafka_jars.OLDEST_JAVA} or newer, so the in-memory mock cluster"
    if kafka_jars.cached():
        return f"Apache Kafka {kafka_jars.version()} in {kafka_jars.cache()}"
    if shutil.which("mvn"):
        return f"Apache Kafka {kafka_jars.version()}, to be fetched with Maven"
    return "no Maven to fetch Apache Kafka with, so the in-memory mock cluster"


def _clickhouse_kind() -> str:
    if program := clickhouse.installed():
        return f"the server {program}"
    return "none here; ./justw up fetches Debian's package where apt-get is, else the trail stays in Postgres"


def _api(stack: Stack) -> Generator[Finding]:
    port = stack.port("api", "PORT")
    if port is None:
        return
    ready = answers(port, "/health/ready")
    yield Finding("ready", ready, f"GET http://127.0.0.1:{port}/health/ready {'answers 200' if ready else 'fails'}")


def _asked(name: str, check: Callable[[], None], fine: str) -> Finding:
    try:
        check()
    except StackError as error:
        return Finding(name, False, str(error))
    return Finding(name, True, fine)
