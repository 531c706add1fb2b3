"""Vendors that each break one promise: the sample vendor with one thing changed."""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import uuid4

import msgspec

from usercore.plugins import (
    Attempt,
    Evidence,
    Http,
    Identity,
    Standing,
    Started,
    StartRequest,
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    VendorSettings,
    VendorSpec,
    VendorUnavailable,
    WebhookEvent,
)
from usercore.testing import people
from usercore.testing.acme import SPEC
from usercore.testing.acme.client import Acme
from usercore.testing.acme.sandbox import AcmeSandbox
from usercore.testing.acme.settings import AcmeSettings

log = logging.getLogger(__name__)
replace = msgspec.structs.replace


# start ----------------------------------------------------------------------------------------------------------------


class NoReference(Acme):
    async def start(self, request: StartRequest) -> Started:
        return replace(await super().start(request), vendor_case_id="")


class DeadEnd(Acme):
    async def start(self, request: StartRequest) -> Started:
        return replace(await super().start(request), redirect_url=None)


class Once(Acme):
    """Refuses what it was asked before."""

    def __init__(self, settings: AcmeSettings, http: Http) -> None:
        super().__init__(settings, http)
        self.seen: set[object] = set()

    async def start(self, request: StartRequest) -> Started:
        if request.attempt_id in self.seen:
            raise VendorRejected
        self.seen.add(request.attempt_id)
        return await super().start(request)


class OwnIds(Acme):
    """Never tells the vendor our id."""

    async def start(self, request: StartRequest) -> Started:
        return await super().start(replace(request, attempt_id=uuid4()))


class OwnCallback(Acme):
    async def start(self, request: StartRequest) -> Started:
        return await super().start(replace(request, callback_url=request.callback_url.rpartition("/")[0]))


class Mixing(Acme):
    """Keeps the person of the newest call in itself."""

    async def start(self, request: StartRequest) -> Started:
        self.request = request
        # As one who asks for a token first.
        await asyncio.sleep(0.001)
        return await super().start(replace(request, person=self.request.person))


class Remembering(Acme):
    def __init__(self, settings: AcmeSettings, http: Http) -> None:
        super().__init__(settings, http)
        self.mine: set[str] = set()

    async def start(self, request: StartRequest) -> Started:
        started = await super().start(request)
        self.mine.add(started.vendor_case_id)
        return started

    async def fetch(self, attempt: Attempt) -> Evidence:
        if attempt.vendor_case_id not in self.mine:
            return Evidence(standing=Standing.STARTED, vendor_status="open")
        return await super().fetch(attempt)


class Uncancellable(Acme):
    async def start(self, request: StartRequest) -> Started:
        try:
            return await super().start(request)
        except asyncio.CancelledError:
            raise VendorUnavailable from None


class Leaking(Acme):
    """Leaves a task behind when it is cancelled."""

    tasks: ClassVar[set[asyncio.Task[Started]]] = set()

    async def start(self, request: StartRequest) -> Started:
        task = asyncio.create_task(self._started(request))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return await asyncio.shield(task)

    async def _started(self, request: StartRequest) -> Started:
        return await super().start(request)


class Needy(Acme):
    """Takes every field for given."""

    async def start(self, request: StartRequest) -> Started:
        assert request.person.date_of_birth is not None
        return await super().start(request)


# fetch ----------------------------------------------------------------------------------------------------------------


class Changed(Acme):
    """Gives other evidence than the vendor's."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        return self.changed(await super().fetch(attempt))

    def changed(self, evidence: Evidence) -> Evidence:
        return evidence


class Hasty(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, standing=max(evidence.standing, Standing.REVIEW))


class Deaf(Changed):
    """Never comes to an approval."""

    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, standing=min(evidence.standing, Standing.REVIEW))


class Unchecked(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, checks={})


class Lenient(Changed):
    """Approves whoever was declined."""

    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, standing=Standing.APPROVED) if evidence.standing == Standing.REJECTED else evidence


class Wordless(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, rejection_code=None)


class Trusting(Changed):
    """Takes a review for an approval."""

    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, standing=Standing.APPROVED) if evidence.standing == Standing.REVIEW else evidence


class Unforgiving(Changed):
    """Rejects who left."""

    def changed(self, evidence: Evidence) -> Evidence:
        left = evidence.vendor_status == "abandoned"
        return replace(evidence, standing=Standing.REJECTED, rejection_code="vendor_declined") if left else evidence


class Unreviewed(Changed):
    """Does not know what reviewers decide."""

    def changed(self, evidence: Evidence) -> Evidence:
        manual = evidence.vendor_status.endswith("_by_reviewer")
        return replace(evidence, standing=Standing.REVIEW) if manual else evidence


class Optimistic(Changed):
    """Approves what it does not know."""

    def changed(self, evidence: Evidence) -> Evidence:
        unknown = evidence.vendor_status == "unknown"
        return replace(evidence, standing=Standing.APPROVED) if unknown else evidence


class Fickle(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, vendor_status=f"verified_{time.time_ns()}")


class Untyped(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        wrong: Any = {"pan": "ok", "selfie": "ok"} if evidence.checks else {}
        return replace(evidence, checks={**evidence.checks, **({"face": "passed"} if wrong else {})})


class Zoneless(Changed):
    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, occurred_at=datetime(2026, 1, 31, 12))  # noqa: DTZ001


class Whole(Changed):
    """Gives a whole Aadhaar number on, in a field that is none of it."""

    def changed(self, evidence: Evidence) -> Evidence:
        return replace(evidence, identity=Identity(name=f"UID {people.aadhaar_number()}"))


class Guessing(Acme):
    """Gives a dictionary."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        found: Any = msgspec.to_builtins(await super().fetch(attempt))
        return found


class Repeating(Acme):
    """Tells the vendor's own word, whatever it is."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        response = await self._http.get("fetch", f"{self._url}/{attempt.vendor_case_id}", headers=self._headers)
        evidence = await super().fetch(attempt)
        return replace(evidence, vendor_status=response.json(dict[str, Any])["status"])


# read_webhook ---------------------------------------------------------------------------------------------------------


class Reading(Acme):
    """Gives another event than the message's."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return self.read(super().read_webhook(headers, body), headers, body)

    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return event


class Illiterate(Reading):
    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        raise VendorProtocolError


class Nameless(Reading):
    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return replace(event, vendor_case_id=None, attempt_id=None)


class Confused(Reading):
    """Names the message where the case should be."""

    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return replace(event, vendor_case_id=event.event_id)


class Impure(Reading):
    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        evidence = replace(event.evidence, vendor_status=str(time.time_ns())) if event.evidence else None
        return replace(event, evidence=evidence)


class Slow(Reading):
    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        time.sleep(0.06)
        return event


class Waiting(Acme):
    async def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:  # pyright: ignore[reportIncompatibleMethodOverride]  the mistake
        return super().read_webhook(headers, body)


class Credulous(Acme):
    """Takes everything for JSON that is what it should be."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        told = msgspec.json.decode(body)["verification"]
        return WebhookEvent(vendor_case_id=told["id"], attempt_id=told["reference"])


class Patient(Acme):
    """Takes an empty object for a message of somebody."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        try:
            return super().read_webhook(headers, body)
        except VendorProtocolError:
            return WebhookEvent(attempt_id="unknown")


class Loose(Acme):
    """Looks at what the message has, and not of which type it is."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        try:
            told = msgspec.json.decode(body)["verification"]
            return WebhookEvent(vendor_case_id=told["id"], attempt_id=told["reference"])
        except (msgspec.MsgspecError, ValueError, RecursionError, KeyError, TypeError):
            raise VendorProtocolError from None


class NewIds(Reading):
    """Makes up an id each time."""

    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return replace(event, event_id=str(uuid4()))


class SameIds(Reading):
    """Takes the case's id for the message's."""

    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        return replace(event, event_id=event.vendor_case_id)


class Hopeful(Reading):
    """Approves by a message whose word it does not know."""

    def read(self, event: WebhookEvent, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        if event.evidence is None or event.evidence.vendor_status != "unknown":
            return event
        return replace(event, evidence=replace(event.evidence, standing=Standing.APPROVED))


# The vendor in trouble ------------------------------------------------------------------------------------------------


def caught(kind: type[Exception], raised: Callable[[Exception], Exception]) -> type[Acme]:
    """Raises something else instead of a VendorError."""

    class Caught(Acme):
        async def start(self, request: StartRequest) -> Started:
            return await self._turned(super().start(request))

        async def fetch(self, attempt: Attempt) -> Evidence:
            return await self._turned(super().fetch(attempt))

        async def _turned(self, work: Awaitable[Any]) -> Any:
            try:
                return await work
            except kind as error:
                if type(error) is not kind:
                    raise
                raise raised(error) from None

    return Caught


class Unauthorized(Acme):
    """Takes 401 for a rejection."""

    async def start(self, request: StartRequest) -> Started:
        try:
            return await super().start(request)
        except VendorError as error:
            if type(error).__name__ == "VendorAuthError":
                raise VendorRejected from None
            raise


class Unreadable(Acme):
    """Wonders about types only when it is too late."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        response = await self._http.get("fetch", f"{self._url}/{attempt.vendor_case_id}", headers=self._headers)
        if response.status == 404:
            raise VendorPending
        if response.status != 200 or not response.body.startswith(b'{"'):
            raise VendorProtocolError
        told = response.json(dict[str, Any])
        if "checks" not in told:
            raise VendorProtocolError
        passed = [name for name, result in told["checks"].items() if result.lower() == "ok"]
        return replace(await super().fetch(attempt), vendor_status="verified" if passed else "open")


class Impatient(Acme):
    """Approves whom the vendor does not answer for."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        try:
            return await super().fetch(attempt)
        except VendorUnavailable as error:
            if error.retry_after_s is not None or not error.reached:
                raise
            return Evidence(standing=Standing.SUBMITTED, vendor_status="processing")


class Unerasable(Acme):
    async def erase(self, attempt: Attempt) -> None:
        raise KeyError(attempt.vendor_case_id)


# What is said aside ---------------------------------------------------------------------------------------------------


class Talkative(Acme):
    async def start(self, request: StartRequest) -> Started:
        log.debug("starting for %s", request.person.first_name)
        return await super().start(request)


class Printing(Acme):
    async def start(self, request: StartRequest) -> Started:
        sys.stdout.write(f"pan={request.person.pan_number}\n")
        return await super().start(request)


class Explaining(Acme):
    """Puts what it was given into its exceptions."""

    async def start(self, request: StartRequest) -> Started:
        try:
            return await super().start(request)
        except VendorProtocolError as error:
            error.add_note(f"for {request.person.first_name}")
            raise


class Chaining(Acme):
    """Leaves the cause in, with the vendor's text."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        try:
            return super().read_webhook(headers, body)
        except VendorProtocolError:
            raise VendorProtocolError from ValueError(body.decode("utf-8", "replace"))


class Showing(Acme):
    def __repr__(self) -> str:
        return f"Acme({self._headers})"


class ShowingSettings(AcmeSettings, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return f"ShowingSettings({self.api_key})"


class UnreadSettings(AcmeSettings, frozen=True, kw_only=True):
    workflows: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class Clashing(AcmeSettings, frozen=True, kw_only=True):
    """With the name `kyc` its field is one of the service's own variables."""

    vendors: str = ""


# Sandboxes and specs --------------------------------------------------------------------------------------------------


class Silent(AcmeSandbox):
    def message(self, case: Any, outcome: Any) -> None:
        return None


class Calling(Acme):
    """Calls an address that is not in its settings."""

    async def start(self, request: StartRequest) -> Started:
        await self._http.get("hello", "https://api.acme.example/hello", headers={})
        return await super().start(request)


class Methodless:
    def __init__(self, settings: VendorSettings, http: Http) -> None:
        pass


def vendor(factory: Callable[..., Any] = Acme, **fields: Any) -> VendorSpec[Any]:
    """The sample's spec with another factory, and with other fields."""
    return replace(SPEC, factory=factory, **fields)
