"""A person's data keys replaced after a leak: everything opens under the new ones, and nothing written is lost."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest

from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.keys.people import ADMIN, count, lost_hits, patched, people, phone, unreadable, wraps
from tests.kyc.conftest import World
from tests.kyc.conftest import world as world
from usercore.db import Conn, Db
from usercore.errors import AccountErased
from usercore.pii.classification import PAN_NUMBER
from usercore.pii.keyring import Keyring
from usercore.pii.keystore import load
from usercore.pii.kms import Kms
from usercore.pii.wraps import UserKeyRow
from usercore.reseals.actions import Resealed, reseal


async def versions(owner: Conn, user_id: UUID) -> list[int]:
    """Those of the keys that the profile's fields are sealed with."""
    statement = (
        "select array_agg(distinct get_byte(v, 2) * 256 + get_byte(v, 3)) from user_profiles p "
        "cross join lateral (values (first_name_enc::bytea), (pan_number_enc::bytea), (phone_enc::bytea)) as x(v) "
        "where p.user_id = $1 and v is not null"
    )
    return sorted(await owner.fetchval(statement, user_id) or [])


@pytest.fixture
async def keyring(db: Db, kms: Kms) -> Keyring:
    keyring = Keyring()
    await load(db, kms, keyring)
    return keyring


async def test_everything_opens_under_the_new_key_and_nothing_under_the_old_one(
    db: Db, keyring: Keyring, owner: Conn
) -> None:
    users = await people(db, keyring, 2)
    old = await wraps(owner)
    assert await reseal(db, keyring, users[0], ADMIN) == Resealed(3, 0)
    assert await versions(owner, users[0]) == [2]
    assert await versions(owner, users[1]) == [1]
    assert await unreadable(db, keyring, users) == []
    assert await lost_hits(db, keyring, users) == []
    leaked: list[UserKeyRow] = [row for row in old if row.user_id == users[0]]
    keys = keyring.unlock(users[0], leaked)
    row = await owner.fetchrow("select pan_number_enc from user_profiles where user_id = $1", users[0])
    assert row is not None
    with pytest.raises(Exception, match="missing_key"):
        keys.open(PAN_NUMBER, row[0])
    assert await reseal(db, keyring, users[0], ADMIN) == Resealed(3, 0)
    assert await versions(owner, users[0]) == [3]


async def test_writers_meanwhile_lose_nothing(db: Db, keyring: Keyring, owner: Conn) -> None:
    (user_id,) = await people(db, keyring, 1)

    async def writes() -> None:
        for number in range(10, 30):
            await patched(db, keyring, user_id, phone=phone(number))

    await asyncio.gather(writes(), *(reseal(db, keyring, user_id, ADMIN) for _ in range(5)))
    await reseal(db, keyring, user_id, ADMIN)
    await patched(db, keyring, user_id, phone=phone(0))
    assert await unreadable(db, keyring, [user_id]) == []
    assert await lost_hits(db, keyring, [user_id]) == []
    assert await count(owner, "select max(version) from user_keys where user_id = $1", user_id) == 7


@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_cut_off_at_any_await_it_is_done_or_it_is_not(
    db: Db, keyring: Keyring, owner: Conn, how: Callable[[], Interruption]
) -> None:
    users = await people(db, keyring, 1)
    at = 0
    while True:
        at += 1
        before = await versions(owner, users[0])
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(reseal(db, keyring, users[0], ADMIN))
        after = await versions(owner, users[0])
        assert after in (before, [before[0] + 1]), steps.interrupted_at
        newest = await count(owner, "select max(version) from user_keys where user_id = $1", users[0])
        assert after == [newest], steps.interrupted_at
        assert await unreadable(db, keyring, users) == [], steps.interrupted_at
        if steps.interrupted_at is None:
            break
    assert at > 6


async def test_what_does_not_open_stays_as_it_is(db: Db, keyring: Keyring, owner: Conn) -> None:
    users = await people(db, keyring, 1)
    await owner.execute(
        "update user_profiles set phone_enc = set_byte(phone_enc, 30, get_byte(phone_enc, 30) # 1)::sealed"
    )
    assert await reseal(db, keyring, users[0], ADMIN) == Resealed(2, 1)
    assert await versions(owner, users[0]) == [1, 2]


async def test_it_is_audited_and_an_erased_person_has_nothing_to_reseal(db: Db, keyring: Keyring, owner: Conn) -> None:
    users = await people(db, keyring, 1)
    await reseal(db, keyring, users[0], ADMIN)
    said = await owner.fetchval(
        "select new_value from user_audit where resource = 'user_keys' and user_id = $1", users[0]
    )
    assert said == '{"fields":["first_name","pan_number","phone"],"masked":true}'
    await owner.execute("update users set erased_at = now() where id = $1", users[0])
    with pytest.raises(AccountErased):
        await reseal(db, keyring, users[0], ADMIN)


async def test_evidence_documents_and_an_open_case_go_on(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    await world.initiate(asha)
    before = (await asha.get()).json()["profile"]
    parts = world.parts
    done = await reseal(parts.db, parts.keyring, asha.id, ADMIN)
    assert done.unreadable == 0
    assert done.resealed > 8
    assert (await asha.get()).json()["profile"] == before
    await world.finish(asha, "approve")
    assert (await world.becomes(asha, "approved"))["kyc_tier"] == "tier_2"
