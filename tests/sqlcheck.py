"""Holds typed statements against a migrated database; test_sql.py runs it on ours, test_sql_sabotage.py on bad ones."""

import json
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal, LiteralString, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
import psycopg

from tests import nodetree
from usercore.db import Statement
from usercore.pii.sealed import Sealed

SEALED = "sealed"  # the domain of sealed columns

# What asyncpg makes of a type. `timestamp` is missing on purpose: a time without a zone is a bug.
PYTHON_TYPES: Mapping[str, tuple[Any, ...]] = {
    "uuid": (UUID,),
    "text": (str,),
    "varchar": (str,),
    "citext": (str,),
    "name": (str,),
    "json": (str,),
    "jsonb": (str,),
    "bytea": (bytes,),
    "bool": (bool,),
    "int2": (int,),
    "int4": (int,),
    "int8": (int,),
    "oid": (int,),
    "xid8": (int,),
    "float8": (float,),
    "numeric": (Decimal,),
    "date": (date,),
    "time": (time,),
    "timestamptz": (datetime,),
    "interval": (timedelta,),
}
# asyncpg reads an address out of a str, but gives an object back: select host(address).
PARAMETER_TYPES: Mapping[str, tuple[Any, ...]] = {**PYTHON_TYPES, "inet": (str,)}

# In a list of records that goes as JSON: bytes are base64 there, and PostgreSQL reads the rest as text.
RECORD_TYPES: Mapping[str, tuple[Any, ...]] = {**PARAMETER_TYPES, "text": (str, bytes), "bytea": ()}


@dataclass(frozen=True)
class PgType:
    oid: int
    name: str
    kind: str  # b base, d domain, e enum, p pseudo
    element: int
    labels: tuple[str, ...]


class Checker:
    """`owner` may look into everything; `reader` is the role that runs the statements, so grants are checked too."""

    def __init__(self, owner: psycopg.Connection[Any], reader: psycopg.Connection[Any]) -> None:
        self.owner = owner
        self.reader = reader

    def check(self, statement: Statement, may_scan: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong with the declaration, a sentence each. `may_scan`: table → why it needs no index."""
        return [f"{statement.name}: {problem}" for problem in self._problems(statement, may_scan or {})]

    def _problems(self, statement: Statement, may_scan: Mapping[str, str]) -> Iterator[str]:
        prepared = self._prepare(statement.text)
        if isinstance(prepared, str):
            yield prepared
            return
        parameters, columns = prepared
        yield from self._parameter_problems(statement, parameters)
        query = self._analyse(statement.text, parameters, returns="setof record" if columns else "void")
        yield from self._column_problems(statement, columns, query)
        if query is not None:
            yield from self._record_problems(statement, query)
            yield from self._write_problems(statement, query)
            yield from self._plan_problems(statement.text, may_scan)

    # ------------------------------------------------------------------------------------------------------ database

    def _prepare(self, text: str) -> tuple[list[PgType], list[tuple[str, PgType]]] | str:
        connection = self.owner.pgconn
        prepared = connection.prepare(b"", text.encode())
        if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
            return f"does not prepare: {prepared.error_message.decode().strip().splitlines()[0]}"
        described = connection.describe_prepared(b"")
        return (
            [self._type(described.param_type(n)) for n in range(described.nparams)],
            [((described.fname(n) or b"").decode(), self._type(described.ftype(n))) for n in range(described.nfields)],
        )

    def _analyse(self, text: str, parameters: Sequence[PgType], *, returns: str) -> nodetree.Node | None:
        """The statement as PostgreSQL understood it; None for utility statements, which have no columns or plan."""
        declared = ", ".join(self._spell(parameter.oid) for parameter in parameters)
        body = f"create function pg_temp.checked({declared}) returns {returns} begin atomic\n{text}\n;end"
        try:
            with self.owner.transaction(force_rollback=True):
                self.owner.execute(cast(LiteralString, body))
                found = self.owner.execute("select prosqlbody::text from pg_proc where proname = 'checked'").fetchone()
        except psycopg.errors.FeatureNotSupported:
            return None
        assert found is not None
        return nodetree.parse(found[0])[0][0]

    def _spell(self, oid: int) -> str:
        found = self.owner.execute("select format_type(%s, null)", [oid]).fetchone()
        assert found is not None
        return found[0]

    @cached_property
    def _types(self) -> dict[int, PgType]:
        rows = self.owner.execute(
            "select t.oid, t.typname, t.typtype, t.typelem, t.typcategory = 'A', "
            "array(select enumlabel::text from pg_enum where enumtypid = t.oid order by enumsortorder) from pg_type t"
        )
        return {
            oid: PgType(oid, name, kind, element if is_array else 0, tuple(labels))
            for oid, name, kind, element, is_array, labels in rows
        }

    def _type(self, oid: int) -> PgType:
        return self._types[oid]

    @cached_property
    def _not_null(self) -> set[tuple[int, int]]:
        rows = self.owner.execute("select attrelid, attnum from pg_attribute where attnotnull and attnum > 0")
        return {(relation, number) for relation, number in rows}

    @cached_property
    def _functions(self) -> dict[int, tuple[str, bool]]:
        rows = self.owner.execute("select oid, proname, proisstrict from pg_proc")
        return {oid: (name, strict) for oid, name, strict in rows}

    # ---------------------------------------------------------------------------------------------------- parameters

    def _parameter_problems(self, statement: Statement, parameters: Sequence[PgType]) -> Iterator[str]:
        if len(parameters) != len(statement.parameters):
            yield f"PostgreSQL sees {len(parameters)} parameters, the declaration {len(statement.parameters)}"
            return
        for declared, actual in zip(statement.parameters, parameters, strict=True):
            place = declared.argument if declared.field is None else f"{declared.argument}.{declared.field}"
            annotation, _ = _optional(declared.annotation)
            if declared.records:
                if actual.name != "json":
                    yield f"parameter :{place} holds records, which go as json, not as {actual.name}"
            elif problem := self._mismatch(annotation, actual, PARAMETER_TYPES):
                yield f"parameter :{place} {problem}"

    def _record_problems(self, statement: Statement, query: nodetree.Node) -> Iterator[str]:
        """A list of records comes as JSON, so its fields show where it is read: as json_to_recordset's columns."""
        for number, columns in nodetree.records(query):
            declared = statement.parameters[number - 1]
            fields = _fields(_element(declared.annotation)) if declared.records else None
            if fields is None:
                yield f"reads records out of :{declared.argument}, which are no list of Structs"
                continue
            for name, oid in columns:
                if name not in fields:
                    yield f"reads {name} out of :{declared.argument}, whose records have no such field"
                elif problem := self._mismatch(_optional(fields[name])[0], self._type(oid), RECORD_TYPES):
                    yield f"field {name} of :{declared.argument} {problem}"

    def _mismatch(self, annotation: Any, actual: PgType, known: Mapping[str, tuple[Any, ...]]) -> str | None:
        """Why values of the annotation and of the type are not the same; the annotation without its `| None`."""
        if actual.element:
            if get_origin(annotation) not in _SEQUENCES:
                return f"is an array of {self._type(actual.element).name}, not {_show(annotation)}"
            element, _ = _optional(get_args(annotation)[0])
            return self._mismatch(element, self._type(actual.element), known)
        if actual.kind == "e":
            if get_origin(annotation) is not Literal:
                return f"is the enum {actual.name}, not {_show(annotation)}: declare a Literal of its labels"
            if set(get_args(annotation)) != set(actual.labels):
                different = sorted(set(get_args(annotation)) ^ set(actual.labels))
                return f"is the enum {actual.name}, whose labels differ: {', '.join(different)}"
            return None
        if actual.kind == "d" and actual.name == SEALED:
            return (
                None if annotation is Sealed else f"is sealed, not {_show(annotation)}: only pii.sealed.Sealed may be"
            )
        expected = known.get(actual.name)
        if expected is None:
            return f"has the type {actual.name}, for which no Python type is agreed"
        return None if annotation in expected else f"is {actual.name}, not {_show(annotation)}"

    # ------------------------------------------------------------------------------------------------------- columns

    def _column_problems(
        self, statement: Statement, columns: Sequence[tuple[str, PgType]], query: nodetree.Node | None
    ) -> Iterator[str]:
        if statement.cardinality == "none":
            if any(actual.name != "void" for _, actual in columns):
                yield "returns columns, and the declaration None"
            return
        fields = _fields(statement.row)
        if fields is None:
            fields = {name: statement.row for name, _ in columns}
            if len(columns) != 1:
                yield f"returns {len(columns)} columns, the declaration one value"
                return
        if list(fields) != [name for name, _ in columns]:
            names = ", ".join(name for name, _ in columns)
            yield f"columns are {names}; the fields of {_show(statement.row)} are {', '.join(fields)}"
            return
        entries = nodetree.result(query) if query is not None else []
        proved = nodetree.never_null(query, self._catalog(statement)) if query is not None else []
        scalar_optional = _fields(statement.row) is None and statement.cardinality == "optional"
        for number, ((name, actual), annotation) in enumerate(zip(columns, fields.values(), strict=True)):
            # The protocol shows a domain as its base type; the analysis knows better.
            if entries and (domain := self._domain(entries[number]["expr"])):
                actual = domain
            inner, nullable = _optional(annotation)
            if problem := self._mismatch(inner, actual, PYTHON_TYPES):
                yield f"column {name} {problem}"
            if proved and not scalar_optional and proved[number] == nullable:
                yield (
                    f"column {name} is never null, and declared optional"
                    if nullable
                    else (f"column {name} may be null, and is not declared optional")
                )

    def _domain(self, expr: nodetree.Node) -> PgType | None:
        oid = expr.get("vartype") or expr.get("resulttype") or expr.get("paramtype") or expr.get("funcresulttype")
        found = self._type(int(oid)) if oid is not None else None
        if found is not None and found.element and self._type(found.element).kind == "d":
            return found
        return found if found is not None and found.kind == "d" else None

    def _catalog(self, statement: Statement) -> nodetree.Catalog:
        return nodetree.Catalog(
            not_null=lambda relation, number: (relation, number) in self._not_null,
            function_name=lambda oid: self._functions[oid][0],
            is_strict=lambda oid: self._functions[oid][1],
            parameter_null=lambda n: _optional(statement.parameters[n - 1].annotation)[1],
            source_null=lambda source: _source_null(statement, source),
            argument=lambda n: statement.parameters[n - 1].argument,
        )

    # -------------------------------------------------------------------------------------------------------- writes

    def _write_problems(self, statement: Statement, query: nodetree.Node) -> Iterator[str]:
        """A sealed column takes sealed values only, whatever way they come; a NOT NULL column no optional parameter."""
        sealed = {str(each.oid) for each in self._types.values() if each.kind == "d" and each.name == SEALED}
        for node in nodetree.walk(query):
            if node["node"] == "COERCETODOMAIN" and node["resulttype"] in sealed and node["arg"]["node"] != "CONST":
                yield "makes a sealed value out of plain bytes: cast the parameter to sealed, or sealed[]"
        for written in nodetree.walk(query):
            if written["node"] != "QUERY" or written["commandType"] not in nodetree.WRITES:
                continue
            relation = int(written["rtable"][int(written["resultRelation"]) - 1]["relid"])
            for entry in cast(list[nodetree.Node] | None, written["targetList"]) or []:
                source = nodetree.source_parameter(entry["expr"], written)
                if source is None or (relation, int(entry["resno"])) not in self._not_null:
                    continue
                if _source_null(statement, source):
                    argument = statement.parameters[source.parameter - 1].argument
                    yield f"writes the optional :{argument} into {entry['resname']}, which cannot be null"

    # --------------------------------------------------------------------------------------------------------- plans

    def _plan_problems(self, text: str, may_scan: Mapping[str, str]) -> Iterator[str]:
        with self.reader.transaction(force_rollback=True):
            self.reader.execute("set local enable_seqscan = off")
            try:
                explain = f"explain (generic_plan, verbose, format json)\n{text}"
                rows = self.reader.execute(cast(LiteralString, explain)).fetchone()
            except psycopg.errors.InsufficientPrivilege as error:
                yield f"the role that runs it may not: {error.diag.message_primary}"
                return
        assert rows is not None
        plan = rows[0] if isinstance(rows[0], list) else json.loads(rows[0])
        for table, how in _scans(plan[0]["Plan"], limited=False):
            if table.split(".")[1] not in may_scan and not table.startswith(("pg_catalog.", "information_schema.")):
                if how.index is None:
                    yield f"no index serves it: it reads all of {table}"
                elif not self._is_partial(how.index):
                    yield f"no index serves it: it reads the whole index {how.index} of {table}"

    def _is_partial(self, index: str) -> bool:
        found = self.owner.execute("select indpred is not null from pg_index where indexrelid = %s::regclass", [index])
        row = found.fetchone()
        return row is not None and row[0]


@dataclass(frozen=True)
class _Scan:
    index: str | None


def _scans(plan: dict[str, Any], *, limited: bool, schema: str = "") -> Iterator[tuple[str, _Scan]]:
    """Scans that read a table or an index from end to end; under a LIMIT and without a filter one stops early."""
    kind = plan["Node Type"]
    limited = kind == "Limit" or (limited and kind not in {"Sort", "Aggregate", "Hash", "WindowAgg", "Materialize"})
    schema = plan.get("Schema", schema)
    table = f"{schema}.{plan.get('Relation Name', '')}"
    if kind == "Seq Scan":
        yield table, _Scan(None)
    elif kind.startswith(("Index", "Bitmap Index")) and "Index Cond" not in plan and ("Filter" in plan or not limited):
        yield table, _Scan(plan["Index Name"])
    for child in plan.get("Plans", []):
        yield from _scans(child, limited=limited, schema=schema)


_SEQUENCES = (list, Sequence)


def _fields(row: Any) -> dict[str, Any] | None:
    """Field → annotation of a Struct in the order of its constructor; None for a scalar."""
    if not (isinstance(row, type) and issubclass(row, msgspec.Struct)):
        return None
    hints = get_type_hints(row)
    return {name: hints[name] for name in row.__struct_fields__}


def _optional(annotation: Any) -> tuple[Any, bool]:
    """The annotation without `| None`, and whether it had it."""
    if get_origin(annotation) is Annotated:
        return _optional(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = tuple(each for each in get_args(annotation) if each is not types.NoneType)
        if len(rest) < len(get_args(annotation)):
            return (rest[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007 - made at run time
    return annotation, False


def _element(annotation: Any) -> Any:
    """Of a sequence its elements' annotation, else the annotation itself."""
    inner = _optional(annotation)[0]
    return get_args(inner)[0] if get_origin(inner) in _SEQUENCES else annotation


def _source_null(statement: Statement, source: nodetree.Source) -> bool:
    element = _element(statement.parameters[source.parameter - 1].annotation)
    if source.field is not None:
        element = (_fields(element) or {}).get(source.field, None | object)
    return _optional(element)[1]


def _show(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def missing_stubs(blocks: Mapping[str, Iterable[str]], statements: Iterable[Statement]) -> list[str]:
    """Blocks of the .sql files (file → names) that no stub declares. A stub without a block fails at import."""
    declared = {statement.name for statement in statements}
    return [
        f"sql/{file}.sql: no stub declares the block {name}"
        for file, names in blocks.items()
        for name in names
        if f"{file}.{name}" not in declared
    ]
