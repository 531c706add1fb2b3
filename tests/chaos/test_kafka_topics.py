"""Topics that are not there yet when a worker starts: it takes them up when they are, without a restart."""

from collections.abc import Callable
from uuid import uuid4

from tests.chaos.auth_events import AuthService, created
from tests.chaos.locks import becomes
from tests.chaos.outages import running
from tests.service import Signer
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.provision import TOPICS


async def test_topics_that_are_made_later(
    fresh_kafka: Callable[[], Kafka], environ: dict[str, str], signer: Signer, owner: Conn
) -> None:
    """As with a broker that has just started, and does not know its topics yet."""
    kafka = fresh_kafka()
    environ["KAFKA_BROKERS"] = kafka.brokers
    async with running(environ, signer, ("consumer", "relay")) as client:
        asha = client.user()
        assert (await asha.get()).status == 200
        await becomes(owner, "select count(*) from outbox where user_id = $1", 1, asha.id)
        kafka.create_topics(TOPICS)
        event = created(uuid4())
        AuthService(kafka.brokers).send([event])
        await becomes(owner, "select count(*) from users where id = $1", 1, event.user_id)
        await becomes(owner, "select count(*) from outbox", 0)
