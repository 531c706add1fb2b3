"""`usercore vendors`, `vendor-check` and `new-vendor`, as an author of a plugin runs them."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.edge.web import settings as dev_settings
from tests.plugins.plugin import Install, install
from usercore.testing.checks import CHECKS
from usercore.testing.skeleton import sources

__all__ = ["install"]

ROOT = Path(__file__).parents[2]


def installed(folder: Path) -> Path:
    """A folder with metadata as an installer makes them of the plugin's project."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    site = folder / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["usercore.kyc_vendors"]
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[usercore.kyc_vendors]\n" + "".join(lines))
    return site


def usercore(*arguments: str, path: tuple[Path, ...] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "usercore", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", ["acme", "my_bank"])
def test_a_new_vendor_passes_as_it_is(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    made = usercore("new-vendor", name, "--folder", str(folder))
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [str(folder / path) for path in sources(name)]
    path = (folder / "src", installed(folder))
    checked = usercore("vendor-check", name, "--json", path=path)
    reports = json.loads(checked.stdout)
    assert [report["check"] for report in reports] == list(CHECKS)
    assert [report for report in reports if report["verdict"] == "failed"] == []
    assert [report["check"] for report in reports if report["verdict"] == "skipped"] == ["erasing_can_be_repeated"]
    assert checked.returncode == 0
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert f"{len(CHECKS)} passed, 1 skipped" in tests.stdout
    again = usercore("new-vendor", name, "--folder", str(folder))
    assert (again.returncode, again.stdout) == (1, "")
    assert "is there already" in again.stderr


@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
def test_a_new_vendor_can_be_installed(where: str, tmp_path: Path) -> None:
    if where == "checkout":
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        shutil.copytree(ROOT / "plugins", tmp_path / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "plugins" / "kyc_acme"
    assert usercore("new-vendor", "acme", "--folder", str(folder)).returncode == 0
    # As ./justw does; the build tool is here, so that nothing is fetched.
    asked = ["uv", "pip", "install", "--dry-run", "--offline", "--no-config", "--no-deps", "--no-build-isolation"]
    made = subprocess.run(
        [Path(sys.executable).with_name(asked[0]), *asked[1:], "--python", sys.executable, "--editable", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    assert "usercore-kyc-acme" in made.stderr


@pytest.mark.parametrize("name", ["acme", "my_bank"])
def test_a_new_vendor_is_clean(name: str, tmp_path: Path) -> None:
    """Nothing of the sample is left in it, and it is formatted and linted as everything here."""
    for path, text in sources(name).items():
        assert "usercore.testing.acme" not in text
        assert name == "acme" or "acme" not in text.lower()
        if path.endswith(".py"):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            compile(text, path, "exec")
    ruff = [sys.executable, "-m", "ruff"]
    configured = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(tmp_path)]
    for what in (["check"], ["format", "--check"]):
        found = subprocess.run([*ruff, *what, *configured], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", ["", "Acme", "a-b", "1a", "a__b", "a_", "../x", "x" * 31])
def test_names_that_no_vendor_has(name: str, tmp_path: Path) -> None:
    found = usercore("new-vendor", name, "--folder", str(tmp_path / "x"))
    assert found.returncode == 2
    assert "small letters" in found.stderr
    assert not (tmp_path / "x").exists()


def test_a_broken_vendor_fails_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    assert usercore("new-vendor", "acme", "--folder", str(folder)).returncode == 0
    mapping = folder / "src" / "kyc_acme" / "mapping.py"
    text = mapping.read_text()
    assert "STANDINGS.get(told.status, Standing.REVIEW)" in text
    mapping.write_text(
        text.replace("STANDINGS.get(told.status, Standing.REVIEW)", "STANDINGS.get(told.status, Standing.APPROVED)")
    )
    found = usercore("vendor-check", "acme", path=(folder / "src", installed(folder)))
    assert found.returncode == 1
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split()[1] for line in failed] == ["unknown_status_never_approves", "unknown_message_never_approves"]
    assert "what is unknown is REVIEW" in failed[0]
    assert found.stdout.splitlines()[-1].startswith("acme: 41 passed, 2 failed, 1 skipped")


def test_a_vendor_that_is_not_installed() -> None:
    found = usercore("vendor-check", "nobody")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("usercore: You asked for nobody, which is not installed")


def test_vendors(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from click.testing import CliRunner

    from usercore.cli import main

    distribution = install("acme")
    install("broken", source="raise RuntimeError")

    def look(*arguments: str, **more: str) -> Any:
        given = dev_settings(tmp_path, **more)
        monkeypatch.setattr("usercore.commands.vendors.current", lambda: given)
        return CliRunner().invoke(main, ["vendors", *arguments])

    secrets = {"ACME_API_KEY": "hunter2", "ACME_WEBHOOK_SECRETS": "hunter3"}
    found = look("--json", KYC_VENDORS="acme", **secrets)
    assert found.exit_code == 0, found.output
    shown = json.loads(found.stdout)
    rows = {row["name"]: row for row in shown["vendors"]}
    assert "broken" not in rows
    assert rows["acme"]["enabled"]
    assert next(iter(rows)) == "acme"
    assert rows["acme"]["distribution"] == distribution
    assert rows["acme"]["checks"] == ["pan"]
    assert rows["acme"]["webhook_schemes"] == ["hmac", "url_token"]
    assert rows["acme"]["webhook_url"].endswith("/v1/kyc/webhook/acme")
    assert rows["acme"]["settings"]["ACME_API_KEY"] == rows["acme"]["settings"]["ACME_WEBHOOK_SECRETS"] == "***"
    assert not rows["hyperverge"]["enabled"]
    assert rows["hyperverge"]["settings"] == {}

    found = look(KYC_VENDORS="acme", **secrets)
    assert found.exit_code == 0
    assert "  ACME_API_KEY=***" in found.output.splitlines()
    assert "hunter" not in found.output

    found = look(KYC_VENDORS="acme,broken", **secrets)
    assert found.exit_code == 1
    assert "usercore: KYC_VENDORS names broken" in found.output
    assert "hunter" not in found.output
