"""The README's session with curl, executed: each command, and what it says it prints."""

import os
import re
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


def session() -> list[tuple[str, str]]:
    """Command and expected output, for each command of the README's console block."""
    block = re.search(r"```console\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert block is not None
    steps: list[tuple[str, str]] = []
    for line in block[1].splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        else:
            command, output = steps[-1]
            steps[-1] = (command, output + line + "\n")
    return steps


@pytest.fixture
def home(servers_folder: Path) -> Generator[Path]:
    """A folder that looks like a checkout to its shell, with a stack of its own."""
    home = servers_folder / "readme"
    home.mkdir()
    (home / "justw").write_text(f'#!/bin/sh\nexec "{REPOSITORY}/justw" "$@"\n')
    (home / "justw").chmod(0o755)
    yield home
    subprocess.run(["./justw", "down"], cwd=home, env=environment(home), check=True, capture_output=True)


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "USERCORE_HOME": str(home)}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session uses curl")
def test_the_session(home: Path) -> None:
    steps = session()
    assert len(steps) >= 10
    separator = "----8<----"
    script = "".join(f"{command}\necho '{separator}'\n" for command, _ in steps)
    shell = subprocess.run(
        ["sh", "-c", script], cwd=home, env=environment(home), capture_output=True, text=True, timeout=120, check=False
    )
    outputs = shell.stdout.split(f"{separator}\n")
    for (command, expected), output in zip(steps, outputs, strict=False):
        # … stands for anything within a line.
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        assert re.fullmatch(pattern, output), f"$ {command}\nexpected {expected}\ngot      {output}\n{shell.stderr}"
