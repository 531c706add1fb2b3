"""From what Acme says to what the host understands: pure, and what is not known goes to review."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated

from msgspec import Meta, Struct

from usercore.plugins import Check, CheckResult, Evidence, Identity, RejectionCode, Standing

Id = Annotated[str, Meta(min_length=1, max_length=128)]
"""What is longer is no id."""
Time = Annotated[datetime, Meta(tz=True)]
"""One without a zone is refused: it is hours off somewhere."""

STANDINGS: Mapping[str, Standing] = {
    "open": Standing.STARTED,
    # They may come back, so that the case stays open.
    "abandoned": Standing.STARTED,
    "processing": Standing.SUBMITTED,
    "in_review": Standing.REVIEW,
    "verified": Standing.APPROVED,
    "rejected": Standing.REJECTED,
    "verified_by_reviewer": Standing.MANUALLY_APPROVED,
    "rejected_by_reviewer": Standing.MANUALLY_REJECTED,
}
"""Every status of the vendor's documents. Replace them all; another one is REVIEW, and never an approval."""

RESULTS: Mapping[str, CheckResult] = {"ok": "passed", "bad": "failed"}
"""What it says of a check; anything else is `review`."""

CHECKS: Mapping[str, Check] = {"pan": "pan", "selfie": "selfie"}
"""What it calls the checks."""

REASONS: Mapping[str, RejectionCode] = {
    "card_unreadable": "document_unreadable",
    "face_differs": "face_mismatch",
    "not_live": "liveness_failed",
    "pan_unknown": "pan_invalid",
    "forged": "fraud",
}
"""Why it rejects; anything else is `vendor_declined`."""


class Opened(Struct, frozen=True):
    """The answer to a start."""

    id: Id
    page: Annotated[str, Meta(pattern="^https?://")]


class Verification(Struct, frozen=True):
    """A result. Fields that it does not need are left out: unknown ones are ignored."""

    id: Id
    reference: Id
    status: str
    reason: str | None = None
    checks: dict[str, str] = {}
    name: str | None = None
    born: date | None = None
    pan: str | None = None
    decided_at: Time | None = None

    def __repr__(self) -> str:
        return "Verification(…)"


class Message(Struct, frozen=True):
    """A webhook: an id of its own, and the result as it stands."""

    event: Id
    verification: Verification


class Refusal(Struct, frozen=True):
    """An error about the person."""

    error: str


def evidence(told: Verification) -> Evidence:
    standing = STANDINGS.get(told.status, Standing.REVIEW)
    code: RejectionCode | None = None
    if standing in (Standing.REJECTED, Standing.MANUALLY_REJECTED):
        code = REASONS.get(told.reason or "", "vendor_declined")
        if code == "fraud":
            standing = Standing.FRAUD
    identity = Identity(name=told.name, date_of_birth=told.born, pan_number=told.pan)
    return Evidence(
        standing=standing,
        # A status that is in no document may be anything, also about a person.
        vendor_status=told.status if told.status in STANDINGS else "unknown",
        rejection_code=code,
        checks={CHECKS[name]: RESULTS.get(result, "review") for name, result in told.checks.items() if name in CHECKS},
        identity=None if identity == Identity() else identity,
        occurred_at=told.decided_at,
    )
