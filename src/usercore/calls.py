"""One request as the edge knows it: its ids, its caller, where it comes from; and Litestar's Request on top of it."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.connection.base import empty_receive, empty_send
from litestar.datastructures import State
from litestar.types import Receive, Scope, Send

from usercore.answers import JsonAnswer
from usercore.auth import Principal
from usercore.errors import BodyTooLarge, Forbidden, MalformedBody
from usercore.operations import Rule
from usercore.problems import body_error
from usercore.settings import Network
from usercore.telemetry import Trace

CALL = "usercore.call"
"""Where the scope keeps the Call."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Call:
    """What is known about a request. Made for each one, so it has slots and computes late."""

    __slots__ = (
        "code",
        "head_handled",
        "headers",
        "method",
        "peer",
        "principal",
        "proxies",
        "raw_headers",
        "request_id",
        "response_headers",
        "route",
        "rule",
        "status",
        "trace",
    )

    def __init__(
        self,
        method: str,
        raw_headers: list[tuple[bytes, bytes]],
        peer: str | None,
        proxies: "Proxies",
    ) -> None:
        self.method = method
        self.raw_headers = raw_headers
        self.headers = dict(raw_headers)
        self.peer = peer
        self.proxies = proxies
        self.request_id = ""
        self.trace: Trace | None = None
        self.route = "unmatched"
        self.rule: Rule | None = None
        self.principal: Principal | None = None
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.head_handled = False
        self.status = 0
        self.code: str | None = None

    def add_headers(self, headers: Mapping[str, str]) -> None:
        self.response_headers += [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]


class Proxies:
    """Whose X-Forwarded-For is believed."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        # A handful of proxies send everything, and a client sends many requests.
        self._is_trusted = lru_cache(256)(self._lookup)
        self._canonical = lru_cache(4096)(_canonical)

    def client(self, peer: str | None, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The address nearest to us that is not a trusted proxy, in canonical form; None when there is none."""
        if not self._trusted:
            return self._canonical(peer)
        address = _address(peer)
        if address is None or not self._is_trusted(address):
            return None if address is None else str(address)
        hops = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed(hops.split(",")):
            earlier = _address(_without_port(hop.strip()))
            if earlier is None:
                # Whatever stands left of something unreadable was not written by a proxy of ours.
                break
            address = earlier
            if not self._is_trusted(address):
                break
        return str(address)

    def _lookup(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


class EdgeRequest(Request[Principal | None, None, State]):
    """Reads bodies strictly and once, and exists only for a handler that the edge let through."""

    __slots__ = ("_call",)

    def __init__(self, scope: Scope, receive: Receive = empty_receive, send: Send = empty_send) -> None:
        super().__init__(scope, receive, send)
        call: Call | None = cast("Mapping[str, Any]", scope).get(CALL)
        if call is None or call.rule is None or call.rule.handler is not scope.get("route_handler"):
            raise RuntimeError("a handler was reached past the edge")
        self._call = call

    async def body(self) -> bytes:
        """Raises BodyTooLarge while it arrives, MalformedBody when a handler needs one and there is none."""
        state = self._connection_state
        if isinstance(state.body, bytes):
            return state.body
        rule = cast("Rule", self._call.rule)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone()
            chunk = cast("Mapping[str, Any]", message).get("body", b"")
            size += len(chunk)
            if rule.body_limit is not None and size > rule.body_limit:
                raise BodyTooLarge(f"The body may have {rule.body_limit} bytes.")
            chunks.append(chunk)
            if not cast("Mapping[str, Any]", message).get("more_body", False):
                break
        self.is_connected = False
        body = state.body = b"".join(chunks)
        if not body and rule.body_required:
            raise MalformedBody()
        return body

    async def json(self) -> Any:
        """The body as the type of the handler's `data`.

        Litestar would parse to plain values and convert them leniently, so that "true" or 1 pass for a boolean; a
        Struct that is ready is passed through as it is.
        """
        rule = cast("Rule", self._call.rule)
        body = await self.body()
        if rule.decoder is None:
            raise RuntimeError("only handlers with `data` have a JSON body")
        try:
            return rule.decoder.decode(body)
        except msgspec.ValidationError as error:
            raise body_error(error, body) from None
        except (ValueError, RecursionError):
            raise MalformedBody() from None


Direct = Callable[["EdgeRequest"], Coroutine[Any, Any, JsonAnswer[Any]]]


def direct(rule: Rule, values: Mapping[str, object]) -> Direct | None:
    """A call of the rule's handler past Litestar, which takes 30 µs to find its arguments anew for each request.

    For an asynchronous handler that takes the request, its JSON body and `values`, and returns a JsonAnswer or what
    becomes one; None for any other.
    """
    signature = rule.handler.parsed_fn_signature
    names, returned = set(signature.parameters), signature.return_type
    foreign = returned.is_subclass_of(Response) and not returned.is_subclass_of(JsonAnswer)
    if rule.handler.has_sync_callable or foreign or "request" not in names or names - {"request", "data", *values}:
        return None
    call, status, decodes = rule.handler.fn, rule.handler.status_code, rule.decoder is not None
    given = {name: values[name] for name in names & values.keys()}

    async def answer(request: EdgeRequest) -> JsonAnswer[Any]:
        if decodes:
            found: object = await call(request=request, data=await request.json(), **given)
        else:
            found = await call(request=request, **given)
        return (
            cast("JsonAnswer[Any]", found) if isinstance(found, JsonAnswer) else JsonAnswer(found, status_code=status)
        )

    return answer


def call_of(request: Request[Any, Any, Any]) -> Call:
    return cast("Mapping[str, Any]", request.scope)[CALL]


def principal(request: Request[Any, Any, Any]) -> Principal:
    """The caller; for routes that need a token."""
    found = call_of(request).principal
    if found is None:
        raise RuntimeError("the route has no caller")
    return found


def require_scope(request: Request[Any, Any, Any], scope: str) -> None:
    """Raises Forbidden unless the token has the scope besides what the route asks for."""
    if scope not in principal(request).scopes:
        raise Forbidden()


def client_ip(request: Request[Any, Any, Any]) -> str | None:
    call = call_of(request)
    return call.proxies.client(call.peer, call.raw_headers)


def request_id(request: Request[Any, Any, Any]) -> str:
    return call_of(request).request_id


def is_head(request: Request[Any, Any, Any]) -> bool:
    """True when the body will be dropped: whoever asks may answer without one."""
    call = call_of(request)
    call.head_handled = call.method == "HEAD"
    return call.head_handled


def header(request: Request[Any, Any, Any], name: str) -> str | None:
    """A request header by its lower-case name, without building Litestar's mapping."""
    value = call_of(request).headers.get(name.encode())
    return None if value is None else value.decode("latin-1")


def raw_headers(request: Request[Any, Any, Any]) -> list[tuple[bytes, bytes]]:
    """Every header as it came, also those that came twice."""
    return call_of(request).raw_headers


def add_headers(request: Request[Any, Any, Any], headers: Mapping[str, str]) -> None:
    """Send these along, whatever becomes of the request."""
    call_of(request).add_headers(headers)


def _canonical(text: str | None) -> str | None:
    address = _address(text)
    return None if address is None else str(address)


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        # A zone (fe80::1%eth0) means nothing to anybody else.
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _without_port(text: str) -> str:
    if bracketed := re.fullmatch(r"\[([^\]]*)\](?::[0-9]+)?", text):
        return bracketed[1]
    return text.partition(":")[0] if text.count(":") == 1 else text
