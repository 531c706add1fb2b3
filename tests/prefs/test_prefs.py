"""/v1/me/notification-prefs."""

import pytest

from tests.service import Client
from tests.trail import actions_of
from usercore.db import Conn

PATH = "/v1/me/notification-prefs"
DEFAULTS = {
    "email_trade_fills": True,
    "email_deposits": True,
    "email_withdrawals": True,
    "email_security_alerts": True,
    "push_enabled": True,
    "sms_enabled": False,
}


async def test_defaults_and_replacement(client: Client, owner: Conn) -> None:
    asha = client.user()
    first = (await asha.get(PATH)).json()
    assert first == {**DEFAULTS, "updated_at": first["updated_at"]}
    wanted = {**DEFAULTS, "sms_enabled": True, "push_enabled": False}
    reply = await asha.send("PUT", PATH, json=wanted)
    assert (reply.status, reply.json()) == (200, {**wanted, "updated_at": reply.json()["updated_at"]})
    assert (await asha.get(PATH)).json() == reply.json()
    again = await asha.send("PUT", PATH, json=wanted)
    assert again.json() == reply.json(), "the same again changes nothing"
    assert await actions_of(owner, asha.id) == ["user.created", "prefs.updated"]
    row = await owner.fetchrow("select old_value, new_value from user_audit where action = 'prefs.updated'")
    assert row is not None
    assert row["old_value"] == '{"push_enabled":true,"sms_enabled":false}'
    assert row["new_value"] == '{"push_enabled":false,"sms_enabled":true}'


@pytest.mark.parametrize("missing", DEFAULTS)
async def test_all_six_are_required(client: Client, missing: str) -> None:
    wanted = {name: value for name, value in DEFAULTS.items() if name != missing}
    reply = await client.user().send("PUT", PATH, json=wanted)
    assert (reply.status, reply.code) == (422, "validation_failed")
    assert reply.json()["errors"][0]["pointer"] == f"/{missing}"


@pytest.mark.parametrize("value", ["true", 1, None])
async def test_only_booleans(client: Client, value: object) -> None:
    reply = await client.user().send("PUT", PATH, json={**DEFAULTS, "sms_enabled": value})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/sms_enabled")


async def test_a_frozen_accounts_alerts_cannot_be_turned_off(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    await owner.execute("update users set status = 'frozen' where id = $1", asha.id)
    reply = await asha.send("PUT", PATH, json={**DEFAULTS, "email_security_alerts": False})
    assert (reply.status, reply.code) == (409, "account_not_active")
    assert (await asha.get(PATH)).status == 200
