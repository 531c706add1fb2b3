"""The sealed stream: a document in chunks that open one after the other, each only in its place.

format(1) = 1 | algorithm(1) = 1, AES-256-GCM | salt(16), then for each chunk of 64 KiB, of which the last may be
shorter: ciphertext | tag(16). Each stream has a key of its own, HKDF of the document's key and the salt, so the chunk's
number is its nonce. The AAD has the document's id, the number and whether the chunk is the last one: a stream that was
cut off, reordered, or put together of two does not open.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterable
from uuid import UUID

from usercore.errors import OpenFailed
from usercore.pii.cipher import NONCE_BYTES, TAG_BYTES, Cipher, CipherFactory
from usercore.pii.classification import SERVICE, length_prefixed
from usercore.pii.keyring import derive

CHUNK = 64 * 1024
"""Bytes of plaintext: what a reader has to hold before the first byte of it is known to be good."""

_PREFIX = b"\x01\x01"
_SALT_BYTES = 16
_HEADER_BYTES = len(_PREFIX) + _SALT_BYTES
_NUMBER_BYTES = 4


class Sealing:
    """Seals one stream: `add` bytes as they come, `finish` once, and the result is in `sealed`."""

    __slots__ = ("_chunks", "_waiting", "sealed")

    def __init__(self, cipher: CipherFactory, key: bytes, document: UUID) -> None:
        salt = os.urandom(_SALT_BYTES)
        self._chunks = _Chunks(cipher, key, document, salt)
        self._waiting = bytearray()
        self.sealed = bytearray(_PREFIX + salt)

    def add(self, data: bytes) -> None:
        self._waiting += data
        # A whole chunk waits for the byte after it: it may be the last one.
        while len(self._waiting) > CHUNK:
            self.sealed += self._chunks.seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        self.sealed += self._chunks.seal(bytes(self._waiting), last=True)
        self._waiting.clear()


async def opened(
    cipher: CipherFactory, key: bytes, document: UUID, stream: AsyncIterable[bytes]
) -> AsyncGenerator[bytes]:
    """The plaintext of a sealed stream, chunk by chunk; what was given is good even if a later chunk is not.

    Raises OpenFailed for anything that is not the whole stream that was sealed.
    """
    waiting = bytearray()
    chunks: _Chunks | None = None
    async for data in stream:
        waiting += data
        if chunks is None and len(waiting) >= _HEADER_BYTES:
            if not waiting.startswith(_PREFIX):
                raise OpenFailed("unknown_format")
            chunks = _Chunks(cipher, key, document, bytes(waiting[len(_PREFIX) : _HEADER_BYTES]))
            del waiting[:_HEADER_BYTES]
        while chunks is not None and len(waiting) > CHUNK + TAG_BYTES:
            yield chunks.open(bytes(waiting[: CHUNK + TAG_BYTES]), last=False)
            del waiting[: CHUNK + TAG_BYTES]
    if chunks is None:
        raise OpenFailed("corrupt")
    yield chunks.open(bytes(waiting), last=True)


class _Chunks:
    """The cipher of one stream, and where in it we are."""

    __slots__ = ("_aad", "_cipher", "_number")

    def __init__(self, cipher: CipherFactory, key: bytes, document: UUID, salt: bytes) -> None:
        self._cipher: Cipher = cipher(derive(key, "stream", salt))
        self._aad = length_prefixed(SERVICE, b"stream", document.bytes)
        self._number = 0

    def seal(self, plaintext: bytes, *, last: bool) -> bytes:
        return self._cipher.seal(self._nonce(), plaintext, self._next(last=last))

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        return self._cipher.open(self._nonce(), sealed, self._next(last=last))

    def _nonce(self) -> bytes:
        return self._number.to_bytes(NONCE_BYTES, "big")

    def _next(self, *, last: bool) -> bytes:
        number = self._number
        self._number += 1
        return self._aad + length_prefixed(number.to_bytes(_NUMBER_BYTES, "big"), bytes([last]))
