"""GET /internal/users/{id}/audit: every row once, whatever the page, the filter and what comes meanwhile."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.accounts.test_holds import a_user, does, party
from tests.kyc.conftest import PROFILE
from tests.service import Client, Person
from usercore.db import Conn
from usercore.events import now


async def pages(who: Person, user: Person, *, limit: int = 50, **filters: str) -> list[dict[str, Any]]:
    """The whole trail, a page at a time, while the user goes on."""
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    query = "".join(f"&{name}={quote(value)}" for name, value in filters.items())
    while True:
        at = "" if cursor is None else f"&cursor={cursor}"
        reply = await who.get(f"/internal/users/{user.id}/audit?limit={limit}{query}{at}")
        assert reply.status == 200, reply.body
        page = reply.json()
        assert len(page["items"]) <= limit
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return seen
        assert (await user.get()).status == 200


async def expected(owner: Conn, user: Person, where: str = "true") -> list[str]:
    rows = await owner.fetch(
        f"select event_id from user_audit where user_id = $1 and {where} order by timestamp desc, event_id desc",
        user.id,
    )
    return [str(row["event_id"]) for row in rows]


@pytest.mark.parametrize("limit", [1, 2, 7, 25, 200])
async def test_every_row_once(client: Client, owner: Conn, limit: int) -> None:
    asha, ravi = await a_user(client), await a_user(client)
    for number in range(8):
        assert (await asha.patch({"first_name": "Asha" + "abcdefgh"[number]})).status == 200
        assert (await ravi.get()).status == 200
    wanted = await expected(owner, asha)
    seen = await pages(party(client, "compliance"), asha, limit=limit)
    assert [row["event_id"] for row in seen] == wanted
    assert {row["user_id"] for row in seen} == {str(asha.id)}


async def test_filters(client: Client, owner: Conn) -> None:
    asha = await a_user(client)
    await does(party(client, "risk-engine"), asha, "freeze", reason="risk_review")
    middle = now()
    await does(party(client, "risk-engine"), asha, "unfreeze", reason="cleared")
    reader = party(client, "compliance")
    stamp = middle.isoformat()
    for filters, where in (
        ({"action": "hold.placed"}, "action = 'hold.placed'"),
        ({"from": stamp}, f"timestamp >= '{stamp}'"),
        ({"to": stamp}, f"timestamp < '{stamp}'"),
        ({"from": stamp, "action": "status.changed"}, f"timestamp >= '{stamp}' and action = 'status.changed'"),
        ({"from": (middle + timedelta(days=1)).isoformat()}, "false"),
    ):
        wanted = await expected(owner, asha, where)
        seen = await pages(reader, asha, limit=2, **filters)
        assert [row["event_id"] for row in seen] == wanted, filters


async def test_sealed_values_are_masks(client: Client) -> None:
    asha = await a_user(client)
    await does(party(client, "risk-engine"), asha, "freeze", reason="other", note="seen at the races")
    reader = party(client, "compliance")
    reply = await reader.get(f"/internal/users/{asha.id}/audit")
    for value in ("races", PROFILE["pan_number"], PROFILE["phone"], '"sealed"'):
        assert str(value).encode() not in reply.body
    rows = {row["action"]: row for row in reply.json()["items"]}
    assert rows["profile.updated"]["new_value"]["pan_number"] == "XXXX"
    assert rows["hold.placed"]["new_value"]["source"] == "risk"
    assert rows["status.changed"]["old_value"] == {"status": "pending"}
    assert rows["profile.updated"]["ip_addr"] == "127.0.0.1"
    assert rows["profile.updated"].keys() == {
        "event_id", "user_id", "actor_id", "action", "resource", "old_value", "new_value", "ip_addr", "timestamp"
    }  # fmt: skip


async def test_bad_questions(client: Client, owner: Conn) -> None:
    asha, ravi = await a_user(client), await a_user(client)
    reader = party(client, "compliance")
    cursor = (await reader.get(f"/internal/users/{asha.id}/audit?limit=1")).json()["next_cursor"]
    for path, status in (
        (f"{ravi.id}/audit?cursor={cursor}", 400),
        (f"{asha.id}/audit?cursor=x", 400),
        (f"{asha.id}/audit?action=odd", 422),
        (f"{asha.id}/audit?limit=0", 422),
        (f"{asha.id}/audit?limit=201", 422),
        (f"{asha.id}/audit?from=2026-01-01T00:00:00", 422),
        (f"{uuid4()}/audit", 404),
    ):
        reply = await reader.get(f"/internal/users/{path}")
        assert reply.status == status, (path, reply.body)
    await owner.execute("update users set erased_at = now() where id = $1", asha.id)
    assert len((await reader.get(f"/internal/users/{asha.id}/audit")).json()["items"]) > 1
