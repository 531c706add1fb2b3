"""HTTP of erasing a person: POST /internal/users/{id}/erase."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest
from usercore.erased.actions import Certificate, DestroyedKey, Erasing, Kept, SignedCertificate, StoreEvidence
from usercore.erasure import actions
from usercore.erasure.actions import Erase, Erased
from usercore.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    KeysUnavailable,
    LegalHold,
    UserNotFound,
    ValidationFailed,
)
from usercore.idempotency import keep_refusal
from usercore.operations import Access, operation

RETRY_S = 30

_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_EXAMPLE = Erased(
    dry_run=False,
    certificate=SignedCertificate(
        Certificate(
            user_id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
            controller="Example Broking Ltd",
            reason="user_request",
            erased_at=_AT,
            issued_at=_AT,
            audit_event_id=UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11"),
            keys_destroyed=[DestroyedKey("contact", 1, "9f86d081…")],
            stores=[StoreEvidence("postgres", "keys destroyed, columns emptied, indexes and claims removed", _AT)],
            kept=[Kept("identity", _AT.replace(year=2034))],
        ),
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImVyYXN1cmUtY2VydGlmaWNhdGUtMSJ9.e30.c2ln",
    ),
)


@post(
    "/internal/users/{user_id:uuid}/erase",
    **operation(
        Access.ADMIN,
        "eraseUser",
        summary="Erase a person",
        tag="accounts",
        description="Closes an open account, destroys the keys of what no law keeps, locks the rest until it is due. "
        "With `dry_run` it answers the plan, and nothing changes. 202 while a store or vendor is outstanding: "
        "ask again. Repeating it answers the same certificate. Takes an Idempotency-Key.",
        errors=[
            UserNotFound,
            LegalHold,
            ValidationFailed,
            KeysUnavailable,
            IdempotencyInProgress,
            IdempotencyMismatch,
        ],
        request=Erase("user_request"),
        response=_EXAMPLE,
    ),
    status_code=200,
)
async def erase_user(
    request: EdgeRequest, data: JSONBody[Erase], service: NamedDependency[Service], user_id: FromPath[UUID]
) -> JsonAnswer[Any]:
    actor = callers.actor(request, service)
    key = await callers.attempt(request, service)
    work = Erasing(service.kyc, service.artifacts, service.periods, service.controller)
    done = await keep_refusal(
        service.db,
        service.keyring,
        key,
        actor.trace_id or "",
        actions.erase(work, user_id, data, actor, key),
    )
    body = msgspec.Raw(msgspec.json.encode(done))
    if done.dry_run or done.certificate is not None:
        return JsonAnswer(body, status_code=200)
    return JsonAnswer(body, status_code=202, headers={"Retry-After": str(RETRY_S)})


ROUTES = (erase_user,)
