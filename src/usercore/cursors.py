"""Page cursors: a position in a list, sealed so that a client can neither read nor change it."""

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

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
R = TypeVar("R")


class Position(msgspec.Struct, frozen=True):
    """Where a page ended, in a list that is ordered by a time and an id."""

    at: datetime
    id: UUID


OLDEST = Position(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
"""Before all, for lists that begin with the oldest."""
NEWEST = Position(datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))
"""After all, for lists that begin with the newest."""


def page(
    rows: Sequence[R], limit: int, position: Callable[[R], msgspec.Struct], keys: Sequence[bytes], *, context: bytes
) -> tuple[Sequence[R], str | None]:
    """The rows of a page, of which one more than it has was asked for; and the cursor of the next, if there is one."""
    if len(rows) <= limit:
        return rows, None
    rows = rows[:limit]
    return rows, seal(keys[0], position(rows[-1]), context=context)


def seal(key: bytes, payload: msgspec.Struct, *, context: bytes) -> str:
    """The payload as URL-safe text. `key` is 32 bytes; `context` names the list and whose it is."""
    nonce = os.urandom(NONCE)
    sealed = AESGCM(key).encrypt(nonce, msgspec.json.encode(payload), VERSION + context)
    return base64.urlsafe_b64encode(VERSION + nonce + sealed).rstrip(b"=").decode()


# The name is the pair of `seal`; callers write cursors.open(…).
def open(keys: Sequence[bytes], type: type[T], text: str, *, context: bytes) -> T:
    """The payload. Raises InvalidCursor when it was changed, sealed for another list or person, or is no cursor.

    One of the keys (keyring.token_keys) sealed it: who pages through a list while keys are rotated goes on.
    """
    if len(text) > LONGEST:
        raise InvalidCursor()
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        # base64 has several spellings of one value when its last bits are unused: only ours is a cursor.
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
            raise InvalidCursor()
        if raw[:1] != VERSION or len(raw) < len(VERSION) + NONCE + TAG:
            raise InvalidCursor()
        return msgspec.json.decode(_opened(keys, raw[1 : 1 + NONCE], raw[1 + NONCE :], VERSION + context), type=type)
    except (UnicodeEncodeError, binascii.Error, InvalidTag, msgspec.MsgspecError, ValueError):
        raise InvalidCursor() from None


def _opened(keys: Sequence[bytes], nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    for key in keys:
        with suppress(InvalidTag):
            return AESGCM(key).decrypt(nonce, sealed, aad)
    raise InvalidTag
