"""The sealed trail: what was done to it behind the service's back is found, and the first bad row has a name."""

import asyncio
import hashlib
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from tests.databases import DatabaseUrls
from usercore import telemetry
from usercore.db import Conn
from usercore.errors import NotFound
from usercore.outbox import SYSTEM, Change, leaf_hash, record
from usercore.trail import merkle
from usercore.trail.actions import prove, seal, verify
from usercore.trail.merkle import is_proven
from usercore.users.actions import create_user
from usercore.worker import Parts

OPEN = "alter table user_audit disable trigger all; alter table audit_segments disable trigger all"
ROW = "(select event_id from user_audit order by xid, event_id offset 5 limit 1)"


async def users(parts: Parts, count: int) -> None:
    for _ in range(count):
        await create_user(parts.db, parts.keyring, uuid4(), None, SYSTEM)


async def all_sealed(parts: Parts) -> int:
    rows = 0
    while sealed := await seal(parts.db, parts.keyring):
        rows += sealed
    return rows


async def a_trail(parts: Parts) -> None:
    """Three segments of four rows."""
    for _ in range(3):
        await users(parts, 4)
        assert await all_sealed(parts) == 4


async def a_row(owner: Conn, number: int) -> UUID:
    found = await owner.fetchval("select event_id from user_audit order by xid, event_id offset $1 limit 1", number)
    assert found is not None
    return UUID(str(found))


async def test_an_untouched_trail_verifies(parts: Parts, owner: Conn) -> None:
    await a_trail(parts)
    await users(parts, 2)
    steps: list[tuple[int, int]] = []
    found = await verify(parts.db, parts.keyring, progress=lambda done, total: steps.append((done, total)))
    assert (found.segments, found.rows, found.unsealed, found.finding) == (3, 12, 2, None)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert await seal(parts.db, parts.keyring) == 2
    assert await seal(parts.db, parts.keyring) == 0
    # With what was kept of it the whole of it still verifies, and from then on it has to be the same.
    assert found.checkpoint is not None
    assert (await verify(parts.db, parts.keyring, against=[found.checkpoint])).finding is None


Edit = tuple[str, str, int]

EDITS: dict[str, Edit] = {
    "a value": (f"update user_audit set new_value = '{{}}' where event_id = {ROW}", "changed", 5),
    "who did it": (f"update user_audit set actor_id = gen_random_uuid() where event_id = {ROW}", "changed", 5),
    "the time": (
        f"update user_audit set timestamp = timestamp + interval '1 microsecond' where event_id = {ROW}",
        "changed",
        5,
    ),
    "the digest of the address": (f"update user_audit set ip_mac = 'x' where event_id = {ROW}", "changed", 5),
    "the leaf": (f"update user_audit set leaf_hash = sha256('x') where event_id = {ROW}", "changed", 5),
    "a row is removed": (f"delete from user_audit where event_id = {ROW}", "removed", 5),
    "the last row of a segment is removed": (
        "delete from user_audit where event_id = "
        "(select event_id from user_audit order by xid, event_id offset 7 limit 1)",
        "removed",
        7,
    ),
    "two rows change places": (
        "update user_audit a set xid = b.xid from user_audit b where "
        "(a.xid, b.xid) in (select min(xid), max(xid) from (select xid from user_audit order by xid limit 8) x "
        "where xid >= (select from_xid from audit_segments where number = 2)) ",
        "reordered",
        5,
    ),
    "a whole segment of rows is removed": (
        "delete from user_audit a using audit_segments s "
        "where s.number = 2 and a.xid >= s.from_xid and a.xid < s.to_xid",
        "removed",
        4,
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_an_edit_of_a_row_is_found(parts: Parts, owner: Conn, edit: Edit) -> None:
    statement, kind, row = edit
    await a_trail(parts)
    wanted = await a_row(owner, row)
    await owner.execute(OPEN)
    assert await owner.execute(statement) != "UPDATE 0"
    found = (await verify(parts.db, parts.keyring)).finding
    assert found is not None
    assert (found.kind, found.segment, found.event_id) == (kind, 2, wanted)


async def test_a_row_that_was_slipped_in_is_found(parts: Parts, owner: Conn) -> None:
    await a_trail(parts)
    await owner.execute(OPEN)
    slipped = uuid4()
    await owner.execute(
        "insert into user_audit select ($1::uuid), user_id, actor_id, actor_kind, client, action, resource, old_value, "
        "new_value, ip_addr, ip_mac, timestamp, scope, purpose, request_id, trace_id, leaf_hash, xid "
        f"from user_audit where event_id = {ROW}",
        slipped,
    )
    found = (await verify(parts.db, parts.keyring)).finding
    assert found is not None
    assert (found.kind, found.event_id) == ("inserted", slipped)


SEGMENTS: dict[str, tuple[str, str, int]] = {
    "leaves": ("update audit_segments set leaves = overlay(leaves placing 'x' from 20) where number = 2", "segment", 2),
    "root": ("update audit_segments set root = sha256('x') where number = 2", "segment", 2),
    "time": ("update audit_segments set sealed_at = sealed_at + interval '1 s' where number = 2", "segment", 2),
    "hash": ("update audit_segments set hash = sha256('x') where number = 2", "segment", 2),
    "signature": (
        "update audit_segments set signature = decode(repeat('00', 64), 'hex') where number = 2",
        "signature",
        2,
    ),
    "one is gone": ("delete from audit_segments where number = 2", "chain", 3),
    "the first is gone": ("delete from audit_segments where number = 1", "chain", 2),
    "another chain": ("update audit_segments set previous = sha256('x') where number = 2", "chain", 2),
}


@pytest.mark.parametrize("edit", SEGMENTS.values(), ids=SEGMENTS)
async def test_an_edit_of_a_segment_is_found(parts: Parts, owner: Conn, edit: tuple[str, str, int]) -> None:
    statement, kind, segment = edit
    await a_trail(parts)
    await owner.execute(OPEN)
    await owner.execute(statement)
    found = (await verify(parts.db, parts.keyring)).finding
    assert found is not None
    assert (found.kind, found.segment) == (kind, segment)


async def test_a_tail_that_was_cut_off_shows_against_a_checkpoint(parts: Parts, owner: Conn) -> None:
    """As after a restore of yesterday's backup: what is left is whole by itself."""
    await a_trail(parts)
    kept = (await verify(parts.db, parts.keyring)).checkpoint
    assert kept is not None
    await owner.execute(OPEN)
    await owner.execute("delete from user_audit a using audit_segments s where s.number = 3 and a.xid >= s.from_xid")
    await owner.execute("delete from audit_segments where number = 3")
    assert (await verify(parts.db, parts.keyring)).finding is None
    found = (await verify(parts.db, parts.keyring, against=[kept])).finding
    assert found is not None
    assert (found.kind, found.segment) == ("cut", 3)
    # And when it has grown again since, it is another chain.
    await users(parts, 2)
    await all_sealed(parts)
    found = (await verify(parts.db, parts.keyring, against=[kept])).finding
    assert found is not None
    assert (found.kind, found.segment) == ("chain", 3)


async def test_a_young_row_is_held_against_its_own_hash(parts: Parts, owner: Conn) -> None:
    await a_trail(parts)
    await users(parts, 1)
    young = await a_row(owner, 12)
    await owner.execute(OPEN)
    await owner.execute("update user_audit set resource = 'nothing' where event_id = $1", young)
    found = (await verify(parts.db, parts.keyring)).finding
    assert found is not None
    assert (found.kind, found.event_id) == ("changed", young)


async def test_nobody_edits_by_accident(parts: Parts, owner: Conn, database: DatabaseUrls) -> None:
    await a_trail(parts)
    app = await asyncpg.connect(database.app)
    try:
        for connection in (app, owner):
            for statement in ("update audit_segments set count = 1", "delete from audit_segments"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    finally:
        await app.close()


async def test_a_part_is_verified(parts: Parts, owner: Conn) -> None:
    await a_trail(parts)
    found = await verify(parts.db, parts.keyring, first=2)
    assert (found.segments, found.rows, found.finding) == (2, 8, None)
    found = await verify(parts.db, parts.keyring, first=2, upto=2)
    assert (found.segments, found.rows, found.unsealed, found.finding) == (1, 4, 0, None)
    await owner.execute(OPEN)
    event = await a_row(owner, 9)
    await owner.execute("update user_audit set resource = 'nothing' where event_id = $1", event)
    assert (await verify(parts.db, parts.keyring, upto=2)).finding is None
    found = await verify(parts.db, parts.keyring, first=3)
    assert found.finding is not None
    assert (found.finding.kind, found.finding.segment, found.finding.event_id) == ("changed", 3, event)
    with pytest.raises(NotFound):
        await verify(parts.db, parts.keyring, first=5)
    # The segment before is not looked at, but the part has to follow it.
    await owner.execute("update audit_segments set hash = sha256(hash) where number = 1")
    found = await verify(parts.db, parts.keyring, first=2)
    assert found.finding is not None
    assert (found.finding.kind, found.finding.segment) == ("chain", 2)


async def test_a_trail_that_64_write_at_once_verifies(parts: Parts) -> None:
    """10⁵ rows, sealed while they come, in transactions of 25."""

    async def writer() -> None:
        for _ in range(63):
            change = Change(action="profile.read", user_id=uuid4(), resource="user_profiles", new={"fields": ["phone"]})
            async with parts.db.begin() as tx:
                await record(tx, *[change] * 25, actor=SYSTEM)

    async def sealer(over: asyncio.Event) -> None:
        while not over.is_set():
            await seal(parts.db, parts.keyring)
            await asyncio.sleep(0)

    over = asyncio.Event()
    sealing = asyncio.create_task(sealer(over))
    await asyncio.gather(*(writer() for _ in range(64)))
    over.set()
    await sealing
    await all_sealed(parts)
    found = await verify(parts.db, parts.keyring)
    assert (found.rows, found.unsealed, found.finding) == (64 * 63 * 25, 0, None)
    assert found.segments > 5


async def test_who_commits_late_is_not_left_out(parts: Parts, owner: Conn, database: DatabaseUrls) -> None:
    """A transaction that is open while others are sealed: nothing of its time is sealed before it is over."""
    await users(parts, 2)
    late = await asyncpg.connect(database.app)
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(
            "insert into user_audit (event_id, actor_kind, action, resource, timestamp, leaf_hash) "
            "values (gen_random_uuid(), 'system', 'user.created', 'users', now(), sha256('x'))"
        )
        await users(parts, 2)
        assert await all_sealed(parts) == 2, "those before it"
        await users(parts, 2)
        await transaction.commit()
    finally:
        await late.close()
    assert await all_sealed(parts) == 5
    assert await owner.fetchval("select sum(count) from audit_segments") == 7


async def test_many_writers_and_sealers(parts: Parts, owner: Conn) -> None:
    stop = asyncio.Event()

    async def sealing() -> None:
        while not stop.is_set():
            await seal(parts.db, parts.keyring)

    sealers = [asyncio.create_task(sealing()) for _ in range(2)]
    await asyncio.gather(*(users(parts, 20) for _ in range(16)))
    stop.set()
    await asyncio.gather(*sealers)
    await all_sealed(parts)
    found = await verify(parts.db, parts.keyring)
    assert (found.finding, found.rows, found.unsealed) == (None, 320, 0)
    assert found.segments > 1


async def test_a_proof(parts: Parts, owner: Conn) -> None:
    await a_trail(parts)
    await users(parts, 1)
    for number in range(12):
        proof = await prove(parts.db, parts.keyring, await a_row(owner, number))
        assert is_proven(proof)
        for bad in (
            replace(proof, leaf="00" * 32),
            replace(proof, index=(proof.index + 1) % 4),
            replace(proof, number=proof.number + 1),
            replace(proof, signature="00" * 64),
            replace(proof, path=proof.path[:-1]),
            replace(proof, public_key="11" * 32),
        ):
            assert not is_proven(bad)
    for unknown in (await a_row(owner, 12), uuid4()):
        with pytest.raises(NotFound):
            await prove(parts.db, parts.keyring, unknown)


def test_the_canonical_bytes_of_a_row() -> None:
    """As decision 13 says them: any MessagePack library makes them, in ten years too."""
    user, at = UUID("6f0c1f2e-5a0b-4d52-9d0e-3f6f2a1c9b11"), datetime(2026, 1, 15, 9, 30, 0, 1, tzinfo=UTC)
    made = leaf_hash(
        user, user, None, "user", None, "profile.read", "users", None, "{}", b"mac", at, "s", "support", "r", None
    )
    fields = [
        user.bytes, user.bytes, None, "user", None, "profile.read", "users", None, "{}", b"mac", 1_768_469_400_000_001,
        "s", "support", "r", None,
    ]  # fmt: skip
    assert made == hashlib.sha256(b"\0" + msgspec.msgpack.encode(fields)).digest()


def _rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, as it is written: split at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle._node(_rfc_root(leaves[:split]), _rfc_root(leaves[split:]))


@pytest.mark.parametrize("size", [*range(1, 34), 100, 255, 256, 257])
def test_trees_and_paths(size: int) -> None:
    leaves = [bytes([number % 256, number // 256]) * 16 for number in range(size)]
    root = merkle.root(leaves)
    assert root == _rfc_root(leaves)
    for index in range(size):
        path = merkle.path(leaves, index)
        assert merkle.root_of_path(leaves[index], index, size, path) == root
        with pytest.raises(ValueError, match="path"):
            merkle.root_of_path(leaves[index], index, size, [*path, root])


async def test_rows_are_counted(parts: Parts) -> None:
    before = _sealed_total()
    await a_trail(parts)
    assert _sealed_total() - before == 12


def _sealed_total() -> float:
    text = telemetry.metrics.render()[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("usercore_audit_sealed_rows_total ")]
    return sum(float(line.split()[1]) for line in lines)
