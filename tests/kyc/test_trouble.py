"""What vendors, networks and liars do: lost, repeated, forged and late messages; the wrong person; fraud."""

import asyncio
from uuid import UUID

import pytest

from tests.kyc.conftest import World
from tests.trail import actions_of, events_of
from tests.waiting import eventually
from usercore.attempts import actions as attempts
from usercore.db import Conn
from usercore.kyc.actions import Heard, apply
from usercore.outbox import SYSTEM
from usercore.plugins import Evidence, Standing


@pytest.mark.parametrize("mode", ["normal", "duplicate", "reordered"])
async def test_messages_come_as_they_like(world: World, owner: Conn, mode: str) -> None:
    asha = await world.person()
    await world.control("hyperverge", "next", outcome="approve", webhook=mode)
    await world.initiate(asha)
    await world.becomes(asha, "approved")

    async def quiet() -> bool:
        return await owner.fetchval("select count(*) from webhook_inbox where state = 'waiting'") == 0

    await eventually(quiet)
    events = [event["event_type"] for event in await events_of(owner, asha.id)]
    assert events.count("user.verified.v1") == 1
    assert events.count("user.kyc.updated.v1") == (await actions_of(owner, asha.id)).count("kyc.updated")


async def test_a_forged_message_approves_nobody(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.control("hyperverge", "next", webhook="forged")
    await world.initiate(asha)
    sandbox = world.sandboxes["hyperverge"]

    async def delivered() -> bool:
        return any(case.deliveries for case in sandbox.cases.values())

    await eventually(delivered)
    statuses = [each["statuses"] for case in sandbox.cases.values() for each in case.deliveries]
    assert set().union(*statuses) == {401}
    assert (await world.status(asha))["case"]["status"] == "initiated"
    assert await owner.fetchval("select count(*) from webhook_inbox") == 0


async def test_a_message_that_never_comes_is_found_by_asking(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.control("hyperverge", "next", outcome="approve", webhook="drop")
    await world.initiate(asha)
    await owner.execute("update kyc_cases set next_look_at = now()")
    await world.becomes(asha, "approved")
    assert await owner.fetchval("select count(*) from webhook_inbox") == 0


async def test_a_case_that_nobody_finishes_expires_after_a_last_look(world: World, owner: Conn) -> None:
    asha, ravi = await world.person(), await world.person(pan_number="ABCPV9999F")
    await world.control("hyperverge", "next", outcome="approve", webhook="drop")
    await world.initiate(asha)
    await world.initiate(ravi)
    await owner.execute("update kyc_cases set next_look_at = now(), expires_at = now()")
    assert (await world.becomes(ravi, "expired"))["kyc_status"] == "expired"
    await world.becomes(asha, "approved")
    assert (await ravi.send("POST", "/v1/kyc/resubmit", json={})).status == 201


async def test_a_vendor_that_does_not_answer_in_time(world: World, owner: Conn) -> None:
    """202 with nulls after a moment; the call goes on, and its answer is there when it comes."""
    asha = await world.person()
    await world.control("hyperverge", "next", outcome="timeout", delay_ms=2500)
    reply = await asha.send("POST", "/v1/kyc/initiate", json={})
    assert reply.status == 202
    assert reply.headers["Retry-After"]
    assert (reply.json()["redirect_url"], reply.json()["sdk_token"]) == (None, None)
    assert (await asha.send("POST", "/v1/kyc/initiate", json={})).status == 202

    async def answered() -> bool:
        return (await world.status(asha))["case"]["redirect_url"] is not None

    await eventually(answered)
    assert await owner.fetchval("select count(*) from kyc_attempts") == 1
    assert len(world.sandboxes["hyperverge"].cases) == 1


async def test_a_start_that_died_is_taken_up_with_the_same_attempt(world: World, owner: Conn) -> None:
    """As after a kill between the two transactions: the attempt is there, and nobody is calling."""
    asha = await world.person()
    await world.control("hyperverge", "next", outcome="timeout")
    assert (await asha.send("POST", "/v1/kyc/initiate", json={})).status == 202
    for call in list(world.parts.kyc.calls):
        call.cancel()
    await owner.execute("update kyc_cases set next_look_at = now()")
    await owner.execute("update kyc_attempts set called_at = now() - interval '1 minute'")
    await world.finish_vendor("hyperverge")
    found = await world.becomes(asha, "approved")
    assert found["kyc_tier"] == "tier_1"
    assert await owner.fetchval("select count(*) from kyc_attempts") == 1
    assert len(world.sandboxes["hyperverge"].cases) == 1


@pytest.mark.parametrize(
    "identity",
    [{"pan_number": "ZZZPZ9999Z"}, {"date_of_birth": "1990-01-01"}, {"name": "Somebody Else"}],
    ids=["pan", "date", "name"],
)
async def test_somebody_elses_documents_are_reviewed(world: World, identity: dict[str, str]) -> None:
    asha = await world.person()
    await world.control("hyperverge", "next", outcome="approve", identity=identity)
    await world.initiate(asha)
    found = await world.becomes(asha, "in_review")
    assert (found["kyc_tier"], found["kyc_status"]) == ("tier_0", "in_review")


async def test_one_pan_is_one_account(world: World, owner: Conn) -> None:
    """Two at the same moment, again and again: one is approved, the other is looked at."""
    for round_ in range(100):
        pan = f"ABCPV{1000 + round_}F"
        both = [await world.person(pan_number=pan) for _ in range(2)]
        for person in both:
            await world.initiate(person)
        await asyncio.gather(*(world.finish(person, "approve") for person in both))

        async def over(ids: list[UUID] = [person.id for person in both]) -> bool:  # noqa: B006 - it is only read
            statuses = await owner.fetch("select status from kyc_cases where user_id = any($1)", ids)
            return sorted(row["status"] for row in statuses) == ["approved", "in_review"]

        await eventually(over, why="one is approved and one is reviewed")
    assert await owner.fetchval("select count(*) from identity_claims") == 100
    reasons = await owner.fetch("select distinct review_reason::text from kyc_cases where status = 'in_review'")
    assert [row[0] for row in reasons] == ["identity_conflict"]


async def test_fraud_after_approval_takes_the_tier_back_and_freezes(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    case = (await world.status(asha))["case"]
    async with world.parts.db.read() as conn:
        attempt = await attempts.find(conn, "hyperverge", await world.attempt(UUID(case["case_id"])), None)
    assert attempt is not None
    fraud = Evidence(standing=Standing.FRAUD, vendor_status="fraud", rejection_code="fraud")
    kyc = world.parts.kyc
    for event in ("one", "two"):  # the second changes nothing
        await apply(kyc.db, kyc.keyring, kyc.rules, attempt.case_id, Heard(attempt.id, "webhook", event, fraud), SYSTEM)
    found = await world.status(asha)
    assert (found["kyc_tier"], found["kyc_status"]) == ("tier_0", "rejected")
    assert (await asha.get()).json()["status"] == "frozen"
    assert [event["event_type"] for event in await events_of(owner, asha.id)][-2:] == [
        "user.kyc.updated.v1",
        "user.frozen.v1",
    ]
    assert await owner.fetchval("select count(*) from account_holds where source = 'kyc' and reason = 'kyc_fraud'") == 1
    assert await owner.fetchval("select count(*) from identity_claims") == 0
