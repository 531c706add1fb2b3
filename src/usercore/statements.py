"""Typed SQL: the signature is Python, the body is a block of sql/<name>.sql (see `Sql`)."""

import inspect
import re
import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import update_wrapper
from itertools import chain
from operator import attrgetter, itemgetter
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
_PLACEHOLDER = re.compile(
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
    """What $n is: an argument, a field of a Struct argument, or (`many`) the list of that field of all its rows."""

    argument: str
    field: str | None
    many: bool
    annotation: Any


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
        statement, defaults = _declare(self.name, self.blocks, stub)
        self.statements[stub.__name__] = statement
        if self._registered:
            _statements[statement.module, statement.name] = statement
        call = _caller(statement, defaults)
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


def _declare(
    file: str, blocks: Mapping[str, tuple[str, str]], stub: Callable[..., Any]
) -> tuple[Statement, dict[str, Any]]:
    """The statement of a stub, and the defaults of its arguments."""
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
    defaults = {p.name: p.default for p in rest if p.default is not p.empty}
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
    ), defaults


def _compile(name: str, sql: str, arguments: Mapping[str, Any]) -> tuple[str, tuple[Parameter, ...]]:
    """The SQL with $n for :name, and what each $n is: plain arguments first, then the fields of one Struct together."""
    used: dict[tuple[str, str | None], Parameter] = {}
    for match in _PLACEHOLDER.finditer(sql):
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

    return _PLACEHOLDER.sub(replace, sql), tuple(parameters)


def _parameter(name: str, match: re.Match[str], arguments: Mapping[str, Any]) -> Parameter:
    argument, field = match["argument"], match["field"]
    if argument not in arguments:
        raise TypeError(f"{name}: the SQL reads :{argument}, which the stub does not take")
    annotation = arguments[argument]
    if field is None:
        return Parameter(argument, None, many=False, annotation=annotation)
    many = get_origin(annotation) in (list, Sequence, tuple)
    struct = get_args(annotation)[0] if many else annotation
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


def _caller(statement: Statement, defaults: dict[str, Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Everything that can be decided before the call is decided here: a call costs about a microsecond of ours."""
    name, text, row = statement.name, statement.text, statement.row
    values = _extractor(statement.parameters)
    expected = len({p.argument for p in statement.parameters})
    build: Callable[[Any], Any] = (lambda record: row(*record)) if _is_struct(row) else itemgetter(0)

    async def fetch(conn: Conn, arguments: dict[str, Any]) -> list[Any]:
        if defaults:
            arguments = defaults | arguments
        try:
            ordered = values(arguments)
        except KeyError as missing:
            raise TypeError(f"{name} needs the argument {missing}") from None
        if len(arguments) != expected:
            raise TypeError(f"{name} takes {expected} arguments, not {', '.join(arguments)}")
        return cast(list[Any], await conn.fetch(text, *ordered))

    async def none(conn: Conn, **arguments: Any) -> None:
        await fetch(conn, arguments)

    async def one(conn: Conn, **arguments: Any) -> Any:
        records = await fetch(conn, arguments)
        if not records:
            raise NoRow(name)
        return build(_single(name, records))

    async def optional(conn: Conn, **arguments: Any) -> Any:
        records = await fetch(conn, arguments)
        return build(_single(name, records)) if records else None

    async def many(conn: Conn, **arguments: Any) -> list[Any]:
        return [build(record) for record in await fetch(conn, arguments)]

    return {"none": none, "one": one, "optional": optional, "many": many}[statement.cardinality]


def _single(name: str, records: list[Any]) -> Any:
    if len(records) != 1:
        raise RuntimeError(f"{name} promised at most one row and gave {len(records)}")
    return records[0]


def _extractor(parameters: Sequence[Parameter]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """From the keyword arguments to the values of $1, $2, …"""
    plain = [p.argument for p in parameters if p.field is None]
    structs: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        if parameter.field is not None:
            structs.setdefault(parameter.argument, []).append(parameter)
    parts: list[Callable[[Mapping[str, Any]], Sequence[Any]]] = []
    if plain:
        parts.append(_always_tuple(itemgetter(*plain), len(plain)))
    for argument, fields in structs.items():
        parts.append(_fields(argument, [cast(str, p.field) for p in fields], many=fields[0].many))
    if len(parts) == 1:
        return parts[0]
    return lambda arguments: tuple(chain.from_iterable([part(arguments) for part in parts]))


def _fields(argument: str, fields: list[str], *, many: bool) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    if many:
        getters = [attrgetter(field) for field in fields]
        return lambda arguments: [list(map(get, arguments[argument])) for get in getters]
    read = _always_tuple(attrgetter(*fields), len(fields))
    return lambda arguments: read(arguments[argument])


def _always_tuple(get: Callable[[Any], Any], count: int) -> Callable[[Any], Sequence[Any]]:
    # itemgetter and attrgetter give a tuple for several names, and the bare value for one.
    return get if count > 1 else lambda source: (get(source),)
