"""Verbs that follow a rotation, slice by slice: what was written under an older epoch is brought under the active one.

Where a pass stands is said by the rows themselves, so one that was cut off begins again and skips what is done; two at
once do each row once. Nothing waits for it: what an older epoch wrapped opens until that is retired.
"""

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

from msgspec import Struct

from usercore import telemetry
from usercore.db import Conn, Db
from usercore.errors import OpenFailed
from usercore.outbox import Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii.classification import RetentionClass
from usercore.pii.keyring import KeyPurpose, Keyring
from usercore.pii.user_keys import key_rows
from usercore.pii.wraps import UserKeyRow
from usercore.rewraps import queries
from usercore.rewraps.queries import IndexedRow

SLICE = 1000
"""Users at a time: some 15 ms of our CPU."""
INDEX_SLICE = 200
"""Each user that is indexed anew leaves an audit row; their rows are locked for as long as a slice takes."""
FIRST = UUID(int=0)

INDEXER = Actor(kind="system", purpose="operations")
log = telemetry.logger(__name__)


class Step(Struct, frozen=True):
    """A slice that is done: rows that were moved, that do not open, and that wait for an epoch that is not open."""

    moved: int
    bad: int
    waiting: int


async def rewrap(db: Db, keyring: Keyring) -> AsyncGenerator[Step]:
    """Every data key under the active epoch, in slices. Raises KeysUnavailable and DatabaseUnavailable."""
    epoch, older, after, left = keyring.active("user_keys").epoch, _older(keyring, "user_keys"), FIRST, 0
    while True:
        async with db.read() as conn:
            until = await queries.get_slice_end(conn, after=after, most=SLICE)
            if until is None:
                break
            rows = await queries.list_outdated(conn, after=after, until=until, epoch=epoch)
        step = await _rewrap_slice(db, keyring, rows)
        left += step.bad + step.waiting
        after = until
        yield step
    yield await _rewrap_inbox(db, keyring, epoch)
    if not left:
        await _mark_unused(db, older)


async def _rewrap_slice(db: Db, keyring: Keyring, rows: list[UserKeyRow]) -> Step:
    moved: list[UserKeyRow] = []
    was: list[bytes] = []
    broken: list[tuple[UserKeyRow, str]] = []
    waiting = 0
    for row in rows:
        try:
            moved.append(keyring.rewrapped(row))
        except OpenFailed as failure:
            if failure.reason == "keys_unavailable":
                waiting += 1
            else:
                broken.append((row, failure.reason))
        else:
            was.append(row.wrapped)
    count = 0
    if moved or broken:
        async with db.begin() as tx:
            count = await queries.set_wraps(tx, keys=moved, was=was) if moved else 0
            for row, reason in broken:
                await _quarantine(tx, row, reason)
    return Step(count, len(broken), waiting)


async def _quarantine(tx: Conn, row: UserKeyRow, reason: str) -> None:
    if await queries.add_quarantined(
        tx,
        user_id=row.user_id,
        retention_class=row.retention_class,
        version=row.version,
        epoch=row.epoch,
        reason=reason,
    ):
        log.error("user_key_quarantined", user_id=str(row.user_id), reason=reason)


async def _rewrap_inbox(db: Db, keyring: Keyring, epoch: int) -> Step:
    """The webhook inbox's keys: seven of them."""
    retention: RetentionClass = pii.WEBHOOK_BODY.retention
    moved = bad = 0
    async with db.begin() as tx:
        for row in await queries.list_outdated_inbox_keys(tx, epoch=epoch):
            try:
                new = keyring.rewrapped(UserKeyRow(row.owner, retention, 1, row.epoch, row.wrapped))
            except OpenFailed:
                bad += 1  # gone within a week, with the messages that it sealed
            else:
                await queries.set_inbox_wrap(tx, day=row.day, was=row.wrapped, epoch=new.epoch, wrapped=new.wrapped)
                moved += 1
    return Step(moved, bad, 0)


async def reindex(db: Db, keyring: Keyring) -> AsyncGenerator[Step]:
    """Every blind index and claim under the active key, in slices; each value that is opened for it is audited.

    Raises KeysUnavailable and DatabaseUnavailable.
    """
    prefix, older = keyring.active("blind_index").version.to_bytes(2, "big"), _older(keyring, "blind_index")
    after, left = FIRST, 0
    while True:
        async with db.read() as conn:
            until = await queries.get_profile_slice_end(conn, after=after, most=INDEX_SLICE)
            if until is None:
                break
            rows = await queries.list_unindexed(conn, after=after, until=until, prefix=prefix)
        moved = bad = waiting = 0
        if rows:
            async with db.begin() as tx:
                for row in rows:
                    try:
                        moved += await _index(tx, keyring, row)
                    except OpenFailed as failure:
                        waiting += failure.reason == "keys_unavailable"
                        bad += failure.reason != "keys_unavailable"
        left += bad + waiting
        after = until
        yield Step(moved, bad, waiting)
    if not left:
        await _mark_unused(db, older)


async def _index(tx: Conn, keyring: Keyring, row: IndexedRow) -> bool:
    """Whether it is indexed now; false when somebody wrote these fields meanwhile, and their index with them."""
    keys = keyring.unlock(row.user_id, key_rows(row.user_id, row))
    pan = None if row.pan_number_enc is None else keys.open(pii.PAN_NUMBER, row.pan_number_enc).reveal()
    phone = None if row.phone_enc is None else keys.open(pii.PHONE, row.phone_enc).reveal()
    done = await queries.set_indexes(
        tx,
        user_id=row.user_id,
        pan_number_index=None if pan is None else keyring.blind_index(pii.PAN_NUMBER, pan),
        phone_index=None if phone is None else keyring.blind_index(pii.PHONE, phone),
        was_pan_number=row.pan_number_index,
        was_phone=row.phone_index,
    )
    if pan is not None:
        newest, *older = keyring.blind_indexes(pii.PAN_NUMBER, pan)
        await queries.add_claim(
            tx,
            user_id=row.user_id,
            index_version=int.from_bytes(newest[:2], "big"),
            digest=newest[2:],
            older_versions=[int.from_bytes(index[:2], "big") for index in older],
            older_digests=[index[2:] for index in older],
        )
    opened = [name for name, value in (("pan_number", pan), ("phone", phone)) if value is not None]
    change = Change(
        action="profile.read", user_id=row.user_id, resource="user_profiles", new={"fields": opened, "masked": True}
    )
    await record(tx, change, actor=INDEXER)
    return bool(done)


async def is_unfinished(db: Db, purpose: KeyPurpose) -> bool:
    """Whether a pass may find something."""
    async with db.read() as conn:
        return await queries.has_unfinished(conn, purpose=purpose)


async def paced(steps: AsyncGenerator[Step], rate: float | None) -> AsyncGenerator[Step]:
    """The same steps, so far apart that no more than `rate` rows are moved a second."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async for step in steps:
        yield step
        if rate is not None:
            await asyncio.sleep(step.moved / rate - (loop.time() - began))
            began = loop.time()


def _older(keyring: Keyring, purpose: KeyPurpose) -> list[int]:
    """What a pass that begins now leaves nothing under: not an epoch that is still arriving."""
    active = keyring.active(purpose).version
    return [each.epoch for each in keyring.epochs if each.purpose == purpose and each.version < active]


async def _mark_unused(db: Db, older: list[int]) -> None:
    if older:
        async with db.begin() as tx:
            await queries.set_unused(tx, epochs=older)
