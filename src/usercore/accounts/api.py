"""HTTP of accounts for other services and admins: /internal/users/{id}."""

import re
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from usercore import callers
from usercore.accounts import actions
from usercore.accounts.actions import Accesses, Close, Freeze, Unfreeze
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, principal
from usercore.errors import (
    AccountErased,
    ArchiveUnavailable,
    AuditUnavailable,
    FieldError,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidCursor,
    InvalidTransition,
    KeysUnavailable,
    UserNotFound,
    ValidationFailed,
)
from usercore.idempotency import Answer, Attempt, keep_refusal
from usercore.operations import Access, operation
from usercore.outbox import AccessPurpose
from usercore.profiles.actions import Address, Me, Profile

_SOURCE = re.compile("[a-z][a-z0-9_]{0,31}")
_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_MASKED = Me(
    id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    status="frozen",
    kyc_status="approved",
    kyc_tier="tier_1",
    created_at=_AT,
    updated_at=_AT,
    verified_at=_AT,
    profile=Profile(
        first_name="AXXXX",
        last_name="VXXXX",
        date_of_birth="1994-XX-XX",
        pan_number="XXXXX1234X",
        aadhaar_last4="XXXX",
        address=Address("XXXX", "XXXX", "Maharashtra", "411XXX"),
        phone="+91XXXXXX3210",
        email="aXXXX@example.in",
        avatar_url="https://cdn.example.in/XXXX",
        updated_at=_AT,
    ),
    pii_masked=True,
)
_ACCESS = actions.Access(_AT, "admin", "backoffice", ["phone"], "support", "pii.revealed")
_ERRORS = [AccountErased, IdempotencyInProgress, IdempotencyMismatch, InvalidTransition, KeysUnavailable, UserNotFound]


@get(
    "/internal/users/{user_id:uuid}",
    **operation(
        Access.INTERNAL,
        "getUser",
        summary="A user, masked",
        tag="accounts",
        description="`reveal` names members to show in clear: it needs the scope pii:read and a purpose, and is "
        "recorded for the person.",
        errors=[AccountErased, AuditUnavailable, UserNotFound, ValidationFailed],
        response=_MASKED,
    ),
)
async def get_user(
    request: EdgeRequest,
    service: NamedDependency[Service],
    user_id: FromPath[UUID],
    reveal: FromQuery[str | None] = None,
    purpose: FromQuery[AccessPurpose | None] = None,
) -> JsonAnswer[Me]:
    fields = callers.revealed(request, reveal, purpose)
    actor = callers.actor(request, service)
    me = await actions.get_user(
        service.db, service.keyring, service.reader, user_id, actor, fields=fields, purpose=purpose
    )
    return JsonAnswer(me)


@post(
    "/internal/users/{user_id:uuid}/freeze",
    **operation(
        Access.INTERNAL,
        "freezeUser",
        summary="Freeze an account",
        tag="accounts",
        description="Places a hold for the caller's party, or for `source` if an admin names it; the account is frozen "
        "while any party has one. Again it changes nothing. Takes an Idempotency-Key.",
        errors=_ERRORS,
        request=Freeze("suspected_fraud"),
        response=_MASKED,
    ),
    status_code=200,
)
async def freeze_user(
    request: EdgeRequest, data: JSONBody[Freeze], service: NamedDependency[Service], user_id: FromPath[UUID]
) -> JsonAnswer[Me]:
    actor = callers.actor(request, service)
    key = await callers.attempt(request, service)
    source = _source(request, service, data.source)
    verb = actions.freeze(service.db, service.keyring, user_id, data, source, actor, key)
    return await _answered(service, key, actor.trace_id, verb)


@post(
    "/internal/users/{user_id:uuid}/unfreeze",
    **operation(
        Access.INTERNAL,
        "unfreezeUser",
        summary="Lift a party's holds",
        tag="accounts",
        description="Those of other parties stay. Again it changes nothing. Takes an Idempotency-Key.",
        errors=_ERRORS,
        request=Unfreeze("cleared"),
        response=_MASKED,
    ),
    status_code=200,
)
async def unfreeze_user(
    request: EdgeRequest, data: JSONBody[Unfreeze], service: NamedDependency[Service], user_id: FromPath[UUID]
) -> JsonAnswer[Me]:
    actor = callers.actor(request, service)
    key = await callers.attempt(request, service)
    source = _source(request, service, data.source)
    verb = actions.unfreeze(service.db, service.keyring, user_id, data, source, actor, key)
    return await _answered(service, key, actor.trace_id, verb)


@post(
    "/internal/users/{user_id:uuid}/close",
    **operation(
        Access.ADMIN,
        "closeUser",
        summary="Close an account for good",
        tag="accounts",
        description="Ends an open verification, and lifts no hold. Again it changes nothing. Takes an Idempotency-Key.",
        errors=[error for error in _ERRORS if error is not InvalidTransition],
        request=Close("user_request"),
        response=_MASKED,
    ),
    status_code=200,
)
async def close_user(
    request: EdgeRequest, data: JSONBody[Close], service: NamedDependency[Service], user_id: FromPath[UUID]
) -> JsonAnswer[Me]:
    actor = callers.actor(request, service)
    key = await callers.attempt(request, service)
    verb = actions.close(service.db, service.keyring, service.kyc.rules, user_id, data, actor, key)
    return await _answered(service, key, actor.trace_id, verb)


async def _answered(
    service: Service, key: Attempt | None, trace_id: str | None, verb: Coroutine[Any, Any, Answer]
) -> JsonAnswer[Me]:
    return callers.answered(await keep_refusal(service.db, service.keyring, key, trace_id or "", verb))


def _source(request: EdgeRequest, service: Service, named: str | None) -> str:
    """Whose hold it is: the caller's party, by HOLD_SOURCES. Raises Forbidden, and ValidationFailed."""
    caller = principal(request)
    is_admin = "admin" in caller.scopes
    own = service.hold_sources.get(caller.client_id or "", "admin" if is_admin else "internal")
    if named is None or named == own:
        return own
    if not is_admin:
        raise Forbidden()
    if not _SOURCE.fullmatch(named):
        raise ValidationFailed(errors=[FieldError("/source", "source", "A party: letters, digits and underscores.")])
    return named


@get(
    "/v1/me/access-log",
    **operation(
        Access.USER,
        "listAccesses",
        summary="Who read or received which of the caller's data",
        tag="profile",
        description="Vendors, services and admins, newest first, a page at a time. The person who looked is not named.",
        errors=[AccountErased, ArchiveUnavailable, InvalidCursor, ValidationFailed],
        response=Accesses([_ACCESS], None),
    ),
)
async def list_accesses(
    request: EdgeRequest,
    service: NamedDependency[Service],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> JsonAnswer[Accesses]:
    actor = callers.actor(request, service)
    user_id, most = principal(request).sub, callers.page_size(limit)
    return JsonAnswer(
        await callers.on_first_call(
            request,
            service,
            actor,
            lambda: actions.list_accesses(service.db, service.keyring, user_id, most, cursor, service.archive),
        )
    )


ROUTES = (get_user, freeze_user, unfreeze_user, close_user, list_accesses)
