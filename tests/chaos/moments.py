"""The moments at which a program's work comes to something, its commits and its calls: a test kills it at each."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import cast

from tests.chaos.programs import Program
from tests.proxy import Proxy

Step = Callable[[bytes], str | None]
"""The name of the step that a request is; None when it is none."""

_asked: ContextVar[list[str]] = ContextVar("asked")
"""The steps whose answers have not come, for each connection."""


def commits(request: bytes) -> str | None:
    """Of Postgres: what a killed program asked before it commits leaves nothing behind."""
    return "commit" if request.startswith(b"Q") and b"COMMIT" in request else None


def calls(request: bytes) -> str | None:
    """Of a vendor, but the tokens of HyperVerge's SDK, which are asked for at the same time as the link."""
    words = request.split(b" ", 2)
    path = words[1].decode() if words[0] in (b"GET", b"POST") else None
    return None if path == "/v2/auth/token" else path


class Moments:
    """Counts the moments of one program, the victim, and kills it at one: whatever was said then is lost with it.

    A step has two, its request and its answer. An answer that is lost leaves the same as the next request that is, so
    that requests alone are enough where something is asked after the last step.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        """Those that came since `aim`; the last one is that of the kill."""
        self.over = asyncio.Event()
        self._victim: Program | None = None
        self._number = 0
        self._answers = False

    def aim(self, victim: Program, number: int, *, answers: bool) -> None:
        """Kill it at its so-manieth moment from now; without `answers` those of requests only."""
        self.names.clear()
        self.over.clear()
        self._victim, self._number, self._answers = victim, number, answers

    def rest(self) -> None:
        """Kill nobody from now on."""
        self._victim = None

    def passes(self, name: str, *, answers: bool) -> bool:
        if self._victim is None or (answers and not self._answers):
            return True
        self.names.append(name)
        if len(self.names) < self._number:
            return True
        self._victim.kill()
        self._victim = None
        self.over.set()
        return False


class Crossing(Proxy):
    """Between programs and one server. While `deaf` it drops what is asked, as a network that has lost it."""

    def __init__(self, host: str, port: int, step: Step, moments: Moments) -> None:
        super().__init__(host, port)
        self.deaf = False
        self.unheard = 0
        self._step = step
        self._moments = moments

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _asked.set([])  # both pumps of the connection see this one
        await super()._serve(reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        passing = cast(asyncio.StreamReader, _Passing(reader, self._answer if answers else self._request))
        await super()._pump(passing, writer, answers=answers)

    def _request(self, data: bytes) -> bool | None:
        name = self._step(data)
        if self.deaf:
            self.unheard += name is not None
            return None
        if name is None:
            return True
        _asked.get().append(name)
        return self._moments.passes(f"{name} asked", answers=False)

    def _answer(self, data: bytes) -> bool:
        asked = _asked.get()
        return self._moments.passes(f"{asked.pop()} answered", answers=True) if asked else True


class _Passing:
    """A reader of what passes. What does not is the end of the connection, or with None just lost."""

    def __init__(self, reader: asyncio.StreamReader, passes: Callable[[bytes], bool | None]) -> None:
        self._reader = reader
        self._passes = passes

    async def read(self, size: int) -> bytes:
        while data := await self._reader.read(size):
            if passes := self._passes(data):
                return data
            if passes is False:
                break
        return b""


class Front(Proxy):
    """The one address of several copies of a server, as a load balancer has it."""

    def lead_to(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self.cut()


@asynccontextmanager
async def started(proxy: Proxy) -> AsyncGenerator[None]:
    await proxy.start()
    try:
        yield
    finally:
        await proxy.stop()
