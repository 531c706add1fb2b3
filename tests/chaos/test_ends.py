"""SIGTERM: what is under way is finished, nothing new is begun, nothing is lost, and it does not take long."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest_asyncio

from tests.chaos.auth_events import AuthService, created
from tests.chaos.conftest import Start
from tests.chaos.kafka_proxy import proxy_to_kafka
from tests.chaos.locks import LOCKS_WAITED_FOR, SHARDS_HELD, becomes, holding
from tests.chaos.programs import Program, decoded, progress, read_topics
from tests.databases import DatabaseUrls
from tests.proxy import proxy_to
from tests.service import Client, Signer
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.devstack.kafka import Kafka
from usercore.events import UserCreated
from usercore.outbox import SYSTEM
from usercore.pii.keyring import Keyring
from usercore.server import GRACE_S
from usercore.settings import Settings
from usercore.users.actions import create_user

PROMPTLY_S = 5.0
"""When nothing is away: a fraction of what orchestrators give a process."""


async def ends(program: Program, *, within_s: float) -> float:
    """SIGTERM; the seconds that it took to end, in order."""
    began = time.monotonic()
    program.send(signal.SIGTERM)
    assert await program.ended(within_s=within_s) == 0, program.log()
    assert '"loop_crashed"' not in program.log()
    return time.monotonic() - began


@pytest_asyncio.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_serve_finishes_what_it_has_begun(
    programs: Start, http: aiohttp.ClientSession, signer: Signer, owner: Conn, database: DatabaseUrls
) -> None:
    program = await programs("serve").listens()
    asha = Client(http, program.base, signer).user()
    assert (await asha.get()).status == 200
    async with holding(database, "select from users for update"):
        patching = asyncio.create_task(asha.patch({"first_name": "Asha"}))
        consent = {"consent_type": "marketing", "version": "1", "granted": True}
        granting = asyncio.create_task(
            asha.send("POST", "/v1/me/consents", json=consent, headers={"Idempotency-Key": "one"})
        )
        await becomes(owner, LOCKS_WAITED_FOR, 2)
        program.send(signal.SIGTERM)

        async def refuses() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", program.port)
            except OSError:
                return True
            writer.close()
            return False

        await eventually(refuses)
        assert not patching.done()
        assert not granting.done()
    assert (await patching).json()["profile"]["first_name"] == "Asha"
    assert (await granting).status == 201
    assert await program.ended(within_s=PROMPTLY_S) == 0
    assert not program.events("error")
    assert await owner.fetchval("select version from users") == 2
    assert await owner.fetchval("select count(*) from outbox where topic = 'user.updated.v1'") == 1
    assert await owner.fetchval("select count(*) from user_consents") == 1


async def test_serve_does_not_wait_for_idle_connections(
    programs: Start, http: aiohttp.ClientSession, signer: Signer
) -> None:
    program = await programs("serve").listens()
    assert (await Client(http, program.base, signer).user().get()).status == 200  # and the connection stays
    _, silent = await asyncio.open_connection("127.0.0.1", program.port)
    await ends(program, within_s=PROMPTLY_S)
    silent.close()


async def test_work_stops_between_batches(
    on_kafka: Settings, kafka: Kafka, programs: Start, owner: Conn, database: DatabaseUrls
) -> None:
    """Not even a repeat: a worker that is asked to stop commits what it has done."""
    # More than it can consume before the signal reaches it, on a machine that has much else to do.
    users = [uuid4() for _ in range(6_000)]
    AuthService(kafka.brokers).send(map(created, users))
    program: Program | None = None
    stops = 0

    async def number_of_users() -> int:
        return await owner.fetchval("select count(*) from users") or 0

    async with progress(on_kafka) as consumed:
        while stops < 3 and not await consumed.done():
            before = await number_of_users()
            # It waits with its first batch until it knows what to do with signals.
            async with holding(database, "lock table inbox in share mode"):
                if program is None:
                    program = programs("work")
                else:
                    program.start()
                await program.listens()

            async def works(before: int = before) -> bool:
                return await number_of_users() > before

            await eventually(works)
            await ends(program, within_s=PROMPTLY_S)
            stops += 1
    assert program is not None
    program.start()
    await program.listens()
    await becomes(owner, "select count(*) from users", len(users))
    await becomes(owner, "select count(*) from outbox", 0)
    await ends(program, within_s=PROMPTLY_S)
    assert stops > 1, "it has to be stopped at work"
    ids: dict[bytes | None, list[str]] = {}
    for record in await read_topics(on_kafka, UserCreated.topic):
        ids.setdefault(record.key, []).append(decoded(record)["event_id"])
    assert [len(ids[str(user_id).encode()]) for user_id in users] == [1] * len(users)


async def test_work_ends_without_kafka(
    on_kafka: Settings, kafka: Kafka, programs: Start, owner: Conn, db: Db, keyring: Keyring, database: DatabaseUrls
) -> None:
    """One worker never reached it; for the other it went silent while both loops waited for an answer."""
    event, relayed = created(uuid4()), uuid4()
    async with (
        progress(on_kafka) as consumed,
        proxy_to_kafka(kafka.brokers) as proxy,
        proxy_to_kafka(kafka.brokers) as wall,
    ):
        worker = programs("work", KAFKA_BROKERS=proxy.brokers, KAFKA_SESSION_TIMEOUT_MS="1000")
        await create_user(db, keyring, uuid4(), None, SYSTEM)
        await becomes(owner, "select count(*) from outbox", 0)
        await eventually(consumed.done)
        async with holding(database, "lock table inbox in share mode"):
            AuthService(kafka.brokers).send([event])
            await becomes(owner, LOCKS_WAITED_FOR, 1)
            proxy.swallow = wall.swallow = True
            await create_user(db, keyring, relayed, None, SYSTEM)
            await becomes(owner, SHARDS_HELD, 1)
        # The relay waits for its acknowledgement, and now the consumer commits its offsets.
        await becomes(owner, "select count(*) from inbox where event_id = $1", 1, event.event_id)
        newcomer = await programs("work", KAFKA_BROKERS=wall.brokers).listens()
        seconds = await asyncio.gather(*(ends(program, within_s=GRACE_S) for program in (worker, newcomer)))
        print(f"\nwithout Kafka: ended in {', '.join(f'{s:.1f}' for s in seconds)} s")
        proxy.swallow = False
        worker.start()
        await eventually(consumed.done)
        await becomes(owner, "select count(*) from outbox", 0)
    keys = {record.key for record in await read_topics(on_kafka, UserCreated.topic)}
    assert {str(event.user_id).encode(), str(relayed).encode()} <= keys


async def test_both_end_without_postgres(
    programs: Start, http: aiohttp.ClientSession, signer: Signer, database: DatabaseUrls
) -> None:
    url = urlsplit(database.app)
    async with proxy_to(str(url.hostname), url.port or 5432) as proxy:
        through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{proxy.port}").geturl()
        both = [programs(command, POSTGRES_URL=through) for command in ("serve", "work")]
        for program in both:
            await program.listens()
        asha = Client(http, both[0].base, signer).user()
        # As many connections as there will be questions: a new one could come after the listener is gone.
        assert {reply.status for reply in await asyncio.gather(*(asha.get() for _ in range(4)))} == {200}
        proxy.swallow = True
        answers = proxy.answers
        asking = [asyncio.create_task(asha.get()) for _ in range(4)]

        async def asked() -> bool:
            return proxy.answers > answers

        await eventually(asked)
        seconds = await asyncio.gather(*(ends(program, within_s=GRACE_S) for program in both))
        print(f"\nwithout Postgres: ended in {', '.join(f'{s:.1f}' for s in seconds)} s")
        assert [reply.status for reply in await asyncio.gather(*asking)] == [503] * 4
