"""A new plugin as files: the sample vendor under another name."""

import re
from importlib.resources import files
from pathlib import Path

SAMPLE = "usercore.testing.acme"
MODULES = ("__init__.py", "settings.py", "client.py", "mapping.py", "sandbox.py", "py.typed")
NAME = re.compile("[a-z][a-z0-9_]{0,29}")
"""Shorter than the host allows, so that lines do not get too long."""
WORKSPACE_SOURCE = """
[tool.uv.sources]
usercore = { workspace = true }
"""
"""What uv wants to read in each member of a workspace, and nobody else understands."""


def write(name: str, folder: Path) -> list[Path]:
    """Write the plugin of a vendor to `folder`, which must not exist; gives the files.

    Raises ValueError with a sentence for a name that no vendor can have, and FileExistsError.
    """
    if not NAME.fullmatch(name) or name.endswith("_") or "__" in name:
        raise ValueError("a vendor's name has small letters, digits and single underscores, and at most 30 of them")
    folder.mkdir(parents=True)
    written: list[Path] = []
    for path, text in sources(name).items():
        if path == "pyproject.toml" and _in_workspace(folder):
            text += WORKSPACE_SOURCE
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        written.append(file)
    return written


def sources(name: str) -> dict[str, str]:
    """Text by path, below the plugin's folder."""
    sample = files(SAMPLE)
    package = sample / "package"
    found = {
        "pyproject.toml": (package / "pyproject.toml").read_text(),
        "README.md": (package / "README.md").read_text(),
        "tests/test_kit.py": (package / "test_kit.py.txt").read_text(),
    }
    found |= {f"src/kyc_{name}/{module}": (sample / module).read_text() for module in MODULES}
    return {path: _imports_first(_renamed(text, name), name) for path, text in found.items()}


def _in_workspace(folder: Path) -> bool:
    projects = [parent / "pyproject.toml" for parent in folder.resolve().parents]
    return any("[tool.uv.workspace]" in project.read_text() for project in projects if project.is_file())


def _renamed(text: str, name: str) -> str:
    words = name.split("_")
    type_name = "".join(word.capitalize() for word in words)
    text = text.replace(SAMPLE, f"kyc_{name}").replace("kyc_acme", f"kyc_{name}")
    # Names of distributions and hosts have no underscores.
    text = re.sub("(usercore-kyc-|api[.])acme", lambda found: found[1] + "-".join(words), text)
    text = re.sub(
        r"Acme(?=Settings|Sandbox)|(?<=class )Acme\b|(?<=import )Acme\b|(?<=Test)Acme\b|(?<=factory=)Acme\b",
        type_name,
        text,
    )
    return (
        text.replace("Acme", " ".join(word.capitalize() for word in words))
        .replace("ACME", name.upper())
        .replace("acme", name)
    )


def _imports_first(text: str, name: str) -> str:
    """The package's own imports before usercore's: sorted, as linters want them."""
    lines = text.splitlines(keepends=True)
    own = [line for line in lines if line.startswith(f"from kyc_{name}")]
    first = next((number for number, line in enumerate(lines) if line.startswith("from usercore.plugins")), None)
    if first is None:
        return text
    rest = [line for line in lines[first:] if line not in own]
    return "".join([*(line for line in lines[:first] if line not in own), *own, *rest])
