"""Signzy's API as a vendor of the host: consent links of DigiLocker, Aadhaar data, bank accounts, callbacks."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from kyc_signzy import mapping, refusals
from kyc_signzy.reading import a_link, a_time, an_object
from kyc_signzy.settings import BANK, CREATE_URL, GET_AADHAAR, SignzySettings
from usercore.plugins import (
    Attempt,
    Check,
    Evidence,
    Http,
    Response,
    Standing,
    Started,
    StartRequest,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    WebhookEvent,
)

FROM_DIGILOCKER: frozenset[Check] = frozenset(("aadhaar", "address"))
LONGEST_ID = 128
"""Of a request, a message or an attempt: what is longer is no id of theirs or ours."""
REDIRECT_S = "3"
"""How long DigiLocker's last page stays, as text; their default is 10 seconds."""


class Callback(Struct, frozen=True):
    """A callback of DigiLocker; those of other products have no `requestId`.

    Of a failure no callback is published, so that everything else may be missing or of another type.
    """

    requestId: str
    event: object = None
    status: object = None
    id: str | int | None = None
    internalId: str | int | None = None
    timestamp: object = None
    aadharDetail: object = None  # theirs


class Signzy:
    """`KycVendor` over Signzy's v3 marketplace."""

    def __init__(self, settings: SignzySettings, http: Http) -> None:
        self._settings = settings
        self._http = http
        self._base = settings.base_url.rstrip("/")
        # The token as it is: with `Bearer` it is refused.
        self._headers = {"Authorization": settings.api_key}
        if settings.client_id:
            self._headers["x-client-unique-id"] = settings.client_id

    async def start(self, request: StartRequest) -> Started:
        """A consent link for Aadhaar and address; a verdict at once for a bank account.

        With both, a bank account that is not passed ends it: there is nothing to consent to any more, and a good
        Aadhaar could not make up for it.
        """
        started = await self._consent(request) if request.checks & FROM_DIGILOCKER else None
        if "bank" not in request.checks:
            if started is None:
                raise VendorProtocolError
            return started
        reference, evidence = await self._bank(request)
        if started is None:
            return Started(vendor_case_id=reference, evidence=evidence)
        if evidence.standing is not Standing.APPROVED:
            return Started(vendor_case_id=started.vendor_case_id, evidence=evidence)
        return msgspec.structs.replace(started, evidence=msgspec.structs.replace(evidence, standing=Standing.STARTED))

    async def fetch(self, attempt: Attempt) -> Evidence:
        """The Aadhaar data. Of a bank account alone all was said at the start: nothing is published to ask it again."""
        if not attempt.checks & FROM_DIGILOCKER:
            raise VendorPending
        response = await self._post(
            "fetch_aadhaar",
            GET_AADHAAR[self._settings.digilocker_version],
            {
                "requestId": attempt.vendor_case_id,
                "getEAadhaarPdf": True,
                "getEAadhaarJpeg": True,
                "extraDigitalCertificateParams": True,
            },
            safe=True,
        )
        if refusals.is_not_yet(response):
            raise VendorPending
        if response.status == 400 and (evidence := mapping.lapsed(refusals.message(response))) is not None:
            return evidence
        return mapping.digilocker(_result(response), attempt.checks)

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        """A callback of DigiLocker. The Aadhaar data in it is evidence when it decides.

        No callback of a failure is published: whatever is no success only says that there may be something to fetch.
        """
        try:
            told = msgspec.json.decode(body, type=Callback)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise VendorProtocolError from None
        id, internal_id = ("" if value is None else str(value) for value in (told.id, told.internalId))
        if not told.requestId or max(map(len, (told.requestId, id, internal_id))) > LONGEST_ID:
            raise VendorProtocolError
        evidence: Evidence | None = None
        details = an_object(told.aadharDetail)
        if (told.event, told.status) == ("consentComplete", "success") and details:
            evidence = mapping.digilocker(details, FROM_DIGILOCKER, a_time(told.timestamp))
            if evidence.standing is Standing.REVIEW:
                # Which checks were asked for is not known here: what is missing may not be wanted.
                evidence = None
        return WebhookEvent(
            event_id=id or None,
            vendor_case_id=told.requestId,
            attempt_id=internal_id or None,
            evidence=evidence,
        )

    async def _consent(self, request: StartRequest) -> Started:
        body: dict[str, object] = {
            "signup": True,
            "callbackUrl": request.callback_url,
            "internalId": str(request.attempt_id),
            "docType": ["ADHAR"],
            "purpose": "kyc",
            "getEAadhaarPdf": True,
            "getEAadhaarJpeg": True,
        }
        if request.redirect_url is not None:
            url = own_url(request.redirect_url, request.attempt_id)
            body |= {"successRedirectUrl": url, "successRedirectTime": REDIRECT_S}
            body |= {"failureRedirectUrl": url, "failureRedirectTime": REDIRECT_S}
        if self._settings.is_sandbox():
            # Signzy has no such field, and reads the person's data off their Aadhaar; the sandbox has none to read.
            body["sandboxPerson"] = {"name": _name(request)}
        # A link that nobody opens does nothing, so that a second one does no harm.
        response = await self._post("create_url", CREATE_URL[self._settings.digilocker_version], body, safe=True)
        result = _result(response)
        url, request_id = a_link(result.get("url")), result.get("requestId")
        if url is None or not isinstance(request_id, str) or not 0 < len(request_id) <= LONGEST_ID:
            raise VendorProtocolError
        # How long a link is good for is not published: the host has a timer of its own.
        return Started(vendor_case_id=request_id, redirect_url=url)

    async def _bank(self, request: StartRequest) -> tuple[str, Evidence]:
        """Their id of the verification, and what came of it."""
        account = request.bank_account
        if account is None:
            raise VendorRejected("bank_invalid")
        body = {
            "beneficiaryAccount": account.account_number,
            "beneficiaryIFSC": account.ifsc,
            "beneficiaryName": _name(request),
            "nameFuzzy": "true",
            "nameMatchScore": mapping.NAME_SCORE,
        }
        # It may send a rupee, so that a lost answer is not asked for again at once.
        response = await self._post("verify_bank", BANK, {name: value for name, value in body.items() if value})
        if refusals.is_about_the_account(response):
            raise VendorRejected("bank_invalid")
        if response.status == 409:
            # Some of their APIs say so that nothing matched; of this one it is not known.
            return str(request.attempt_id), Evidence(
                standing=Standing.REVIEW, vendor_status="bank_conflict", checks={"bank": "review"}
            )
        result = _result(response)
        reference = result.get("signzyReferenceId")
        known = isinstance(reference, str) and 0 < len(reference) <= LONGEST_ID
        return str(reference) if known else str(request.attempt_id), mapping.bank(result)

    async def _post(self, operation: str, path: str, body: object, *, safe: bool = False) -> Response:
        return await self._http.post(operation, self._base + path, json=body, headers=self._headers, safe=safe)


def own_url(url: str, attempt_id: UUID) -> str:
    """The address with the attempt in its query: of two attempts with one address a consent may be served twice.

    The rest stays as it is written: what the app signed or encoded in its way still is.
    """
    address, hash, fragment = url.partition("#")
    separator = "&" if "?" in address else "?"
    return f"{address}{separator}attempt={attempt_id}{hash}{fragment}"


def _name(request: StartRequest) -> str:
    return " ".join(part for part in (request.person.first_name, request.person.last_name) if part)


def _result(response: Response) -> dict[str, Any]:
    """What is in `result`. Raises what else the answer stands for."""
    if response.status != 200:
        raise refusals.refusal(response)
    result = an_object(response.json(dict[str, Any]).get("result"))
    if not result:
        raise VendorProtocolError
    return result
