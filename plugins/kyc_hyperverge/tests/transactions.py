"""A sandbox with a client of the plugin's, and what a test asks of both."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any
from uuid import UUID, uuid4

import aiohttp
from kyc_hyperverge.client import HyperVerge
from kyc_hyperverge.sandbox import HyperVergeSandbox
from kyc_hyperverge.settings import HyperVergeSettings

from usercore.plugins import Attempt, Check, Person, Started, StartRequest
from usercore.testing.http import PlainHttp
from usercore.testing.sandbox import Options
from usercore.testing.server import running

PERSON = Person(first_name="Ravi", last_name="Kumar", date_of_birth=date(1990, 1, 31), pan_number="ABCPE1234F")
CHECKS: frozenset[Check] = frozenset(("pan", "selfie"))
HEADERS = {"appid": "app", "AppKey": "key"}


class Journey:
    """The plugin's client and a session to everything else, both at one sandbox."""

    def __init__(self, url: str, session: aiohttp.ClientSession, http: PlainHttp) -> None:
        self.url = url
        self.session = session
        self.http = http
        self.vendor = self.vendor_with()

    def vendor_with(self, **settings: Any) -> HyperVerge:
        given: dict[str, Any] = {"api_key": "key", "app_id": "app", "workflow_id": "wf_kyc", "base_url": self.url}
        return HyperVerge(HyperVergeSettings(**(given | settings)), self.http)

    async def start(self, attempt_id: UUID | None = None, redirect_url: str | None = None) -> Started:
        return await self.vendor.start(
            StartRequest(
                attempt_id=attempt_id or uuid4(),
                checks=CHECKS,
                person=PERSON,
                callback_url="http://unused.example/hook",
                redirect_url=redirect_url,
            )
        )

    async def ask(self, method: str, path: str, body: Any = None, headers: Any = HEADERS) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def control(self, path: str, **body: Any) -> None:
        status, _ = await self.ask("POST", "/_control/" + path, body)
        assert status == 200

    async def case(self) -> dict[str, Any]:
        _, answer = await self.ask("GET", "/_control/cases")
        return answer["cases"][-1]


def attempt(started: Started) -> Attempt:
    return Attempt(attempt_id=UUID(started.vendor_case_id), vendor_case_id=started.vendor_case_id, checks=CHECKS)


@asynccontextmanager
async def journey(options: Options | None = None) -> AsyncGenerator[Journey]:
    async with (
        running(HyperVergeSandbox(options)) as url,
        aiohttp.ClientSession() as session,
        PlainHttp(total_s=2.0) as http,
    ):
        yield Journey(url, session, http)
