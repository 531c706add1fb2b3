"""From what Signzy answers to what the host understands: pure, and whatever is not known goes to review.

Signzy has no case and no status here, but checks that each say something: a verdict is put together of them.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from kyc_signzy.reading import (
    a_country,
    a_date,
    a_link,
    a_pin_code,
    a_text,
    a_time,
    a_word,
    an_object,
    last_four,
)
from usercore.plugins import (
    Address,
    Artifact,
    Check,
    CheckResult,
    Evidence,
    Identity,
    RejectionCode,
    Standing,
)

SIGNATURES: Mapping[str, CheckResult] = {"yes": "passed", "no": "failed"}
"""Of `x509Data.validAadhaarDSC`, UIDAI's signature on the Aadhaar data. Any other word, and none, is `review`."""
ACTIVE: Mapping[str, CheckResult] = {"yes": "passed", "no": "failed"}
"""Of a bank account's `active`. Any other word, and none, is `review`."""
NAME_MATCHES: Mapping[str, CheckResult] = {"yes": "passed", "no": "review"}
"""Of a bank account's `nameMatch`: banks shorten names, so that a `no` is for somebody to look at."""
NAME_SCORE = "0.9"
"""What a name has to score, from 0 to 1, as text: the vendor's own example."""
CODES: Mapping[Check, RejectionCode] = {
    "aadhaar": "aadhaar_invalid",
    # An address fails with the signature that vouches for it; whether it is the right one is the host's to compare.
    "address": "address_mismatch",
    "bank": "bank_invalid",
}
"""What a check that failed is called; of several the first one here counts."""
STANDINGS: Mapping[CheckResult, Standing] = {
    "passed": Standing.APPROVED,
    "failed": Standing.REJECTED,
    "review": Standing.REVIEW,
}
LAPSED: Mapping[str, str] = {"token is used": "token_used", "token not found": "token_not_found"}
"""What a 400 says of a consent link that expired or was used up, and our word for it. The person has not finished, and
may start anew."""


def digilocker(details: Mapping[str, Any], checks: Collection[Check], occurred_at: datetime | None = None) -> Evidence:
    """Of Aadhaar data, as it stands in the answer of `geteaadhaar` and in the callback; `checks` are those asked for.

    The signature vouches for all of it: without a valid one nothing is passed. Nor is what is not there: without a name
    the host would have nobody to compare.
    """
    word = a_word(an_object(details.get("x509Data")).get("validAadhaarDSC"))
    signed = SIGNATURES.get(word, "review")
    name, address = a_text(details.get("name")), an_address(details)
    results: dict[Check, CheckResult] = {
        "aadhaar": "review" if signed == "passed" and name is None else signed,
        "address": "review" if signed == "passed" and address is None else signed,
    }
    return verdict(
        {check: results[check] for check in results if check in checks},
        f"aadhaar_dsc_{word if word in SIGNATURES else 'unknown'}",
        Identity(
            name=name,
            date_of_birth=a_date(details.get("dob")),
            aadhaar_last4=last_four(details.get("uid")),
            address=address,
        ),
        artifacts(details),
        occurred_at,
    )


def bank(result: Mapping[str, Any]) -> Evidence:
    """Of the `result` of a bank account's verification, which is HTTP 200 for a good and a bad account alike."""
    word = a_word(result.get("active"))
    found = ACTIVE.get(word, "review")
    owner = a_text(an_object(result.get("bankTransfer")).get("beneName"))
    if found == "passed":
        found = _owner(result, owner)
    return verdict(
        {"bank": found},
        f"bank_active_{word if word in ACTIVE else 'unknown'}",
        Identity(name=owner),
        (),
        a_time(an_object(result.get("auditTrail")).get("timestamp")),
    )


def lapsed(message: str) -> Evidence | None:
    """Of the text of a 400; None when it is about something else."""
    found = next((status for text, status in LAPSED.items() if text in message.lower()), None)
    return None if found is None else Evidence(standing=Standing.STARTED, vendor_status=found)


def verdict(
    results: Mapping[Check, CheckResult],
    status: str,
    identity: Identity | None,
    files: tuple[Artifact, ...],
    occurred_at: datetime | None,
) -> Evidence:
    """The worst of the results counts, and of none nothing is approved."""
    worst: CheckResult = "passed" if results else "review"
    for result in ("review", "failed"):
        if result in results.values():
            worst = result
    failed: list[RejectionCode] = [CODES[check] for check in CODES if results.get(check) == "failed"]
    return Evidence(
        standing=STANDINGS[worst],
        vendor_status=status,
        rejection_code=failed[0] if failed else None,
        checks=results,
        identity=identity if identity != Identity() else None,
        artifacts=files,
        occurred_at=occurred_at,
    )


def an_address(details: Mapping[str, Any]) -> Address | None:
    """From `splitAddress`, with the whole `address` for a line that is missing. None unless it is complete."""
    split = an_object(details.get("splitAddress"))
    line = a_text(split.get("addressLine")) or a_text(details.get("address"))
    city = a_text(split.get("city")) or a_text(split.get("district"))
    state, pin_code = a_text(split.get("state")), a_pin_code(split.get("pincode"))
    if not (line and city and state and pin_code):
        return None
    country = a_country(split.get("country")) or "IN"
    return Address(line1=line, city=city, state=state, pin_code=pin_code, country=country)


def artifacts(details: Mapping[str, Any]) -> tuple[Artifact, ...]:
    """The e-Aadhaar as a picture, else as a PDF. Its `photo` was taken when the person enrolled, and is no selfie."""
    link = a_link(details.get("aadhaarJpeg")) or a_link(details.get("aadhaarPdf"))
    return () if link is None else (Artifact(type="aadhaar_front", url=link),)


UNSAID = frozenset(("", "not available"))
"""That the bank has not compared the name. Any other word that we do not know may say that it did."""


def _owner(result: Mapping[str, Any], owner: str | None) -> CheckResult:
    """Whether an account that exists is the person's. Where the bank only tells its owner's name, the host compares."""
    word = a_word(result.get("nameMatch"))
    match = NAME_MATCHES.get(word)
    if match is None:
        return "passed" if owner is not None and word in UNSAID else "review"
    return "review" if match == "passed" and _scores_low(result.get("nameMatchScore")) else match


def _scores_low(score: object) -> bool:
    """Whether a score contradicts the match; `not available` says nothing."""
    try:
        return float(score) < float(NAME_SCORE) if isinstance(score, str | int | float) else False
    except ValueError:
        return False
