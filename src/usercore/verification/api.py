"""HTTP of verification: /v1/kyc/initiate, /v1/kyc/resubmit, /v1/kyc/status."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, principal
from usercore.errors import (
    AccountErased,
    AccountNotActive,
    IdempotencyInProgress,
    IdempotencyMismatch,
    KeysUnavailable,
    KycAttemptsExhausted,
    KycResubmitNotAllowed,
    KycTierNotNext,
    KycTierReached,
    KycVendorUnavailable,
    ProfileIncomplete,
)
from usercore.idempotency import Answer, keep_refusal
from usercore.operations import Access, operation
from usercore.ratelimit import KYC_INITIATE
from usercore.verification import actions
from usercore.verification.actions import Case, CheckView, Initiate, Limits, NextTier, Opened, StartedCase, Status

RETRY_AFTER_S = 3
"""When to look at /v1/kyc/status for what the vendor has answered."""

_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_STARTED = StartedCase(
    case_id=UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11"),
    vendor="hyperverge",
    status="initiated",
    target_tier="tier_1",
    redirect_url="https://verify.example.in/s/1",
    sdk_token=None,
    expires_at=_AT + timedelta(days=1),
)
_STATUS = Status(
    kyc_status="pending",
    kyc_tier="tier_0",
    verified_at=None,
    expires_at=None,
    case=Case(
        case_id=_STARTED.case_id,
        vendor="hyperverge",
        status="initiated",
        target_tier="tier_1",
        redirect_url="https://verify.example.in/s/1",
        sdk_token=None,
        expires_at=_STARTED.expires_at,
        rejection_code=None,
        initiated_at=_AT,
        completed_at=None,
        case_version=2,
    ),
    checks=[CheckView("pan", "pending", "hyperverge", None), CheckView("selfie", "pending", "hyperverge", None)],
    next_tier=NextTier("tier_1", ["pan", "selfie"]),
    limits=Limits("view_only"),
)
_ERRORS = [
    AccountErased,
    AccountNotActive,
    IdempotencyInProgress,
    IdempotencyMismatch,
    KeysUnavailable,
    KycAttemptsExhausted,
    KycTierNotNext,
    KycTierReached,
    KycVendorUnavailable,
    ProfileIncomplete,
]


@post(
    "/v1/kyc/initiate",
    **operation(
        Access.USER,
        "initiateKyc",
        summary="Start the next step of verification",
        tag="kyc",
        description="201 with the vendor's page or token; 202 with nulls while the vendor has not answered; 200 with "
        "the open case when there is one. A bank account is for tier_3, and is gone at the verdict. "
        "Takes an Idempotency-Key.",
        errors=_ERRORS,
        request=Initiate(target_tier="tier_1"),
        response=_STARTED,
        limit=KYC_INITIATE,
    ),
)
async def initiate_kyc(
    request: EdgeRequest, data: JSONBody[Initiate], service: NamedDependency[Service]
) -> JsonAnswer[StartedCase]:
    return await _initiate(request, service, data, again=False)


@post(
    "/v1/kyc/resubmit",
    **operation(
        Access.USER,
        "resubmitKyc",
        summary="Start again after a rejected or expired case",
        tag="kyc",
        description="As initiate. Takes an Idempotency-Key.",
        errors=[*_ERRORS, KycResubmitNotAllowed],
        request=Initiate(target_tier="tier_1"),
        response=_STARTED,
        limit=KYC_INITIATE,
    ),
)
async def resubmit_kyc(
    request: EdgeRequest, data: JSONBody[Initiate], service: NamedDependency[Service]
) -> JsonAnswer[StartedCase]:
    return await _initiate(request, service, data, again=True)


async def _initiate(request: EdgeRequest, service: Service, asked: Initiate, *, again: bool) -> JsonAnswer[StartedCase]:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    key = await callers.attempt(request, service)
    opened = await keep_refusal(
        service.db,
        service.keyring,
        key,
        actor.trace_id or "",
        callers.on_first_call(
            request,
            service,
            actor,
            lambda: actions.initiate(service.kyc, user_id, asked, actor, key, again=again),
        ),
    )
    return callers.answered(opened) if isinstance(opened, Answer) else _answer(opened)


def _answer(opened: Opened) -> JsonAnswer[StartedCase]:
    headers = {"Idempotency-Replayed": "true"} if opened.replayed else {}
    if not opened.answered:
        return JsonAnswer(opened.case, status_code=202, headers={**headers, "Retry-After": str(RETRY_AFTER_S)})
    return JsonAnswer(opened.case, status_code=201 if opened.new else 200, headers=headers)


@get(
    "/v1/kyc/status",
    **operation(
        Access.USER,
        "getKycStatus",
        summary="What the caller's verification has come to",
        tag="kyc",
        errors=[AccountErased, KeysUnavailable],
        response=_STATUS,
    ),
)
async def get_kyc_status(request: EdgeRequest, service: NamedDependency[Service]) -> JsonAnswer[Status]:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    return JsonAnswer(
        await callers.on_first_call(request, service, actor, lambda: actions.get_status(service.kyc, user_id))
    )


ROUTES = (initiate_kyc, resubmit_kyc, get_kyc_status)
