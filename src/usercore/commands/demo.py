"""`usercore demo`: one user's whole way through the embedded stack, each step checked and printed."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import UUID, uuid4

import aiohttp
import click
from aiokafka import TopicPartition
from rich.console import Console

from usercore import app, avro, kafka
from usercore.commands import demo_kyc
from usercore.commands.settings import current
from usercore.commands.tokens import sign
from usercore.db import Conn, Db, Sql
from usercore.devstack.environment import checkout, environment
from usercore.devstack.stack import Stack
from usercore.events import AUTH_CREATED, new_event_id, now
from usercore.outbox import AuditAction
from usercore.settings import Settings
from usercore.trail.actions import Verified, verify

sql = Sql("demo")

WITHIN_S = 30.0

ADDRESS = {"line1": "14 MG Road", "city": "Pune", "state": "Maharashtra", "pin_code": "411001"}
PROFILE = {
    "first_name": "Asha",
    "last_name": "Verma",
    "date_of_birth": "1994-08-12",
    "aadhaar_last4": "4321",
    "address": ADDRESS,
    "phone": "98765 43210",
}


@sql
async def has_user(conn: Conn, *, user_id: UUID) -> bool: ...


@sql
async def count_keys(conn: Conn, *, user_id: UUID) -> int: ...


@sql
async def list_sealed(conn: Conn, *, user_id: UUID) -> list[bytes]: ...


@sql
async def list_trail(conn: Conn, *, user_id: UUID) -> list[AuditAction]: ...


class Wrong(Exception):
    """A step did not do what it should; the message says what was expected and what came."""


@click.command(epilog="Example: usercore demo")
def demo() -> None:
    """Take one user through the service on the embedded stack; exit code 1 if any step is wrong.

    auth event → user → profile → consents → events → KYC through the vendors' sandboxes → tier_2 → audit trail.
    """
    console = Console(highlight=False, soft_wrap=True)
    Stack(checkout()).up()
    started = time.perf_counter()
    try:
        steps = asyncio.run(Demo(current(), environment(checkout() / ".dev")["USERCORE_URL"], console).run())
    except Wrong as wrong:
        console.print(f"[red]✗[/red] {wrong}")
        raise click.exceptions.Exit(1) from wrong
    console.print(f"{steps} steps, all right, in {time.perf_counter() - started:.1f} s")


class Demo:
    """The steps, and what they share."""

    def __init__(self, settings: Settings, url: str, console: Console) -> None:
        self.settings = settings
        self.url = url
        self.console = console
        self.user_id = uuid4()
        self.email = f"asha.{self.user_id.hex[:8]}@example.in"
        # One verified PAN is one account, so each run has its own.
        letters = "".join(chr(ord("A") + byte % 26) for byte in self.user_id.bytes[:4])
        self.pan = f"{letters[:3]}PV{int(self.user_id) % 10_000:04}{letters[3]}"
        self.profile = {**PROFILE, "pan_number": self.pan}
        self.steps = 0

    async def run(self) -> int:
        db = await Db.connect(self.settings.postgres_url.reveal(), min_size=1, max_size=1, name="usercore-demo")
        async with db.read() as database, aiohttp.ClientSession(self.url) as http:
            self.http = http
            self.database = database
            for step in (
                self.created_by_event,
                self.read,
                self.refused,
                self.updated,
                self.sealed_at_rest,
                self.consents,
                self.preferences,
                self.published,
            ):
                await step()
            await demo_kyc.run(self)
            await self.audited()
            await self.shown_who_looked()
        await db.close()
        await self.verified()
        return self.steps

    async def created_by_event(self) -> None:
        event = {
            "event_id": str(new_event_id()),
            "occurred_at": now().isoformat(),
            "auth_id": str(self.user_id),
            "email": self.email,
        }
        producer = kafka.producer(self.settings)
        await producer.start()
        try:
            for _ in range(2):
                await producer.send_and_wait(AUTH_CREATED, json.dumps(event).encode(), key=event["auth_id"].encode())
        finally:
            await producer.stop()
        self.done(f"auth.created.v1 on Kafka, twice, for {self.user_id}")

        async def there() -> bool:
            return await has_user(self.database, user_id=self.user_id)

        await self.eventually(there, "the worker makes the user")
        self.expect("data keys of the user", await count_keys(self.database, user_id=self.user_id), 2)
        self.done("one user, with an empty profile, preferences and its own data keys")

    async def read(self) -> None:
        status, headers, me = await self.call("GET", "/v1/me")
        self.expect("GET /v1/me", status, 200)
        self.expect(
            "its status", (me["status"], me["kyc_status"], me["kyc_tier"]), ("pending", "not_started", "tier_0")
        )
        self.expect("its e-mail", me["profile"]["email"], self.email)
        self.etag = headers["ETag"]
        self.done(f"GET /v1/me → 200, ETag {self.etag}, status pending, tier_0")
        status, _, _ = await self.call("GET", "/v1/me", headers={"If-None-Match": self.etag})
        self.expect("the same with If-None-Match", status, 304)
        self.done("the same with If-None-Match → 304, nothing opened")

    async def refused(self) -> None:
        async with self.http.get("/v1/me") as response:
            self.expect("GET /v1/me without a token", response.status, 401)
        self.done("without a token → 401")
        status, _, problem = await self.call("PATCH", "/v1/me", {"pan_number": "ABCCV1234F"})
        self.expect("a company's PAN", (status, problem["errors"][0]["pointer"]), (422, "/pan_number"))
        self.done("a company's PAN → 422, /pan_number named, the value not echoed")
        status, _, problem = await self.call("PATCH", "/v1/me", {"first_name": "Asha"}, headers={"If-Match": '"99"'})
        self.expect("a stale If-Match", (status, problem["code"]), (412, "version_mismatch"))
        self.done("a stale If-Match → 412")

    async def updated(self) -> None:
        status, headers, me = await self.call("PATCH", "/v1/me", self.profile)
        self.expect("PATCH /v1/me", status, 200)
        self.expect("the phone in canonical form", me["profile"]["phone"], "+919876543210")
        self.expect("a new ETag", headers["ETag"] != self.etag, True)
        self.done(f"PATCH /v1/me with name, PAN, address, phone → 200, ETag {headers['ETag']}")
        status, _, me = await self.call("PATCH", "/v1/me", {"address": {"city": "Mumbai"}})
        expected = {**ADDRESS, "line2": None, "city": "Mumbai", "country": "IN"}
        self.expect("the merged address", (status, me["profile"]["address"]), (200, expected))
        self.done("PATCH of the city alone → the rest of the address stays")

    async def sealed_at_rest(self) -> None:
        sealed = await list_sealed(self.database, user_id=self.user_id)
        self.expect("sealed columns", len(sealed), len(self.profile))
        stored = b"".join(sealed)
        for value in ("Asha", "Verma", self.pan, "9876543210", "MG Road"):
            self.expect(f"{value} in the row", value.encode() in stored, False)
        self.done(f"in PostgreSQL: {len(self.profile)} sealed columns, none of the values readable")

    async def consents(self) -> None:
        said = {"consent_type": "terms_of_service", "version": "2026-01", "granted": True}
        key = {"Idempotency-Key": str(uuid4())}
        status, _, first = await self.call("POST", "/v1/me/consents", said, headers=key)
        self.expect("a consent", (status, first["granted"]), (201, True))
        status, headers, again = await self.call("POST", "/v1/me/consents", said, headers=key)
        self.expect("its repetition", (status, again, headers.get("Idempotency-Replayed")), (201, first, "true"))
        await self.call("POST", "/v1/me/consents", {**said, "consent_type": "marketing"})
        status, _, withdrawn = await self.call(
            "POST", "/v1/me/consents", {**said, "consent_type": "marketing", "granted": False}
        )
        self.expect("a withdrawal", (status, withdrawn["granted"]), (201, False))
        _, _, history = await self.call("GET", "/v1/me/consents?history=true")
        self.expect("rows of history", len(history["items"]), 3)
        self.done("consents: given, repeated with the same Idempotency-Key, withdrawn; 3 rows of history")

    async def preferences(self) -> None:
        _, _, prefs = await self.call("GET", "/v1/me/notification-prefs")
        wanted = {**{name: value for name, value in prefs.items() if name != "updated_at"}, "sms_enabled": True}
        status, _, stored = await self.call("PUT", "/v1/me/notification-prefs", wanted)
        self.expect("PUT /v1/me/notification-prefs", (status, stored["sms_enabled"]), (200, True))
        self.done("notification preferences replaced")

    async def published(self) -> None:
        created = await self.events("user.created.v1", 1)
        self.expect("distinct user.created.v1", len({event["event_id"] for event in created}), 1)
        updated = await self.events("user.updated.v1", 2)
        self.expect("versions of user.updated.v1", [event["version"] for event in updated], [2, 3])
        self.expect("changed fields of the second", updated[1]["changed_fields"], ["address"])
        self.expect("personal data in events", any(word in json.dumps(updated) for word in ("Asha", "MG Road")), False)
        self.done("on Kafka: one user.created.v1, two user.updated.v1 in order, names of fields and no values")

    async def audited(self) -> None:
        counts = Counter(await list_trail(self.database, user_id=self.user_id))
        self.expect(
            "audit rows",
            dict(counts),
            {
                "user.created": 1,
                "profile.read": 3 + 2,  # and what each vendor was sent
                "profile.updated": 2,
                "consent.granted": 2,
                "consent.revoked": 1,
                "prefs.updated": 1,
                "kyc.initiated": 2,
                "kyc.updated": 2,
                "status.changed": 3,  # tier_1, active, tier_2
            },
        )
        self.done("audit trail: " + ", ".join(f"{action} ×{count}" for action, count in counts.items()))

    async def shown_who_looked(self) -> None:
        status, _, log = await self.call("GET", "/v1/me/access-log")
        self.expect("GET /v1/me/access-log", status, 200)
        self.expect("who received the data", [item["client"] for item in log["items"]], ["signzy", "hyperverge"])
        self.done("GET /v1/me/access-log → what each vendor was sent")

    async def verified(self) -> None:
        """The worker's sealer has sealed it a moment ago; what it sealed is what is there."""
        found: Verified | None = None
        async with app.opened(self.settings) as parts:

            async def sealed() -> bool:
                nonlocal found
                found = await verify(parts.db, parts.keyring)
                return found.unsealed == 0

            await self.eventually(sealed, "the trail is sealed")
        assert found is not None
        self.expect("what is wrong with the trail", found.finding, None)
        self.done(f"the audit trail is sealed and verified: {found.rows} rows in {found.segments} signed segments")

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, Any]:
        token = sign(self.settings, self.user_id)
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        async with self.http.request(method, path, json=body, headers=sent) as response:
            return (
                response.status,
                response.headers,
                None if response.status == 304 else await response.json(content_type=None),
            )

    async def events(self, topic: str, count: int) -> list[Any]:
        found: list[Any] = []
        consumer = kafka.consumer(self.settings, topic, group=None)
        await consumer.start()
        key = str(self.user_id).encode()
        try:
            async with avro.opened(self.settings) as registry:

                async def enough() -> bool:
                    batches = cast(dict[TopicPartition, list[kafka.Record]], await consumer.getmany(timeout_ms=200))
                    for record in (record for batch in batches.values() for record in batch if record.key == key):
                        found.append(await avro.said(registry, record.value or b"") or json.loads(record.value or b""))
                    return len({event["event_id"] for event in found}) >= count

                await self.eventually(enough, f"{count} {topic} on Kafka")
        finally:
            await consumer.stop()
        return found

    async def eventually(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not await condition():
            if time.monotonic() > deadline:
                raise Wrong(f"{what}: not within {WITHIN_S:.0f} s")
            await asyncio.sleep(0.05)

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise Wrong(f"{what}: expected {wanted!r}, got {found!r}")

    def done(self, sentence: str) -> None:
        self.steps += 1
        self.console.print(f"[green]✓[/green] {sentence}")
