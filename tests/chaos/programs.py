"""Our own programs as processes that a test starts, kills and reads the log of; and what lies on Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.waiting import eventually
from usercore import kafka
from usercore.consumer import GROUP, TOPICS
from usercore.devstack.processes import free_port
from usercore.kafka import Record
from usercore.settings import Settings


class Program:
    """`python -m usercore …` as an operator starts it, in a folder of its own."""

    def __init__(self, home: Path, arguments: Sequence[str], environ: Mapping[str, str], port: int = 0) -> None:
        self.port = port or free_port()
        """Of the API with `serve`, of operations with `work`."""
        self._home = home
        # `-P`: nothing is imported from the folder that it works in.
        self._command = [sys.executable, "-P", "-m", "usercore", *arguments]
        self._environ = {**os.environ, **environ, "PORT" if "serve" in arguments else "OPS_PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._home,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Where the guard of the servers looks, should the tests themselves be killed.
        (self._home / "pid").write_text(f"{self._process.pid}\n")

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listens(self) -> "Program":
        """Returns when it does; from then on it knows what to do with signals."""

        async def connected() -> bool:
            process = self._process
            assert process
            assert process.poll() is None, self.log()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(connected)
        return self

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; nothing happens when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ended(self, *, within_s: float) -> int:
        """The exit status, as soon as there is one."""
        process = self._process
        assert process

        async def over() -> bool:
            return process.poll() is not None

        await eventually(over, within_s=within_s, why="the program ends")
        return process.returncode

    def log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def events(self, level: str | None = None) -> list[dict[str, Any]]:
        """The log's lines, all of which are JSON; those of one level when it is given."""
        lines = [msgspec.json.decode(line) for line in self.log().splitlines()]
        return [line for line in lines if level in (None, line["level"])]


async def read_topics(settings: Settings, *topics: str) -> list[Record]:
    """Every record that is there now, in the order of its partition."""
    consumer = kafka.consumer(settings, *topics, group=None)
    await consumer.start()
    try:
        records: list[Record] = []
        ends = await _ends(consumer)
        while [partition for partition, end in ends.items() if await consumer.position(partition) < end]:
            polled = cast("dict[TopicPartition, list[Record]]", await consumer.getmany(timeout_ms=200))
            records += [record for batch in polled.values() for record in batch]
        return records
    finally:
        await consumer.stop()


class Progress:
    """How far the workers have come with the events of the Auth Service."""

    def __init__(self, cursor: AIOKafkaConsumer) -> None:
        self._cursor = cursor

    async def behind(self) -> int:
        """Records whose offsets are not committed."""
        behind = 0
        for partition, end in (await _ends(self._cursor)).items():
            behind += end - (await self._cursor.committed(partition) or 0)
        return behind

    async def done(self) -> bool:
        return await self.behind() == 0


@asynccontextmanager
async def progress(settings: Settings) -> AsyncGenerator[Progress]:
    """Looks at the workers' group from outside; the topics have to exist."""
    topics = kafka.consumer(settings, *TOPICS, group=None)
    cursor = kafka.consumer(settings, group=GROUP)
    await topics.start()
    await cursor.start()
    try:
        cursor.assign(list(topics.assignment()))
        yield Progress(cursor)
    finally:
        await cursor.stop()
        await topics.stop()


async def _ends(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    return cast("dict[TopicPartition, int]", await consumer.end_offsets(list(consumer.assignment())))


class HasValue(Protocol):
    @property
    def value(self) -> bytes | None: ...


def decoded(record: HasValue) -> dict[str, Any]:
    return msgspec.json.decode(record.value or b"")
