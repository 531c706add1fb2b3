"""Freezing, unfreezing and closing by several parties."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.kyc.conftest import PROFILE, World
from tests.kyc.conftest import world as world
from tests.service import Client, Person, Reply
from tests.trail import actions_of, events_of
from usercore import telemetry
from usercore.db import Conn
from usercore.events import AuthAccountDeactivated, now
from usercore.lifecycle.actions import apply_auth_events, hold_for_kyc
from usercore.outbox import SYSTEM
from usercore.worker import Parts

SUSPECTED = {"reason": "suspected_fraud"}
CLEARED = {"reason": "cleared"}


def party(client: Client, name: str, scope: str = "internal") -> Person:
    return client.user(scope=scope, client_id=name)


async def does(who: Person, user: Person | UUID, what: str, **said: Any) -> Reply:
    user_id = user.id if isinstance(user, Person) else user
    headers = {"Idempotency-Key": key} if (key := said.pop("key", None)) else {}
    return await who.send("POST", f"/internal/users/{user_id}/{what}", json=said, headers=headers)


async def status_after(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return reply.json()["status"]


async def a_user(client: Client) -> Person:
    asha = client.user()
    assert (await asha.patch(PROFILE)).status == 200
    return asha


async def lifecycle_events(owner: Conn, user: Person) -> list[tuple[str, str]]:
    events = await events_of(owner, user.id)
    names = ("user.frozen.v1", "user.unfrozen.v1", "user.suspended.v1", "user.closed.v1")
    return [(event["event_type"], event["reason"]) for event in events if event["event_type"] in names]


async def test_two_parties_freeze_and_one_lifts(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    risk, wallet, other = party(client, "risk-engine"), party(client, "wallet-service"), party(client, "reports")
    assert await status_after(await does(risk, asha, "freeze", **SUSPECTED)) == "frozen"
    assert await status_after(await does(wallet, asha, "freeze", reason="risk_review")) == "frozen"
    assert await status_after(await does(risk, asha, "freeze", reason="risk_review")) == "frozen"
    assert await status_after(await does(other, asha, "unfreeze", **CLEARED)) == "frozen"
    assert await status_after(await does(risk, asha, "unfreeze", **CLEARED)) == "frozen"
    assert await status_after(await does(wallet, asha, "unfreeze", **CLEARED)) == "pending"
    assert await status_after(await does(wallet, asha, "unfreeze", **CLEARED)) == "pending"
    assert await lifecycle_events(owner, asha) == [
        ("user.frozen.v1", "suspected_fraud"),
        ("user.unfrozen.v1", "cleared"),
    ]
    sources = await owner.fetch("select source, lifted_by from account_holds order by placed_at")
    assert [(row["source"], row["lifted_by"]) for row in sources] == [("risk", risk.id), ("wallet", wallet.id)]
    actions = await actions_of(owner, asha.id)
    assert [action for action in actions if action.startswith(("hold", "status"))] == [
        "hold.placed", "status.changed", "hold.placed", "hold.lifted", "hold.lifted", "status.changed"
    ]  # fmt: skip
    assert b'user_frozen_total{reason="suspected_fraud"}' in telemetry.metrics.render()[0]


async def test_the_answer_is_masked(client: Client) -> None:
    asha = await a_user(client)
    reply = await does(party(client, "risk-engine"), asha, "freeze", **SUSPECTED)
    shown = reply.json()
    assert (shown["pii_masked"], shown["profile"]["pan_number"]) == (True, "XXXXX1234X")
    for value in (PROFILE["pan_number"], PROFILE["phone"], PROFILE["last_name"], "asha@example.in"):
        assert str(value).encode() not in reply.body


async def test_whose_hold_it_is(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    risk = party(client, "risk-engine")
    assert (await does(risk, asha, "freeze", **SUSPECTED, source="wallet")).code == "forbidden"
    assert (await does(risk, asha, "freeze", **SUSPECTED, source="risk")).status == 200
    admin = party(client, "backoffice", "admin")
    assert await status_after(await does(admin, asha, "unfreeze", **CLEARED)) == "frozen"
    assert (await does(admin, asha, "unfreeze", **CLEARED, source="Risk!")).code == "validation_failed"
    assert await status_after(await does(admin, asha, "unfreeze", **CLEARED, source="risk")) == "pending"
    await does(admin, asha, "freeze", reason="court_order")
    await does(party(client, "reports"), asha, "freeze", reason="user_request")
    sources = await owner.fetch("select source from account_holds order by placed_at")
    assert [row["source"] for row in sources] == ["risk", "admin", "internal"]


@pytest.mark.parametrize("what", ["freeze", "unfreeze", "close"])
async def test_what_cannot_be(client: Client, owner: Conn, what: str) -> None:
    asha = await a_user(client)
    admin = party(client, "backoffice", "admin")
    assert (await does(admin, uuid4(), what, reason="other", note="because")).code == "user_not_found"
    bad = await does(admin, asha, what, reason="other")
    assert (bad.status, bad.json()["errors"][0]["pointer"]) == (422, "/note")
    assert (await does(admin, asha, what, reason="whim")).status == 422
    assert (await does(admin, asha, what, reason="other", note="his Aadhaar is 2341 2341 2346")).status == 422
    assert (await does(admin, asha, what, reason="other", note="because", by="me")).status == 422
    assert (await does(asha, asha, what, reason="other", note="because")).status == 403
    await owner.execute("update users set erased_at = now() where id = $1", asha.id)
    assert (await does(admin, asha, what, reason="other", note="because")).code == "account_erased"


async def test_a_note_is_sealed(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    admin = party(client, "backoffice", "admin")
    await does(admin, asha, "freeze", reason="other", note="seen at the races")
    await does(admin, asha, "unfreeze", reason="other", note="it was his twin")
    await does(admin, asha, "close", reason="other", note="left with the twin")
    rows = await owner.fetch("select h::text as row from account_holds h union all select a::text from user_audit a")
    text = " ".join(row["row"] for row in rows)
    assert "races" not in text
    assert "twin" not in text
    assert await owner.fetchval("select note_enc is not null and lift_note_enc is not null from account_holds")


async def test_closing_is_for_good(world: World, owner: Conn) -> None:
    """It ends the open case and lifts no hold."""
    client = world.client
    asha = await world.person()
    await world.initiate(asha)
    admin, risk = party(client, "backoffice", "admin"), party(client, "risk-engine")
    await does(risk, asha, "freeze", **SUSPECTED)
    assert (await does(risk, asha, "close", reason="fraud")).status == 403
    for _ in range(2):
        assert await status_after(await does(admin, asha, "close", reason="fraud")) == "closed"
    found = await world.status(asha)
    assert (found["case"]["status"], found["case"]["rejection_code"]) == ("expired", "account_closed")
    for who, what, to in ((risk, "freeze", "frozen"), (risk, "unfreeze", "active")):
        reason = "court_order" if what == "freeze" else "cleared"
        refused = await does(who, asha, what, reason=reason)
        assert (refused.status, refused.code) == (409, "invalid_transition")
        assert (refused.json()["from"], refused.json()["to"]) == ("closed", to)
    assert await lifecycle_events(owner, asha) == [("user.frozen.v1", "suspected_fraud"), ("user.closed.v1", "fraud")]
    assert await owner.fetchval("select count(*) from account_holds where lifted_at is null") == 1
    assert (await asha.patch({"first_name": "Ashok"})).code == "account_not_active"


async def test_a_suspension_that_a_freeze_had_hidden(parts: Parts, client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    risk = party(client, "risk-engine")
    await does(risk, asha, "freeze", **SUSPECTED)
    async with parts.db.begin() as tx:
        await hold_for_kyc(tx, asha.id, "suspend", "kyc_overdue", asha.id, SYSTEM, now())
    assert await status_after(await does(risk, asha, "unfreeze", **CLEARED)) == "suspended"
    events = await events_of(owner, asha.id)
    assert [event["event_type"] for event in events][-2:] == ["user.unfrozen.v1", "user.suspended.v1"]
    assert events[-1]["version"] == events[-2]["version"]


async def test_a_deactivation_again_places_no_hold_that_was_lifted(parts: Parts, client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    event = AuthAccountDeactivated(event_id=uuid4(), occurred_at=now(), auth_id=asha.id, reason="left")
    await apply_auth_events(parts.db, parts.keyring, [], [event])
    admin = party(client, "backoffice", "admin")
    assert await status_after(await does(admin, asha, "unfreeze", **CLEARED, source="auth")) == "pending"
    await apply_auth_events(parts.db, parts.keyring, [], [event])
    await owner.execute("delete from inbox")
    await apply_auth_events(parts.db, parts.keyring, [], [event])
    assert (await asha.get()).json()["status"] == "pending"
    another = AuthAccountDeactivated(event_id=uuid4(), occurred_at=now(), auth_id=asha.id, reason="left")
    await apply_auth_events(parts.db, parts.keyring, [], [another])
    assert (await asha.get()).json()["status"] == "frozen"


async def test_the_same_key_is_the_same_answer(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    risk = party(client, "risk-engine")
    first = await does(risk, asha, "freeze", **SUSPECTED, key="one")
    await does(risk, asha, "unfreeze", **CLEARED)
    again = await does(risk, asha, "freeze", **SUSPECTED, key="one")
    assert (again.body, again.headers["Idempotency-Replayed"]) == (first.body, "true")
    assert (await asha.get()).json()["status"] == "pending"
    assert (await does(risk, asha, "freeze", reason="court_order", key="one")).code == "idempotency_mismatch"
