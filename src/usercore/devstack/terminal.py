"""The stack in one terminal: its logs as they are written, each line with the coloured name of its part."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from usercore.devstack.processes import StackError
from usercore.devstack.stack import Part, Stack

COLOURS = ("blue", "magenta", "cyan", "green", "yellow", "red")
LOOK_EVERY_S = 0.2
# A service that falls over again and again would fill the terminal.
RESTART_EVERY_S = 5.0


class Follower:
    """Gives the lines that are added to a log from now on, also after the log was started anew."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle: BinaryIO | None = None
        self._inode = 0
        self._rest = b""
        for _ in self.lines():
            pass

    def lines(self) -> Generator[str]:
        with contextlib.suppress(FileNotFoundError):
            if self._file.stat().st_ino != self._inode:
                yield from self._read()
                self.close()
                self._handle = self._file.open("rb")
                self._inode = os.fstat(self._handle.fileno()).st_ino
        yield from self._read()

    def close(self) -> None:
        if self._handle:
            self._handle.close()
        self._handle = None

    def _read(self) -> Generator[str]:
        if self._handle:
            *lines, self._rest = (self._rest + self._handle.read()).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")


def table(parts: Sequence[Part]) -> Table:
    made = Table(box=None, pad_edge=False)
    for heading in ("part", "what", "where", "pid"):
        made.add_column(heading, overflow="fold")
    for part in parts:
        pid = str(part.pid) if part.pid else "[red]not running[/red]"
        made.add_row(part.name, escape(part.what), escape(part.where), pid)
    return made


def show(stack: Stack, console: Console) -> None:
    """What runs where, and where to look next."""
    console.print(table(stack.status()))
    for what, place in (("settings", stack.home / "env"), ("logs", stack.home / "*" / "log")):
        console.print(f"{what}: {escape(str(place))}", highlight=False, soft_wrap=True)


def readable(line: str) -> str:
    """Our own JSON log lines as `level event name=value …`; everything else as it is."""
    try:
        fields: object = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict) or "event" not in fields:
        return line
    shown = {str(name): value for name, value in cast(dict[object, object], fields).items() if name != "ts"}
    head = [str(shown.pop("level", "")), str(shown.pop("event"))]
    return " ".join(head + [f"{name}={value}" for name, value in shown.items()])


def dev(stack: Stack, console: Console) -> None:
    """Everything up, logs shown, services that end started again; Ctrl-C (or the terminal's end) stops it all."""
    previous = {name: signal.signal(name, interrupt) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        stack.up()
        show(stack, console)
        console.print("[dim]Ctrl-C stops everything.[/dim]")
        follow(stack, console)
    except KeyboardInterrupt:
        console.print()
    finally:
        for name in previous:
            # A second signal must not leave half of it running.
            signal.signal(name, signal.SIG_IGN)
        stack.down()
        for name, handler in previous.items():
            signal.signal(name, handler)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def follow(stack: Stack, console: Console) -> None:
    logs = stack.logs()
    followers = {name: Follower(file) for name, file in logs.items()}
    width = max(map(len, logs))
    colours = dict(zip(logs, COLOURS * len(logs), strict=False))
    restart_from = 0.0
    try:
        while True:
            for name, follower in followers.items():
                for line in follower.lines():
                    head = f"[{colours[name]}]{name:<{width}} |[/{colours[name]}]"
                    console.print(f"{head} {escape(readable(line))}", highlight=False, soft_wrap=True)
            if time.monotonic() >= restart_from and stack.dead():
                restart_from = time.monotonic() + RESTART_EVERY_S
                try:
                    stack.restart_dead()
                except StackError as error:
                    console.print(f"[red]{escape(str(error))}[/red]")
            time.sleep(LOOK_EVERY_S)
    finally:
        for follower in followers.values():
            follower.close()
