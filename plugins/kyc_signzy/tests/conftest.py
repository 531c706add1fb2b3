"""Fixtures: a Signzy that says one thing to whatever it is asked."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from kyc_signzy.settings import SignzySettings

from plugins.kyc_signzy.tests.journeys import Journey
from usercore.testing.http import PlainHttp


class Answered(Journey):
    """With what was asked."""

    requests: list[dict[str, Any]]


@pytest.fixture
def answering() -> Callable[[int, Any], AbstractAsyncContextManager[Answered]]:
    """A function that gives a client of a server which answers this status with this body, or these bytes."""

    @asynccontextmanager
    async def answered(status: int, body: Any) -> AsyncGenerator[Answered]:
        requests: list[dict[str, Any]] = []

        async def answer(request: web.Request) -> web.Response:
            sent = {"path": request.path, "authorization": request.headers.get("authorization")}
            requests.append(sent | {"body": await request.json()})
            raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
            return web.Response(status=status, body=raw)

        app = web.Application()
        app.router.add_post("/{rest:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session, PlainHttp() as http:
                here = Answered(url, session, http, SignzySettings(api_key="token", base_url=url))
                here.requests = requests
                yield here
        finally:
            await runner.cleanup()

    return answered
