"""Whole Aadhaar numbers are gone from a message before it is kept; everything else stays."""

import msgspec
import pytest

from usercore.webhooks.payload import without_aadhaar

NUMBER = "234567890124"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a": 1}', b'{"uid":"xxxxxxxx0124"}', b'{"timestamp":1712583747105}']
)
def test_a_message_without_one_stays_byte_for_byte(body: bytes) -> None:
    assert without_aadhaar(body) == body


@pytest.mark.parametrize("number", [NUMBER, "2345 6789 0124", "2345-6789-0124"])
def test_numbers_are_masked_wherever_they_are(number: str) -> None:
    payload = {"uid": number, "address": f"c/o {number}, Pune", "list": [{"name": number}], "id": "x1"}
    kept = without_aadhaar(msgspec.json.encode(payload))
    assert number.encode() not in kept
    found = msgspec.json.decode(kept)
    assert found["uid"].endswith("0124")
    assert found["id"] == "x1"


def test_a_number_that_is_no_text() -> None:
    found = msgspec.json.decode(without_aadhaar(b'{"aadhaarNumber":234567890124,"amount":234567890124}'))
    assert found == {"aadhaarNumber": "XXXXXXXX0124", "amount": 234567890124}


def test_ids_stay_as_they_are() -> None:
    """An id of digits is no number of a person, and without it nobody knows what the message is about."""
    own = "01a210dc-2345-6789-0124-f50d12ce0e6b"
    found = msgspec.json.decode(without_aadhaar(msgspec.json.encode({"internalId": own, "uid": NUMBER})))
    assert found == {"internalId": own, "uid": "XXXXXXXX0124"}


@pytest.mark.parametrize(
    "shape", ["{}", "pending-{}", "{} 3", "https://vendor.example.in/v1/{}/result?id={}", "tx_({})"]
)
def test_ids_within_text_stay_as_they_are(shape: str) -> None:
    own = "01a214e1-4097-7245-9090-405a352a0f0b"
    body = msgspec.json.encode({"transactionId": shape.replace("{}", own), "uid": NUMBER})
    assert msgspec.json.decode(without_aadhaar(body)) == {
        "transactionId": shape.replace("{}", own),
        "uid": "XXXXXXXX0124",
    }


def test_text_that_is_no_json_is_masked_all_the_same() -> None:
    assert without_aadhaar(f"uid={NUMBER}".encode()) == b"uid=XXXXXXXX0124"
