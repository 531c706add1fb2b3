"""A vendor as small as can be, on the base of the sandboxes, and somebody who takes its webhooks."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from usercore.plugins.webhooks import RawHeaders, WebhookConfig, verify
from usercore.testing.control import Case, Outcome, Reading
from usercore.testing.delivery import Message
from usercore.testing.pages import Step
from usercore.testing.sandbox import Sandbox


class Toy(Sandbox):
    """Starts with `POST /start`, tells with `GET /result/{reference}`."""

    title = "Toy & Co"
    steps = (
        Step(title="PAN card", text="Show your card.", fields=("name", "date_of_birth", "pan_number")),
        Step(title="Selfie", text="Look here.", face=True),
    )

    def routes(self) -> Iterable[web.RouteDef]:
        return (web.post("/start", self._start), web.get("/result/{reference}", self._result))

    def message(self, case: Case, outcome: Outcome | None) -> Message | None:
        case.events += 1
        body = {"id": case.reference, "status": outcome or "progress"}
        return Message(event_id=f"{case.reference}-{case.events}", kind=body["status"], body=msgspec.json.encode(body))

    def returned(self, case: Case) -> Mapping[str, str]:
        return {"id": case.reference, "status": case.outcome or ""}

    async def _start(self, request: web.Request) -> web.Response:
        sent = await request.json()
        case = await self.open(
            "toy-" + sent["id"],
            msgspec.convert(sent.get("person", {}), Reading),
            attempt_id=sent["id"],
            callback_url=sent.get("callback"),
            redirect_url=sent.get("redirect"),
        )
        return web.json_response({"id": case.reference, "url": self.page_url(request, case)})

    async def _result(self, request: web.Request) -> web.Response:
        case = self.cases[request.match_info["reference"]]
        await self.reach(case)
        identity = msgspec.to_builtins(case.identity)
        return web.json_response({"status": case.outcome, "manual": case.manual, "identity": identity})


class Receiver:
    """Takes webhooks, and can refuse the first few."""

    def __init__(self, config: WebhookConfig) -> None:
        self._config = config
        self.url = ""
        self.refusals = 0
        self.taken: list[tuple[str, bool]] = []
        """The status in the body, and whether the message is authentic."""
        self.raw: list[tuple[RawHeaders, bytes, str]] = []
        """Headers, body and the path's last segment."""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw.append((request.raw_headers, body, request.path.rpartition("/")[2]))
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503)
        return self.accept(request, body)

    def accept(self, request: web.Request, body: bytes) -> web.Response:
        token = request.path.rpartition("/")[2]
        good = verify(self._config, request.raw_headers, body, token, _now(request))
        if self._config.scheme == "url_token":
            good &= self.url.endswith(token)
        self.taken.append((msgspec.json.decode(body, type=dict[str, str]).get("status", ""), good))
        return web.Response(status=202 if good else 401)


def _now(request: web.Request) -> float:
    """The receiver's clock is right: it takes the time of the message, for old ones are not the matter here."""
    return float(request.headers.get("webhook-timestamp", "0"))


@asynccontextmanager
async def receiving(config: WebhookConfig, path: str = "/hook") -> AsyncGenerator[Receiver]:
    """A server that takes webhooks under a scheme; `path` is where it wants them."""
    receiver = Receiver(config)
    app = web.Application()
    app.router.add_post("/{rest:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
