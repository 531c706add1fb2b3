"""The keyring's whole life with each KMS provider: made, rotated, moved, retired, and what is away or was swapped."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from tests.keys.people import long_ago, people, unreadable, wraps
from tests.keys.test_rewrap import whole
from tests.keys.test_rotation import loaded
from tests.pii.kms_stands import Bao, Stand, one_of_each
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.errors import KmsRefused, KmsUnavailable, OpenFailed
from usercore.keys.actions import list_keys, retire, rewrap_epochs, rotate
from usercore.keys.queries import KeyringRow, list_keyring
from usercore.pii.keyring import PURPOSES, Keyring
from usercore.pii.keystore import load, open_epoch, wrapped_epoch
from usercore.pii.kms import Kms
from usercore.pii.queries import EpochRow
from usercore.rewraps.actions import reindex, rewrap


@pytest_asyncio.fixture
async def rows(db: Db, kms: Kms, operator: Db) -> Sequence[KeyringRow]:
    await loaded(db, kms)
    async with operator.read() as conn:
        return await list_keyring(conn)


async def test_made_rotated_moved_and_retired(db: Db, kms: Kms, operator: Db, owner: Conn, stand: Stand) -> None:
    users = await people(db, await loaded(db, kms), 2)
    dump = await wraps(owner)
    async with operator.read() as conn:
        stolen = [row for row in await list_keyring(conn) if row.purpose == "user_keys"]
    await rotate(operator, kms, PURPOSES, settle_s=0)
    keyring = await loaded(db, kms)
    await rewrap_epochs(operator, kms)
    for _ in range(26):
        await long_ago(owner)
    await whole(rewrap(db, keyring))
    await whole(reindex(db, keyring))
    found = await list_keys(operator, kms)
    assert found.kms is not None
    assert found.kms.uri == stand.uri
    assert {epoch.kms_state for epoch in found.epochs} == {"enabled"}
    old = [epoch.epoch for epoch in found.epochs if epoch.state == "retiring" and epoch.purpose[:5] != "audit"]
    last = [await retire(operator, kms, epoch, backups=timedelta(0)) for epoch in old][-1]
    after = await loaded(db, kms)
    assert await unreadable(db, after, users) == []
    for row in dump:
        with pytest.raises(OpenFailed):
            after.unwrap(row.user_id, row)
    if stand.uri.startswith("aws"):  # which destroys whole keys only, and says so
        assert last.destroyed_kms_version is None
        assert "keys-rewrap --from" in last.proof
    else:
        assert last.destroyed_kms_version == "1"
        for row in stolen:
            with pytest.raises(KmsRefused):
                await open_epoch(kms, row)


async def test_a_wrap_of_another_epoch_purpose_or_version_is_refused(kms: Kms, rows: Sequence[KeyringRow]) -> None:
    first, second = rows[0], rows[1]
    assert await open_epoch(kms, first)
    for changes in (
        {"wrapped": second.wrapped},
        {"purpose": second.purpose},
        {"version": first.version + 1},
        {"commitment": second.commitment},
        {"kms_version": "999"},
    ):
        if "kms_version" in changes and first.kms_uri.startswith("gcp"):
            continue  # Google's answer does not name the version; the commitment is what holds
        with pytest.raises(KmsRefused):
            await open_epoch(kms, replace(first, **changes))


async def test_an_epoch_of_another_provider_is_refused(
    bao: Bao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the row says of who wrapped it."""
    async with one_of_each(tmp_path, bao, monkeypatch.setenv) as stands:
        opened = [stand.open() for stand in stands]
        pairs = zip(opened, stands, strict=True)
        rows = [await wrapped_epoch(kms, stand.uri, b"s" * 32, "user_keys", 1) for kms, stand in pairs]
        for mine, kms in enumerate(opened):
            version = (await kms.describe()).primary
            for whose, made in enumerate(rows):
                row = EpochRow(
                    epoch=1,
                    purpose=made.purpose,
                    version=made.version,
                    state="active",
                    kms_version=made.kms_version,
                    wrapped=made.wrapped,
                    commitment=made.commitment,
                )
                if whose == mine:
                    assert await open_epoch(kms, row) == b"s" * 32
                    continue
                for claimed in (row, replace(row, kms_version=version)):
                    with pytest.raises(KmsRefused):
                        await open_epoch(kms, claimed)
        for kms in opened:
            await kms.close()


async def test_an_outage_is_not_seen_by_who_runs_and_ends_for_who_starts(
    db: Db, kms: Kms, operator: Db, stand: Stand
) -> None:
    keyring = await loaded(db, kms)
    users = await people(db, keyring, 1)
    stand.cut_off(True)
    await load(db, kms, keyring)  # a refresh asks nothing
    users += [(await people(db, keyring, 2))[1]]
    assert await unreadable(db, keyring, users) == []
    starting = stand.open()
    with pytest.raises(KmsUnavailable):
        await loaded(db, starting)
    with pytest.raises(KmsUnavailable):
        await rotate(operator, kms, ["user_keys"], settle_s=0)
    stand.cut_off(False)

    async def back() -> Keyring | None:
        try:
            return await loaded(db, starting)
        except KmsUnavailable:
            return None

    fresh = await eventually(back)
    assert fresh is not None
    assert await unreadable(db, fresh, users) == []
    await starting.close()
