"""A vendor that is certainly not reached is left for the next one that can do the same; no other is."""

from collections.abc import Generator
from typing import Any, cast
from uuid import UUID

import pytest

from tests.kyc.conftest import World
from tests.service import Person
from tests.trail import actions_of, events_of
from tests.verbs.world import PENDING, Acme, signed, vendor
from tests.waiting import eventually
from usercore.db import Conn
from usercore.kyc.actions import Heard, apply
from usercore.outbox import SYSTEM
from usercore.plugins import (
    Evidence,
    RejectionCode,
    Standing,
    Started,
    StartRequest,
    VendorAuthError,
    VendorProtocolError,
    VendorUnavailable,
    WebhookEvent,
)


class First(Acme):
    """The preferred vendor, which fails as it is told."""

    def __init__(self) -> None:
        self.failure: Exception | None = VendorUnavailable(reached=False)

    async def start(self, request: StartRequest) -> Started:
        if self.failure is not None:
            raise self.failure
        return await super().start(request)


@pytest.fixture
def first(world: World) -> Generator[First]:
    """The only vendors are this one and, behind it, one that works."""
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    kept, first = dict(vendors), First()
    vendors.clear()
    vendors["first"] = vendor(first, "first", "pan", "selfie")
    vendors["second"] = vendor(Acme(), "second", "pan", "selfie")
    yield first
    vendors.clear()
    vendors.update(kept)


async def attempts_of(owner: Conn, person: Person) -> list[tuple[UUID, str, str]]:
    rows = await owner.fetch(
        "select a.id, a.vendor, a.state::text as state from kyc_attempts a join kyc_cases c on c.id = a.case_id "
        "where c.user_id = $1 order by a.created_at",
        person.id,
    )
    return [(row["id"], row["vendor"], row["state"]) for row in rows]


async def test_the_next_vendor_takes_it(world: World, owner: Conn, first: First) -> None:
    asha = await world.person()
    started = await world.initiate(asha)
    assert (started["vendor"], started["redirect_url"]) == ("second", "https://acme.example.in/start")
    (own, *left), (other, *taken) = await attempts_of(owner, asha)
    assert (left, taken) == (["first", "superseded"], ["second", "started"])
    assert str(own) == started["case_id"] != str(other)
    assert (await actions_of(owner, asha.id))[-2:] == ["kyc.updated", "profile.read"]
    events = [event["event_type"] for event in await events_of(owner, asha.id)]
    assert events.count("user.kyc.initiated.v1") == 1
    asked = await owner.fetch("select recipient from pii_disclosures where user_id = $1 order by at", asha.id)
    assert [row["recipient"] for row in asked] == ["first", "second"]

    evidence = Evidence(standing=Standing.APPROVED, vendor_status="yes", checks={"pan": "passed", "selfie": "passed"})
    told = WebhookEvent(event_id="e1", vendor_case_id=f"{PENDING}{other}", evidence=evidence)
    headers, body = signed(told)
    url = f"{world.client.base}/v1/kyc/webhook/second"
    sent = {name.decode(): value.decode() for name, value in headers}
    async with world.client.http.post(url, data=body, headers=sent) as answer:
        assert answer.status == 200
    found = await world.becomes(asha, "approved")
    assert (found["kyc_tier"], found["case"]["vendor"]) == ("tier_1", "second")


@pytest.mark.parametrize(
    ("standing", "code", "status"),
    [
        (Standing.APPROVED, None, "initiated"),
        (Standing.REJECTED, "document_unreadable", "initiated"),
        (Standing.MANUALLY_APPROVED, None, "initiated"),
        (Standing.FRAUD, "fraud", "rejected"),
    ],
)
async def test_what_the_first_vendor_says_after_all(
    world: World, owner: Conn, first: First, standing: Standing, code: RejectionCode | None, status: str
) -> None:
    """It counts only when it is fraud."""
    asha = await world.person()
    case_id = UUID((await world.initiate(asha))["case_id"])
    evidence = Evidence(
        standing=standing,
        vendor_status="late",
        rejection_code=code,
        checks={"pan": "passed", "selfie": "passed"},
    )
    kyc = world.parts.kyc
    await apply(kyc.db, kyc.keyring, kyc.rules, case_id, Heard(case_id, "webhook", "late", evidence), SYSTEM)
    assert (await world.status(asha))["case"]["status"] == status


@pytest.mark.parametrize(
    "failure",
    [VendorUnavailable(reached=True), VendorAuthError(), VendorProtocolError(), RuntimeError("a bug")],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_vendor_that_may_have_been_reached_keeps_the_case(
    world: World, owner: Conn, first: First, failure: Exception
) -> None:
    """Two vendors must not have one person's data for one step; the same attempt is started again."""
    first.failure = failure
    asha = await world.person()
    assert (await world.initiate(asha))["redirect_url"] is None
    ((attempt, name, state),) = await attempts_of(owner, asha)
    assert (name, state) == ("first", "starting")
    first.failure = None
    await owner.execute("update kyc_cases set next_look_at = now()")
    await owner.execute("update kyc_attempts set called_at = called_at - interval '1 minute'")

    async def started() -> bool:
        return await attempts_of(owner, asha) == [(attempt, "first", "started")]

    await eventually(started)


async def test_nobody_is_left(world: World, owner: Conn, first: First) -> None:
    """The case waits with the last one that was tried, and goes on when it is back."""
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    del vendors["second"]
    asha = await world.person()
    assert (await world.initiate(asha))["redirect_url"] is None
    assert [state for _, _, state in await attempts_of(owner, asha)] == ["starting"]
    first.failure = None
    await owner.execute("update kyc_cases set next_look_at = now()")
    await owner.execute("update kyc_attempts set called_at = called_at - interval '1 minute'")

    async def started() -> bool:
        return [state for _, _, state in await attempts_of(owner, asha)] == ["started"]

    await eventually(started)
