"""What Signzy answers and calls back, as its sandbox writes it: Aadhaar data, bank accounts, callbacks, errors."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from secrets import randbelow, token_hex
from typing import Any, Literal

from aiohttp import web
from msgspec import UNSET

from usercore.plugins import Address
from usercore.testing.control import Case, Outcome, Reading

BankReply = Literal["good", "inactive", "stranger", "nameless"]
Link = Callable[[str], str]
"""From the name of a file to where it is for a while."""

SIGNATURES: Mapping[Outcome, str] = {"approve": "yes", "decline": "no"}
STRANGER = "SOMEBODY ELSE"
NOT_YET = "Digilocker consent journey is not completed by the user"
ERRORS: Mapping[int, type[web.HTTPException]] = {
    400: web.HTTPBadRequest,
    401: web.HTTPUnauthorized,
    403: web.HTTPForbidden,
    404: web.HTTPNotFound,
    422: web.HTTPUnprocessableEntity,
}


def loopback(status: int, text: str, more: Mapping[str, object] | None = None) -> dict[str, Any]:
    """An error of the services."""
    return {"error": {"statusCode": status, "name": "Error", "message": text, **(more or {})}}


def gateway(text: str) -> dict[str, Any]:
    """An error of Kong, in front of them."""
    return {"message": text}


def stop(status: int, body: Mapping[str, Any]) -> web.HTTPException:
    """An error, to be raised."""
    answer = web.json_response(body)
    return ERRORS[status](text=answer.text, content_type="application/json")


def aadhaar(
    case: Case, outcome: Outcome | None, link: Link, wanted: frozenset[str], *, unmasked: bool
) -> dict[str, Any]:
    """`result` of the Aadhaar calls, and `aadharDetail` of a callback."""
    identity = case.identity
    address = identity.address if isinstance(identity.address, Address) else None
    return {
        "name": _text(identity.whole_name()),
        "uid": _uid(identity, unmasked=unmasked),
        "dob": f"{identity.date_of_birth:%d/%m/%Y}" if isinstance(identity.date_of_birth, date) else "",
        "gender": "MALE",
        "x509Data": {
            "subjectName": "DS UNIQUE IDENTIFICATION AUTHORITY OF INDIA 05",
            "certificate": "c2FuZGJveA==",
            "details": {},
            # The last is what Signzy says elsewhere of what it does not know.
            "validAadhaarDSC": SIGNATURES.get(outcome or "review", "not available"),
        },
        "address": "" if address is None else ", ".join(_lines(address)),
        "photo": link("photo.jpeg"),
        "splitAddress": {} if address is None else _split(address),
        "aadhaarJpeg": link("aadhaar.jpeg") if "aadhaar.jpeg" in wanted else "",
        "aadhaarPdf": link("aadhaar.pdf") if "aadhaar.pdf" in wanted else "",
        "xmlFileLink" if case.memory["version"] == "v1" else "eAadhaarXmlLink": link("aadhaar.xml"),
    }


def details(case: Case) -> dict[str, Any]:
    """`result` of getDetails, and `details` of a callback."""
    identity = case.identity
    user = {
        "digilockerid": f"sandbox-{case.reference}",
        "name": _text(identity.whole_name()),
        "dob": f"{identity.date_of_birth:%d/%m/%Y}" if isinstance(identity.date_of_birth, date) else "",
        "gender": "M",
        "eaadhaar": "Y",
        "mobile": "UNAVAILABLE",
    }
    return {"userDetails": user, "files": []}


def callback(case: Case, outcome: Outcome, link: Link, *, unmasked: bool) -> dict[str, Any]:
    """What DigiLocker's callback says, with its spelling. What one of a failure looks like is not published."""
    good = outcome != "cancel"
    body: dict[str, Any] = {
        "id": token_hex(12),
        "event": "consentComplete" if good else "consentFailed",
        "requestId": case.reference,
        "internalId": case.attempt_id,
        "status": "success" if good else "failure",
        "message": "Authorization completed successfully" if good else "Authorization denied by the user",
        "timestamp": time.time_ns() // 1_000_000,
    }
    if good:
        body["aadharDetail"] = aadhaar(case, outcome, link, case.memory["wanted"], unmasked=unmasked)
        body["details"] = details(case)
    return body


def bank(reply: BankReply, reference: str, name: str | None, ifsc: str) -> dict[str, Any]:
    """`result` of a bank account's verification: a bad account is no error."""
    result: dict[str, Any] = {
        "active": "yes",
        "reason": "success",
        "nameMatch": "yes",
        "mobileMatch": "not available",
        "nameMatchScore": "not available",
        "signzyReferenceId": reference,
    }
    if reply == "inactive":
        return result | {
            "active": "no",
            "reason": "Either ifsc or bank account is invalid",
            "nameMatch": "not available",
        }
    owner = {"stranger": STRANGER, "nameless": ""}.get(reply, (name or "").upper())
    if reply == "stranger":
        result["nameMatch"] = "no"
    elif reply == "nameless" or not name:
        result["nameMatch"] = "not available"
    number = f"{randbelow(10**12):012}"
    now = datetime.now(UTC)
    stamp = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"
    return result | {
        "auditTrail": {"nature": "BANK RRN", "value": number, "timestamp": stamp},
        "bankTransfer": {
            "response": "Transaction Successful",
            "bankRRN": number,
            "beneName": owner,
            "beneMMID": "",
            "beneMobile": "",
            "beneIFSC": ifsc,
        },
    }


def _uid(identity: Reading, *, unmasked: bool) -> str:
    number, digits = identity.aadhaar_number, identity.aadhaar_last4
    if isinstance(number, str) and number:
        return number if unmasked else "xxxxxxxx" + number[-4:]
    return "xxxxxxxx" + (digits if isinstance(digits, str) and digits else "xxxx")


def _lines(address: Address) -> list[str]:
    parts = (address.line1, address.line2, address.city, address.state, address.pin_code)
    return [part for part in parts if part]


def _split(address: Address) -> dict[str, Any]:
    city = address.city.upper()
    return {
        "district": [city],
        "state": [[address.state.upper()]],
        "city": [city],
        "pincode": address.pin_code,
        "country": ["IN", "IND", "INDIA"] if address.country == "IN" else [address.country],
        "addressLine": ", ".join(part for part in (address.line1, address.line2) if part),
    }


def _text(value: object) -> str:
    """What is not known is empty."""
    return "" if value is UNSET or value is None else str(value)
