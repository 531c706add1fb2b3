"""/v1/me/consents: grants, withdrawals, history, idempotency keys."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.service import Client, Person, Reply
from tests.trail import actions_of, events_of
from usercore.db import Conn
from usercore.idempotency import stored_key

PATH = "/v1/me/consents"


async def say(person: Person, granted: bool, *, key: str | None = None, **body: Any) -> Reply:
    said = {"consent_type": "marketing", "version": "2026-01", "granted": granted, **body}
    return await person.send("POST", PATH, json=said, headers={} if key is None else {"Idempotency-Key": key})


async def test_a_grant(client: Client, owner: Conn) -> None:
    asha = client.user()
    reply = await say(asha, True)
    assert reply.status == 201
    body = reply.json()
    assert body == {
        "id": body["id"],
        "consent_type": "marketing",
        "version": "2026-01",
        "granted": True,
        "ip_addr": "127.0.0.1",
        "granted_at": body["granted_at"],
        "revoked_at": None,
    }
    assert (await asha.get(PATH)).json() == {"items": [body]}
    assert await actions_of(owner, asha.id) == ["user.created", "consent.granted"]
    assert len(await events_of(owner, asha.id)) == 1, "consents have no event of their own"


async def test_a_withdrawal_is_a_row_of_its_own_and_ends_the_grant(client: Client, owner: Conn) -> None:
    asha = client.user()
    granted = (await say(asha, True)).json()
    withdrawn = (await say(asha, False)).json()
    assert (withdrawn["granted"], withdrawn["granted_at"]) == (False, granted["granted_at"])
    assert withdrawn["revoked_at"] is not None
    assert (await asha.get(PATH)).json()["items"] == [withdrawn]
    history = (await asha.get(f"{PATH}?history=true")).json()["items"]
    assert history == [{**granted, "revoked_at": withdrawn["revoked_at"]}, withdrawn]
    assert (await actions_of(owner, asha.id))[1:] == ["consent.granted", "consent.revoked"]


async def test_a_newer_grant_ends_the_older_one(client: Client, owner: Conn) -> None:
    asha = client.user()
    await say(asha, True)
    newer = (await say(asha, True, version="2026-07")).json()
    await say(asha, True, consent_type="risk_disclosure")
    items = (await asha.get(PATH)).json()["items"]
    assert {item["consent_type"]: item["version"] for item in items} == {
        "marketing": "2026-07",
        "risk_disclosure": "2026-01",
    }
    assert newer in items
    active = await owner.fetchval(
        "select count(*) from user_consents where user_id = $1 and granted and revoked_at is null", asha.id
    )
    assert active == 2


async def test_nothing_to_withdraw(client: Client) -> None:
    asha = client.user()
    reply = await say(asha, False)
    assert (reply.status, reply.code) == (409, "consent_not_granted")
    await say(asha, True)
    await say(asha, False)
    assert (await say(asha, False)).code == "consent_not_granted"


@pytest.mark.parametrize("status", ["frozen", "suspended", "closed"])
async def test_withdrawal_is_open_in_every_status_and_granting_is_not(client: Client, owner: Conn, status: str) -> None:
    asha = client.user()
    await say(asha, True)
    await owner.execute("update users set status = $2::user_status where id = $1", asha.id, status)
    assert (await say(asha, True)).code == "account_not_active"
    assert (await say(asha, False)).status == 201


@pytest.mark.parametrize(
    "change",
    [{"consent_type": "everything"}, {"granted": "yes"}, {"granted": 1}, {"version": ""}, {"version": "x" * 65}],
)
async def test_invalid_consents(client: Client, change: dict[str, object]) -> None:
    said = {"consent_type": "marketing", "version": "2026-01", "granted": True, **change}
    reply = await client.user().send("POST", PATH, json=said)
    assert (reply.status, reply.code) == (422, "validation_failed")
    assert [error["pointer"] for error in reply.json()["errors"]] == [f"/{next(iter(change))}"]


async def test_the_same_key_gets_the_first_answer_again(client: Client, owner: Conn) -> None:
    asha = client.user()
    first = await say(asha, True, key="k-1")
    again = await say(asha, True, key="k-1")
    assert (again.status, again.body) == (first.status, first.body)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await actions_of(owner, asha.id)).count("consent.granted") == 1
    other_body = await say(asha, False, key="k-1")
    assert (other_body.status, other_body.code) == (422, "idempotency_mismatch")
    ravi = client.user()
    assert (await say(ravi, True, key="k-1")).json()["id"] != first.json()["id"], "a key is its subject's own"


async def test_a_refusal_is_given_again_too(client: Client) -> None:
    asha = client.user()
    first = await say(asha, False, key="k-1")
    await say(asha, True)
    again = await say(asha, False, key="k-1")
    assert (again.status, again.body) == (409, first.body)
    assert again.headers["Content-Type"] == "application/problem+json"
    assert (await say(asha, False, key="k-2")).status == 201


async def test_a_broken_key_keeps_no_answers(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    await owner.execute("update user_keys set wrapped = sha256(wrapped) where user_id = $1", asha.id)
    reply = await say(asha, True, key="k-1")
    assert (reply.status, reply.code) == (503, "keys_unavailable")
    assert "consent.granted" not in await actions_of(owner, asha.id)
    assert (await say(asha, True)).status == 201


async def test_duplicates_at_once_have_one_effect(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    replies = await asyncio.gather(*(say(asha, True, key="k-1") for _ in range(8)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in replies}) == 1
    assert await owner.fetchval("select count(*) from user_consents where user_id = $1", asha.id) == 1


async def test_a_duplicate_of_one_that_is_under_way_is_told_so(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    async with owner.transaction():
        await owner.execute(
            "insert into idempotency_keys values ($1, 'POST', $2, $3, '\\x00')",
            asha.id,
            PATH,
            stored_key(asha.id, "k-1"),
        )  # as a first request does before it commits
        second = await say(asha, True, key="k-1")
    assert (second.status, second.code) == (409, "idempotency_in_progress")


async def test_who_cannot_get_the_users_lock_may_try_again(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    async with owner.transaction():
        await owner.execute("select 1 from users where id = $1 for update", asha.id)
        reply = await say(asha, True, key="k-1")
    assert reply.status == 503
    assert "Retry-After" in reply.headers
    assert (await say(asha, True, key="k-1")).status == 201, "a 503 is not an answer to keep"


async def test_answers_are_sealed_and_end_after_a_day(client: Client, owner: Conn) -> None:
    asha = client.user()
    first = await say(asha, True, key="k-1")
    row = await owner.fetchrow("select * from idempotency_keys where sub = $1", asha.id)
    assert row is not None
    assert first.json()["id"].encode() not in row["body_enc"]
    await owner.execute("update idempotency_keys set created_at = now() - interval '25 hours'")
    assert (await say(asha, True, key="k-1")).json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_keys_that_are_none(client: Client, key: str) -> None:
    reply = await say(client.user(), True, key=key)
    assert reply.status == 422


@pytest.mark.parametrize(
    "statement",
    [
        "update user_consents set granted = false",
        "update user_consents set version = 'x', revoked_at = now()",
        "delete from user_consents",
        "truncate user_consents",
    ],
)
async def test_consents_are_append_only_even_for_the_owner(client: Client, owner: Conn, statement: str) -> None:
    await say(client.user(), True)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await owner.execute(statement)
