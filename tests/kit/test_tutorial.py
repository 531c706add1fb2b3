"""docs/vendor-tutorial.md, executed: each command with what it prints, and each change of a file."""

import ast
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.kit.test_commands import ROOT, installed
from tests.test_readme import environment
from usercore.testing.checks import CHECKS
from usercore.testing.kit import promise

TEXT = (ROOT / "docs" / "vendor-tutorial.md").read_text()
SEPARATOR = "----8<----"


@pytest.fixture
def home(servers_folder: Path) -> Generator[Path]:
    """A folder that looks like a checkout to its shell, with a stack of its own; a plugin in it is installed."""
    home = servers_folder / "tutorial"
    home.mkdir()
    plugin = home / "plugins" / "kyc_acme"
    (home / "justw").write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{plugin}/src:{plugin}/site"\n'
        f'export PATH="{Path(sys.executable).parent}:$PATH"\n'
        'if [ "$1" = test ]; then shift; exec pytest -p no:asyncio -p no:cacheprovider "$@"; fi\nexec usercore "$@"\n'
    )
    (home / "justw").chmod(0o755)
    yield home
    subprocess.run(["./justw", "down"], cwd=home, env=environment(home), check=True, capture_output=True)


def test_the_tutorial(home: Path) -> None:
    plugin = home / "plugins" / "kyc_acme"
    before = ""
    blocks = re.findall(r"(.*?)```(console|python)\n(.*?)```", TEXT, re.DOTALL)
    assert [kind for _, kind, _ in blocks].count("console") >= 6
    for before, kind, block in blocks:
        if kind == "python":
            change(plugin / re.findall(r"In `(.*?)`:", before)[-1], block)
        else:
            run(home, block)
            if not (plugin / "site").exists():
                installed(plugin)


def change(file: Path, block: str) -> None:
    """Put the assignments of a block in the place of those with the same names."""
    for new in ast.parse(block).body:
        text = file.read_text()
        assert isinstance(new, ast.AnnAssign)
        (old,) = [
            node
            for node in ast.parse(text).body
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == ast.unparse(new.target)
        ]
        lines = text.splitlines(keepends=True)
        written = block.splitlines(keepends=True)[new.lineno - 1 : new.end_lineno]
        file.write_text("".join([*lines[: old.lineno - 1], *written, *lines[old.end_lineno :]]))


def run(home: Path, block: str) -> None:
    """A session in one shell; `…` stands for anything within a line, and alone for any lines."""
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    script = "".join(f"{command}\necho '{SEPARATOR}'\n" for command, _ in commands)
    shell = subprocess.run(
        ["sh", "-c", script], cwd=home, env=environment(home), capture_output=True, text=True, timeout=180, check=False
    )
    outputs = shell.stdout.split(f"{SEPARATOR}\n")
    for (command, expected), output in zip(commands, outputs, strict=False):
        pattern = "".join(
            r"(?:.*\n)*" if line == "…\n" else ".*".join(re.escape(part) for part in line.split("…"))
            for line in expected.splitlines(keepends=True)
        )
        assert re.fullmatch(pattern, output), f"$ {command}\nexpected {expected}\ngot      {output}\n{shell.stderr}"


def test_the_table_of_checks_is_that_of_the_kit() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT.partition("## What is checked")[2], re.MULTILINE)
    assert rows == [(name, promise(check)) for name, check in CHECKS.items()]
