"""Somebody between a plugin and its sandbox, who sees what is sent and can change what comes back."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from msgspec import Struct

from usercore.testing.server import listening

LARGEST = 64 * 1024 * 1024


class Exchange(Struct, kw_only=True):
    """One call of the plugin and what it got."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    sent: bytes
    status: int = 0
    got: bytes = b""

    def text(self) -> str:
        """Everything that was sent."""
        names = "\n".join(f"{name}: {value}" for name, value in self.headers.items())
        return f"{self.path}\n{names}\n{self.sent.decode('utf-8', 'replace')}"


Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None]]
"""Answers in the vendor's place; None lets a call through. The second argument is the body."""
Change = Callable[[Exchange], bytes]
"""Another body for an answer."""


class Middle:
    """Passes calls on to a sandbox."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self._target = target
        self._session = session
        self.url = ""
        self.exchanges: list[Exchange] = []
        self.fault: Fault | None = None
        self.change: Change | None = None
        self.delay_s = 0.0
        """How much later an answer comes at most: each by another time, so that calls overtake each other."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        exchange = Exchange(method=request.method, path=request.path_qs, headers=headers, sent=body)
        self.exchanges.append(exchange)
        if self.fault is not None and (answer := await self.fault(request, body)) is not None:
            return answer
        if self.delay_s:
            await asyncio.sleep(random.uniform(0, self.delay_s))  # noqa: S311 - nobody gains by guessing it
        passed = {name: value for name, value in headers.items() if name not in ("host", "content-length")}
        async with self._session.request(
            request.method, self._target + request.path_qs, data=body or None, headers=passed, allow_redirects=False
        ) as answer:
            exchange.status, exchange.got = answer.status, await answer.read()
            kind = answer.headers.get("content-type", "application/json")
        sent = exchange.got if self.change is None else self.change(exchange)
        return web.Response(status=exchange.status, body=sent, headers={"content-type": kind})


@asynccontextmanager
async def between(target: str) -> AsyncGenerator[Middle]:
    """In front of the sandbox with this URL."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        middle = Middle(target, session)
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{rest:.*}", middle.handle)
        async with listening(app) as middle.url:
            yield middle
