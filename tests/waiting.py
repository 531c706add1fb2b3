"""Waiting for what happens elsewhere, with a bound: tests wait for conditions, never for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.005


async def eventually(condition: Callable[[], Awaitable[T]], *, within_s: float = 30.0, why: str = "") -> T:
    """The first truthy value of `condition`. Fails with `why` when there is none in time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while True:
        value = await condition()
        if value:
            return value
        if clock() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {why or condition}; last value {value!r}")
        await asyncio.sleep(POLL_S)


async def turns(count: int) -> None:
    """Let the event loop run `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)
