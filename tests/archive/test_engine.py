"""The same statements on ClickHouse's current engine: Debian's server, which the other tests have, is of 2018."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from usercore.archive import store
from usercore.clickhouse import migrations
from usercore.statements import read_blocks, resource_dir

ROW = (
    "1, 2, toUUID('00000000-0000-4000-8000-00000000000{n}'), toUUID('00000000-0000-4000-8000-000000000001'), null, "
    "'user', null, 'profile.read', 'user_profiles', null, '{{}}', null, 170000000000000{n}, null, null, null, null, "
    "unhex('{digest}')"
)
VALUES = {
    "user_id": "'00000000-0000-4000-8000-000000000001'",
    "since_us": "0",
    "until_us": "1800000000000000",
    "before_us": "1700000000000003",
    "before_id": "'ffffffff-ffff-4fff-bfff-ffffffffffff'",
    "actions": "('profile.read', 'user.created')",
    "actor_kinds": "('user')",
    "most": "2",
    "first": "1",
    "last": "9",
}
# In a process of its own: the engine starts threads, and takes hold of signals.
RUN = """
import json, sys
from chdb import session
engine = session.Session(sys.argv[1])
answers = []
for statement in json.load(sys.stdin):
    try:
        answers.append(str(engine.query(statement, "JSONCompactEachRow")))
    except Exception as error:
        answers.append(f"error: {error}")
json.dump(answers, sys.stdout)
"""


def on_current_engine(folder: Path, statements: list[str]) -> list[str]:
    """What each statement answers, rows as JSON lines, or its error."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)],
        input=msgspec.json.encode(statements),
        capture_output=True,
        check=True,
        timeout=120,
    )
    return msgspec.json.decode(done.stdout, type=list[str])


def filled(text: str) -> str:
    return re.sub(r"%\(([a-z_]+)\)s", lambda match: VALUES[match[1]], text)


def test_every_statement_runs_on_the_current_engine(tmp_path: Path) -> None:
    insert = read_blocks(resource_dir("sql") / "clickhouse" / "archive.sql")["add_rows"][1]
    rows = [f"({ROW.format(n=n, digest='ab' * 32)})" for n in (1, 2, 3)]
    reading = {name: filled(text) for name, text in store.sql.texts.items()}
    statements = ["select version()", *migrations(None), *migrations(None), f"{insert} {', '.join(rows)}"]
    statements += [f"{insert} {rows[2]}", *reading.values()]
    statements.append(f"explain indexes = 1 {reading['list_trail']}")
    statements.append("select distinct toString(at) from user_audit")
    answers = on_current_engine(tmp_path, statements)
    assert [answer for answer in answers if answer.startswith("error")] == []
    assert int(msgspec.json.decode(answers[0])[0].split(".")[0]) >= 26
    found = dict(zip(reading, answers[-2 - len(reading) : -2], strict=True))
    plan = answers[-2]
    assert "PrimaryKey" in plan
    assert "user_id in [" in plan, plan
    page = [msgspec.json.decode(line) for line in found["list_trail"].splitlines()]
    # Before the position, each event once, newest first.
    assert [row[0][-1] for row in page] == ["3", "2"]
    assert len(found["list_segment"].splitlines()) in (3, 4), "what was sent twice may be merged already"
    assert int(msgspec.json.decode(found["get_extent"])[1]) == 1
    assert answers[-1].strip() == '["2023-11-14 22:13:20"]'


@pytest.mark.parametrize("statement", migrations("trading"), ids=["local", "distributed"])
def test_the_cluster_form_is_read_by_the_current_engine(tmp_path: Path, statement: str) -> None:
    """As far as an engine without a cluster can tell: it is parsed whole, and refused for the cluster alone."""
    parsed, run = on_current_engine(tmp_path, [f"explain ast {statement}", statement])
    assert not parsed.startswith("error"), parsed
    assert "CLUSTER_DOESNT_EXIST" in run or "user_audit_local does not exist" in run


def test_both_forms_have_the_same_columns() -> None:
    single, local, distributed = migrations(None)[0], *migrations("trading")
    columns = re.compile(r"\((.*?)\n\) engine", re.DOTALL)
    found = [columns.search(text) for text in (single, local)]
    assert found[0]
    assert found[1]
    assert found[0][1] == found[1][1]
    assert "cityHash64" in distributed
