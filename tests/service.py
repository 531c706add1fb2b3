"""Fixtures of the running API: a real server on real backing services, and a client of it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import jwt
import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.databases import DatabaseUrls
from tests.servers import Redis
from tests.waiting import eventually
from usercore import app
from usercore.pii.kms import local
from usercore.server import make_server
from usercore.settings import Settings, load
from usercore.worker import Parts

ISSUER = "https://auth.test"
AUDIENCE = "usercore"


class Signer:
    """Plays the Auth Service."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.public_file = folder / "jwt-public.pem"
        self.public_file.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(self, sub: UUID, *, scope: str = "", ttl: int = 3600, **claims: object) -> str:
        now = int(time.time())
        standard = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(sub), "iat": now - 1, "exp": now + ttl, "scope": scope}
        return jwt.encode({**standard, **claims}, self.key, "ES256")


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        return self.json()["code"]


class Client:
    """An end user of the API, or a service when given a scope."""

    def __init__(self, http: aiohttp.ClientSession, base: str, signer: Signer) -> None:
        self.http = http
        self.base = base
        self.signer = signer

    async def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if json is not None:
            body = msgspec.json.encode(json)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.http.request(method, self.base + path, data=body, headers=sent) as response:
            return Reply(response.status, response.headers, await response.read())

    def user(self, email: str | None = "asha@example.in", sub: UUID | None = None, **claims: Any) -> "Person":
        """`claims` besides those of a person: `scope` and `client_id` make a service of it."""
        return Person(self, sub or uuid4(), email, **claims)


class Person:
    """One end user with a token of their own."""

    def __init__(self, client: Client, sub: UUID, email: str | None, **claims: Any) -> None:
        self.client = client
        self.id = sub
        known: dict[str, Any] = {} if email is None else {"email": email}
        self.token = client.signer.token(sub, **known, **claims)

    async def send(self, method: str, path: str, **kwargs: Any) -> Reply:
        return await self.client.send(method, path, token=self.token, **kwargs)

    async def get(self, path: str = "/v1/me", **kwargs: Any) -> Reply:
        return await self.send("GET", path, **kwargs)

    async def patch(self, json: object, **kwargs: Any) -> Reply:
        return await self.send("PATCH", "/v1/me", json=json, **kwargs)


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("auth"))


@pytest.fixture
def environ(database: DatabaseUrls, redis_server: Redis, signer: Signer, tmp_path: Path) -> dict[str, str]:
    """The environment of a service under test; Kafka is not there unless a test brings it."""
    local.create(tmp_path / "kms.json")
    return {
        "USERCORE_ENV": "dev",
        "POSTGRES_URL": database.app,
        "POSTGRES_OWNER_URL": database.owner,
        "REDIS_URL": redis_server.url,
        "KAFKA_BROKERS": "127.0.0.1:9",
        "PII_ENCRYPTION_KEY_ID": f"local://{tmp_path / 'kms.json'}",
        "JWT_PUBLIC_KEY_FILE": str(signer.public_file),
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "PROFILE_PATCH_LIMIT_PER_MINUTE": "1000",
        "PORT": "0",
        "ARTIFACT_STORE_URL": (tmp_path / "artifacts").as_uri(),
    }


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return load(environ)


@pytest_asyncio.fixture
async def parts(settings: Settings) -> AsyncGenerator[Parts]:
    async with app.opened(settings) as parts:
        yield parts


@asynccontextmanager
async def client_of(parts: Parts, signer: Signer) -> AsyncGenerator[Client]:
    """A client of a real server in this process."""
    async with (
        app.api(parts) as (edge, _),
        listening(edge) as base,
        aiohttp.ClientSession() as http,
    ):
        yield Client(http, base, signer)


@pytest_asyncio.fixture
async def client(parts: Parts, signer: Signer) -> AsyncGenerator[Client]:
    async with client_of(parts, signer) as client:
        yield client


class listening:
    """Serves an ASGI application with uvicorn; the value is its base URL."""

    def __init__(self, edge: object, port: int = 0) -> None:
        self._server = make_server(edge, "127.0.0.1", port)

    async def __aenter__(self) -> str:
        self._serving = asyncio.create_task(self._server.serve())
        await eventually(self._started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def _started(self) -> bool:
        return self._server.started

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving


__all__ = ["Client", "Person", "Reply", "Signer"]
