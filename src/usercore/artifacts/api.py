"""HTTP of artifacts: /admin/kyc/artifacts/{id}."""

from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from usercore import callers
from usercore.answers import StreamAnswer
from usercore.artifacts import actions
from usercore.callers import Service
from usercore.calls import EdgeRequest, require_scope
from usercore.errors import AccountErased, KeysUnavailable, NotFound, PiiUnavailable, ValidationFailed
from usercore.operations import Access, operation
from usercore.outbox import AccessPurpose

_SUFFIX = {"image/jpeg": "jpg", "image/png": "png", "application/pdf": "pdf", "video/mp4": "mp4"}


@get(
    "/admin/kyc/artifacts/{artifact_id:uuid}",
    **operation(
        Access.ADMIN,
        "getArtifact",
        summary="A document or picture of a case",
        tag="reviews",
        description="The bytes as the vendor had them. Needs the scope pii:read and a purpose, and is recorded for the "
        "person before the first byte. An answer that ends too early is one that did not verify.",
        errors=[AccountErased, KeysUnavailable, NotFound, PiiUnavailable, ValidationFailed],
    ),
)
async def get_artifact(
    request: EdgeRequest,
    service: NamedDependency[Service],
    artifact_id: FromPath[UUID],
    purpose: FromQuery[AccessPurpose],
) -> StreamAnswer:
    require_scope(request, "pii:read")
    reading = await actions.open_artifact(service.artifacts, artifact_id, purpose, callers.actor(request, service))
    name = f"{reading.type}-{reading.id}.{_SUFFIX[reading.media_type]}"
    return StreamAnswer(
        reading.chunks,
        size=reading.size,
        media_type=reading.media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


ROUTES = (get_artifact,)
