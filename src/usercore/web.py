"""The HTTP application: Litestar with our handlers behind the edge, and what handlers need from it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from copy import deepcopy

from litestar import Litestar
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from usercore import telemetry
from usercore.auth import Authenticator
from usercore.calls import (
    EdgeRequest,
    add_headers,
    client_ip,
    header,
    is_head,
    principal,
    request_id,
    require_scope,
)
from usercore.edge import Edge
from usercore.openapi import Document
from usercore.operations import ANY_MEDIA_TYPE, JSON, MERGE_PATCH, Access, Readiness, operation, routes
from usercore.ops import health_routes, ops_routes
from usercore.ratelimit import Limit
from usercore.settings import Settings
from usercore.telemetry import Metrics

__all__ = [
    "ANY_MEDIA_TYPE",
    "JSON",
    "MERGE_PATCH",
    "Access",
    "Edge",
    "Readiness",
    "add_headers",
    "build",
    "build_ops",
    "client_ip",
    "header",
    "is_head",
    "operation",
    "principal",
    "request_id",
    "require_scope",
    "routes",
]

BODY_LIMIT = 64 * 1024
"""Bytes a request body may have where the route does not say otherwise."""

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def build(
    handlers: Sequence[ControllerRouterHandler],
    *,
    settings: Settings,
    authenticator: Authenticator,
    ready: Callable[[], Awaitable[Readiness]],
    metrics: Metrics = telemetry.metrics,
    dependencies: Mapping[str, Provide] | None = None,
    limits: Mapping[str, Limit] | None = None,
    lifespan: Sequence[Lifespan] = (),
) -> Edge:
    """The API: the given handlers and /health; outside production /metrics and /schema as well."""
    # Registration ties a handler to its first app for good (it remembers that one's dependencies), and handlers live in
    # modules: apps get copies.
    served = [*deepcopy(list(handlers)), *health_routes(ready)]
    document = Document(served, dependencies or {})
    if not settings.production:
        served += ops_routes(metrics, document)
    return _edge(served, settings, authenticator, metrics, document, dependencies, limits, lifespan)


def build_ops(
    api: Edge,
    *,
    settings: Settings,
    authenticator: Authenticator,
    ready: Callable[[], Awaitable[Readiness]],
    metrics: Metrics = telemetry.metrics,
) -> Edge:
    """The listener of operations: /health, /metrics, and /schema of the API."""
    served = [*health_routes(ready), *ops_routes(metrics, api.document)]
    return _edge(served, settings, authenticator, metrics, api.document)


def _edge(
    handlers: Sequence[ControllerRouterHandler],
    settings: Settings,
    authenticator: Authenticator,
    metrics: Metrics,
    document: Document,
    dependencies: Mapping[str, Provide] | None = None,
    limits: Mapping[str, Limit] | None = None,
    lifespan: Sequence[Lifespan] = (),
) -> Edge:
    app = Litestar(
        handlers,
        dependencies=dict(dependencies or {}),
        lifespan=list(lifespan),
        request_class=EdgeRequest,
        request_max_body_size=BODY_LIMIT,
        # The edge does its own logging and documents; debug and pdb would otherwise come from the environment.
        logging_config=None,
        openapi_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    return Edge(
        app,
        authenticator=authenticator,
        metrics=metrics,
        trusted_proxies=settings.trusted_proxies,
        document=document,
        limits=limits or {},
        values={name: provide.dependency() for name, provide in (dependencies or {}).items()},
    )
