"""`user-erase` and `erasure verify`, as an operator and as somebody outside use them."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from tests.erasure.conftest import erase
from tests.keys.people import people
from tests.service import Person
from usercore.cli import main
from usercore.commands.audit_files import ROWS, export
from usercore.signatures import public_keys
from usercore.trail.actions import SealedRow, seal
from usercore.worker import Parts


async def nothing_archived(number: int) -> list[SealedRow]:
    return []


class Files:
    """A certificate with the keys and the trail that it is held against."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.keys, self.trail = folder / "certificate.json", folder / "keys.json", folder / "trail"
        self.trail.mkdir()

    def run(self, *more: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["erasure", "verify", str(self.certificate), "--keys", str(self.keys), *more])
        return done.exit_code, done.output


@pytest.fixture
async def files(parts: Parts, desk: Person, tmp_path: Path) -> Files:
    (user_id,) = await people(parts.db, parts.keyring, 1)
    files = Files(tmp_path)
    files.certificate.write_bytes((await erase(desk, user_id)).body)
    files.keys.write_text(json.dumps(public_keys(parts.keyring)))
    await seal(parts.db, parts.keyring)
    await export(parts.db, parts.keyring, files.trail, nothing_archived, lambda _: None)
    return files


def test_a_true_certificate_is_good_with_and_without_the_trail(files: Files) -> None:
    code, said = files.run()
    assert (code, said.splitlines()[1]) == (0, "not held against the audit trail: name an export with --trail")
    code, said = files.run("--trail", str(files.trail))
    assert (code, said.splitlines()[1]) == (0, "its row is in the trail")
    assert "kept by law: nothing" in said


def test_a_forged_one_is_not(files: Files) -> None:
    true = files.certificate.read_text()
    for forged in (
        true.replace("user_request", "legal_order"),
        true.replace('"version":1', '"version":2', 1),
        "{}",
        "",
    ):
        files.certificate.write_text(forged)
        code, said = files.run()
        assert code == 1
        assert said.startswith("Error: ")


def test_a_trail_that_was_changed_or_that_lacks_it_is_named(files: Files) -> None:
    rows = (files.trail / ROWS).read_text().splitlines(keepends=True)
    (files.trail / ROWS).write_text("".join(rows[:-1]))
    code, said = files.run("--trail", str(files.trail))
    assert (code, said) == (1, "Error: The trail is not as it was sealed: see audit-verify --offline.\n")
    for name in ("rows.jsonl", "segments.jsonl"):
        (files.trail / name).write_text("")
    code, said = files.run("--trail", str(files.trail))
    assert (code, said) == (1, "Error: The trail has no row of this erasure.\n")


async def test_an_operator_sees_the_plan_first(
    parts: Parts, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (user_id,) = await people(parts.db, parts.keyring, 1)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def run(*more: str) -> str:
        done = CliRunner().invoke(main, ["user-erase", str(user_id), "--reason", "user_request", *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    plan = await asyncio.to_thread(run)
    assert "user_profiles.email" in plan
    assert plan.endswith("add --execute to do it; it cannot be undone\n")
    certificate = json.loads(await asyncio.to_thread(run, "--execute"))["certificate"]
    assert UUID(certificate["user_id"]) == user_id
    again = json.loads(await asyncio.to_thread(run, "--execute", "--json"))
    assert again["certificate"]["certificate"] == certificate
