"""HTTP of the caller's own profile: /v1/me."""

import re
from datetime import UTC, datetime
from uuid import UUID

from litestar import get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, header, is_head, principal
from usercore.errors import (
    AccountErased,
    AccountNotActive,
    AuditUnavailable,
    EmailManagedByAuth,
    IdentityLocked,
    KeysUnavailable,
    PiiUnavailable,
    VersionMismatch,
)
from usercore.operations import MERGE_PATCH, Access, operation
from usercore.profiles.profile import Address, AddressPatch, Me, Profile, ProfilePatch
from usercore.ratelimit import PROFILE_PATCH
from usercore.users.actions import get_version

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')

_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_ME = Me(
    id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    status="pending",
    kyc_status="not_started",
    kyc_tier="tier_0",
    created_at=_AT,
    updated_at=_AT,
    verified_at=None,
    profile=Profile(
        first_name="Asha",
        last_name="Verma",
        date_of_birth="1994-08-12",
        pan_number="ABCPV1234F",
        aadhaar_last4="4321",
        address=Address("14 MG Road", "Pune", "Maharashtra", "411001"),
        phone="+919876543210",
        email="asha@example.in",
        avatar_url="https://cdn.example.in/a/14.png",
        updated_at=_AT,
    ),
    pii_masked=False,
)


@get(
    "/v1/me",
    **operation(
        Access.USER,
        "getMe",
        summary="The caller's own profile",
        tag="profile",
        description="The first call of a new user creates it. The read is audited before it is answered. "
        "If-None-Match with the current ETag answers 304. When the data cannot be opened it is masked, without ETag.",
        errors=[AccountErased, AuditUnavailable],
        response=_ME,
    ),
)
async def get_me(
    request: EdgeRequest,
    service: NamedDependency[Service],
) -> JsonAnswer[Me]:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    known = header(request, "if-none-match")

    async def answer() -> JsonAnswer[Me]:
        if is_head(request) or known is not None:
            version = await get_version(service.db, user_id)
            if known is not None and _matches(known, version):
                return _empty(304, version)
            if is_head(request):
                return _empty(200, version)
        me, version = await service.reader.read(user_id, actor)
        return JsonAnswer(me, headers={} if me.pii_masked else _tagged(version))

    return await callers.on_first_call(request, service, actor, answer)


@patch(
    "/v1/me",
    **operation(
        Access.USER,
        "updateMe",
        summary="Change the caller's own profile",
        tag="profile",
        description="A JSON Merge Patch (RFC 7396): what is absent stays, null clears, the merged address must be "
        "complete. A patch that changes nothing is answered and not recorded as a change.",
        errors=[
            AccountErased,
            AccountNotActive,
            EmailManagedByAuth,
            IdentityLocked,
            KeysUnavailable,
            PiiUnavailable,
            VersionMismatch,
        ],
        request=ProfilePatch(first_name="Asha", address=AddressPatch(city="Pune")),
        response=_ME,
        media_types=MERGE_PATCH,
        limit=PROFILE_PATCH,
    ),
)
async def update_me(
    request: EdgeRequest,
    data: JSONBody[ProfilePatch],
    service: NamedDependency[Service],
) -> JsonAnswer[Me]:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    if_match = _expected(header(request, "if-match"))
    me, version = await callers.on_first_call(
        request,
        service,
        actor,
        lambda: service.writer.update(user_id, data, actor, if_match=if_match),
    )
    return JsonAnswer(me, headers={} if me.pii_masked else _tagged(version))


def _empty(status: int, version: int) -> JsonAnswer[Me]:
    """An answer without a body, to a caller that asked for none."""
    return JsonAnswer(None, status_code=status, headers=_tagged(version))


def _tagged(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def _matches(if_none_match: str, version: int) -> bool:
    """RFC 9110, section 13.1.2: weak comparison with any member of the list."""
    return if_none_match.strip() == "*" or str(version) in (tag for _, tag in _ENTITY_TAG.findall(if_none_match))


def _expected(if_match: str | None) -> tuple[int, ...] | None:
    """RFC 9110, section 13.1.1: the versions that If-Match names; weak ones match nothing, `*` matches any."""
    if if_match is None or if_match.strip() == "*":
        return None
    strong = [tag for weak, tag in _ENTITY_TAG.findall(if_match) if not weak]
    return tuple(int(tag) for tag in strong if re.fullmatch("[0-9]{1,9}", tag))


ROUTES = (get_me, update_me)
