"""Whether the machine has the memory and the disk that the stack needs, asked before anything starts."""

import contextlib
import shutil
from pathlib import Path

import psutil

from usercore.devstack.kafka import Kind
from usercore.devstack.processes import StackError

MB = 1_000_000

# Measured at rest: Kafka 280 MB (heap up to 512), Postgres 120, ClickHouse 100, the services 150 each.
MEMORY_NEEDED: dict[Kind, int] = {"apache": 1000 * MB, "mock": 600 * MB}
DISK_NEEDED_AT_FIRST = 500 * MB
DISK_NEEDED = 100 * MB

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that may still be used, by the machine's or the container's measure, whichever is smaller."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        # "max" where there is no limit, which is no number.
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat.get("inactive_file", "0")))
    return free


def check_memory(kind: Kind) -> None:
    free, needed = free_memory(), MEMORY_NEEDED[kind]
    if free >= needed:
        return
    advice = "close other programs"
    if kind == "apache" and free >= MEMORY_NEEDED["mock"]:
        advice += f", or set USERCORE_DEV_KAFKA=mock, with which {MEMORY_NEEDED['mock'] // MB} MB do"
    raise StackError(f"{free // MB} MB of memory are free and the stack needs {needed // MB} MB: {advice}.")


def check_disk(folder: Path, *, first: bool) -> None:
    free, needed = shutil.disk_usage(folder).free, DISK_NEEDED_AT_FIRST if first else DISK_NEEDED
    if free < needed:
        raise StackError(
            f"{free // MB} MB are free on the disk that holds {folder} and the stack needs {needed // MB} MB: "
            "delete something there, then start again."
        )
