"""Looking at one user, finding users, and what the person sees of it."""

import itertools
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from tests.accounts.test_holds import a_user, does, party
from tests.kyc.conftest import PROFILE, World
from tests.kyc.conftest import world as world
from tests.service import Client, Person, Reply
from tests.trail import actions_of
from usercore.db import Conn
from usercore.events import now


async def found(admin: Person, **asked: Any) -> Any:
    reply = await admin.send("POST", "/admin/users/search", json=asked)
    assert reply.status == 200, reply.body
    return reply.json()


async def ids(admin: Person, **asked: Any) -> list[UUID]:
    return [UUID(item["id"]) for item in (await found(admin, **asked))["items"]]


async def test_masked_and_revealed(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    support = party(client, "helpdesk", "internal pii:read")
    path = f"/internal/users/{asha.id}"
    masked = (await support.get(path)).json()
    assert masked["pii_masked"] is True
    assert (masked["profile"]["first_name"], masked["profile"]["phone"]) == ("AXXXX", "+91XXXXXX3210")
    assert masked["profile"]["address"]["state"] == "Maharashtra"
    assert await owner.fetchval("select count(*) from pii_disclosures") == 0

    shown = (await support.get(f"{path}?reveal=phone,address&purpose=support")).json()["profile"]
    assert (shown["phone"], shown["address"]["line1"]) == (PROFILE["phone"], "14 MG Road")
    assert (shown["first_name"], shown["pan_number"]) == ("AXXXX", "XXXXX1234X")
    row = await owner.fetchrow("select * from pii_disclosures")
    assert row is not None
    assert (row["recipient"], row["fields"], row["purpose"]) == ("helpdesk", ["address", "phone"], "support")
    assert (await actions_of(owner, asha.id))[-2:] == ["profile.read", "pii.revealed"]


@pytest.mark.parametrize(
    ("scope", "query", "status"),
    [
        ("internal pii:read", "reveal=phone", 422),
        ("internal pii:read", "reveal=phone&purpose=curiosity", 422),
        ("internal pii:read", "reveal=secrets&purpose=support", 422),
        ("internal", "reveal=phone&purpose=support", 403),
        ("admin", "reveal=phone&purpose=support", 403),
    ],
)
async def test_what_is_not_revealed(client: Client, owner: Conn, scope: str, query: str, status: int) -> None:
    asha = await a_user(client)
    reply = await party(client, "helpdesk", scope).get(f"/internal/users/{asha.id}?{query}")
    assert reply.status == status
    assert str(PROFILE["phone"]).encode() not in reply.body
    assert await owner.fetchval("select count(*) from pii_disclosures") == 0


async def test_nobody(client: Client, owner: Conn) -> None:
    support = party(client, "helpdesk", "internal pii:read")
    for query in ("", "?reveal=phone&purpose=support"):
        assert (await support.get(f"/internal/users/{uuid4()}{query}")).code == "user_not_found"
    assert (await support.get("/internal/users/asha")).status == 404
    assert await owner.fetchval("select count(*) from users") == 0, "a service's call creates nobody"


async def test_search_by_any_combination(client: Client, owner: Conn) -> None:
    people: list[Person] = []
    for number in range(8):
        person = client.user(email=f"p{number % 4}@example.in")
        changes = {"phone": f"+9198765432{number % 2}0", "pan_number": f"ABCPV123{number}F"}
        assert (await person.patch({**PROFILE, **changes})).status == 200
        people.append(person)
    admin = party(client, "backoffice", "admin")
    await does(admin, people[5], "freeze", reason="risk_review")
    await does(admin, people[7], "freeze", reason="risk_review")
    filters: dict[str, tuple[object, set[int]]] = {
        "email": ("P1@example.in", {1, 5}),
        "phone": ("+919876543210", {1, 3, 5, 7}),
        "status": ("frozen", {5, 7}),
        "kyc_status": ("not_started", set(range(8))),
        "kyc_tier": ("tier_0", set(range(8))),
        "pan_number": ("ABCPV1235F", {5}),
    }
    for count in range(1, len(filters) + 1):
        for names in itertools.combinations(filters, count):
            asked = {name: filters[name][0] for name in names}
            wanted = set.intersection(*(filters[name][1] for name in names))
            assert await ids(admin, **asked) == [people[number].id for number in sorted(wanted, reverse=True)], asked
    assert await ids(admin, kyc_status="approved") == []
    tomorrow = (now() + timedelta(days=1)).isoformat()
    assert await ids(admin, created_from=tomorrow) == []
    for name in ("created_from", "created_to"):
        refused = await admin.send("POST", "/admin/users/search", json={name: "2026-01-01T00:00:00"})
        assert (refused.status, refused.json()["errors"][0]["pointer"]) == (422, f"/{name}")
    assert len(await ids(admin, created_to=tomorrow)) == 8
    shown = (await found(admin, email="p1@example.in"))["items"][0]
    assert shown.keys() == {"id", "email", "status", "kyc_status", "kyc_tier", "created_at", "verified_at"}
    assert shown["email"] == "pXXXX@example.in"


async def test_every_page_once(client: Client) -> None:
    people = [client.user(email=f"p{number}@example.in") for number in range(7)]
    for person in people:
        assert (await person.get()).status == 200
    admin = party(client, "backoffice", "admin")
    for limit in (1, 2, 3, 7, 8):
        seen: list[UUID] = []
        cursor: str | None = None
        while True:
            page = await found(admin, status="pending", limit=limit, cursor=cursor)
            seen += [UUID(item["id"]) for item in page["items"]]
            cursor = page["next_cursor"]
            # Somebody new is newer than all pages that are still to come.
            assert (await client.user().get()).status == 200
            if cursor is None:
                break
        assert [user for user in seen if user in {person.id for person in people}] == [
            person.id for person in reversed(people)
        ]
        assert len(set(seen)) == len(seen)


async def test_a_cursor_is_good_for_its_search_alone(client: Client) -> None:
    for number in range(3):
        assert (await client.user(email=f"p{number}@example.in").get()).status == 200
    admin = party(client, "backoffice", "admin")
    cursor = (await found(admin, status="pending", limit=1))["next_cursor"]

    async def refused(**asked: object) -> Reply:
        return await admin.send("POST", "/admin/users/search", json=asked)

    for asked in (
        {"status": "frozen", "cursor": cursor},
        {"cursor": cursor},
        {"status": "pending", "kyc_tier": "tier_0", "cursor": cursor},
        {"status": "pending", "cursor": cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")},
        {"status": "pending", "cursor": "x"},
    ):
        reply = await refused(**asked)
        assert (reply.status, reply.code) == (400, "invalid_cursor")
    assert len((await found(admin, status="pending", limit=2, cursor=cursor))["items"]) == 2
    for asked in ({"limit": 0}, {"limit": 201}, {"pan_number": "x"}, {"phone": "1"}, {"status": "odd"}, {"name": "A"}):
        assert (await refused(**asked)).status == 422


async def test_a_search_is_recorded_without_what_it_was_for(client: Client, owner: Conn) -> None:
    await a_user(client)
    admin = party(client, "backoffice", "admin")
    for _ in range(2):
        await found(admin, pan_number=PROFILE["pan_number"], email="asha@example.in", status="pending")
    rows = await owner.fetch("select * from user_audit where action = 'user.searched'")
    said = [msgspec.json.decode(row["new_value"]) for row in rows]
    assert said[0] == said[1]
    assert said[0]["found"] == 1
    assert said[0]["filters"].keys() == {"pan_number", "email", "status"}
    assert [row["user_id"] for row in rows] == [None, None]
    text = "".join(row["new_value"] for row in rows)
    assert str(PROFILE["pan_number"]) not in text
    assert "asha" not in text


async def test_the_person_sees_who_looked(world: World, owner: Conn) -> None:
    client = world.client
    asha = await world.person()
    await world.initiate(asha)
    support = party(client, "helpdesk", "internal pii:read")
    await support.get(f"/internal/users/{asha.id}")
    await support.get(f"/internal/users/{asha.id}?reveal=pan_number&purpose=compliance")
    assert (await asha.get()).status == 200  # one's own reads are not somebody's
    reply = await asha.get("/v1/me/access-log")
    items = reply.json()["items"]
    assert [(item["actor_kind"], item["client"], item["purpose"], item["action"]) for item in items] == [
        ("internal", "helpdesk", "compliance", "pii.revealed"),
        ("internal", "helpdesk", None, "profile.read"),
        ("vendor", "hyperverge", "kyc", "profile.read"),
    ]
    assert items[0]["fields"] == ["pan_number"]
    assert "pan_number" in items[2]["fields"]
    assert str(support.id).encode() not in reply.body

    seen: list[object] = []
    cursor: str | None = None
    while True:
        query = "limit=1" if cursor is None else f"limit=1&cursor={cursor}"
        page = (await asha.get(f"/v1/me/access-log?{query}")).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        other = await client.user().get(f"/v1/me/access-log?cursor={cursor}")
        assert other.code == "invalid_cursor", "a cursor is one person's"
    assert seen == items
