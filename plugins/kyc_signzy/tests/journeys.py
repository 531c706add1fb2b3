"""A sandbox with a client of the plugin's, and what a test asks of both."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aiohttp
from aiohttp import web
from kyc_signzy.client import Signzy
from kyc_signzy.sandbox import Account, SignzySandbox
from kyc_signzy.settings import SignzySettings

from tests.waiting import eventually
from usercore.plugins import Attempt, BankAccount, Check, Evidence, Person, Started, StartRequest, WebhookEvent
from usercore.plugins.webhooks import RawHeaders, WebhookConfig, verify
from usercore.testing.http import PlainHttp
from usercore.testing.sandbox import Options
from usercore.testing.server import running

PERSON = Person(first_name="Ravi", last_name="Kumar")
AADHAAR: frozenset[Check] = frozenset(("aadhaar", "address"))
BANK: frozenset[Check] = frozenset(("bank",))
HEADERS = {"Authorization": "token"}
TOKEN = "A" * 43


class Journey:
    """The plugin's client and a session to everything else, both at one sandbox."""

    def __init__(self, url: str, session: aiohttp.ClientSession, http: PlainHttp, settings: SignzySettings) -> None:
        self.url = url
        self.session = session
        self.http = http
        self.client = Signzy(settings, http)

    async def start(
        self,
        *,
        checks: frozenset[Check] = AADHAAR,
        attempt_id: UUID | None = None,
        account: BankAccount | None = None,
        person: Person = PERSON,
        callback_url: str = "http://127.0.0.1:9/hook",
        redirect_url: str | None = None,
    ) -> Started:
        request = StartRequest(
            attempt_id=attempt_id or uuid4(),
            checks=checks,
            person=person,
            callback_url=callback_url,
            redirect_url=redirect_url,
            bank_account=account,
        )
        return await self.client.start(request)

    async def bank(self, number: str) -> Started:
        return await self.start(checks=BANK, account=BankAccount(account_number=number, ifsc="KKBK0008066"))

    async def fetch(self, started: Started, checks: frozenset[Check] = AADHAAR) -> Evidence:
        attempt = Attempt(attempt_id=uuid4(), vendor_case_id=started.vendor_case_id, checks=checks)
        return await self.client.fetch(attempt)

    async def told(self, call: str, **said: Any) -> Any:
        """The control interface."""
        status, answer = await self.call(f"/_control/{call}", said)
        assert status == 200, answer
        return answer

    async def finished(self, started: Started, outcome: str, **said: Any) -> Evidence:
        await self.told("complete", reference=started.vendor_case_id, outcome=outcome, **said)
        return await self.fetch(started)

    async def call(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """A call of Signzy's API without the client."""
        async with self.session.post(
            self.url + path, json=body, headers=HEADERS if headers is None else headers
        ) as answer:
            return answer.status, await answer.json()

    async def page(self, url: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, text and where it leads."""
        method = "GET" if form is None else "POST"
        async with self.session.request(method, url, data=form, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers.get("location", "")


@asynccontextmanager
async def journey(
    account: Account | None = None, options: Options | None = None, **settings: Any
) -> AsyncGenerator[Journey]:
    """A sandbox of this account, and a client with these settings."""
    sandbox = SignzySandbox(options, account)
    async with running(sandbox) as url, aiohttp.ClientSession() as session, PlainHttp() as http:
        given: dict[str, Any] = {"api_key": "token", "base_url": url, **settings}
        yield Journey(url, session, http, SignzySettings(**given))


class Receiver:
    """Takes callbacks as the host does: verified, then read by the plugin."""

    def __init__(self, config: WebhookConfig) -> None:
        self._config = config
        self.url = ""
        self.bodies: list[bytes] = []
        self.headers: list[RawHeaders] = []
        self.authentic: list[bool] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        token = request.path.rpartition("/")[2]
        now = float(request.headers.get("webhook-timestamp", "0"))
        good = verify(self._config, request.raw_headers, body, token, now)
        if self._config.scheme == "url_token":
            good &= self.url.endswith(token)
        self.bodies.append(body)
        self.headers.append(request.raw_headers)
        self.authentic.append(good)
        return web.Response(status=200 if good else 401)

    async def read(self, client: Signzy, count: int = 1) -> list[WebhookEvent]:
        """What the plugin reads of the first `count` callbacks, once they are there."""

        async def there() -> bool:
            return len(self.bodies) >= count

        await eventually(there, why=f"{count} callbacks")
        assert len(self.bodies) == count
        return [client.read_webhook({}, body) for body in self.bodies]


@asynccontextmanager
async def receiving(config: WebhookConfig) -> AsyncGenerator[Receiver]:
    """A server that takes callbacks under a scheme."""
    receiver = Receiver(config)
    app = web.Application()
    app.router.add_post("/{rest:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/{TOKEN}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
