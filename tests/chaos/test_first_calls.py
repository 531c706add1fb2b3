"""Two first calls and the event of the Auth Service for the same user, all at once, again and again."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import aiohttp
import pytest_asyncio

from tests.chaos.auth_events import AuthService, created
from tests.chaos.conftest import Start
from tests.chaos.programs import decoded, progress, read_topics
from tests.service import Client, Signer
from tests.waiting import eventually
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.events import UserCreated
from usercore.settings import Settings

ROUNDS = 200
AT_ONCE = 4


@pytest_asyncio.fixture
async def apis(on_kafka: Settings, programs: Start, signer: Signer) -> AsyncGenerator[tuple[Client, Client]]:
    """Clients of two processes; a third one consumes and publishes."""
    served = [programs("serve"), programs("serve")]
    worker = programs("work", "consumer", "relay")
    async with aiohttp.ClientSession() as http:
        for program in (*served, worker):
            await program.listens()
        one, other = (Client(http, program.base, signer) for program in served)
        yield one, other


async def test_two_first_calls_and_the_event(
    apis: tuple[Client, Client], on_kafka: Settings, kafka: Kafka, owner: Conn
) -> None:
    auth = AuthService(kafka.brokers)
    users = [uuid4() for _ in range(ROUNDS)]

    async def calls(number: int, user_id: UUID) -> None:
        # A third of the tokens name no address, so that the event has something to add.
        email = f"token-{user_id}@example.in" if number % 3 else None
        people = [api.user(email, user_id) for api in apis]
        replies = await asyncio.gather(*(person.get() for person in people))
        for reply in replies:
            assert reply.status == 200, reply.body
            assert reply.json()["id"] == str(user_id)
            assert reply.json()["pii_masked"] is False
        name = "Asha" if number % 2 else "Ravi"
        changed, seen = people[number % 2], people[1 - number % 2]
        assert (await changed.patch({"first_name": name})).status == 200
        assert (await seen.get()).json()["profile"]["first_name"] == name, "the one key of the user opens it everywhere"

    async def first_time(number: int, user_id: UUID) -> None:
        event = [created(user_id)]
        if number % 2:
            # The consumer needs longer than a call: it gets a head start half of the time.
            await asyncio.to_thread(auth.send, event)
            await calls(number, user_id)
        else:
            await asyncio.gather(calls(number, user_id), asyncio.to_thread(auth.send, event))

    for start in range(0, ROUNDS, AT_ONCE):
        await asyncio.gather(*(first_time(n, users[n]) for n in range(start, start + AT_ONCE)))

    async def published() -> bool:
        return not await owner.fetchval("select count(*) from outbox")

    async with progress(on_kafka) as consumed:
        await eventually(consumed.done)
    await eventually(published)

    creators = dict(
        await owner.fetch(
            "select user_id, string_agg(actor_kind::text, ' ') from user_audit "
            "where action = 'user.created' and user_id = any($1) group by user_id",
            users,
        )
    )
    assert creators.keys() == set(users)
    kinds = Counter(creators.values())
    assert set(kinds) == {"user", "system"}, "each was created once, and both ways have won"
    print(f"\nfirst calls: created by {dict(kinds)}")
    keys = await owner.fetch("select user_id, retention_class from user_keys where user_id = any($1)", users)
    assert Counter(row[0] for row in keys) == Counter(dict.fromkeys(users, 2))
    emails = dict(await owner.fetch("select user_id, email::text from user_profiles where user_id = any($1)", users))
    for number, user_id in enumerate(users):
        expected = {f"{user_id}@example.in"}
        if number % 3 and creators[user_id] == "user":
            expected = {f"token-{user_id}@example.in"}
        assert emails[user_id] in expected, "who creates the user names it; the event fills in what is missing"
    ids: dict[bytes, set[str]] = {}
    for record in await read_topics(on_kafka, UserCreated.topic):
        ids.setdefault(record.key or b"", set()).add(decoded(record)["event_id"])
    assert [len(ids[str(user_id).encode()]) for user_id in users] == [1] * ROUNDS
