"""A token issuer: keys of each kind, tokens good and bad, and a JWKS server that can be told to fail."""

import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://auth.test"
AUDIENCE = "usercore"
SUB = UUID("01890000-0000-7000-8000-000000000001")

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}


class Issuer:
    """Signs with one key."""

    def __init__(self, algorithm: str = "ES256", kid: str | None = None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private = MAKERS[algorithm]()

    @property
    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwk(self) -> dict[str, Any]:
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            members = RSAAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            members = ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            members = OKPAlgorithm.to_jwk(public, as_dict=True)
        return {**members, "use": "sig", "alg": self.algorithm, **({"kid": self.kid} if self.kid else {})}

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token but for what is given; a claim of None is left out."""
        return jwt.encode(
            payload(**claims),
            self.private,
            self.algorithm,
            headers={**({"kid": self.kid} if self.kid else {}), **(header or {})},
        )


def payload(**claims: Any) -> dict[str, Any]:
    now = int(time.time())
    full: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(SUB),
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        **claims,
    }
    return {name: value for name, value in full.items() if value is not None}


def raw_token(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token that no library would make."""
    parts = (msgspec.json.encode(header), msgspec.json.encode(claims), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class KeyServer:
    """Serves a JWKS over HTTP and counts the questions."""

    def __init__(self, *issuers: Issuer) -> None:
        self.keys = [issuer.jwk for issuer in issuers]
        self.status = 200
        self.body: bytes | None = None
        self.asked = 0
        app = web.Application()
        app.router.add_get("/jwks.json", self._answer)
        self._server = TestServer(app)

    async def start(self) -> str:
        await self._server.start_server()
        return str(self._server.make_url("/jwks.json"))

    async def stop(self) -> None:
        await self._server.close()

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        body = self.body if self.body is not None else msgspec.json.encode({"keys": self.keys})
        return web.Response(status=self.status, body=body, content_type="application/json")


def new_user() -> str:
    return str(uuid4())
