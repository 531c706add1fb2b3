"""HTTP of the caller's export: /v1/me/export."""

from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery

from usercore import callers
from usercore.answers import StreamAnswer
from usercore.callers import Service
from usercore.calls import EdgeRequest, principal
from usercore.errors import AccountErased, ArchiveUnavailable, KeysUnavailable, PiiUnavailable
from usercore.exports import actions
from usercore.operations import Access, operation

Format = Literal["json", "html"]


@get(
    "/v1/me/export",
    **operation(
        Access.USER,
        "exportMe",
        summary="All that there is of the caller",
        tag="profile",
        description="Data, purposes, recipients, consents and access log: as JSON (docs/export.schema.json), or with "
        "`format=html` as a page to read or print. Recorded before the first byte. It comes as it is made: an answer "
        "that breaks off is not the whole.",
        errors=[AccountErased, ArchiveUnavailable, KeysUnavailable, PiiUnavailable],
    ),
    media_type="application/json",  # for the documentation: the answer says which of the two it is
)
async def export_me(
    request: EdgeRequest,
    service: NamedDependency[Service],
    format: FromQuery[Format] = "json",
) -> StreamAnswer:
    actor = callers.actor(request, service)
    user_id = principal(request).sub
    export = await callers.on_first_call(
        request,
        service,
        actor,
        lambda: actions.open_export(service.kyc, service.archive, service.controller, user_id, actor),
    )
    name = f'attachment; filename="personal-data.{format}"'
    return StreamAnswer(
        export.json() if format == "json" else export.html(),
        media_type="application/json" if format == "json" else "text/html; charset=utf-8",
        headers={"Content-Disposition": name, "Cache-Control": "no-store"},
    )


ROUTES = (export_me,)
