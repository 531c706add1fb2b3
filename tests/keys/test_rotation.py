"""Rotating: new epochs that every process learns before one of them writes under them, and nothing masked meanwhile."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.keys.conftest import SETTLE_S, Process
from tests.keys.people import a_person, people, unreadable
from tests.waiting import eventually
from usercore import cursors
from usercore.cursors import Position
from usercore.db import Conn, Db
from usercore.errors import IdempotencyMismatch, KmsRefused, KmsUnavailable
from usercore.idempotency import Answer, Attempt, claim, fingerprints, keep
from usercore.keys.actions import list_keys, rewrap_epochs, rotate
from usercore.pii.keyring import PURPOSES, Keyring
from usercore.pii.keystore import load
from usercore.pii.kms import Kms, open_kms
from usercore.pii.kms.local import create, set_state


def moved_away(path: Path) -> Callable[[], object]:
    away = path.rename(path.with_suffix(".away"))
    return lambda: away.rename(path)


async def loaded(db: Db, kms: Kms) -> Keyring:
    keyring = Keyring()
    await load(db, kms, keyring)
    return keyring


async def test_every_process_writes_under_the_new_epoch_and_none_of_them_reads_a_mask(
    db: Db, kms: Kms, operator: Db, process: Process
) -> None:
    async with process() as first, process() as second:
        users = await people(db, first, 3)
        before = first.active("user_keys").epoch
        work = asyncio.create_task(rotate(operator, kms, ["user_keys"], settle_s=SETTLE_S))
        while not work.done():
            for keyring in (first, second):
                users.append(await a_person(db, keyring, len(users)))
            assert [await unreadable(db, each, users) for each in (first, second)] == [[], []]
        (epoch,) = await work
        assert epoch != before

        async def all_know() -> bool:
            return {each.active("user_keys").epoch for each in (first, second)} == {epoch}

        await eventually(all_know, within_s=5, why="a process did not learn of the rotation")
        assert first.new_user_keys(uuid4())[0].epoch == epoch
        assert await unreadable(db, second, users) == []
    assert (await kms.describe()).primary == "2"


async def test_all_purposes_rotate_and_the_list_tells_what_depends_on_each(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    keyring = await loaded(db, kms)
    await people(db, keyring, 2)
    await rotate(operator, kms, PURPOSES, settle_s=0)
    found = await list_keys(operator, kms)
    by_purpose = {purpose: [epoch for epoch in found.epochs if epoch.purpose == purpose] for purpose in PURPOSES}
    for old, new in by_purpose.values():
        assert (old.state, old.version, old.kms_version, old.kms_state) == ("retiring", 1, "1", "enabled")
        assert (new.state, new.version, new.kms_version, new.kms_state) == ("active", 2, "2", "enabled")
    assert by_purpose["user_keys"][0].dependents == {"user_keys": 4}
    assert by_purpose["blind_index"][0].dependents == {"user_profiles": 4}
    assert found.quarantined == []
    assert str(found.kms and found.kms.uri).startswith("local://")


async def test_the_list_does_without_the_kms(db: Db, kms: Kms, operator: Db, kms_file: Path) -> None:
    await loaded(db, kms)
    moved_away(kms_file)
    found = await list_keys(operator, kms)
    assert found.kms is None
    assert {epoch.kms_state for epoch in found.epochs} == {None}


async def test_two_rotations_at_once_make_one_epoch(db: Db, kms: Kms, operator: Db) -> None:
    await loaded(db, kms)
    both = await asyncio.gather(*(rotate(operator, kms, ["user_keys"], settle_s=SETTLE_S) for _ in range(2)))
    assert both[0] == both[1]
    epochs = [epoch for epoch in (await list_keys(operator, kms)).epochs if epoch.purpose == "user_keys"]
    assert [(epoch.version, epoch.state) for epoch in epochs] == [(1, "retiring"), (2, "active")]


@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_a_rotation_cut_off_at_any_await_is_finished_by_the_next(
    db: Db, kms: Kms, operator: Db, how: Callable[[], Interruption]
) -> None:
    keyring = await loaded(db, kms)
    users = await people(db, keyring, 1)
    at = 0
    while True:
        at += 1
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(rotate(operator, kms, ["user_keys"], settle_s=0))
        other = await loaded(db, kms)
        assert other.available, steps.interrupted_at
        assert await unreadable(db, other, users) == [], steps.interrupted_at
        if steps.interrupted_at is None:
            break
        (epoch,) = await rotate(operator, kms, ["user_keys"], settle_s=0)
        states = [each.state for each in (await list_keys(operator, kms)).epochs if each.purpose == "user_keys"]
        assert states == ["retiring"] * (len(states) - 1) + ["active"], steps.interrupted_at
        assert (await loaded(db, kms)).active("user_keys").epoch == epoch
    assert at > 8


async def test_without_the_kms_nothing_rotates_and_nothing_is_lost(
    db: Db, kms: Kms, operator: Db, kms_file: Path, process: Process
) -> None:
    async with process() as running:
        users = await people(db, running, 1)
        back = moved_away(kms_file)
        with pytest.raises(KmsUnavailable):
            await rotate(operator, kms, PURPOSES, settle_s=0)
        users.append(await a_person(db, running, 1))
        assert await unreadable(db, running, users) == []
        back()
        assert len(await rotate(operator, kms, PURPOSES, settle_s=0)) == len(PURPOSES)


async def test_epochs_move_to_the_new_version_and_the_old_one_may_go(
    db: Db, kms: Kms, operator: Db, kms_file: Path
) -> None:
    before = await loaded(db, kms)
    users = await people(db, before, 2)
    await rotate(operator, kms, ["audit_ip"], settle_s=0)
    moved = await rewrap_epochs(operator, kms)
    assert len(moved) == len(PURPOSES)  # all but the one that was made under the new version
    assert await rewrap_epochs(operator, kms) == []
    set_state(kms_file, "1", "destroyed")
    after = await loaded(db, kms)
    assert await unreadable(db, after, users) == []
    assert {epoch.secret for epoch in after.epochs} >= {epoch.secret for epoch in before.epochs}


async def test_the_keyring_moves_to_another_kms_key(
    db: Db, kms: Kms, operator: Db, kms_file: Path, tmp_path: Path
) -> None:
    users = await people(db, await loaded(db, kms), 1)
    create(tmp_path / "other.json")
    other = open_kms(f"local://{tmp_path / 'other.json'}")
    with pytest.raises(KmsRefused, match="name that key with --from"):
        await rewrap_epochs(operator, other)
    with pytest.raises(KmsRefused):
        await loaded(db, other)
    assert len(await rewrap_epochs(operator, other, kms)) == len(PURPOSES)
    moved_away(kms_file)
    assert await unreadable(db, await loaded(db, other), users) == []


async def test_a_page_and_an_idempotency_key_outlive_a_rotation(
    db: Db, kms: Kms, operator: Db, process: Process
) -> None:
    async with process() as keyring:
        position = Position(cursors.NEWEST.at, uuid4())
        cursor = cursors.seal(keyring.token_keys(b"cursor")[0], position, context=b"list")
        service = uuid4()  # a caller that is no user, whose answers the service's own key seals

        def attempt(body: bytes) -> Attempt:
            newest, *older = fingerprints(keyring, body)
            return Attempt(service, "POST", "/path", "key", newest, tuple(older))

        async with db.begin() as tx:
            assert await claim(tx, keyring, attempt(b"body")) is None
            await keep(tx, keyring, attempt(b"body"), Answer(200, msgspec.Raw(b"{}")))
        was = keyring.active("tokens").epoch
        await rotate(operator, kms, ["tokens"], settle_s=SETTLE_S)

        async def knows() -> bool:
            return keyring.active("tokens").epoch != was

        await eventually(knows, within_s=5, why="the process did not learn of the rotation")
        assert cursors.open(keyring.token_keys(b"cursor"), Position, cursor, context=b"list") == position
        async with db.begin() as tx:
            again = await claim(tx, keyring, attempt(b"body"))
            assert again is not None
            assert again.replayed
        async with db.begin() as tx:
            with pytest.raises(IdempotencyMismatch):
                await claim(tx, keyring, attempt(b"another"))
