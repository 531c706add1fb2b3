"""HyperVerge's API as a vendor of the host: its link flow, SDK tokens, results and webhooks."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from kyc_hyperverge import mapping
from kyc_hyperverge.reading import a_number, a_text, a_word, an_object, objects
from kyc_hyperverge.reasons import rejection_code
from kyc_hyperverge.settings import HyperVergeSettings
from usercore.plugins import (
    Attempt,
    Evidence,
    Http,
    Person,
    Response,
    Started,
    StartRequest,
    VendorAuthError,
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    VendorUnavailable,
    WebhookEvent,
)

TOKEN_S = 900
"""How long an SDK token is good for: from the start of a case to the start of the SDK on the person's phone."""
TOKEN_WAIT_S = 0.5
"""How long a link that is there waits for its token: another host makes it, and the person is waiting."""
LONGEST_ID = 128
"""Of a transaction or an event: what is longer is no id of theirs."""


class Message(Struct, frozen=True):
    """A webhook. It says that there is something to fetch; `eventTime` is not read, as some of theirs are no times."""

    eventType: str
    transactionId: str
    eventId: str | int | None = None


class HyperVerge:
    """`KycVendor` over HyperVerge's workflow. Our attempt id is their transactionId, and so their id of the case."""

    def __init__(self, settings: HyperVergeSettings, http: Http) -> None:
        self._settings = settings
        self._http = http
        self._base = settings.base_url.rstrip("/")
        self._headers = {"appId": settings.app_id, "appKey": settings.api_key}

    async def start(self, request: StartRequest) -> Started:
        """A link to their page, and a token for their SDK; without the token the link is enough.

        What they answer to a transactionId that they have is not documented. An answer other than the link is a
        VendorProtocolError, so that nobody is rejected for it.
        """
        token = asyncio.create_task(self._token(request.attempt_id))
        try:
            link = await self._link(request)
            await asyncio.wait((token,), timeout=TOKEN_WAIT_S)
            # How long a link is good for is not documented: the host has a timer of its own.
            return Started(
                vendor_case_id=str(request.attempt_id),
                redirect_url=link,
                sdk_token=token.result() if token.done() else None,
            )
        finally:
            token.cancel()
            await asyncio.gather(token, return_exceptions=True)

    async def fetch(self, attempt: Attempt) -> Evidence:
        """The status from the Output API, as they recommend for decisions; then the details from the Logs API."""
        id = attempt.vendor_case_id
        # Output says 400 for an id that is unknown or not finished, Logs 422 for one that is unknown.
        output = await self._results("fetch_output", "/v1/output", {"transactionId": id}, not_yet=400)
        if output.get("transactionId", id) != id:
            raise VendorProtocolError
        if not mapping.needs_details(output):
            return mapping.evidence(output, {})
        asked = {"transactionId": id, "sendFlag": "yes", "sendUserDetails": "yes", "sendFailureReason": "yes"}
        logs = await self._results("fetch_logs", "/v1/link-kyc/results", asked, not_yet=422)
        return mapping.evidence(output, logs)

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        try:
            message = msgspec.json.decode(body, type=Message)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise VendorProtocolError from None
        event_id = "" if message.eventId is None else str(message.eventId)
        if not (message.eventType and message.transactionId):
            raise VendorProtocolError
        if max(len(message.transactionId), len(event_id)) > LONGEST_ID:
            raise VendorProtocolError
        return WebhookEvent(
            event_id=event_id or None,
            vendor_case_id=message.transactionId,
            attempt_id=_attempt_id(message.transactionId),
        )

    async def _link(self, request: StartRequest) -> str:
        body: dict[str, object] = {
            "workflowId": self._settings.workflow_id,
            "transactionId": str(request.attempt_id),
            "inputs": inputs(request.person),
            # A profile may lack what a workflow could use.
            "allowEmptyWorkflowInputs": "yes",
        }
        if request.redirect_url is not None:
            body["redirectUrl"] = request.redirect_url
        # The same transactionId is the same journey, so it may be asked for twice.
        response = await self._http.post(
            "start", self._base + "/v1/link-kyc/start", json=body, headers=self._headers, safe=True
        )
        status, answer = _answer(response)
        if status != 200:
            raise _refusal(answer)
        link = answer.get("startKycUrl")
        if not isinstance(link, str) or not link.startswith(("https://", "http://")):
            raise VendorProtocolError
        return link

    async def _token(self, attempt_id: UUID) -> str | None:
        """None when there is none: only who has the SDK needs it."""
        body = {
            "appId": self._settings.app_id,
            "appKey": self._settings.api_key,
            "expiry": TOKEN_S,
            "transactionId": str(attempt_id),
            "workflowId": self._settings.workflow_id,
            "authenticateOnResume": "no",
        }
        url = self._settings.token_host() + "/v2/auth/token"
        try:
            _, answer = _answer(await self._http.post("token", url, json=body, headers={}, safe=True))
        except VendorError:
            return None
        # The newer form, and the older one, which has the scheme of a header in front.
        return a_token(answer.get("authToken")) or a_token(answer.get("token"))

    async def _results(self, operation: str, path: str, body: object, *, not_yet: int) -> dict[str, Any]:
        response = await self._http.post(operation, self._base + path, json=body, headers=self._headers, safe=True)
        status, answer = _answer(response)
        if status == not_yet and "not found" in (a_text(answer.get("error")) or "").lower():
            raise VendorPending
        if status != 200:
            raise VendorProtocolError
        return answer


def inputs(person: Person) -> dict[str, str]:
    """What the workflow is given of the person. The names are those of HyperVerge's PAN check; a workflow that calls
    its inputs otherwise is to be changed in the dashboard."""
    name = " ".join(part for part in (person.first_name, person.last_name) if part)
    found = {"name": name, "pan": person.pan_number or ""}
    if person.date_of_birth is not None:
        found["dob"] = f"{person.date_of_birth:%d/%m/%Y}"
    return {key: value for key, value in found.items() if value}


def a_token(value: object) -> str | None:
    """Without `Bearer`."""
    return value.removeprefix("Bearer ").strip() or None if isinstance(value, str) else None


def _answer(response: Response) -> tuple[int, dict[str, Any]]:
    """Status and `result`. The body has a status too, as a number or a text, and the worse of the two counts.

    Raises VendorAuthError, VendorUnavailable for 429 and 5xx that stand in the body only, and VendorProtocolError for
    what is no answer of theirs.
    """
    if response.status in (401, 403):
        raise VendorAuthError
    body = response.json(dict[str, Any])
    status = max(response.status, a_number(body.get("statusCode")) or response.status)
    if status in (401, 403):
        raise VendorAuthError
    if status == 429 or status >= 500:
        raise VendorUnavailable
    # The older APIs have the error beside the status.
    result = an_object(body.get("result")) or {"error": body.get("error")}
    if status == 200 and a_word(body.get("status", "success")) != "success":
        raise VendorProtocolError
    return status, result


def _refusal(answer: Mapping[str, Any]) -> VendorError:
    """Only a summary that fails is about the person; other refusals are about us."""
    summary = an_object(answer.get("summary"))
    if a_word(summary.get("action")) != "fail":
        return VendorProtocolError()
    texts = [text for detail in objects(summary.get("details")) if (text := a_text(detail.get("message")))]
    return VendorRejected(rejection_code(texts))


def _attempt_id(transaction_id: str) -> str | None:
    try:
        return transaction_id if str(UUID(transaction_id)) == transaction_id else None
    except ValueError:
        return None
