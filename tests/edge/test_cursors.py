"""Cursors: what was sealed opens, anything else does not."""

import os
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from usercore import cursors
from usercore.errors import InvalidCursor

KEY = os.urandom(32)
CONTEXT = b"audit:user-1"


class Position(msgspec.Struct, frozen=True):
    at: datetime
    event_id: UUID
    note: str = ""


class Other(msgspec.Struct, frozen=True):
    page: int


HERE = Position(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), UUID(int=7))


@given(
    st.builds(Position, st.datetimes(timezones=st.just(UTC)), st.uuids(), st.text(max_size=50)), st.binary(max_size=40)
)
def test_a_cursor_opens_to_what_was_sealed(position: Position, context: bytes) -> None:
    text = cursors.seal(KEY, position, context=context)
    assert cursors.open([KEY], Position, text, context=context) == position
    assert text.replace("-", "").replace("_", "").isalnum()


def test_the_position_cannot_be_read_and_no_two_are_alike() -> None:
    first, second = (cursors.seal(KEY, Position(HERE.at, HERE.event_id, "secret"), context=CONTEXT) for _ in range(2))
    assert first != second
    assert "secret" not in first


@given(st.data())
def test_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    text = cursors.seal(KEY, HERE, context=CONTEXT)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters())
    assume(letter != text[at])
    refused(text[:at] + letter + text[at + 1 :])
    refused(text[:at])
    refused(text[:at] + letter + text[at:])


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("text", ["", "=", "A", "AA==", "x" * 100_000, "\n", "é", "\ud800"])
def test_odd_text_is_refused(text: str) -> None:
    refused(text)


def test_a_cursor_of_another_list_person_or_key_is_refused() -> None:
    text = cursors.seal(KEY, HERE, context=CONTEXT)
    for key, context in ((KEY, b"audit:user-2"), (KEY, b""), (os.urandom(32), CONTEXT)):
        with pytest.raises(InvalidCursor):
            cursors.open([key], Position, text, context=context)
    with pytest.raises(InvalidCursor):
        cursors.open([KEY], Other, text, context=CONTEXT)


def refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        cursors.open([KEY], Position, text, context=CONTEXT)
