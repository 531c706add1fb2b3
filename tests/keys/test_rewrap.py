"""After a rotation: data keys, indexes and claims move to the newest keys, however often that is cut off."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.keys.people import a_person, count, long_ago, lost_hits, pan, patched, people, phone, unreadable, wraps
from tests.keys.test_rotation import loaded
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.events import now
from usercore.identities.actions import claim_own_pan
from usercore.keys.actions import list_keys, rotate
from usercore.pii import classification as pii
from usercore.pii.keyring import KeyPurpose, Keyring
from usercore.pii.kms import Kms
from usercore.pii.kms.local import set_state
from usercore.pii.wraps import UserKeyRow
from usercore.profiles import queries as profiles
from usercore.rewraps import actions
from usercore.rewraps import queries as rewraps
from usercore.rewraps.actions import Step, is_unfinished, paced, reindex, rewrap


async def whole(steps: AsyncGenerator[Step]) -> Step:
    every = [step async for step in steps]
    return Step(*(sum(getattr(step, name) for step in every) for name in Step.__struct_fields__))


async def rotated(db: Db, kms: Kms, operator: Db, *purposes: KeyPurpose) -> Keyring:
    await rotate(operator, kms, purposes, settle_s=0)
    return await loaded(db, kms)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "SLICE", 3)
    monkeypatch.setattr(actions, "INDEX_SLICE", 2)


async def test_every_data_key_moves_and_opens(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    users = await people(db, await loaded(db, kms), 8)
    keyring = await rotated(db, kms, operator, "user_keys")
    before = await wraps(owner)
    assert await is_unfinished(db, "user_keys")
    assert await whole(rewrap(db, keyring)) == Step(16, 0, 0)
    after = await wraps(owner)
    assert {row.epoch for row in after} == {keyring.active("user_keys").epoch}
    assert [(row.user_id, row.retention_class, row.version) for row in after] == [
        (row.user_id, row.retention_class, row.version) for row in before
    ]
    assert await unreadable(db, keyring, users) == []
    assert await whole(rewrap(db, keyring)) == Step(0, 0, 0)


async def test_what_is_under_way_just_after_a_rotation_is_not_taken_for_the_end(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    stale = await loaded(db, kms)
    keyring = await rotated(db, kms, operator, "user_keys")
    await whole(rewrap(db, keyring))
    assert await is_unfinished(db, "user_keys")
    user_id = await a_person(db, stale, 0)  # a process that does not know yet
    assert await unreadable(db, keyring, [user_id]) == []
    await long_ago(owner)
    assert await whole(rewrap(db, keyring)) == Step(2, 0, 0)
    assert not await is_unfinished(db, "user_keys")


async def test_a_key_that_does_not_open_is_put_aside_once_and_stops_nothing(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    users = await people(db, await loaded(db, kms), 4)
    await owner.execute(
        "update user_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) "
        "where user_id = $1 and retention_class = 'contact'",
        users[2],
    )
    keyring = await rotated(db, kms, operator, "user_keys")
    assert await whole(rewrap(db, keyring)) == Step(7, 1, 0)
    assert await whole(rewrap(db, keyring)) == Step(0, 0, 0)
    (row,) = (await list_keys(operator, kms)).quarantined
    assert (row.user_id, row.retention_class, row.version, row.reason) == (users[2], "contact", 1, "wrong_key")
    assert await unreadable(db, keyring, users) == [users[2]]


async def test_what_the_kms_does_not_open_waits_and_is_not_put_aside(
    db: Db, kms: Kms, operator: Db, kms_file: Path
) -> None:
    users = await people(db, await loaded(db, kms), 2)
    await rotate(operator, kms, ["user_keys"], settle_s=0)
    set_state(kms_file, "1", "disabled")
    keyring = Keyring()
    with suppress(Exception):
        keyring = await loaded(db, kms)
    assert not keyring.available
    set_state(kms_file, "1", "enabled")
    keyring = await loaded(db, kms)
    old = [epoch for epoch in keyring.epochs if epoch.purpose == "user_keys" and epoch.state == "retiring"]
    keyring.install([epoch for epoch in keyring.epochs if epoch not in old], [epoch.epoch for epoch in old])
    assert await whole(rewrap(db, keyring)) == Step(0, 0, 4)
    assert (await list_keys(operator, kms)).quarantined == []
    assert await unreadable(db, await loaded(db, kms), users) == []


async def test_a_key_that_changes_meanwhile_is_not_overwritten(
    db: Db, kms: Kms, operator: Db, owner: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user_id,) = await people(db, await loaded(db, kms), 1)
    keyring = await rotated(db, kms, operator, "user_keys")
    moved = Keyring.rewrapped
    replaced = {row.retention_class: row for row in keyring.new_user_keys(user_id, version=1)}
    await owner.execute("create table replaced (retention_class retention_class, wrapped bytea)")
    for row in replaced.values():
        await owner.execute("insert into replaced values ($1, $2)", row.retention_class, row.wrapped)

    def slow(self: Keyring, row: UserKeyRow) -> UserKeyRow:
        pending.append(row)
        return moved(self, row)

    pending: list[UserKeyRow] = []
    monkeypatch.setattr(Keyring, "rewrapped", slow)
    steps = rewrap(db, keyring)
    lock = owner.transaction()
    await lock.start()
    await owner.execute("select from user_keys where user_id = $1 for update", user_id)
    work = asyncio.create_task(whole(steps))
    await eventually(lambda: _true(len(pending) == 2), why="the slice was not read")
    await owner.execute(
        "update user_keys k set wrapped = r.wrapped, epoch = $2 from replaced r "
        "where k.user_id = $1 and k.retention_class = r.retention_class",
        user_id,
        keyring.active("user_keys").epoch,
    )
    await lock.commit()
    assert (await work).moved == 0
    assert {row.wrapped for row in await wraps(owner)} == {row.wrapped for row in replaced.values()}


async def _true(value: bool) -> bool:
    return value


@pytest.mark.parametrize("purpose", ["user_keys", "blind_index"])
@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_cut_off_at_any_await_it_goes_on_where_it_was(
    db: Db, kms: Kms, operator: Db, owner: Conn, purpose: KeyPurpose, how: Callable[[], Interruption]
) -> None:
    users = await people(db, await loaded(db, kms), 5)
    work = rewrap if purpose == "user_keys" else reindex
    at = 0
    while True:
        at += 1
        keyring = await rotated(db, kms, operator, purpose)
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(whole(work(db, keyring)))
        assert await unreadable(db, keyring, users) == [], steps.interrupted_at
        assert await lost_hits(db, keyring, users) == [], steps.interrupted_at
        await long_ago(owner)
        await whole(work(db, keyring))
        assert not await is_unfinished(db, purpose)
        await owner.execute("update pii_keyring set state = 'retired' where state = 'retiring'")
        if steps.interrupted_at is None:
            break
    assert at > 8


async def test_searches_hit_before_during_and_after_an_index_rotation(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    old = await loaded(db, kms)
    users = await people(db, old, 5)
    keyring = await rotated(db, kms, operator, "blind_index")
    async for _ in reindex(db, keyring):
        # A process that knows both, and one that knows only the old one until it refreshes, after it wrote.
        assert await lost_hits(db, keyring, users) == []
    users.append(await a_person(db, old, 5))
    assert await lost_hits(db, keyring, users) == []
    await whole(reindex(db, keyring))
    prefix = keyring.active("blind_index").version.to_bytes(2, "big")
    left = (
        "select count(*) from user_profiles "
        "where substr(pan_number_index, 1, 2) <> $1 or substr(phone_index, 1, 2) <> $1"
    )
    assert await count(owner, left, prefix) == 0
    assert await lost_hits(db, keyring, users) == []


async def test_each_value_that_is_opened_for_its_index_is_audited(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    users = await people(db, await loaded(db, kms), 3)
    await whole(reindex(db, await rotated(db, kms, operator, "blind_index")))
    rows = await owner.fetch(
        "select user_id, actor_kind::text, purpose::text, new_value from user_audit "
        "where action = 'profile.read' and actor_kind = 'system' order by 1"
    )
    said = '{"fields":["pan_number","phone"],"masked":true}'
    assert [tuple(row) for row in rows] == [(user, "system", "operations", said) for user in sorted(users)]


async def test_an_index_of_a_value_that_changes_meanwhile_is_that_of_the_new_value(
    db: Db, kms: Kms, operator: Db
) -> None:
    users = await people(db, await loaded(db, kms), 4)
    keyring = await rotated(db, kms, operator, "blind_index")

    async def patches() -> None:
        for user_id in users:
            await patched(db, keyring, user_id, phone="+919000000001")
        for number, user_id in enumerate(users):
            await patched(db, keyring, user_id, phone=f"+91987654{number:04d}")

    await asyncio.gather(patches(), *(whole(reindex(db, keyring)) for _ in range(3)))
    await whole(reindex(db, keyring))
    assert await lost_hits(db, keyring, users) == []
    assert await unreadable(db, keyring, users) == []


async def test_the_index_of_a_value_that_stays_moves_when_another_one_changes_meanwhile(
    db: Db, kms: Kms, operator: Db, owner: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer between the pass's read and its write, and the pass between a writer's read and its write."""
    users = await people(db, await loaded(db, kms), 2)
    keyring = await rotated(db, kms, operator, "blind_index")
    indexed, saved = rewraps.set_indexes, profiles.save_profiles

    async def after_a_writer(conn: Conn, **given: Any) -> object:
        if given["user_id"] == users[0]:
            # As another process would: it knows nothing of the pass's transaction.
            writing = patched(db, keyring, users[0], phone=phone(0).replace("987", "900"))
            await asyncio.get_running_loop().create_task(writing, context=Context())
        return await indexed(conn, **given)

    async def after_the_pass(conn: Conn, **given: Any) -> object:
        monkeypatch.setattr(profiles, "save_profiles", saved)
        monkeypatch.setattr(rewraps, "set_indexes", after_a_writer)
        await whole(reindex(db, keyring))
        return await saved(conn, **given)

    monkeypatch.setattr(profiles, "save_profiles", after_the_pass)
    await patched(db, keyring, users[1], first_name="Asha")
    prefix = keyring.active("blind_index").version.to_bytes(2, "big")
    rows = await owner.fetch("select pan_number_index, phone_index from user_profiles")
    assert {index[:2] for row in rows for index in row} == {prefix}


async def test_a_claim_moves_and_keeps_everybody_else_out(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    old = await loaded(db, kms)
    first, second = await people(db, old, 2)
    async with db.begin() as tx:
        assert await claim_own_pan(tx, old, first, now())
    keyring = await rotated(db, kms, operator, "blind_index")
    await patched(db, keyring, second, pan_number=pan(0))
    async with db.begin() as tx:
        assert not await claim_own_pan(tx, keyring, second, now())  # before anything moved
    await whole(reindex(db, keyring))
    assert await count(owner, "select count(*) from identity_claims where user_id = $1", first) == 2
    async with db.begin() as tx:
        assert not await claim_own_pan(tx, keyring, second, now())
    newest = [epoch for epoch in keyring.epochs if epoch.purpose != "blind_index" or epoch.state == "active"]
    keyring.install(newest)
    async with db.begin() as tx:
        assert not await claim_own_pan(tx, keyring, second, now())  # under the new version alone


async def test_a_pass_is_as_slow_as_it_is_told_to_be(db: Db, kms: Kms, operator: Db) -> None:
    await people(db, await loaded(db, kms), 6)
    keyring = await rotated(db, kms, operator, "user_keys")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await whole(paced(rewrap(db, keyring), 24))).moved == 12
    assert loop.time() - began > 0.4


async def test_the_inboxs_keys_move_too(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    keyring = await loaded(db, kms)
    inbox = UUID(int=7)
    (key,) = keyring.new_user_keys(inbox, (pii.WEBHOOK_BODY.retention,))
    await owner.execute(
        "insert into webhook_inbox_keys (day, owner, epoch, wrapped) values (current_date, $1, $2, $3)",
        inbox, key.epoch, key.wrapped,
    )  # fmt: skip
    after = await rotated(db, kms, operator, "user_keys")
    assert await whole(rewrap(db, after)) == Step(1, 0, 0)
    row = await owner.fetchrow("select epoch, wrapped from webhook_inbox_keys")
    assert row is not None
    moved = UserKeyRow(inbox, key.retention_class, 1, row["epoch"], row["wrapped"])
    assert moved.epoch == after.active("user_keys").epoch
    assert after.unwrap(inbox, moved) == keyring.unwrap(inbox, key)
