"""Processes that outlive their starter: pid files, logs, ports, locks, and one sentence for whatever goes wrong."""

import contextlib
import fcntl
import functools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import psutil

from usercore.errors import UsercoreError

Say = Callable[[str], None]

# Below the range from which systems take ports for outgoing connections, so that a stopped server's port stays its own.
PORTS = range(20_000, 32_000)


class StackError(UsercoreError):
    """What stopped the stack and what to do about it, in one sentence."""


def say(line: str) -> None:
    # In one write: several threads start servers at once.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def quiet(line: str) -> None:
    """For callers that show no progress, such as tests."""


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    for _ in range(1000):
        port = secrets.choice(PORTS)
        if port_is_free(port):
            return port
    raise StackError(
        f"No free port between {PORTS.start} and {PORTS.stop} was found: stop some programs and try again."
    )


def remembered_port(file: Path, what: str, say: Say, preferred: int | None = None) -> int:
    """The port written in `file`, or a new one when there is none yet or another program has taken it."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int(file.read_text())
        if port_is_free(port):
            return port
        say(f"{what}: port {port} is taken by another program, moving to a free one")
    port = preferred if preferred and port_is_free(preferred) else free_port()
    file.write_text(f"{port}\n")
    return port


def remembered_secret(file: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        if text := file.read_text().strip():
            return text
    text = secrets.token_urlsafe(24)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text + "\n")
    return text


def answer(argv: Sequence[str]) -> str:
    """What a program prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def log_tail(file: Path, lines: int = 3) -> str:
    """The last lines of a log in one line, for a sentence."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return ""
    return " / ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def disk_is_full(text: str) -> bool:
    return "No space left on device" in text or "Disk quota exceeded" in text


def disk_full(place: Path) -> StackError:
    return StackError(f"The disk that holds {place} is full: free about 500 MB there, then start again.")


def new_log(file: Path) -> BinaryIO:
    """An empty log to write to; the one before it is kept."""
    with contextlib.suppress(FileNotFoundError):
        file.replace(file.with_name(f"{file.name}.1"))
    return file.open("wb")


def alive(pid: int, home: Path) -> bool:
    """Whether `pid` is a running process that works in `home`: a pid that was given to another program is not ours."""
    try:
        process = psutil.Process(pid)
        return _runs(process) and Path(process.cwd()) == home.resolve()
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def anybody_in(folder: Path) -> bool:
    """Whether any process works in `folder`, as all processes of a Postgres do in its data."""
    wanted = folder.resolve()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if _runs(process) and Path(process.cwd()) == wanted:
                return True
    return False


def runs(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is None


def reap(child: subprocess.Popen[bytes] | None) -> None:
    """Make sure that a child of ours is gone, without a zombie."""
    if child is not None:
        if runs(child):
            kill_tree(child.pid)
        child.wait()


def end(pid: int, *, how: signal.Signals = signal.SIGTERM, patience_s: float = 30) -> None:
    """Ask a process to end, wait, and kill it with its children when it does not."""
    try:
        process = psutil.Process(pid)
        process.send_signal(how)
        process.wait(patience_s)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        kill_tree(pid)


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and its children; returns when they are gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    wait_until(lambda: not any(_runs(member) for member in family), lambda: True, 10)


def _runs(process: psutil.Process) -> bool:
    """A zombie does not: it waits for its parent, which may never ask."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(ready: Callable[[], bool], running: Callable[[], bool], patience_s: float) -> bool:
    """Poll until `ready`; false as soon as the process is gone or patience has run out."""
    deadline = time.monotonic() + patience_s
    pause = 0.01
    while time.monotonic() < deadline:
        if ready():
            return True
        if not running():
            return ready()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return False


def in_parallel(tasks: Iterable[Callable[[], None]]) -> None:
    """Run them all to their end, then raise the first failure."""
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(task) for task in tasks]
    for task in running:
        task.result()


@contextlib.contextmanager
def locked(file: Path, waiting: str, say: Say) -> Generator[None]:
    """Hold an advisory lock on `file`; the kernel drops it with the process, so a killed holder blocks nobody."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# The shell writes its own pid and becomes the program, so there is no moment in which it runs unrecorded.
RECORD_AND_BECOME = 'echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@"'


class Daemon:
    """One background process with `<home>/pid` and `<home>/log`, working in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "log"
        self._pid_file = home / "pid"
        self._child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        """The pid while the process runs, else None."""
        if self._child:
            self._child.poll()
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if alive(pid, self.home) else None

    def start(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self._forget()
        with new_log(self.log) as log:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", RECORD_AND_BECOME, str(self._pid_file), *argv],
                cwd=self.home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._pid_file.exists, functools.partial(runs, self._child), 10)

    def listens(self, port: int) -> bool:
        """Whether it is this process, or one that it has started, that listens on `port`."""
        pid = self.pid()
        if pid is None:
            return False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            sockets = [s for p in (process, *process.children(recursive=True)) for s in p.net_connections("tcp")]
            return any(s.status == psutil.CONN_LISTEN and s.laddr[1] == port for s in sockets)
        return False

    def stop(self, patience_s: float = 30) -> None:
        if pid := self.pid():
            end(pid, patience_s=patience_s)
        self._forget()

    def kill(self) -> None:
        if pid := self.pid():
            kill_tree(pid)
        self._forget()

    def _forget(self) -> None:
        reap(self._child)
        self._child = None
        self._pid_file.unlink(missing_ok=True)
