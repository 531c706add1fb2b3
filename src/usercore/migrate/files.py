"""The files in migrations/: reading them, their hashes and manifest, and making a new pair."""

import hashlib
import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import yoyo.migrations

from usercore.errors import UsercoreError
from usercore.statements import resource_dir

MANIFEST = "manifest.json"

_NAME = re.compile(r"[0-9]{4}_(?:pre|post)_[a-z][a-z0-9_]*")
_NEW = """\
set local lock_timeout = '5s';
set local statement_timeout = '60s';

"""


class MigrationError(UsercoreError):
    """A migration cannot go on; the message is a sentence for whoever runs it."""


class Migration(msgspec.Struct, frozen=True):
    """One file and its rollback. `source` is yoyo's own object."""

    id: str
    path: Path
    content_hash: str
    transactional: bool
    statements: list[str]
    rollback_statements: list[str]
    source: Any

    @property
    def rollback_path(self) -> Path:
        return self.path.with_suffix(".rollback.sql")


def read(directory: Path | None = None) -> list[Migration]:
    """All migrations in the order in which they run. The ClickHouse ones lie in a folder of their own and stay out."""
    folder = directory or resource_dir("migrations")
    found = [_load(source) for source in cast(list[Any], list(yoyo.migrations.read_migrations(str(folder))))]
    for migration in found:
        if not _NAME.fullmatch(migration.id):
            raise MigrationError(f"{migration.path.name} is not called NNNN_pre_name.sql or NNNN_post_name.sql.")
    numbers = [migration.id[:4] for migration in found]
    for first, second in itertools.pairwise(found):
        if numbers.count(second.id[:4]) > 1:
            raise MigrationError(
                f"{first.path.name} and {second.path.name} have the same number: rename the newer one."
            )
    return found


def _load(source: Any) -> Migration:
    path = Path(source.path)
    if path.suffix != ".sql":
        raise MigrationError(f"{path.name} is not SQL: migrations are .sql files with a .rollback.sql beside each.")
    source.load()
    return Migration(
        id=source.id,
        path=path,
        content_hash=content_hash(path),
        transactional=source.use_transactions,
        statements=yoyo.migrations.read_sql_migration(str(path))[2],
        rollback_statements=yoyo.migrations.read_sql_migration(str(path.with_suffix(".rollback.sql")))[2],
        source=source,
    )


def content_hash(path: Path) -> str:
    """SHA-256 of the file with Unix line ends, whatever a checkout made of them."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


@cache
def expected_head() -> str:
    """Id of the newest migration that this version knows; the files of a running process do not change."""
    known = read()
    return known[-1].id if known else ""


def manifest_of(directory: Path | None = None) -> dict[str, str]:
    """File name → content hash, rollbacks too."""
    folder = directory or resource_dir("migrations")
    return {path.name: content_hash(path) for path in sorted(folder.glob("*.sql"))}


def write_manifest(directory: Path | None = None) -> Path:
    path = (directory or resource_dir("migrations")) / MANIFEST
    path.write_text(json.dumps(manifest_of(directory), indent=2) + "\n", encoding="utf-8")
    return path


def manifest_problems(directory: Path | None = None) -> list[str]:
    """What differs between the files and manifest.json, a sentence each: an edit has to show in a review."""
    path = (directory or resource_dir("migrations")) / MANIFEST
    written: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    present = manifest_of(directory)
    return [
        *(f"{name} is not in {MANIFEST}." for name in present.keys() - written.keys()),
        *(f"{name} is in {MANIFEST} and missing." for name in written.keys() - present.keys()),
        *(f"{name} was edited." for name in present.keys() & written.keys() if present[name] != written[name]),
    ]


def new(name: str, phase: Literal["pre", "post"] = "pre", directory: Path | None = None) -> list[Path]:
    """Make the next migration and its rollback; `pre` runs before the code that needs it is live, `post` after."""
    folder = directory or resource_dir("migrations")
    known = read(folder)
    number = int(known[-1].id[:4]) + 1 if known else 1
    migration_id = f"{number:04}_{phase}_{name}"
    if not _NAME.fullmatch(migration_id):
        raise MigrationError("The name is made of a-z, 0-9 and _, and starts with a letter: add_phone_index.")
    paths = [folder / f"{migration_id}.sql", folder / f"{migration_id}.rollback.sql"]
    for path in paths:
        path.write_text(_NEW, encoding="utf-8")
    write_manifest(folder)
    return paths
