"""Fixtures: the service with its KYC loops, and the vendors' sandboxes that it talks to."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import aiohttp
import pytest_asyncio
from kyc_hyperverge.sandbox import HyperVergeSandbox
from kyc_signzy.sandbox import SignzySandbox

from tests.service import Client, Person, Signer, listening
from tests.waiting import eventually
from usercore import app, worker
from usercore.devstack.processes import free_port
from usercore.settings import load
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import running
from usercore.worker import Parts

PROFILE = {
    "first_name": "Asha",
    "last_name": "Verma",
    "date_of_birth": "1994-08-12",
    "pan_number": "ABCPV1234F",
    "address": {"line1": "14 MG Road", "city": "Pune", "state": "Maharashtra", "pin_code": "411001"},
    "phone": "+919876543210",
}
BANK_ACCOUNT = {"account_number": "123456789012", "ifsc": "KKBK0008066"}
SANDBOXES: Mapping[str, type[Sandbox]] = {"hyperverge": HyperVergeSandbox, "signzy": SignzySandbox}


class World:
    """The service, its vendors, and what a test does with them."""

    def __init__(self, client: Client, parts: Parts, sandboxes: Mapping[str, Sandbox], urls: Mapping[str, str]) -> None:
        self.client = client
        self.parts = parts
        self.sandboxes = sandboxes
        self.urls = urls

    async def person(self, **changes: object) -> Person:
        """A new user with a whole profile."""
        person = self.client.user()
        reply = await person.patch({**PROFILE, **changes})
        assert reply.status == 200, reply.body
        return person

    async def control(self, vendor: str, call: str, **told: object) -> None:
        async with self.client.http.post(f"{self.urls[vendor]}/_control/{call}", json=told) as answer:
            assert answer.status == 200, await answer.text()

    async def initiate(self, person: Person, **asked: object) -> dict[str, Any]:
        reply = await person.send("POST", "/v1/kyc/initiate", json=asked)
        assert reply.status in (200, 201, 202), reply.body
        return reply.json()

    async def status(self, person: Person) -> dict[str, Any]:
        reply = await person.get("/v1/kyc/status")
        assert reply.status == 200, reply.body
        return reply.json()

    async def becomes(self, person: Person, status: str) -> dict[str, Any]:
        """The user's verification as soon as its newest case is so."""
        last: dict[str, Any] = {}

        async def there() -> bool:
            nonlocal last
            last = await self.status(person)
            return last["case"] is not None and last["case"]["status"] == status

        await eventually(there, why=f"the case becomes {status}")
        return last

    async def verified(self, person: Person, tier: str) -> dict[str, Any]:
        """Go through the next step with an approval at once."""
        vendor = "hyperverge" if tier == "tier_1" else "signzy"
        if tier != "tier_3":
            await self.control(vendor, "next", outcome="approve")
        await self.initiate(person, target_tier=tier, **({"bank_account": BANK_ACCOUNT} if tier == "tier_3" else {}))
        found = await self.becomes(person, "approved")
        assert found["kyc_tier"] == tier
        return found

    async def finish(self, person: Person, outcome: str, **told: object) -> None:
        """Act as the person who finishes the hosted page of the newest case."""
        case = (await self.status(person))["case"]
        await self.attempt(UUID(case["case_id"]))
        await self.control(case["vendor"], "complete", reference=case["case_id"], outcome=outcome, **told)

    async def finish_vendor(self, vendor: str) -> None:
        """Complete the only case that a sandbox has, as soon as it has it."""
        sandbox = self.sandboxes[vendor]

        async def there() -> bool:
            return len(sandbox.cases) == 1

        await eventually(there)
        await self.control(vendor, "complete", reference=next(iter(sandbox.cases)), outcome="approve")

    async def attempt(self, case_id: UUID) -> str:
        """The vendor's reference of a case's newest attempt, once there is one."""

        async def there() -> str | None:
            async with self.parts.db.read() as conn:
                return await conn.fetchval(
                    "select vendor_case_id from kyc_attempts where case_id = $1 order by created_at desc limit 1",
                    case_id,
                )

        return str(await eventually(there))


@pytest_asyncio.fixture
async def world(environ: dict[str, str], signer: Signer) -> AsyncGenerator[World]:
    port = free_port()
    environ["PORT"] = str(port)
    environ["KYC_REDIRECT_HOSTS"] = "app.example.in"
    environ["KYC_INITIATE_LIMIT_PER_HOUR"] = "1000"
    sandboxes: dict[str, Sandbox] = {}
    urls: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for name, kind in SANDBOXES.items():
            secret = f"secret of {name}"
            url = f"http://127.0.0.1:{port}/v1/kyc/webhook/{name}"
            sandboxes[name] = kind(Options(webhook_secret=secret, webhook_url=url))
            urls[name] = await stack.enter_async_context(running(sandboxes[name]))
            environ[f"{name.upper()}_BASE_URL"] = urls[name]
            environ[f"{name.upper()}_API_KEY"] = environ[f"{name.upper()}_APP_ID"] = "sandbox"
            environ[f"{name.upper()}_WORKFLOW_ID"] = "wf_kyc"
            environ[f"{name.upper()}_WEBHOOK_SECRETS"] = secret
        settings = load(environ)
        parts = await stack.enter_async_context(app.opened(settings))
        edge, _ = await stack.enter_async_context(app.api(parts))
        base = await stack.enter_async_context(listening(edge, port))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(parts, ("webhooks", "kyc"), stop))
        try:
            yield World(Client(http, base, signer), parts, sandboxes, urls)
        finally:
            stop.set()
            await working
