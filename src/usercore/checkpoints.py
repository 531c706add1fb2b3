"""Checkpoints of the sealed trail on Kafka: whoever can change the database cannot change them there."""

import asyncio

import msgspec

from usercore import kafka, loops, telemetry
from usercore.db import Db
from usercore.events import CHECKPOINTS
from usercore.settings import Settings
from usercore.trail.actions import Checkpoint, get_newest

log = telemetry.logger(__name__)

EVERY_S = 60.0
"""What was sealed since the last one could be cut off unseen by somebody who has the owner's role."""


class Publisher:
    """Puts the newest checkpoint on its topic when there is a new one. Two copies put it there twice."""

    def __init__(self, db: Db, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._published = 0

    async def run(self, stop: asyncio.Event) -> None:
        await loops.every(EVERY_S, self.once, stop)

    async def once(self) -> None:
        newest = await get_newest(self._db)
        if newest is None or newest.number == self._published:
            return
        try:
            await self._send(newest)
        except kafka.AWAY as error:
            log.warning("checkpoint_waits", error)
        else:
            self._published = newest.number

    async def _send(self, checkpoint: Checkpoint) -> None:
        producer = kafka.producer(self._settings)
        try:
            async with asyncio.timeout(kafka.START_TIMEOUT_S):
                await producer.start()
                await producer.send_and_wait(CHECKPOINTS, msgspec.json.encode(checkpoint), key=b"trail")
        finally:
            await kafka.stop(producer)
