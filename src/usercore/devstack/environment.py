"""Where the stack of this checkout lives, and the settings that it left there for us in `.dev/env`.

Imports nothing of the stack: every command looks here first, also where no embedded server is installed.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path


def checkout() -> Path:
    """`USERCORE_HOME`, else the repository that this module stands in, else the current folder, when installed."""
    if home := os.environ.get("USERCORE_HOME"):
        return Path(home)
    repository = Path(__file__).resolve().parents[3]
    return repository if (repository / "justfile").exists() else Path.cwd()


def environment(home: Path) -> dict[str, str]:
    """What `.dev/env` says; empty before the first `up`."""
    try:
        text = (home / "env").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def write_environment(home: Path, values: Mapping[str, str]) -> None:
    """Lines that a shell can read; of mode 0600, for passwords are among them."""
    making = home / "env.making"
    making.unlink(missing_ok=True)
    making.touch(mode=0o600)
    making.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))
    making.rename(home / "env")
