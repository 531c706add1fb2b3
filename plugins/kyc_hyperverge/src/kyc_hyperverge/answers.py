"""What HyperVerge's APIs answer, as its sandbox writes it: envelopes, results and webhooks with their oddities."""

import struct
import time
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web
from msgspec import UNSET

from usercore.testing.control import Case, Outcome, Reading

Kind = Literal["FINISH_TRANSACTION_WEBHOOK", "MANUAL_REVIEW_STATUS_UPDATE", "INTERMEDIATE_TRANSACTION_WEBHOOK"]

TEXTS: Mapping[str, str] = {
    "document_unreadable": "Document not detected",
    "document_expired": "Document has expired",
    "face_mismatch": "Face match failed",
    "liveness_failed": "Liveness check failed",
    "pan_invalid": "PAN verification failed",
    "aadhaar_invalid": "Aadhaar number match failed",
    "identity_mismatch": "Name match failed",
    "fraud": "Fraud check failed",
}
"""What stands in `failureReason` for our codes; another `code` of the control interface stands there as it is."""


def envelope(result: object, *, transaction_id: str | None = None) -> dict[str, Any]:
    """An answer of the idv APIs."""
    metadata = {"requestId": request_id()} | ({} if transaction_id is None else {"transactionId": transaction_id})
    return {"status": "success", "statusCode": 200, "metadata": metadata, "result": result}


def failed(status: int, error: str) -> web.Response:
    """The idv APIs' answer when something is wrong."""
    body = {
        "status": "failure",
        "statusCode": status,
        "metadata": {"requestId": request_id()},
        "result": {"error": error},
    }
    return web.json_response(body, status=status)


def request_id() -> str:
    return f"{time.time_ns() // 1_000_000}-{uuid4()}"


def status_of(case: Case, outcome: Outcome | None) -> str:
    """The application status that an outcome makes of a case."""
    if outcome == "approve":
        return "manually_approved" if case.manual else "auto_approved"
    if outcome == "decline":
        return "manually_declined" if case.manual else "auto_declined"
    if outcome == "review":
        return "needs_review"
    if outcome == "cancel":
        # Something that broke on the person's side ends a journey as leaving it does.
        return "error" if case.code == "error" else "user_cancelled"
    return "started"


def event(case: Case, app_id: str, outcome: Outcome | None) -> tuple[Kind, dict[str, Any]]:
    """A webhook's kind and body."""
    now = datetime.now(UTC)
    millis = now.microsecond // 1000
    status = "kyc_in_progress" if outcome is None else status_of(case, outcome)
    kind: Kind = "FINISH_TRANSACTION_WEBHOOK"
    body = {"eventId": str(uuid4()), "eventVersion": "1.0.0", "transactionId": case.reference}
    body |= {"applicationStatus": status, "eventTime": f"{now:%Y-%m-%dT%H:%M:%S}.{millis:03}Z"}
    if outcome is None:
        kind = "INTERMEDIATE_TRANSACTION_WEBHOOK"
        body["appId"] = app_id
    elif status.startswith("manually_"):
        kind = "MANUAL_REVIEW_STATUS_UPDATE"
        # As in their own sample, which is no time: `2023-01-30T1722.102Z`.
        body |= {"reviewerEmail": "reviewer@sandbox.example", "eventTime": f"{now:%Y-%m-%dT%H%M}.{millis:03}Z"}
    return kind, body | {"eventType": kind}


def output(case: Case, asked: Mapping[str, Any], images: str) -> dict[str, Any]:
    """`result` of the Output API."""
    status = status_of(case, case.outcome)
    result: dict[str, Any] = {
        "status": status,
        "transactionId": case.reference,
        "flags": {} if status == "error" else _flags(case),
        "userDetails": {"name": text(case.identity.whole_name()), "croppedImageUrl": images + "/pan.png"},
        "failureReason": _failure_reason(case),
    }
    if asked.get("sendReviewDetails") == "yes":
        result["reviewDetails"] = {"reviewer": "reviewer@sandbox.example"} if case.manual else {}
    if asked.get("sendDebugInfo") == "yes" and status in ("user_cancelled", "error"):
        result["debugInfo"] = {"latestModule": "module_selfie"}
    return result


def logs(case: Case, asked: Mapping[str, Any], workflow_id: str, images: str) -> dict[str, Any]:
    """`result` of the Logs API."""
    result: dict[str, Any] = {
        "workflowDetails": {"workflowId": workflow_id, "version": 1},
        "applicationStatus": status_of(case, case.outcome),
        "results": [] if case.outcome in (None, "cancel") else _modules(case, images),
    }
    if asked.get("sendUserDetails") == "yes":
        identity = case.identity
        result["userDetails"] = {"name": text(identity.whole_name()), "dateOfBirth": _day_first(identity)}
    if asked.get("sendFlag") == "yes":
        result["flags"] = _flags(case)
    if asked.get("sendFailureReason") == "yes":
        result["failureReason"] = _failure_reason(case)
    return result


def text(value: object) -> str:
    """What could not be read is an empty text."""
    return "" if value is UNSET or value is None else str(value)


def image(shade: int) -> bytes:
    """A small grey PNG, another for each shade: somebody fetches it and looks at what it is."""
    side = 16
    rows = b"".join(b"\0" + bytes([shade]) * side for _ in range(side))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _failure_reason(case: Case) -> dict[str, str] | None:
    if case.outcome not in ("decline", "review") or case.code is None:
        return None
    return {"text": TEXTS.get(case.code, case.code), "id": f"condition_3_{status_of(case, case.outcome)}"}


def _flags(case: Case) -> list[dict[str, Any]]:
    if case.code != "document_unreadable" or case.outcome != "decline":
        return []
    return [{"source": "module_id", "subSource": "front", "values": {"422": TEXTS["document_unreadable"]}}]


def _modules(case: Case, images: str) -> list[dict[str, Any]]:
    identity = case.identity
    bad = case.code if case.outcome == "decline" else None
    fields = {
        "fullName": {"value": text(identity.whole_name())},
        "dateOfBirth": {"value": _day_first(identity)},
        "idNumber": {"value": text(identity.pan_number)},
    }
    pan = {"details": [{"fieldsExtracted": fields}]}
    live = {"details": {"liveFace": _said(bad != "liveness_failed"), "qualityChecks": {"blur": {"value": "no"}}}}
    match = {"details": {"match": _said(bad != "face_mismatch")}}
    unread = bad in ("document_unreadable", "document_expired", "pan_invalid")
    return [
        # The document APIs are older and have their status as a text.
        _module("ID Card Validation", "module_id", "200", pan, fails=unread, code=bad)
        | {"countrySelected": "ind", "documentSelected": "pan", "imageUrl": images + "/pan.png"},
        _module("Selfie Validation", "module_selfie", 200, live, fails=bad == "liveness_failed", code=bad)
        | {"imageUrl": images + "/selfie.png"},
        _module("Face Match", "module_facematch", 200, match, fails=bad == "face_mismatch", code=bad),
    ]


def _module(
    name: str, id: str, status: int | str, result: dict[str, Any], *, fails: bool, code: str | None
) -> dict[str, Any]:
    details = [{"code": "422", "message": TEXTS.get(code or "", "Bad Request")}] if fails else []
    return {
        "module": name,
        "moduleId": id,
        "attempts": "1",
        "previousAttempts": [],
        "processedAt": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z",
        "apiResponse": {
            "status": "success",
            "statusCode": status,
            "metadata": {"requestId": request_id()},
            "result": result | {"summary": {"action": "fail" if fails else "pass", "details": details}},
        },
    }


def _said(good: bool) -> dict[str, str]:
    return {"value": "yes" if good else "no", "confidence": "high"}


def _day_first(identity: Reading) -> str:
    born = identity.date_of_birth
    return f"{born:%d-%m-%Y}" if isinstance(born, date) else ""
