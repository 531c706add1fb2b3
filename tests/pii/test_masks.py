"""Masks show no more than they say, whatever they are given."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.pii import masks
from usercore.pii.classification import FIELDS, Field
from usercore.pii.masks import Mask


@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        (masks.pan, "ABCPE1234F", "XXXXX1234X"),
        (masks.phone, "+919876543210", "+91XXXXXX3210"),
        (masks.aadhaar_last4, "1234", "XXXX"),
        (masks.date, "1990-12-31", "1990-XX-XX"),
        (masks.person_name, "Asha Rao", "AXXXX"),
        (masks.person_name, "ஆஷா", "ஆXXXX"),
        (masks.person_name, "A", "XXXX"),
        (masks.email, "asha.rao@example.in", "aXXXX@example.in"),
        (masks.email, "a@example.in", "XXXX"),
        (masks.url, "https://cdn.example.in/u/asha.png?x=1", "https://cdn.example.in/XXXX"),
        (masks.url, "https://[", "XXXX"),
        (masks.free_text, "He called.", "XXXX"),
        (
            masks.address,
            '{"line1":"12 MG Road","line2":null,"city":"Pune","state":"MH","pin_code":"411001","country":"IN"}',
            '{"line1":"XXXX","line2":null,"city":"XXXX","state":"MH","pin_code":"411XXX","country":"IN"}',
        ),
        (masks.address, '{"line1":5}', "XXXX"),
    ],
)
def test_masks(mask: Mask, value: str, shown: str):
    assert mask(value) == shown


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@given(value=st.text(max_size=60))
def test_any_text_is_masked_without_an_error(field: Field, value: str):
    shown = field.mask(value)
    assert len(value) < 5 or value not in shown


@given(st.dictionaries(st.text(max_size=10), st.none() | st.text(max_size=10), max_size=8))
def test_an_address_keeps_its_members(parts: dict[str, str | None]):
    masked = msgspec.json.decode(
        masks.address(msgspec.json.encode(parts).decode()).encode(), type=dict[str, str | None]
    )
    assert masked.keys() == parts.keys()
    assert all((masked[name] is None) == (part is None) for name, part in parts.items())


def test_nothing_of_an_unexpected_form_is_shown():
    assert {masks.pan("ABCPE1234F\n"), masks.phone("9876543210"), masks.date("1990-12-31T"), masks.email("asha")} == {
        masks.UNREADABLE
    }
