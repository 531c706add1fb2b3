"""Erasing a person over HTTP: the plan, what goes, what the law keeps, the certificate, and repeating it."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from tests.erasure.conftest import erase, left_of
from tests.kyc.conftest import PROFILE, World
from tests.kyc.conftest import world as world
from tests.service import Client, Person
from tests.trail import events_of
from usercore.db import Conn
from usercore.erased.actions import Certificate, Erasing, SignedCertificate
from usercore.erasure.actions import LATE, forget_late_addresses
from usercore.events import now
from usercore.signatures import public_keys, verify
from usercore.trail.actions import seal
from usercore.trail.actions import verify as verify_trail
from usercore.worker import Parts


async def a_user(client: Client) -> Person:
    asha = client.user()
    assert (await asha.patch(PROFILE)).status == 200
    said = {"consent_type": "marketing", "version": "1", "granted": True}
    headers = {"Idempotency-Key": "one"}
    assert (await asha.send("POST", "/v1/me/consents", json=said, headers=headers)).status == 201
    return asha


async def classes_of(owner: Conn, user_id: UUID) -> list[str]:
    rows = await owner.fetch("select retention_class::text from user_keys where user_id = $1 order by 1", user_id)
    return [row[0] for row in rows]


async def test_somebody_without_a_case_leaves_nothing_but_a_pseudonym(
    client: Client, desk: Person, owner: Conn, parts: Parts
) -> None:
    asha, ravi = await a_user(client), await a_user(client)
    before = (await ravi.get()).json()
    assert await left_of(owner, asha.id)
    reply = await erase(desk, asha.id)
    assert reply.status == 200, reply.body
    assert await left_of(owner, asha.id) == []
    assert await classes_of(owner, asha.id) == []
    signed = msgspec.convert(reply.json()["certificate"], SignedCertificate)
    assert verify(signed.jws, "erasure-certificate", public_keys(parts.keyring), Certificate) == signed.certificate
    assert (signed.certificate.user_id, signed.certificate.kept) == (asha.id, [])
    assert [key.retention_class for key in signed.certificate.keys_destroyed] == ["identity", "contact"]

    for path in ("/v1/me", "/v1/me/consents", "/v1/kyc/status"):
        assert (await asha.get(path)).code == "account_erased"
    assert (await desk.get(f"/internal/users/{asha.id}")).code == "account_erased"
    assert (await ravi.get()).json() == {**before}
    types = [event["event_type"] for event in await events_of(owner, asha.id)]
    assert types[-2:] == ["user.closed.v1", "user.erased.v1"]


async def test_a_dry_run_says_what_would_become_of_each_column_and_changes_nothing(
    client: Client, desk: Person, owner: Conn
) -> None:
    asha = await a_user(client)
    before = await left_of(owner, asha.id)
    reply = await erase(desk, asha.id, dry_run=True)
    assert reply.json()["dry_run"] is True
    plan = {item["column"]: item for item in reply.json()["plan"]}
    assert {plan[column]["action"] for column in before} == {"erase"}
    assert plan["user_audit.new_value"]["action"] == "keep"
    assert set(plan["user_profiles.email"]) == {"store", "column", "retention_class", "action", "until", "rule"}
    assert await left_of(owner, asha.id) == before
    assert (await asha.get()).status == 200


async def test_a_read_that_was_under_way_leaves_no_address(
    client: Client, desk: Person, owner: Conn, work: Erasing
) -> None:
    """Its row is in the trail after the erasure was committed."""
    asha = await a_user(client)
    await asha.get()
    address = await owner.fetchval("select ip_addr from user_audit where user_id = $1 limit 1", asha.id)
    assert address is not None
    await erase(desk, asha.id)
    await owner.execute(
        "insert into user_audit (event_id, user_id, actor_id, actor_kind, action, resource, ip_addr, leaf_hash, "
        "\"timestamp\") select gen_random_uuid(), user_id, actor_id, actor_kind, action, resource, $2, leaf_hash, now()"
        " from user_audit where user_id = $1 and action = 'profile.read' limit 1",
        asha.id, address,
    )  # fmt: skip
    assert await left_of(owner, asha.id) == ["user_audit.ip_addr"]
    at = now()
    assert await forget_late_addresses(work, at) == 0
    assert await forget_late_addresses(work, at + LATE) == 1
    assert await forget_late_addresses(work, at + LATE) == 0
    assert await left_of(owner, asha.id) == []


async def test_again_it_is_the_same_certificate_and_nothing_more(client: Client, desk: Person, owner: Conn) -> None:
    asha = await a_user(client)
    first = await erase(desk, asha.id)
    events = await events_of(owner, asha.id)
    again = await erase(desk, asha.id, reason="legal_order")
    assert (again.status, again.json()) == (200, first.json())
    assert await events_of(owner, asha.id) == events
    dry = await erase(desk, asha.id, dry_run=True)
    assert dry.status == 200


async def test_an_idempotency_key_answers_the_certificate_again(client: Client, desk: Person) -> None:
    asha = await a_user(client)
    path, said = f"/internal/users/{asha.id}/erase", {"reason": "user_request"}
    first = await desk.send("POST", path, json=said, headers={"Idempotency-Key": "k"})
    again = await desk.send("POST", path, json=said, headers={"Idempotency-Key": "k"})
    other = await desk.send("POST", path, json={"reason": "legal_order"}, headers={"Idempotency-Key": "k"})
    assert (again.status, again.json()) == (200, first.json())
    assert other.code == "idempotency_mismatch"


async def test_a_court_order_keeps_everything(client: Client, desk: Person, owner: Conn) -> None:
    asha = await a_user(client)
    path = f"/internal/users/{asha.id}"
    assert (await desk.send("POST", f"{path}/freeze", json={"reason": "court_order"})).status == 200
    before = await left_of(owner, asha.id)
    reply = await erase(desk, asha.id)
    assert (reply.status, reply.code) == (409, "legal_hold")
    assert await left_of(owner, asha.id) == before
    lifted = {"reason": "court_order_lifted"}
    assert (await desk.send("POST", f"{path}/unfreeze", json=lifted)).status == 200
    assert (await erase(desk, asha.id)).status == 200


async def test_bad_input(client: Client, desk: Person) -> None:
    asha = await a_user(client)
    assert (await erase(desk, uuid4())).code == "user_not_found"
    assert (await erase(desk, asha.id, reason="other")).status == 422
    assert (await erase(desk, asha.id, reason="because")).status == 422
    assert (await erase(desk, asha.id, force=True)).status == 422
    internal = client.user(scope="internal")
    assert (await erase(internal, asha.id)).status == 403
    assert (await asha.get()).status == 200


async def test_what_the_law_keeps_is_locked_until_it_falls_due(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    desk = world.client.user(scope="admin")
    reply = await erase(desk, asha.id)
    assert reply.status == 200, reply.body
    certificate = msgspec.convert(reply.json()["certificate"]["certificate"], Certificate)
    assert [each.retention_class for each in certificate.kept] == ["identity", "kyc_evidence"]
    years = [round((each.until - certificate.erased_at) / timedelta(days=365.25)) for each in certificate.kept]
    assert years == [8, 5]
    assert await classes_of(owner, asha.id) == ["identity_locked", "kyc_evidence_locked"]
    left = await left_of(owner, asha.id)
    assert left
    assert not any(name.endswith(("_index", "email", "phone_enc", "digest")) for name in left)
    for path in ("", "?reveal=pan_number&purpose=compliance"):
        assert (await desk.get(f"/internal/users/{asha.id}{path}")).status in (403, 410)


async def test_the_trail_stays_whole(client: Client, desk: Person, parts: Parts, owner: Conn) -> None:
    asha = await a_user(client)
    await seal(parts.db, parts.keyring)
    await erase(desk, asha.id)
    await seal(parts.db, parts.keyring)
    found = await verify_trail(parts.db, parts.keyring)
    assert (found.finding, found.unsealed) == (None, 0)
    reply = await desk.get(f"/internal/users/{asha.id}/audit")
    items: list[dict[str, Any]] = reply.json()["items"]
    assert items[0]["action"] == "user.erased"
    assert {item["ip_addr"] for item in items if item["actor_id"] == str(asha.id)} == {None}
    assert "keys_destroyed" in json.dumps(items[0]["new_value"])


async def test_who_was_erased_does_not_come_back_by_an_event_or_a_token(client: Client, desk: Person) -> None:
    asha = await a_user(client)
    await erase(desk, asha.id)
    assert (await asha.patch({"first_name": "Asha"})).code == "account_erased"
    assert (await asha.get()).code == "account_erased"


async def test_the_plan_is_kept_to_for_every_column_of_the_registry(client: Client, desk: Person, owner: Conn) -> None:
    asha = await a_user(client)
    plan = (await erase(desk, asha.id, dry_run=True)).json()["plan"]
    await erase(desk, asha.id)
    kept = {item["column"] for item in plan if item["action"] == "keep"}
    assert set(await left_of(owner, asha.id)) <= kept


async def test_a_legal_request_alone_opens_what_the_law_keeps_and_is_recorded(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    pan = (await asha.get()).json()["profile"]["pan_number"]
    court = world.client.user(scope="admin pii:read", client_id="court-liaison")
    assert (await erase(court, asha.id)).status == 200
    path = f"/internal/users/{asha.id}?reveal=pan_number,phone"
    for purpose in ("support", "compliance", "fraud_investigation", "operations"):
        assert (await court.get(f"{path}&purpose={purpose}")).code == "account_erased"
    assert (await court.get(f"/internal/users/{asha.id}")).code == "account_erased"
    without = world.client.user(scope="admin")
    assert (await without.get(f"{path}&purpose=legal_request")).status == 403
    reply = await court.get(f"{path}&purpose=legal_request")
    assert reply.status == 200, reply.body
    profile = reply.json()["profile"]
    assert (profile["pan_number"], profile["phone"], profile["email"]) == (pan, None, None)
    assert profile["first_name"] not in (None, "Asha")
    row = await owner.fetchrow(
        "select recipient, purpose::text, fields from pii_disclosures where user_id = $1 order by at desc limit 1",
        asha.id,
    )
    assert row is not None
    assert tuple(row) == ("court-liaison", "legal_request", ["pan_number", "phone"])


async def test_a_court_order_counts_also_of_a_party_that_froze_the_account_before(client: Client, desk: Person) -> None:
    asha = await a_user(client)
    path = f"/internal/users/{asha.id}"
    for reason in ("suspected_fraud", "court_order", "court_order"):
        assert (await desk.send("POST", f"{path}/freeze", json={"reason": reason})).status == 200
    assert (await erase(desk, asha.id)).code == "legal_hold"
