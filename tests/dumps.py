"""What a verb leaves in the database: every row of every table before and after, and the difference in normal form."""

import re
from collections.abc import Mapping
from typing import Any, Literal, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore.db import Conn

# Written by no verb: bookkeeping of migrations.
LEFT_OUT = ("yoyo_lock", "yoyo_tmp", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "usercore_migrations")

# Say when somebody takes a row up again, and how often somebody did.
TURNS = frozenset({"looks", "tries", "calls", "leased_until", "next_look_at", "next_try_at", "called_at"})
# Say who did it: what a person began the sweeper may end.
WHO = frozenset({"actor_id", "actor_kind", "ip_addr", "ip_mac", "request_id", "trace_id"})
# Of a call that was made twice there are two records.
RECORDED_TWICE = frozenset({"+user_audit", "+pii_disclosures"})

# Follow from how many rows came before or from the user's id: not part of what a row says.
COUNTERS = {
    ("user_audit", "xid"),
    ("outbox", "id"),
    ("outbox", "shard"),
    ("audit_archive", "shipped_to"),
    ("audit_segments", "number"),
    ("audit_segments", "from_xid"),
    ("audit_segments", "to_xid"),
}

_LIST_TABLES = """
select array_agg(
    format('select %L as name, to_jsonb(t)::text as content from public.%I t', c.relname, c.relname) order by c.relname
)
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and c.relname <> all($1::text[])
"""
_LIST_PARTITIONS = """
select 'pg_inherits', jsonb_build_object('parent', inhparent::regclass::text, 'child', inhrelid::regclass::text)::text
from pg_inherits where inhparent::regclass::text = 'user_audit'
"""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9.]+(Z|\+00:00)")

Dump = frozenset[tuple[str, str]]
"""Every row as (table, JSON as PostgreSQL writes it)."""


class Row(Struct, frozen=True):
    sign: Literal["-", "+"]
    table: str
    columns: dict[str, Any]


class Dumper:
    """Reads all tables through the owner's connection, in one statement and so at one moment."""

    def __init__(self, owner: Conn) -> None:
        self._owner = owner
        self._statement = ""

    async def dump(self) -> Dump:
        if not self._statement:
            tables = cast("list[str]", await self._owner.fetchval(_LIST_TABLES, LEFT_OUT))
            self._statement = "\nunion all ".join([*tables, _LIST_PARTITIONS])
        rows = await self._owner.fetch(self._statement)
        found = frozenset((row[0], row[1]) for row in rows)
        assert len(found) == len(rows), "every table has a key"
        return found


def difference(before: Dump, after: Dump) -> list[Row]:
    """The rows that are gone and the rows that are new; nothing at all when the two are the same to the byte."""
    gone = [Row("-", table, msgspec.json.decode(text)) for table, text in before - after]
    return gone + [Row("+", table, msgspec.json.decode(text)) for table, text in after - before]


def normal(rows: list[Row], names: Mapping[UUID, str], answer: object = None) -> list[str]:
    """The rows and an answer as text that is the same whenever the same was done to another user.

    Known ids get their names and the others numbers, so that a row which names another row still does; times and
    ciphertexts keep only that they are there, ciphertexts also how long they are.
    """
    known = {str(value): f"<{name}>" for value, name in names.items()}
    entries = [(row.sign + row.table, _without_counters(row)) for row in rows]
    if answer is not None:
        entries.append(("answer", msgspec.json.decode(msgspec.json.encode(answer))))
    # Numbered in the order of what does not depend on the numbers.
    entries.sort(key=lambda entry: (entry[0], _text(_masked(entry[1], known, None))))
    numbers: dict[str, str] = {}
    return [f"{name} {_text(_masked(content, known, numbers))}" for name, content in entries]


def essence(rows: list[Row], names: Mapping[UUID, str]) -> list[str]:
    """As `normal`, without whose turn it is and who did it, without which rows name each other, each record once."""
    known = {str(value): f"<{name}>" for value, name in names.items()}
    kept: list[str] = []
    for row in rows:
        columns = {name: value for name, value in _without_counters(row).items() if name not in TURNS | WHO}
        kept.append(f"{row.sign}{row.table} {_text(_masked(columns, known, None))}")
    gone = [f"+{text[1:]}" for text in kept if text[0] == "-"]
    for text in gone:  # a row of which only the turn has changed has not changed
        if text in kept:
            kept.remove(text)
            kept.remove(f"-{text[1:]}")
    once = {text for text in kept if text.partition(" ")[0] in RECORDED_TWICE}
    return sorted([*once, *(text for text in kept if text not in once)])


def _without_counters(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.columns.items() if (row.table, name) not in COUNTERS}


def _masked(value: Any, known: Mapping[str, str], numbers: dict[str, str] | None, column: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _masked(part, known, numbers, name) for name, part in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_masked(part, known, numbers, column) for part in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value
    if value.startswith("{"):
        return _masked(msgspec.json.decode(value), known, numbers, column)
    if column == "next_cursor":
        return "<cursor>"
    if column == "sealed" or value.startswith("\\x"):
        # A blind index is the same for the same value; everything else in bytes is random or hashes what is.
        return value if column.endswith("_index") else f"<{len(value)} characters>"
    if _TIME.fullmatch(value):
        return "<time>"

    def name(match: re.Match[str]) -> str:
        found = known.get(match[0])
        if found is None:
            found = "<id>" if numbers is None else numbers.setdefault(match[0], f"<id {len(numbers) + 1}>")
        return found

    return _UUID.sub(name, value)


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
