"""A small application behind the real edge, and two ways to call it: over a socket, and as raw ASGI."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import uvicorn
from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, RawBody

from tests.edge.issuer import AUDIENCE, ISSUER, Issuer
from tests.waiting import turns
from usercore import web
from usercore.auth import Authenticator
from usercore.errors import AccountErased, AuditUnavailable, IdentityLocked, RateLimited, UserNotFound
from usercore.ratelimit import Limiter, RedisGuard, Verdict
from usercore.settings import Settings, load
from usercore.telemetry import Metrics
from usercore.web import Access, Edge, Readiness, operation

issuer = Issuer("ES256")
SECRET = "ABCPS1234K"
USER = UUID("01890000-0000-7000-8000-000000000009")


class Profile(msgspec.Struct, frozen=True):
    id: UUID
    first_name: str | None
    caller: UUID | None = None
    ip: str | None = None


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    city: str
    lines: list[Annotated[str, msgspec.Meta(max_length=20)]] = []


class ProfilePatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    first_name: str | msgspec.UnsetType | None = msgspec.UNSET
    subscribed: bool | msgspec.UnsetType = msgspec.UNSET
    tier: Literal["tier_1", "tier_2"] | msgspec.UnsetType = msgspec.UNSET
    age: Annotated[int, msgspec.Meta(ge=18)] | msgspec.UnsetType = msgspec.UNSET
    born: UUID | msgspec.UnsetType = msgspec.UNSET
    address: Address | msgspec.UnsetType | None = msgspec.UNSET


class Services:
    """What handlers get."""

    def __init__(self, limiter: Limiter | None = None) -> None:
        self.readiness = Readiness("ready", {"postgres": "ok"})
        self.opened = 0
        self.limiter = limiter


AnyRequest = Request[Any, Any, Any]
EXAMPLE = Profile(USER, "Asha")


@get(
    "/v1/me",
    **operation(Access.USER, "getMe", summary="Me", tag="me", errors=[AccountErased, RateLimited], response=EXAMPLE),
)
async def get_me(request: AnyRequest, services: NamedDependency[Services]) -> Response[Profile]:
    """The caller, and from where."""
    headers = {"etag": '"7"'}
    if web.header(request, "if-none-match") == '"7"':
        return Response(None, status_code=304, headers=headers)  # pyright: ignore[reportReturnType]
    if web.is_head(request):
        return Response(None, headers=headers)  # pyright: ignore[reportReturnType]
    services.opened += 1
    return Response(Profile(USER, "Asha", web.principal(request).sub, web.client_ip(request)), headers=headers)


@patch(
    "/v1/me",
    **operation(
        Access.USER,
        "patchMe",
        summary="Change me",
        tag="me",
        errors=[IdentityLocked],
        limit="profile_patch",
        request={"first_name": "Asha", "address": {"city": "Pune"}},
        response=EXAMPLE,
        media_types=web.MERGE_PATCH,
    ),
)
async def patch_me(request: AnyRequest, data: JSONBody[ProfilePatch], services: NamedDependency[Services]) -> Profile:
    if data.first_name == "locked":
        raise IdentityLocked()
    return Profile(USER, repr(data.first_name), ip=repr(data.address))


@get(
    "/internal/users/{user_id:uuid}",
    **operation(Access.INTERNAL, "getUser", summary="A user", tag="internal", errors=[UserNotFound], response=EXAMPLE),
)
async def get_user(
    request: AnyRequest,
    user_id: FromPath[UUID],
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    purpose: FromQuery[Literal["support", "compliance"] | None] = None,
) -> Profile:
    if purpose is not None:
        web.require_scope(request, "pii:read")
    return Profile(user_id, f"{limit} {purpose}", web.principal(request).sub)


@get("/internal/needs", **operation(Access.INTERNAL, "getNeeds", summary="Needs a parameter", tag="internal"))
async def get_needs(since: FromQuery[int]) -> Profile:
    return Profile(USER, str(since))


@post("/admin/erase", status_code=200, **operation(Access.ADMIN, "erase", summary="Erase", tag="admin"))
async def erase() -> Profile:
    return EXAMPLE


@post(
    "/v1/hook/{vendor:str}",
    status_code=200,
    request_max_body_size=1000,
    **operation(Access.NONE, "hook", summary="A webhook", tag="internal", media_types=web.ANY_MEDIA_TYPE),
)
async def hook(vendor: FromPath[str], body: RawBody) -> Profile:
    return Profile(USER, f"{vendor} {len(body)}")


@get("/undeclared")
async def undeclared() -> Profile:
    return EXAMPLE


@get("/fails/{how:str}", **operation(Access.NONE, "fail", summary="Fails", tag="internal"))
async def fail(how: FromPath[str]) -> Profile:
    if how == "audit":
        raise AuditUnavailable()
    if how == "render":
        return Profile(USER, object())  # pyright: ignore[reportArgumentType]
    raise ValueError(SECRET)


HANDLERS = [get_me, patch_me, get_user, get_needs, erase, hook, undeclared, fail]


def settings(folder: Path, **more: str) -> Settings:
    key = folder / "public.pem"
    key.write_bytes(issuer.pem)
    return load(
        {
            "USERCORE_ENV": "dev",
            "POSTGRES_URL": "postgresql://app:x@db/usercore",
            "REDIS_URL": "redis://cache",
            "KAFKA_BROKERS": "kafka:9092",
            "PII_ENCRYPTION_KEY_ID": "local://kms.json",
            "JWT_PUBLIC_KEY_FILE": str(key),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "TRUSTED_PROXIES": "10.0.0.0/8",
            **more,
        }
    )


class Site:
    """The application with what it was made of."""

    def __init__(self, folder: Path, *, redis: RedisGuard | None = None, **more: str) -> None:
        self.settings = settings(folder, **more)
        self.metrics = Metrics()
        self.services = Services(None if redis is None else Limiter(redis))
        self.authenticator = Authenticator.from_settings(self.settings)
        self.app = web.build(
            HANDLERS,
            settings=self.settings,
            authenticator=self.authenticator,
            ready=self.ready,
            metrics=self.metrics,
            dependencies={"services": Provide(lambda: self.services, sync_to_thread=False)},
            limits={"profile_patch": self.count},
        )

    async def ready(self) -> Readiness:
        return self.services.readiness

    async def count(self, subject: str) -> Verdict:
        if self.services.limiter is None:
            return Verdict("profile_patch", True, 3, 60, 3, 60)
        return await self.services.limiter.hit("profile_patch", subject, 3, 60)

    def ops(self) -> Edge:
        return web.build_ops(
            self.app, settings=self.settings, authenticator=self.authenticator, ready=self.ready, metrics=self.metrics
        )


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        return self.json()["code"]


async def call(
    app: Edge,
    method: str,
    path: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: bytes | list[bytes] = b"",
    query: str = "",
    peer: str = "127.0.0.1",
) -> Reply:
    """One request as raw ASGI, which can also be what no client sends; its log line is written when this returns."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
    if token is not None:
        pairs.append(("authorization", f"Bearer {token}"))
    chunks = body if isinstance(body, list) else [body]
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(dict(message))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": (peer, 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    untouched = {**scope}
    await app(scope, receive, send)  # pyright: ignore[reportArgumentType]
    assert scope == untouched
    await turns(1)
    if not sent:
        return Reply(0, {}, b"")
    start, *rest = sent
    assert [message["type"] for message in sent] == ["http.response.start"] + ["http.response.body"] * len(rest)
    names = [name.decode() for name, _ in start["headers"]]
    assert len(names) == len(set(names)), names
    return Reply(
        start["status"],
        {name.decode(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
    )


@asynccontextmanager
async def served(app: Edge) -> AsyncGenerator[str, None]:
    """The address of a real server that runs the application."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, server_header=False, proxy_headers=False)  # pyright: ignore[reportArgumentType]
        )
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
