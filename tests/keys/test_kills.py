"""kill -9 at every await of rotate, rewrap, retire, reseal and erase, while people read, write and are searched for."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from tests.erasure.cases import a_case, soon
from tests.erasure.conftest import left_of
from tests.interrupting import Killers, Order, killers
from tests.keys import verbs
from tests.keys.conftest import REFRESH_S
from tests.keys.people import count, first_name, long_ago, pan, phone
from tests.keys.traffic import PEOPLE, PHONES, Traffic
from tests.keys.verbs import CASES, PURPOSES, VENDOR_TOLD, World
from tests.service import Client, Person
from tests.verbs.world import Subject
from tests.waiting import eventually
from usercore.db import Conn
from usercore.erased.actions import LIST, Certificate, get_certificate
from usercore.keys.actions import list_keys
from usercore.pii import keystore
from usercore.rewraps.actions import is_unfinished
from usercore.signatures import public_keys, verify
from usercore.worker import Parts

GONE = 410

Prepare = Callable[[], Awaitable[Subject]]
Check = Callable[[Subject, str], Awaitable[None]]


class Trial:
    """One case, killed at each await in turn while the traffic flows."""

    def __init__(self, killers: Killers, environ: dict[str, str], traffic: Traffic) -> None:
        self._killers = killers
        self._environ = environ
        self.traffic = traffic

    async def killed_at_each_await(self, case: str, prepare: Prepare, check: Check) -> None:
        async with self.traffic.flowing():
            awaits = await self._killers.awaits(Order(self._environ, case, await prepare()))
            for at, where in awaits:
                subject = await prepare()
                await self._killers.kill(Order(self._environ, case, subject, at))
                await check(subject, f"killed at {at}: {where}")
        print(f"{case}: {len(awaits)} kills")
        assert len(awaits) > 6
        assert self.traffic.done["writes"] > len(awaits)


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Processes that learn of a rotation sooner than they do in earnest, and of the law nothing."""
    monkeypatch.setattr(keystore, "keep_loaded", partial(keystore.keep_loaded, refresh_s=REFRESH_S))
    (tmp_path / "told").touch()
    return {**environ, "PROFILE_PATCH_LIMIT_PER_MINUTE": "100000", VENDOR_TOLD: str(tmp_path / "told")}


@pytest_asyncio.fixture(scope="module")
async def key_killers() -> AsyncGenerator[Killers]:
    async with killers(verbs.__name__) as made:
        yield made


@pytest.fixture
def trial(key_killers: Killers, environ: dict[str, str], client: Client) -> Trial:
    return Trial(key_killers, environ, Traffic(client))


@pytest_asyncio.fixture
async def world(client: Client, environ: dict[str, str]) -> AsyncGenerator[World]:
    """That of the process which takes up what a killed one was at."""
    async with verbs.opened(environ) as world:
        yield world


async def nobody() -> Subject:
    return Subject()


async def known_rotation(world: World, parts: Parts) -> Subject:
    """A rotation that the service has learned of."""
    made = await verbs.rotated(world, Subject())

    async def known() -> bool:
        return [parts.keyring.active(purpose).epoch for purpose in PURPOSES] == made

    await eventually(known)
    return Subject()


async def test_rotate(trial: Trial, world: World, parts: Parts) -> None:
    async def check(subject: Subject, where: str) -> None:
        await known_rotation(world, parts)
        epochs = (await list_keys(world.operator, world.kms)).epochs
        for purpose in PURPOSES:
            states = [each.state for each in epochs if each.purpose == purpose]
            assert states == ["retiring"] * (len(states) - 1) + ["active"], where

    await trial.killed_at_each_await("rotated", nobody, check)


async def test_rewrap(trial: Trial, world: World, owner: Conn, parts: Parts) -> None:
    async def prepare() -> Subject:
        return await known_rotation(world, parts)

    async def check(subject: Subject, where: str) -> None:
        await long_ago(owner)
        await verbs.rewrapped(world, subject)
        for purpose in PURPOSES:
            assert not await is_unfinished(world.db, purpose), where
        newest = "select max(epoch) from pii_keyring where purpose = 'user_keys' and state = 'active'"
        assert await count(owner, f"select count(*) from user_keys where epoch <> ({newest})") == 0, where

    await trial.killed_at_each_await("rewrapped", prepare, check)


async def test_retire(trial: Trial, world: World, owner: Conn, parts: Parts) -> None:
    async def prepare() -> Subject:
        subject = await known_rotation(world, parts)
        await trial.traffic.turned_over()  # in earnest half a minute is waited for this
        await long_ago(owner)
        await verbs.rewrapped(world, subject)
        return subject

    async def check(subject: Subject, where: str) -> None:
        await verbs.retired(world, subject)
        for done in await verbs.retired(world, subject):
            row = await owner.fetchrow(
                "select state::text, wrapped, kms_version from pii_keyring where epoch = $1", done.epoch
            )
            assert row is not None
            assert (row["state"], row["wrapped"]) == ("retired", b""), where
            assert (await world.kms.describe()).versions[row["kms_version"]] == "destroyed", where

    await trial.killed_at_each_await("retired", prepare, check)


async def test_reseal(trial: Trial, world: World, owner: Conn) -> None:
    dice = random.Random(6)
    version = (
        "select get_byte(pan_number_enc, 2) * 256 + get_byte(pan_number_enc, 3) from user_profiles where user_id = $1"
    )

    async def prepare() -> Subject:
        return Subject(user=dice.choice(trial.traffic.people).id)

    async def check(subject: Subject, where: str) -> None:
        assert (await verbs.resealed(world, subject)).unreadable == 0, where
        newest = await count(owner, "select max(version) from user_keys where user_id = $1", subject.user)
        assert await count(owner, version, subject.user) == newest, where

    await trial.killed_at_each_await("resealed", prepare, check)


class Victims:
    """People with a case, a document and a reader of their own profile, one for each kill."""

    def __init__(self, client: Client, world: World, owner: Conn, told: Path) -> None:
        self._client = client
        self._world = world
        self._owner = owner
        self._told = told
        self._reading: list[asyncio.Task[None]] = []
        self._cases: dict[UUID, UUID] = {}

    async def someone(self) -> Subject:
        person = self._client.user(email=None)
        number = PHONES * PEOPLE + len(self._cases)
        members = {"first_name": first_name(number), "pan_number": pan(number), "phone": phone(number)}
        assert (await person.patch(members)).status == 200
        case = self._cases[person.id] = await a_case(self._owner, person.id)
        await self._world.work.artifacts.store.put(_document(case), bytearray(b"picture"))
        self._reading.append(asyncio.create_task(self._reads(person, pan(number))))
        return Subject(user=person.id)

    async def are_gone(self, subject: Subject, where: str) -> None:
        """The process that goes on ends it, once."""
        user_id, case = subject.user, self._cases[subject.user]
        signed = await get_certificate(self._world.work, user_id)
        assert signed is not None, where
        keys = public_keys(self._world.work.kyc.keyring)
        assert verify(signed.jws, "erasure-certificate", keys, Certificate) == signed.certificate, where
        assert signed.certificate.kept == [], where
        assert await left_of(self._owner, user_id, ["kyc_attempts.token_enc"]) == [], where
        assert await count(self._owner, "select count(*) from user_keys where user_id = $1", user_id) == 0, where
        store = self._world.work.artifacts.store
        assert [names async for names in store.list(_document(case), 1)] == [], where
        assert f"{LIST}{user_id}" in [name async for names in store.list(LIST, 100) for name in names], where
        assert f"vendor-{case}" in self._told.read_text().split(), where
        await self._reading[-1]

    async def _reads(self, person: Person, pan_number: str) -> None:
        """Everything, until they are gone; never a mask."""
        while True:
            reply = await person.get()
            if reply.status == GONE:
                return
            assert reply.status == 200, reply.body
            assert reply.json()["profile"]["pan_number"] == pan_number


def _document(case: UUID) -> str:
    return f"kyc/{case}/{case}/selfie"


@pytest.fixture
def victims(client: Client, world: World, owner: Conn, environ: dict[str, str]) -> Victims:
    return Victims(client, world, owner, Path(environ[VENDOR_TOLD]))


class TestWithoutALaw:
    """Everything goes at once."""

    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return {**environ, "RETENTION_IDENTITY": "0d", "RETENTION_KYC_EVIDENCE": "0d"}

    async def test_erase(self, trial: Trial, world: World, owner: Conn, victims: Victims) -> None:
        async def check(subject: Subject, where: str) -> None:
            await soon(owner)
            await verbs.erased(world, subject)
            await victims.are_gone(subject, where)
            audited = "select count(*) from user_audit where user_id = $1 and action = 'user.erased'"
            assert await count(owner, audited, subject.user) == 1, where
            published = "select count(*) from outbox where user_id = $1 and topic = 'user.erased.v1'"
            assert await count(owner, published, subject.user) == 1, where

        await trial.killed_at_each_await("erased", victims.someone, check)


async def test_what_falls_due(trial: Trial, world: World, owner: Conn, victims: Victims) -> None:
    async def prepare() -> Subject:
        subject = await victims.someone()
        await verbs.erased(world, subject)
        return subject

    async def check(subject: Subject, where: str) -> None:
        await soon(owner)
        await verbs.fallen_due(world, subject)
        await victims.are_gone(subject, where)

    await trial.killed_at_each_await("fallen_due", prepare, check)


def test_every_case_is_killed() -> None:
    source = Path(__file__).read_text()
    assert all(f'killed_at_each_await("{case.name}"' in source for case in CASES)
