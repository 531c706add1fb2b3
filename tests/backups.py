"""Backups of PostgreSQL as operators make them: with pg_dump, and back with pg_restore."""

import asyncio
import subprocess
from pathlib import Path

from usercore.devstack.accounts import reachable_binaries
from usercore.devstack.processes import quiet


async def dump(source: str, file: Path) -> None:
    """The database at the URL `source`, in a form that `restore` takes."""
    await _run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={source}")


async def restore(file: Path, target: str) -> None:
    """Into the empty database at the URL `target`."""
    await _run("pg_restore", "--exit-on-error", "--no-comments", f"--dbname={target}", str(file))


async def dumped_text(source: str, file: Path) -> str:
    """The database as SQL, as a thief would read it."""
    await _run("pg_dump", f"--file={file}", f"--dbname={source}")
    return await asyncio.to_thread(file.read_text)


async def _run(program: str, *arguments: str) -> None:
    command = [str(reachable_binaries(None, quiet) / program), *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
