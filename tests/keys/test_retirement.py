"""Retiring a key: refused while anything rests on it, then nothing that it wrapped opens any more, proven."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.keys.people import count, long_ago, lost_hits, people, unreadable, wraps
from tests.keys.test_rewrap import rotated, whole
from tests.keys.test_rotation import loaded, moved_away
from usercore.db import Conn, Db
from usercore.errors import KeyInUse, KmsRefused, KmsUnavailable, OpenFailed
from usercore.events import now
from usercore.identities.actions import claim_own_pan
from usercore.keys.actions import check_retirable, list_keys, retire, rewrap_epochs, rotate
from usercore.keys.queries import list_keyring
from usercore.pii.keyring import KeyPurpose
from usercore.pii.keystore import open_epoch
from usercore.pii.kms import Kms
from usercore.rewraps.actions import reindex, rewrap

NONE = timedelta(0)
DESTROYED = "the KMS says: Version 1 of the local KMS key is destroyed."


async def epoch_of(operator: Db, kms: Kms, purpose: KeyPurpose, version: int = 1) -> int:
    epochs = (await list_keys(operator, kms)).epochs
    return next(each.epoch for each in epochs if (each.purpose, each.version) == (purpose, version))


async def refused(operator: Db, kms: Kms, epoch: int, says: str, backups: timedelta = NONE) -> None:
    for call in (check_retirable(operator, epoch, backups=backups), retire(operator, kms, epoch, backups=backups)):
        with pytest.raises(KeyInUse, match=says):
            await call


async def test_what_is_in_use_is_not_retired_and_the_refusal_says_what_to_do(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    users = await people(db, await loaded(db, kms), 2)
    epoch = await epoch_of(operator, kms, "user_keys")
    await refused(operator, kms, 999, "no epoch 999")
    await refused(operator, kms, epoch, "keys-rotate --purpose user_keys first")
    keyring = await rotated(db, kms, operator, "user_keys")
    await refused(operator, kms, epoch, "4 rows of user_keys depend on .*keys-rewrap")
    await whole(rewrap(db, keyring))
    await refused(operator, kms, epoch, "may still be in use: run keys-rewrap")
    await long_ago(owner)
    await whole(rewrap(db, keyring))
    await refused(operator, kms, epoch, "needed until .* UTC", timedelta(days=35))
    await check_retirable(operator, epoch, backups=NONE)
    assert await unreadable(db, keyring, users) == []


@pytest.mark.parametrize("purpose", ["audit_ip", "audit_signing"])
async def test_keys_of_the_trail_stay(db: Db, kms: Kms, operator: Db, owner: Conn, purpose: KeyPurpose) -> None:
    await loaded(db, kms)
    await rotated(db, kms, operator, purpose)
    await long_ago(owner)
    await refused(operator, kms, await epoch_of(operator, kms, purpose), "stays as long as the audit trail")


async def test_tokens_are_needed_for_a_day(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    await loaded(db, kms)
    await rotated(db, kms, operator, "tokens")
    epoch = await epoch_of(operator, kms, "tokens")
    await refused(operator, kms, epoch, "needed until")
    for _ in range(26):
        await long_ago(owner)
    await check_retirable(operator, epoch, backups=timedelta(days=35))


async def all_moved(db: Db, kms: Kms, operator: Db, owner: Conn) -> tuple[int, list[object]]:
    """Two users under the second epoch and the second version of the KMS key; the first epoch, and the users' ids."""
    users = await people(db, await loaded(db, kms), 2)
    keyring = await rotated(db, kms, operator, "user_keys")
    await rewrap_epochs(operator, kms)
    await long_ago(owner)
    await whole(rewrap(db, keyring))
    return await epoch_of(operator, kms, "user_keys"), list(users)


async def test_what_is_retired_opens_nowhere_any_more(db: Db, kms: Kms, operator: Db, owner: Conn) -> None:
    before = await loaded(db, kms)
    users = await people(db, before, 2)
    dump = await wraps(owner)  # as a backup has it, with the keyring beside it
    async with operator.read() as conn:
        stolen = await list_keyring(conn)
    keyring = await rotated(db, kms, operator, "user_keys")
    await long_ago(owner)
    await whole(rewrap(db, keyring))
    epoch = await epoch_of(operator, kms, "user_keys")

    # The other epochs are under the first version of the KMS key still, which stays with them.
    early = await retire(operator, kms, epoch, backups=NONE)
    assert early.destroyed_kms_version is None
    assert "version 1 of the KMS key wraps epochs 2, 3, 4, 5 too" in early.proof

    await rewrap_epochs(operator, kms)
    done = await retire(operator, kms, epoch, backups=NONE)
    assert (done.destroyed_kms_version, done.proof) == (
        "1",
        "the KMS says: Version 1 of the local KMS key is destroyed.",
    )
    for row in stolen:
        with pytest.raises(KmsRefused):
            await open_epoch(kms, row)
    after = await loaded(db, kms)
    for row in dump:
        with pytest.raises(OpenFailed):
            after.unwrap(row.user_id, row)
    assert await unreadable(db, after, users) == []
    assert await count(owner, "select length(wrapped) from pii_keyring where epoch = $1", epoch) == 0
    again = await retire(operator, kms, epoch, backups=NONE)
    assert again.proof == "it was destroyed before"


async def test_an_index_key_leaves_with_the_claims_that_have_a_newer_one(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    old = await loaded(db, kms)
    users = await people(db, old, 2)
    async with db.begin() as tx:
        assert await claim_own_pan(tx, old, users[0], now())
    epoch = await epoch_of(operator, kms, "blind_index")
    keyring = await rotated(db, kms, operator, "blind_index")
    await long_ago(owner)
    await refused(operator, kms, epoch, "1 rows of identity_claims and 4 rows of user_profiles")
    await whole(reindex(db, keyring))
    await retire(operator, kms, epoch, backups=NONE)
    assert await count(owner, "select count(*) from identity_claims") == 1
    assert await lost_hits(db, await loaded(db, kms), users) == []


async def test_damaged_data_keys_keep_an_epoch_until_somebody_says_otherwise(
    db: Db, kms: Kms, operator: Db, owner: Conn
) -> None:
    users = await people(db, await loaded(db, kms), 2)
    await owner.execute("update user_keys set wrapped = '\\x00' where user_id = $1", users[0])
    keyring = await rotated(db, kms, operator, "user_keys")
    await long_ago(owner)
    assert (await whole(rewrap(db, keyring))).bad == 2
    await whole(rewrap(db, keyring))
    epoch = await epoch_of(operator, kms, "user_keys")
    await refused(operator, kms, epoch, "2 rows of user_keys depend on")
    # One that is gone by now, of somebody who was erased, does not stand for one that is there.
    await owner.execute(
        "insert into user_keys_quarantine (user_id, retention_class, version, epoch, reason) "
        "values (gen_random_uuid(), 'contact', 1, $1, 'wrong_key')",
        epoch,
    )
    await owner.execute(
        "update user_keys set epoch = $1 where user_id = $2 and retention_class = 'contact'", epoch, users[1]
    )
    with pytest.raises(KeyInUse, match="1 rows of user_keys depend on"):
        await check_retirable(operator, epoch, backups=NONE, without_quarantined=True)
    await owner.execute("delete from user_keys where user_id = $1", users[1])
    await retire(operator, kms, epoch, backups=NONE, without_quarantined=True)


@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_cut_off_at_any_await_it_ends_when_it_is_called_again(
    db: Db, kms: Kms, operator: Db, owner: Conn, how: Callable[[], Interruption]
) -> None:
    users = await people(db, await loaded(db, kms), 2)
    at = 0
    while True:
        at += 1
        keyring = await rotated(db, kms, operator, "user_keys")
        await rewrap_epochs(operator, kms)
        await long_ago(owner)
        await whole(rewrap(db, keyring))
        epoch = await epoch_of(operator, kms, "user_keys", at)
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(retire(operator, kms, epoch, backups=NONE))
        assert await unreadable(db, await loaded(db, kms), users) == [], steps.interrupted_at
        done = await retire(operator, kms, epoch, backups=NONE)
        assert done.destroyed_kms_version or "destroyed" in done.proof, steps.interrupted_at
        assert (await kms.describe()).versions[str(at)] == "destroyed", steps.interrupted_at
        if steps.interrupted_at is None:
            break
    assert at > 10


async def test_a_kms_that_is_away_is_asked_again_by_the_next_call(
    db: Db, kms: Kms, operator: Db, owner: Conn, kms_file: Path
) -> None:
    epoch, _ = await all_moved(db, kms, operator, owner)
    back = moved_away(kms_file)
    with pytest.raises(KmsUnavailable):
        await retire(operator, kms, epoch, backups=NONE)
    back()
    assert (await retire(operator, kms, epoch, backups=NONE)).destroyed_kms_version == "1"


async def test_the_service_itself_can_neither_retire_nor_activate(db: Db, kms: Kms, operator: Db) -> None:
    await loaded(db, kms)
    epoch = await epoch_of(operator, kms, "user_keys")
    with pytest.raises(Exception, match="permission denied for table pii_keyring"):
        await rotate(db, kms, ["user_keys"], settle_s=0)
    with pytest.raises(Exception, match=r"permission denied|keys-rotate"):
        await retire(db, kms, epoch, backups=NONE)
