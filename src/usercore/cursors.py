"""Page cursors: a position in a list, sealed so that a client can neither read nor change it."""

import base64
import binascii
import os
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from usercore.errors import InvalidCursor

VERSION = b"\x01"
NONCE = 12
TAG = 16
LONGEST = 2048
"""Characters; ours are about a hundred."""

T = TypeVar("T", bound=msgspec.Struct)


def seal(key: bytes, payload: msgspec.Struct, *, context: bytes) -> str:
    """The payload as URL-safe text. `key` is 32 bytes (keyring.token_key); `context` names the list and whose it is."""
    nonce = os.urandom(NONCE)
    sealed = AESGCM(key).encrypt(nonce, msgspec.json.encode(payload), VERSION + context)
    return base64.urlsafe_b64encode(VERSION + nonce + sealed).rstrip(b"=").decode()


# The name is the pair of `seal`; callers write cursors.open(…).
def open(key: bytes, type: type[T], text: str, *, context: bytes) -> T:
    """The payload. Raises InvalidCursor when it was changed, sealed for another list or person, or is no cursor."""
    if len(text) > LONGEST:
        raise InvalidCursor()
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        # base64 has several spellings of one value when its last bits are unused: only ours is a cursor.
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
            raise InvalidCursor()
        if raw[:1] != VERSION or len(raw) < len(VERSION) + NONCE + TAG:
            raise InvalidCursor()
        plain = AESGCM(key).decrypt(raw[1 : 1 + NONCE], raw[1 + NONCE :], VERSION + context)
        return msgspec.json.decode(plain, type=type)
    except (UnicodeEncodeError, binascii.Error, InvalidTag, msgspec.MsgspecError, ValueError):
        raise InvalidCursor() from None
