"""Workers killed at one exact moment each: between a change and what says that it was made."""

from uuid import UUID, uuid4

from tests.chaos.auth_events import AuthService, created
from tests.chaos.conftest import Start
from tests.chaos.kafka_proxy import proxy_to_kafka
from tests.chaos.locks import LOCKS_WAITED_FOR, SHARDS_HELD, becomes, holding
from tests.chaos.programs import decoded, progress, read_topics
from tests.databases import DatabaseUrls
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.devstack.kafka import Kafka
from usercore.events import UserCreated
from usercore.outbox import SYSTEM
from usercore.pii.keyring import Keyring
from usercore.settings import Settings
from usercore.users.actions import create_user

SHORT_SESSION = {"KAFKA_SESSION_TIMEOUT_MS": "1000"}


async def creations(settings: Settings, user_id: UUID) -> list[str]:
    """Ids of the events that say that the user was created, each as often as it is there."""
    records = await read_topics(settings, UserCreated.topic)
    return [decoded(record)["event_id"] for record in records if record.key == str(user_id).encode()]


async def only_once(owner: Conn, user_id: UUID, event_id: UUID) -> None:
    for table, statement in {
        "users": "select count(*) from users where id = $1",
        "keys": "select count(distinct version) from user_keys where user_id = $1",
        "audit": "select count(*) from user_audit where user_id = $1 and action = 'user.created'",
        "outbox": "select count(*) from outbox where user_id = $1",
    }.items():
        assert await owner.fetchval(statement, user_id) == 1, table
    assert await owner.fetchval("select count(*) from inbox where event_id = $1", event_id) == 1


async def test_a_consumer_killed_in_its_transaction(
    on_kafka: Settings, kafka: Kafka, programs: Start, owner: Conn, database: DatabaseUrls
) -> None:
    event = created(uuid4())
    AuthService(kafka.brokers).send([event])
    async with progress(on_kafka) as consumed:
        async with holding(database, "lock table notification_prefs in share mode"):
            worker = programs("work", "consumer", **SHORT_SESSION)
            await becomes(owner, LOCKS_WAITED_FOR, 1)
            worker.kill()
            assert not await consumed.done(), "offsets wait for the transaction"
        assert await owner.fetchval("select count(*) from inbox") == 0
        worker.start()
        await eventually(consumed.done)
    await only_once(owner, event.user_id, event.event_id)


async def test_a_consumer_killed_before_it_commits_its_offsets(
    on_kafka: Settings, kafka: Kafka, programs: Start, owner: Conn, database: DatabaseUrls
) -> None:
    event = created(uuid4())
    AuthService(kafka.brokers).send([event])
    async with progress(on_kafka) as consumed, proxy_to_kafka(kafka.brokers) as proxy:
        async with holding(database, "lock table notification_prefs in share mode"):
            worker = programs("work", "consumer", KAFKA_BROKERS=proxy.brokers, **SHORT_SESSION)
            await becomes(owner, LOCKS_WAITED_FOR, 1)
            proxy.refuse = True
            proxy.cut()
        await becomes(owner, "select count(*) from inbox where event_id = $1", 1, event.event_id)
        worker.kill()
        assert not await consumed.done()
        proxy.refuse = False
        worker.start()
        await eventually(consumed.done)
    await only_once(owner, event.user_id, event.event_id)


async def test_a_relay_killed_before_kafka_has_it(
    on_kafka: Settings, kafka: Kafka, programs: Start, owner: Conn, db: Db, keyring: Keyring
) -> None:
    async with proxy_to_kafka(kafka.brokers) as proxy:
        worker = programs("work", "relay", KAFKA_BROKERS=proxy.brokers)
        before, user_id = uuid4(), uuid4()
        await create_user(db, keyring, before, None, SYSTEM)
        await becomes(owner, "select count(*) from outbox", 0)
        proxy.refuse = True
        proxy.cut()
        await create_user(db, keyring, user_id, None, SYSTEM)
        await becomes(owner, SHARDS_HELD, 1)
        worker.kill()
        await becomes(owner, SHARDS_HELD, 0)
        assert await owner.fetchval("select count(*) from outbox") == 1
        proxy.refuse = False
        worker.start()
        await becomes(owner, "select count(*) from outbox", 0)
    assert len(set(await creations(on_kafka, user_id))) == 1
    assert len(await creations(on_kafka, before)) == 1


async def test_a_relay_killed_before_it_forgets_what_kafka_has(
    on_kafka: Settings, programs: Start, owner: Conn, db: Db, keyring: Keyring, database: DatabaseUrls
) -> None:
    user_id = uuid4()
    await create_user(db, keyring, user_id, None, SYSTEM)
    async with holding(database, "select from outbox for update"):
        worker = programs("work", "relay")
        await becomes(owner, LOCKS_WAITED_FOR, 1)
        worker.kill()
        first = await creations(on_kafka, user_id)
        assert len(first) == 1, "Kafka has it already"
    await becomes(owner, SHARDS_HELD, 0)
    assert await owner.fetchval("select count(*) from outbox") == 1
    worker.start()
    await becomes(owner, "select count(*) from outbox", 0)
    assert await creations(on_kafka, user_id) == first * 2, "at least once, and everybody can tell"
