"""Loops go on whatever breaks in them, and end when they are told to."""

import asyncio

import pytest

from tests.waiting import turns
from usercore import loops


async def cancelled_within(stop: asyncio.Event) -> None:
    """As a library that awaits a task of its own after it has cancelled it."""
    own = asyncio.create_task(asyncio.Event().wait())
    own.cancel()
    await own


async def broken(stop: asyncio.Event) -> None:
    raise RuntimeError


@pytest.mark.parametrize("first", [cancelled_within, broken])
async def test_a_loop_that_breaks_is_started_again(monkeypatch: pytest.MonkeyPatch, first: loops.Loop) -> None:
    monkeypatch.setattr(loops, "CRASH_PAUSE_S", 0.01)
    stop, turns = asyncio.Event(), 0

    async def loop(stop: asyncio.Event) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            stop.set()
        await first(stop)

    async with asyncio.timeout(5):
        await loops.keep_running("test", loop, stop)
    assert turns == 3


async def test_a_loop_that_is_cancelled_ends() -> None:
    stop = asyncio.Event()

    async def loop(stop: asyncio.Event) -> None:
        await stop.wait()

    task = asyncio.create_task(loops.keep_running("test", loop, stop))
    await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
