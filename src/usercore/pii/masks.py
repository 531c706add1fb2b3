"""What a caller sees who may know that a value exists, but not the value: one function for each kind of field.

They never fail: a value of another form than expected is hidden whole.
"""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

Mask = Callable[[str], str]

UNREADABLE = "XXXX"  # stands for a value that is there but does not open, too

_PAN = re.compile(r"[A-Z]{5}[0-9]{4}[A-Z]")
_PHONE = re.compile(r"\+91[0-9]{10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PIN_CODE = re.compile(r"[0-9]{6}")
_SHOWN_ADDRESS_PARTS = frozenset({"state", "country"})


def pan(value: str) -> str:
    return f"XXXXX{value[5:9]}X" if _PAN.fullmatch(value) else UNREADABLE


def phone(value: str) -> str:
    return f"+91XXXXXX{value[-4:]}" if _PHONE.fullmatch(value) else UNREADABLE


def aadhaar_last4(value: str) -> str:
    """These digits are what UIDAI's own mask leaves of the number, so none of them is shown."""
    return UNREADABLE


def date(value: str) -> str:
    return f"{value[:4]}-XX-XX" if _DATE.fullmatch(value) else UNREADABLE


def person_name(value: str) -> str:
    return f"{value[0]}XXXX" if value[:1].isalpha() and len(value) > 1 else UNREADABLE


def email(value: str) -> str:
    local, at, domain = value.rpartition("@")
    return f"{local[0]}XXXX@{domain}" if at and len(local) > 1 and domain else UNREADABLE


def address(value: str) -> str:
    """JSON text in, JSON text of the same members out: state, country and the PIN's sorting district stay."""
    try:
        parts = msgspec.json.decode(value.encode(), type=dict[str, str | None])
    except (msgspec.MsgspecError, UnicodeError):
        return UNREADABLE
    return msgspec.json.encode({name: address_part(name, part) for name, part in parts.items()}).decode()


def address_part(name: str, value: str | None) -> str | None:
    if value is None or name in _SHOWN_ADDRESS_PARTS:
        return value
    return f"{value[:3]}XXX" if name == "pin_code" and _PIN_CODE.fullmatch(value) else UNREADABLE


def url(value: str) -> str:
    """The host stays: it says where pictures are kept, not whose this is."""
    try:
        host = urlsplit(value).hostname
    except ValueError:
        host = None
    return f"https://{host}/XXXX" if host else UNREADABLE


def free_text(value: str) -> str:
    return UNREADABLE
