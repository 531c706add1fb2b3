"""What a case, its checks and a tier come to: pure functions of all that was said, so no order of events matters.

Evidence has a rank (`Standing`), and the highest counts. What stands outside of that order, and why:

| what | beats | is beaten by |
|---|---|---|
| fraud | everything that a vendor said, an expiry, an earlier decision of ours | a decision made after it came |
| our own decision | all evidence, past and future | fraud that comes after it |
| closing the account | everything | nothing |
| expiry | everything but fraud: the sweeper looks once more before it expires a case | fraud |
| evidence of a superseded attempt | nothing, unless it is fraud | |

docs/kyc.md shows the whole table with its proofs, which tests/kyc hold.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from usercore.events import KycCaseStatus, KycStatus, KycTier
from usercore.pii import aadhaar
from usercore.plugins import Check, Evidence, RejectionCode, Standing

ReviewReason = Literal["vendor_review", "identity_mismatch", "identity_conflict"]
Decision = Literal["approve", "reject"]
Ended = Literal["expired", "account_closed"]
CheckStatus = Literal["pending", "review", "passed", "failed"]
Level = Literal["view_only", "basic", "enhanced", "maximum"]
TierRules = Mapping[KycTier, frozenset[Check]]
"""What each tier asks for besides the tiers below it."""

OPEN: frozenset[KycCaseStatus] = frozenset(("initiated", "documents_submitted", "in_review"))
TIERS: tuple[KycTier, ...] = get_args(KycTier)
LEVELS: Mapping[KycTier, Level] = dict(zip(TIERS, get_args(Level), strict=True))

_CODES: Mapping[str | None, int] = {code: number for number, code in enumerate((*get_args(RejectionCode), None))}


class Rules(Struct, frozen=True):
    """What the settings say about KYC."""

    tiers: TierRules
    validity: timedelta


class Heard(Struct, frozen=True):
    """Evidence with where it came from: `event` names the message or the answer, and counts once for each attempt."""

    attempt_id: UUID
    source: str
    event: str
    evidence: Evidence


class Said(Struct, frozen=True):
    """A piece of evidence, as far as the verdict depends on it."""

    standing: Standing
    rejection_code: RejectionCode | None
    received_at: datetime
    superseded: bool = False


class Ruling(Struct, frozen=True):
    """A decision of one of our own reviewers."""

    decision: Decision
    code: RejectionCode | None
    at: datetime


class Outcome(Struct, frozen=True):
    """What a case has come to."""

    status: KycCaseStatus
    rejection_code: RejectionCode | None = None
    review_reason: ReviewReason | None = None


def highest(said: Iterable[Said]) -> Said | None:
    """What counts of all that was said; of several of one rank always the same one."""
    counting = [each for each in said if not each.superseded or each.standing is Standing.FRAUD]
    return max(counting, key=lambda each: (each.standing, -_CODES[each.rejection_code]), default=None)


def derive(
    said: Sequence[Said],
    *,
    identity: ReviewReason | None = None,
    ruling: Ruling | None = None,
    ended: Ended | None = None,
) -> Outcome:
    """What the case is now. `identity` is what keeps an approval from standing."""
    top = highest(said)
    if ended == "account_closed":
        return Outcome("expired", "account_closed")
    fraud = [each for each in said if each.standing is Standing.FRAUD]
    if fraud and (ruling is None or any(each.received_at > ruling.at for each in fraud)):
        return Outcome("rejected", "fraud")
    if ruling is not None:
        return Outcome("approved") if ruling.decision == "approve" else Outcome("rejected", ruling.code or "manual")
    if ended == "expired":
        return Outcome("expired")
    if top is None or top.standing < Standing.SUBMITTED:
        return Outcome("initiated")
    if top.standing is Standing.SUBMITTED:
        return Outcome("documents_submitted")
    if top.standing in (Standing.REJECTED, Standing.MANUALLY_REJECTED):
        return Outcome("rejected", top.rejection_code or "vendor_declined")
    if top.standing in (Standing.APPROVED, Standing.MANUALLY_APPROVED):
        return Outcome("approved") if identity is None else Outcome("in_review", review_reason=identity)
    return Outcome("in_review", review_reason="vendor_review")


_CHECKS: Mapping[KycCaseStatus, CheckStatus] = {
    "initiated": "pending",
    "documents_submitted": "pending",
    "in_review": "review",
    "approved": "passed",
    # Also one that a vendor found to be right: who the person is was never established.
    "rejected": "failed",
    "expired": "failed",
}


def check_status(outcome: Outcome) -> CheckStatus:
    """What the checks of a case are: a case is one step, which is passed as a whole or not at all."""
    return _CHECKS[outcome.status]


def tier_of(passed: Collection[Check], rules: TierRules) -> KycTier:
    """The highest tier whose checks, and those of all tiers below it, are passed."""
    reached: KycTier = "tier_0"
    for tier in TIERS[1:]:
        if not rules[tier] <= frozenset(passed):
            break
        reached = tier
    return reached


def next_tier(tier: KycTier) -> KycTier | None:
    number = TIERS.index(tier) + 1
    return TIERS[number] if number < len(TIERS) else None


_STATUSES: Mapping[KycCaseStatus, KycStatus] = {
    "initiated": "pending",
    "documents_submitted": "pending",
    "in_review": "in_review",
    "rejected": "rejected",
    "expired": "expired",
    # Approved once, and its checks are not passed any more: their validity ended.
    "approved": "expired",
}


def user_status(tier: KycTier, latest: KycCaseStatus | None) -> KycStatus:
    """Approved from tier_1 on, whatever upgrade is open or failed; else what the latest case says."""
    if tier != "tier_0":
        return "approved"
    return "not_started" if latest is None else _STATUSES[latest]


def kept_text(evidence: Evidence) -> str:
    """Evidence as JSON that may be kept: no links, which somebody could follow, and no whole Aadhaar number."""
    return aadhaar.mask(msgspec.json.encode(replace(evidence, artifacts=())).decode())
