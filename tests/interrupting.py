"""Interrupts a coroutine at its n-th suspension; `python -m tests.interrupting CASES` makes processes that die there.

A verb waits for the outside (PostgreSQL, Kafka) only where its coroutine suspends, so whoever drives the coroutine can
interrupt it at every such place without knowing what it does. Tasks that our own code starts meanwhile count as part of
it; those of the libraries do not.
"""

import asyncio
import gc
import os
import signal
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
from msgspec import Struct

import usercore
from tests.proxy import Proxy
from tests.verbs.world import Subject
from usercore.errors import ApiError

T = TypeVar("T")

OUR_CODE = str(Path(usercore.__file__).parent)
ROOT = Path(__file__).parents[1]


class Interrupted(Exception):
    """What an interrupted await raises."""


class Interruption(Protocol):
    """What happens at one suspension: before it waits, and when the wait is over."""

    def suspended(self, waited: object) -> None: ...

    def resumed(self) -> None: ...


class Error:
    """The awaited thing happens, and raises.

    Never before it happens: then asyncpg would be in the middle of a conversation that nobody listens to, and to raise
    before an await is to raise after the one before it.
    """

    def suspended(self, waited: object) -> None: ...

    def resumed(self) -> None:
        raise Interrupted


class Cancel:
    """The task is cancelled while it waits."""

    def suspended(self, waited: object) -> None:
        _current_task().cancel()

    def resumed(self) -> None: ...


class LateCancel:
    """The task is cancelled when what it waited for has happened and it does not know yet."""

    def suspended(self, waited: object) -> None:
        task = _current_task()
        if isinstance(waited, asyncio.Future):
            # Before the task's own callback, which is added when it has seen the future.
            cast("asyncio.Future[Any]", waited).add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()

    def resumed(self) -> None: ...


class LostRequest:
    """The connections break before PostgreSQL has read the request."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def suspended(self, waited: object) -> None:
        self._proxy.cut()

    def resumed(self) -> None: ...


class LostAnswer:
    """PostgreSQL does what it was asked for, and the connections break before the answer is here."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def suspended(self, waited: object) -> None:
        self._proxy.lose_answer = True

    def resumed(self) -> None:
        if self._proxy.lose_answer:  # it was not PostgreSQL that was waited for
            self._proxy.lose_answer = False
            self._proxy.cut()


class Kill:
    """The process is gone; what it has asked PostgreSQL for is on its way."""

    def suspended(self, waited: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def resumed(self) -> None: ...


class Steps:
    """Notes where a coroutine, and each task that it starts, suspends; interrupts one suspension, counted from 1."""

    def __init__(
        self,
        interruption: Interruption | None = None,
        at: int = 0,
        watch: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`watch` is awaited whenever a suspension is over, before the coroutine goes on."""
        self.watch = watch
        self._interruption = interruption
        self._at = at
        self._tasks: list[asyncio.Task[Any]] = []
        self.sites: list[str] = []

    @property
    def interrupted_at(self) -> str | None:
        return self.sites[self._at - 1] if self._interruption and len(self.sites) >= self._at else None

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, when its tasks are over too."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._make_task)
        try:
            # In a task of its own: a cancelled one stays cancelled, and the test goes on.
            task = loop.create_task(_drive(self, coroutine))
            await asyncio.wait([task])
            while pending := [task for task in self._tasks if not task.done()]:
                await asyncio.wait(pending)
        finally:
            loop.set_task_factory(None)
        return task.result()

    def suspended(self, coroutine: Coroutine[Any, Any, Any]) -> Interruption | None:
        site = _site(coroutine)
        # How often ClickHouse's driver waits for one answer depends on how it comes in.
        if "clickhouse.py" in site and self.sites[-1:] == [site]:
            return None
        self.sites.append(site)
        return self._interruption if len(self.sites) == self._at else None

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and code.co_filename.startswith(OUR_CODE):
            task: asyncio.Task[Any] = asyncio.Task(_drive(self, coroutine), loop=loop, **options)
            # When it is cancelled before it starts, nobody has awaited the coroutine.
            task.add_done_callback(lambda _: coroutine.close())
            self._tasks.append(task)
            return task
        return asyncio.Task(coroutine, loop=loop, **options)


async def _drive(steps: Steps, coroutine: Coroutine[Any, Any, T]) -> T:
    return await _Driven(steps, coroutine)


class _Driven(Generic[T]):
    def __init__(self, steps: Steps, coroutine: Coroutine[Any, Any, T]) -> None:
        self._steps = steps
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, T]:
        go_on = partial(self._coroutine.send, None)
        while True:
            try:
                waited = go_on()
            except StopIteration as end:
                return cast(T, end.value)
            interruption = self._steps.suspended(self._coroutine)
            if interruption:
                interruption.suspended(waited)
            try:
                yield waited
                if interruption:
                    interruption.resumed()
                if self._steps.watch is not None:
                    yield from self._steps.watch().__await__()
            except BaseException as error:
                go_on = partial(self._coroutine.throw, error)
            else:
                go_on = partial(self._coroutine.send, None)


def _site(coroutine: object) -> str:
    """The innermost line of our own code in a suspended coroutine; generated code belongs to who called it."""
    found = ""
    while isinstance(coroutine, CoroutineType):
        frame = cast(FrameType, coroutine.cr_frame)  # of a suspended coroutine it is there
        if frame.f_code.co_filename.startswith(OUR_CODE):
            found = f"{Path(frame.f_code.co_filename).relative_to(OUR_CODE)}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return found


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


# --------------------------------------------------------------------------------------------- a process that is killed


class Called(Protocol):
    """A verb in a situation: what an order names, and what the process then calls."""

    @property
    def name(self) -> str: ...
    @property
    def call(self) -> Callable[[Any, Subject], Coroutine[Any, Any, object]]: ...


class Cases(Protocol):
    """A module of such cases, and what opens that with which they are called."""

    @property
    def CASES(self) -> Sequence[Called]: ...
    @property
    def opened(self) -> Callable[[Mapping[str, str]], AbstractAsyncContextManager[Any]]: ...


class Order(Struct, frozen=True):
    """Run this case in a process of its own, and die at this suspension; 0 lives and says where it was suspended."""

    environ: dict[str, str]
    case: str
    subject: Subject
    at: int = 0


class Killers:
    """Makes processes that kill themselves, by forking one that has everything imported."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def awaits(self, order: Order) -> list[tuple[int, str]]:
        """The suspensions at which to kill, and where they are: one for each await of our own code.

        A new process has new connections, on which a statement is prepared and its types are asked for before it runs:
        several suspensions, of which the last one changes something.
        """
        code, sites = await self._run(order)
        assert code == 0, code
        numbered = enumerate(sites, 1)
        return [list(group)[-1] for _, group in groupby(numbered, key=lambda entry: entry[1])]

    async def kill(self, order: Order) -> None:
        code, _ = await self._run(order)
        assert code == -signal.SIGKILL, code

    async def _run(self, order: Order) -> tuple[int, list[str]]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        sites = msgspec.json.decode(await self._process.stdout.readline(), type=list[str])
        return int(await self._process.stdout.readline()), sites


@asynccontextmanager
async def killers(cases: str = "tests.verbs") -> AsyncGenerator[Killers]:
    """`cases` names their module."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        cases,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    try:
        yield Killers(process)
    finally:
        process.stdin.close()
        await process.wait()


def main() -> None:
    """An order a line on stdin; on stdout where the process was suspended, on a line, and how it ended, on another."""
    cases = cast(Cases, import_module(sys.argv[1]))
    answers = os.dup(1)
    os.dup2(2, 1)  # the service logs to stdout
    gc.freeze()  # or the first collection of each child copies what it shares with us
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os._exit(_obey(cases, order, write))
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            os.write(answers, (pipe.read() or b"[]") + b"\n")
        _, status = os.waitpid(pid, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))


def _obey(cases: Cases, order: Order, sites: int) -> int:
    case = next(case for case in cases.CASES if case.name == order.case)
    steps = Steps(Kill() if order.at else None, order.at)

    async def run() -> None:
        async with cases.opened(order.environ) as world:
            with suppress(ApiError):  # a refusal is an end like any other
                await steps.run(case.call(world, order.subject))

    try:
        asyncio.run(run())
    except BaseException:
        traceback.print_exc()
        return 1
    os.write(sites, msgspec.json.encode(steps.sites))
    return 0


if __name__ == "__main__":
    main()
