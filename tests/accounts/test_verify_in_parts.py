"""A long trail is verified by several processes: together they look at all of it, and find what one would find."""

import itertools
from uuid import uuid4

import msgspec
import pytest

from tests.accounts.test_commands import run
from tests.accounts.test_sealed_trail import OPEN, a_row
from usercore.commands.audit_parts import cut
from usercore.db import Conn
from usercore.outbox import SYSTEM
from usercore.trail.actions import Verified, seal, verify
from usercore.users.actions import create_user
from usercore.worker import Parts

SEGMENTS = 40


async def a_long_trail(parts: Parts) -> None:
    for _ in range(SEGMENTS):
        await create_user(parts.db, parts.keyring, uuid4(), None, SYSTEM)
        assert await seal(parts.db, parts.keyring) == 1
    await create_user(parts.db, parts.keyring, uuid4(), None, SYSTEM)


async def verified(environ: dict[str, str], *options: str) -> tuple[int, Verified]:
    code, said, errors = await run(environ, "audit-verify", "--json", *options)
    assert said, errors
    return code, msgspec.json.decode(said, type=Verified)


async def test_processes_find_what_one_finds(parts: Parts, owner: Conn, environ: dict[str, str]) -> None:
    await a_long_trail(parts)
    whole = await verify(parts.db, parts.keyring)
    assert (whole.segments, whole.rows, whole.unsealed) == (SEGMENTS, SEGMENTS, 1)
    for jobs in ("1", "3"):
        assert await verified(environ, "--jobs", jobs) == (0, whole)
    code, part = await verified(environ, "--jobs", "2", "--from", "7", "--to", "33")
    assert (code, part.segments, part.rows, part.unsealed) == (0, 27, 27, 0)

    await owner.execute(OPEN)
    for row in [await a_row(owner, number) for number in (11, 29)]:
        await owner.execute("update user_audit set client = 'nobody' where event_id = $1", row)
    first = (await verify(parts.db, parts.keyring)).finding
    assert first is not None
    code, found = await verified(environ, "--jobs", "3")
    assert (code, found.finding) == (1, first)
    code, _, errors = await run(environ, "audit-verify", "--jobs", "3", "--from", "99")
    assert code == 1
    assert "Not found" in errors


@pytest.mark.parametrize(
    ("first", "upto", "newest"), [(1, None, 0), (1, None, 1), (1, 900, 40), (7, 33, 40), (9, None, 40)]
)
def test_parts_are_the_whole(first: int, upto: int | None, newest: int) -> None:
    parts = cut(first, upto, newest, 2)
    assert parts[0].first == first
    assert parts[-1].last == upto
    for part, following in itertools.pairwise(parts):
        assert part.last is not None
        assert part.first <= part.last == following.first - 1
