"""Acme's API as a vendor of the host: starting, results, webhooks."""

from collections.abc import Mapping

import msgspec

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
    WebhookEvent,
)
from usercore.testing.acme import mapping
from usercore.testing.acme.settings import AcmeSettings


class Acme:
    """`KycVendor`. It keeps its settings and the way to the vendor, and nothing of any call."""

    def __init__(self, settings: AcmeSettings, http: Http) -> None:
        self._http = http
        self._url = settings.base_url.rstrip("/") + "/verifications"
        # Replace it by the header that the vendor wants its key in.
        self._headers = {"authorization": f"Bearer {settings.api_key}"}

    async def start(self, request: StartRequest) -> Started:
        """Replace the body by what the vendor wants. The attempt id has to be in it: it links their case to ours."""
        body = {
            "reference": str(request.attempt_id),
            "callback": request.callback_url,
            "return_to": request.redirect_url,
            "person": person(request.person),
        }
        # `safe` says that a lost answer may be asked for again: the same reference is the same verification.
        response = await self._http.post("start", self._url, json=body, headers=self._headers, safe=True)
        started = _checked(response).json(mapping.Opened)
        return Started(vendor_case_id=started.id, redirect_url=started.page)

    async def fetch(self, attempt: Attempt) -> Evidence:
        """Replace the address by the vendor's for results. What is made of the answer stands in mapping.py."""
        response = await self._http.get("fetch", f"{self._url}/{attempt.vendor_case_id}", headers=self._headers)
        if response.status == 404:
            raise VendorPending
        return mapping.evidence(_checked(response).json(mapping.Verification))

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        """Replace Message by the vendor's messages. The host has verified them, and decides what evidence is worth."""
        try:
            message = msgspec.json.decode(body, type=mapping.Message)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # Without the cause: its text may hold a person's data.
            raise VendorProtocolError from None
        told = message.verification
        return WebhookEvent(
            event_id=message.event,
            vendor_case_id=told.id,
            attempt_id=told.reference,
            evidence=mapping.evidence(told),
        )


def person(someone: Person) -> dict[str, str]:
    """What the vendor is sent of a person: the fields that `discloses` names, and of those what the profile has."""
    names = (someone.first_name, someone.last_name)
    born = someone.date_of_birth
    found = {
        "name": " ".join(name for name in names if name),
        "born": born.isoformat() if born else "",
        "pan": someone.pan_number or "",
    }
    return {field: value for field, value in found.items() if value}


def _checked(response: Response) -> Response:
    """An answer that is one. Replace it by what the vendor's documents say of errors; 429 and 5xx never come here."""
    if response.status in (200, 201):
        return response
    if response.status in (401, 403):
        raise VendorAuthError
    raise _refusal(response)


def _refusal(response: Response) -> VendorError:
    """Only what is about the person rejects them; all else is a mistake of ours or theirs."""
    if response.status != 422:
        return VendorProtocolError()
    code = mapping.REASONS.get(response.json(mapping.Refusal).error)
    return VendorProtocolError() if code is None else VendorRejected(code)
