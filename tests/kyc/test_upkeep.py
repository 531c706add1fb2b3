"""`usercore webhook-replay` and `usercore kyc-reconcile`, as an operator runs them."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import pytest

from tests.kyc.conftest import World
from tests.kyc.test_hostile_webhooks import post
from tests.verbs.world import Acme, signed, vendor
from tests.waiting import eventually
from usercore.db import Conn
from usercore.plugins import Evidence, Standing, WebhookEvent


@pytest.fixture
def operator(environ: dict[str, str]) -> Mapping[str, str]:
    return {**environ, "PATH": os.environ["PATH"]}


async def usercore(environ: Mapping[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "usercore",
        *arguments,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def run(environ: Mapping[str, str], *arguments: str) -> Any:
    return json.loads(await usercore(environ, *arguments, "--json"))


async def test_a_message_that_nobody_claimed_is_replayed(
    world: World, operator: Mapping[str, str], owner: Conn
) -> None:
    """It came for an attempt that was not there; when it is, the message is good after all."""
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    vendors["acme"] = vendor(Acme(), "acme", "pan", "selfie")
    del vendors["hyperverge"]
    asha = await world.person()
    await world.initiate(asha)
    evidence = Evidence(standing=Standing.APPROVED, vendor_status="so", checks={"pan": "passed", "selfie": "passed"})
    headers, body = signed(WebhookEvent(event_id="e1", vendor_case_id="late", evidence=evidence))
    sent = {name.decode(): value.decode() for name, value in headers}
    assert (await post(world, "/v1/kyc/webhook/acme", body, sent)).status == 200
    await owner.execute("update webhook_inbox set received_at = now() - interval '25 hours', next_try_at = now()")

    async def given_up() -> bool:
        return await owner.fetchval("select state from webhook_inbox") == "unclaimed"

    await eventually(given_up)
    plan = await run(operator, "webhook-replay", "--vendor", "signzy")
    assert plan == {"messages": [], "replayed": 0, "executed": False}
    plan = await run(operator, "webhook-replay")
    ((message,), replayed) = plan["messages"], plan["replayed"]
    assert (message["vendor"], message["state"], replayed) == ("acme", "unclaimed", 0)
    assert "1 would be replayed: add --execute" in await usercore(operator, "webhook-replay")
    assert await given_up()

    await owner.execute("update kyc_attempts set vendor_case_id = 'late'")
    done = await run(operator, "webhook-replay", "--execute")
    assert (done["replayed"], done["executed"]) == (1, True)
    await world.becomes(asha, "approved")
    assert await run(operator, "webhook-replay") == {"messages": [], "replayed": 0, "executed": False}


async def test_open_cases_are_reconciled(world: World, operator: Mapping[str, str], owner: Conn) -> None:
    asha, ravi = await world.person(), await world.person(pan_number="ABCPV9999F")
    for person, outcome in ((asha, "approve"), (ravi, None)):
        if outcome is not None:
            await world.control("hyperverge", "next", outcome=outcome, webhook="drop")
        await world.initiate(person)
        await world.attempt(UUID((await world.status(person))["case"]["case_id"]))
    await owner.execute("update kyc_cases set next_look_at = now() + interval '1 hour'")
    assert (await run(operator, "kyc-reconcile"))["cases"] == [], "they are young"

    plan = await run(operator, "kyc-reconcile", "--older-than", "0")
    assert [(case["status"], case["attempt"], case["status_after"]) for case in plan["cases"]] == [
        ("initiated", "started", None)
    ] * 2
    assert "2 would be asked about: add --execute" in await usercore(operator, "kyc-reconcile", "--older-than", "0")
    assert (await world.status(asha))["case"]["status"] == "initiated"

    done = await run(operator, "kyc-reconcile", "--older-than", "0", "--execute")
    assert [case["status_after"] for case in done["cases"]] == ["approved", "initiated"]
    assert (await world.status(asha))["kyc_tier"] == "tier_1"
    said = await usercore(operator, "kyc-reconcile", "--older-than", "0", "--execute")
    assert said.splitlines()[-1] == "1 asked about, 0 changed"
