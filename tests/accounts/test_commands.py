"""`usercore user-freeze`, `user-unfreeze` and `user-close`, as an operator runs them."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.accounts.test_holds import a_user, does, party
from tests.service import Client
from usercore.checkpoints import Publisher
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.events import CHECKPOINTS
from usercore.trail.actions import seal
from usercore.worker import Parts


async def run(environ: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "usercore",
        *arguments,
        env={**environ, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def done(environ: Mapping[str, str], *arguments: str) -> Any:
    code, out, errors = await run(environ, *arguments, "--json")
    assert code == 0, errors
    return json.loads(out)


async def test_a_plan_and_then_the_deed(client: Client, environ: dict[str, str], owner: Conn) -> None:
    asha = await a_user(client)
    await does(party(client, "risk-engine"), asha, "freeze", reason="risk_review")
    user = str(asha.id)
    plan = await done(environ, "user-freeze", user, "--reason", "court_order")
    assert (plan["executed"], plan["before"], plan["after"]) == (False, plan["before"], plan["before"])
    assert plan["before"]["holds"] == [{"source": "risk", "effect": "freeze", "reason": "risk_review"}]
    _, said, _ = await run(environ, "user-freeze", user, "--reason", "court_order")
    assert said.splitlines()[-1] == "would freeze for admin, court_order: add --execute to do it"
    assert await owner.fetchval("select count(*) from account_holds") == 1

    after = (await done(environ, "user-freeze", user, "--reason", "court_order", "--execute"))["after"]
    assert [hold["source"] for hold in after["holds"]] == ["risk", "admin"]
    after = await done(environ, "user-unfreeze", user, "--reason", "cleared", "--source", "risk", "--execute")
    assert after["after"]["status"] == "frozen"
    after = await done(environ, "user-close", user, "--reason", "other", "--note", "asked by letter", "--execute")
    assert after["after"]["status"] == "closed"
    clients = await owner.fetch("select distinct client from user_audit where actor_kind = 'admin'")
    assert [row["client"] for row in clients] == ["usercore-cli"]


async def test_what_is_wrong_is_said(client: Client, environ: dict[str, str]) -> None:
    asha = await a_user(client)
    for arguments, words in (
        (("user-freeze", str(uuid4()), "--reason", "court_order"), "User not found"),
        (("user-freeze", "asha", "--reason", "court_order"), "not a valid UUID"),
        (("user-close", str(asha.id), "--reason", "whim"), "'whim' is not one of"),
        (("user-close", str(asha.id), "--reason", "other", "--execute"), "needs a note"),
    ):
        code, _, errors = await run(environ, *arguments)
        assert code != 0
        assert words in errors, errors
    await done(environ, "user-close", str(asha.id), "--reason", "fraud", "--execute")
    code, _, errors = await run(environ, "user-freeze", str(asha.id), "--reason", "court_order", "--execute")
    assert code != 0
    assert "Invalid transition" in errors


async def test_checkpoints_lie_on_kafka(
    mock_kafka: Kafka, parts: Parts, client: Client, environ: dict[str, str], owner: Conn, tmp_path: Path
) -> None:
    publisher = Publisher(parts.db, parts.settings)
    await publisher.once()
    await a_user(client)
    assert await seal(parts.db, parts.keyring)
    await publisher.once()
    await publisher.once()
    code, lines, errors = await run(environ, "tail", CHECKPOINTS, "--seconds", "0")
    assert (code, len(lines.splitlines())) == (0, 1), errors
    file = tmp_path / "checkpoints"
    file.write_text(lines)
    code, said, _ = await run(environ, "audit-verify", "--against", str(file))
    assert (code, said.splitlines()[-1]) == (0, "all is as it was sealed; held against 1 checkpoints")
    # Somebody with the owner's role cuts the tail off, and nothing of it is left.
    for table in ("user_audit", "audit_segments"):
        await owner.execute(f"alter table {table} disable trigger all")
        await owner.execute(f"delete from {table}")
    assert (await run(environ, "audit-verify"))[0] == 0
    code, said, _ = await run(environ, "audit-verify", "--against", str(file))
    assert code == 1
    assert "the trail ends before this segment" in said


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("rows.jsonl", b'"action":"user.created"', b'"action":"user.erased"', "was changed"),
        ("segments.jsonl", b'"number":1', b'"number":3', "does not follow"),
        ("rows.jsonl", b"\n", b"", "no export"),
        ("public-keys.json", b'"1":"', b'"2":"', "not signed with our key"),
    ],
)
async def test_an_export_is_verified_without_a_server(
    parts: Parts, client: Client, environ: dict[str, str], tmp_path: Path, file: str, old: bytes, new: bytes, said: str
) -> None:
    for _ in range(2):
        await a_user(client)
        assert await seal(parts.db, parts.keyring)
    folder = tmp_path / "trail"
    code, out, errors = await run(environ, "audit-export", str(folder))
    assert (code, out) == (0, f"{await count(parts)} rows in {folder}\n"), errors
    nothing: dict[str, str] = {}
    code, out, errors = await run(nothing, "audit-verify", "--offline", str(folder))
    assert code == 0, errors
    key = json.loads((folder / "public-keys.json").read_text())["1"]
    assert key in errors
    code, _, errors = await run(nothing, "audit-verify", "--offline", str(folder), "--public-key", f"1={key}")
    assert (code, key in errors) == (0, False)
    other = f"1={key[::-1]}"
    code, out, _ = await run(nothing, "audit-verify", "--offline", str(folder), "--public-key", other)
    assert (code, "not signed with our key" in out) == (1, True)
    content = (folder / file).read_bytes()
    assert old in content
    (folder / file).write_bytes(content.replace(old, new, 1))
    code, out, errors = await run(nothing, "audit-verify", "--offline", str(folder))
    assert code == 1
    assert said in out + errors


async def count(parts: Parts) -> int:
    async with parts.db.read() as conn:
        return int(await conn.fetchval("select count(*) from user_audit") or 0)


async def test_the_trail_is_verified(
    parts: Parts, client: Client, environ: dict[str, str], owner: Conn, tmp_path: Path
) -> None:
    await a_user(client)
    while await seal(parts.db, parts.keyring):
        pass
    file = str(tmp_path / "checkpoints")
    code, said, errors = await run(environ, "audit-verify", "--keep", file)
    assert code == 0, errors
    assert said.splitlines()[-1].endswith("no checkpoint: a tail that was cut off would not show")
    code, said, _ = await run(environ, "audit-verify", "--against", file)
    assert (code, said.splitlines()[-1]) == (0, "all is as it was sealed; held against 1 checkpoints")
    event = str(await owner.fetchval("select event_id from user_audit order by xid, event_id limit 1"))
    proof = json.loads((await run(environ, "audit-prove", event))[1])
    assert (proof["event_id"], proof["number"]) == (event, 1)
    assert (await run(environ, "audit-prove", event, "--check"))[1].startswith(f"{event} is row 1 of ")
    code, _, errors = await run(environ, "audit-prove", str(uuid4()))
    assert (code, "Error: Not found" in errors) == (1, True), errors

    await owner.execute("alter table user_audit disable trigger all")
    await owner.execute("update user_audit set resource = 'nothing' where event_id = $1", UUID(event))
    code, said, _ = await run(environ, "audit-verify")
    assert (code, said.splitlines()[-1]) == (1, f"segment 1: the row {event} was changed")
    code, said, _ = await run(environ, "audit-verify", "--json")
    assert json.loads(said)["finding"] == {"kind": "changed", "segment": 1, "event_id": event}
