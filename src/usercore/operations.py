"""What a route declares about itself: who may call it, what it answers, and true examples for the documentation."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Literal, TypedDict, cast

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.routes import HTTPRoute
from msgspec import Struct

from usercore.auth import Principal
from usercore.errors import (
    PROBLEM_MEDIA_TYPE,
    ApiError,
    BodyTooLarge,
    FieldError,
    Forbidden,
    InternalError,
    InvalidRequest,
    MalformedBody,
    RateLimited,
    ServiceUnavailable,
    Unauthenticated,
    UnsupportedMediaType,
    ValidationFailed,
    problem,
)

JSON = ("application/json",)
MERGE_PATCH = ("application/merge-patch+json", "application/json")
ANY_MEDIA_TYPE: tuple[str, ...] = ()
"""For routes that read raw bytes from callers who cannot be told what to send."""
EXAMPLE_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Access(Enum):
    """Who may call a route."""

    USER = "user"
    """A person's own token: neither `internal` nor `admin`."""
    INTERNAL = "internal"
    """A service: `internal` or `admin`."""
    ADMIN = "admin"
    NONE = "none"
    """Anybody; the route verifies its callers itself, or has nothing to hide."""
    OPS = "ops"
    """Whoever reaches the listener of operations; in production these routes exist there only."""

    def admits(self, principal: Principal) -> bool:
        scopes = principal.scopes
        if self is Access.USER:
            return "internal" not in scopes and "admin" not in scopes
        if self is Access.INTERNAL:
            return "internal" in scopes or "admin" in scopes
        return self is not Access.ADMIN or "admin" in scopes

    @property
    def needs_token(self) -> bool:
        return self in (Access.USER, Access.INTERNAL, Access.ADMIN)


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457, as `errors.problem` renders it."""

    type: str
    title: str
    status: int
    code: str
    trace_id: str
    detail: str | None = None
    errors: list[FieldError] | None = None


class OperationKwargs(TypedDict):
    """What `operation` gives to Litestar's decorators."""

    opt: dict[str, object]
    operation_id: str
    summary: str
    description: str | None
    tags: list[str]
    security: list[dict[str, list[str]]]
    responses: dict[int, ResponseSpec]


def operation(
    access: Access,
    operation_id: str,
    *,
    summary: str,
    tag: str,
    description: str | None = None,
    errors: Sequence[type[ApiError]] = (),
    request: object = None,
    response: object = None,
    media_types: tuple[str, ...] = JSON,
    limit: str | None = None,
    quiet: bool = False,
) -> OperationKwargs:
    """Declare a route: `@get("/v1/me", **operation(Access.USER, "getMe", …))`.

    `errors` are those of the verb; what the edge itself answers is added. `request` and `response` are true examples,
    the latter of the success status or a mapping of statuses to examples. `media_types` are the accepted ones of a
    body. `limit` names the limit that attempts count against, whatever becomes of them. `quiet` routes are not logged
    while all is well.
    """
    raised: list[type[ApiError]] = [*errors, InternalError]
    if access.needs_token:
        raised += [Unauthenticated, Forbidden, ServiceUnavailable, InvalidRequest]
    if request is not None:
        raised += [MalformedBody, BodyTooLarge, UnsupportedMediaType, ValidationFailed]
    if limit is not None:
        raised.append(RateLimited)
    return OperationKwargs(
        opt={
            "access": access,
            "media_types": media_types,
            "limit": limit,
            "quiet": quiet,
            "request_example": request,
            "response_example": response,
        },
        operation_id=operation_id,
        summary=summary,
        description=description,
        tags=[tag],
        security=[{"bearer": []}] if access.needs_token else [],
        responses=_responses(raised),
    )


def _responses(raised: Sequence[type[ApiError]]) -> dict[int, ResponseSpec]:
    """One response for each status, with an example for each error that has it."""
    by_status: dict[int, dict[str, type[ApiError]]] = {}
    for error in raised:
        by_status.setdefault(error.status, {})[error.code] = error
    return {
        status: ResponseSpec(
            data_container=Problem,
            generate_examples=False,
            description=", ".join(error.title for error in group.values()),
            media_type=PROBLEM_MEDIA_TYPE,
            examples=[
                Example(id=code, summary=error.title, value=msgspec.json.decode(problem(error(), EXAMPLE_TRACE)))
                for code, error in group.items()
            ],
        )
        for status, group in sorted(by_status.items())
    }


class Rule(Struct, frozen=True):
    """What the edge has to know about a handler."""

    handler: HTTPRouteHandler
    access: Access | None
    media_types: tuple[str, ...] | None
    body_limit: int | None
    decoder: msgspec.json.Decoder[object] | None
    body_required: bool
    limit: str | None
    quiet: bool
    automatic: bool
    """Made by Litestar (OPTIONS), not by us."""
    allow: str
    """Methods of the route, as the Allow header lists them."""


class Route(Struct, frozen=True):
    """A route of ours, for tests and documents that go through all of them."""

    method: str
    path: str
    access: Access | None


def routes(app: Litestar) -> list[Route]:
    """Every route but the automatic OPTIONS ones; `access` None means that nobody may call it."""
    found: list[Route] = []
    for route, handler in handlers_of(app):
        rule = rule_of(route, handler)
        if not rule.automatic:
            found += [Route(method, route.path_format, rule.access) for method in sorted(handler.http_methods)]
    return found


def handlers_of(app: Litestar) -> Iterator[tuple[HTTPRoute, HTTPRouteHandler]]:
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            raise TypeError(f"{route.path} is not an HTTP route")
        for handler in route.route_handlers:
            yield route, handler


def rule_of(route: HTTPRoute, handler: HTTPRouteHandler) -> Rule:
    """Raises TypeError for a handler whose body would let unknown fields pass."""
    options = cast("Mapping[str, object]", handler.opt)
    access = options.get("access")
    parameters = handler.parsed_fn_signature.parameters
    data = parameters.get("data")
    if data is not None:
        _refuse_lenient(data.annotation, f"{handler}")
    media_types = cast("tuple[str, ...]", options.get("media_types", JSON))
    return Rule(
        handler=handler,
        access=access if isinstance(access, Access) else None,
        media_types=(media_types or None) if data is not None or "body" in parameters else None,
        body_limit=handler.resolve_request_max_body_size(),
        decoder=None if data is None else msgspec.json.Decoder(data.annotation),
        body_required=data is not None and not data.has_default and not data.is_optional,
        limit=cast("str | None", options.get("limit")),
        quiet=options.get("quiet") is True,
        automatic=handler.http_methods == {"OPTIONS"} and not options,
        allow=allow(cast("set[str]", route.methods)),
    )


def allow(methods: set[str]) -> str:
    """The methods as we answer them: HEAD wherever GET is, OPTIONS nowhere."""
    heads: set[str] = {"HEAD"} if "GET" in methods else set()
    return ", ".join(sorted((methods | heads) - {"OPTIONS"}))


def _refuse_lenient(annotation: object, where: str) -> None:
    """Every Struct in a request body forbids unknown fields: the contract refuses them."""
    pending: list[object] = [msgspec.inspect.type_info(annotation)]
    seen: set[int] = set()
    while pending:
        info = pending.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.StructType):
            if not info.forbid_unknown_fields:
                raise TypeError(f"{info.cls.__name__} of {where} must have forbid_unknown_fields=True")
            pending += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            pending += info.types
        elif isinstance(info, msgspec.inspect.CollectionType):
            pending.append(info.item_type)
        elif isinstance(info, msgspec.inspect.DictType):
            pending += [info.key_type, info.value_type]


Status = Literal["ready", "degraded", "unavailable"]


class Readiness(Struct, frozen=True):
    """Whether to send requests here, and how each component does."""

    status: Status
    components: dict[str, str]
