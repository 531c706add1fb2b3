"""What operators do to keys and to people, as processes that are killed call it: each ends when it is called again."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.erasure.cases import Erasable, told
from tests.keys.conftest import SETTLE_S
from tests.keys.people import ADMIN
from tests.verbs.world import RULES, Subject
from usercore import app
from usercore.db import Db
from usercore.erased.actions import Erasing, finish_open
from usercore.erasure.actions import LATE, Erase, erase, fall_due, forget_late_addresses
from usercore.events import now
from usercore.keys.actions import Retired, list_keys, retire, rewrap_epochs, rotate
from usercore.pii.keyring import KeyPurpose, Keyring
from usercore.pii.keystore import load
from usercore.pii.kms import Kms, open_kms
from usercore.plugins import Attempt
from usercore.reseals.actions import Resealed, reseal
from usercore.rewraps import actions as rewraps
from usercore.rewraps.actions import reindex, rewrap
from usercore.settings import load as load_settings

PURPOSES: tuple[KeyPurpose, ...] = ("user_keys", "blind_index")
VENDOR_TOLD = "VENDOR_TOLD"
"""Names the file in which the vendor writes what it was told."""
YEARS = timedelta(days=366 * 9)


class Noting(Erasable):
    """It notes down what it was told where another process reads it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    async def erase(self, attempt: Attempt) -> None:
        await super().erase(attempt)
        with self._file.open("a") as file:
            file.write(f"{attempt.vendor_case_id}\n")


class World(Struct):
    """With pools of one connection: a verb that keeps it starves the next one."""

    operator: Db
    kms: Kms
    work: Erasing

    @property
    def db(self) -> Db:
        return self.work.kyc.db


@asynccontextmanager
async def opened(environ: Mapping[str, str]) -> AsyncGenerator[World]:
    rewraps.SLICE, rewraps.INDEX_SLICE = 3, 2
    settings = load_settings({**environ, "DB_POOL_SIZE": "1"})
    async with app.opened(settings) as parts:
        operator = await Db.connect(environ["POSTGRES_OWNER_URL"], min_size=1, max_size=1)
        kms = open_kms(settings.pii_encryption_key_id)
        vendors = {"acme": told(Noting(Path(environ[VENDOR_TOLD])))}
        work = replace(parts.erasing, kyc=replace(parts.kyc, vendors=vendors, rules=RULES))
        try:
            yield World(operator, kms, work)
        finally:
            await kms.close()
            await operator.close()


async def rotated(world: World, subject: Subject) -> list[int]:
    return await rotate(world.operator, world.kms, PURPOSES, settle_s=SETTLE_S)


async def rewrapped(world: World, subject: Subject) -> int:
    """All that `keys-rewrap` does; the number of rows that were moved."""
    await rewrap_epochs(world.operator, world.kms)
    keyring = Keyring()
    await load(world.operator, world.kms, keyring)
    moved = 0
    for steps in (rewrap(world.operator, keyring), reindex(world.operator, keyring)):
        async for step in steps:
            assert (step.bad, step.waiting) == (0, 0)
            moved += step.moved
    return moved


async def retired(world: World, subject: Subject) -> list[Retired]:
    """Of each purpose the epoch before the one that is written under: the last one takes the KMS key's version along.

    Called again it proves that the others do not open any more either.
    """
    epochs = (await list_keys(world.operator, world.kms)).epochs
    done: list[Retired] = []
    for purpose in PURPOSES:
        *_, old, _ = (each.epoch for each in epochs if each.purpose == purpose)
        done.append(await retire(world.operator, world.kms, old, backups=timedelta(0)))
    return done


async def resealed(world: World, subject: Subject) -> Resealed:
    return await reseal(world.db, world.work.kyc.keyring, subject.user, ADMIN)


async def erased(world: World, subject: Subject) -> None:
    await erase(world.work, subject.user, Erase("user_request"), ADMIN, None)
    await finish_open(world.work)
    await forget_late_addresses(world.work, now() + LATE)


async def fallen_due(world: World, subject: Subject) -> None:
    await fall_due(world.work, now() + YEARS)
    await finish_open(world.work)


class Case(Struct, frozen=True):
    name: str
    call: Callable[[World, Subject], Coroutine[Any, Any, object]]


CASES = [Case(call.__name__, call) for call in (rotated, rewrapped, retired, resealed, erased, fallen_due)]
