"""Whole Aadhaar numbers are gone from a message before it is kept; everything else stays."""

from datetime import date
from typing import Any

import msgspec
import pytest
from kyc_signzy.sandbox import Account, SignzySandbox

from tests.kyc.conftest import World
from usercore.pii.keyring import UserKeys
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


async def test_a_vendor_that_sends_whole_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of what is sealed anywhere has it: not the message, not the evidence, not a field that it fills in."""
    sandbox = world.sandboxes["signzy"]
    assert isinstance(sandbox, SignzySandbox)
    sandbox._account = Account(unmasked=True)
    sealed: list[str] = []
    seal = UserKeys.seal

    def noting(keys: UserKeys, field: Any, value: str) -> Any:
        sealed.append(value)
        return seal(keys, field, value)

    monkeypatch.setattr(UserKeys, "seal", noting)
    asha = await world.person()
    await world.verified(asha, "tier_1")
    identity = {"aadhaar_number": NUMBER, "date_of_birth": str(date(1994, 8, 12))}
    await world.control("signzy", "next", outcome="approve", identity=identity)
    await world.initiate(asha, target_tier="tier_2")
    await world.becomes(asha, "approved")
    told = [case.deliveries for case in sandbox.cases.values()]
    assert [delivery["statuses"] for deliveries in told for delivery in deliveries] == [[200]]
    assert any("consentComplete" in value and "XXXXXXXX0124" in value for value in sealed)
    assert [value for value in sealed if NUMBER in value or NUMBER[:8] in value] == []
    assert (await asha.get()).json()["profile"]["aadhaar_last4"] == "0124"
