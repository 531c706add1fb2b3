"""The wrapper that installs itself: what it says when it cannot, and that it costs nothing when it has."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TOO_OLD = "Python 3.11 or newer is needed and {} was found: install it and try again."
PYTHON_3_9 = """#!/bin/sh
if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi
"""
PYTHON_WITHOUT_VENV = """#!/bin/sh
case "$2" in *ensurepip*) exit 1;; esac
"""
JUST = """#!/bin/sh
pwd
printf '<%s>\\n' "$@"
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with nothing but what the wrapper reads."""
    place = tmp_path / "user core"
    place.mkdir()
    for name in ("justw", "pyproject.toml", "justfile"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "requirements", place / "requirements")
    return place


def path_with(folder: Path, **programs: str) -> str:
    """A PATH of its own with the few standard tools that the wrapper uses, and `programs` by name and text."""
    folder.mkdir()
    for name in ("cat", "cksum", "dirname", "rm"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        ({}, "Python 3.11 or newer is needed and none was found: install it and try again."),
        (
            {"python3": PYTHON_3_9},
            "Python 3.11 or newer is needed and Python 3.9.2 was found: install it and try again.",
        ),
        (
            {"python3": PYTHON_WITHOUT_VENV},
            "python3 has no venv module: install it (Debian and Ubuntu: apt install python3-venv) and try again.",
        ),
    ],
    ids=["none", "old", "no venv"],
)
def test_says_in_one_line_what_is_missing(copy: Path, tmp_path: Path, programs: dict[str, str], sentence: str) -> None:
    done = subprocess.run(
        [copy / "justw", "test"],
        env={"PATH": path_with(tmp_path / "bin", **programs)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"justw: {sentence}\n"
    assert not (copy / ".venv").exists()


def install_by_hand(copy: Path) -> None:
    """What a first call leaves: a `just`, here one that shows its arguments, and the stamp."""
    just = copy / ".venv" / "bin" / "just"
    just.parent.mkdir(parents=True)
    just.write_text(JUST)
    just.chmod(0o755)
    files = "justw pyproject.toml plugins/*/pyproject.toml requirements/*.txt"
    stamp = subprocess.run(
        ["/bin/sh", "-c", f'{{ echo "$PWD" && for f in {files}; do cat "$PWD/$f" 2>/dev/null; done; }} | cksum'],
        cwd=copy,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (copy / ".venv" / "justw-stamp").write_text(stamp)


def test_a_second_call_is_quick_passes_arguments_on_and_works_from_anywhere(copy: Path, tmp_path: Path) -> None:
    install_by_hand(copy)
    arguments = ["emit", "topic", '{"a": "it\'s $HOME"}', "", "two  words"]
    begin = time.perf_counter()
    done = subprocess.run([copy / "justw", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
    took = time.perf_counter() - begin
    shown = [f"<{argument}>" for argument in ("--justfile", f"{copy}/justfile", "--working-directory", str(copy))]
    assert done.stdout.splitlines() == [str(tmp_path), *shown, *(f"<{argument}>" for argument in arguments)]
    assert done.stderr == ""
    assert took < 0.3


def test_changed_locks_are_installed_anew(copy: Path, tmp_path: Path) -> None:
    install_by_hand(copy)
    with (copy / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    done = subprocess.run(
        [copy / "justw", "test"],
        env={"PATH": path_with(tmp_path / "bin")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Python 3.11 or newer is needed" in done.stderr


def test_recipes_pass_quotes_on() -> None:
    just = shutil.which("just", path=f"{ROOT / '.venv' / 'bin'}:{os.environ.get('PATH', '')}")
    assert just
    command = [just, "--justfile", str(ROOT / "justfile"), "config", '{"a": "it\'s  $HOME"}']
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert '({"a": "it\'s  $HOME"})' in done.stderr
