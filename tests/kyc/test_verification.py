"""A person's way through verification: initiate, status, resubmit, the webhook that brings the result."""

import asyncio

import pytest

from tests.kyc.conftest import PROFILE, World
from tests.trail import actions_of, events_of
from tests.waiting import eventually
from usercore import telemetry
from usercore.db import Conn
from usercore.webhooks.queries import count_waiting


async def test_tier_1(world: World, owner: Conn) -> None:
    asha = await world.person()
    reply = await asha.send(
        "POST", "/v1/kyc/initiate", json={"target_tier": "tier_1", "redirect_url": "https://app.example.in/done"}
    )
    assert reply.status == 201, reply.body
    case = reply.json()
    assert case["vendor"] == "hyperverge"
    assert case["status"] == "initiated"
    assert case["redirect_url"].startswith(world.urls["hyperverge"])
    assert (await asha.get()).json()["kyc_status"] == "pending"

    again = await asha.send("POST", "/v1/kyc/initiate", json={})
    assert again.status == 200
    assert again.json() == case

    await world.finish(asha, "approve")
    found = await world.becomes(asha, "approved")
    assert (found["kyc_status"], found["kyc_tier"], found["limits"]) == ("approved", "tier_1", {"level": "basic"})
    assert {check["check"]: check["status"] for check in found["checks"]} == {"pan": "passed", "selfie": "passed"}
    assert found["next_tier"] == {"tier": "tier_2", "requires": ["aadhaar", "address"]}
    me = (await asha.get()).json()
    assert (me["status"], me["kyc_tier"], me["kyc_status"]) == ("active", "tier_1", "approved")
    assert me["verified_at"] is not None

    events = [event["event_type"] for event in await events_of(owner, asha.id)]
    assert events == [
        "user.created.v1",
        "user.updated.v1",
        "user.kyc.initiated.v1",
        "user.kyc.updated.v1",
        "user.verified.v1",
    ]
    actions = await actions_of(owner, asha.id)
    assert actions.count("kyc.initiated") == 1
    assert actions.count("kyc.updated") == 1
    assert await owner.fetchval("select count(*) from pii_disclosures where user_id = $1", asha.id) == 1
    assert await owner.fetchval("select count(*) from identity_claims where user_id = $1", asha.id) == 1
    assert (
        await owner.fetchval("select count(*) from webhook_inbox where body_enc is not null and state = 'applied'") == 0
    )


@pytest.mark.parametrize(
    ("outcome", "status", "kyc_status"),
    [("decline", "rejected", "rejected"), ("review", "in_review", "in_review")],
)
async def test_other_outcomes(world: World, outcome: str, status: str, kyc_status: str) -> None:
    asha = await world.person()
    await world.initiate(asha)
    await world.finish(asha, outcome)
    found = await world.becomes(asha, status)
    assert (found["kyc_status"], found["kyc_tier"]) == (kyc_status, "tier_0")
    assert (found["case"]["rejection_code"] is None) == (status != "rejected")


async def test_resubmit_after_a_decline_until_it_is_too_often(world: World) -> None:
    asha = await world.person()
    await world.initiate(asha)
    refused = await asha.send("POST", "/v1/kyc/resubmit", json={})
    assert refused.code == "kyc_resubmit_not_allowed"
    answers: list[object] = []
    for _ in range(5):
        await world.finish(asha, "decline")
        await world.becomes(asha, "rejected")
        reply = await asha.send("POST", "/v1/kyc/resubmit", json={})
        answers.append(reply.status if reply.status == 201 else reply.code)
    assert answers == [201] * 4 + ["kyc_attempts_exhausted"]


async def test_what_cannot_be_started(world: World, owner: Conn) -> None:
    asha = world.client.user()
    await asha.patch({"first_name": "Asha"})
    reply = await asha.send("POST", "/v1/kyc/initiate", json={})
    assert reply.code == "profile_incomplete"
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/date_of_birth", "/last_name", "/pan_number"]
    ravi = await world.person()
    for asked, code in (
        ({"target_tier": "tier_2"}, "kyc_tier_not_next"),
        ({"target_tier": "tier_0"}, "kyc_tier_reached"),
        ({"redirect_url": "https://evil.example/"}, "validation_failed"),
        ({"redirect_url": "http://app.example.in/"}, "validation_failed"),
        ({"redirect_url": "https://app.example.in@evil.example/"}, "validation_failed"),
        ({"bank_account": {"account_number": "123456789012", "ifsc": "KKBK0008066"}}, "validation_failed"),
        ({"surprise": 1}, "validation_failed"),
    ):
        assert (await ravi.send("POST", "/v1/kyc/initiate", json=asked)).code == code, asked
    await owner.execute("update users set status = 'frozen' where id = $1", ravi.id)
    assert (await ravi.send("POST", "/v1/kyc/initiate", json={})).code == "account_not_active"


async def test_what_happens_is_counted_once(world: World) -> None:
    def counted(name: str, **labels: str) -> float:
        return telemetry.metrics.registry.get_sample_value(name, labels) or 0.0

    def both() -> tuple[float, float]:
        approved = counted("user_kyc_completed_total", vendor="hyperverge", status="approved")
        return counted("user_kyc_initiated_total", vendor="hyperverge"), approved

    initiated, completed = both()
    asha = await world.person()
    key = {"Idempotency-Key": "one"}
    for _ in range(2):
        await asha.send("POST", "/v1/kyc/initiate", json={}, headers=key)
    await world.initiate(asha)
    assert both() == (initiated + 1, completed)
    await world.finish(asha, "approve", webhook="duplicate")
    await world.becomes(asha, "approved")
    await eventually(lambda: _quiet(world))
    assert both() == (initiated + 1, completed + 1)


async def _quiet(world: World) -> bool:
    async with world.parts.db.read() as conn:
        return await count_waiting(conn) == 0


async def test_an_idempotent_start_shows_the_case_as_it_is_now(world: World) -> None:
    asha = await world.person()
    key = {"Idempotency-Key": "one"}
    first = await asha.send("POST", "/v1/kyc/initiate", json={}, headers=key)
    await world.finish(asha, "approve")
    await world.becomes(asha, "approved")
    again = await asha.send("POST", "/v1/kyc/initiate", json={}, headers=key)
    assert again.status == 200
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["case_id"] == first.json()["case_id"]
    assert again.json()["status"] == "approved"
    other = await asha.send("POST", "/v1/kyc/initiate", json={"target_tier": "tier_2"}, headers=key)
    assert other.code == "idempotency_mismatch"


async def test_an_idempotent_refusal_stays_one(world: World) -> None:
    """The same request again gets the same answer, although it would go well by now; another key does."""
    asha = world.client.user()
    key = {"Idempotency-Key": "one"}
    first = await asha.send("POST", "/v1/kyc/initiate", json={}, headers=key)
    assert (first.status, first.code) == (409, "profile_incomplete")
    assert (await asha.patch(PROFILE)).status == 200
    again = await asha.send("POST", "/v1/kyc/initiate", json={}, headers=key)
    assert (again.status, again.body) == (409, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Content-Type"] == "application/problem+json"
    other = await asha.send("POST", "/v1/kyc/initiate", json={"target_tier": "tier_1"}, headers=key)
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    assert (await asha.send("POST", "/v1/kyc/resubmit", json={}, headers=key)).code == "kyc_resubmit_not_allowed"
    assert (await asha.send("POST", "/v1/kyc/initiate", json={}, headers={"Idempotency-Key": "two"})).status == 201
    bad = await asha.send("POST", "/v1/kyc/initiate", json={}, headers={"Idempotency-Key": "x" * 256})
    assert (bad.status, bad.code) == (422, "validation_failed")


async def test_two_starts_with_one_key_at_once_are_one(world: World, owner: Conn) -> None:
    asha = await world.person()
    key = {"Idempotency-Key": "one"}
    replies = await asyncio.gather(*(asha.send("POST", "/v1/kyc/initiate", json={}, headers=key) for _ in range(6)))
    assert {reply.status for reply in replies} <= {200, 201, 202, 409}
    assert {reply.code for reply in replies if reply.status == 409} <= {"idempotency_in_progress"}
    assert len({reply.json()["case_id"] for reply in replies if reply.status < 300}) == 1
    assert await owner.fetchval("select count(*) from kyc_cases") == 1
    assert await owner.fetchval("select count(*) from kyc_attempts") == 1
