"""Migrations against a real server: applied once, planned without a trace, locked, refused when edited, undone."""

import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.databases import DatabaseUrls
from usercore import migrate
from usercore.db import Db, resource_dir

LIMITS = "set local lock_timeout = '5s';\nset local statement_timeout = '60s';\n"

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two migrations, the first of which makes the table that the second alters."""
    write(tmp_path, "0001_pre_pets", "create table pets (id int primary key, name text);", "drop table pets;")
    write(tmp_path, "0002_pre_age", "alter table pets add age int;", "alter table pets drop age;")
    return tmp_path


def write(folder: Path, name: str, up: str, down: str, limits: str = LIMITS) -> Path:
    (folder / f"{name}.rollback.sql").write_text(limits + down + "\n", encoding="utf-8")
    path = folder / f"{name}.sql"
    path.write_text(limits + up + "\n", encoding="utf-8")
    return path


def quiet(_: str) -> None:
    """Progress that nobody reads."""


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def tables(url: str) -> set[object]:
    return {row[0] for row in ask(url, "select tablename from pg_tables where schemaname = 'public'")}


def test_applies_once_and_says_what_it_does(empty_database: DatabaseUrls, folder: Path):
    said: list[str] = []
    assert migrate.pending(empty_database.owner, folder) == ["0001_pre_pets", "0002_pre_age"]
    assert migrate.apply(empty_database.owner, said.append, folder) == ["0001_pre_pets", "0002_pre_age"]
    assert said[0] == "Applying 0001_pre_pets (3 statements) …"
    assert re.fullmatch(r"Applied 0001_pre_pets in [0-9.]+ s\.", said[1])
    assert migrate.pending(empty_database.owner, folder) == []
    said.clear()
    assert migrate.apply(empty_database.owner, said.append, folder) == []
    assert said == ["Nothing to apply: the database is at 0002_pre_age."]


def test_pending_and_plan_write_nothing(empty_database: DatabaseUrls, folder: Path):
    migrate.pending(empty_database.owner, folder)
    migrate.plan(empty_database.owner, folder)
    assert tables(empty_database.owner) == set()


def test_a_failing_migration_leaves_nothing_and_keeps_those_before(empty_database: DatabaseUrls, folder: Path):
    write(folder, "0003_pre_bad", "create table left_over (id int); select 1 / 0;", "drop table left_over;")
    with pytest.raises(migrate.MigrationError) as caught:
        migrate.apply(empty_database.owner, quiet, folder)
    assert str(caught.value) == "0003_pre_bad failed at statement 4; nothing of it was kept: division by zero."
    assert "left_over" not in tables(empty_database.owner)
    assert migrate.pending(empty_database.owner, folder) == ["0003_pre_bad"]


def test_the_mark_is_part_of_the_migration(empty_database: DatabaseUrls, folder: Path):
    """A runner killed before its commit leaves neither; here the migration itself ends its connection."""
    kill = "create table half (id int); select pg_terminate_backend(pg_backend_pid());"
    write(folder, "0003_pre_killed", kill, "drop table half;")
    with pytest.raises(migrate.MigrationError, match="0003_pre_killed"):
        migrate.apply(empty_database.owner, quiet, folder)
    assert "half" not in tables(empty_database.owner)
    write(folder, "0003_pre_killed", "create table half (id int);", "drop table half;")
    assert migrate.apply(empty_database.owner, quiet, folder) == ["0003_pre_killed"]


def test_refuses_an_edited_migration_by_name(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    write(folder, "0001_pre_pets", "create table pets (id bigint primary key);", "drop table pets;")
    for run in (
        lambda: migrate.apply(empty_database.owner, quiet, folder),
        lambda: migrate.plan(empty_database.owner, folder),
    ):
        with pytest.raises(migrate.MigrationError, match=r"^0001_pre_pets\.sql was edited after it was applied on "):
            run()


def test_line_ends_are_not_an_edit(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    path = folder / "0001_pre_pets.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate.apply(empty_database.owner, quiet, folder) == []


def test_of_two_at_once_one_waits_and_then_finds_it_done(empty_database: DatabaseUrls, folder: Path):
    waiting = threading.Event()
    said: dict[str, list[str]] = {"first": [], "second": []}
    done: dict[str, list[str]] = {}

    def second() -> None:
        def hear(line: str) -> None:
            said["second"].append(line)
            waiting.set()

        done["second"] = migrate.apply(empty_database.owner, hear, folder)

    thread = threading.Thread(target=second)

    def hear_first(line: str) -> None:
        if not said["first"]:
            thread.start()
            assert waiting.wait(10)
        said["first"].append(line)

    done["first"] = migrate.apply(empty_database.owner, hear_first, folder)
    thread.join(10)
    assert done == {"first": ["0001_pre_pets", "0002_pre_age"], "second": []}
    assert said["second"] == [
        "Another migration is running: waiting for it to end …",
        "Nothing to apply: the database is at 0002_pre_age.",
    ]


def test_breaks_the_lock_row_of_a_killed_runner(empty_database: DatabaseUrls, folder: Path):
    first = folder / "first"
    first.mkdir()
    for name in ("0001_pre_pets.sql", "0001_pre_pets.rollback.sql"):
        shutil.copy(folder / name, first)
    migrate.apply(empty_database.owner, quiet, first)
    with psycopg.connect(empty_database.owner, autocommit=True) as conn:
        conn.execute("insert into yoyo_lock (locked, ctime, pid) values (1, now(), 4711)")
    said: list[str] = []
    assert migrate.apply(empty_database.owner, said.append, folder) == ["0002_pre_age"]
    assert said[0] == "Removing the lock that process 4711 left behind."
    assert ask(empty_database.owner, "select count(*) from yoyo_lock") == [(0,)]


def test_takes_over_what_yoyo_itself_applied(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    with psycopg.connect(empty_database.owner, autocommit=True) as conn:
        conn.execute("delete from usercore_migrations")
    said: list[str] = []
    assert migrate.apply(empty_database.owner, said.append, folder) == []
    assert said[0] == "0001_pre_pets was applied by yoyo itself: taking its content as it is now."


def test_a_plan_names_the_locks_on_what_exists(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    write(folder, "0003_pre_toys", "create table toys (pet int references pets (id));", "drop table toys;")
    write(
        folder,
        "0004_pre_name",
        "alter table pets alter name set not null;",
        "alter table pets alter name drop not null;",
    )
    toys, name = migrate.plan(empty_database.owner, folder)
    assert toys.id == "0003_pre_toys"
    assert toys.locks == ["pets: AccessShareLock", "pets: ShareRowExclusiveLock"]
    assert "create table toys (pet int references pets (id));" in toys.statements
    assert name.locks == ["pets: AccessExclusiveLock"]
    assert toys.note is None
    assert name.note is None
    assert "toys" not in tables(empty_database.owner)


def test_a_plan_does_not_wait_for_a_busy_table(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    # The file asks for an hour; a plan asks for a second.
    up = "set local lock_timeout = '1h'; alter table pets add colour text;"
    write(folder, "0003_pre_colour", up, "alter table pets drop colour;", limits="")
    write(folder, "0004_pre_more", "select 1;", "select 1;")
    with psycopg.connect(empty_database.owner) as busy:
        busy.execute("lock table pets in access share mode")
        colour, more = migrate.plan(empty_database.owner, folder)
    assert colour.note == "its locks were not free within a second: other sessions hold them now"
    assert more.note == "not tried: 0003_pre_colour could not be"


def test_a_plan_says_what_would_fail(empty_database: DatabaseUrls, folder: Path):
    write(folder, "0003_pre_bad", "alter table nothing add x int;", "select 1;")
    *_, bad = migrate.plan(empty_database.owner, folder)
    assert bad.note == 'it would fail: relation "nothing" does not exist'


def test_without_a_transaction(empty_database: DatabaseUrls, folder: Path):
    limits = "-- transactional: false\nset lock_timeout = '5s';\nset statement_timeout = '0';\n"
    up = "drop index concurrently if exists pets_name;\ncreate index concurrently pets_name on pets (name);"
    write(folder, "0003_pre_index", up, "drop index concurrently pets_name;", limits)
    *_, index = migrate.plan(empty_database.owner, folder)
    assert index.locks == ["its tables: ShareUpdateExclusiveLock"]
    assert index.note == "runs without a transaction: reads and writes go on"
    assert migrate.apply(empty_database.owner, quiet, folder)[-1] == "0003_pre_index"
    assert ask(empty_database.owner, "select 1 from pg_indexes where indexname = 'pets_name'")
    migrate.rollback(empty_database.owner, 1, execute=True, directory=folder)
    assert not ask(empty_database.owner, "select 1 from pg_indexes where indexname = 'pets_name'")


def test_rollback_shows_first_and_undoes_when_told(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    (shown,) = migrate.rollback(empty_database.owner, 1, execute=False, directory=folder)
    assert shown.id == "0002_pre_age"
    assert shown.statements[-1] == "alter table pets drop age;"
    assert shown.locks == ["pets: AccessExclusiveLock"]
    assert migrate.pending(empty_database.owner, folder) == []
    undone = migrate.rollback(empty_database.owner, 2, execute=True, directory=folder)
    assert [each.id for each in undone] == ["0002_pre_age", "0001_pre_pets"]
    assert "pets" not in tables(empty_database.owner)
    assert migrate.apply(empty_database.owner, quiet, folder) == ["0001_pre_pets", "0002_pre_age"]


def test_rollback_needs_the_file_and_its_twin(empty_database: DatabaseUrls, folder: Path):
    migrate.apply(empty_database.owner, quiet, folder)
    (folder / "0002_pre_age.rollback.sql").unlink()
    with pytest.raises(migrate.MigrationError, match=r"^0002_pre_age\.rollback\.sql is missing or empty"):
        migrate.rollback(empty_database.owner, 1, execute=True, directory=folder)
    (folder / "0002_pre_age.sql").unlink()
    with pytest.raises(migrate.MigrationError, match=r"^0002_pre_age is not among the files of this version"):
        migrate.rollback(empty_database.owner, 1, execute=True, directory=folder)


def test_errors_are_sentences(postgres_url_without_server: str, folder: Path):
    with pytest.raises(
        migrate.MigrationError, match=r"^Cannot connect to Postgres at 127\.0\.0\.1:1 as nobody: "
    ) as caught:
        migrate.apply(postgres_url_without_server, quiet, folder)
    assert "hunter2" not in str(caught.value)
    write(folder, "0002_pre_again", "select 1;", "select 1;")
    with pytest.raises(migrate.MigrationError, match="have the same number"):
        migrate.pending(postgres_url_without_server, folder)
    write(folder, "nonsense", "select 1;", "select 1;")
    with pytest.raises(migrate.MigrationError, match=r"^nonsense\.sql is not called NNNN_pre_name\.sql"):
        migrate.pending(postgres_url_without_server, folder)


@pytest.fixture
def postgres_url_without_server() -> str:
    return "postgresql://nobody:hunter2@127.0.0.1:1/nothing"


def test_new_makes_a_pair_and_its_manifest(tmp_path: Path):
    paths = migrate.new("add_pets", directory=tmp_path)
    assert [path.name for path in paths] == ["0001_pre_add_pets.sql", "0001_pre_add_pets.rollback.sql"]
    assert migrate.manifest_problems(tmp_path) == []
    assert migrate.new("drop_pets", "post", directory=tmp_path)[0].name == "0002_post_drop_pets.sql"
    paths[0].write_text("select 2;", encoding="utf-8")
    assert migrate.manifest_problems(tmp_path) == ["0001_pre_add_pets.sql was edited."]
    paths[0].unlink()
    assert migrate.manifest_problems(tmp_path) == ["0001_pre_add_pets.sql is in manifest.json and missing."]
    with pytest.raises(migrate.MigrationError, match="a-z"):
        migrate.new("Add Pets", directory=tmp_path)


# ------------------------------------------------------------------------------------------------ our own migrations


def test_the_manifest_is_that_of_the_files():
    assert migrate.manifest_problems() == [], "run `usercore migrate --write-manifest` if the edit is meant"


async def test_head_of_files_and_database_agree(database: DatabaseUrls, empty_database: DatabaseUrls):
    for url, head in ((database.app, migrate.expected_head()), (empty_database.app, None)):
        db = await Db.connect(url)
        async with db.read() as conn:
            assert await migrate.applied_head(conn) == head
        await db.close()


def test_every_migration_can_be_undone_and_done_again(database: DatabaseUrls):
    count = len(list(resource_dir("migrations").glob("[0-9]*.rollback.sql")))
    before = schema(database.owner)
    migrate.rollback(database.owner, count, execute=True)
    own = {"usercore_migrations", "yoyo_lock", "_yoyo_log", "_yoyo_migration", "_yoyo_version"}
    assert tables(database.owner) == own
    assert len(migrate.apply(database.owner, quiet)) == count
    assert schema(database.owner) == before


def schema(url: str) -> list[tuple[object, ...]]:
    """Columns, constraints, indexes, triggers and grants, as text."""
    columns = ask(
        url,
        "select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns "
        "where table_schema = 'public' order by 1, 2",
    )
    others = ask(
        url,
        "select conrelid::regclass::text, pg_get_constraintdef(oid) from pg_constraint "
        "where connamespace = 'public'::regnamespace "
        "union all select tablename, indexdef from pg_indexes where schemaname = 'public' "
        "union all select tgrelid::regclass::text, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal "
        "union all select relname, relacl::text from pg_class where relnamespace = 'public'::regnamespace "
        "order by 1, 2",
    )
    return [*columns, *others]
