"""Fills the keyring: epochs from Postgres, opened by the KMS; makes the first epoch of each purpose."""

import asyncio
import hmac
import os
from collections.abc import Sequence
from random import SystemRandom
from typing import NoReturn, Protocol, get_args

from asyncpg import PostgresError

from usercore import telemetry
from usercore.db import Db
from usercore.errors import DatabaseUnavailable, KmsRefused, KmsUnavailable
from usercore.pii import queries
from usercore.pii.cipher import KEY_BYTES
from usercore.pii.keyring import PURPOSES, EpochKey, EpochState, KeyPurpose, Keyring, epoch_commitment
from usercore.pii.kms import Kms
from usercore.pii.queries import EpochRow, NewEpoch

REFRESH_SECONDS = 2.0  # so long a process may not know an epoch that another one made; it asks sooner when it meets one
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 15.0  # "back to normal in under 30 s" after whatever outage, with the time that loading takes

log = telemetry.logger(__name__)


class WrappedEpoch(Protocol):
    """A row of pii_keyring."""

    @property
    def epoch(self) -> int: ...
    @property
    def purpose(self) -> KeyPurpose: ...
    @property
    def version(self) -> int: ...
    @property
    def kms_version(self) -> str: ...
    @property
    def wrapped(self) -> bytes: ...
    @property
    def commitment(self) -> bytes: ...


_random = SystemRandom()


async def load(db: Db, kms: Kms, keyring: Keyring) -> None:
    """Bring the keyring up to date with the database; asks the KMS only for what is not in memory yet.

    Epochs that open are installed even when others do not. Raises KmsUnavailable or KmsRefused when a live one did not
    open, and DatabaseUnavailable.
    """
    rows = await _list_epochs(db)
    if missing := _missing(rows):
        await _create(db, kms, missing)
        rows = await _list_epochs(db)
    known = {epoch.epoch: epoch.secret for epoch in keyring.epochs}
    opened: list[EpochKey] = []
    unopened: list[int] = []
    problem: KmsUnavailable | KmsRefused | None = None
    for row in rows:
        if row.state == "retired":
            continue
        secret = known.get(row.epoch)
        try:
            # The commitment tells a database that was restored to another keyring from the one we know.
            if secret is None or not _is_committed(secret, row):
                if isinstance(problem, KmsUnavailable):
                    raise problem  # asked a moment ago: do not wait for its time-out again
                secret = await open_epoch(kms, row)
        except (KmsUnavailable, KmsRefused) as error:
            unopened.append(row.epoch)
            problem = error
        else:
            opened.append(EpochKey(row.epoch, row.purpose, row.version, row.state, secret))
    keyring.install(opened, unopened)
    for state in get_args(EpochState):
        telemetry.metrics.keyring_epochs(state, sum(row.state == state for row in rows))
    if problem is not None:
        raise problem


async def keep_loaded(
    db: Db,
    kms: Kms,
    keyring: Keyring,
    *,
    refresh_s: float = REFRESH_SECONDS,
    first_retry_s: float = FIRST_RETRY_SECONDS,
    longest_retry_s: float = LONGEST_RETRY_SECONDS,
) -> NoReturn:
    """`load` again and again, for as long as the process lives: soon after a failure, later after the next one."""
    retry_s = first_retry_s
    troubled = False
    while True:
        try:
            await load(db, kms, keyring)
        except (KmsUnavailable, KmsRefused, DatabaseUnavailable, PostgresError) as error:
            # PostgresError: a database that is not migrated yet is no reason to give up either.
            if not troubled:
                log.warning("keyring_not_loaded", error=type(error).__name__, status=_status(keyring))
            troubled = True
            # Jitter, so that a fleet does not come back to a recovering KMS in step.
            pause_s = retry_s * _random.uniform(0.5, 1.0)
            retry_s = min(retry_s * 2, longest_retry_s)
        else:
            if troubled:
                log.info("keyring_loaded", status=_status(keyring))
            troubled = False
            retry_s = first_retry_s
            pause_s = refresh_s
        await _pause(keyring, pause_s, first_retry_s)


async def _pause(keyring: Keyring, seconds: float, least_s: float) -> None:
    """Shorter when a row names an epoch that is not known, but never shorter than `least_s`."""
    await asyncio.sleep(min(least_s, seconds))
    try:
        async with asyncio.timeout(max(seconds - least_s, 0)):
            await keyring.refresh_wanted.wait()
    except TimeoutError:
        return
    keyring.refresh_wanted.clear()


async def _list_epochs(db: Db) -> list[EpochRow]:
    async with db.read() as conn:
        return await queries.list_epochs(conn)


def _missing(rows: Sequence[EpochRow]) -> list[tuple[KeyPurpose, int]]:
    """The purposes without an active epoch, each with the version that it gets."""
    active = {row.purpose for row in rows if row.state == "active"}
    return [
        (purpose, max((row.version for row in rows if row.purpose == purpose), default=0) + 1)
        for purpose in PURPOSES
        if purpose not in active
    ]


async def _create(db: Db, kms: Kms, missing: Sequence[tuple[KeyPurpose, int]]) -> None:
    """Wraps first, then inserts: the KMS is never waited for inside a transaction. The first to insert wins."""
    uri = (await kms.describe()).uri
    epochs: list[NewEpoch] = []
    for purpose, version in missing:
        secret = os.urandom(KEY_BYTES)
        epochs.append(await wrapped_epoch(kms, uri, secret, purpose, version))
    async with db.begin() as tx:
        await queries.lock_keyring(tx)
        created = await queries.add_epochs(tx, epochs=epochs)
    for epoch in created:
        log.info("keyring_epoch_created", epoch=epoch)


async def wrapped_epoch(kms: Kms, uri: str, secret: bytes, purpose: KeyPurpose, version: int) -> NewEpoch:
    """The epoch as it is stored. Raises KmsUnavailable and KmsRefused."""
    wrapped = await kms.wrap(secret, _context(purpose, version))
    commitment = epoch_commitment(secret, purpose, version)
    return NewEpoch(purpose, version, uri, wrapped.key_version, wrapped.ciphertext, commitment)


async def open_epoch(kms: Kms, row: WrappedEpoch) -> bytes:
    """The epoch's secret. Raises KmsUnavailable, and KmsRefused also when the KMS opens something else."""
    unwrapped = await kms.unwrap(row.wrapped, _context(row.purpose, row.version), row.kms_version)
    secret = unwrapped.plaintext
    if len(secret) != KEY_BYTES or not _is_committed(secret, row):
        raise KmsRefused(f"What the KMS opened for epoch {row.epoch} is not the key that was made for it.")
    return secret


def _is_committed(secret: bytes, row: WrappedEpoch) -> bool:
    return hmac.compare_digest(epoch_commitment(secret, row.purpose, row.version), row.commitment)


def _context(purpose: KeyPurpose, version: int) -> dict[str, str]:
    return {"service": "usercore", "purpose": purpose, "version": str(version)}


def _status(keyring: Keyring) -> str:
    return "available" if keyring.available else "unavailable"
