"""What verbs are called with: the service as far as they reach, a user of one run, and what a case is."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from usercore import app, telemetry
from usercore.artifacts.actions import Artifacts
from usercore.attempts.actions import Kyc
from usercore.clickhouse import ClickHouse
from usercore.db import Conn, Db
from usercore.kyc.actions import Rules
from usercore.outbox import Actor
from usercore.pii.keyring import Keyring
from usercore.plugins import (
    Artifact,
    Attempt,
    Check,
    Evidence,
    Http,
    Standing,
    Started,
    StartRequest,
    VendorPending,
    VendorSettings,
    VendorSpec,
    VendorUnavailable,
    WebhookEvent,
    WebhookScheme,
)
from usercore.plugins.distributions import Installed
from usercore.plugins.documents import Documents, Fetched
from usercore.plugins.guard import Guarded
from usercore.plugins.loading import Enabled, Vendor
from usercore.plugins.webhooks import WebhookConfig
from usercore.profiles import actions as profiles
from usercore.relay import Relay
from usercore.settings import load

SECRET = "secret of acme"
PAPER = b"\xff\xd8\xff a picture"
PENDING = "pending-"
"""What the vendor calls an attempt that it has no result of."""


class Acme:
    """A vendor in this process: takes every attempt, and approves those that it calls by another name than PENDING."""

    async def start(self, request: StartRequest) -> Started:
        await asyncio.sleep(0)
        return Started(vendor_case_id=f"{PENDING}{request.attempt_id}", redirect_url="https://acme.example.in/start")

    async def fetch(self, attempt: Attempt) -> Evidence:
        await asyncio.sleep(0)
        if attempt.vendor_case_id.startswith(PENDING):
            raise VendorPending
        picture = Artifact(type="selfie", url="https://acme.example.in/selfie")
        return Evidence(standing=Standing.APPROVED, vendor_status="so", checks={"pan": "passed"}, artifacts=(picture,))

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return msgspec.json.decode(body, type=WebhookEvent)


def signed(event: WebhookEvent) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A message of Acme's: its headers and its body."""
    body = msgspec.json.encode(event)
    return [(b"x-webhook-signature", hmac.digest(SECRET.encode(), body, "sha256").hex().encode())], body


class Quick(Acme):
    """A vendor that has the result when it has the question."""

    async def start(self, request: StartRequest) -> Started:
        evidence = Evidence(standing=Standing.APPROVED, vendor_status="so", checks={"pan": "passed"})
        return Started(vendor_case_id=str(request.attempt_id), evidence=evidence)


class Away(Acme):
    """A vendor that nobody reaches."""

    async def start(self, request: StartRequest) -> Started:
        await asyncio.sleep(0)
        raise VendorUnavailable(reached=False)


class Papers(Documents):
    """Where Acme keeps its documents."""

    def __init__(self) -> None: ...

    async def fetch(self, url: str, take: Callable[[bytes], object]) -> Fetched:
        await asyncio.sleep(0)
        take(PAPER)
        return Fetched(hashlib.sha256(PAPER).hexdigest(), len(PAPER), "image/jpeg")


def vendor(kyc: Acme, name: str = "acme", *checks: Check, scheme: WebhookScheme = "hmac") -> Vendor:
    """The vendor, enabled; it verifies PANs unless it is said what else."""

    def made(settings: VendorSettings, http: Http) -> Acme:
        return kyc

    spec = VendorSpec(
        name=name,
        api_version=1,
        title=name.title(),
        settings=VendorSettings,
        checks=frozenset(checks or ("pan",)),
        discloses=frozenset({"first_name", "pan_number"}),
        webhook_schemes=frozenset({scheme}),
        factory=made,
    )
    installed = Installed(spec=spec, distribution=name, version="1", source="tests")
    webhook = WebhookConfig(scheme=scheme, secrets=(SECRET,))
    enabled = Enabled(installed=installed, settings=VendorSettings(), webhook=webhook)
    return Vendor(enabled=enabled, kyc=Guarded(name, kyc, telemetry.metrics))


RULES = Rules(
    tiers={"tier_1": frozenset({"pan"}), "tier_2": frozenset({"address"}), "tier_3": frozenset({"bank"})},
    validity=timedelta(days=730),
)


class World(Struct):
    """The service as far as verbs reach, with a pool of one connection: a verb that keeps it starves the next one."""

    db: Db
    keyring: Keyring
    reader: profiles.ProfileReader
    writer: profiles.ProfileWriter
    relay: Relay
    kyc: Kyc
    artifacts: Artifacts
    clickhouse: ClickHouse | None

    @property
    def archive(self) -> ClickHouse:
        assert self.clickhouse is not None
        return self.clickhouse


@asynccontextmanager
async def opened(environ: Mapping[str, str]) -> AsyncGenerator[World]:
    settings = load({**environ, "DB_POOL_SIZE": "1"})
    async with app.opened(settings) as parts:
        reader = profiles.ProfileReader(parts.db.dedicated, parts.keyring)
        writer = profiles.ProfileWriter(parts.db, parts.keyring)
        relay = Relay(parts.db, settings)
        try:
            yield World(
                parts.db,
                parts.keyring,
                reader,
                writer,
                relay,
                replace(
                    parts.kyc,
                    vendors={
                        each.name: each for each in (vendor(Acme()), vendor(Away(), "away"), vendor(Quick(), "quick"))
                    },
                    rules=RULES,
                ),
                replace(parts.artifacts, documents=Papers()),
                parts.archive,
            )
        finally:
            await relay._drop_producer()
            await reader.close()
            await writer.close()


class Subject(Struct, frozen=True):
    """The user of one run, another one, and what else of the run has an id."""

    user: UUID = field(default_factory=uuid4)
    other: UUID = field(default_factory=uuid4)
    created: UUID = field(default_factory=uuid4)
    created_other: UUID = field(default_factory=uuid4)
    deactivated: UUID = field(default_factory=uuid4)
    key: UUID = field(default_factory=uuid4)

    @property
    def names(self) -> dict[UUID, str]:
        return {getattr(self, name): name for name in self.__struct_fields__}

    @property
    def actor(self) -> Actor:
        return Actor(kind="user", id=self.user, ip="203.0.113.7", request_id="request", trace_id="trace")


Call = Callable[[World, Subject], Coroutine[Any, Any, object]]
Given = Callable[[World, Subject, Conn], Awaitable[object]]


async def nobody(w: World, s: Subject, owner: Conn) -> None: ...


def after(*calls: Call) -> Given:
    async def given(w: World, s: Subject, owner: Conn) -> None:
        for call in calls:
            await call(w, s)

    return given


class Case(Struct, frozen=True):
    """One call of a verb in a situation that `given` makes, and what the call leaves behind.

    `changes` names the tables besides those of audit and outbox. A second call leaves nothing more, unless `repeats`.

    A verb that waits for somebody outside between its transactions has `steps`, the number of states that can be seen
    meanwhile and after, whose turn it is apart. Before the next call `due` lets the time pass after which a copy that
    died is replaced, and `others` is what the service does by itself besides. `shown` is what counts of an answer.
    """

    verb: str
    situation: str
    call: Call
    given: Given = nobody
    changes: str = ""
    audit: str = ""
    events: str = ""
    repeats: bool = False
    steps: int = 0
    due: Given = nobody
    others: Call | None = None
    shown: Callable[[Any], Awaitable[object]] | None = None

    @property
    def name(self) -> str:
        return f"{self.verb}: {self.situation}"
