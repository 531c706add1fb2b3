"""Whether a profile kept in Redis would help the masked read of GET /internal/users/{id}.

The rival does less than a cache could: its audited statement returns the version alone, and the key that opens what
Redis keeps is at hand, though it would have to come with the row.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast
from uuid import UUID, uuid4

import msgspec
import redis.asyncio

from bench.report import Result, cheaper, compare
from bench.servers import Servers
from usercore import app
from usercore.batcher import Batcher
from usercore.db import Conn, all_statements
from usercore.errors import AuditUnavailable
from usercore.outbox import SYSTEM, Actor, AuditRow, Change, audit_row
from usercore.pii.classification import ADDRESS
from usercore.pii.sealed import Sealed
from usercore.profiles.actions import (
    READ_MASKED,
    Me,
    ProfilePatch,
    ProfileReader,
    ProfileWriter,
    keys_of,
    mask,
)
from usercore.profiles.profile import AddressPatch
from usercore.settings import load
from usercore.users.actions import add_users

USERS = 200
CLIENTS = 64
ROUNDS = 7
ROUND_S = 1.0
ADMIN = Actor(kind="admin", client="backoffice")
PROFILE = ProfilePatch(
    first_name="Asha",
    last_name="Verma",
    phone="+919876543210",
    pan_number="ABCPV1234F",
    address=AddressPatch(line1="14 MG Road", city="Pune", state="Maharashtra", pin_code="411001"),
)
Read = Callable[[UUID], Awaitable[Me]]


def run(servers: Servers) -> list[Result]:
    return asyncio.run(_run(servers.environ("bench_cache")))


async def _run(environ: dict[str, str]) -> list[Result]:
    settings = load(environ)
    async with app.opened(settings) as parts:
        users = [uuid4() for _ in range(USERS)]
        async with parts.db.begin() as tx:
            await add_users(tx, parts.keyring, [(user_id, "asha@example.in") for user_id in sorted(users)], SYSTEM)
        light = Batcher(
            parts.db.dedicated, prepare=_audit_row, run=_versions, finish=_same, refusal=lambda _: AuditUnavailable()
        )
        client = redis.asyncio.Redis.from_url(settings.redis_url.reveal())
        reader = ProfileReader(parts.db.dedicated, parts.keyring, _unseen)
        writer = ProfileWriter(parts.db, parts.keyring)
        for user_id in users:
            await writer.update(user_id, PROFILE, SYSTEM)
        await writer.close()
        async with parts.db.begin() as tx:
            keys = {user_id: await keys_of(tx, parts.keyring, user_id, ADDRESS.retention) for user_id in users}

        async def from_row(user_id: UUID) -> Me:
            me, _ = await reader.read(user_id, ADMIN, READ_MASKED)
            return mask(me, ())

        for user_id in users:
            blob = keys[user_id].seal(ADDRESS, msgspec.json.encode(await from_row(user_id)).decode())
            await cast("Awaitable[object]", client.set(f"{user_id}", bytes(blob)))

        async def from_redis(user_id: UUID) -> Me:
            blob, _ = await asyncio.gather(cast("Awaitable[bytes]", client.get(f"{user_id}")), light.read(user_id))
            return msgspec.json.decode(keys[user_id].open(ADDRESS, Sealed(blob)).reveal(), type=Me)

        assert await from_redis(users[0]) == await from_row(users[0])
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(await _load(from_row, users))
            theirs.append(await _load(from_redis, users))
        await reader.close()
        await light.close()
        await client.aclose()
    rates = [[rate for rate, _ in each] for each in (ours, theirs)]
    costs = [[cpu_us for _, cpu_us in each] for each in (ours, theirs)]
    return [
        compare("cache", "masked read, opened from the row", rates[0], "kept in Redis", rates[1]),
        cheaper("cache", "CPU of it in our process", costs[0], "kept in Redis", costs[1]),
    ]


def _unseen(outcome: str, rows: int) -> None:
    pass


_FULL = next(each.text for each in all_statements() if each.name == "profiles.read_profiles")
_LIGHT = _FULL.partition("\nselect\n    found.*")[0] + (
    "\nselect u.version from readers r cross join lateral"
    " (select version from users where users.id = r.user_id offset 0) as u"
)


def _audit_row(user_id: UUID) -> AuditRow:
    change = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ_MASKED)
    return audit_row(change, ADMIN)


def _same(version: int) -> int:
    return version


async def _versions(conn: Conn, reads: Sequence[AuditRow]) -> list[int]:
    return [row["version"] for row in await conn.fetch(_LIGHT, msgspec.json.encode(reads).decode())]


async def _load(read: Read, users: Sequence[UUID]) -> tuple[float, float]:
    """Reads a second of so many clients, and the microseconds of CPU that each took here."""
    until, count = time.perf_counter() + ROUND_S, 0

    async def client(number: int) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await read(users[(number * 31 + count) % USERS])
            count += 1

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1e6
