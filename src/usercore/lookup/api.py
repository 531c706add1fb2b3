"""HTTP of lookup: /admin/users/search."""

from datetime import UTC, datetime
from uuid import UUID

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from usercore import callers
from usercore.answers import JsonAnswer
from usercore.callers import LARGEST_PAGE, Service
from usercore.calls import EdgeRequest
from usercore.errors import FieldError, InvalidCursor, KeysUnavailable, ValidationFailed
from usercore.lookup import actions
from usercore.lookup.actions import Found, FoundPage, Search
from usercore.operations import Access, operation

_FOUND = Found(
    id=UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"),
    email="aXXXX@example.in",
    status="active",
    kyc_status="approved",
    kyc_tier="tier_1",
    created_at=datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
    verified_at=datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
)


@post(
    "/admin/users/search",
    **operation(
        Access.ADMIN,
        "searchUsers",
        summary="Find users",
        tag="accounts",
        description="All that is given has to be so. Newest first, a page at a time; a cursor is good for the same "
        "search only. Each search is recorded, what it searched for as digests.",
        errors=[InvalidCursor, KeysUnavailable],
        request=Search(pan_number="ABCPV1234F"),
        response=FoundPage([_FOUND], None),
    ),
    status_code=200,
)
async def search_users(
    request: EdgeRequest, data: JSONBody[Search], service: NamedDependency[Service]
) -> JsonAnswer[FoundPage]:
    if not 1 <= data.limit <= LARGEST_PAGE:
        raise ValidationFailed(errors=[FieldError("/limit", "range", f"1 to {LARGEST_PAGE}.")])
    actor = callers.actor(request, service)
    return JsonAnswer(await actions.search(service.db, service.keyring, data, actor))


ROUTES = (search_users,)
