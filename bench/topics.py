"""Kafka as the benchmarks use it: fill a topic before, and see how far it is filled."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


def fill(brokers: str, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Send (key, value) pairs and wait until all are acknowledged."""
    asyncio.run(_fill(brokers, topic, records))


async def _fill(brokers: str, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=5, max_batch_size=512 * 1024)
    await producer.start()
    try:
        sent = [cast("asyncio.Future[Any]", await producer.send(topic, value, key=key)) for key, value in records]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def count(brokers: str, topic: str) -> int:
    """Records ever written to the topic."""
    return asyncio.run(_count(brokers, topic))


async def _count(brokers: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=brokers)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        return sum(cast("dict[TopicPartition, int]", await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()
