"""The routes of operations: /health, /metrics and /schema."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from litestar import Request, Response, get
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from usercore.calls import header
from usercore.openapi import Document
from usercore.operations import Access, Readiness, operation
from usercore.telemetry import Metrics


class Alive(Struct, frozen=True):
    status: Literal["alive"] = "alive"


def health_routes(ready: Callable[[], Awaitable[Readiness]]) -> list[ControllerRouterHandler]:
    """/health/live touches nothing, so that a broken database restarts nobody; /health/ready asks `ready`."""

    @get(
        "/health/live",
        sync_to_thread=False,
        **operation(
            Access.NONE,
            "getLiveness",
            summary="Whether the process runs",
            tag="operations",
            response=Alive(),
            quiet=True,
        ),
    )
    def live() -> Alive:
        return Alive()

    @get(
        "/health/ready",
        **operation(
            Access.NONE,
            "getReadiness",
            summary="Whether to send requests here",
            tag="operations",
            response={
                200: Readiness("degraded", {"postgres": "ok", "redis": "unavailable"}),
                503: Readiness("unavailable", {"postgres": "unavailable", "redis": "ok"}),
            },
            quiet=True,
        ),
    )
    async def readiness() -> Response[Readiness]:
        found = await ready()
        return Response(found, status_code=503 if found.status == "unavailable" else 200)

    return [live, readiness]


def ops_routes(metrics: Metrics, document: Document) -> list[ControllerRouterHandler]:
    """/metrics, and /schema/openapi.json."""

    @get(
        "/metrics",
        sync_to_thread=False,
        include_in_schema=False,
        **operation(Access.OPS, "getMetrics", summary="Prometheus or OpenMetrics text", tag="operations", quiet=True),
    )
    def metrics_text(request: Request[Any, Any, Any]) -> Response[bytes]:
        text, media_type = metrics.render(header(request, "accept") or "")
        # As a header: Litestar would add a second charset to a media type.
        return Response(text, headers={"content-type": media_type})

    @get(
        "/schema/openapi.json",
        sync_to_thread=False,
        include_in_schema=False,
        **operation(Access.OPS, "getSchema", summary="This API as OpenAPI 3.1", tag="operations", quiet=True),
    )
    def schema() -> Response[bytes]:
        return Response(document.render(), media_type="application/json")

    return [metrics_text, schema]
