"""HTTP of the audit trail: /internal/users/{id}/audit."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.audit import actions
from usercore.audit.actions import BEGINNING, END, Trail, TrailEntry
from usercore.callers import Service
from usercore.calls import EdgeRequest
from usercore.errors import ArchiveUnavailable, FieldError, InvalidCursor, UserNotFound, ValidationFailed
from usercore.operations import Access, operation
from usercore.outbox import AuditAction

_ENTRY = TrailEntry(
    event_id=UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11"),
    user_id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    actor_id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    action="profile.updated",
    resource="user_profiles",
    old_value={"phone": None},
    new_value={"phone": "XXXX"},
    ip_addr="203.0.113.7",
    timestamp=datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
)


@get(
    "/internal/users/{user_id:uuid}/audit",
    **operation(
        Access.INTERNAL,
        "listTrail",
        summary="What was done to a user",
        tag="accounts",
        description="Newest first, a page at a time. `from` counts, `to` does not any more. Sealed values are masks. "
        "Old rows come from the archive, where `ip_addr` is not kept. An erased user's trail stays.",
        errors=[ArchiveUnavailable, InvalidCursor, UserNotFound, ValidationFailed],
        response=Trail([_ENTRY], None),
    ),
)
async def list_trail(
    request: EdgeRequest,
    service: NamedDependency[Service],
    user_id: FromPath[UUID],
    action: FromQuery[AuditAction | None] = None,
    since: Annotated[datetime | None, QueryParameter(name="from")] = None,
    until: Annotated[datetime | None, QueryParameter(name="to")] = None,
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> JsonAnswer[Trail]:
    trail = await actions.list_trail(
        service.db,
        service.keyring,
        user_id,
        action=action,
        since=_zoned("from", since) or BEGINNING,
        until=_zoned("to", until) or END,
        limit=callers.page_size(limit),
        cursor=cursor,
        archive=service.archive,
    )
    return JsonAnswer(trail)


def _zoned(name: str, at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise ValidationFailed(errors=[FieldError(f"/query/{name}", "time_zone", "A time with its zone.")])
    return at


ROUTES = (list_trail,)
