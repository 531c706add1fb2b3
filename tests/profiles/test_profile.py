"""Merge patches as pure functions, against RFC 7396 as reference."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.errors import EmailManagedByAuth, ValidationFailed
from usercore.events import now
from usercore.lifecycle.actions import derive_status
from usercore.profiles.profile import AddressPatch, ProfilePatch, complete_address, merge, validated
from usercore.users.actions import valid_email

# RFC 7396, appendix A: original, patch, result.
EXAMPLES = """
{"a":"b"} | {"a":"c"} | {"a":"c"}
{"a":"b"} | {"b":"c"} | {"a":"b","b":"c"}
{"a":"b"} | {"a":null} | {}
{"a":"b","b":"c"} | {"a":null} | {"b":"c"}
{"a":["b"]} | {"a":"c"} | {"a":"c"}
{"a":"c"} | {"a":["b"]} | {"a":["b"]}
{"a":{"b":"c"}} | {"a":{"b":"d","c":null}} | {"a":{"b":"d"}}
{"a":[{"b":"c"}]} | {"a":[1]} | {"a":[1]}
["a","b"] | ["c","d"] | ["c","d"]
{"a":"b"} | ["c"] | ["c"]
{"a":"foo"} | null | null
{"a":"foo"} | "bar" | "bar"
{"e":null} | {"a":1} | {"e":null,"a":1}
[1,2] | {"a":"b","c":null} | {"a":"b"}
{} | {"a":{"bb":{"ccc":null}}} | {"a":{"bb":{}}}
"""


@pytest.mark.parametrize("line", EXAMPLES.strip().splitlines())
def test_the_examples_of_the_rfc(line: str) -> None:
    original, patch, result = (json.loads(part) for part in line.split(" | "))
    assert merge(original, patch) == result


def reference(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396, section 2, word for word."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in cast("dict[str, Any]", patch).items():
            if value is None:
                if name in target:
                    target.pop(name)
            else:
                target[name] = reference(target.get(name), value)
        return target
    return patch


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


@given(documents, documents)
def test_merge_is_the_reference(target: Any, patch: Any) -> None:
    before = json.dumps(target)
    assert merge(target, patch) == reference(json.loads(before), patch)
    assert json.dumps(target) == before, "the target is not changed in place"


@given(documents, documents)
def test_merging_twice_is_merging_once(target: Any, patch: Any) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


parts = st.fixed_dictionaries(
    {},
    optional={
        "line1": st.none() | st.just("14 MG Road"),
        "line2": st.none() | st.just("Flat 3"),
        "city": st.none() | st.just("Pune"),
        "state": st.none() | st.just("Maharashtra"),
        "pin_code": st.none() | st.just("411001"),
        "country": st.none() | st.just("IN"),
    },
)


@given(parts, parts)
def test_an_address_is_complete_or_names_what_is_missing(first: dict[str, Any], second: dict[str, Any]) -> None:
    merged = cast("dict[str, object]", merge(merge({}, first), second))
    missing = {part for part in ("line1", "city", "state", "pin_code") if merged.get(part) is None}
    if not missing:
        assert complete_address(merged).country == "IN"
        return
    with pytest.raises(ValidationFailed) as failed:
        complete_address(merged)
    assert {error.pointer for error in failed.value.errors} == {f"/address/{part}" for part in missing}


def test_validated_names_every_problem() -> None:
    patch = ProfilePatch(pan_number="x", phone="y", first_name=None, address=AddressPatch(pin_code="z", line2=None))
    with pytest.raises(ValidationFailed) as failed:
        validated(patch)
    assert [error.pointer for error in failed.value.errors] == ["/pan_number", "/address/pin_code", "/phone"]
    assert validated(ProfilePatch(first_name=None, address=None)) == {"first_name": None, "address": None}
    with pytest.raises(EmailManagedByAuth):
        validated(ProfilePatch(email=None))


def test_patches_and_profiles_do_not_show_their_values() -> None:
    assert "Asha" not in repr(ProfilePatch(first_name="Asha"))


@pytest.mark.parametrize("good", ["a@b.in", "first.last+tag@sub.example.in", "ü@example.in"])
def test_emails(good: str) -> None:
    assert valid_email(good) == good


@pytest.mark.parametrize("bad", [None, "", "a", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a\0@b", "a" * 65 + "@b"])
def test_none_of_these_is_an_email(bad: str | None) -> None:
    assert valid_email(bad) is None


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("effects", [[], ["freeze"], ["suspend"], ["suspend", "freeze"]])
def test_status_is_derived(closed: bool, activated: bool, effects: list[Any]) -> None:
    status = derive_status(
        closed_at=now() if closed else None, open_effects=effects, activated_at=now() if activated else None
    )
    unheld = "active" if activated else "pending"
    held = "frozen" if "freeze" in effects else "suspended" if effects else unheld
    assert status == ("closed" if closed else held)
