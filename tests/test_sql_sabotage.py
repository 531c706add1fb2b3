"""The check of typed SQL fails when it should: each declaration here is wrong in one way, next to one that is right."""

from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NewType
from uuid import UUID

import psycopg
import pytest
from msgspec import Struct

from tests.databases import DatabaseUrls
from tests.sqlcheck import Checker, missing_stubs
from usercore.db import Conn, Sql, Statement
from usercore.pii.sealed import Plain, Sealed

UserStatus = Literal["pending", "active", "suspended", "frozen", "closed"]
Other = NewType("Other", bytes)

Check = Callable[[str, Callable[..., Any]], list[str]]


class User(Struct, frozen=True):
    id: UUID
    status: UserStatus
    verified_at: datetime | None


class HeldUser(Struct, frozen=True):
    id: UUID
    reason: str | None


class NewHold(Struct, frozen=True):
    id: UUID
    user_id: UUID
    note_enc: Sealed | None


@pytest.fixture(scope="module")
def checker(shared_database: DatabaseUrls) -> Generator[Checker]:
    with (
        psycopg.connect(shared_database.owner, autocommit=True) as owner,
        psycopg.connect(shared_database.app, autocommit=True) as app,
    ):
        yield Checker(owner, app)


@pytest.fixture
def declare(tmp_path: Path) -> Callable[[str, Callable[..., Any]], Statement]:
    """Marry SQL and stub as a domain's queries module would."""

    def declared(body: str, stub: Callable[..., Any]) -> Statement:
        (tmp_path / "bad.sql").write_text(f"-- name: {stub.__name__}\n-- What it is for.\n{body};\n", encoding="utf-8")
        sql = Sql("bad", directory=tmp_path)
        sql(stub)
        return sql.statements[stub.__name__]

    return declared


@pytest.fixture
def check(checker: Checker, declare: Callable[[str, Callable[..., Any]], Statement]) -> Check:
    """Problems without the statement's name."""

    def checked(body: str, stub: Callable[..., Any]) -> list[str]:
        return [problem.split(": ", 1)[1] for problem in checker.check(declare(body, stub))]

    return checked


GET_USER = "select u.id, u.status, u.verified_at from users u where u.id = :user_id"


async def get_user(conn: Conn, *, user_id: UUID) -> User | None: ...


def test_a_right_declaration_passes(check: Check):
    assert check(GET_USER, get_user) == []


# ----------------------------------------------------------------------------------------------------------- columns


def test_wrong_column_type(check: Check):
    class Wrong(Struct, frozen=True):
        id: str
        status: UserStatus
        verified_at: datetime | None

    async def get_wrong(conn: Conn, *, user_id: UUID) -> Wrong | None: ...

    assert check(GET_USER, get_wrong) == ["column id is uuid, not str"]


def test_wrong_scalar_type(check: Check):
    async def get_version(conn: Conn, *, user_id: UUID) -> str: ...

    assert check("select version from users where id = :user_id", get_version) == ["column version is int4, not str"]


def test_wrong_column_order(check: Check):
    swapped = "select u.status, u.id, u.verified_at from users u where u.id = :user_id"
    assert check(swapped, get_user) == [
        "columns are status, id, verified_at; the fields of User are id, status, verified_at"
    ]


def test_wrong_column_name(check: Check):
    renamed = "select u.id, u.status, u.closed_at from users u where u.id = :user_id"
    assert check(renamed, get_user) == [
        "columns are id, status, closed_at; the fields of User are id, status, verified_at"
    ]


def test_a_column_too_many(check: Check):
    assert check("select u.id, u.status, u.verified_at, u.version from users u where u.id = :user_id", get_user) == [
        "columns are id, status, verified_at, version; the fields of User are id, status, verified_at"
    ]

    async def get_status(conn: Conn, *, user_id: UUID) -> UserStatus: ...

    assert check("select status, id from users where id = :user_id", get_status) == [
        "returns 2 columns, the declaration one value"
    ]


def test_columns_that_nobody_reads(check: Check):
    async def set_status(conn: Conn, *, user_id: UUID, status: UserStatus) -> None: ...

    update = "update users set status = :status where id = :user_id"
    assert check(update, set_status) == []
    assert check(f"{update} returning version", set_status) == ["returns columns, and the declaration None"]


def test_a_column_that_is_not_there(check: Check):
    (problem,) = check("select u.id, u.state, u.verified_at from users u where u.id = :user_id", get_user)
    assert problem.startswith("does not prepare: ERROR:  column u.state does not exist")


def test_wrong_enum_labels(check: Check):
    async def get_status(conn: Conn, *, user_id: UUID) -> Literal["pending", "active", "deleted"]: ...

    body = "select status from users where id = :user_id"
    assert check(body, get_status) == [
        "column status is the enum user_status, whose labels differ: closed, deleted, frozen, suspended"
    ]

    async def get_text(conn: Conn, *, user_id: UUID) -> str: ...

    assert check(body, get_text) == ["column status is the enum user_status, not str: declare a Literal of its labels"]


# ------------------------------------------------------------------------------------------------------- nullability


def test_a_nullable_column_declared_plain(check: Check):
    class Wrong(Struct, frozen=True):
        id: UUID
        status: UserStatus
        verified_at: datetime

    async def get_wrong(conn: Conn, *, user_id: UUID) -> Wrong | None: ...

    assert check(GET_USER, get_wrong) == ["column verified_at may be null, and is not declared optional"]


def test_a_column_that_is_never_null_declared_optional(check: Check):
    class Wrong(Struct, frozen=True):
        id: UUID
        status: UserStatus | None
        verified_at: datetime | None

    async def get_wrong(conn: Conn, *, user_id: UUID) -> Wrong | None: ...

    assert check(GET_USER, get_wrong) == ["column status is never null, and declared optional"]


LEFT = "users u left join user_consents h on h.user_id = u.id"


class Held(Struct, frozen=True):
    id: UUID
    reason: str


@pytest.mark.parametrize(
    "body",
    [
        f"select u.id, h.version as reason from {LEFT} where u.id = :user_id",
        "select u.id, h.version as reason from user_consents h right join users u on h.user_id = u.id "
        "where u.id = :user_id",
        f"select x.id, x.reason from (select u.id, h.version as reason from {LEFT} where u.id = :user_id) x",
        f"with x as (select u.id, h.version as reason from {LEFT} where u.id = :user_id) select x.id, x.reason from x",
        "select u.id, (select h.version from user_consents h where h.user_id = u.id limit 1) as reason "
        "from users u where u.id = :user_id",
        "select u.id, max(h.version) as reason from users u join user_consents h on h.user_id = u.id "
        "where u.id = :user_id group by u.id",
    ],
    ids=["left", "right", "subquery", "cte", "scalar subquery", "aggregate"],
)
def test_what_an_outer_join_can_null(check: Check, body: str):
    async def list_held(conn: Conn, *, user_id: UUID) -> list[Held]: ...

    assert check(body, list_held) == ["column reason may be null, and is not declared optional"]

    async def list_optional(conn: Conn, *, user_id: UUID) -> list[HeldUser]: ...

    assert check(body, list_optional) == []


@pytest.mark.parametrize(
    "body",
    [
        "select u.id, h.version as reason from users u join user_consents h on h.user_id = u.id where u.id = :user_id",
        f"select u.id, h.version as reason from {LEFT} where u.id = :user_id and h.version is not null",
        f"select u.id, coalesce(h.version, 'none') as reason from {LEFT} where u.id = :user_id",
        "select u.id, x.reason from users u cross join lateral "
        "(select h.version as reason from user_consents h where h.user_id = u.id) x where u.id = :user_id",
    ],
    ids=["inner", "filtered", "coalesce", "lateral"],
)
def test_what_no_join_can_null(check: Check, body: str):
    async def list_held(conn: Conn, *, user_id: UUID) -> list[Held]: ...

    assert check(body, list_held) == []

    async def list_optional(conn: Conn, *, user_id: UUID) -> list[HeldUser]: ...

    assert check(body, list_optional) == ["column reason is never null, and declared optional"]


def test_a_returning_shows_the_value_after_the_change(check: Check):
    """The WHERE speaks of the row before."""

    async def set_open(conn: Conn, *, user_id: UUID) -> datetime: ...

    body = "update users set closed_at = null where id = :user_id and closed_at is not null returning closed_at"
    assert check(body, set_open) == ["column closed_at may be null, and is not declared optional"]


def test_an_optional_parameter_for_a_column_that_cannot_be_null(check: Check):
    async def set_status(conn: Conn, *, user_id: UUID, status: UserStatus | None) -> None: ...

    assert check("update users set status = :status where id = :user_id", set_status) == [
        "writes the optional :status into status, which cannot be null"
    ]

    class Line(Struct, frozen=True):
        topic: str | None
        event_id: UUID

    async def add_lines(conn: Conn, *, lines: Sequence[Line]) -> None: ...

    body = "insert into inbox (topic, event_id) select * from unnest(:lines.topic::text[], :lines.event_id::uuid[])"
    assert check(body, add_lines) == ["writes the optional :lines into topic, which cannot be null"]


# -------------------------------------------------------------------------------------------------------- parameters


def test_wrong_parameter_type(check: Check):
    async def get_wrong(conn: Conn, *, user_id: str) -> User | None: ...

    assert check(GET_USER, get_wrong) == ["parameter :user_id is uuid, not str"]


def test_wrong_type_of_a_field_of_a_struct(check: Check):
    class Wrong(Struct, frozen=True):
        id: UUID
        at: str

    async def set_closed(conn: Conn, *, user: Wrong) -> None: ...

    assert check("update users set closed_at = :user.at where id = :user.id", set_closed) == [
        "parameter :user.at is timestamptz, not str"
    ]


def test_a_scalar_for_an_array(check: Check):
    async def list_users(conn: Conn, *, user_ids: UUID) -> list[User]: ...

    body = "select u.id, u.status, u.verified_at from users u where u.id = any(:user_ids::uuid[])"
    assert check(body, list_users) == ["parameter :user_ids is an array of uuid, not UUID"]


def test_plain_pii_is_no_text(check: Check):
    async def set_email(conn: Conn, *, user_id: UUID, email: Plain) -> None: ...

    assert check("update user_profiles set email = :email where user_id = :user_id", set_email) == [
        "parameter :email is citext, not Plain"
    ]


def test_wrong_parameter_name(declare: Callable[[str, Callable[..., Any]], Statement]):
    async def get_wrong(conn: Conn, *, id: UUID) -> User | None: ...

    with pytest.raises(TypeError, match=r"^bad\.get_wrong: the SQL reads :user_id, which the stub does not take$"):
        declare(GET_USER, get_wrong)

    async def get_more(conn: Conn, *, user_id: UUID, more: int) -> User | None: ...

    with pytest.raises(TypeError, match=r"^bad\.get_more: the SQL does not use more$"):
        declare(GET_USER, get_more)

    async def get_field(conn: Conn, *, hold: NewHold) -> User | None: ...

    with pytest.raises(TypeError, match=r"^bad\.get_field: NewHold has no field owner$"):
        declare(GET_USER.replace(":user_id", ":hold.owner"), get_field)


# ----------------------------------------------------------------------------------------------------------- records


class Consumed(Struct, frozen=True):
    topic: str
    event_id: UUID
    digest: bytes
    status: UserStatus
    reason: str | None


async def add_consumed(conn: Conn, *, events: Sequence[Consumed]) -> None: ...


ADD_CONSUMED = (
    "insert into inbox (topic, event_id) select e.topic, e.event_id "
    "from json_to_recordset(:events) as e(topic text, event_id uuid, digest text, status user_status)"
)


def test_records_go_as_json(check: Check):
    assert check(ADD_CONSUMED, add_consumed) == []

    async def list_topics(conn: Conn, *, events: Sequence[Consumed]) -> list[str]: ...

    body = "select e.topic from json_to_recordset(:events) as e(topic text)"
    assert check(body, list_topics) == []
    assert check(body.replace("(:events)", "(:events::json)"), list_topics) == []
    assert check("select :events::jsonb::text as topic", list_topics)[0] == (
        "parameter :events holds records, which go as json, not as jsonb"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("topic text,", "topic uuid,", "field topic of :events is uuid, not str"),
        ("status user_status", "status text", "field status of :events is text, not "),
        ("digest text", "digest bytea", "field digest of :events is bytea, not bytes"),
        (
            "status user_status",
            "status kyc_tier",
            "field status of :events is the enum kyc_tier, whose labels differ: ",
        ),
        ("digest text", "digestion text", "reads digestion out of :events, whose records have no such field"),
    ],
)
def test_a_record_is_read_as_what_it_is(check: Check, right: str, wrong: str, problem: str):
    (found,) = check(ADD_CONSUMED.replace(right, wrong), add_consumed)
    assert found.startswith(problem)


def test_an_optional_field_of_a_record_for_a_column_that_cannot_be_null(check: Check):
    body = ADD_CONSUMED.replace("select e.topic", "select e.reason").replace("topic text", "reason text")
    assert check(body, add_consumed) == ["writes the optional :events into topic, which cannot be null"]

    async def list_reasons(conn: Conn, *, events: Sequence[Consumed]) -> list[str]: ...

    assert check("select e.reason from json_to_recordset(:events) as e(reason text)", list_reasons) == [
        "column reason may be null, and is not declared optional"
    ]


def test_records_that_are_no_structs(check: Check):
    async def list_topics(conn: Conn, *, events: str) -> list[str | None]: ...

    assert check("select e.topic from json_to_recordset(:events) as e(topic text)", list_topics) == [
        "reads records out of :events, which are no list of Structs"
    ]


# ------------------------------------------------------------------------------------------------------------ sealed


ADD_HOLD = (
    "insert into account_holds (id, user_id, effect, source, reason, note_enc, placed_at) "
    "values (:id, :user_id, 'freeze', 'risk', 'other', :note_enc, now())"
)
ADD_HOLDS = (
    "insert into account_holds (id, user_id, effect, source, reason, note_enc, placed_at) "
    "select h.id, h.user_id, 'freeze', 'risk', 'other', h.note_enc, now() "
    "from unnest(:holds.id::uuid[], :holds.user_id::uuid[], :holds.note_enc::{}[]) as h(id, user_id, note_enc)"
)


def test_plain_bytes_for_a_sealed_column(check: Check):
    async def add_hold(conn: Conn, *, id: UUID, user_id: UUID, note_enc: Sealed | None) -> None: ...

    assert check(ADD_HOLD, add_hold) == []

    async def add_plain(conn: Conn, *, id: UUID, user_id: UUID, note_enc: bytes) -> None: ...

    assert check(ADD_HOLD, add_plain) == ["parameter :note_enc is sealed, not bytes: only pii.sealed.Sealed may be"]

    async def add_other(conn: Conn, *, id: UUID, user_id: UUID, note_enc: Other) -> None: ...

    assert check(ADD_HOLD, add_other) == ["parameter :note_enc is sealed, not Other: only pii.sealed.Sealed may be"]


def test_plain_bytes_that_a_cast_lets_in(check: Check):
    async def add_cast(conn: Conn, *, id: UUID, user_id: UUID, note_enc: bytes) -> None: ...

    assert check(ADD_HOLD.replace(":note_enc", ":note_enc::bytea"), add_cast) == [
        "makes a sealed value out of plain bytes: cast the parameter to sealed, or sealed[]"
    ]


def test_plain_bytes_in_a_batch(check: Check):
    async def add_holds(conn: Conn, *, holds: Sequence[NewHold]) -> None: ...

    assert check(ADD_HOLDS.format("sealed"), add_holds) == []

    class PlainHold(Struct, frozen=True):
        id: UUID
        user_id: UUID
        note_enc: bytes | None

    async def add_plain(conn: Conn, *, holds: Sequence[PlainHold]) -> None: ...

    assert check(ADD_HOLDS.format("sealed"), add_plain) == [
        "parameter :holds.note_enc is sealed, not bytes: only pii.sealed.Sealed may be"
    ]
    assert check(ADD_HOLDS.format("bytea"), add_plain) == [
        "makes a sealed value out of plain bytes: cast the parameter to sealed, or sealed[]"
    ]


def test_a_sealed_column_read_as_plain_bytes(check: Check):
    body = "select phone_enc from user_profiles where user_id = :user_id"

    async def get_phone(conn: Conn, *, user_id: UUID) -> bytes | None: ...

    assert check(body, get_phone) == ["column phone_enc is sealed, not bytes: only pii.sealed.Sealed may be"]

    async def get_sealed(conn: Conn, *, user_id: UUID) -> Sealed | None: ...

    assert check(body, get_sealed) == []
    through_cte = f"with x as ({body}) select x.phone_enc from x"
    assert check(through_cte, get_phone) == ["column phone_enc is sealed, not bytes: only pii.sealed.Sealed may be"]

    async def get_index(conn: Conn, *, user_id: UUID) -> Sealed | None: ...

    assert check("select phone_index from user_profiles where user_id = :user_id", get_index) == [
        "column phone_index is bytea, not Sealed"
    ]


# ------------------------------------------------------------------------------------------------- indexes and grants


def test_an_unindexed_query(check: Check):
    async def list_frozen(conn: Conn, *, status: UserStatus) -> list[UUID]: ...

    by_status = "select id from users where status = :status"
    assert check(by_status, list_frozen) == ["no index serves it: it reads all of public.users"]
    # An index that gives the order does not make it a search.
    ordered = f"{by_status} order by id limit 10"
    assert check(ordered, list_frozen) == ["no index serves it: it reads the whole index users_pkey of public.users"]


def test_an_update_without_an_index(check: Check):
    async def set_all(conn: Conn, *, at: datetime) -> None: ...

    assert check("update users set updated_at = :at where closed_at < :at", set_all) == [
        "no index serves it: it reads all of public.users"
    ]


def test_named_exceptions_are_for_their_table_alone(
    checker: Checker, declare: Callable[[str, Callable[..., Any]], Statement]
):
    async def list_frozen(conn: Conn, *, status: UserStatus) -> list[UUID]: ...

    statement = declare("select id from users where status = :status", list_frozen)
    assert checker.check(statement, {"users": "a test"}) == []
    assert checker.check(statement, {"user_profiles": "a test"}) != []


def test_a_statement_that_the_role_may_not_run(check: Check):
    async def take_user(conn: Conn, *, user_id: UUID) -> None: ...

    assert check("delete from users where id = :user_id", take_user) == [
        "the role that runs it may not: permission denied for table users"
    ]


# --------------------------------------------------------------------------------------------------- blocks and stubs


def test_a_missing_block(tmp_path: Path):
    (tmp_path / "bad.sql").write_text("-- name: get_other\nselect 1;\n", encoding="utf-8")
    with pytest.raises(LookupError, match=r"sql/bad\.sql has no block `-- name: get_user`"):
        Sql("bad", directory=tmp_path)(get_user)


def test_a_missing_stub(tmp_path: Path):
    (tmp_path / "bad.sql").write_text(f"-- name: get_user\n{GET_USER};\n-- name: lost\nselect 1;\n", encoding="utf-8")
    sql = Sql("bad", directory=tmp_path)
    sql(get_user)
    assert missing_stubs({"bad": sql.blocks}, sql.statements.values()) == [
        "sql/bad.sql: no stub declares the block lost"
    ]


def test_two_blocks_of_one_name(tmp_path: Path):
    (tmp_path / "bad.sql").write_text("-- name: twice\nselect 1;\n-- name: twice\nselect 2;\n", encoding="utf-8")
    with pytest.raises(ValueError, match="two blocks are called twice"):
        Sql("bad", directory=tmp_path)


def test_an_empty_block_and_sql_without_a_name(tmp_path: Path):
    (tmp_path / "bad.sql").write_text("-- name: nothing\n-- Only words.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the block nothing is empty"):
        Sql("bad", directory=tmp_path)
    (tmp_path / "bad.sql").write_text("select 1;\n-- name: one\nselect 1;\n", encoding="utf-8")
    with pytest.raises(ValueError, match="SQL before the first"):
        Sql("bad", directory=tmp_path)


def test_rows_that_cannot_be_built_by_position(declare: Callable[[str, Callable[..., Any]], Statement]):
    class Loose(Struct):
        id: UUID

    class Keyword(Struct, frozen=True, kw_only=True):
        id: UUID

    async def get_loose(conn: Conn, *, user_id: UUID) -> Loose: ...
    async def get_keyword(conn: Conn, *, user_id: UUID) -> Keyword: ...

    for stub in (get_loose, get_keyword):
        with pytest.raises(TypeError, match="frozen, not kw_only"):
            declare("select id from users where id = :user_id", stub)


def test_numbered_parameters(declare: Callable[[str, Callable[..., Any]], Statement]):
    with pytest.raises(ValueError, match=r"\$1 in the SQL: write :name"):
        declare(GET_USER.replace(":user_id", "$1"), get_user)
