"""pgbench as a rival: the statements that one of our verbs sent, with the same parameters, from C and without us."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import asyncpg
import msgspec
from asyncpg.connection import LoggedQuery
from msgspec import Struct

from usercore import app
from usercore.db import BATCH_SECONDS, Db, all_statements
from usercore.devstack.accounts import reachable_binaries
from usercore.devstack.processes import quiet
from usercore.outbox import Actor
from usercore.profiles.actions import ProfileWriter
from usercore.profiles.profile import ProfilePatch
from usercore.settings import load

_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_PARAMETER = re.compile(r"\$([0-9]+)")
_STATEMENTS = {statement.name: statement for statement in all_statements()}


class Sent(Struct, frozen=True):
    """A statement with its arguments, as it went to PostgreSQL."""

    text: str
    arguments: tuple[Any, ...]


class Script(Struct, frozen=True):
    """A pgbench script and its variables."""

    file: Path
    constants: Mapping[str, str]


def record(environ: Mapping[str, str], user_id: UUID) -> list[Sent]:
    """What a PATCH of one field sends."""
    return asyncio.run(_record(environ, user_id))


async def _record(environ: Mapping[str, str], user_id: UUID) -> list[Sent]:
    sent: list[Sent] = []

    def note(query: LoggedQuery) -> None:
        sent.append(Sent(query.query, tuple(query.args or ())))

    actor = Actor(
        kind="user",
        id=user_id,
        ip="127.0.0.1",
        ip_mac=bytes(34),
        request_id="0" * 32,
        trace_id="0" * 32,
        traceparent=f"00-{'0' * 31}1-{'0' * 15}1-01",
    )
    async with app.opened(load({**environ, "DB_POOL_SIZE": "1"})) as parts:
        writer = ProfileWriter(_Heard(environ["POSTGRES_URL"], note), parts.keyring)
        for name in ("Kiran", "Leela"):  # the first time, PostgreSQL is asked for its types in between
            sent.clear()
            await writer.update(user_id, ProfilePatch(first_name=name), actor)
        await writer.close()
    # The first look is shared with whoever looks at the same moment; a transaction looks at its own user.
    return [Sent(_STATEMENTS["profiles.get_profile"].text, (user_id,)), *sent[1:]]


class _Heard(Db):
    """Says what its dedicated connections send."""

    def __init__(self, url: str, note: Callable[[LoggedQuery], None]) -> None:
        super().__init__(url, min_size=1, max_size=1, name="bench")
        self._note = note

    async def dedicated(self, *, within_s: float = BATCH_SECONDS) -> asyncpg.Connection:
        conn = await super().dedicated(within_s=within_s)
        conn.add_query_logger(self._note)
        return conn


def holding_the_user(statements: Sequence[Sent]) -> list[Sent]:
    """The same reads and writes as one transaction that locks the user first, as the service does after a conflict."""
    user_id = next(argument for sent in statements for argument in sent.arguments if isinstance(argument, UUID))
    lock = Sent(_STATEMENTS["users.lock_user"].text, (user_id,))
    return [Sent("begin", ()), lock, *statements, Sent("commit", ())]


def write_script(file: Path, statements: Sequence[Sent]) -> Script:
    """The script of these statements, in which each client changes a user of its own.

    What differs from one transaction to the next is made by PostgreSQL (ids, times) or comes from the statement before
    (the version); all else is passed as the parameter that it was.
    """
    constants: dict[str, str] = {}
    user_id = next(argument for sent in statements for argument in sent.arguments if isinstance(argument, UUID))
    # A client's variables last: each finds out once which user is its own.
    lines = ["\\if :ready = 0", "select id as me from users order by id offset :client_id limit 1 \\gset"]
    lines += ["\\set ready 1", "\\endif"]
    for sent in statements:
        text = _PARAMETER.sub(lambda match, sent=sent: _value(sent, int(match[1]), user_id, constants), sent.text)
        text = text.rstrip().removesuffix(";")
        # What the change is made of: the version that guards it is used again.
        lines.append(f"{text} \\gset" if _name(sent) == "profiles.get_profile" else f"{text};")
    file.write_text("\n".join(lines) + "\n")
    return Script(file, constants)


def _name(sent: Sent) -> str:
    return sent.text.partition("\n")[0].removeprefix("-- name: ")


def _value(sent: Sent, number: int, user_id: UUID, constants: dict[str, str]) -> str:
    """What stands for $number: an expression, or a variable that holds the argument."""
    parameter = _STATEMENTS[_name(sent)].parameters[number - 1]
    argument = sent.arguments[number - 1]
    if parameter.field == "version":
        return "array[:version]"
    if argument is None:
        return "null"
    if parameter.records:
        return _records(str(argument), user_id, constants)
    if isinstance(argument, list):
        elements = cast("list[object]", argument)
        made = [_made_anew(element, user_id) for element in elements]
        if elements and None not in made:
            return f"array[{', '.join(cast('list[str]', made))}]"
    elif (made := _made_anew(argument, user_id)) is not None:
        return made
    name = f"argument_{len(constants)}"
    constants[name] = _text(argument)
    return f":{name}"


def _records(text: str, user_id: UUID, constants: dict[str, str]) -> str:
    """Records as JSON, of the client's own user and with new ids of their own."""
    name = f"argument_{len(constants)}"
    constants[name] = text
    found = f"replace(:{name}, '{user_id}', :me)"
    for event_id in {record["event_id"] for record in msgspec.json.decode(text)}:
        found = f"replace({found}, '{event_id}', gen_random_uuid()::text)"
    return f"{found}::json"


def _made_anew(value: object, user_id: UUID) -> str | None:
    if value == user_id:
        return ":me"
    if isinstance(value, UUID):
        return "gen_random_uuid()"
    return "now()" if isinstance(value, datetime) else None


def _text(value: object) -> str:
    """PostgreSQL's text format."""
    if isinstance(value, list):
        elements = cast("list[object]", value)
        return "{" + ",".join("null" if each is None else _quoted(_text(each)) for each in elements) + "}"
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def run(url: str, script: Script, *, clients: int, seconds: float) -> float:
    """Transactions a second. Raises RuntimeError when one of them failed."""
    program = reachable_binaries(None, quiet) / "pgbench"
    defined = [f"--define={name}={value}" for name, value in {"ready": "0", **script.constants}.items()]
    command = [str(program), "--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--time={seconds:.0f}"]
    # As the service's own connections, which plan each statement once.
    environ = {**os.environ, "PGOPTIONS": "-c plan_cache_mode=force_generic_plan"}
    done = subprocess.run(
        [*command, *defined, f"--file={script.file}", url], env=environ, capture_output=True, text=True
    )
    rate = _RATE.search(done.stdout)
    if done.returncode or rate is None or "failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return float(rate[1])
