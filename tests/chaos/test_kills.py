"""Consumer and relay under kill -9 every second for half a minute: nothing lost, doubled or out of order."""

import asyncio
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID, uuid4

from msgspec import Struct

from tests.chaos.auth_events import AuthService, Sent, deactivated, odd, poison
from tests.chaos.conftest import Start
from tests.chaos.programs import decoded, progress, read_topics
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.devstack.kafka import Kafka
from usercore.events import AUTH_CREATED, AUTH_DEACTIVATED, DEAD_LETTERS
from usercore.kafka import Record
from usercore.outbox import SYSTEM
from usercore.pii.keyring import Keyring
from usercore.pii.wraps import UserKeyRow
from usercore.profiles import actions
from usercore.profiles.profile import ProfilePatch
from usercore.settings import load
from usercore.users.actions import create_user

USERS = 5_000
SECONDS = 30
TICKS = 10
"""Sending goes on all the time, so that a kill hits work."""
COPIES = 2
WRITERS = 20
"""Users who change their profile all the time: one topic gets many events of each, so that it has an order to keep."""
DEACTIVATED_EVERY = 50
"""So many users to one who is deactivated before Auth says that he exists, and to one who is later."""
POISON_ROUNDS = 5
LARGEST_LETTER = 2 * 1024 * 1024
Origin = tuple[bytes, bytes, bytes]
PUBLISHED = ("user.created.v1", "user.updated.v1", "user.frozen.v1")


class Script(Struct, frozen=True):
    """What is sent, tick by tick, and what of it is good."""

    ticks: list[list[Sent]]
    good: list[Sent]
    poison: list[Sent]
    emails: dict[UUID, str]


def script(dice: random.Random) -> Script:
    ticks: list[list[Sent]] = [[] for _ in range(SECONDS * TICKS)]
    good: list[Sent] = []
    bad: list[Sent] = []

    def send(tick: int, event: Sent) -> None:
        ticks[tick].append(event)
        good.append(event)
        for _ in range(dice.choices([0, 1, 2], [85, 12, 3])[0]):
            # Again at once, or when it was consumed long ago.
            ticks[dice.choice((tick, dice.randrange(tick, len(ticks))))].append(event)

    for number in range(USERS):
        user_id = uuid4()
        tick = TICKS + number * (len(ticks) - TICKS) // USERS
        send(tick, odd(user_id, dice))
        if number % DEACTIVATED_EVERY == 0:
            send(tick - dice.randrange(TICKS), deactivated(user_id))
        elif number % DEACTIVATED_EVERY == 1:
            send(dice.randrange(tick, len(ticks)), deactivated(user_id))
    for record in (record for _ in range(POISON_ROUNDS) for record in poison()):
        ticks[dice.randrange(len(ticks))].append(record)
        bad.append(record)
    for events in ticks:
        dice.shuffle(events)
    emails = {event.user_id: decoded(event)["email"] for event in good if event.topic == AUTH_CREATED}
    return Script(ticks, good, bad, emails)


class Writers:
    """People who change their names until told to stop."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring
        self._writer = actions.ProfileWriter(db, keyring)
        self.ids = [uuid4() for _ in range(WRITERS)]
        self.stop = asyncio.Event()

    async def run(self) -> None:
        for user_id in self.ids:
            await create_user(self._db, self._keyring, user_id, f"{user_id}@example.in", SYSTEM)
        await asyncio.gather(*map(self._write, self.ids))
        await self._writer.close()

    async def _write(self, user_id: UUID) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            patch = ProfilePatch(avatar_url=f"https://cdn.example.in/{number}.png")
            await self._writer.update(user_id, patch, SYSTEM)
            async with self._db.read() as conn:
                await conn.execute("select pg_sleep(0.3)")


async def ticks(count: int) -> AsyncIterator[int]:
    """One number after the other, TICKS a second."""
    clock = asyncio.get_running_loop().time
    began = clock()
    for number in range(count):

        async def due(number: int = number) -> bool:
            return clock() >= began + number / TICKS

        await eventually(due)
        yield number


async def test_kill_9_every_second(
    own_kafka: Kafka, environ: dict[str, str], programs: Start, db: Db, owner: Conn, keyring: Keyring
) -> None:
    settings = load(environ)
    dice = random.Random(20_260_115)
    told = script(dice)
    auth = AuthService(own_kafka.brokers)
    writers = Writers(db, keyring)
    writing = asyncio.create_task(writers.run())
    # A session as short as the broker allows, or the copies would spend the half minute waiting for the dead.
    copies = [programs("work", "consumer", "relay", KAFKA_SESSION_TIMEOUT_MS="1000") for _ in range(COPIES)]
    victim = copies[0]
    async for tick in ticks(SECONDS * TICKS):
        auth.send(told.ticks[tick])
        if tick % TICKS == 0:
            # Rather the same one again: the other, left alone for some seconds, is at work when its turn comes.
            victim = dice.choices((victim, *copies), (2, 1, 1))[0]
            victim.kill()
            victim.start()
    during = await owner.fetchval("select count(*) from users")
    writers.stop.set()
    await writing

    async def published() -> bool:
        return not await owner.fetchval("select count(*) from outbox")

    async with progress(settings) as consumed:
        await eventually(consumed.done, within_s=30, why="all is consumed")
        await eventually(published, why="all is published")
    for copy in copies:
        await copy.listens()
        copy.send(signal.SIGTERM)
    assert [await copy.ended(within_s=25) for copy in copies] == [0] * COPIES
    assert not [line for copy in copies for line in copy.log().splitlines() if '"loop_crashed"' in line]

    await check_database(owner, keyring, told, writers.ids)
    events = await read_topics(settings, *PUBLISHED)
    check_events(events, dict(await owner.fetch("select id, version from users")))
    letters = await read_topics(settings, DEAD_LETTERS)
    check_dead_letters(letters, told.poison)

    counts = {
        "kills": SECONDS,
        "records sent": sum(map(len, told.ticks)),
        "good events": len(told.good),
        "repeats of them sent": sum(map(len, told.ticks)) - len(told.good) - len(told.poison),
        "poison": len(told.poison),
        "users": USERS + WRITERS,
        "users when the killing ended": during,
        "records published": len(events),
        "distinct events": len({decoded(record)["event_id"] for record in events}),
        "dead letters": len(letters),
    }
    print("\nkill -9: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    assert during > WRITERS, "the killing has to hit work"


async def check_database(owner: Conn, keyring: Keyring, told: Script, writers: Sequence[UUID]) -> None:
    users = {*told.emails, *writers}
    tables = {
        table: Counter(row[0] for row in await owner.fetch(statement))
        for table, statement in {
            "users": "select id from users",
            "user_profiles": "select user_id from user_profiles",
            "notification_prefs": "select user_id from notification_prefs",
            "user_keys identity": "select user_id from user_keys where retention_class = 'identity'",
            "user_keys contact": "select user_id from user_keys where retention_class = 'contact'",
            "user_audit": "select user_id from user_audit where action = 'user.created'",
        }.items()
    }
    for table, found in tables.items():
        assert found == Counter(users), table
    statement = "select user_id, retention_class, version, epoch, wrapped from user_keys"
    keys = [UserKeyRow(*row) for row in await owner.fetch(statement)]
    assert len({keyring.unwrap(key.user_id, key) for key in keys}) == 2 * len(users), "each opens, each is its own"
    emails = dict(await owner.fetch("select user_id, email::text from user_profiles where user_id <> all($1)", writers))
    assert emails == told.emails
    inbox = [(row[0], row[1]) for row in await owner.fetch("select topic, event_id from inbox")]
    assert Counter(inbox) == Counter((event.topic, event.event_id) for event in told.good)
    holds = [(row[0], row[1]) for row in await owner.fetch("select source_event_id, user_id from account_holds")]
    deactivations = [event for event in told.good if event.topic == AUTH_DEACTIVATED]
    assert Counter(holds) == Counter((event.event_id, event.user_id) for event in deactivations)


def check_events(events: Sequence[Record], versions: Mapping[UUID, int]) -> None:
    """Each change of each user has one event, which may lie there more than once; none overtakes an earlier one."""
    ids: dict[tuple[UUID, int], set[str]] = defaultdict(set)
    seen: dict[tuple[str, UUID], list[tuple[int, str]]] = defaultdict(list)
    created: Counter[UUID] = Counter()
    for record in events:
        event = decoded(record)
        user_id, version, event_id = UUID(event["user_id"]), event["version"], event["event_id"]
        headers = dict(record.headers)
        assert record.key == str(user_id).encode() == headers["ce_subject"]
        assert headers["ce_id"] == event_id.encode()
        assert headers["ce_type"] == record.topic.encode() == event["event_type"].encode()
        before = seen[record.topic, user_id]
        if (version, event_id) not in before:
            assert not before or version > before[-1][0], f"{user_id} goes back to {version} on {record.topic}"
            before.append((version, event_id))
            created[user_id] += record.topic == "user.created.v1"
        ids[user_id, version].add(event_id)
    assert created == Counter(versions.keys()), "one user.created.v1 each, by event id"
    changes = {(user_id, version) for user_id, last in versions.items() for version in range(1, last + 1)}
    assert ids.keys() == changes, "no change without its event, no event without its change"
    assert all(len(found) == 1 for found in ids.values()), "one event id for each change"


def check_dead_letters(letters: Sequence[Record], poison: Sequence[Sent]) -> None:
    """Each is there at least once, with its original bytes unless they do not fit, and nothing else is."""
    whole: set[tuple[str, bytes]] = set()
    origins: set[Origin] = set()
    dropped: set[Origin] = set()
    for letter in letters:
        headers = dict(letter.headers)
        origin = headers["dlq_topic"], headers["dlq_partition"], headers["dlq_offset"]
        origins.add(origin)
        if "dlq_dropped_bytes" in headers:
            assert int(headers["dlq_dropped_bytes"]) > LARGEST_LETTER
            dropped.add(origin)
        else:
            whole.add((headers["dlq_topic"].decode(), letter.value or b""))
    large = [record for record in poison if len(record.value or b"") > LARGEST_LETTER]
    # The mock cluster has no limit.
    assert len(dropped) in (0, len(large))
    assert whole == {(record.topic, record.value or b"") for record in poison if not dropped or record not in large}
    assert len(origins) == len(poison), "each is told apart by where it was"
