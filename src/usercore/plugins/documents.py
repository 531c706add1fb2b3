"""Fetching a document of a vendor: from listed hosts only, of a kind that we know, whole, small and soon."""

import asyncio
import errno
import hashlib
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from usercore.db import outside_transaction
from usercore.errors import UsercoreError

Refusal = Literal[
    "wrong_host",  # a host that is not listed, or no address that we would ask
    "private_address",  # the name stands for an address that no vendor has
    "expired",  # the vendor does not know the address any more
    "redirect",
    "refused",  # with another status
    "unreachable",
    "slow",
    "truncated",
    "too_large",
    "wrong_content",
]

EXPIRED = frozenset((400, 401, 403, 404, 410))
"""What stores say of a signed address that is too old: S3 says 403, GCS 400."""
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

# The media type by what the bytes begin with: both have to say the same.
_STARTS: Mapping[str, Callable[[bytes], bool]] = {
    "image/jpeg": lambda start: start.startswith(b"\xff\xd8\xff"),
    "image/png": lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"),
    "application/pdf": lambda start: start.startswith(b"%PDF-"),
    "video/mp4": lambda start: start[4:8] == b"ftyp",
}
_START_BYTES = 8


class DocumentRefused(UsercoreError):
    """The document was not had; the reason is one of a closed set and says nothing of the document."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason


class DocumentLimits(Struct, frozen=True, kw_only=True):
    """What a document may cost us. For tests it is less."""

    connect_s: float = 2.0
    total_s: float = 30.0
    largest: int = 10 * 1024 * 1024
    """Bytes."""


class Fetched(Struct, frozen=True):
    """A document that was read to its end: SHA-256 in hex, size in bytes."""

    hash: str
    size: int
    media_type: str


class Documents:
    """The way to documents over a session of `addresses.open_session`, which the caller closes.

    Outside production loopback is a listed host, and http is allowed: the sandboxes live there.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        hosts: tuple[str, ...],
        *,
        production: bool,
        limits: DocumentLimits | None = None,
    ) -> None:
        self._session = session
        self._hosts = frozenset(host.lower() for host in hosts)
        self._production = production
        self._limits = limits or DocumentLimits()

    async def fetch(self, url: str, take: Callable[[bytes], object]) -> Fetched:
        """Give the document's bytes to `take` as they come. Raises DocumentRefused: then what it took is worthless."""
        outside_transaction()
        if not self._may_ask(url):
            raise DocumentRefused("wrong_host")
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._exchange(url, take)
        except aiohttp.ClientConnectorError as error:
            # With several addresses aiohttp has an OSError of its own, with the number that all of them have.
            forbidden = error.os_error.errno == errno.EACCES
            raise DocumentRefused("private_address" if forbidden else "unreachable") from None
        except aiohttp.ConnectionTimeoutError:
            raise DocumentRefused("unreachable") from None
        except TimeoutError:
            raise DocumentRefused("slow") from None
        except aiohttp.ClientPayloadError:
            raise DocumentRefused("truncated") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise DocumentRefused("wrong_host") from None
        except (aiohttp.ClientError, OSError):
            raise DocumentRefused("unreachable") from None

    def _may_ask(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        if "@" in parts.netloc:
            return False
        if self._production:
            return parts.scheme == "https" and port in (None, 443) and host in self._hosts
        return parts.scheme in ("https", "http") and (host in self._hosts or host in LOOPBACK)

    async def _exchange(self, url: str, take: Callable[[bytes], object]) -> Fetched:
        async with self._session.get(
            url,
            # What is packed could unpack to anything, and pictures gain nothing by it.
            headers={"accept-encoding": "identity"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
        ) as answer:
            media_type = self._checked(answer)
            digest, size, start = hashlib.sha256(), 0, b""
            async for data in answer.content.iter_any():
                size += len(data)
                if size > self._limits.largest:
                    answer.close()
                    raise DocumentRefused("too_large")
                if len(start) < _START_BYTES:
                    start += data[:_START_BYTES]
                digest.update(data)
                take(data)
        if not _STARTS[media_type](start):
            raise DocumentRefused("wrong_content")
        return Fetched(digest.hexdigest(), size, media_type)

    def _checked(self, answer: aiohttp.ClientResponse) -> str:
        """The media type of an answer that is worth reading."""
        if answer.status in EXPIRED:
            raise DocumentRefused("expired")
        if 300 <= answer.status < 400:
            # The next host would not be one that we know.
            raise DocumentRefused("redirect")
        if answer.status != 200:
            raise DocumentRefused("refused")
        if answer.content_type not in _STARTS or answer.headers.get("content-encoding", "identity") != "identity":
            raise DocumentRefused("wrong_content")
        if answer.content_length is None and answer.headers.get("transfer-encoding", "").lower() != "chunked":
            # It ends when the connection does: whether that was the end nobody can tell.
            raise DocumentRefused("truncated")
        if answer.content_length is not None and answer.content_length > self._limits.largest:
            raise DocumentRefused("too_large")
        return answer.content_type
