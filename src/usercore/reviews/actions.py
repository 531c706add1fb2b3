"""Verbs of reviews: list, look with or without a reveal, decide. Transactions begin and end here."""

from collections.abc import Collection, Mapping
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from usercore import cursors
from usercore.attempts.actions import Kyc
from usercore.cursors import Position
from usercore.disclosures.actions import reveal
from usercore.errors import (
    CaseChanged,
    CaseNotFound,
    CaseNotInReview,
    FieldError,
    IdentityConflict,
    SecondReviewerRequired,
    ValidationFailed,
)
from usercore.events import now
from usercore.idempotency import Answer, Attempt, claim, keep
from usercore.identities.actions import claim_own_pan
from usercore.kyc.actions import Decision, lock, settle
from usercore.outbox import AccessPurpose, Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii import validators
from usercore.plugins import RejectionCode
from usercore.profiles.actions import keys_of
from usercore.reviews import queries, views
from usercore.reviews.views import CaseView, Review

ReviewCode = Literal[
    "documents_verified",
    "documents_unclear",
    "identity_mismatch",
    "identity_conflict",
    "fraud",
    "expired_document",
    "other",
]
REJECTIONS: Mapping[str, RejectionCode] = {
    "documents_unclear": "document_unreadable",
    "identity_mismatch": "identity_mismatch",
    "identity_conflict": "identity_mismatch",
    "fraud": "fraud",
    "expired_document": "document_expired",
}
IDENTITY = ("name", "date_of_birth", "pan_number", "aadhaar_last4", "address")
"""What can be revealed of a case."""


class Decide(Struct, frozen=True, forbid_unknown_fields=True):
    """A reviewer's decision about the case as it was at `case_version`; `other` needs a note."""

    case_id: UUID
    decision: Decision
    reason: ReviewCode
    case_version: int
    note: str | None = None


class Approvals(Struct, frozen=True):
    """How many have approved, while one more has to."""

    approvals: int


class Reviews(Struct, frozen=True):
    items: list[Review]
    next_cursor: str | None


async def list_reviews(kyc: Kyc, limit: int, cursor: str | None) -> Reviews:
    """A page of the cases in review, oldest first. Raises InvalidCursor."""
    keys, context = kyc.keyring.token_keys(b"cursor"), b"reviews"
    after = cursors.OLDEST if cursor is None else cursors.open(keys, Position, cursor, context=context)
    async with kyc.db.read() as conn:
        rows = await queries.list_reviews(conn, after_at=after.at, after_id=after.id, most=limit + 1)
    rows, more = cursors.page(rows, limit, lambda row: Position(row.initiated_at, row.id), keys, context=context)
    at = now()
    return Reviews([views.review(row, at) for row in rows], more)


async def get_case(
    kyc: Kyc, case_id: UUID, actor: Actor, *, fields: Collection[str], purpose: AccessPurpose | None
) -> CaseView:
    """The whole of a case; `fields` are shown in clear for the purpose. Recorded before anything is opened.

    Raises CaseNotFound and ValidationFailed.
    """
    if unknown := [name for name in fields if name not in IDENTITY]:
        errors = [FieldError("/query/reveal", "unknown_field", f"One of {', '.join(IDENTITY)}.") for _ in unknown]
        raise ValidationFailed(errors=errors)
    async with kyc.db.begin() as tx:
        case = await queries.get_case(tx, case_id=case_id)
        if case is None:
            raise CaseNotFound
        keys = await keys_of(tx, kyc.keyring, case.user_id, pii.EVIDENCE.retention)
        checks = await queries.list_case_checks(tx, case_id=case_id)
        evidence = await queries.list_case_evidence(tx, case_id=case_id)
        artifacts = await queries.list_case_artifacts(tx, case_id=case_id)
        resource = f"kyc_case:{case_id}"
        if fields and purpose is not None:
            await reveal(tx, case.user_id, sorted(fields), purpose, actor, resource=resource)
        else:
            change = Change(
                action="profile.read", user_id=case.user_id, resource=resource, new={"fields": [], "masked": True}
            )
            await record(tx, change, actor=actor)
    return replace(
        views.shown(case),
        checks=checks,
        evidence=[views.evidence(keys, row, fields) for row in evidence],
        artifacts=[views.artifact(row) for row in artifacts],
    )


async def decide(kyc: Kyc, asked: Decide, actor: Actor, key: Attempt | None) -> Answer:
    """Decide a case in review; with four eyes the first approval waits for another reviewer's.

    Raises CaseNotFound, CaseChanged, CaseNotInReview, SecondReviewerRequired, IdentityConflict, ValidationFailed, and
    what `claim` raises.
    """
    note = validators.note(asked.reason, asked.note)
    at = now()
    settled = None
    async with kyc.db.begin() as tx:
        if earlier := await claim(tx, kyc.keyring, key):
            return earlier
        user, case = await lock(tx, asked.case_id)
        if case.version != asked.case_version:
            raise CaseChanged
        if case.status != "in_review":
            raise CaseNotInReview
        keys = await keys_of(tx, kyc.keyring, case.user_id, pii.REVIEW_NOTE.retention)
        sealed = None if note is None else keys.seal(pii.REVIEW_NOTE, note)
        if sealed is not None:
            await queries.set_note(tx, case_id=case.id, note_enc=sealed)
        reviewed = Change(
            action="kyc.reviewed",
            user_id=case.user_id,
            resource=f"kyc_case:{case.id}",
            new={"decision": asked.decision, "reason": asked.reason, "note": sealed},
        )
        await record(tx, reviewed, actor=actor)
        if asked.decision == "approve" and kyc.four_eyes and case.first_approval_by in (None, actor.id):
            if case.first_approval_by is not None or actor.id is None:
                raise SecondReviewerRequired
            await queries.set_first_approval(tx, case_id=case.id, reviewer=actor.id)
            return await keep(tx, kyc.keyring, key, Answer(202, msgspec.Raw(msgspec.json.encode(Approvals(1)))))
        claims = "pan" in kyc.rules.tiers[case.target_tier]
        if asked.decision == "approve" and claims and not await claim_own_pan(tx, kyc.keyring, user.id, at):
            raise IdentityConflict
        decided = replace(
            case,
            decision=asked.decision,
            decided_at=at,
            decided_by=actor.id,
            rejection_code=None if asked.decision == "approve" else REJECTIONS.get(asked.reason, "manual"),
        )
        settled = await settle(tx, kyc.keyring, kyc.rules, user, decided, actor, at)
        after = await queries.get_case(tx, case_id=case.id)
        assert after is not None
        answer = await keep(tx, kyc.keyring, key, Answer(200, msgspec.Raw(msgspec.json.encode(views.shown(after)))))
    if settled is not None:
        settled.count()
    return answer
