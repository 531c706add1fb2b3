"""Statements that callers share: those that come together are answered by one round trip, and one commit.

The audited profile read is such a statement: it inserts an audit row for each reader and returns each reader's sealed
fields. The one that saves profiles is another. There is no timer: an idle lane takes what waits at once, and what
arrives while all lanes are busy forms the next batch. Each lane has a connection of its own, because a caller that
waited for a batch while it held a pooled connection would deadlock the pool.

What is done for a reader before and after the statement is done for all of a batch, one after the other: the same code
over and over stays in the processor's caches. In each reader's own turn it took half as long again.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import asyncpg

from usercore.db import Conn, is_away, outside_transaction

Q = TypeVar("Q")  # what a reader asks for
W = TypeVar("W")  # the same, as the statement takes it
R = TypeVar("R")  # what the statement returns for it
A = TypeVar("A")  # what the reader gets

Connect = Callable[[], Awaitable[asyncpg.Connection]]
Observe = Callable[[str, int], None]
"""Learns of the outcome of each statement and how many readers it had: success, failure or rejected."""

LANES = 2
"""Connections. A second one keeps PostgreSQL busy while we decode the first one's rows; a third measured no gain."""
LARGEST_BATCH = 32
"""Readers a statement. Larger ones gather everybody in one lane, and we wait for PostgreSQL a tenth of the time."""
SECOND_LANE_AT = 24
"""Readers that wait before another lane joins one that is busy: half of a statement's cost is the statement itself."""
QUEUE_BOUND = 2048
"""Readers that may wait. Beyond it the answer is 503 at once, which is better than a time-out later."""
PATIENCE_S = 3.0
"""How long a reader waits while connections are lost before it gets 503; a batch is tried once, however old it is."""
RETRY_PAUSE_S = 0.05


class Batcher(Generic[Q, W, R, A]):
    """Answers readers in batches: `prepare` for each, then `run` once for all of them, then `finish` for each.

    `run` returns one result for each reader, in their order. With `repeats` it must be safe to repeat with the same
    ones: after a lost connection nobody knows whether it committed. What `prepare` and `finish` raise, only their own
    reader gets. `refusal` makes the error that a reader gets of the one that its statement met, or of None when it was
    not tried: the queue is full, or this closes.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        prepare: Callable[[Q], W],
        run: Callable[[Conn, Sequence[W]], Awaitable[Sequence[R]]],
        finish: Callable[[R], A],
        observe: Observe | None = None,
        refusal: Callable[[Exception | None], Exception],
        repeats: bool = True,
    ) -> None:
        self._connect = connect
        self._prepare = prepare
        self._run = run
        self._finish = finish
        self._observe = observe or _unseen
        self._refusal = refusal
        self._repeats = repeats
        self._waiting: deque[_Reader[Q, A]] = deque()
        self._idle = [_Lane() for _ in range(LANES)]
        self._lanes = list(self._idle)
        self._draining: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, request: Q) -> A:
        """The answer to `request`. Raises a refusal, and what `prepare` and `finish` raise."""
        outside_transaction()
        if self._closed or len(self._waiting) >= QUEUE_BOUND:
            self._observe("rejected", 1)
            raise self._refusal(None)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append(_Reader(request, future, loop.time() + PATIENCE_S, contextvars.copy_context()))
        if self._idle and (len(self._idle) == LANES or len(self._waiting) >= SECOND_LANE_AT):
            # A fresh context: the lane outlives the request that happened to wake it.
            task = loop.create_task(self._drain(self._idle.pop()), context=contextvars.Context())
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        return await future

    async def close(self) -> None:
        """Answer who waits, then close the connections."""
        self._closed = True
        while self._draining:
            await asyncio.gather(*self._draining, return_exceptions=True)
        for lane in self._lanes:
            await lane.drop()

    async def _drain(self, lane: "_Lane") -> None:
        while True:
            batch = self._take()
            if not batch:
                # In the same step in which the queue is seen empty: an await between would lose a wake-up.
                self._idle.append(lane)
                return
            try:
                await self._answer(lane, batch)
            except BaseException:
                for reader, _ in batch:
                    if not reader.future.done():
                        reader.future.set_exception(self._refusal(None))
                await lane.drop()
                self._idle.append(lane)
                raise

    def _take(self) -> "list[tuple[_Reader[Q, A], W]]":
        batch: list[tuple[_Reader[Q, A], W]] = []
        while self._waiting and len(batch) < LARGEST_BATCH:
            reader = self._waiting.popleft()
            if reader.future.done():  # one that was cancelled while it waited reads nothing and leaves no row
                continue
            try:
                batch.append((reader, self._prepare(reader.request)))
            except Exception as error:
                reader.future.set_exception(error)
        return batch

    async def _answer(self, lane: "_Lane", batch: "list[tuple[_Reader[Q, A], W]]") -> None:
        try:
            results = await self._try([prepared for _, prepared in batch], lane, batch[0][0].deadline)
        except Exception as error:
            if len(batch) > 1 and not is_away(error):
                # One of them may have caused it, and the others be innocent.
                for each in batch:
                    await self._answer(lane, [each])
            else:
                self._fail(batch, error)
            return
        self._observe("success", len(batch))
        for (reader, _), result in zip(batch, results, strict=True):
            if not reader.future.done():
                try:
                    reader.future.set_result(reader.context.run(self._finish, result))
                except Exception as error:
                    reader.future.set_exception(error)

    def _fail(self, batch: "list[tuple[_Reader[Q, A], W]]", error: Exception) -> None:
        self._observe("failure", len(batch))
        for reader, _ in batch:
            if not reader.future.done():
                refusal = self._refusal(error)
                if refusal is not error:
                    refusal.__cause__ = error
                reader.future.set_exception(refusal)

    async def _try(self, prepared: list[W], lane: "_Lane", deadline: float) -> Sequence[R]:
        while True:
            try:
                connection = await lane.connection(self._connect)
                return await self._run(connection, prepared)
            except Exception as error:
                if is_away(error):
                    await lane.drop()
                if asyncio.get_running_loop().time() > deadline or not self._may_try_again(error):
                    raise
            await asyncio.sleep(RETRY_PAUSE_S)

    def _may_try_again(self, error: Exception) -> bool:
        # A deadlock was rolled back for sure; a lost connection may have been lost after the commit.
        return is_away(error) and (self._repeats or isinstance(error, asyncpg.TransactionRollbackError))


def _unseen(outcome: str, rows: int) -> None:
    pass


class _Reader(NamedTuple, Generic[Q, A]):
    """Who waits, until when by the event loop's clock, and the context that `finish` runs in, for its log lines."""

    request: Q
    future: asyncio.Future[A]
    deadline: float
    context: contextvars.Context


class _Lane:
    """One connection, made when needed and thrown away after an outage."""

    def __init__(self) -> None:
        self._connection: asyncpg.Connection | None = None

    async def connection(self, connect: Connect) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await connect()
            except asyncpg.PostgresError as error:
                # Whatever PostgreSQL says to somebody who connects, it means that it cannot be had.
                raise ConnectionRefusedError from error
        return self._connection

    async def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
