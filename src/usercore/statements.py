"""Typed SQL: the signature is Python, the body is a block of sql/<name>.sql (see `Sql`)."""

import inspect
import re
import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from usercore.errors import NoRow

Conn: TypeAlias = asyncpg.Connection | PoolConnectionProxy
P = ParamSpec("P")
R = TypeVar("R")

Cardinality = Literal["none", "one", "optional", "many"]

_BLOCK = re.compile(r"^-- name: *([a-z_][a-z0-9_]*) *$", re.MULTILINE)
PLACEHOLDER = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*'                            # escape string
    | '(?:[^']|'')*' | "(?:[^"]|"")*"                     # string, quoted name
    | --[^\n]* | /\*.*?\*/                                # comments
    | \$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?(tag)(?P=tag))\$   # dollar quote
    | ::|:=                                               # cast, named argument
    | (?P<numbered>\$[0-9]+)
    | :(?P<argument>[a-z_][a-z0-9_]*)(?:\.(?P<field>[a-z_][a-z0-9_]*))?
    """,
    re.VERBOSE | re.DOTALL,
)


class Parameter(msgspec.Struct, frozen=True):
    """What $n is: an argument, a field of a Struct argument, or (`many`) the list of that field of all its rows.

    A list of Structs without a field (`records`) goes as one JSON text: asyncpg takes half a microsecond for each
    element of an array, and PostgreSQL reads JSON with time to spare.
    """

    argument: str
    field: str | None
    many: bool
    annotation: Any
    records: bool = False


class Statement(msgspec.Struct, frozen=True):
    """One block of a .sql file married to its stub; the tests hold it against the database."""

    name: str  # users.lock_profile
    module: str
    description: str
    text: str
    parameters: tuple[Parameter, ...]
    cardinality: Cardinality
    row: Any  # the annotation of one row: a Struct or a scalar, None when nothing is returned


_statements: dict[tuple[str, str], Statement] = {}


def all_statements() -> list[Statement]:
    """Every statement declared by the modules imported so far."""
    return list(_statements.values())


def resource_dir(name: Literal["sql", "migrations"]) -> Path:
    """Inside the package when it was installed from a wheel, else the repository's folder of that name."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name


class Sql:
    """The statements of sql/<name>.sql, as a decorator for their typed stubs. Everything is checked at decoration."""

    def __init__(self, name: str, *, directory: Path | None = None) -> None:
        """With a `directory` of its own (a test's) the statements stay out of `all_statements`."""
        self.name = name
        self.blocks = read_blocks((directory or resource_dir("sql")) / f"{name}.sql")
        self.statements: dict[str, Statement] = {}
        self._registered = directory is None

    def __call__(self, stub: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        statement = _declare(self.name, self.blocks, stub)
        self.statements[stub.__name__] = statement
        if self._registered:
            _statements[statement.module, statement.name] = statement
        call = _caller(statement, [name for name in inspect.signature(stub).parameters if name != "conn"])
        call.__kwdefaults__ = stub.__kwdefaults__
        return cast(Callable[P, Coroutine[Any, Any, R]], update_wrapper(call, stub))


def read_blocks(path: Path) -> dict[str, tuple[str, str]]:
    """Block name → (description, SQL) of a file in which each block starts with `-- name: …`."""
    head, *parts = _BLOCK.split(path.read_text(encoding="utf-8"))
    if re.sub(r"--[^\n]*", "", head).strip():
        raise ValueError(f"{path.name}: SQL before the first `-- name:` line")
    blocks: dict[str, tuple[str, str]] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in blocks:
            raise ValueError(f"{path.name}: two blocks are called {name}")
        described = re.match(r"\s*((?:--[^\n]*\n)*)(.*)", body, re.DOTALL)
        assert described is not None
        lines = [line.removeprefix("--").strip() for line in described[1].splitlines()]
        sql = described[2].strip().removesuffix(";").rstrip()
        if not sql:
            raise ValueError(f"{path.name}: the block {name} is empty")
        blocks[name] = (" ".join(lines), sql)
    return blocks


def _declare(file: str, blocks: Mapping[str, tuple[str, str]], stub: Callable[..., Any]) -> Statement:
    name = f"{file}.{stub.__name__}"
    if stub.__name__ not in blocks:
        raise LookupError(f"sql/{file}.sql has no block `-- name: {stub.__name__}`")
    description, sql = blocks[stub.__name__]
    hints = get_type_hints(stub)
    signature = inspect.signature(stub)
    first, *rest = signature.parameters.values()
    if first.name != "conn" or any(p.kind is not p.KEYWORD_ONLY for p in rest):
        raise TypeError(f"{name}: the signature is (conn: Conn, *, …) with every argument by keyword")
    text, parameters = _compile(name, sql, {p.name: hints[p.name] for p in rest})
    cardinality, row = _result(hints["return"])
    if _is_struct(row) and (not row.__struct_config__.frozen or _keyword_only(row)):
        raise TypeError(f"{name}: the row {row.__name__} is built by position and shared: frozen, not kw_only")
    # PostgreSQL 18 cuts leading comments off what pg_stat_statements keeps: so the name stands inside as well.
    text = re.sub(r"\w+", rf"\g<0> /* {name} */", text, count=1)
    return Statement(
        name=name,
        module=stub.__module__,
        description=description,
        text=f"-- name: {name}\n{text}",
        parameters=parameters,
        cardinality=cardinality,
        row=row,
    )


def _compile(name: str, sql: str, arguments: Mapping[str, Any]) -> tuple[str, tuple[Parameter, ...]]:
    """The SQL with $n for :name, and what each $n is."""
    used: dict[tuple[str, str | None], Parameter] = {}
    for match in PLACEHOLDER.finditer(sql):
        if match["numbered"]:
            raise ValueError(f"{name}: {match['numbered']} in the SQL: write :name")
        if match["argument"]:
            used.setdefault((match["argument"], match["field"]), _parameter(name, match, arguments))
    if unused := arguments.keys() - {argument for argument, _ in used}:
        raise TypeError(f"{name}: the SQL does not use {', '.join(sorted(unused))}")
    order = list(arguments)
    parameters = sorted(used.values(), key=lambda p: -1 if p.field is None else order.index(p.argument))
    number = {(p.argument, p.field): f"${n}" for n, p in enumerate(parameters, 1)}

    def replace(match: re.Match[str]) -> str:
        return number[match["argument"], match["field"]] if match["argument"] else match[0]

    return PLACEHOLDER.sub(replace, sql), tuple(parameters)


def _parameter(name: str, match: re.Match[str], arguments: Mapping[str, Any]) -> Parameter:
    argument, field = match["argument"], match["field"]
    if argument not in arguments:
        raise TypeError(f"{name}: the SQL reads :{argument}, which the stub does not take")
    annotation = arguments[argument]
    many = get_origin(annotation) in (list, Sequence, tuple)
    struct = get_args(annotation)[0] if many else annotation
    if field is None:
        return Parameter(argument, None, many=False, annotation=annotation, records=many and _is_struct(struct))
    if not _is_struct(struct):
        raise TypeError(f"{name}: :{argument}.{field} needs a Struct or a sequence of Structs")
    types_of_fields = get_type_hints(struct)
    if field not in struct.__struct_fields__:
        raise TypeError(f"{name}: {struct.__name__} has no field {field}")
    of_field = types_of_fields[field]
    return Parameter(argument, field, many=many, annotation=list[of_field] if many else of_field)


def _result(annotation: Any) -> tuple[Cardinality, Any]:
    if annotation is None or annotation is types.NoneType:
        return "none", None
    if get_origin(annotation) is list:
        return "many", get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType) and types.NoneType in get_args(annotation):
        rest = [each for each in get_args(annotation) if each is not types.NoneType]
        return "optional", rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - made at run time
    return "one", annotation


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _keyword_only(struct: Any) -> bool:
    return any(p.kind is p.KEYWORD_ONLY for p in inspect.signature(struct).parameters.values())


def _caller(statement: Statement, arguments: Sequence[str]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function with the stub's own signature and nothing in it that could have been decided before.

    It is written as source, as dataclasses writes `__init__`, out of names that `PLACEHOLDER` and Python have let
    through: with closures over getters a call costs four times as much.
    """
    values = "".join(f", {_value(parameter)}" for parameter in statement.parameters)
    is_struct = _is_struct(statement.row)
    source = [
        f"async def call(conn{', *, ' if arguments else ''}{', '.join(arguments)}):",
        f"    records = await conn.fetch(_text{values})",
        *_ENDINGS[statement.cardinality, is_struct],
    ]
    scope: dict[str, Any] = {
        "_text": statement.text,
        "_row": statement.row,
        "_json": msgspec.json.encode,
        "_wrong_count": _wrong_count(statement),
    }
    exec("\n".join(source), scope)  # noqa: S102 - see above
    return scope["call"]


_ENDINGS: dict[tuple[Cardinality, bool], list[str]] = {
    ("none", False): [],
    ("one", True): ["    if len(records) != 1: raise _wrong_count(records)", "    return _row(*records[0])"],
    ("one", False): ["    if len(records) != 1: raise _wrong_count(records)", "    return records[0][0]"],
    ("optional", True): [
        "    if len(records) > 1: raise _wrong_count(records)",
        "    return _row(*records[0]) if records else None",
    ],
    ("optional", False): [
        "    if len(records) > 1: raise _wrong_count(records)",
        "    return records[0][0] if records else None",
    ],
    ("many", True): ["    return [_row(*record) for record in records]"],
    ("many", False): ["    return [record[0] for record in records]"],
}


def _value(parameter: Parameter) -> str:
    if parameter.records:
        return f"_json({parameter.argument}).decode()"
    if parameter.field is None:
        return parameter.argument
    if parameter.many:
        return f"[each.{parameter.field} for each in {parameter.argument}]"
    return f"{parameter.argument}.{parameter.field}"


def _wrong_count(statement: Statement) -> Callable[[Sequence[Any]], Exception]:
    def error(records: Sequence[Any]) -> Exception:
        if not records:
            return NoRow(statement.name)
        return RuntimeError(f"{statement.name} promised at most one row and gave {len(records)}")

    return error
