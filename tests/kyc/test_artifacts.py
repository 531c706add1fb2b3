"""The documents of a verification, from the vendor's sandbox to an admin, through the service's own loops."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from kyc_hyperverge import answers

from tests.kyc.conftest import World
from tests.service import Person
from tests.trail import actions_of
from tests.waiting import eventually
from usercore import worker
from usercore.db import Conn


@asynccontextmanager
async def fetching(world: World) -> AsyncGenerator[None]:
    """The loop of artifacts runs."""
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(world.parts, ("artifacts",), stop))
    try:
        yield
    finally:
        stop.set()
        await working


async def approved(world: World) -> Person:
    asha = await world.person()
    await world.initiate(asha)
    await world.finish(asha, "approve")
    await world.becomes(asha, "approved")
    return asha


async def shown(world: World, person: Person, admin: Person) -> dict[str, Any]:
    case = (await world.status(person))["case"]["case_id"]
    reply = await admin.get(f"/admin/kyc/cases/{case}")
    return {each["artifact_type"]: each for each in reply.json()["artifacts"]}


async def are_stored(owner: Conn) -> bool:
    return await owner.fetchval("select count(*) > 0 and bool_and(state = 'stored') from kyc_artifacts") is True


async def test_from_the_vendor_to_an_admin(world: World, owner: Conn) -> None:
    asha = await approved(world)
    admin = world.client.user(scope="admin pii:read", client_id="backoffice")
    waiting = await shown(world, asha, admin)
    assert waiting.keys() == {"pan_card", "selfie"}
    assert {(each["state"], each["href"]) for each in waiting.values()} == {("pending", None)}

    async with fetching(world):

        async def there() -> bool:
            return await are_stored(owner)

        await eventually(there)
    found = await shown(world, asha, admin)
    for kind, shade in (("pan_card", 200), ("selfie", 120)):
        reply = await admin.get(found[kind]["href"] + "?purpose=compliance")
        assert (reply.status, reply.body) == (200, answers.image(shade))
        assert reply.headers["Content-Type"] == "image/png"
        assert (found[kind]["hash"], found[kind]["size"]) == (hashlib.sha256(reply.body).hexdigest(), len(reply.body))
    assert (await actions_of(owner, asha.id)).count("artifact.read") == 2


async def test_an_address_that_is_too_old_is_asked_for_again(world: World, owner: Conn) -> None:
    await approved(world)
    (case,) = world.sandboxes["hyperverge"].cases.values()
    case.memory["images"] = "elsewhere"  # all that were given before are gone
    before = await owner.fetch("select case_id, count(*) from kyc_evidence group by case_id")
    async with fetching(world):

        async def there() -> bool:
            return await are_stored(owner)

        await eventually(there)
    assert {row["tries"] for row in await owner.fetch("select tries from kyc_artifacts")} == {1}
    assert await owner.fetch("select case_id, count(*) from kyc_evidence group by case_id") == before


async def test_documents_that_cannot_be_had_keep_nobody_waiting(world: World, owner: Conn) -> None:
    """The verdict is there before anybody has asked for them, and stays when all of them are given up."""
    asha = await approved(world)
    for case in world.sandboxes["hyperverge"].cases.values():
        case.memory["images"] = "elsewhere"
    world.sandboxes["hyperverge"].cases.clear()
    async with fetching(world):

        async def given_up() -> bool:
            await owner.execute("update kyc_artifacts set next_try_at = now() where next_try_at > now() and tries > 0")
            return await owner.fetchval("select bool_and(state = 'given_up') from kyc_artifacts") is True

        await eventually(given_up)
    assert {row[0] for row in await owner.fetch("select given_up_for from kyc_artifacts")} == {"expired"}
    assert (await asha.get()).json()["kyc_tier"] == "tier_1"
