"""The running service through an outage: what it answers, how soon, and when it is well again."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from tests.service import Client, Person, Signer, client_of
from tests.waiting import eventually
from usercore import app, worker
from usercore.settings import load

BACK_WITHIN_S = 30.0
PREFS = dict.fromkeys(
    (
        "email_trade_fills",
        "email_deposits",
        "email_withdrawals",
        "email_security_alerts",
        "push_enabled",
        "sms_enabled",
    ),
    True,
)


@asynccontextmanager
async def running(environ: Mapping[str, str], signer: Signer, loops: Sequence[str] = ()) -> AsyncGenerator[Client]:
    """A client of the service in this process, with background loops."""
    stop = asyncio.Event()
    async with app.opened(load(environ)) as parts, client_of(parts, signer) as client:
        working = asyncio.create_task(worker.run(parts, loops, stop))
        try:
            yield client
        finally:
            stop.set()
            await working


Table = dict[str, int | str]
"""What is asked, and the status of the answer or the code of its problem."""


async def ask(person: Person, *, within_s: float) -> Table:
    """Ask for everything but readiness, at once; each answer has to come in time."""
    consent = {"consent_type": "marketing", "version": str(uuid4()), "granted": True}
    newcomer = person.client.user()
    key = {"Idempotency-Key": str(uuid4())}
    asking = {
        "GET /v1/me": person.get(),
        "HEAD /v1/me": person.send("HEAD", "/v1/me"),
        "first GET /v1/me": newcomer.get(),
        "PATCH /v1/me": person.patch({"avatar_url": f"https://cdn.example.in/{uuid4()}.png"}),
        "POST /v1/me/consents": person.send("POST", "/v1/me/consents", json=consent, headers=key),
        "GET /v1/me/consents": person.get("/v1/me/consents"),
        "PUT /v1/me/notification-prefs": person.send("PUT", "/v1/me/notification-prefs", json=PREFS),
        "GET /v1/me/notification-prefs": person.get("/v1/me/notification-prefs"),
        "GET /health/live": person.client.send("GET", "/health/live"),
        "GET /metrics": person.client.send("GET", "/metrics"),
    }
    began = time.monotonic()
    found: Table = {}

    async def one(what: str) -> None:
        reply = await asking[what]
        took = time.monotonic() - began
        assert took < within_s, f"{what} took {took:.1f} s"
        problem = reply.headers.get("Content-Type", "").startswith("application/problem")
        found[what] = reply.code if problem and reply.body else reply.status
        if reply.status == 503 and problem:
            assert "Retry-After" in reply.headers, what

    await asyncio.gather(*map(one, asking))
    return found


ALL_WELL: Table = {
    "GET /v1/me": 200,
    "HEAD /v1/me": 200,
    "first GET /v1/me": 200,
    "PATCH /v1/me": 200,
    "POST /v1/me/consents": 201,
    "GET /v1/me/consents": 200,
    "PUT /v1/me/notification-prefs": 200,
    "GET /v1/me/notification-prefs": 200,
    "GET /health/live": 200,
    "GET /metrics": 200,
}


async def component(client: Client, name: str) -> str:
    reply = await client.send("GET", "/health/ready")
    found: dict[str, Any] = reply.json()
    assert reply.status == (503 if found["status"] == "unavailable" else 200)
    return found["components"][name]


async def component_becomes(client: Client, name: str, state: str) -> None:
    """Within the time in which the service has to notice both that something is away and that it is back."""

    async def there() -> bool:
        return await component(client, name) == state

    await eventually(there, within_s=BACK_WITHIN_S, why=f"{name} becomes {state}")
