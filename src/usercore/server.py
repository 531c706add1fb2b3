"""uvicorn as this service runs it: signals, garbage collection, and answers that leave in one piece."""

import asyncio
import gc
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GRACE_S = 25
"""For requests under way when the process is told to stop; uvicorn would wait for ever."""
GC_ALLOCATIONS = 10_000
"""Objects before the collector looks for cycles: at Python's 700, a tenth of the time of a request goes into that."""
HELD_BACK = 64 * 1024
"""Bytes of an answer that may wait for the end of a turn: more is a stream, whose writer has to feel the client."""


def settle() -> None:
    """What was made by now stays as long as the process: the garbage collector need not go through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)


def make_server(app: object, host: str, port: int) -> "Server":
    """A server of an ASGI application; port 0 takes a free one."""
    config = uvicorn.Config(
        cast(Any, app),  # uvicorn and Litestar each have their own types of the same messages
        host=host,
        port=port,
        loop="none",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config)


async def run(servers: Sequence["Server"]) -> None:
    """Until a signal, or until one of them cannot listen."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    serving = [asyncio.create_task(server.serve()) for server in servers]
    try:
        await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop()
        await asyncio.gather(*serving)


class Server(uvicorn.Server):
    """Leaves the signals to `run`: several servers share one process."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 whose answers leave in one piece.

    uvicorn writes head and body apart, and uvloop sends each at once: two system calls and two segments an answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(cast("asyncio.Transport", OnePiece(transport)))


class OnePiece:
    """A transport that sends what is written in one turn of the event loop together."""

    __slots__ = ("_held", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._held:
            asyncio.get_running_loop().call_soon(self._send)
        self._held.append(data)
        self._size += len(data)
        if self._size > HELD_BACK:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def is_closing(self) -> bool:
        # Asked at every answer, which `__getattr__` would make slow.
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send(self) -> None:
        if self._held:
            held, self._held, self._size = self._held, [], 0
            self._transport.write(b"".join(held))
