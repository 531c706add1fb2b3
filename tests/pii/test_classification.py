"""The registry against the migrated database: a column that nobody has classified fails here."""

from typing import cast

import pytest

from usercore.db import Conn
from usercore.pii.classification import FIELDS, REGISTRY

# Kept by the migration tool itself; no row of ours.
_TOOL_TABLES = ("_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")


@pytest.fixture
async def columns(tx: Conn) -> dict[tuple[str, str], str]:
    """Column → type of every table, partitions through their parent."""
    rows = cast(
        list[tuple[str, str, str]],
        await tx.fetch(
            """
        select c.relname, a.attname, t.typname
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> all ($1)
        """,
            _TOOL_TABLES,
        ),
    )
    return {(table, column): kind for table, column, kind in rows}


async def test_every_column_is_classified(columns: dict[tuple[str, str], str]):
    assert sorted(columns.keys() - REGISTRY.keys()) == [], "add these to pii/classification.py"
    assert sorted(REGISTRY.keys() - columns.keys()) == [], "these are not in the database"


async def test_sealed_columns_are_sealed_in_the_database_too(columns: dict[tuple[str, str], str]):
    sealed = {column for column, kind in columns.items() if kind == "sealed"}
    assert sealed == {(field.table, field.column) for field in FIELDS if field.storage == "sealed"}
    assert all(column.endswith("_enc") == ((table, column) in sealed) for table, column in columns)


def test_the_registry_is_consistent():
    for column, found in REGISTRY.items():
        assert found.personal or (found.retention, found.storage, found.mask, found.indexed) == (
            None,
            "clear",
            None,
            False,
        ), column
        assert not found.personal or found.retention is not None or column[0] == "user_audit", column
    for field in FIELDS:
        assert REGISTRY[field.table, field.column].retention == field.retention
    assert len({(field.table, field.column) for field in FIELDS}) == len(FIELDS)
    assert len({field.column for field in FIELDS if field.indexed}) == 2
