"""Changing JSON: every place in a document, what differs between documents, and documents with something else there."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

Place = tuple[str | int, ...]
WRONG: tuple[object, ...] = (None, 7, -1.5, True, "", "x", [], [None], {}, {"x": {}})
"""What may stand in a place instead, of every type that JSON has."""


def parsed(body: bytes) -> object:
    """None for what is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def places(document: object) -> Iterator[tuple[Place, object]]:
    """Every place with what stands there, the whole first."""
    yield (), document
    if isinstance(document, dict):
        inside = cast("dict[str | int, object]", document).items()
    elif isinstance(document, list):
        inside = cast("Any", enumerate(cast("list[object]", document)))
    else:
        return
    for key, value in inside:
        for place, found in places(value):
            yield (key, *place), found


def leaves(document: object) -> dict[Place, object]:
    """Texts, numbers and truths by place."""
    return {place: value for place, value in places(document) if isinstance(value, str | int | float)}


def replaced(document: object, values: Mapping[Place, object]) -> object:
    """A copy with other values in some places; those that it has not are left out."""
    changed = copy.deepcopy(document)
    for place, value in values.items():
        if not place:
            return value
        target = cast("Any", changed)
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    return changed


def verdicts(approved: object, again: object, others: list[object]) -> set[Place]:
    """Where a vendor says what it decided: the same in two approved cases, and something else in another one.

    Only places that both have: what is not there at all is no status.
    """
    one, two = leaves(approved), leaves(again)
    found: set[Place] = set()
    for other in others:
        third = leaves(other)
        found |= {place for place, value in one.items() if two.get(place) == value and third.get(place, value) != value}
    return found
