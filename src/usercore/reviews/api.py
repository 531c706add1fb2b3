"""HTTP of reviews: /admin/kyc/reviews, /admin/kyc/cases/{id}, /admin/kyc/manual-review."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest
from usercore.errors import (
    CaseChanged,
    CaseNotFound,
    CaseNotInReview,
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdentityConflict,
    InvalidCursor,
    KeysUnavailable,
    SecondReviewerRequired,
    ValidationFailed,
)
from usercore.idempotency import keep_refusal
from usercore.operations import Access, operation
from usercore.outbox import AccessPurpose
from usercore.reviews import actions
from usercore.reviews.actions import Decide, Reviews
from usercore.reviews.views import CaseView, Review

_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_CASE = CaseView(
    case_id=UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11"),
    user_id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    vendor="hyperverge",
    vendor_case_id="01978c5e-5a0c-7d52-9d0e-3f6f2a1c9b11",
    status="in_review",
    rejection_code=None,
    review_reason="identity_mismatch",
    target_tier="tier_1",
    initiated_at=_AT,
    completed_at=None,
    expires_at=_AT + timedelta(days=1),
    case_version=3,
    decision=None,
    decided_at=None,
    decided_by=None,
)
_REVIEW = Review(
    case_id=_CASE.case_id,
    user_id=_CASE.user_id,
    vendor="hyperverge",
    target_tier="tier_1",
    review_reason="identity_mismatch",
    initiated_at=_AT,
    age_s=3600,
    case_version=3,
)


@get(
    "/admin/kyc/reviews",
    **operation(
        Access.ADMIN,
        "listReviews",
        summary="Cases in review",
        tag="reviews",
        description="Oldest first, a page at a time.",
        errors=[InvalidCursor, ValidationFailed],
        response=Reviews([_REVIEW], None),
    ),
)
async def list_reviews(
    request: EdgeRequest,
    service: NamedDependency[Service],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> Reviews:
    return await actions.list_reviews(service.kyc, callers.page_size(limit), cursor)


@get(
    "/admin/kyc/cases/{case_id:uuid}",
    **operation(
        Access.ADMIN,
        "getCase",
        summary="The whole of a case",
        tag="reviews",
        description="What vendors said is masked. `reveal` names members to show in clear: it needs the scope pii:read "
        "and a purpose, and is recorded for the person.",
        errors=[CaseNotFound, ValidationFailed],
        response=_CASE,
    ),
)
async def get_case(
    request: EdgeRequest,
    service: NamedDependency[Service],
    case_id: FromPath[UUID],
    reveal: FromQuery[str | None] = None,
    purpose: FromQuery[AccessPurpose | None] = None,
) -> JsonAnswer[CaseView]:
    fields = callers.revealed(request, reveal, purpose)
    actor = callers.actor(request, service)
    return JsonAnswer(await actions.get_case(service.kyc, case_id, actor, fields=fields, purpose=purpose))


@post(
    "/admin/kyc/manual-review",
    **operation(
        Access.ADMIN,
        "reviewCase",
        summary="Decide a case in review",
        tag="reviews",
        description="200 with the case; with four eyes the first approval is answered 202. Takes an Idempotency-Key.",
        errors=[
            CaseChanged,
            CaseNotFound,
            CaseNotInReview,
            IdempotencyInProgress,
            IdempotencyMismatch,
            IdentityConflict,
            KeysUnavailable,
            SecondReviewerRequired,
        ],
        request=Decide(_CASE.case_id, "approve", "documents_verified", 3),
        response=_CASE,
    ),
    status_code=200,
)
async def review_case(
    request: EdgeRequest, data: JSONBody[Decide], service: NamedDependency[Service]
) -> JsonAnswer[CaseView]:
    actor = callers.actor(request, service)
    key = await callers.attempt(request, service)
    answer = await keep_refusal(
        service.db,
        service.keyring,
        key,
        actor.trace_id or "",
        actions.decide(service.kyc, data, actor, key),
    )
    return callers.answered(answer)


ROUTES = (list_reviews, get_case, review_case)
