"""HTTP of the caller's consents: /v1/me/consents."""

from datetime import UTC, datetime
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Struct

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, principal
from usercore.consents import actions
from usercore.consents.actions import GiveConsent, SignedReceipt
from usercore.consents.queries import Consent
from usercore.consents.receipts import receipt
from usercore.errors import (
    AccountErased,
    AccountNotActive,
    ConsentNotFound,
    ConsentNotGranted,
    IdempotencyInProgress,
    IdempotencyMismatch,
    KeysUnavailable,
)
from usercore.idempotency import keep_refusal
from usercore.operations import Access, operation


class Consents(Struct, frozen=True):
    items: list[Consent]


_CONSENT = Consent(
    UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11"),
    "marketing",
    "2026-01",
    True,
    "203.0.113.7",
    datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
    None,
)


@post(
    "/v1/me/consents",
    **operation(
        Access.USER,
        "giveConsent",
        summary="Give or withdraw a consent",
        tag="consents",
        description="`granted: false` withdraws the active consent of that type, in every account status. "
        "A newer grant of a type ends the older one. Takes an Idempotency-Key.",
        errors=[
            AccountErased,
            AccountNotActive,
            ConsentNotGranted,
            IdempotencyInProgress,
            IdempotencyMismatch,
            KeysUnavailable,
        ],
        request=GiveConsent("marketing", "2026-01", True),
        response=_CONSENT,
    ),
)
async def give_consent(
    request: EdgeRequest,
    data: JSONBody[GiveConsent],
    service: NamedDependency[Service],
) -> JsonAnswer[Consent]:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    attempt = await callers.attempt(request, service)
    answer = await keep_refusal(
        service.db,
        service.keyring,
        attempt,
        actor.trace_id or "",
        callers.on_first_call(
            request,
            service,
            actor,
            lambda: actions.give_consent(service.db, service.keyring, user_id, data, actor, attempt),
        ),
    )
    return callers.answered(answer)


@get(
    "/v1/me/consents",
    **operation(
        Access.USER,
        "listConsents",
        summary="The caller's consents",
        tag="consents",
        description="The current state of each type; with `history=true` every grant and withdrawal, oldest first.",
        errors=[AccountErased],
        response=Consents([_CONSENT]),
    ),
)
async def list_consents(
    request: EdgeRequest,
    service: NamedDependency[Service],
    history: FromQuery[bool] = False,
) -> Consents:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    return Consents(
        await callers.on_first_call(
            request,
            service,
            actor,
            lambda: actions.list_consents(service.db, user_id, history=history),
        )
    )


@get(
    "/v1/me/consents/{consent_id:uuid}/receipt",
    **operation(
        Access.USER,
        "getConsentReceipt",
        summary="The signed receipt of a grant or a withdrawal",
        tag="consents",
        description="In the shape of ISO/IEC TS 27560:2023. `jws` signs the receipt (RFC 7515, Ed25519): whoever has "
        "our public keys verifies it without us.",
        errors=[AccountErased, ConsentNotFound, KeysUnavailable],
        response=SignedReceipt(
            receipt(_CONSENT, UUID("6f0c1f2e-3a4b-4c5d-8e9f-0a1b2c3d4e5f"), "Example Broking Ltd", _CONSENT.granted_at),
            "eyJhbGciOiJFZERTQSIsImtpZCI6ImNvbnNlbnQtcmVjZWlwdC0xIiwidHlwIjoiY29uc2VudC1yZWNlaXB0In0.e30.c2ln",
        ),
    ),
)
async def get_receipt(
    request: EdgeRequest,
    consent_id: FromPath[UUID],
    service: NamedDependency[Service],
) -> SignedReceipt:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    return await callers.on_first_call(
        request,
        service,
        actor,
        lambda: actions.get_receipt(service.db, service.keyring, user_id, consent_id, service.controller),
    )


ROUTES = (give_consent, list_consents, get_receipt)
