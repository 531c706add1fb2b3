"""What handlers share: the service's parts, who calls, and the caller's idempotency key."""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from msgspec import Struct

from usercore import telemetry
from usercore.answers import JSON, JsonAnswer
from usercore.artifacts.actions import Artifacts
from usercore.attempts.actions import Kyc
from usercore.calls import EdgeRequest, client_ip, header, principal, request_id, require_scope
from usercore.clickhouse import ClickHouse
from usercore.db import Db
from usercore.errors import PROBLEM_MEDIA_TYPE, FieldError, KeysUnavailable, ValidationFailed
from usercore.idempotency import Answer, Attempt, fingerprints, stored_key
from usercore.outbox import AccessPurpose, Actor, ActorKind
from usercore.pii.keyring import Keyring
from usercore.profiles.actions import ProfileReader, ProfileWriter
from usercore.users.actions import UnknownUser, create_user

T = TypeVar("T")

LARGEST_PAGE = 200

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Service(Struct, frozen=True):
    """What handlers work with. One dependency, because Litestar resolves several in a task each."""

    db: Db
    keyring: Keyring
    reader: ProfileReader
    writer: ProfileWriter
    kyc: Kyc
    artifacts: Artifacts
    hold_sources: Mapping[str, str]
    """Whose holds a calling service places, by its client id."""
    archive: ClickHouse | None
    periods: Mapping[str, timedelta]
    """How long each retention class is kept, where the settings say otherwise than the law."""
    controller: str
    """Who answers for the data, as receipts and certificates name it."""


def actor(request: EdgeRequest, service: Service) -> Actor:
    """The actor of an authenticated request. Without keys the address is recorded without its digest."""
    caller = principal(request)
    ip = client_ip(request)
    try:
        ip_mac = None if ip is None else service.keyring.ip_mac(ip)
    except KeysUnavailable:
        ip_mac = None
    return Actor(
        kind=_kind(caller.scopes),
        id=caller.sub,
        client=caller.client_id,
        scope=" ".join(sorted(caller.scopes)) or None,
        ip=ip,
        ip_mac=ip_mac,
        request_id=request_id(request),
        trace_id=telemetry.current_trace_id(),
        traceparent=telemetry.current_traceparent(),
    )


def _kind(scopes: frozenset[str]) -> ActorKind:
    if "admin" in scopes:
        return "admin"
    return "internal" if "internal" in scopes else "user"


async def on_first_call(request: EdgeRequest, service: Service, actor: Actor, verb: Callable[[], Awaitable[T]]) -> T:
    """Run `verb` for an end user; when there is no such user yet, create it and run `verb` again."""
    try:
        return await verb()
    except UnknownUser:
        caller = principal(request)
        await create_user(service.db, service.keyring, caller.sub, caller.email, actor)
        return await verb()


async def attempt(request: EdgeRequest, service: Service) -> Attempt | None:
    """The request's Idempotency-Key with the digest of its body, or None. Raises ValidationFailed, KeysUnavailable."""
    key = header(request, "idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        error = FieldError("/header/idempotency-key", "idempotency_key", "1 to 255 visible ASCII characters.")
        raise ValidationFailed(errors=[error])
    digest, *older = fingerprints(service.keyring, await request.body())
    sub = principal(request).sub
    return Attempt(sub, str(request.method), request.url.path, stored_key(sub, key), digest, tuple(older))


def answered(answer: Answer) -> JsonAnswer[Any]:
    """The answer of an idempotent verb, marked when it was given before."""
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else {}
    media_type = JSON if answer.status < 400 else PROBLEM_MEDIA_TYPE
    return JsonAnswer(answer.body, status_code=answer.status, headers=headers, media_type=media_type)


def revealed(request: EdgeRequest, reveal: str | None, purpose: AccessPurpose | None) -> list[str]:
    """The members that a caller wants to see in clear. Raises Forbidden, and ValidationFailed without a purpose."""
    fields = [name for name in (reveal or "").split(",") if name]
    if fields:
        require_scope(request, "pii:read")
        if purpose is None:
            raise ValidationFailed(errors=[FieldError("/query/purpose", "required", "Say what for.")])
    return fields


def page_size(limit: int) -> int:
    """How many items a page may have. Raises ValidationFailed."""
    if not 1 <= limit <= LARGEST_PAGE:
        raise ValidationFailed(errors=[FieldError("/query/limit", "range", f"1 to {LARGEST_PAGE}.")])
    return limit
