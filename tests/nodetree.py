"""PostgreSQL's own analysis of a statement: parses pg_node_tree text and proves which result columns are never null.

A statement is stored as the body of a temporary SQL function (`begin atomic`), whose parse tree pg_proc keeps as text.
There every column reference names its table and column, and the outer joins that can null it (varnullingrels, since
PostgreSQL 16), so nothing has to be guessed from names or plans.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

Node: TypeAlias = dict[str, Any]  # a node's fields, its type under "node"

RELATION, SUBQUERY, JOIN, FUNCTION, CTE, GROUP = "0", "1", "2", "3", "6", "9"  # RTEKind
SELECT = "1"  # CmdType
UNNEST = "2331"  # oid of unnest(anyarray), fixed in pg_proc.dat
JSON_TO_RECORDSET = "3205"
DECODE = "1947"
WRITES = frozenset({"2", "3"})  # UPDATE, INSERT

# bool, int8, int2, int4, timestamptz, interval: their operators give a value for any two values.
TOTAL_OPERATORS = frozenset({"16", "20", "21", "23", "1184", "1186"})

# Functions that give a value for every non-null argument. Strictness alone does not say that.
NEVER_NULL = frozenset({
    "host", "hashtext", "octet_length", "uuid_send", "get_byte", "lower", "upper", "length", "date_trunc",
    "now", "clock_timestamp", "gen_random_uuid", "current_database", "pg_backend_pid", "set_config",
    "pg_try_advisory_lock", "pg_try_advisory_xact_lock", "pg_current_xact_id", "pg_snapshot_xmin",
    "pg_current_snapshot", "generate_series", "greatest", "least", "text", "timestamptz", "int4", "int8",
    "audit_make_partitions",
})  # fmt: skip


def parse(text: str) -> Any:
    """The tree of a pg_node_tree: nodes as dicts, lists as lists, everything else as text; `<>` is None."""
    tokens = iter(re.findall(r"[(){}]|(?:\\.|[^\s(){}\\])+", text))
    return _value(next(tokens), tokens)


def _value(token: str, tokens: Iterator[str]) -> Any:
    if token == "(":
        items: list[Any] = []
        while (token := next(tokens)) != ")":
            items.append(_value(token, tokens))
        return items
    if token == "{":
        node: Node = {"node": next(tokens)}
        field = ""
        while (token := next(tokens)) != "}":
            if token.startswith(":"):
                field = token[1:]
            else:
                value = _value(token, tokens)
                # A Const's bytes are several tokens; nobody needs more than the first.
                node.setdefault(field, value)
        return node
    return None if token == "<>" else re.sub(r"\\(.)", r"\1", token).strip('"')


def walk(value: Any) -> Iterator[Node]:
    """Every node below and with `value`."""
    if isinstance(value, dict):
        node = cast(Node, value)
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(value, list):
        for child in cast(list[Any], value):
            yield from walk(child)


def result(query: Node) -> list[Node]:
    """The target entries of what the query returns."""
    listed = cast(list[Node] | None, query["targetList"] if query["commandType"] == SELECT else query["returningList"])
    return [entry for entry in listed or [] if entry["resjunk"] == "false"]


class Catalog:
    """What the proofs ask the database and the declaration: of $n, whether it or what comes out of it may be null."""

    def __init__(
        self,
        not_null: Callable[[int, int], bool],
        function_name: Callable[[int], str],
        is_strict: Callable[[int], bool],
        parameter_null: Callable[[int], bool],
        source_null: Callable[["Source"], bool],
        argument: Callable[[int], str],
    ) -> None:
        self.not_null = not_null
        self.function_name = function_name
        self.is_strict = is_strict
        self.parameter_null = parameter_null
        self.source_null = source_null
        self.argument = argument


def never_null(query: Node, catalog: Catalog) -> list[bool]:
    """For each result column: is it proved that it cannot be null? What is not understood counts as nullable."""
    proof = _Proof(catalog)
    return [proof.column(query, number, ()) for number in range(len(result(query)))]


class _Proof:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.open: set[tuple[int, int]] = set()

    def column(self, query: Node, number: int, outer: tuple[Node, ...]) -> bool:
        """Is result column `number` (from 0) of the query never null?"""
        key = (id(query), number)
        if key in self.open:
            return True  # a recursive CTE is never null if its other branch is not
        self.open.add(key)
        try:
            if query["setOperations"] is not None:
                branches = [rte for rte in query["rtable"] if rte["rtekind"] == SUBQUERY]
                return all(self.column(rte["subquery"], number, (*outer, query)) for rte in branches)
            return self.expression(result(query)[number]["expr"], (*outer, query))
        finally:
            self.open.discard(key)

    def expression(self, expr: Node, queries: tuple[Node, ...]) -> bool:
        match expr:
            case {"node": "VAR"}:
                return self.variable(expr, queries)
            case {"node": "PARAM", "paramkind": "0"}:
                return not self.catalog.parameter_null(int(expr["paramid"]))
            case {"node": "CONST"}:
                return expr["constisnull"] == "false"
            case {"node": "RELABELTYPE" | "COERCEVIAIO" | "ARRAYCOERCEEXPR" | "COERCETODOMAIN" | "COLLATEEXPR"}:
                return self.expression(expr["arg"], queries)
            case {"node": "NULLTEST" | "BOOLEANTEST" | "DISTINCTEXPR" | "ARRAYEXPR" | "ROWEXPR"}:
                return True
            case {"node": "SQLVALUEFUNCTION" | "NEXTVALUEEXPR" | "GROUPINGFUNC"}:
                return True
            case {"node": "COALESCEEXPR" | "MINMAXEXPR"}:
                return any(self.expression(arg, queries) for arg in expr["args"])
            case {"node": "OPEXPR"} if expr["opresulttype"] not in TOTAL_OPERATORS:
                return False  # json's -> and the like
            case {"node": "BOOLEXPR" | "OPEXPR" | "SCALARARRAYOPEXPR"}:
                return all(self.expression(arg, queries) for arg in expr["args"])
            case {"node": "CASEEXPR"}:
                results = [when["result"] for when in expr["args"]]
                return expr["defresult"] is not None and all(
                    self.expression(each, queries) for each in [*results, expr["defresult"]]
                )
            case {"node": "SUBLINK"}:
                return expr["subLinkType"] == "0"  # EXISTS
            case {"node": "AGGREF"}:
                return self.catalog.function_name(int(expr["aggfnoid"])) == "count"
            case {"node": "WINDOWFUNC"}:
                return self.catalog.function_name(int(expr["winfnoid"])) in {
                    "count",
                    "row_number",
                    "rank",
                    "dense_rank",
                }
            case {"node": "FUNCEXPR"}:
                known = self.catalog.function_name(int(expr["funcid"])) in NEVER_NULL
                return known and all(self.expression(arg, queries) for arg in _nodes(expr["args"]))
            case _:
                return False

    def variable(self, var: Node, queries: tuple[Node, ...]) -> bool:
        level = len(queries) - int(var["varlevelsup"])
        query, queries = queries[level - 1], queries[:level]
        if self.filtered(var, query):
            return True
        if var["varreturningtype"] != "0" or len(var["varnullingrels"]) > 1:
            return False  # OLD and NEW of a RETURNING; the nullable side of an outer join
        number = int(var["varattno"])
        rte = query["rtable"][int(var["varno"]) - 1]
        if number < 1:
            return number < 0  # a system column, or a whole row
        match rte["rtekind"]:
            case str(kind) if kind == RELATION:
                return self.catalog.not_null(int(rte["relid"]), number)
            case str(kind) if kind == SUBQUERY:
                return self.column(rte["subquery"], number - 1, queries)
            case str(kind) if kind == JOIN:
                return self.expression(rte["joinaliasvars"][number - 1], queries)
            case str(kind) if kind == GROUP:
                return self.expression(rte["groupexprs"][number - 1], queries)
            case str(kind) if kind == CTE:
                home = queries[: len(queries) - int(rte["ctelevelsup"])]
                found = next(each for each in home[-1]["cteList"] if each["ctename"] == rte["ctename"])
                return self.column(found["ctequery"], number - 1, home)
            case str(kind) if kind == FUNCTION:
                return self.function_column(rte, number, queries)
            case _:
                return False

    def function_column(self, rte: Node, number: int, queries: tuple[Node, ...]) -> bool:
        functions = _nodes(rte["functions"])
        if (field := record_field(rte, number)) is not None:
            return not self.catalog.source_null(field)
        sources = [source_parameter(each["funcexpr"], queries[-1]) for each in functions]
        if number <= len(sources) and (source := sources[number - 1]) is not None:
            # unnest pads the shorter list with nulls: all of them have to come from the same rows.
            same = {None if each is None else self.catalog.argument(each.parameter) for each in sources}
            return len(same) == 1 and not self.catalog.source_null(source)
        return (
            len(functions) == 1
            and functions[0]["funccolcount"] == "1"
            and self.expression(functions[0]["funcexpr"], queries)
        )

    def filtered(self, var: Node, query: Node) -> bool:
        """Does the WHERE of its query, or an inner join's ON, let no row pass in which the column is null?"""
        if query["commandType"] != SELECT:
            return False  # RETURNING shows what is there after the change
        return any(
            found["varno"] == var["varno"] and found["varattno"] == var["varattno"] and found["varlevelsup"] == "0"
            for qual in _quals(query["jointree"])
            for found in self.rejects_null(qual)
        )

    def rejects_null(self, qual: Node) -> Sequence[Node]:
        match qual:
            case {"node": "NULLTEST", "nulltesttype": "1", "arg": {"node": "VAR"}}:
                return [qual["arg"]]
            case {"node": "OPEXPR"} if self.catalog.is_strict(int(qual["opfuncid"])):
                return [arg for arg in qual["args"] if arg["node"] == "VAR"]
            case {"node": "SCALARARRAYOPEXPR", "useOr": "true"} if self.catalog.is_strict(int(qual["opfuncid"])):
                return [arg for arg in qual["args"][:1] if arg["node"] == "VAR"]
            case _:
                return []


def _quals(tree: Node) -> Iterator[Node]:
    """The conditions that every row of the query has met."""
    if tree["node"] == "FROMEXPR":
        yield from _conjuncts(tree["quals"])
        for item in _nodes(tree["fromlist"]):
            yield from _quals(item)
    elif tree["node"] == "JOINEXPR" and tree["jointype"] == "0":
        yield from _conjuncts(tree["quals"])
        yield from _quals(tree["larg"])
        yield from _quals(tree["rarg"])


def _conjuncts(qual: Node | None) -> Iterator[Node]:
    if qual is not None and qual["node"] == "BOOLEXPR" and qual["boolop"] == "and":
        for each in _nodes(qual["args"]):
            yield from _conjuncts(each)
    elif qual is not None:
        yield qual


def _nodes(value: Any) -> list[Node]:
    return cast(list[Node] | None, value) or []


class Source(NamedTuple):
    """$n, the elements of $n, or a field of the records that $n holds as JSON."""

    parameter: int
    field: str | None = None


def source_parameter(expr: Node, query: Node) -> Source | None:
    """What the expression hands through as it is, bare, cast, unnested or out of JSON; else None."""
    match expr:
        case {"node": "PARAM", "paramkind": "0"}:
            return Source(int(expr["paramid"]))
        case {"node": "RELABELTYPE" | "COERCEVIAIO" | "COERCETODOMAIN"}:
            return source_parameter(expr["arg"], query)
        case {"node": "VAR", "varlevelsup": "0"}:
            rte = query["rtable"][int(expr["varno"]) - 1]
            number = int(expr["varattno"])
            if rte["rtekind"] == SUBQUERY:
                return source_parameter(result(rte["subquery"])[number - 1]["expr"], rte["subquery"])
            if rte["rtekind"] == FUNCTION:
                if (field := record_field(rte, number)) is not None:
                    return field
                if number <= len(rte["functions"]):
                    return source_parameter(rte["functions"][number - 1]["funcexpr"], query)
            return None
        case {"node": "FUNCEXPR", "funcid": str(function), "args": [argument]} if function == UNNEST:
            return source_parameter(argument, query)
        case {"node": "FUNCEXPR", "funcid": str(function), "args": [argument, _]} if function == DECODE:
            return source_parameter(argument, query)
        case _:
            return None


def records(value: Any) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Each list of records that comes as JSON: its parameter, and the columns that it is read as with their types."""
    for node in walk(value):
        if node["node"] == "RANGETBLFUNCTION" and (number := _record_parameter(node)) is not None:
            yield number, list(zip(node["funccolnames"], map(int, node["funccoltypes"][1:]), strict=True))


def record_field(rte: Node, number: int) -> Source | None:
    """The field of JSON records that is column `number` (from 1) of a function in FROM."""
    functions = _nodes(rte["functions"])
    if len(functions) != 1 or (parameter := _record_parameter(functions[0])) is None:
        return None
    return Source(parameter, functions[0]["funccolnames"][number - 1])


def _record_parameter(function: Node) -> int | None:
    match function["funcexpr"]:
        case {
            "node": "FUNCEXPR",
            "funcid": str(called),
            "args": [{"node": "PARAM", "paramkind": "0", "paramid": number}],
        }:
            return int(number) if called == JSON_TO_RECORDSET else None
        case _:
            return None
