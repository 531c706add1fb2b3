"""HTTP of the caller's notification preferences: /v1/me/notification-prefs."""

from datetime import UTC, datetime

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from usercore import callers
from usercore.callers import Service
from usercore.calls import EdgeRequest, principal
from usercore.errors import AccountErased, AccountNotActive
from usercore.operations import Access, operation
from usercore.prefs import actions
from usercore.prefs.queries import Prefs, StoredPrefs

_STORED = StoredPrefs(True, True, True, True, True, False, datetime(2026, 1, 15, 9, 30, tzinfo=UTC))


@get(
    "/v1/me/notification-prefs",
    **operation(
        Access.USER,
        "getNotificationPrefs",
        summary="The caller's notification preferences",
        tag="notification preferences",
        errors=[AccountErased],
        response=_STORED,
    ),
)
async def get_prefs(request: EdgeRequest, service: NamedDependency[Service]) -> StoredPrefs:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    return await callers.on_first_call(
        request,
        service,
        actor,
        lambda: actions.get_prefs(service.db, user_id),
    )


@put(
    "/v1/me/notification-prefs",
    **operation(
        Access.USER,
        "replaceNotificationPrefs",
        summary="Replace the caller's notification preferences",
        tag="notification preferences",
        errors=[AccountErased, AccountNotActive],
        request=Prefs(True, True, True, True, True, False),
        response=_STORED,
    ),
)
async def replace_prefs(request: EdgeRequest, data: JSONBody[Prefs], service: NamedDependency[Service]) -> StoredPrefs:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    return await callers.on_first_call(
        request,
        service,
        actor,
        lambda: actions.replace_prefs(service.db, user_id, data, actor),
    )


ROUTES = (get_prefs, replace_prefs)
