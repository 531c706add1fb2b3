"""All the way up: PAN and selfie, Aadhaar and address, a bank account; and down again when time has passed."""

from tests.kyc.conftest import BANK_ACCOUNT, World
from tests.trail import events_of
from tests.waiting import eventually
from usercore.db import Conn


async def test_all_tiers(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    await world.verified(asha, "tier_2")
    found = await world.verified(asha, "tier_3")
    assert found["next_tier"] is None
    assert found["limits"] == {"level": "maximum"}
    assert {check["check"]: check["vendor"] for check in found["checks"]} == {
        "pan": "hyperverge",
        "selfie": "hyperverge",
        "aadhaar": "signzy",
        "address": "signzy",
        "bank": "signzy",
    }
    verified = [
        event["kyc_tier"] for event in await events_of(owner, asha.id) if event["event_type"] == "user.verified.v1"
    ]
    assert verified == ["tier_1", "tier_2", "tier_3"]
    assert (await asha.send("POST", "/v1/kyc/initiate", json={})).code == "kyc_tier_reached"
    assert await owner.fetchval("select count(*) from kyc_cases where bank_account_enc is not null") == 0
    disclosed = await owner.fetch(
        "select recipient, fields from pii_disclosures where user_id = $1 order by at", asha.id
    )
    assert [row["recipient"] for row in disclosed] == ["hyperverge", "signzy", "signzy"]
    assert "bank_account" in disclosed[2]["fields"]


async def test_a_bank_account_is_asked_for_and_checked(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    await world.verified(asha, "tier_2")
    for account, pointer in (
        (None, "/bank_account"),
        ({**BANK_ACCOUNT, "ifsc": "KKBK1008066"}, "/bank_account/ifsc"),
        ({**BANK_ACCOUNT, "account_number": "12"}, "/bank_account/account_number"),
    ):
        asked = {} if account is None else {"bank_account": account}
        reply = await asha.send("POST", "/v1/kyc/initiate", json=asked)
        assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]


async def test_a_verification_ends_with_its_validity(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    await owner.execute("update kyc_checks set valid_until = now()")

    async def suspended() -> bool:
        return (await asha.get()).json()["status"] == "suspended"

    await eventually(suspended)
    found = await world.status(asha)
    assert (found["kyc_status"], found["kyc_tier"]) == ("expired", "tier_0")
    assert [event["event_type"] for event in await events_of(owner, asha.id)][-2:] == [
        "user.kyc.updated.v1",
        "user.suspended.v1",
    ]
    assert (await asha.patch({"avatar_url": None})).status == 409
    await world.verified(asha, "tier_1")
    assert (await asha.get()).json()["status"] == "active"
