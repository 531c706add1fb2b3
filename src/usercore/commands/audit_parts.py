"""The trail verified by several processes, each a part of the segments at a time: one process hashes on one core."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, closing
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from msgspec.structs import replace

from usercore import app
from usercore.archive.actions import list_archived
from usercore.commands.settings import current
from usercore.server import settle
from usercore.trail.actions import Checkpoint, Verified, get_newest, verify

PARTS_A_PROCESS = 16
"""So that none waits long for the last one, and the progress bar moves."""


class Part(NamedTuple):
    """Segments from the first to the last; without a last one, to the end and the rows that are not sealed."""

    first: int
    last: int | None


class Verifier:
    """Database and keyring of one process, for one part after the other."""

    def __init__(self) -> None:
        self._runner, self._stack = asyncio.Runner(), AsyncExitStack()
        self._opened = self._runner.run(self._stack.enter_async_context(app.opened(current())))

    def newest(self) -> int:
        """The last segment, 0 when nothing is sealed."""
        checkpoint = self._runner.run(get_newest(self._opened.db))
        return 0 if checkpoint is None else checkpoint.number

    def verify(self, against: Sequence[Checkpoint], part: Part) -> Verified:
        """Raises what `trail.verify` raises."""
        db, keyring, archive = self._opened.db, self._opened.keyring, self._opened.archive
        archived = partial(list_archived, db, archive)
        return self._runner.run(
            verify(db, keyring, first=part.first, upto=part.last, against=against, archived=archived)
        )

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


def cut(first: int, upto: int | None, newest: int, processes: int) -> list[Part]:
    """The segments from the first on, for so many processes; all of them are there without a last one."""
    count = min(newest, upto or newest) - first + 1
    parts = max(1, min(count, processes * PARTS_A_PROCESS))
    borders = [first + count * each // parts for each in range(1, parts)]
    return [Part(*each) for each in zip([first, *borders], [*(each - 1 for each in borders), upto], strict=True)]


def verify_parts(
    first: int, upto: int | None, jobs: int, against: Sequence[Checkpoint], progress: Callable[[Part, int], None]
) -> Verified:
    """As `trail.verify`, by up to so many processes; `progress` hears of each part in order, and how many there are."""
    with closing(Verifier()) as here:
        parts = cut(first, upto, here.newest(), jobs)
        if jobs == 1 or len(parts) == 1:
            return _joined(parts, map(partial(here.verify, against), parts), progress)
    with ProcessPoolExecutor(min(jobs, len(parts)), mp_context=get_context("spawn"), initializer=_begin) as pool:
        try:
            return _joined(parts, pool.map(partial(_verify, against), parts), progress)
        finally:
            pool.shutdown(cancel_futures=True)


def _joined(parts: Sequence[Part], results: Iterable[Verified], progress: Callable[[Part, int], None]) -> Verified:
    """Up to the first part in which something is wrong."""
    found: list[Verified] = []
    for part, each in zip(parts, results, strict=False):
        found.append(each)
        progress(part, len(parts))
        if each.finding is not None:
            break
    segments, rows = (sum(getattr(each, name) for each in found) for name in ("segments", "rows"))
    return replace(found[-1], segments=segments, rows=rows)


_verifiers: list[Verifier] = []
"""The one of a process of the pool."""


def _begin() -> None:
    settle()
    # The first process has said already what there is to say, and what a part raises goes back to it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _verifiers.append(Verifier())


def _verify(against: Sequence[Checkpoint], part: Part) -> Verified:
    return _verifiers[0].verify(against, part)
