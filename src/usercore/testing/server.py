"""A sandbox as a server: the vendor's API, the control interface and the hosted page, on loopback."""

import argparse
import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, get_args

import msgspec
from aiohttp import web
from msgspec import Struct
from yarl import URL

from usercore.plugins.vendor import WebhookScheme
from usercore.testing import pages
from usercore.testing.control import Completion, Outcome, Plan, merged
from usercore.testing.sandbox import Failing, Options, Sandbox

T = TypeVar("T", bound=Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VENDOR = web.AppKey("vendor", frozenset[web.AbstractResource])
"""The vendor's own resources: only those are slow and fail."""


class SandboxServer:
    """The routes around a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def application(self) -> web.Application:
        """The whole server."""
        app = web.Application(middlewares=[self._as_a_vendor])
        app.add_routes(list(self._sandbox.routes()))
        app[VENDOR] = frozenset(app.router.resources())
        app.add_routes(
            [
                web.post("/_control/next", self._set_next),
                web.post("/_control/complete", self._set_complete),
                web.get("/_control/cases", self._get_cases),
                web.get("/_control/health", self._get_health),
                web.get("/kyc/{link}", self._get_page),
                web.get("/kyc/{link}/{step}", self._get_page),
                # The forms go to the address of their own page, also to that of the first one.
                web.post("/kyc/{link}", self._post_page),
                web.post("/kyc/{link}/{step}", self._post_page),
            ]
        )
        app.on_cleanup.append(self._closing)
        return app

    @web.middleware
    async def _as_a_vendor(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.route.resource not in request.app[VENDOR]:
            return await handler(request)
        await asyncio.sleep(self._sandbox.options.latency_ms / 1000)
        if random.random() < self._sandbox.options.failure_rate:  # noqa: S311 - nobody gains by guessing it
            return self._sandbox.failure()
        try:
            return await handler(request)
        except Failing:
            return self._sandbox.failure()

    async def _set_next(self, request: web.Request) -> web.Response:
        self._sandbox.set_next(await _told(request, Plan))
        return web.json_response({})

    async def _set_complete(self, request: web.Request) -> web.Response:
        told = await _told(request, Completion)
        case = self._sandbox.find(told.reference)
        if case is None:
            raise web.HTTPNotFound(text='{"error":"no case has this reference"}', content_type="application/json")
        try:
            plan = told.of(case.plan)
        except ValueError as error:
            raise _bad(str(error)) from None
        self._sandbox.complete(case, plan)
        return web.json_response(case.shown())

    async def _get_cases(self, request: web.Request) -> web.Response:
        return web.json_response({"cases": [case.shown() for case in self._sandbox.cases.values()]})

    async def _get_health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _get_page(self, request: web.Request) -> web.Response:
        case = self._sandbox.links.get(request.match_info["link"])
        if case is None:
            return pages.missing_page(self._sandbox.title)
        if case.outcome is not None and not (self._sandbox.reopens and "step" in request.match_info):
            return pages.finished_page(self._sandbox.title, f"/kyc/{case.link}/0" if self._sandbox.reopens else None)
        number = self._step(request)
        if number == len(self._sandbox.steps):
            return pages.review_page(self._sandbox.title, self._sandbox.steps, case)
        return pages.step_page(self._sandbox.title, self._sandbox.steps, number, case)

    async def _post_page(self, request: web.Request) -> web.Response:
        case = self._sandbox.links.get(request.match_info["link"])
        if case is None:
            return pages.missing_page(self._sandbox.title)
        if case.outcome is not None and not self._sandbox.reopens:
            return pages.finished_page(self._sandbox.title, None)
        number = self._step(request)
        form = await request.post()
        if number < len(self._sandbox.steps):
            try:
                case.identity = merged(case.identity, pages.read_fields(self._sandbox.steps[number], form))
            except ValueError as error:
                return pages.step_page(self._sandbox.title, self._sandbox.steps, number, case, str(error))
            return _see_other(f"/kyc/{case.link}/{number + 1}")
        outcome = next((value for value, _ in pages.DECISIONS if value == form.get("outcome")), None)
        if outcome is None:
            return pages.review_page(self._sandbox.title, self._sandbox.steps, case)
        chosen = msgspec.convert(outcome, Outcome)
        self._sandbox.finish(case, Plan(outcome=chosen, webhook=case.plan.webhook, code=case.plan.code))
        url = URL(case.redirect_url or "")
        if url.scheme not in ("http", "https"):
            return pages.closed_page(self._sandbox.title, "The sandbox has told your application how it ended.")
        return _see_other(str(url.update_query(self._sandbox.returned(case))))

    def _step(self, request: web.Request) -> int:
        text = request.match_info.get("step", "0")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
        return min(number, len(self._sandbox.steps))

    async def _closing(self, app: web.Application) -> None:
        await self._sandbox.close()


@asynccontextmanager
async def running(sandbox: Sandbox, port: int = 0) -> AsyncGenerator[str]:
    """The sandbox as a server on loopback in this process; gives its URL."""
    async with listening(SandboxServer(sandbox).application(), port) as url:
        yield url


@asynccontextmanager
async def listening(app: web.Application, port: int = 0) -> AsyncGenerator[str]:
    """An application on loopback; gives its URL."""
    # A call that hangs is given up when its client leaves, so that the end waits for nobody.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def main(sandbox: type[Sandbox], arguments: Sequence[str] | None = None) -> None:
    """Run as a process until a signal comes."""
    parser = argparse.ArgumentParser(description=f"{sandbox.title}'s sandbox, on loopback")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--failure-rate", type=float, default=0.0, help="from 0 to 1")
    parser.add_argument("--webhook-auth", choices=get_args(WebhookScheme), default=Options().webhook_auth)
    parser.add_argument("--webhook-secret", default=Options().webhook_secret)
    parser.add_argument("--webhook-url")
    given = vars(parser.parse_args(arguments))
    port = given.pop("port")
    web.run_app(
        SandboxServer(sandbox(Options(**given))).application(),
        host="127.0.0.1",
        port=port,
        print=None,
        access_log=None,
        shutdown_timeout=0.1,
        handler_cancellation=True,
    )


async def _told(request: web.Request, kind: type[T]) -> T:
    """Raises 400 with a sentence."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(str(error)) from None


def _bad(text: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=msgspec.json.encode({"error": text}).decode(), content_type="application/json")


def _see_other(url: str) -> web.Response:
    return web.Response(status=303, headers={"location": url, **pages.HEADERS})
