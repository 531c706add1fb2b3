"""The base of vendors' sandboxes: cases that people finish or that finish by themselves, and their webhooks.

A vendor's sandbox derives from `Sandbox`, gives its routes and messages in the vendor's wire format, and its module
ends with `main(ItsSandbox)` of `usercore.testing.server`.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from msgspec import Struct

from usercore.plugins.vendor import WebhookScheme
from usercore.testing import pages
from usercore.testing.control import Case, Outcome, Plan, Reading, merged
from usercore.testing.delivery import Message, Sender

HANG_S = 60.0
"""A call that hangs: longer than anybody waits, and not for ever."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    latency_ms: int = 0
    """Before each answer of the vendor's API."""
    failure_rate: float = 0.0
    """How many of its calls fail, from 0 to 1."""
    webhook_auth: WebhookScheme = "hmac"
    webhook_secret: str = "sandbox-webhook-secret"  # noqa: S105 - it protects nothing
    webhook_url: str | None = None
    """Where webhooks of cases go that were started without an address for them."""


class Sandbox:
    """One vendor's sandbox. What a vendor is like stands in the methods that raise or return nothing here."""

    title: ClassVar[str] = "Sandbox"
    steps: ClassVar[Sequence[pages.Step]] = ()
    """Of the hosted page, before the one on which the outcome is chosen."""
    webhook_header: ClassVar[str] = "x-webhook-secret"
    """Where the secret goes under `static_header`."""
    reopens: ClassVar[bool] = False
    """Whether a link that was used can be opened again."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.cases: dict[str, Case] = {}
        """By the vendor's id."""
        self.links: dict[str, Case] = {}
        """By the unguessable part of the hosted page's address."""
        self.sender = Sender(self.options.webhook_auth, self.options.webhook_secret, self.webhook_header)
        self._next = Plan()
        self._tasks: set[asyncio.Task[None]] = set()

    # What a vendor says ---------------------------------------------------------------------------------------------

    def routes(self) -> Iterable[web.RouteDef]:
        """The vendor's API. Latency, failures, `timeout` and `error` are put in front of it."""
        return ()

    def failure(self) -> web.StreamResponse:
        """The vendor's answer when it cannot do it."""
        return web.json_response({"message": "Internal Server Error"}, status=500)

    def message(self, case: Case, outcome: Outcome | None) -> Message | None:
        """The webhook of an outcome; with None that of the progress before. None when the vendor sends none."""
        return None

    def webhook(self, case: Case) -> tuple[str | None, Mapping[str, str]]:
        """Where a case's webhooks go, and static headers that the customer has asked for."""
        return case.callback_url or self.options.webhook_url, {}

    def returned(self, case: Case) -> Mapping[str, str]:
        """The query with which the person's browser comes back."""
        return {}

    def finished(self, case: Case) -> None:
        """A case has got its outcome: what the vendor does besides."""

    # What its routes call -------------------------------------------------------------------------------------------

    async def open(
        self,
        reference: str,
        identity: Reading,
        *,
        attempt_id: str | None = None,
        redirect_url: str | None = None,
        callback_url: str | None = None,
        also: frozenset[str] = frozenset(),
        memory: Mapping[str, Any] | None = None,
    ) -> Case:
        """Start a case by the plan that was set for the next one; the one there is when the reference is known.

        The person's own data is what the vendor reads, unless the plan says otherwise. `memory` is what the vendor
        remembers besides; its messages may need it at once. Hangs and fails as `reach`.
        """
        case = self.cases.get(reference)
        if case is None:
            plan, self._next = self._next, Plan()
            case = Case(
                reference,
                attempt_id,
                identity,
                plan,
                link=secrets.token_urlsafe(16),
                redirect_url=redirect_url,
                callback_url=callback_url,
                also=also,
            )
            case.memory.update(memory or {})
            self.cases[reference] = self.links[case.link] = case
            if plan.outcome is not None or plan.webhook == "forged":
                self.complete(case, plan)
        await self.reach(case)
        return case

    async def reach(self, case: Case) -> None:
        """Come through to a case: hangs, or raises Failing, while the vendor is in trouble with it."""
        if case.trouble == "timeout":
            try:
                async with asyncio.timeout(HANG_S):
                    await case.recovered.wait()
            except TimeoutError:
                raise Failing from None
        if case.trouble == "error":
            raise Failing

    def page_url(self, request: web.Request, case: Case) -> str:
        """The hosted page, on the host and port that the caller has used."""
        return f"{request.url.origin()}/kyc/{case.link}"

    def find(self, reference: str) -> Case | None:
        """By the vendor's id, our attempt's, or another that was sent; of several the newest."""
        return self.cases.get(reference) or next(
            (case for case in reversed(self.cases.values()) if case.has(reference)), None
        )

    def finish(self, case: Case, plan: Plan) -> None:
        """Give a case its outcome now, and send what the plan has of webhooks in the background."""
        if plan.webhook == "forged":
            self._later(self._deliver(case, [self.message(case, "approve")], forged=True))
            return
        assert plan.outcome is not None
        case.identity = merged(case.identity, plan.identity)
        case.trouble = None
        case.recovered.set()
        # The progress is of the person; a reviewer has none to tell of.
        case.manual = case.outcome == "review" and plan.outcome in ("approve", "decline")
        progress = None if case.manual or plan.outcome == "cancel" else self.message(case, None)
        case.outcome, case.code = plan.outcome, plan.code
        self.finished(case)
        final = self.message(case, plan.outcome)
        messages = {
            "normal": [progress, final],
            "duplicate": [progress, final, final],
            "reordered": [final, progress],
            "drop": [],
        }[plan.webhook]
        self._later(self._deliver(case, messages))

    # What happens by itself -----------------------------------------------------------------------------------------

    def set_next(self, plan: Plan) -> None:
        """The plan of the next case that is started; one that nobody used is forgotten."""
        self._next = plan

    def complete(self, case: Case, plan: Plan) -> None:
        """Do what a plan says, now or after its delay."""
        if plan.outcome in ("timeout", "error"):
            case.trouble = plan.outcome
            case.recovered.clear()
            if plan.delay_ms:
                self._later(self._recover(case, plan.delay_ms))
        elif plan.delay_ms:
            self._later(self._finish_later(case, plan))
        else:
            self.finish(case, plan)

    async def close(self) -> None:
        """Stop what happens by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sender.close()

    async def _recover(self, case: Case, delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        case.trouble = None
        case.recovered.set()

    async def _finish_later(self, case: Case, plan: Plan) -> None:
        await asyncio.sleep(plan.delay_ms / 1000)
        self.finish(case, plan)

    async def _deliver(self, case: Case, messages: Sequence[Message | None], *, forged: bool = False) -> None:
        url, headers = self.webhook(case)
        if url is not None:
            for message in messages:
                if message is not None:
                    case.deliveries.append(await self.sender.send(url, message, headers=headers, forged=forged))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Failing(Exception):
    """The vendor is in trouble with this case."""
