"""Verbs of the keyring's life, for operators: they run as the tables' owner, with an operator's rights at the KMS.

The service may read the keyring and add its first epochs; it can neither retire an epoch nor bring one back.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from usercore import telemetry
from usercore.db import Conn, Db
from usercore.errors import KeyInUse, KmsRefused, KmsUnavailable
from usercore.events import now
from usercore.keys import queries
from usercore.keys.queries import KeyringRow, Quarantined
from usercore.pii.cipher import KEY_BYTES
from usercore.pii.keyring import KeyPurpose
from usercore.pii.keystore import REFRESH_SECONDS, open_epoch, wrapped_epoch
from usercore.pii.kms import Kms, KmsDescription, VersionState
from usercore.pii.queries import lock_keyring

SETTLE_S = REFRESH_SECONDS + 0.5
"""Between adding an epoch and writing under it: by then every process that has the KMS opens what it wraps."""
TOKENS_LAST = timedelta(hours=25)
"""Cursors and answers to idempotency keys live a day."""
MOST_QUARANTINED = 1000
STAY: Sequence[KeyPurpose] = ("audit_ip", "audit_signing")
"""Never retired: what they signed and digested is verified for as long as there is a trail."""

log = telemetry.logger(__name__)


class Epoch(Struct, frozen=True):
    """An epoch for operators; `kms_state` is None when it is wrapped by another key than the configured one."""

    epoch: int
    purpose: KeyPurpose
    version: int
    state: str  # active, arriving, retiring or retired
    kms_uri: str
    kms_version: str
    kms_state: VersionState | None
    created_at: datetime
    state_since: datetime
    unused_since: datetime | None
    dependents: dict[str, int]


class Keys(Struct, frozen=True):
    """All there is: `kms` is None, and no states are known, while the KMS does not answer."""

    kms: KmsDescription | None
    epochs: list[Epoch]
    quarantined: list[Quarantined]


class Retired(Struct, frozen=True):
    """`proof` says why nothing that the epoch wrapped opens any more, or what is still missing for that."""

    epoch: int
    destroyed_kms_version: str | None
    proof: str


async def list_keys(owner: Db, kms: Kms) -> Keys:
    """Every epoch with what depends on it. Raises DatabaseUnavailable; a KMS that is away shows as None."""
    try:
        description = await kms.describe()
    except KmsUnavailable:
        description = None
    async with owner.read() as conn:
        rows = await queries.list_keyring(conn)
        counted = await queries.list_dependents(conn)
        quarantined = await queries.list_quarantined(conn, most=MOST_QUARANTINED)
    dependents: dict[int, dict[str, int]] = {}
    for each in counted:
        dependents.setdefault(each.epoch, {})[each.what] = each.count
    return Keys(description, [_epoch(row, rows, dependents, description) for row in rows], quarantined)


def _epoch(
    row: KeyringRow,
    rows: Sequence[KeyringRow],
    dependents: Mapping[int, dict[str, int]],
    kms: KmsDescription | None,
) -> Epoch:
    states = kms.versions if kms is not None and kms.uri == row.kms_uri else dict[str, VersionState]()
    return Epoch(
        row.epoch,
        row.purpose,
        row.version,
        "arriving" if _is_arriving(row, rows) else row.state,
        row.kms_uri,
        row.kms_version,
        states.get(row.kms_version),
        row.created_at,
        row.state_since,
        row.unused_since,
        dependents.get(row.epoch, {}),
    )


def _is_arriving(row: KeyringRow, rows: Sequence[KeyringRow]) -> bool:
    """Added, and not yet written under: newer than the active one of its purpose."""
    active = max((each.version for each in rows if each.purpose == row.purpose and each.state == "active"), default=0)
    return row.state == "retiring" and row.version > active


async def rotate(
    owner: Db, kms: Kms, purposes: Sequence[KeyPurpose], *, new_kms_version: bool = True, settle_s: float = SETTLE_S
) -> list[int]:
    """New epochs of these purposes, under a new version of the KMS key; returns their numbers.

    Each is added first and written under only when every process had the time to learn it. A rotation that was cut off
    in between is finished by the next one; of two at once both end with the same epochs. Raises KmsUnavailable,
    KmsRefused and DatabaseUnavailable.
    """
    if new_kms_version:
        await kms.rotate()
    uri = (await kms.describe()).uri
    arrived = [await _add(owner, kms, uri, purpose) for purpose in purposes]
    await asyncio.sleep(settle_s)
    for epoch, purpose in zip(arrived, purposes, strict=True):
        async with owner.begin() as tx:
            await lock_keyring(tx)
            rows = await queries.list_keyring(tx)
            if any(row.epoch == epoch and _is_arriving(row, rows) for row in rows):
                await queries.set_retiring(tx, purpose=purpose)
                await queries.set_active(tx, epoch=epoch)
        log.info("keyring_rotated", epoch=epoch, purpose=purpose)
    return arrived


async def _add(owner: Db, kms: Kms, uri: str, purpose: KeyPurpose) -> int:
    async with owner.read() as conn:
        rows = await queries.list_keyring(conn)
    version = max((row.version for row in rows if row.purpose == purpose), default=0) + 1
    made = await wrapped_epoch(kms, uri, os.urandom(KEY_BYTES), purpose, version)
    async with owner.begin() as tx:
        await lock_keyring(tx)
        rows = await queries.list_keyring(tx)
        for row in rows:
            if row.purpose == purpose and _is_arriving(row, rows):
                return row.epoch  # of a rotation that runs at the same time, or that was cut off
        return await queries.add_epoch(tx, epoch=made)


async def rewrap_epochs(owner: Db, kms: Kms, before: Kms | None = None) -> list[int]:
    """Bring the epochs under the primary version of the KMS key; `before` is the key that wrapped them till now.

    One that waits to be retired stays where it is: the version that wrapped it is destroyed with it. Running processes
    notice nothing. Raises KmsUnavailable, KmsRefused and DatabaseUnavailable; what was moved stays.
    """
    description = await kms.describe()
    source = description if before is None else await before.describe()
    async with owner.read() as conn:
        rows = await queries.list_keyring(conn)
    moved: list[int] = []
    for row in rows:
        if row.state == "retired" or (row.kms_uri, row.kms_version) == (description.uri, description.primary):
            continue
        leaves = row.state == "retiring" and row.purpose not in STAY and not _is_arriving(row, rows)
        if leaves and row.kms_uri == description.uri:
            continue
        if row.kms_uri not in (source.uri, description.uri):
            raise KmsRefused(f"Epoch {row.epoch} is wrapped by {row.kms_uri}: name that key with --from.")
        secret = await open_epoch(kms if before is None or row.kms_uri == description.uri else before, row)
        new = await wrapped_epoch(kms, description.uri, secret, row.purpose, row.version)
        async with owner.begin() as tx:
            await lock_keyring(tx)
            if await queries.set_wrapped(
                tx,
                epoch=row.epoch,
                was=row.wrapped,
                kms_uri=new.kms_uri,
                kms_version=new.kms_version,
                wrapped=new.wrapped,
            ):
                moved.append(row.epoch)
                log.info("keyring_epoch_rewrapped", epoch=row.epoch)
    return moved


async def retire(owner: Db, kms: Kms, epoch: int, *, backups: timedelta, without_quarantined: bool = False) -> Retired:
    """Make an epoch unreadable for ever: here, in every process, and in backups through the KMS.

    Raises KeyInUse while anything depends on it, also a backup that is kept for `backups`; KmsUnavailable, and then the
    same call goes on where it stopped.
    """
    async with owner.begin() as tx:
        await lock_keyring(tx)
        await queries.lock_user_keys(tx)
        rows = await queries.list_keyring(tx)
        row = await _retirable(tx, rows, epoch, backups, without_quarantined=without_quarantined)
        if row.state != "retired":
            if row.purpose == "blind_index":
                await queries.take_old_claims(tx, index_version=row.version)
            await queries.set_retired(tx, epoch=epoch)
            log.info("keyring_epoch_retired", epoch=epoch, purpose=row.purpose)
    if not row.wrapped:
        return Retired(epoch, None, "it was destroyed before")
    return await _destroy(owner, kms, row, [each for each in rows if each.epoch != epoch and each.state != "retired"])


async def check_retirable(owner: Db, epoch: int, *, backups: timedelta, without_quarantined: bool = False) -> None:
    """Raises KeyInUse as `retire` would now."""
    async with owner.read() as conn:
        rows = await queries.list_keyring(conn)
        await _retirable(conn, rows, epoch, backups, without_quarantined=without_quarantined)


async def _retirable(
    conn: Conn, rows: Sequence[KeyringRow], epoch: int, backups: timedelta, *, without_quarantined: bool
) -> KeyringRow:
    """The epoch, which is retired already or may be. Raises KeyInUse."""
    row = next((each for each in rows if each.epoch == epoch), None)
    if row is None:
        raise KeyInUse(f"There is no epoch {epoch}: keys-list shows those that there are.")
    if row.state == "retired":
        return row
    dependents = {each.what: each.count for each in await queries.list_dependents(conn) if each.epoch == epoch}
    if without_quarantined:
        put_aside = await queries.count_quarantined(conn, epoch=epoch)
        dependents["user_keys"] = dependents.get("user_keys", 0) - put_aside
    _refuse_in_use(row, rows, {what: count for what, count in dependents.items() if count}, backups)
    return row


def _refuse_in_use(
    row: KeyringRow, rows: Sequence[KeyringRow], dependents: Mapping[str, int], backups: timedelta
) -> None:
    name = f"Epoch {row.epoch} ({row.purpose} {row.version})"
    if row.state == "active" or _is_arriving(row, rows):
        raise KeyInUse(f"{name} is written under: keys-rotate --purpose {row.purpose} first.")
    if row.purpose in STAY:
        raise KeyInUse(f"{name} stays as long as the audit trail: without it nobody could verify what was written.")
    if dependents:
        counts = " and ".join(f"{count} rows of {what}" for what, count in sorted(dependents.items()))
        raise KeyInUse(f"{counts} depend on {name}: keys-rewrap moves them.")
    if row.purpose == "tokens":
        free_at = row.state_since + TOKENS_LAST
    elif row.unused_since is None:
        raise KeyInUse(f"{name} may still be in use: run keys-rewrap, half a minute after the rotation or later.")
    else:
        free_at = row.unused_since + backups
    if now() < free_at:
        raise KeyInUse(
            f"{name} is needed until {free_at:%Y-%m-%d %H:%M} UTC: what was sealed or backed up before rests on it."
        )


async def _destroy(owner: Db, kms: Kms, row: KeyringRow, live: Sequence[KeyringRow]) -> Retired:
    """Destroys the version of the KMS key that wrapped it, unless that is still needed, and tries to open it."""
    description = await kms.describe()
    version: str | None = None
    held = f"not proven: version {row.kms_version} of the KMS key"
    if row.kms_uri != description.uri:
        proof = f"not proven: {row.kms_uri}, which wrapped it, has to be destroyed where it is"
    elif row.kms_version == description.primary:
        todo = (
            "keys-rotate, keys-rewrap and this again; where a whole key is one version, keys-rewrap --from to another"
        )
        return Retired(row.epoch, None, f"{held} wraps what is new: {todo}")
    elif shared := _wrapped_with(row, live):
        return Retired(row.epoch, None, f"{held} wraps epochs {', '.join(map(str, shared))} too: retire or rewrap them")
    else:
        try:
            await kms.destroy(row.kms_version)
            version = row.kms_version
            await open_epoch(kms, row)
        except KmsRefused as refused:
            proof = f"the KMS says: {refused}"
        else:
            raise KmsUnavailable(f"Version {version} of the KMS key still opens epoch {row.epoch}: try again.")
    async with owner.begin() as tx:
        await lock_keyring(tx)
        await queries.set_destroyed(tx, epoch=row.epoch)
    return Retired(row.epoch, version, proof)


def _wrapped_with(row: KeyringRow, live: Sequence[KeyringRow]) -> list[int]:
    """The epochs that open no more either when the version of the KMS key is destroyed that wrapped this one."""
    version = (row.kms_uri, row.kms_version)
    return [each.epoch for each in live if (each.kms_uri, each.kms_version) == version]
