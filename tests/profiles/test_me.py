"""GET and PATCH /v1/me: status, body, row, audit, outbox."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from tests.chaos.locks import LOCKS_WAITED_FOR, becomes
from tests.service import Client, Person
from tests.trail import actions_of, events_of
from usercore.db import Conn
from usercore.worker import Parts

ADDRESS = {"line1": "14 MG Road", "city": "Pune", "state": "Maharashtra", "pin_code": "411001"}
FULL = {
    "first_name": "Asha",
    "last_name": "Verma",
    "date_of_birth": "1994-08-12",
    "pan_number": "ABCPV1234F",
    "aadhaar_last4": "4321",
    "address": ADDRESS,
    "phone": "98765 43210",
    "avatar_url": "https://cdn.example.in/a.png",
}
EMPTY = dict.fromkeys(
    ["first_name", "last_name", "date_of_birth", "pan_number", "aadhaar_last4", "address", "phone", "avatar_url"]
)


async def test_the_first_call_creates_the_user(client: Client, owner: Conn) -> None:
    asha = client.user()
    reply = await asha.get()
    assert reply.status == 200
    assert reply.headers["ETag"] == '"1"'
    assert reply.headers["Cache-Control"] == "no-store"
    body = reply.json()
    at = body["created_at"]
    assert at.endswith("Z")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds() < 30
    assert body == {
        "id": str(asha.id),
        "status": "pending",
        "kyc_status": "not_started",
        "kyc_tier": "tier_0",
        "created_at": at,
        "updated_at": at,
        "verified_at": None,
        "profile": {**EMPTY, "email": "asha@example.in", "updated_at": at},
        "pii_masked": False,
    }
    assert await actions_of(owner, asha.id) == ["user.created", "profile.read"]
    (created,) = await events_of(owner, asha.id)
    assert (created["event_type"], created["version"], created["status"]) == ("user.created.v1", 1, "pending")
    assert await owner.fetchval("select count(*) from notification_prefs where user_id = $1", asha.id) == 1
    assert await owner.fetchval("select count(*) from user_keys where user_id = $1", asha.id) == 2


@pytest.mark.parametrize("claim", [None, "not an address", "a@b@c", "a b@c.in", "x" * 400 + "@y.in"])
async def test_a_token_without_a_usable_email_leaves_it_to_auth(client: Client, claim: str | None) -> None:
    assert (await client.user(email=claim).get()).json()["profile"]["email"] is None


async def test_a_tokens_email_never_overwrites_the_one_that_is_there(client: Client) -> None:
    asha = client.user()
    await asha.get()
    later = client.user(email="other@example.in", sub=asha.id)
    assert (await later.get()).json()["profile"]["email"] == "asha@example.in"


async def test_a_patch_changes_what_it_names_and_seals_it(client: Client, owner: Conn) -> None:
    asha = client.user()
    reply = await asha.patch(FULL)
    assert reply.status == 200
    assert reply.headers["ETag"] == '"2"'
    body = reply.json()
    profile = body["profile"]
    expected = {**FULL, "phone": "+919876543210", "address": {**ADDRESS, "line2": None, "country": "IN"}}
    assert profile == {**expected, "email": "asha@example.in", "updated_at": profile["updated_at"]}
    assert (await asha.get()).json() == body

    row = await owner.fetchrow("select * from user_profiles where user_id = $1", asha.id)
    assert row is not None
    stored = msgspec.json.encode({name: str(value) for name, value in row.items()}) + b"".join(
        value for value in row.values() if isinstance(value, bytes)
    )
    for secret in ("Asha", "Verma", "1994-08-12", "ABCPV1234F", "MG Road", "Pune", "9876543210"):
        assert secret.encode() not in stored
    assert all(row[f"{name}_enc"] is not None for name in FULL if name != "avatar_url")

    assert await actions_of(owner, asha.id) == ["user.created", "profile.updated", "profile.read", "profile.read"]
    _, updated = await events_of(owner, asha.id)
    assert updated["event_type"] == "user.updated.v1"
    assert (updated["version"], updated["changed_fields"]) == (2, sorted(FULL))
    audited = await owner.fetchrow(
        "select * from user_audit where user_id = $1 and action = 'profile.updated'", asha.id
    )
    assert audited is not None
    assert audited["actor_id"] == asha.id
    assert (audited["actor_kind"], audited["resource"], str(audited["ip_addr"])) == (
        "user",
        "user_profiles",
        "127.0.0.1",
    )
    new = msgspec.json.decode(audited["new_value"])
    assert new.keys() == FULL.keys()
    assert all(list(value) == ["sealed"] for value in new.values()), "also cleartext columns are sealed in the trail"


async def test_absent_stays_null_clears_and_the_address_is_merged(client: Client) -> None:
    asha = client.user()
    await asha.patch(FULL)
    body = (await asha.patch({"phone": None, "address": {"city": "Mumbai", "line2": "Flat 3"}})).json()
    assert body["profile"]["phone"] is None
    assert body["profile"]["first_name"] == "Asha"
    assert body["profile"]["address"] == {**ADDRESS, "city": "Mumbai", "line2": "Flat 3", "country": "IN"}
    body = (await asha.patch({"address": {"line2": None, "country": "US"}})).json()
    assert body["profile"]["address"] == {**ADDRESS, "city": "Mumbai", "line2": None, "country": "US"}
    body = (await asha.patch({"address": {"country": None}})).json()
    assert body["profile"]["address"]["country"] == "IN"
    assert (await asha.patch({"address": None})).json()["profile"]["address"] is None


async def test_the_merged_address_must_be_complete(client: Client) -> None:
    asha = client.user()
    reply = await asha.patch({"address": {"city": "Pune", "state": "Maharashtra"}})
    assert (reply.status, reply.code) == (422, "validation_failed")
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/address/line1", "/address/pin_code"]
    await asha.patch({"address": ADDRESS})
    reply = await asha.patch({"address": {"pin_code": None}})
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/address/pin_code"]


async def test_a_patch_that_changes_nothing_leaves_no_trace_but_its_read(client: Client, owner: Conn) -> None:
    asha = client.user()
    before = (await asha.patch(FULL)).json()
    for same in ({}, FULL, {"phone": "+919876543210"}, {"address": {"city": "Pune"}}):
        reply = await asha.patch(same)
        assert (reply.status, reply.headers["ETag"], reply.json()) == (200, '"2"', before)
    assert len(await events_of(owner, asha.id)) == 2
    assert (await actions_of(owner, asha.id)).count("profile.read") == 5


@pytest.mark.parametrize(
    ("patch", "pointer", "code"),
    [
        ({"pan_number": "ABCCV1234F"}, "/pan_number", "pan_format"),
        ({"pan_number": "ABCPV1234F\n"}, "/pan_number", "pan_format"),
        ({"pan_number": "ABCPV१२३४F"}, "/pan_number", "pan_format"),
        ({"phone": "12345"}, "/phone", None),
        ({"date_of_birth": "1994-02-30"}, "/date_of_birth", None),
        ({"date_of_birth": f"{datetime.now(UTC).year - 17}-01-01"}, "/date_of_birth", None),
        ({"aadhaar_last4": "12345"}, "/aadhaar_last4", None),
        ({"avatar_url": "http://cdn.example.in/a.png"}, "/avatar_url", None),
        ({"address": {**ADDRESS, "pin_code": "011001"}}, "/address/pin_code", None),
        ({"address": {**ADDRESS, "country": "XX"}}, "/address/country", None),
        ({"address": {**ADDRESS, "line1": "Aadhaar 2341 2341 2346"}}, "/address/line1", None),
        ({"first_name": 7}, "/first_name", None),
        ({"kyc_tier": "tier_3"}, "", "unknown_field"),
        ({"address": {**ADDRESS, "planet": "earth"}}, "/address", "unknown_field"),
    ],
)
async def test_invalid_values_are_named_and_never_echoed(
    client: Client, owner: Conn, patch: dict[str, object], pointer: str, code: str | None
) -> None:
    asha = client.user()
    reply = await asha.patch(patch)
    assert (reply.status, reply.code) == (422, "validation_failed")
    assert reply.headers["Content-Type"] == "application/problem+json"
    (error,) = reply.json()["errors"]
    assert error["pointer"] == pointer
    assert code is None or error["code"] == code
    for value in patch.values():
        assert len(str(value)) < 4 or str(value).encode() not in reply.body
    assert "profile.updated" not in await actions_of(owner, asha.id)


async def test_every_problem_is_named_at_once(client: Client) -> None:
    reply = await client.user().patch({"pan_number": "x", "phone": "x", "address": {"pin_code": "x", "city": ""}})
    pointers = {error["pointer"] for error in reply.json()["errors"]}
    assert pointers == {"/pan_number", "/phone", "/address/pin_code", "/address/city"}


async def test_email_is_managed_by_auth(client: Client) -> None:
    reply = await client.user().patch({"email": "new@example.in"})
    assert (reply.status, reply.code) == (422, "email_managed_by_auth")


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b'{"first_name":', "application/json", 400, "malformed_body"),
        (b'{"first_name":"\xff"}', "application/json", 400, "malformed_body"),
        (b"", "application/json", 400, "malformed_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/merge-patch+json", 200, None),
        (b"{}", "application/json; charset=utf-8", 200, None),
        (b'{"first_name":"' + b"a" * 70_000 + b'"}', "application/json", 413, "body_too_large"),
        (b"[]", "application/json", 422, "validation_failed"),
    ],
)
async def test_bodies_that_are_none(
    client: Client, body: bytes, media_type: str, status: int, code: str | None
) -> None:
    reply = await client.user().send("PATCH", "/v1/me", body=body, headers={"Content-Type": media_type})
    assert reply.status == status, reply.body
    assert code is None or reply.code == code


async def test_conditional_requests(client: Client, owner: Conn) -> None:
    asha = client.user()
    etag = (await asha.get()).headers["ETag"]
    reads = (await actions_of(owner, asha.id)).count("profile.read")
    for matching in (etag, f"W/{etag}", f'"7", {etag}', "*"):
        reply = await asha.get(headers={"If-None-Match": matching})
        assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", etag)
    assert (await actions_of(owner, asha.id)).count("profile.read") == reads, "304 opens nothing and writes no row"
    assert (await asha.get(headers={"If-None-Match": '"7"'})).status == 200

    stale = await asha.patch({"first_name": "Asha"}, headers={"If-Match": '"7"'})
    assert (stale.status, stale.code) == (412, "version_mismatch")
    weak = await asha.patch({"first_name": "Asha"}, headers={"If-Match": f"W/{etag}"})
    assert weak.status == 412
    assert (await asha.patch({"first_name": "Asha"}, headers={"If-Match": etag})).status == 200
    assert (await asha.patch({"first_name": "Usha"}, headers={"If-Match": etag})).status == 412
    assert (await asha.patch({"first_name": "Usha"}, headers={"If-Match": "*"})).status == 200


async def test_head_opens_nothing(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    before = await actions_of(owner, asha.id)
    reply = await asha.send("HEAD", "/v1/me")
    assert (reply.status, reply.body, reply.headers["ETag"]) == (200, b"", '"1"')
    assert await actions_of(owner, asha.id) == before


@pytest.mark.parametrize("status", ["frozen", "suspended", "closed"])
async def test_an_account_that_is_not_active_cannot_be_changed_and_can_be_read(
    client: Client, owner: Conn, status: str
) -> None:
    asha = client.user()
    await asha.get()
    await owner.execute("update users set status = $2::user_status where id = $1", asha.id, status)
    reply = await asha.patch({"first_name": "Asha"})
    assert (reply.status, reply.code) == (409, "account_not_active")
    assert (await asha.get()).json()["status"] == status


@pytest.mark.parametrize("kyc_status", ["pending", "in_review", "approved"])
async def test_identity_is_locked_while_kyc_goes_on_and_after_approval(
    client: Client, owner: Conn, kyc_status: str
) -> None:
    asha = client.user()
    await asha.patch(FULL)
    await owner.execute("update users set kyc_status = $2::user_kyc_status where id = $1", asha.id, kyc_status)
    for name in ("first_name", "last_name", "date_of_birth", "pan_number", "aadhaar_last4"):
        reply = await asha.patch({name: None})
        assert (reply.status, reply.code) == (409, "identity_locked")
    assert (await asha.patch({"first_name": "Asha"})).status == 200, "the same value again is no change"
    assert (await asha.patch({"phone": "9123456789"})).status == 200


async def test_an_erased_account_is_gone(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    await owner.execute("update users set erased_at = now() where id = $1", asha.id)
    before = await actions_of(owner, asha.id)
    for reply in (
        await asha.get(),
        await asha.get(headers={"If-None-Match": '"1"'}),
        await asha.patch({"first_name": "Asha"}),
        await asha.get("/v1/me/consents"),
        await asha.get("/v1/me/notification-prefs"),
    ):
        assert (reply.status, reply.code) == (410, "account_erased")
    assert await actions_of(owner, asha.id) == before


async def test_patches_are_limited_per_user(client: Client, environ: dict[str, str]) -> None:
    limit = int(environ["PROFILE_PATCH_LIMIT_PER_MINUTE"])
    asha, ravi = client.user(), client.user()
    reply = await asha.patch({})
    assert reply.headers["RateLimit-Policy"] == f'"profile_patch";q={limit};w=60'
    assert reply.headers["RateLimit"].startswith(f'"profile_patch";r={limit - 1};')
    assert (await ravi.patch({})).headers["RateLimit"].startswith(f'"profile_patch";r={limit - 1};')


class TestLimit:
    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return {**environ, "PROFILE_PATCH_LIMIT_PER_MINUTE": "3"}

    async def test_beyond_the_limit_is_429(self, client: Client) -> None:
        asha = client.user()
        codes = [(await asha.patch(body)).status for body in ({}, {"pan_number": "x"}, {"nonsense": 1})]
        assert codes == [200, 422, 422], "attempts count, whatever becomes of them"
        reply = await asha.patch({})
        assert (reply.status, reply.code) == (429, "rate_limited")
        assert 0 < int(reply.headers["Retry-After"]) <= 60
        assert (await asha.get()).status == 200


async def test_a_patch_that_was_outrun_starts_again(client: Client, owner: Conn) -> None:
    """Its statement waits for another change of the user, finds another version, and must not write over it."""
    asha = client.user()
    await asha.patch({"first_name": "Asha", "last_name": "Verma"})
    async with owner.transaction():
        await owner.execute("update users set version = version + 1, status = 'active' where id = $1", asha.id)
        waiting = asyncio.create_task(asha.patch({"first_name": "Usha"}))
        await becomes(owner, LOCKS_WAITED_FOR, 1)
    reply = await waiting
    assert reply.status == 200
    assert reply.headers["ETag"] == '"4"'
    assert (reply.json()["status"], reply.json()["profile"]["first_name"]) == ("active", "Usha")
    assert (await actions_of(owner, asha.id)).count("profile.updated") == 2
    assert [event["version"] for event in await events_of(owner, asha.id)] == [1, 2, 4]

    async with owner.transaction():
        await owner.execute("update users set version = version + 1, status = 'frozen' where id = $1", asha.id)
        waiting = asyncio.create_task(asha.patch({"first_name": "Isha"}))
        await becomes(owner, LOCKS_WAITED_FOR, 1)
    assert (await waiting).code == "account_not_active"


async def test_concurrent_patches_lose_nothing(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.patch(FULL)
    fields = {"first_name": "Usha", "last_name": "Rao", "phone": "9123456789", "avatar_url": "https://x.in/b.png"}
    replies = await asyncio.gather(*(asha.patch({name: value}) for name, value in fields.items()))
    assert [reply.status for reply in replies] == [200] * 4
    profile = (await asha.get()).json()["profile"]
    assert {name: profile[name] for name in fields} == {**fields, "phone": "+919123456789"}
    versions = [event["version"] for event in await events_of(owner, asha.id)]
    assert versions == [1, 2, 3, 4, 5, 6]


async def damaged(person: Person, owner: Conn, statement: str) -> None:
    await person.patch(FULL)
    await owner.execute(statement, person.id)


DAMAGE = {
    "corrupt": "update user_profiles set first_name_enc = "
    "set_byte(first_name_enc, 30, 255 - get_byte(first_name_enc, 30)) where user_id = $1",
    "swapped": "update user_profiles set first_name_enc = last_name_enc where user_id = $1",
    "key_gone": "delete from user_keys where user_id = $1 and retention_class = 'identity'",
    "key_corrupt": "update user_keys set wrapped = set_byte(wrapped, 20, 255 - get_byte(wrapped, 20)) "
    "where user_id = $1 and retention_class = 'identity'",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_data_that_does_not_open_is_masked_and_can_be_replaced(
    client: Client, owner: Conn, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asha = client.user()
    await damaged(asha, owner, DAMAGE[damage])
    reply = await asha.get()
    assert reply.status == 200
    assert "ETag" not in reply.headers
    body = reply.json()
    assert body["pii_masked"] is True
    # Without the instant, whose digits may be those of a year.
    shown = msgspec.json.encode({**body["profile"], "updated_at": None})
    for secret in (b"Asha", b"Verma", b"1994", b"ABCPV", b"1234", b"MG Road", b"Pune", b"98765", b"asha@"):
        assert secret not in shown
    assert '"event":"pii_open_failed"' in capfd.readouterr().err
    metrics = (await client.send("GET", "/metrics")).body.decode()
    assert "usercore_pii_open_failures_total{reason=" in metrics

    partial = await asha.patch({"address": {"city": "Mumbai"}})
    if damage in ("key_gone", "key_corrupt"):
        assert (partial.status, partial.code) == (409, "pii_unavailable"), "nobody can merge with what does not open"
    whole = {**FULL, "address": {**ADDRESS, "line2": None, "country": "IN"}, "first_name": "Usha"}
    reply = await asha.patch(whole)
    assert reply.status == 200, reply.body
    assert reply.json()["pii_masked"] is False
    assert (await asha.get()).json()["profile"]["first_name"] == "Usha"


class TestWithoutKeys:
    """The KMS is away when the service starts."""

    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return {**environ, "PII_ENCRYPTION_KEY_ID": "local:///nowhere/kms.json"}

    async def test_reads_are_masked_and_writes_wait(
        self, client: Client, parts: Parts, owner: Conn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready = await client.send("GET", "/health/ready")
        assert (ready.status, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["components"]["kms"] == "unavailable"
        reply = await client.user().get()
        assert (reply.status, reply.code) == (503, "keys_unavailable")
        assert "Retry-After" in reply.headers
        assert await owner.fetchval("select count(*) from users") == 0
