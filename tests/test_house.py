"""The house rules that a program can check; what each is for stands in its docstring."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, cast

import pytest
import tomlkit
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from usercore.telemetry import Metrics

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "usercore"
MODULES = sorted(SOURCE.rglob("*.py"))
TEST_MODULES = sorted((ROOT / "tests").rglob("*.py"))
SQL_FILES = sorted((ROOT / "sql").glob("*.sql"))
MIGRATIONS = sorted(file for file in (ROOT / "migrations").glob("*.sql") if ".rollback." not in file.name)
DOMAINS = sorted(path.parent for path in SOURCE.glob("*/actions.py"))

LONGEST_MODULE = 320
LONG_ON_PURPOSE = {
    "errors.py": "the one tree of exceptions, all of it declarations",
    "settings.py": "the one Struct of settings and how each is read",
}
EVERYWHERE_FORBIDDEN = {"models", "schemas", "services", "repositories", "utils", "helpers", "common"}
# `read_` is `get_` with its audit row written by the same statement.
QUERY_VERBS = ("get", "lock", "list", "count", "has", "add", "save", "set", "take", "accept", "read")
STATEMENT = re.compile(
    r"\s*(--.*\n\s*)*(select|insert into|update|delete from|with \w+ as|create|alter|drop|truncate|grant|revoke)\s+\S+",
    re.I,
)
# The devstack makes roles and databases of servers that are its own; no table of the service is touched there.
ADMINISTRATION = {"devstack/postgres.py"}


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """String constants that are not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id == name)
            or (isinstance(node.func, ast.Attribute) and node.func.attr == name)
        ):
            yield node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# Modules --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.name)
def test_a_domain_has_three_file_names_and_at_most_one_more(domain: Path) -> None:
    found = {file.stem for file in domain.glob("*.py")} - {"__init__"}
    assert found >= {"actions", "queries"}
    assert len(found - {"api", "actions", "queries"}) <= 1, "split the domain instead"


@pytest.mark.parametrize("file", MODULES + TEST_MODULES, ids=relative)
def test_module(file: Path) -> None:
    """A noun that says something, one line that says what lives there, and no more than fits in the head."""
    assert file.stem not in EVERYWHERE_FORBIDDEN
    text = file.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring or not text.strip(), "starts with a line that says what lives there"
    if str(file.relative_to(SOURCE if file in MODULES else ROOT)) not in LONG_ON_PURPOSE and file in MODULES:
        assert text.count("\n") <= LONGEST_MODULE, "split it by noun"


@pytest.mark.parametrize("file", MODULES + TEST_MODULES, ids=relative)
def test_nothing_is_left_for_later_or_silenced_wholesale(file: Path) -> None:
    text = file.read_text()
    if file != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME)\b|# ?XXX|NotImplementedError", text)
        assert not re.search(r"# (type: ignore|noqa|pyright: ignore)(?![\[:])", text), "say which rule, and why"


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_no_sql_in_python_strings(file: Path) -> None:
    if str(file.relative_to(SOURCE)) in ADMINISTRATION:
        return
    found = [node.lineno for node in strings(ast.parse(file.read_text())) if STATEMENT.match(cast(str, node.value))]
    # One word and a noun can be prose ("select the …"): only a string with a second SQL word is a statement.
    lines = file.read_text().splitlines()
    assert [line for line in found if re.search(r"\b(from|into|set|table|values|\()", lines[line - 1], re.I)] == []


@pytest.mark.parametrize("file", MODULES, ids=relative)
def test_print_is_for_commands(file: Path) -> None:
    commands = (SOURCE / "devstack", SOURCE / "commands")
    assert any(file.is_relative_to(folder) for folder in commands) or not list(
        calls(ast.parse(file.read_text()), "print")
    )


@pytest.mark.parametrize("file", [file for file in TEST_MODULES if file.stem.startswith("test_")], ids=relative)
def test_tests_do_not_sleep(file: Path) -> None:
    """`asyncio.sleep(0)` gives way and is fine; waiting for time is slow when it works, wrong when not."""
    for call in calls(ast.parse(file.read_text()), "sleep"):
        assert isinstance(call.args[0], ast.Constant), f"line {call.lineno}"
        assert call.args[0].value == 0, f"line {call.lineno}"


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.name)
def test_domains_reach_each_other_through_actions(domain: Path) -> None:
    others = {f"usercore.{other.name}" for other in DOMAINS if other != domain}
    for file in domain.glob("*.py"):
        for name in imported(ast.parse(file.read_text())):
            package, _, rest = name.removeprefix("usercore.").partition(".")
            if f"usercore.{package}" in others:
                assert rest.startswith("actions"), f"{file}: {name}"


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.name)
def test_transactions_begin_in_actions_only(domain: Path) -> None:
    for file in domain.glob("*.py"):
        if file.stem != "actions":
            assert not list(calls(ast.parse(file.read_text()), "begin")), file


@pytest.mark.parametrize("file", sorted(SOURCE.glob("*/queries.py")), ids=relative)
def test_verbs_of_queries_are_promises(file: Path) -> None:
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert node.name.split("_")[0] in QUERY_VERBS, node.name


# SQL and migrations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SQL_FILES, ids=relative)
def test_no_star_over_a_table(file: Path) -> None:
    """What the statement names itself, of `unnest` or a CTE, may be passed on with a star; a table may not."""
    tables = set(re.findall(r"create table (?:if not exists )?(\w+)", " ".join(f.read_text() for f in MIGRATIONS)))
    text = re.sub(r"--.*", "", file.read_text())
    for statement in text.split(";"):
        aliases = dict(
            (alias or table, table)
            for table, alias in re.findall(r"\b(?:from|join)\s+(\w+)(?:\s+(?!on\b)(\w+))?", statement)
        )
        for star in re.findall(r"\b(\w+)\.\*", statement):
            assert aliases.get(star, star) not in tables, star
        for source in re.findall(r"select\s+\*\s+from\s+(\w+)", statement):
            assert source not in tables, source


def test_migrations_are_numbered_without_gaps_and_say_when_they_run() -> None:
    found = [re.fullmatch(r"([0-9]{4})[._](pre|post)_[a-z0-9_]+\.sql", file.name) for file in MIGRATIONS]
    assert all(found)
    assert [int(match[1]) for match in found if match] == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("file", MIGRATIONS, ids=lambda file: file.name)
def test_migration_has_its_rollback_and_sets_timeouts_first(file: Path) -> None:
    rollback = file.with_name(file.name.replace(".sql", ".rollback.sql"))
    assert rollback.exists()
    for script in (file, rollback):
        text = re.sub(r"--.*", "", script.read_text())
        first = [statement.strip().lower() for statement in text.split(";")[:2]]
        for name in ("lock_timeout", "statement_timeout"):
            assert any(re.match(rf"set (local )?{name}\b", statement) for statement in first), f"{script.name}: {name}"


# Locks ----------------------------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, tuple[str, Marker | None]]:
    """Version and marker by package of a lock file, which has a hash for each and no address."""
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
    blocks = re.sub(r" *\\\n *", " ", text).strip().splitlines()
    found: dict[str, tuple[str, Marker | None]] = {}
    for block in blocks:
        requirement, *hashes = block.split(" --hash=")
        assert hashes, f"{requirement} has no hash"
        parsed = Requirement(requirement)
        version = next(iter(parsed.specifier)).version
        found[canonicalize_name(parsed.name)] = (version, parsed.marker)
    return found


def wanted(*, development: bool) -> list[Requirement]:
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()
    lines: list[str] = list(project["project"]["dependencies"])
    if development:
        lines += project["project"]["optional-dependencies"]["dev"]
        lines += project["dependency-groups"]["test"]
        lines += project["build-system"]["requires"]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("lock", "development"), [("runtime.txt", False), ("dev.txt", True)])
def test_lock_is_what_pyproject_asks_for(lock: str, development: bool) -> None:
    """Everything asked for is pinned as asked, and nothing is pinned that nobody asks for: else run `./justw lock`."""
    pinned = pins(lock)
    asked = wanted(development=development)
    for requirement in asked:
        version, _ = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
    roots = [*asked, Requirement("editables")] if development else asked
    needed = closure(roots)
    assert needed <= pinned.keys()
    assert {name for name, (_, marker) in pinned.items() if marker is None} <= needed


def test_locks_agree() -> None:
    development = pins("dev.txt")
    for name, (version, _) in pins("runtime.txt").items():
        assert development[name][0] == version


def closure(roots: list[Requirement]) -> set[str]:
    """Names of all that `roots` need here, by what is installed."""
    found: dict[str, set[str]] = {}
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.extras <= found.get(name, set()) and name in found:
            continue
        extras = found.setdefault(name, set())
        extras |= requirement.extras
        for line in distribution(name).requires or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append(child)
    return set(found)


# Recipes, decisions, alerts -------------------------------------------------------------------------------------------

CONTRACT_RECIPES = {
    "dev",
    "up",
    "down",
    "demo",
    "test",
    "check",
    "bench",
    "token",
    "emit",
    "tail",
    "migrate",
    "migrate-plan",
    "rollback",
    "migration-new",
    "outbox-status",
    "dlq-list",
    "dlq-replay",
    "doctor",
    "config",
    "lock",
    "vendors",
    "vendor-check",
    "new-vendor",
    "webhook-replay",
    "kyc-reconcile",
    "audit-verify",
    "audit-prove",
    "audit-reconcile",
    "user-erase",
    "user-export",
    "keys-list",
    "keys-rotate",
    "keys-rewrap",
    "keys-retire",
}


def test_recipes_are_thin_and_documented() -> None:
    just = shutil.which("just", path=str(ROOT / ".venv" / "bin")) or shutil.which("just")
    assert just, "just is in requirements/bootstrap.txt"
    command = [just, "--justfile", str(ROOT / "justfile"), "--dump", "--dump-format", "json"]
    recipes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["recipes"]
    assert recipes.keys() >= CONTRACT_RECIPES
    for name, recipe in recipes.items():
        assert len(recipe["body"]) <= 3, name
        assert recipe["doc"], name
        assert name.startswith("_") or any("group" in attribute for attribute in recipe["attributes"]), name


def test_contributing_fits_on_a_screen() -> None:
    assert (ROOT / "CONTRIBUTING.md").read_text().count("\n") <= 50


def test_decisions_are_numbered_without_gaps_and_have_their_three_parts() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    found = [re.fullmatch(r"([0-9]{4})-[a-z0-9-]+\.md", file.name) for file in files]
    assert [int(match[1]) if match else None for match in found] == list(range(1, len(files) + 1))
    for file in files:
        text = file.read_text().lower()
        for part in ("context", "decision", "consequence"):
            assert re.search(rf"^(#+ |\*\*){part}", text, re.M), f"{file.name}: {part}"


ALERTS = [
    rule for group in yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_is_about_metrics_that_we_have(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "action"}
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): set[str]()
        for family in Metrics().registry.collect()
    }
    used = set(re.findall(r"\b(?:usercore|user)_[a-z_]+", rule["expr"]))
    assert used
    assert used <= exported.keys()
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_alerts_that_design_asks_for_exist() -> None:
    text = " ".join(rule["expr"] for rule in ALERTS)
    for metric in (
        "usercore_pii_open_failures_total",
        "usercore_audit_writes_total",
        "usercore_audit_partition_horizon_days",
        "usercore_outbox_oldest_seconds",
        "usercore_consumer_lag",
        "usercore_dead_letters_total",
    ):
        assert metric in text
    assert "usercore_audit_partition_horizon_days) < 14" in text
