"""Reading what Signzy writes: texts, lists of lists, dates, times, and Aadhaar numbers of which four digits stay."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, cast

LONGEST_TEXT = 200
"""More is no name and no line of an address."""
DEEPEST_LIST = 2
"""Of lists in lists: what is known of them."""
# With or without gaps, and not within a longer run of digits.
_AADHAAR = re.compile(r"(?<![0-9])[0-9]{4}([ -]?)[0-9]{4}([ -]?)([0-9]{4})(?![0-9])")
_MASKED = re.compile("[0-9Xx*]{8}([0-9]{4})")
_DATE = re.compile(r"([0-9]{2})[/-]([0-9]{2})[/-]([0-9]{4})")
_PIN_CODE = re.compile("[1-9][0-9]{5}")
_COUNTRY = re.compile("[A-Z]{2}")


def an_object(value: object) -> dict[str, Any]:
    """The object, or an empty one for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def texts(value: object, depth: int = DEEPEST_LIST) -> Iterator[str]:
    """A text, or those in a list of lists: a state is `[["UTTAR PRADESH", "UP"]]`."""
    if isinstance(value, list) and depth:
        for item in cast("list[object]", value):
            yield from texts(item, depth - 1)
    elif isinstance(value, str) and (text := " ".join(value.split())):
        yield _AADHAAR.sub(r"XXXX\1XXXX\2\3", text)[:LONGEST_TEXT]


def a_text(value: object) -> str | None:
    """The first text with something in it, its spaces made single; of an Aadhaar number in it four digits stay."""
    return next(texts(value), None)


def a_word(value: object) -> str:
    """A constant of theirs in lower case; empty for what is no text."""
    return (a_text(value) or "").lower()


def a_date(value: object) -> date | None:
    """`dd/mm/yyyy`; None for anything else, also for a year alone."""
    match = _DATE.fullmatch(a_text(value) or "")
    if match is None:
        return None
    try:
        return date(int(match[3]), int(match[2]), int(match[1]))
    except ValueError:
        return None


def a_time(value: object) -> datetime | None:
    """Milliseconds since 1970 of a callback, or the ISO 8601 of an audit trail; None for what is no time."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def a_pin_code(value: object) -> str | None:
    text = _digits(value).replace(" ", "")
    return text if _PIN_CODE.fullmatch(text) else None


def a_country(value: object) -> str | None:
    """The two letters in `["IN", "IND", "INDIA"]`."""
    return next((text for text in texts(value) if _COUNTRY.fullmatch(text)), None)


def last_four(value: object) -> str | None:
    """Of `xxxxxxxx3445`, or of a whole number. The rest goes no further than here."""
    match = _MASKED.fullmatch(re.sub("[ -]", "", _digits(value)))
    return match[1] if match else None


def a_link(value: object) -> str | None:
    """Plain http is of a sandbox."""
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None


def _digits(value: object) -> str:
    """A number that is written as one, or as a text; empty for anything else."""
    if isinstance(value, str):
        return value
    # Python refuses to write numbers of thousands of digits.
    return str(value) if isinstance(value, int) and 0 <= value < 10**12 else ""
