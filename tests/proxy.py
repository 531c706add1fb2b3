"""A TCP proxy that misbehaves on purpose: cuts, swallows and slows what a real server says."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards to one server. `swallow` forwards requests and drops answers; `cut` ends all connections at once.

    `lose_answer` cuts when the next answer comes, and drops it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.swallow = False
        self.lose_answer = False
        self.refuse = False
        self.delay_s = 0.0
        self.answers = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.refuse:
                return
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
            self._writers.add(upstream_writer)
            try:
                answers = asyncio.create_task(self._pump(upstream_reader, writer, answers=True))
                self._tasks.add(answers)
                await self._pump(reader, upstream_writer, answers=False)
                await answers
            finally:
                self._writers.discard(upstream_writer)
                upstream_writer.transport.abort()
        except OSError:
            pass  # a cut connection is what this is for
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await reader.read(65536):
                if answers:
                    self.answers += 1
                    if self.lose_answer:
                        self.lose_answer = False
                        self.cut()
                        return
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    if self.swallow:
                        continue
                writer.write(data)
                await writer.drain()
            if answers and self.swallow:
                await asyncio.Event().wait()  # the end of a swallowed answer is not told either
        except OSError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncGenerator[Proxy]:
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
