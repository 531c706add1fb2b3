"""A vendor's message as it may be kept: without whole Aadhaar numbers; pure."""

import re
from typing import cast

import msgspec

from usercore.pii import aadhaar

_ID = re.compile(r"[0-9A-Fa-f-]{16,64}")
"""An id that is made of digits by chance: to change it would lose the message."""
_NUMBER_FIELDS = frozenset(("uid", "aadhaar", "aadhar", "aadhaarnumber", "aadharnumber", "aadhaarno", "uidnumber"))


def without_aadhaar(body: bytes) -> bytes:
    """The body, byte for byte when there is no such number in it; else as JSON that says the same but for them."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    if not aadhaar.contains(text):
        return body
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return aadhaar.mask(text).encode()
    return msgspec.json.encode(_masked("", payload))


def _masked(name: str, value: object) -> object:
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {key: _masked(key, member) for key, member in members.items()}
    if isinstance(value, list):
        return [_masked(name, item) for item in cast("list[object]", value)]
    if isinstance(value, int) and not isinstance(value, bool) and aadhaar.contains(str(value)):
        return aadhaar.mask(str(value)) if _is_number_field(name) else value
    if isinstance(value, str) and (_is_number_field(name) or not _ID.fullmatch(value)):
        return aadhaar.mask(value)
    return value


def _is_number_field(name: str) -> bool:
    return re.sub("[^a-z]", "", name.lower()) in _NUMBER_FIELDS
