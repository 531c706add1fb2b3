"""Reading what HyperVerge writes in more than one way: texts, numbers, dates, lists that are objects."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, cast

LONGEST_TEXT = 200
"""More is no name, and nothing that a profile could have."""
_DAY_FIRST = re.compile(r"([0-9]{2})[-/]([0-9]{2})[-/]([0-9]{4})")
_YEAR_FIRST = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T.*)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:?[0-9]{2})?")


def an_object(value: object) -> dict[str, Any]:
    """The object, or an empty one for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def objects(value: object) -> Iterator[dict[str, Any]]:
    """The objects in a list; an object stands for a list of one."""
    for item in cast("list[object]", value) if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield cast("dict[str, Any]", item)


def a_text(value: object) -> str | None:
    """A text with something in it, its spaces made single; `{"value": …}` is looked into."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("value")
    if not isinstance(value, str):
        return None
    return " ".join(value.split())[:LONGEST_TEXT] or None


def a_word(value: object) -> str:
    """A constant of the vendor's in lower case with underscores: `autoApproved` and `AUTO-APPROVED` are one."""
    text = a_text(value) or ""
    if not text.isupper():
        text = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub("[- ]", "_", text).lower()


def a_constant(value: object) -> str:
    """A constant of which one spelling is documented, as it is written; empty for what is no text."""
    return value if isinstance(value, str) else ""


def a_number(value: object) -> int | None:
    """`200` and `"200"`."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,6}", value) else None


def a_date(value: object) -> date | None:
    """`dd-mm-yyyy`, `dd/mm/yyyy`, and ISO 8601 with or without a time; None for what is no date."""
    text = a_text(value) or ""
    if match := _DAY_FIRST.fullmatch(text):
        day, month, year = match.groups()
    elif match := _YEAR_FIRST.fullmatch(text):
        year, month, day = match.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def a_time(value: object) -> datetime | None:
    """ISO 8601; None for what is not: HyperVerge's own samples have some that are not."""
    text = a_text(value) or ""
    # Which forms `fromisoformat` takes depends on the version of Python.
    if not _TIME.fullmatch(text):
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def a_pan(value: object) -> str | None:
    """What was read as a PAN, also when it is none, so that the host sees the difference; never an Aadhaar number."""
    text = (a_text(value) or "").replace(" ", "").upper()
    # An Aadhaar number has twelve places, masked or not.
    return text if 0 < len(text) < 12 else None


def last_four(value: object) -> str | None:
    """Of an Aadhaar number, masked or whole. The rest goes no further than here."""
    text = (a_text(value) or "").replace(" ", "").replace("-", "")
    return text[-4:] if re.fullmatch("[0-9Xx*]{8}[0-9]{4}", text) else None
