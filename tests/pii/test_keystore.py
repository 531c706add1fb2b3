"""The keyring from a real Postgres and the local KMS: away and back, two at once, wrong and missing keys."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from tests.databases import DatabaseUrls
from usercore import migrate
from usercore.db import Conn, Db
from usercore.errors import DatabaseUnavailable, KeysUnavailable, KmsRefused, KmsUnavailable, OpenFailed
from usercore.pii import classification as pii
from usercore.pii import queries
from usercore.pii.keyring import PURPOSES, EpochKey, Keyring, epoch_commitment
from usercore.pii.keystore import keep_loaded, load
from usercore.pii.kms import Kms, Unwrapped, open_kms
from usercore.pii.kms.local import LocalKms, add_version, create, set_state
from usercore.pii.queries import NewEpoch

SOON = 0.01
USER = uuid4()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kms.json"
    create(path)
    return path


@pytest.fixture
def kms(path: Path) -> Kms:
    return open_kms(f"local://{path}")


class WatchedKeyring(Keyring):
    """Tells the test when it was refreshed."""

    def __init__(self) -> None:
        super().__init__()
        self.refreshed = asyncio.Queue[None]()

    def install(self, epochs: Sequence[EpochKey], unopened: Collection[int] = ()) -> None:
        super().install(epochs, unopened)
        self.refreshed.put_nowait(None)


@asynccontextmanager
async def keeping(db: Db, kms: Kms, keyring: Keyring, refresh_s: float = 60) -> AsyncGenerator[asyncio.Task[None]]:
    task: asyncio.Task[None] = asyncio.create_task(
        keep_loaded(db, kms, keyring, refresh_s=refresh_s, first_retry_s=SOON, longest_retry_s=SOON)
    )
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def move(path: Path, target: Path) -> Path:
    return path.rename(target)


async def loaded(db: Db, kms: Kms) -> Keyring:
    keyring = Keyring()
    await load(db, kms, keyring)
    return keyring


async def test_the_first_start_makes_an_epoch_of_each_purpose(db: Db, kms: Kms, owner: Conn):
    keyring = await loaded(db, kms)
    assert keyring.available
    assert [(epoch.purpose, epoch.version, epoch.state) for epoch in sorted(keyring.epochs, key=lambda e: e.epoch)] == [
        (purpose, 1, "active") for purpose in PURPOSES
    ]
    stored = cast(bytes, await owner.fetchval("select string_agg(wrapped || commitment, '') from pii_keyring"))
    assert not any(epoch.secret in stored for epoch in keyring.epochs)
    assert await owner.fetchval("select array_agg(distinct kms_version) from pii_keyring") == ["1"]


async def test_every_process_and_every_start_gets_the_same_keys(db: Db, kms: Kms):
    first, second = await loaded(db, kms), await loaded(db, kms)
    rows = first.new_user_keys(USER)
    sealed = first.unlock(USER, rows).seal(pii.PHONE, "+919876543210")
    assert second.unlock(USER, rows).open(pii.PHONE, sealed) == "+919876543210"
    assert first.blind_index(pii.PHONE, "x") == second.blind_index(pii.PHONE, "x")
    assert first.ip_mac("::1") == second.ip_mac("::1")
    assert first.token_key(b"x") == second.token_key(b"x")


async def test_many_first_starts_at_once_have_one_winner(database: DatabaseUrls, path: Path, owner: Conn):
    pools = [await Db.connect(database.app, min_size=1, max_size=2) for _ in range(8)]
    try:
        rings = await asyncio.gather(*(loaded(db, open_kms(f"local://{path}")) for db in pools))
    finally:
        for db in pools:
            await db.close()
    assert await owner.fetchval("select count(*) from pii_keyring") == len(PURPOSES)
    assert all(ring.available for ring in rings)
    assert len({ring.token_key(b"x") for ring in rings}) == 1
    assert len({ring.blind_index(pii.PHONE, "x") for ring in rings}) == 1


async def test_kms_away_at_the_start_then_back(db: Db, kms: Kms, path: Path):
    away = move(path, path.with_suffix(".away"))
    keyring = Keyring()
    with pytest.raises(KmsUnavailable):
        await load(db, kms, keyring)
    async with keeping(db, kms, keyring):
        assert not keyring.available
        with pytest.raises(KeysUnavailable):
            keyring.new_user_keys(USER)
        move(away, path)
        async with asyncio.timeout(10):
            await keyring.ready.wait()
    assert keyring.available


async def test_kms_away_at_a_later_start_opens_nothing_and_changes_nothing(db: Db, kms: Kms, path: Path, owner: Conn):
    first = await loaded(db, kms)
    rows = first.new_user_keys(USER)
    sealed = first.unlock(USER, rows).seal(pii.PHONE, "+919876543210")
    away = move(path, path.with_suffix(".away"))
    keyring = Keyring()
    with pytest.raises(KmsUnavailable):
        await load(db, kms, keyring)
    with pytest.raises(OpenFailed) as failure:
        keyring.unlock(USER, rows).open(pii.PHONE, sealed)
    assert failure.value.reason == "keys_unavailable"
    with pytest.raises(KeysUnavailable):
        keyring.unlock(USER, rows).seal(pii.PHONE, "x")
    assert await owner.fetchval("select count(*) from pii_keyring") == len(PURPOSES)
    move(away, path)
    await load(db, kms, keyring)
    assert keyring.unlock(USER, rows).open(pii.PHONE, sealed) == "+919876543210"


async def test_a_kms_that_is_away_is_waited_for_once_not_once_an_epoch(db: Db, kms: Kms, path: Path):
    class Counting(LocalKms):
        asked = 0

        async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
            self.asked += 1
            return await super().unwrap(ciphertext, context, key_version)

    await loaded(db, kms)
    move(path, path.with_suffix(".away"))
    counting, keyring = Counting(str(path)), Keyring()
    with pytest.raises(KmsUnavailable):
        await load(db, counting, keyring)
    assert counting.asked == 1
    assert sorted(keyring.unopened) == [*range(1, len(PURPOSES) + 1)]


async def test_a_kms_that_goes_away_does_not_stop_a_running_process(db: Db, kms: Kms, path: Path):
    keyring = await loaded(db, kms)
    move(path, path.with_suffix(".away"))
    await load(db, kms, keyring)
    assert keyring.available
    assert keyring.new_user_keys(USER)


async def test_postgres_away_is_retried(kms: Kms, database: DatabaseUrls):
    nowhere = await Db.connect("postgresql://usercore_app@127.0.0.1:9/none")
    with pytest.raises(DatabaseUnavailable):
        await load(nowhere, kms, Keyring())
    async with keeping(nowhere, kms, Keyring()) as task:
        done, _ = await asyncio.wait([task], timeout=5 * SOON)
        assert not done
    await nowhere.close()


async def test_a_database_that_is_not_migrated_yet_is_waited_for(empty_database: DatabaseUrls, kms: Kms):
    db = await Db.connect(empty_database.app)
    keyring = Keyring()
    async with keeping(db, kms, keyring):
        await asyncio.to_thread(migrate.apply, empty_database.owner, lambda _: None)
        async with asyncio.timeout(10):
            await keyring.ready.wait()
    await db.close()


async def test_the_key_of_another_kms_opens_nothing_and_makes_nothing(db: Db, kms: Kms, tmp_path: Path, owner: Conn):
    await loaded(db, kms)
    create(tmp_path / "other.json")
    keyring = Keyring()
    with pytest.raises(KmsRefused, match="did not wrap this"):
        await load(db, open_kms(f"local://{tmp_path / 'other.json'}"), keyring)
    assert not keyring.available
    assert sorted(keyring.unopened) == [*range(1, len(PURPOSES) + 1)]
    assert await owner.fetchval("select count(*) from pii_keyring") == len(PURPOSES)


async def test_one_destroyed_epoch_leaves_the_others(db: Db, kms: Kms, path: Path, owner: Conn):
    before = await loaded(db, kms)
    old_rows = before.new_user_keys(USER)
    add_version(path)
    await owner.execute("update pii_keyring set state = 'retiring' where purpose = 'user_keys'")
    await load(db, kms, before)  # makes the second epoch, under the second version
    set_state(path, "1", "destroyed")
    await owner.execute("update pii_keyring set state = 'retired' where purpose <> 'user_keys'")
    keyring = Keyring()
    with pytest.raises(KmsRefused, match="destroyed"):
        await load(db, kms, keyring)
    assert keyring.available
    assert sorted(keyring.unopened) == [1]
    with pytest.raises(OpenFailed) as failure:
        keyring.unwrap(USER, old_rows[0])
    assert failure.value.reason == "keys_unavailable"
    assert len(keyring.unwrap(USER, before.new_user_keys(USER)[0])) == 32


async def test_rotation_reaches_a_running_process(db: Db, kms: Kms, owner: Conn):
    running, other = WatchedKeyring(), await loaded(db, kms)
    async with keeping(db, kms, running), asyncio.timeout(10):
        await running.refreshed.get()
        old_rows = running.new_user_keys(USER)
        sealed = running.unlock(USER, old_rows).seal(pii.PHONE, "+919876543210")
        await owner.execute("update pii_keyring set state = 'retiring' where purpose = 'user_keys'")
        await load(db, kms, other)
        new_row = other.new_user_keys(USER)[0]
        with pytest.raises(OpenFailed) as failure:
            running.unwrap(USER, new_row)
        assert failure.value.reason == "keys_unavailable"
        # That meeting wakes the loop: else it would take the 60 seconds of `keeping`.
        await running.refreshed.get()
        assert len(running.unwrap(USER, new_row)) == 32
    assert running.unlock(USER, old_rows).open(pii.PHONE, sealed) == "+919876543210"
    assert {row.epoch for row in running.new_user_keys(USER)} == {new_row.epoch}


async def test_a_retired_epoch_is_not_asked_for(db: Db, kms: Kms, path: Path, owner: Conn):
    await loaded(db, kms)
    add_version(path)
    await owner.execute("update pii_keyring set state = 'retired'")
    await loaded(db, kms)
    set_state(path, "1", "destroyed")
    keyring = await loaded(db, kms)
    assert {epoch.version for epoch in keyring.epochs} == {2}


@pytest.mark.parametrize("column", ["wrapped", "commitment"])
async def test_a_changed_epoch_is_refused(db: Db, kms: Kms, owner: Conn, column: str):
    await loaded(db, kms)
    await owner.execute(f"update pii_keyring set {column} = set_byte({column}, 20, get_byte({column}, 20) # 1)")
    keyring = Keyring()
    with pytest.raises(KmsRefused):
        await load(db, kms, keyring)
    assert not keyring.available


async def test_swapped_epochs_are_refused(db: Db, kms: Kms, owner: Conn):
    await loaded(db, kms)
    await owner.execute(
        "update pii_keyring k set wrapped = o.wrapped, commitment = o.commitment"
        " from pii_keyring o where o.epoch = k.epoch % 4 + 1"
    )
    keyring = Keyring()
    with pytest.raises(KmsRefused):
        await load(db, kms, keyring)
    assert list(keyring.epochs) == []


async def test_another_keyring_under_the_same_numbers_is_noticed(db: Db, kms: Kms, owner: Conn):
    """A database restored from elsewhere: what is in memory is not believed to be what is stored."""
    keyring = await loaded(db, kms)
    before = keyring.token_key(b"x")
    secret = bytes(range(32))
    wrapped = await kms.wrap(secret, {"service": "usercore", "purpose": "tokens", "version": "1"})
    await owner.execute(
        "update pii_keyring set wrapped = $1, commitment = $2 where purpose = 'tokens'",
        wrapped.ciphertext,
        epoch_commitment(secret, "tokens", 1),
    )
    await load(db, kms, keyring)
    assert keyring.token_key(b"x") != before


async def test_a_second_active_epoch_is_never_added(db: Db, kms: Kms):
    await loaded(db, kms)
    late = NewEpoch("tokens", 2, "local://x", "1", b"wrapped", b"commitment")
    async with db.begin() as tx:
        assert await queries.add_epochs(tx, epochs=[late]) == []


async def test_a_dropped_user_key_is_a_missing_key(db: Db, kms: Kms):
    keyring = await loaded(db, kms)
    identity, contact = keyring.new_user_keys(USER)
    keys = keyring.unlock(USER, [identity, contact])
    name, phone = keys.seal(pii.FIRST_NAME, "Asha"), keys.seal(pii.PHONE, "+919876543210")
    left = keyring.unlock(USER, [contact])
    assert left.open(pii.PHONE, phone) == "+919876543210"
    with pytest.raises(OpenFailed) as failure:
        left.open(pii.FIRST_NAME, name)
    assert failure.value.reason == "missing_key"
