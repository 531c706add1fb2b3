"""Whatever order a vendor's messages come in, and however often: one end, and one event for each change."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest

from tests.kyc.conftest import World
from tests.service import Person
from tests.trail import actions_of, events_of
from tests.verbs.world import Acme, signed, vendor
from tests.waiting import eventually
from usercore.db import Conn
from usercore.events import now
from usercore.kyc.cases import Said, derive
from usercore.plugins import Attempt, Evidence, Standing, WebhookEvent
from usercore.testing.delivery import Message
from usercore.webhooks.actions import receive

AT_ONCE = 6
"""Cases that go through their orders side by side."""


async def ended_well(world: World, person: Person, status: str) -> None:
    """The case is so, nothing waits any more, and each change that there was is told once, one after the other."""
    quiet = (
        "select count(*) from webhook_inbox where state = 'waiting'"
        " or (state <> 'applied' and received_at > now() - interval '1 minute')"
    )

    async def over() -> bool:
        async with world.parts.db.read() as conn:
            waiting = await conn.fetchval(quiet)
        return waiting == 0 and (await world.status(person))["case"]["status"] == status

    await eventually(over, within_s=30, why=f"the case is {status}")
    async with world.parts.db.read() as conn:
        events, actions = await events_of(conn, person.id), await actions_of(conn, person.id)
    changes = [event for event in events if event["event_type"] == "user.kyc.updated.v1"]
    assert len(changes) == actions.count("kyc.updated")
    ways = [(change["kyc_case_id"], change["previous_status"], change["status"]) for change in changes]
    assert len(set(ways)) == len(ways)
    for (case, _, before), (next_case, after, _) in itertools.pairwise(ways):
        assert case != next_case or before == after
    risen = [change for change in changes if change["kyc_tier"] > change["previous_tier"]]
    assert [event["event_type"] for event in events].count("user.verified.v1") == len(risen)


@pytest.mark.parametrize(("name", "tier", "most"), [("hyperverge", "tier_1", 90), ("signzy", "tier_2", 90)])
async def test_hints_in_every_order(world: World, name: str, tier: str, most: int) -> None:
    """Three messages, each twice: the vendor reviews, and approves, somewhere between them."""
    orders = sorted(set(itertools.permutations([0, 0, 1, 1, 2, 2])))
    assert len(orders) == most
    sandbox = world.sandboxes[name]
    url = f"{world.client.base}/v1/kyc/webhook/{name}"

    async def go(number: int, order: Sequence[int]) -> None:
        person = await world.person(pan_number=f"ABCP{chr(65 + number // 10000)}{number % 10000:04}F")
        if tier == "tier_2":
            await world.verified(person, "tier_1")
        await world.initiate(person, target_tier=tier)
        case_id = UUID((await world.status(person))["case"]["case_id"])
        case = sandbox.cases[await world.attempt(case_id)]
        outcomes = (None, "review", "approve") if name == "hyperverge" else ("review", "review", "approve")
        messages = [cast("Message", sandbox.message(case, cast("Any", outcome))) for outcome in outcomes]
        reviews_at, approves_at = number % 7, max(number % 7, number // 7 % 7)
        for at, which in enumerate([*order, None]):
            if at == reviews_at:
                await world.control(name, "complete", reference=str(case_id), outcome="review", webhook="drop")
            if at == approves_at:
                await world.control(name, "complete", reference=str(case_id), outcome="approve", webhook="drop")
            if which is not None:
                told = await sandbox.sender.send(case.callback_url or url, messages[which])
                assert told["statuses"] == [200]
        async with world.parts.db.begin() as tx:  # as in half a minute
            await tx.execute("update kyc_cases set next_look_at = now() where id = $1", case_id)
        await ended_well(world, person, "approved")

    for start in range(0, most, AT_ONCE):
        if tier == "tier_2":  # `verified` says what the next case does, whosever it is
            for number in range(start, start + AT_ONCE):
                await go(number, orders[number])
        else:
            await asyncio.gather(*(go(number, orders[number]) for number in range(start, start + AT_ONCE)))


class Slow(Acme):
    """Knows nothing when it is asked: its messages say it all."""

    async def fetch(self, attempt: Attempt) -> Evidence:
        return Evidence(standing=Standing.STARTED, vendor_status="started")


@pytest.mark.parametrize(
    "standings",
    [
        (Standing.STARTED, Standing.SUBMITTED, Standing.SUBMITTED, Standing.REVIEW, Standing.APPROVED),
        (Standing.SUBMITTED, Standing.REVIEW, Standing.APPROVED, Standing.REJECTED, Standing.MANUALLY_APPROVED),
        (Standing.SUBMITTED, Standing.APPROVED, Standing.REJECTED, Standing.MANUALLY_REJECTED, Standing.FRAUD),
    ],
    ids=["approved", "approved by hand", "fraud"],
)
async def test_messages_that_say_all_in_every_order(world: World, owner: Conn, standings: tuple[Standing, ...]) -> None:
    """Five messages and one of them again, through the inbox."""
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    vendors.clear()
    vendors["acme"] = vendor(Slow(), "acme", "pan", "selfie")
    kyc = world.parts.kyc
    said = [Said(standing, None, now()) for standing in standings]
    end = derive(said).status
    reference = itertools.count()

    async def go(order: Sequence[int]) -> None:
        number = next(reference)
        person = await world.person(pan_number=f"ABCP{chr(65 + number // 10000)}{number % 10000:04}F")
        await world.initiate(person)
        case_id = UUID((await world.status(person))["case"]["case_id"])
        attempt = await world.attempt(case_id)
        for which in (*order, order[number % len(order)]):
            evidence = Evidence(
                standing=standings[which],
                vendor_status=f"s{which}",
                checks={"pan": "passed", "selfie": "passed"},
            )
            event = WebhookEvent(event_id=f"{case_id} {which}", vendor_case_id=attempt, evidence=evidence)
            headers, body = signed(event)
            await receive(kyc, "acme", None, headers, body, "request")
        await ended_well(world, person, end)

    orders = list(itertools.permutations(range(len(standings))))
    for start in range(0, len(orders), AT_ONCE):
        await asyncio.gather(*(go(order) for order in orders[start : start + AT_ONCE]))
    assert await owner.fetchval("select count(*) from kyc_cases") == len(orders)
