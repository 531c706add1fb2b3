"""Who is calling: bearer tokens (RFC 7519) verified with keys from a JWKS URL or a file of public keys."""

import base64
import hashlib
import time
from typing import cast
from uuid import UUID

import jwt
import msgspec
from msgspec import Struct

from usercore.errors import Unauthenticated
from usercore.jwks import Algorithm, FileKeys, JwksKeys, KeySource
from usercore.logs import logger
from usercore.settings import Settings

SKEW_S = 60.0
LONGEST_TOKEN = 8192
"""Characters; a header line of this size is also where servers stop reading."""
CACHED_TOKENS = 20_000
"""Verified tokens remembered, about 0.5 KiB each."""
KEYS_PER_TOKEN = 4
"""Keys tried for a token that names none."""

log = logger(__name__)


class Principal(Struct, frozen=True):
    """The caller, as its token says. `sub` is the person or the service account, `client_id` the calling service."""

    sub: UUID
    scopes: frozenset[str] = frozenset()
    client_id: str | None = None
    email: str | None = None


class _Header(Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Claims(Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: int | float
    sub: UUID
    nbf: int | float | None = None
    iat: int | float | None = None
    scope: str = ""
    client_id: str | None = None
    email: str | None = None


class _Verified(Struct, frozen=True):
    principal: Principal
    expires_at: float


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)
_jws = jwt.PyJWS(algorithms=["RS256", "ES256", "EdDSA"])
_algorithms: dict[str, Algorithm] = {"RS256": "RS256", "ES256": "ES256", "EdDSA": "EdDSA"}


class Authenticator:
    """Verifies tokens and remembers the verified ones by their SHA-256 until they expire or the keys change."""

    def __init__(self, *, issuer: str, audience: str, keys: KeySource) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._verified: dict[bytes, _Verified] = {}
        self._generation = keys.generation

    @classmethod
    def from_settings(cls, settings: Settings) -> "Authenticator":
        if settings.jwt_jwks_url is not None:
            keys: KeySource = JwksKeys(settings.jwt_jwks_url)
        else:
            assert settings.jwt_public_key_file is not None
            keys = FileKeys(settings.jwt_public_key_file)
        return cls(issuer=settings.jwt_issuer, audience=settings.jwt_audience, keys=keys)

    async def close(self) -> None:
        await self._keys.close()

    def remembered(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and is still good, without waiting for anything."""
        self._keys.look()
        if self._generation != self._keys.generation:
            self._verified.clear()
            self._generation = self._keys.generation
        found = self._verified.get(_digest(token))
        return found.principal if found is not None and found.expires_at > time.time() else None

    async def authenticate(self, token: str) -> Principal:
        """Raises Unauthenticated for anything but a good token, ServiceUnavailable while there is no key to tell."""
        principal = self.remembered(token)
        if principal is not None:
            return principal
        generation = self._generation
        try:
            claims = _claims.decode(await self._payload(token))
        except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError):
            raise _refused("malformed") from None
        reason = self._fault(claims, time.time())
        if reason is not None:
            raise _refused(reason)
        principal = Principal(claims.sub, frozenset(claims.scope.split()), claims.client_id, claims.email)
        if generation == self._keys.generation:
            if len(self._verified) >= CACHED_TOKENS:
                del self._verified[next(iter(self._verified))]
            self._verified[_digest(token)] = _Verified(principal, claims.exp + SKEW_S)
        return principal

    async def _payload(self, token: str) -> bytes:
        """The payload, once one of our keys verified the signature."""
        if len(token) > LONGEST_TOKEN:
            raise _refused("too_long")
        header = _header.decode(_base64url(token.partition(".")[0]))
        algorithm = _algorithms.get(header.alg)
        if algorithm is None:
            raise _refused("algorithm")
        if header.crit is not msgspec.UNSET:
            raise _refused("critical_extension")
        keys = await self._keys.keys_for(header.kid, algorithm)
        if not keys:
            raise _refused("unknown_key")
        for key in keys[:KEYS_PER_TOKEN]:
            try:
                # The algorithm is the key's, so a token cannot choose how it is verified.
                return cast("bytes", _jws.decode(token, key.public, algorithms=[key.algorithm]))
            except jwt.InvalidSignatureError:
                continue
        raise _refused("signature")

    def _fault(self, claims: _Claims, now: float) -> str | None:
        if claims.iss != self._issuer:
            return "issuer"
        if claims.aud != self._audience and (isinstance(claims.aud, str) or self._audience not in claims.aud):
            return "audience"
        if claims.exp + SKEW_S <= now:
            return "expired"
        if claims.nbf is not None and claims.nbf - SKEW_S > now:
            return "not_yet_valid"
        if claims.iat is not None and claims.iat - SKEW_S > now:
            return "issued_in_the_future"
        return None


def _base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _digest(token: str) -> bytes:
    # Surrogates cannot come from a header (latin-1), but a test may try.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _refused(reason: str) -> Unauthenticated:
    log.info("token_refused", reason=reason)
    return Unauthenticated(headers={"WWW-Authenticate": 'Bearer realm="usercore", error="invalid_token"'})
