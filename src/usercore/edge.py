"""The edge: one slim ASGI layer around Litestar that identifies, authorises, counts and logs each request.

Litestar's router answers 404 and 405 past its middleware, and its guards copy the handler on each call (16 µs). So all
of this happens before Litestar sees a request, and `EdgeRequest` does not exist for a handler that was not let through.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from uuid import uuid4

from litestar import Litestar
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.utils.path import normalize_path
from opentelemetry.trace import Status, StatusCode

from usercore import logs, ratelimit, telemetry
from usercore.accesslog import CANCELLED, AccessLog, label
from usercore.auth import Authenticator, Principal
from usercore.calls import CALL, Call, ClientGone, EdgeRequest, Proxies, direct
from usercore.errors import (
    PROBLEM_MEDIA_TYPE,
    BodyTooLarge,
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    Unauthenticated,
    UnsupportedMediaType,
    problem,
)
from usercore.openapi import Document
from usercore.operations import Access, Rule, handlers_of, rule_of
from usercore.problems import api_error
from usercore.ratelimit import Limit
from usercore.settings import Network
from usercore.telemetry import Metrics, Trace

REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,64}")

ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
NO_STORE = (b"cache-control", b"no-store")
"""Nearly every answer is about a person; a handler that wants caching says so."""

# Sent twice, the two may be read differently by us and by a proxy.
SINGLE_HEADERS = (b"authorization", b"content-type", b"content-length", b"idempotency-key", b"if-match", b"host")

log = telemetry.logger(__name__)


class Edge:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        app: Litestar,
        *,
        authenticator: Authenticator,
        metrics: Metrics,
        trusted_proxies: Sequence[Network],
        document: Document,
        limits: Mapping[str, Limit],
        values: Mapping[str, object],
    ) -> None:
        """`values` are what the app's dependencies give: the same to every request."""
        self.litestar = app
        self.document = document
        self._authenticator = authenticator
        self._metrics = metrics
        self._log = AccessLog(metrics)
        self._proxies = Proxies(trusted_proxies)
        self._limits = limits
        # Handlers are not hashable; they live as long as the app, so their id names them.
        self._rules = {id(handler): rule_of(route, handler) for route, handler in handlers_of(app)}
        self._direct = {id(rule.handler): direct(rule, values) for rule in self._rules.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # The server keeps its own scope, in which HEAD stays HEAD.
            await self._http(cast("dict[str, Any]", {**scope}), receive, send)
        elif cast("str", scope["type"]) == "lifespan":
            try:
                await self.litestar(scope, receive, send)
            except Exception as exception:
                # The server would print the message with the traceback.
                log.error("lifespan_failed", exception)
                raise
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        client: tuple[str, int] | None = scope.get("client")
        call = scope[CALL] = Call(scope["method"], scope["headers"], client[0] if client else None, self._proxies)
        parent, trace = _identify(call)
        if call.method == "HEAD":
            scope["method"] = "GET"
        head = call.method == "HEAD"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = _headers(call, message["headers"])
            elif head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        ids = logs.context.set(logs.LogContext(call.request_id, trace.trace_id))
        current = telemetry.current.set(trace)
        try:
            if telemetry.tracing():
                await self._traced(scope, receive, answer, call, parent)
            else:
                await self._answer(scope, receive, answer, call)
        finally:
            self._log.ended(call, time.perf_counter() - started)
            telemetry.current.reset(current)
            logs.context.reset(ids)

    async def _traced(
        self, scope: dict[str, Any], receive: Receive, send: Send, call: Call, parent: Trace | None
    ) -> None:
        with telemetry.server_span(call.method, parent) as span:
            trace = call.trace = telemetry.identify(span)
            telemetry.current.set(trace)
            logs.context.set(logs.LogContext(call.request_id, trace.trace_id))
            await self._answer(scope, receive, send, call)
            span.update_name(f"{label(call.method)} {call.route}")
            span.set_attributes({"http.route": call.route, "http.response.status_code": call.status})
            if call.status >= 500:
                span.set_status(Status(StatusCode.ERROR))

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send, call: Call) -> None:
        try:
            try:
                handle, rule = self._route(scope, call)
                _check_headers(call, rule)
                access = rule.access
                if access is not Access.NONE and access is not Access.OPS:
                    await self._authorise(call, rule)
                if rule.limit is not None and call.principal is not None:
                    await self._count(call, rule.limit, call.principal)
                if rule.media_types is not None:
                    _check_content_type(call, rule.media_types)
                call.rule = rule
                direct = self._direct[id(rule.handler)]
                if direct is None:
                    await handle(cast("Scope", scope), receive, send)
                else:
                    answer = await direct(EdgeRequest(cast("Scope", scope), receive, send))
                    await answer(cast("Scope", scope), receive, send)
            except ClientGone:
                call.status = CANCELLED
            except Exception as exception:
                if call.status:
                    raise
                await self._refuse(exception, send, call)
        except Exception as exception:
            # A part was sent already: the server closes a connection whose answer stays incomplete.
            log.error("answer_not_completed", exception, route=call.route)

    def _route(self, scope: dict[str, Any], call: Call) -> tuple[ASGIApp, Rule]:
        """The route's application and its rule, by Litestar's router; raises its 404 and 405.

        What Litestar does around this (its own routing, an exception handler of its own) would cost 10 µs a request,
        and we do it anyway. The scope gets what its ASGIRouter would put there.
        """
        path: str = scope["path"]
        if root_path := scope.get("root_path", ""):
            path = path.split(root_path, maxsplit=1)[-1]
        if "//" in path or path[-1:] == "/":
            path = normalize_path(path)
        handle, handler, scope["path"], scope["path_params"], call.route = self.litestar.asgi_router.handle_routing(
            path=path, method=scope["method"]
        )
        scope["path_template"] = call.route
        scope["route_handler"] = handler
        scope["app"] = scope["litestar_app"] = self.litestar
        scope.setdefault("state", {})
        return handle, self._rules[id(handler)]

    async def _authorise(self, call: Call, rule: Rule) -> None:
        """Deny by default: a route that declares no access is nobody's."""
        access = rule.access
        if access is None:
            if rule.automatic:
                raise MethodNotAllowed(headers={"Allow": rule.allow})
            log.error("route_without_access", route=call.route)
            raise Forbidden()
        authorization = call.headers.get(b"authorization", b"")
        token = authorization[7:].strip(b" ").decode("latin-1")
        if not token or authorization[:7].lower() != b"bearer ":
            raise Unauthenticated()
        caller = self._authenticator.remembered(token) or await self._authenticator.authenticate(token)
        call.principal = caller
        if not access.admits(caller):
            raise Forbidden()

    async def _count(self, call: Call, limit: str, caller: Principal) -> None:
        """Count an attempt, before anything is made of its body. Raises RateLimited when there were too many."""
        verdict = await self._limits[limit](str(caller.sub))
        if not verdict.allowed:
            self._metrics.rate_limited(call.route)
            raise ratelimit.refusal(verdict)
        call.add_headers(ratelimit.headers(verdict))

    async def _refuse(self, exception: Exception, send: Send, call: Call) -> None:
        error = api_error(exception)
        if isinstance(error, InternalError):
            log.error("request_failed", exception, route=call.route, method=label(call.method))
        elif error.status >= 500:
            log.warning("request_unavailable", exception, route=call.route, code=error.code)
        call.code = error.code
        body = problem(error, call.trace.trace_id if call.trace is not None else "")
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
        headers += [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _identify(call: Call) -> tuple[Trace | None, Trace]:
    """The caller's trace, if it named a valid one, and ours; sets both ids of the call."""
    named = call.headers.get(b"traceparent")
    parent = telemetry.parse_traceparent(named.decode("latin-1")) if named is not None else None
    trace = telemetry.new_trace() if parent is None else Trace(parent.trace_id, telemetry.new_span_id(), parent.flags)
    call.trace = trace
    given = call.headers.get(b"x-request-id", b"").decode("latin-1")
    call.request_id = given if REQUEST_ID.fullmatch(given) else trace.trace_id if parent is None else uuid4().hex
    return parent, trace


def _check_headers(call: Call, rule: Rule) -> None:
    headers = call.headers
    if len(headers) != len(call.raw_headers):
        names = [name for name, _ in call.raw_headers]
        if any(names.count(name) > 1 for name in SINGLE_HEADERS):
            raise InvalidRequest("A header that may be sent once was sent twice.")
    length = headers.get(b"content-length")
    if length is not None and rule.body_limit is not None:
        if not length.isdigit():
            raise InvalidRequest("Content-Length is not a number.")
        if len(length) > 15 or int(length) > rule.body_limit:
            raise BodyTooLarge(f"The body may have {rule.body_limit} bytes.")


def _check_content_type(call: Call, media_types: tuple[str, ...]) -> None:
    essence, _, parameters = call.headers.get(b"content-type", b"").decode("latin-1").lower().partition(";")
    charset = re.search(r'charset\s*=\s*"?([^\s;"]*)', parameters)
    if (
        essence.strip() not in media_types
        or (charset is not None and charset[1] not in ("utf-8", "utf8"))
        or call.headers.get(b"content-encoding", b"identity").lower() != b"identity"
    ):
        raise UnsupportedMediaType(f"Send {' or '.join(media_types)}, in UTF-8 and not compressed.")


def _headers(call: Call, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    headers = [*given, (b"x-request-id", call.request_id.encode()), *ALWAYS, *call.response_headers]
    if all(name != b"cache-control" for name, _ in headers):
        headers.append(NO_STORE)
    if call.head_handled:
        # The handler did less than for GET, so it cannot know how long that body would be.
        headers = [item for item in headers if item[0] != b"content-length"]
    return headers
