"""The test stand of the kit: a vendor's sandbox, somebody in between, an inbox for its webhooks, and the plugin."""

import asyncio
import inspect
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct

from usercore.logs import described
from usercore.plugins.addresses import open_session
from usercore.plugins.errors import VendorBug, VendorError, VendorPending
from usercore.plugins.http import Limits, VendorHttp
from usercore.plugins.vendor import (
    Attempt,
    Check,
    Evidence,
    KycVendor,
    Person,
    Standing,
    Started,
    StartRequest,
    VendorSpec,
    WebhookEvent,
    WebhookScheme,
)
from usercore.settings import KYC_TIERS
from usercore.telemetry import Metrics
from usercore.testing import people
from usercore.testing.fence import SECRET, Fenced, made_settings
from usercore.testing.inbox import Hook, Inbox
from usercore.testing.middle import Middle, between
from usercore.testing.sandbox import Options
from usercore.testing.server import listening
from usercore.testing.verdicts import Failed

T = TypeVar("T")

LONGEST_S = 20.0
"""Of one call of a plugin: the host gives up long before."""
MESSAGE_S = 5.0
"""How long the kit waits for a webhook that should come at once."""
POLL_S = 0.02
QUIET = 3
"""So many looks without a new webhook, and there are no more."""
QUICK = Limits(total_s=5.0, attempts=2, backoff_s=0.002, concurrent=1000, breaker_failures=10**9)
"""The host's limits, made quick, and without the breaker: each check is to meet the vendor."""

Launch = Callable[[Options], AbstractAsyncContextManager[str]]
"""Starts the sandbox with these options, and gives its URL."""


class Subject(Struct, frozen=True, kw_only=True):
    """Which vendor is looked at."""

    spec: VendorSpec[Any]
    launch: Launch
    settings: Mapping[str, object] = {}
    """Fields of the settings that cannot be made up: a value each, as the settings Struct has them."""


class Run(Struct, frozen=True, kw_only=True):
    """An attempt that was started."""

    number: int
    """Of the person."""
    request: StartRequest
    started: Started

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            attempt_id=self.request.attempt_id,
            vendor_case_id=self.started.vendor_case_id,
            checks=self.request.checks,
        )

    @property
    def is_done(self) -> bool:
        """Whether everything was said when the start returned."""
        evidence = self.started.evidence
        return evidence is not None and evidence.standing >= Standing.REVIEW


class Stand:
    """What a check works with. It belongs to one check; the sandbox may have served others before."""

    def __init__(
        self, subject: Subject, sandbox: str, inbox: Inbox, middle: Middle, session: aiohttp.ClientSession
    ) -> None:
        self.subject = subject
        self.spec = subject.spec
        self.sandbox = sandbox
        self.inbox = inbox
        self.middle = middle
        self.settings = made_settings(self.spec, subject.settings, middle.url)
        self._session = session
        self.vendor = self.new_vendor()

    def new_vendor(self, limits: Limits = QUICK) -> KycVendor:
        """The plugin's vendor, as a host that has just started has it."""
        # Metrics of its own: what the kit does is not counted.
        http = VendorHttp(self.spec.name, self._session, Metrics(), production=False, limits=limits)
        try:
            return self.spec.factory(self.settings, Fenced(http))
        except Exception as error:
            raise Failed(f"the factory raised {where(error)}: it only keeps its two arguments") from None

    def steps(self) -> list[frozenset[Check]]:
        """What one attempt may ask this vendor for: the tiers that it covers, or else all that it can."""
        steps = [checks for _, checks in KYC_TIERS if checks <= self.spec.checks]
        return cast("list[frozenset[Check]]", steps) or [self.spec.checks]

    def request(
        self, step: frozenset[Check], number: int = 0, *, person: Person | None = None, attempt_id: UUID | None = None
    ) -> StartRequest:
        """As the host makes it: with the fields that the vendor discloses, and a callback address of its own."""
        token = secrets.token_urlsafe(32)
        return StartRequest(
            attempt_id=attempt_id or uuid4(),
            checks=step,
            person=people.only(people.person(number), self.spec.discloses) if person is None else person,
            callback_url=f"{self.inbox.url}/v1/kyc/webhook/{self.spec.name}/{token}",
            redirect_url="https://app.example/done",
            bank_account=people.bank_account(number) if "bank" in step else None,
        )

    # The plugin's methods; whatever is no VendorError fails the check ------------------------------------------------

    async def start(self, request: StartRequest, *, vendor: KycVendor | None = None) -> Started:
        return await self._call("start", (vendor or self.vendor).start(request), Started)

    async def fetch(self, attempt: Attempt, *, vendor: KycVendor | None = None) -> Evidence:
        return await self._call("fetch", (vendor or self.vendor).fetch(attempt), Evidence)

    def read(self, headers: Mapping[str, str], body: bytes, *, vendor: KycVendor | None = None) -> WebhookEvent:
        try:
            event = (vendor or self.vendor).read_webhook(headers, body)
        except VendorError:
            raise
        except Exception as error:
            raise Failed(f"read_webhook raised {where(error)}: raise VendorProtocolError") from None
        if inspect.iscoroutine(event):
            event.close()
            raise Failed("read_webhook is a coroutine: it has to be a plain function, `def`, that waits for nothing")
        return _of_type("read_webhook", event, WebhookEvent)

    async def _call(self, method: str, work: Awaitable[object], kind: type[T]) -> T:
        try:
            async with asyncio.timeout(LONGEST_S):
                result = await work
        except VendorBug:
            raise Failed(f"{method} raised VendorBug, which is the host's: raise another VendorError") from None
        except (VendorError, Failed):
            raise
        except TimeoutError as error:
            raise Failed(f"{method} raised {where(error)}, or took over {LONGEST_S:g} s") from None
        except Exception as error:
            raise Failed(f"{method} raised {where(error)}: raise a VendorError (usercore.plugins.errors)") from None
        return _of_type(method, result, kind)

    # Whole ways ------------------------------------------------------------------------------------------------------

    async def run(
        self,
        step: frozenset[Check] | None = None,
        number: int = 0,
        *,
        request: StartRequest | None = None,
        vendor: KycVendor | None = None,
        **plan: object,
    ) -> Run:
        """Start an attempt whose case does what the plan says; without one it waits for `complete`."""
        if plan:
            await self.control("next", plan)
        request = request or self.request(step or self.steps()[0], number)
        return Run(number=number, request=request, started=await self.start(request, vendor=vendor))

    async def complete(self, run: Run, **told: object) -> None:
        await self.control("complete", {"reference": run.started.vendor_case_id, **told})

    async def result(self, run: Run, *, vendor: KycVendor | None = None) -> Evidence:
        """All that is known of an attempt. Raises VendorPending."""
        try:
            evidence = await self.fetch(run.attempt, vendor=vendor)
        except VendorPending:
            if run.started.evidence is None:
                raise
            return run.started.evidence
        earlier = run.started.evidence
        return earlier if earlier is not None and earlier.standing > evidence.standing else evidence

    async def hooks(self, run: Run, *, at_least: int = 1) -> list[Hook]:
        """The webhooks about an attempt, once no more come."""
        token = run.request.callback_url.rpartition("/")[2]
        ids = [run.started.vendor_case_id.encode(), str(run.request.attempt_id).encode()]
        clock = asyncio.get_running_loop().time
        deadline, quiet, found = clock() + MESSAGE_S, 0, list[Hook]()
        while quiet < QUIET:
            before = len(found)
            found = [
                hook for hook in self.inbox.hooks if hook.path.endswith(token) or any(id in hook.body for id in ids)
            ]
            quiet = quiet + 1 if len(found) == before and before >= at_least else 0
            if clock() > deadline:
                raise Failed(
                    f"the sandbox sent {len(found)} webhooks that name the case, and {at_least} should have come: give "
                    "it a `message`, and let its start pass the callback address to `open`"
                )
            await asyncio.sleep(POLL_S)
        return found

    async def cases(self) -> list[dict[str, Any]]:
        """The sandbox's cases, as its control interface shows them."""
        async with self._session.get(f"{self.sandbox}/_control/cases") as answer:
            return msgspec.json.decode(await answer.read())["cases"]

    async def control(self, call: str, told: Mapping[str, object]) -> None:
        async with self._session.post(f"{self.sandbox}/_control/{call}", data=msgspec.json.encode(told)) as answer:
            if answer.status != 200:
                raise Failed(
                    f"the sandbox's control interface answered {answer.status} to `{call}`: derive it from "
                    "usercore.testing.sandbox.Sandbox, and open its cases with the id that the plugin gives back"
                )


@asynccontextmanager
async def standing(subject: Subject, inbox: Inbox, sandbox: str) -> AsyncGenerator[Stand]:
    """A stand before a sandbox that runs."""
    async with between(sandbox) as middle, open_session(production=False) as session:
        yield Stand(subject, sandbox, inbox, middle, session)


@asynccontextmanager
async def ground(subject: Subject, scheme: WebhookScheme) -> AsyncGenerator[tuple[Inbox, str]]:
    """An inbox and the sandbox, whose webhooks are authenticated by this scheme."""
    async with AsyncExitStack() as stack:
        inbox = Inbox()
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/{rest:.*}", inbox.take)
        inbox.url = await stack.enter_async_context(listening(app))
        url = f"{inbox.url}/v1/kyc/webhook/{subject.spec.name}"
        options = Options(webhook_auth=scheme, webhook_secret=SECRET, webhook_url=url)
        try:
            sandbox = await stack.enter_async_context(subject.launch(options))
        except OSError as error:
            raise Failed(f"the sandbox does not start, {type(error).__name__}") from None
        yield inbox, sandbox


def where(error: BaseException) -> str:
    """The class of an error and the last line of source; its text may hold anything."""
    frames = [frame for frame in cast("list[str]", described(error)["frames"]) if "usercore/testing/" not in frame]
    return type(error).__name__ + (f" at {frames[-1]}" if frames else "")


def _of_type(method: str, result: object, kind: type[T]) -> T:
    if type(result) is not kind:
        raise Failed(f"{method} gave {type(result).__name__}: give {kind.__name__}")
    return cast("T", result)
