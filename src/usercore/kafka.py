"""Kafka clients as this service uses them: acknowledged by all replicas, idempotent, with bounded waits."""

import asyncio
import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from usercore import telemetry
from usercore.db import outside_transaction
from usercore.loops import is_told_to_end
from usercore.settings import Settings

log = telemetry.logger(__name__)

Record = ConsumerRecord[bytes, bytes]
"""A record as it lies on the topic: we decode, not the client."""

SEND_TIMEOUT_S = 10.0
"""A record that is not acknowledged by then counts as not sent, and is sent again."""
REQUEST_TIMEOUT_MS = 5_000
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 3.0
"""What a client still has to send by then is in the outbox, or on its topic, and is sent again."""
LARGEST_RECORD = 16 * 1024 * 1024
"""The topic decides what is too large, not the client: a dead letter is as large as what somebody else could send."""

AWAY = (KafkaError, OSError, TimeoutError)
"""What a Kafka client raises when the cluster cannot be had."""


def client_options(settings: Settings) -> dict[str, Any]:
    """Arguments that every aiokafka client shares: brokers, security, time-outs."""
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.kafka_brokers),
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    if settings.kafka_security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
    if settings.kafka_sasl_mechanism is not None and settings.kafka_sasl_password is not None:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.reveal()
    return options


def producer(settings: Settings) -> AIOKafkaProducer:
    """A producer that is not started yet."""
    outside_transaction()
    return AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        max_batch_size=256 * 1024,
        max_request_size=LARGEST_RECORD,
    )


def consumer(settings: Settings, *topics: str, group: str | None, from_beginning: bool = True) -> AIOKafkaConsumer:
    """A consumer that is not started yet; it commits only what it is told to."""
    outside_transaction()
    return AIOKafkaConsumer(
        *topics,
        **client_options(settings),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_beginning else "latest",
        isolation_level="read_committed",
        # So long the partitions of a worker that was killed wait for another one.
        session_timeout_ms=settings.kafka_session_timeout_ms,
        heartbeat_interval_ms=settings.kafka_session_timeout_ms // 4,
    )


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop a client, without waiting for a cluster that is away."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await client.stop()
    except (*AWAY, asyncio.CancelledError) as error:
        if is_told_to_end():
            raise
        log.warning("kafka_client_not_stopped", error)
        if isinstance(client, AIOKafkaProducer):
            await _abandon(client)
        else:
            await client._client.close()  # pyright: ignore[reportPrivateUsage] - its connections would stay open


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End what aiokafka has no call for: a producer that tries for ever to send what a new one sends as well."""
    sender = producer._sender.sender_task  # pyright: ignore[reportPrivateUsage]
    while sender is not None and not sender.done():
        sender.cancel()  # the first time it goes on to wait for its requests
        await asyncio.wait([sender], timeout=0.1)
    # What `stop` still waits for, in a task of its own.
    accumulator: Any = producer._message_accumulator  # pyright: ignore[reportPrivateUsage]
    accumulator._pending_batches.update(*accumulator._batches.values())
    for batch in tuple(accumulator._pending_batches):
        batch.done_noack()
    await producer.client.close()
