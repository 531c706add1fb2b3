"""The sealed field: `Sealed` and `Plain`, the wire format and its padding.

format(1) = 1 | algorithm(1) = 1, AES-256-GCM | key version(2) | nonce(12) | ciphertext | tag(16); integers big endian.
Inside, before padding with zeros to a bucket: length(4) | value in UTF-8.
"""

import os
from typing import NewType

from usercore.errors import OpenFailed
from usercore.pii.cipher import NONCE_BYTES, TAG_BYTES, Cipher

Sealed = NewType("Sealed", bytes)

HEADER_BYTES = 4
SMALLEST_BUCKET = 64  # PAN, dates, phones, digits and nearly every name, in any script: all of one length
LARGEST_DOUBLING = 4096  # buckets double up to here and grow by as much from here on
_START = HEADER_BYTES + NONCE_BYTES
_PREFIX = b"\x01\x01"
_LENGTH_BYTES = 4
SMALLEST_SEALED = _START + SMALLEST_BUCKET + TAG_BYTES


class Plain(str):
    """An opened value. Its repr is redacted, and msgspec refuses to encode it: `reveal` says that it is meant."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Plain(…)"

    def reveal(self) -> str:
        return str.__str__(self)


def header(key_version: int) -> bytes:
    return _PREFIX + key_version.to_bytes(2, "big")


def key_version(sealed: bytes) -> int:
    """Which key opens it. Raises OpenFailed: unknown_format, or corrupt when it is too short to be anything."""
    if len(sealed) < SMALLEST_SEALED:
        raise OpenFailed("corrupt")
    if sealed[:2] != _PREFIX:
        raise OpenFailed("unknown_format")
    return int.from_bytes(sealed[2:HEADER_BYTES], "big")


def seal(cipher: Cipher, head: bytes, aad: bytes, value: str) -> Sealed:
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(head + nonce + cipher.seal(nonce, pad(value.encode()), aad))


def unseal(cipher: Cipher, aad: bytes, sealed: bytes) -> str:
    """Raises OpenFailed, also for what `seal` does not write under a good tag."""
    padded = cipher.open(sealed[HEADER_BYTES:_START], sealed[_START:], aad)
    end = _LENGTH_BYTES + int.from_bytes(padded[:_LENGTH_BYTES], "big")
    if end > len(padded):
        raise OpenFailed("unknown_format")
    try:
        return padded[_LENGTH_BYTES:end].decode()
    except UnicodeDecodeError:
        raise OpenFailed("unknown_format") from None


def bucket(length: int) -> int:
    """The padded size of a value of so many bytes, its length prefix included."""
    needed = length + _LENGTH_BYTES
    if needed <= SMALLEST_BUCKET:
        return SMALLEST_BUCKET
    if needed <= LARGEST_DOUBLING:
        return 1 << (needed - 1).bit_length()
    return -(-needed // LARGEST_DOUBLING) * LARGEST_DOUBLING


def pad(value: bytes) -> bytes:
    return (len(value).to_bytes(_LENGTH_BYTES, "big") + value).ljust(bucket(len(value)), b"\0")
