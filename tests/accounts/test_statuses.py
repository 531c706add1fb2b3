"""What a person may still do in each status: every cell of the table in docs/accounts.md."""

import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from uuid import UUID

import pytest

from tests.kyc.conftest import PROFILE
from tests.service import Client, Person
from usercore.db import Conn
from usercore.events import now
from usercore.lifecycle.actions import activate, hold_for_kyc
from usercore.outbox import SYSTEM
from usercore.worker import Parts

STATUSES = ("pending", "active", "frozen", "suspended", "closed")
PREFS = dict.fromkeys(
    (
        "email_trade_fills",
        "email_deposits",
        "email_withdrawals",
        "email_security_alerts",
        "push_enabled",
        "sms_enabled",
    ),
    True,
)
MARKETING = {"consent_type": "marketing", "version": "1", "granted": True}

Deed = Callable[[Person], Awaitable[int]]


async def reads(person: Person) -> int:
    paths = ("/v1/me", "/v1/me/consents", "/v1/me/notification-prefs", "/v1/kyc/status", "/v1/me/access-log")
    return max([(await person.get(path)).status for path in paths])


async def changes_the_profile(person: Person) -> int:
    return (await person.patch({"first_name": "Ashok"})).status


async def grants(person: Person) -> int:
    return (await person.send("POST", "/v1/me/consents", json={**MARKETING, "consent_type": "data_sharing"})).status


async def withdraws(person: Person) -> int:
    return (await person.send("POST", "/v1/me/consents", json={**MARKETING, "granted": False})).status


async def changes_preferences(person: Person) -> int:
    return (await person.send("PUT", "/v1/me/notification-prefs", json=PREFS)).status


async def starts_a_verification(person: Person) -> int:
    return (await person.send("POST", "/v1/kyc/initiate", json={})).status


DEEDS: Mapping[str, Deed] = {
    "read profile, consents, preferences, KYC status, access log": reads,
    "change the profile": changes_the_profile,
    "grant a consent": grants,
    "withdraw a consent": withdraws,
    "change notification preferences": changes_preferences,
    "start a verification": starts_a_verification,
}


def table() -> dict[tuple[str, str], bool]:
    text = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|$", text, re.M)
    return {
        (what, status): cell == "yes" for what, *cells in rows for status, cell in zip(STATUSES, cells, strict=True)
    }


def test_the_table_is_whole() -> None:
    assert {what for what, _ in table()} == DEEDS.keys()


async def becomes(parts: Parts, client: Client, person: Person, status: str) -> None:
    user_id: UUID = person.id
    admin = client.user(scope="admin", client_id="backoffice")
    if status in ("active", "suspended"):
        async with parts.db.begin() as tx:
            await activate(tx, user_id, SYSTEM, now())
    if status == "suspended":
        async with parts.db.begin() as tx:
            await hold_for_kyc(tx, user_id, "suspend", "kyc_overdue", user_id, SYSTEM, now())
    if status == "frozen":
        freeze = {"reason": "risk_review"}
        assert (await admin.send("POST", f"/internal/users/{user_id}/freeze", json=freeze)).status == 200
    if status == "closed":
        close = {"reason": "user_request"}
        assert (await admin.send("POST", f"/internal/users/{user_id}/close", json=close)).status == 200


@pytest.mark.parametrize("status", STATUSES)
async def test_what_is_allowed(parts: Parts, client: Client, owner: Conn, status: str) -> None:
    found: dict[tuple[str, str], bool] = {}
    for what, deed in DEEDS.items():
        person = client.user()
        assert (await person.patch(PROFILE)).status == 200
        assert (await person.send("POST", "/v1/me/consents", json=MARKETING)).status == 201
        await becomes(parts, client, person, status)
        assert await owner.fetchval("select status::text from users where id = $1", person.id) == status
        answer = await deed(person)
        assert answer < 300 or answer == 409
        found[what, status] = answer < 300
    assert found == {cell: allowed for cell, allowed in table().items() if cell[1] == status}
