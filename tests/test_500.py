"""The 500 test: whatever interrupts a verb, at whichever await, the database is as before or as after it.

After https://brandur.org/http-transactions: each verb is interrupted at each of its suspensions in turn, in every way
that there is, and called again. Nothing is ever between: no event without its change, no change without its audit row.
"""

import asyncio
import importlib
import inspect
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import CoroutineType, ModuleType
from typing import get_type_hints
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import psycopg
import pytest
import pytest_asyncio
from msgspec import Struct

import usercore
from tests import interrupting, verbs
from tests.databases import DatabaseUrls
from tests.dumps import Dump, Dumper, Row, difference, essence, normal
from tests.interrupting import Interruption, Killers, Order, Steps
from tests.proxy import Proxy, proxy_to
from tests.verbs import CASES, Case, Subject, World
from tests.waiting import eventually
from usercore import kafka
from usercore.artifacts.actions import Artifacts
from usercore.attempts.actions import Kyc
from usercore.db import Conn, Db
from usercore.errors import ApiError, ServiceUnavailable
from usercore.events import UserEvent
from usercore.plugins import VendorError
from usercore.profiles import queries as profiles
from usercore.profiles.profile import open_me
from usercore.settings import Settings, load

SOURCE = Path(usercore.__file__).parent

RECORDS = {"user_audit", "outbox"}
OF_USERS = {"user_profiles", "user_keys", "user_consents", "notification_prefs", "account_holds"}

BEGIN = frozenset({Db, Kyc, Artifacts})
"""What a function is given that begins transactions."""
OUTSIDE_ACTIONS = {"idempotency.keep_refusal", "relay.Relay.round", "worker.forget"}
"""Verbs that live elsewhere: what else changes the database, and is not part of a verb."""

HOW: dict[str, tuple[Callable[[Proxy], Interruption], type[BaseException]]] = {
    "error": (lambda _: interrupting.Error(), interrupting.Interrupted),
    "cancel": (lambda _: interrupting.Cancel(), asyncio.CancelledError),
    "late cancel": (lambda _: interrupting.LateCancel(), asyncio.CancelledError),
    "lost answer": (interrupting.LostAnswer, ServiceUnavailable),
    "lost request": (interrupting.LostRequest, ServiceUnavailable),
}
"""Each way to interrupt, and what the caller may see of it: for a lost connection 503, never a 500."""


class Outcome(Struct):
    """What a call answered, a refusal included, or what broke it."""

    answer: object = None
    failure: BaseException | None = None


class Killed(Exception):
    """What broke the call of a process that is gone."""


class Baseline(Struct, frozen=True):
    """What one call and two calls in a row leave behind when nobody interrupts; with the last call's answer.

    `lawful` is what may be seen after an interrupted call, and `ends` what may be seen after another one: of a verb in
    one transaction nothing, and all.
    """

    sites: list[str]
    once: list[str]
    once_answered: list[str]
    twice_answered: list[str]
    lawful: list[list[str]]
    ends: list[list[str]]


class Trial:
    """One verb in one situation, on a database of its own, again and again with another user."""

    def __init__(self, case: Case, world: World, owner: Conn, admin: psycopg.Connection, database: str) -> None:
        self._case = case
        self._world = world
        self._owner = owner
        self._admin = admin
        self._database = database
        self._dumper = Dumper(owner)
        self._left_outbox: dict[str, set[UUID]] = {}

    async def prepare(self) -> tuple[Subject, Dump]:
        subject = Subject()
        await self._case.given(self._world, subject, self._owner)
        return subject, await self._dumper.dump()

    async def call(self, subject: Subject, steps: Steps) -> Outcome:
        coroutine = self._case.call(self._world, subject)
        assert isinstance(coroutine, CoroutineType)
        assert coroutine.cr_frame
        module = coroutine.cr_frame.f_globals["__name__"]
        assert name_of(module, coroutine.__qualname__) == self._case.verb
        try:
            answer = await steps.run(coroutine)
            return Outcome(answer if self._case.shown is None else await self._case.shown(answer))
        except ServiceUnavailable as failure:
            return Outcome(failure=failure)
        except ApiError as refusal:
            return Outcome({"raises": refusal.code})
        except BaseException as failure:
            return Outcome(failure=failure)

    async def baseline(self) -> Baseline:
        await self.call((await self.prepare())[0], Steps())  # now every statement is prepared
        subject, before = await self.prepare()
        seen: list[list[str]] = []
        turn = asyncio.Lock()

        async def watch() -> None:
            async with turn:  # several tasks of one call may be over at once
                found = self._found(subject, difference(before, await self._dumper.dump()))
                if found not in seen:
                    seen.append(found)

        steps = Steps(watch=watch if self._case.steps else None)
        first = await self.call(subject, steps)
        rows = difference(before, await self._dumper.dump())
        self._is_what_the_case_says(rows)
        once, (_, once_answered) = self._found(subject, rows), await self._normal(subject, rows, first)
        if once not in seen:
            seen.append(once)
        second = await self.call_again(subject)
        rows_of_two = difference(before, await self._dumper.dump())
        twice = self._found(subject, rows_of_two)
        assert (len(twice) > len(once)) == self._case.repeats
        assert not first.failure
        assert not second.failure
        _, twice_answered = await self._normal(subject, rows_of_two, second)
        if not self._case.steps:
            return Baseline(steps.sites, once, once_answered, twice_answered, [[], once], [])
        assert len([state for state in seen if state]) == self._case.steps
        return Baseline(steps.sites, once, once_answered, twice_answered, [[], *seen], [once, twice])

    async def call_again(self, subject: Subject) -> Outcome:
        """When the time has passed after which somebody else goes on; and what the service does besides."""
        await self._case.due(self._world, subject, self._owner)
        outcome = await self.call(subject, Steps())
        if self._case.others is not None:
            await self._case.due(self._world, subject, self._owner)
            await self._case.others(self._world, subject)
        return outcome

    def _found(self, subject: Subject, rows: list[Row]) -> list[str]:
        return essence(rows, subject.names) if self._case.steps else normal(rows, subject.names)

    def _is_what_the_case_says(self, rows: list[Row]) -> None:
        added = [row for row in rows if row.sign == "+"]
        audit = [row.columns for row in added if row.table == "user_audit"]
        outbox = [row.columns for row in added if row.table == "outbox"]
        assert {row["action"] for row in audit} == set(self._case.audit.split())
        assert {row["topic"] for row in outbox} == set(self._case.events.split())
        changed = {row.table for row in rows if row.sign == "-"} | {row.table for row in added}
        assert changed == set(self._case.changes.split()) | {row.table for row in added if row.table in RECORDS}
        # Each user's change has its audit row and, when it shows outside, an event that names the version.
        touched = {row.columns["user_id"] for row in added if row.table in OF_USERS}
        assert touched <= {row["user_id"] for row in audit}
        versions = {row.columns["id"]: row.columns["version"] for row in added if row.table == "users"}
        published = [msgspec.json.decode(row["payload"]) for row in outbox]
        assert versions == {
            user_id: max(event["version"] for event in published if event["user_id"] == user_id)
            for user_id in {event["user_id"] for event in published}
        }

    async def judge(self, baseline: Baseline, subject: Subject, before: Dump, outcome: Outcome, where: str) -> bool:
        """The database is as before or as after, an answer means after; and the next call works. True means after."""
        await self._settled()
        rows = difference(before, await self._dumper.dump())
        found, (_, answered) = self._found(subject, rows), await self._normal(subject, rows, outcome)
        assert found in baseline.lawful, where
        if not outcome.failure and not self._case.steps:
            assert answered == baseline.once_answered, where
        again = await self.call_again(subject)
        assert not again.failure, where
        rows = difference(before, await self._dumper.dump())
        for row in rows:
            if (row.sign, row.table) == ("-", "outbox"):
                self._left_outbox.setdefault(row.columns["topic"], set()).add(UUID(row.columns["event_id"]))
        _, answered = await self._normal(subject, rows, again)
        if self._case.steps:
            assert self._found(subject, rows) in baseline.ends, where
        else:
            assert answered == (baseline.twice_answered if found else baseline.once_answered), where
        return bool(found)

    async def what_left_the_outbox_is_on_kafka(self, settings: Settings) -> None:
        """Every event, perhaps more than once; and each user's events for the first time in their order."""
        if not self._left_outbox:
            return
        missing = set[UUID]().union(*self._left_outbox.values())
        seen: dict[tuple[str, UUID], list[int]] = {}
        consumer = kafka.consumer(settings, *self._left_outbox, group=None)
        await consumer.start()
        try:
            async with asyncio.timeout(20):
                while missing:
                    for records in (await consumer.getmany(timeout_ms=500)).values():
                        for record in records:
                            event = msgspec.json.decode(record.value or b"", type=UserEvent)
                            if event.event_id in missing:
                                missing.remove(event.event_id)
                                seen.setdefault((record.topic, event.user_id), []).append(event.version)
        except TimeoutError:
            assert not missing, "left the outbox and is not on Kafka"
        finally:
            await consumer.stop()
        assert any(len(versions) > 1 for versions in seen.values())
        assert all(versions == sorted(versions) for versions in seen.values())

    async def _normal(self, subject: Subject, rows: list[Row], outcome: Outcome) -> tuple[list[str], list[str]]:
        profile = await profiles.get_profile(self._owner, user_id=subject.user)
        me = None if profile is None else open_me(profile, self._world.keyring)
        names: dict[UUID, str] = subject.names
        return normal(rows, names), normal(rows, names, [outcome.answer, me])

    async def _settled(self) -> None:
        """Nothing of an interrupted call goes on or is left: statements, transactions, locks, pooled connections."""

        async def idle() -> bool:
            if self._world.db.pool_stats().in_use:
                return False
            busy = self._admin.execute(
                "select count(*) from pg_stat_activity a where datname = %s and usename = 'usercore_app' and "
                "(state <> 'idle' or xact_start is not null or exists (select from pg_locks l where l.pid = a.pid))",
                (self._database,),
            ).fetchone()
            return busy == (0,)

        await eventually(idle, within_s=5, why="a connection is busy, holds a lock or is not given back")


def name_of(module: str, qualified: str) -> str:
    return f"{module.removeprefix('usercore.').removesuffix('.actions')}.{qualified}"


def verbs_in(module: ModuleType) -> set[str]:
    """The public coroutine functions that begin transactions, and the public coroutine methods of public classes.

    `close` is none: it ends what a process holds, and says nothing to the database.
    """
    found: set[str] = set()
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", "") != module.__name__:
            continue
        if inspect.iscoroutinefunction(member) and not BEGIN.isdisjoint(get_type_hints(member).values()):
            found.add(name_of(module.__name__, name))
        if inspect.isclass(member):
            methods = inspect.getmembers(member, inspect.iscoroutinefunction)
            verbs = {method for method, _ in methods if method[0] != "_"} - {"close"}
            found |= {name_of(module.__name__, f"{name}.{method}") for method in verbs}
    return found


INTERRUPTED_ELSEWHERE = {
    "keys": "tests/keys: an operator's verbs, which run as the owner of the tables",
    "rewraps": "tests/keys: passes over all users",
    "reseals": "tests/keys: an operator's verb",
    "erasure": "tests/erasure: with the stores beside PostgreSQL",
    "erased": "tests/erasure: with the stores beside PostgreSQL",
}


def test_every_verb_is_interrupted() -> None:
    domains = {file.parent.name for file in SOURCE.glob("*/actions.py")} - INTERRUPTED_ELSEWHERE.keys()
    modules = [importlib.import_module(f"usercore.{domain}.actions") for domain in domains]
    found = set[str]().union(*(verbs_in(module) for module in modules))
    assert len(found) >= 10
    assert {case.verb for case in CASES} == found | OUTSIDE_ACTIONS, "put it into a table of tests/verbs"
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def service_environ(request: pytest.FixtureRequest, case: Case, environ: dict[str, str]) -> dict[str, str]:
    if case.verb == "relay.Relay.round":
        environ["KAFKA_BROKERS"] = request.getfixturevalue("kafka").brokers
    if case.verb.startswith("archive."):
        request.getfixturevalue("archive_url")
    return environ


@pytest_asyncio.fixture
async def proxy(database: DatabaseUrls) -> AsyncGenerator[Proxy]:
    url = urlsplit(database.app)
    async with proxy_to(str(url.hostname), url.port or 5432) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def world(service_environ: dict[str, str], proxy: Proxy) -> AsyncGenerator[World]:
    """Its connections to PostgreSQL go through the proxy."""
    url = urlsplit(service_environ["POSTGRES_URL"])
    through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{proxy.port}").geturl()
    async with verbs.opened({**service_environ, "POSTGRES_URL": through}) as world:
        yield world


@pytest.fixture
def trial(case: Case, world: World, owner: Conn, admin: psycopg.Connection, database: DatabaseUrls) -> Trial:
    return Trial(case, world, owner, admin, database.name)


@pytest_asyncio.fixture(scope="session")
async def killers() -> AsyncGenerator[Killers]:
    async with interrupting.killers() as killers:
        yield killers


def is_worth_a_kill(case: Case) -> bool:
    """A call that changes nothing, of a verb that changes something elsewhere, is not."""
    changing = {other.verb for other in CASES if other.changes or other.audit}
    return bool(case.changes or case.audit) or case.verb not in changing


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name, indirect=True)


@each_case
async def test_interrupted_at_each_await(trial: Trial, proxy: Proxy, service_environ: dict[str, str]) -> None:
    baseline = await trial.baseline()

    async def interrupt(how: str, at: int) -> bool:
        make, expected = HOW[how]
        subject, before = await trial.prepare()
        steps = Steps(make(proxy), at)
        outcome = await trial.call(subject, steps)
        proxy.lose_answer = False
        where = f"{how} at {at}: {steps.interrupted_at}"
        assert steps.interrupted_at, where
        assert outcome.failure is None or isinstance(outcome.failure, (expected, ServiceUnavailable, VendorError)), (
            where
        )
        return await trial.judge(baseline, subject, before, outcome, where)

    every = range(1, len(baseline.sites) + 1)
    for at in every:
        await interrupt("error", at)
        await interrupt("cancel", at)
    committed = [at for at in every if await interrupt("lost answer", at)]
    # Elsewhere these two are as good as an error, and as the lost answer to the request before.
    for at in {1, *committed[:1]}:
        await interrupt("late cancel", at)
        await interrupt("lost request", at)
    await trial.what_left_the_outbox_is_on_kafka(load(service_environ))


@pytest.mark.parametrize("case", list(filter(is_worth_a_kill, CASES)), ids=lambda case: case.name, indirect=True)
async def test_killed_at_each_await(
    trial: Trial, case: Case, service_environ: dict[str, str], killers: Killers
) -> None:
    baseline = await trial.baseline()
    subject, before = await trial.prepare()
    awaits = await killers.awaits(Order(service_environ, case.name, subject))
    assert awaits
    for at, where in awaits:
        subject, before = await trial.prepare()
        await killers.kill(Order(service_environ, case.name, subject, at))
        await trial.judge(baseline, subject, before, Outcome(failure=Killed()), f"killed at {at}: {where}")
    await trial.what_left_the_outbox_is_on_kafka(load(service_environ))
