"""The misbehaving proxy for Kafka, whose clients would go around one: brokers say in their answers where they are."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from tests.proxy import Proxy


class KafkaProxy(Proxy):
    """Stands for the one broker of a cluster: what it answers names this proxy's port instead of its own."""

    def __init__(self, brokers: str) -> None:
        host, _, port = brokers.rpartition(":")
        super().__init__(host, int(port))
        self._broker_port = int(port)
        self.passing: int | None = None
        """So many answers still get through, when it is not None."""

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        answering = cast(asyncio.StreamReader, _Answers(reader, self)) if answers else reader
        await super()._pump(answering, writer, answers=answers)

    def readdressed(self, answer: bytes) -> bytes:
        if self.passing is not None:
            self.passing -= 1
            self.swallow = self.passing < 0
        return answer.replace(self._broker_port.to_bytes(4, "big"), self.port.to_bytes(4, "big"))


class _Answers:
    def __init__(self, reader: asyncio.StreamReader, proxy: KafkaProxy) -> None:
        self._reader = reader
        self._proxy = proxy

    async def read(self, size: int) -> bytes:
        answer = await self._reader.read(size)
        return self._proxy.readdressed(answer) if answer else b""


@asynccontextmanager
async def proxy_to_kafka(brokers: str) -> AsyncGenerator[KafkaProxy]:
    proxy = KafkaProxy(brokers)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
