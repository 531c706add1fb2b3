"""A wrapped data key: what it is bound to, and how it is made and opened.

format(1) = 1 | algorithm(1) = 1 | nonce(12) | data key(32), sealed | tag(16) | commitment(32)
"""

import hmac
import os
from hashlib import sha256
from typing import get_args
from uuid import UUID

import msgspec

from usercore.errors import OpenFailed
from usercore.pii.cipher import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Cipher
from usercore.pii.classification import SERVICE, RetentionClass, length_prefixed

COMMITMENT_BYTES = 32  # whole SHA-256: finding one wrap for two keys must cost 2**128, not 2**64

_PREFIX = b"\x01\x01"
_NONCE_END = 2 + NONCE_BYTES
_SEALED_END = _NONCE_END + KEY_BYTES + TAG_BYTES
_BYTES = _SEALED_END + COMMITMENT_BYTES

_AAD_START: dict[RetentionClass, bytes] = {
    retention: length_prefixed(SERVICE, b"user_keys", retention.encode()) + b"\0\x10"
    for retention in get_args(RetentionClass)
}


class UserKeyRow(msgspec.Struct, frozen=True):
    """A row of user_keys: one data key of one user, wrapped by an epoch."""

    user_id: UUID
    retention_class: RetentionClass
    version: int
    epoch: int
    wrapped: bytes


def wrap(
    wrapping: Cipher, data_key: bytes, user_id: UUID, retention: RetentionClass, version: int, epoch: int
) -> UserKeyRow:
    nonce = os.urandom(NONCE_BYTES)
    aad = _aad(user_id, retention, version, epoch)
    wrapped = _PREFIX + nonce + wrapping.seal(nonce, data_key, aad) + _commitment(data_key, aad)
    return UserKeyRow(user_id, retention, version, epoch, wrapped)


def unwrap(wrapping: Cipher, user_id: UUID, row: UserKeyRow) -> bytes:
    """The data key. Raises OpenFailed: unknown_format, wrong_key or commitment."""
    wrapped = row.wrapped
    if wrapped[:2] != _PREFIX or len(wrapped) != _BYTES:
        raise OpenFailed("unknown_format")
    aad = _aad(user_id, row.retention_class, row.version, row.epoch)
    try:
        data_key = wrapping.open(wrapped[2:_NONCE_END], wrapped[_NONCE_END:_SEALED_END], aad)
    except OpenFailed:
        raise OpenFailed("wrong_key") from None
    # GCM alone lets a wrap be made that opens under two epochs, to two different keys.
    if not hmac.compare_digest(_commitment(data_key, aad), wrapped[_SEALED_END:]):
        raise OpenFailed("commitment")
    return data_key


def _aad(user_id: UUID, retention: RetentionClass, version: int, epoch: int) -> bytes:
    """Service, table, class, the user id's 16 bytes, version(2), epoch(4): each length-prefixed, as in a field."""
    numbers = b"\0\2" + version.to_bytes(2, "big") + b"\0\4" + epoch.to_bytes(4, "big")
    return _AAD_START[retention] + user_id.bytes + numbers


def _commitment(data_key: bytes, aad: bytes) -> bytes:
    """A hash commits to a random key and tells nothing of it; HMAC would say no more and takes four times as long."""
    return sha256(b"usercore key commitment" + data_key + aad).digest()
