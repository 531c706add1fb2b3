"""The public keys that verify tokens: from a JWKS URL (RFC 7517), or from a PEM file."""

import asyncio
import contextvars
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from usercore.db import outside_transaction
from usercore.errors import ServiceUnavailable
from usercore.logs import logger

Algorithm = Literal["RS256", "ES256", "EdDSA"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

SMALLEST_RSA = 2048
"""Bits (NIST SP 800-131A)."""

JWKS_MAX_AGE_S = 300.0
"""A key that left the JWKS is refused after this long."""
JWKS_PAUSE_S = 5.0
"""Between two fetches, whatever key ids the tokens name."""
JWKS_FIRST_PAUSE_S = 1.0
"""The same while we have no keys at all."""
JWKS_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=2)
JWKS_LARGEST = 256 * 1024
FILE_CHECK_S = 1.0
"""Between two looks at the file's date."""

log = logger(__name__)


class Key(Struct, frozen=True):
    """A public key that verifies one algorithm. `kid` None fits a token of any key id."""

    kid: str | None
    algorithm: Algorithm
    public: PublicKey


class KeySource(Protocol):
    """Where keys come from. `generation` changes when they do; `look` is called for each token and must be cheap."""

    generation: int

    def look(self) -> None: ...

    async def keys_for(self, kid: str | None, algorithm: Algorithm) -> Sequence[Key]: ...

    async def close(self) -> None: ...


class FileKeys:
    """Public keys from a PEM file, one block a key. The file is read again when it changes; a bad one is ignored."""

    def __init__(self, file: Path) -> None:
        self.generation = 0
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[Key] = []
        self._next_look = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + FILE_CHECK_S
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            keys = read_pem(self._file.read_bytes())
        except (OSError, ValueError) as error:
            log.error("jwt_key_file_unreadable", error)
            return
        self._stamp = stamp
        self._keys = keys
        self.generation += 1

    async def keys_for(self, kid: str | None, algorithm: Algorithm) -> Sequence[Key]:
        if not self._keys:
            raise ServiceUnavailable()
        return [key for key in self._keys if key.algorithm == algorithm]

    async def close(self) -> None:
        return None


class JwksKeys:
    """Keys from a JWKS URL (RFC 7517): refreshed behind the requests, kept while the URL does not answer."""

    def __init__(self, url: str) -> None:
        self.generation = 0
        self._url = url
        self._keys: list[Key] = []
        self._content: bytes | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._earliest_fetch = 0.0
        self._stale_at = 0.0

    def look(self) -> None:
        if self._keys and time.monotonic() >= self._stale_at:
            self._fetch()

    async def keys_for(self, kid: str | None, algorithm: Algorithm) -> Sequence[Key]:
        keys = self._matching(kid, algorithm)
        if not keys and (fetching := self._fetch()) is not None:
            # One fetch for all who wait; a caller that goes away does not cancel it.
            await asyncio.wait([fetching])
            keys = self._matching(kid, algorithm)
        if not self._keys:
            raise ServiceUnavailable()
        return keys

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        if self._session is not None:
            await self._session.close()

    def _matching(self, kid: str | None, algorithm: Algorithm) -> list[Key]:
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
        ]

    def _fetch(self) -> asyncio.Task[None] | None:
        """The fetch that runs, a new one, or None when the last one is too recent."""
        if self._fetching is not None:
            return self._fetching
        now = time.monotonic()
        if now < self._earliest_fetch:
            return None
        self._earliest_fetch = now + (JWKS_PAUSE_S if self._keys else JWKS_FIRST_PAUSE_S)
        # A context of its own: the fetch belongs to no request, and to no transaction.
        self._fetching = asyncio.get_running_loop().create_task(self._refresh(), context=contextvars.Context())
        self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("jwks_unavailable", error)

    async def _refresh(self) -> None:
        outside_transaction()
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=JWKS_TIMEOUT)
        async with self._session.get(self._url, allow_redirects=False) as response:
            content = await response.content.read(JWKS_LARGEST + 1)
            while len(content) <= JWKS_LARGEST and not response.content.at_eof():
                content += await response.content.read(JWKS_LARGEST + 1 - len(content))
            if response.status != 200 or len(content) > JWKS_LARGEST:
                raise ValueError("not a key set")
        keys = read_jwks(content)
        if not keys:
            # An empty answer is an accident, not the end of all keys.
            raise ValueError("no usable keys")
        self._stale_at = time.monotonic() + JWKS_MAX_AGE_S
        if content != self._content:
            self._content = content
            self._keys = keys
            self.generation += 1
            log.info("jwks_loaded", count=len(keys))


def read_pem(content: bytes) -> list[Key]:
    """The keys of the file's PUBLIC KEY blocks. Raises ValueError for none, and for one that we do not verify with."""
    blocks = re.findall(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", content, re.DOTALL)
    keys: list[Key] = []
    for block in blocks:
        public = load_pem_public_key(block)
        algorithm = _algorithm_of(public)
        if algorithm is None:
            raise ValueError("not an RSA (2048 bits or more), P-256 or Ed25519 key")
        keys.append(Key(None, algorithm, cast("PublicKey", public)))
    if not keys:
        raise ValueError("no public key")
    return keys


def read_jwks(content: bytes) -> list[Key]:
    """The keys of a JWKS that we verify with: encryption keys, symmetric ones and other curves are skipped."""
    document: object = msgspec.json.decode(content)
    entries: object = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a key set")
    return [key for entry in cast("Iterable[object]", entries) if (key := _jwk(entry)) is not None]


def _jwk(entry: object) -> Key | None:
    if not isinstance(entry, dict):
        return None
    members = cast("dict[str, object]", entry)
    kid = members.get("kid")
    operations = members.get("key_ops")
    if (
        members.get("kty") not in ("RSA", "EC", "OKP")
        or members.get("use", "sig") != "sig"
        or (operations is not None and (not isinstance(operations, list) or "verify" not in operations))
        or not isinstance(kid, str | None)
        # Somebody published a private key: nothing signed with it can be trusted.
        or "d" in members
    ):
        return None
    try:
        public = cast("object", jwt.PyJWK(members).key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithm = _algorithm_of(public)
    if algorithm is None or members.get("alg", algorithm) != algorithm:
        return None
    return Key(kid, algorithm, cast("PublicKey", public))


def _algorithm_of(public: object) -> Algorithm | None:
    """The one algorithm for which a key is used here."""
    if isinstance(public, RSAPublicKey):
        return "RS256" if public.key_size >= SMALLEST_RSA else None
    if isinstance(public, EllipticCurvePublicKey):
        return "ES256" if isinstance(public.curve, SECP256R1) else None
    return "EdDSA" if isinstance(public, Ed25519PublicKey) else None
