"""Work that goes on in the background until a stop event is set."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import asyncpg

from usercore import telemetry
from usercore.errors import ServiceUnavailable

log = telemetry.logger(__name__)

Loop = Callable[[asyncio.Event], Awaitable[None]]

CRASH_PAUSE_S = 1.0
"""A loop that raised what it does not know is started again after this."""

_jitter = random.SystemRandom()


async def wait(stop: asyncio.Event, seconds: float) -> bool:
    """True as soon as `stop` is set, false after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


async def every(seconds: float, once: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run `once` now and again and again, a little unevenly, so that many workers do not act in step."""
    while not stop.is_set():
        try:
            await once()
        except (ServiceUnavailable, asyncpg.PostgresError) as error:
            log.warning("loop_waits", error)
        await wait(stop, seconds * _jitter.uniform(0.8, 1.2))


async def keep_running(name: str, loop: Loop, stop: asyncio.Event) -> None:
    """Run `loop`, and again when it breaks: one loop's bug must not stop the others."""
    while not stop.is_set():
        try:
            await loop(stop)
        except (Exception, asyncio.CancelledError) as error:
            if is_told_to_end():
                raise
            log.error("loop_crashed", error, component=name)
            await wait(stop, CRASH_PAUSE_S)


def is_told_to_end() -> bool:
    """Whether somebody has cancelled the current task.

    Without that a CancelledError is a library's, which awaited a task of its own that it had cancelled: as aiokafka
    does when its broker dies. Let through it would end the loop without a word.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
