"""Verbs of the sealed trail: seal what is over, verify all of it, prove one row. Transactions begin and end here.

A segment holds the rows of a range of transactions that are over, so no row can come into it late. Segments are chained
and signed: whoever changes a row with the owner's rights would have to sign again.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from usercore import telemetry
from usercore.db import Conn, Db
from usercore.errors import NotFound
from usercore.events import now
from usercore.outbox import leaf_hash, microseconds
from usercore.pii.keyring import Keyring
from usercore.trail import merkle, queries
from usercore.trail.merkle import Proof
from usercore.trail.queries import LeafRow, SealedRow, Segment, SegmentRange

__all__ = ["SealedRow", "Segment", "SegmentRange"]

log = telemetry.logger(__name__)

# What the archive asks of the trail as it lies here.
count_sealed, list_ranges, list_rows = queries.count_sealed, queries.list_ranges, queries.list_rows
list_segments = queries.list_segments

ROWS = 20_000
"""Of a segment, unless one transaction has more: it cannot be split."""
ID_BYTES = 16
ENTRY_BYTES = 48

Kind = Literal["changed", "removed", "inserted", "reordered", "segment", "chain", "signature", "cut"]


class Checkpoint(Struct, frozen=True):
    """What the whole trail up to a segment hangs on: kept elsewhere, it shows when the tail was cut off."""

    number: int
    to_xid: int
    hash: str
    key_version: int
    signature: str


class Finding(Struct, frozen=True):
    """The first thing that is wrong, with the row or the segment that it is about."""

    kind: Kind
    segment: int
    event_id: UUID | None = None


class Verified(Struct, frozen=True):
    """What was looked at. `unsealed` rows are younger than the last segment: their own hashes were checked."""

    segments: int
    rows: int
    unsealed: int
    finding: Finding | None
    checkpoint: Checkpoint | None


class Chain:
    """Follows the segments one after the other, up to the first thing that is wrong: the `finding`."""

    def __init__(
        self, key: Callable[[int], Ed25519PublicKey], against: Sequence[Checkpoint], before: Segment | None = None
    ) -> None:
        """`key` gives the public key of a version; `against` are checkpoints that were kept elsewhere."""
        self._key = key
        self._kept = {checkpoint.number: checkpoint for checkpoint in against}
        self.number, self.end, self._hash = (
            (0, 0, merkle.FIRST) if before is None else (before.number, before.to_xid, before.hash)
        )
        self._skipped, self._rows = self.number, 0
        self._last: Segment | None = None
        self.finding: Finding | None = None

    def follow(self, segment: Segment, rows: Sequence[SealedRow]) -> None:
        """`rows` are those of the segment, in their order."""
        self.finding = self._broken(segment) or first_difference(segment, rows)
        self._last, self.number, self.end, self._hash = segment, segment.number, segment.to_xid, segment.hash
        self._rows += segment.count

    def close(self) -> None:
        """No segment comes any more."""
        if self.finding is None and self._kept and max(self._kept) > self.number:
            self.finding = Finding("cut", max(self._kept))

    def verified(self, unsealed: int) -> Verified:
        checkpoint = None if self._last is None else checkpoint_of(self._last)
        return Verified(self.number - self._skipped, self._rows, unsealed, self.finding, checkpoint)

    def _broken(self, segment: Segment) -> Finding | None:
        """What is wrong with a segment by itself, and with its place in the chain."""
        if (segment.number, segment.from_xid, segment.previous) != (self.number + 1, self.end, self._hash):
            return Finding("chain", segment.number)
        digest = merkle.segment_hash(
            segment.number, segment.from_xid, segment.to_xid, segment.count, segment.root, segment.previous,
            microseconds(segment.sealed_at),
        )  # fmt: skip
        _, leaves = _split(segment)
        if merkle.root(leaves) != segment.root or len(leaves) != segment.count or digest != segment.hash:
            return Finding("segment", segment.number)
        try:
            self._key(segment.key_version).verify(segment.signature, segment.hash)
        except (InvalidSignature, KeyError):
            return Finding("signature", segment.number)
        kept = self._kept.get(segment.number)
        return Finding("chain", segment.number) if kept is not None and kept.hash != segment.hash.hex() else None


Archived = Callable[[int], Awaitable[Sequence[SealedRow]]]
"""The rows of a segment, by its number, that have left PostgreSQL."""


async def nothing_archived(_: int) -> Sequence[SealedRow]:
    """For a trail that is whole in PostgreSQL."""
    return ()


async def seal(db: Db, keyring: Keyring) -> int:
    """Seal the next segment; the number of its rows, 0 when there is nothing to seal or somebody else is at it.

    Raises KeysUnavailable.
    """
    version, seed = keyring.audit_key()
    async with db.begin() as tx:
        if not await queries.has_sealer_lock(tx):
            return 0
        last = await queries.get_last_segment(tx)
        start = 0 if last is None else last.to_xid
        end, leaves = await _next_leaves(tx, start)
        if not leaves:
            return 0
        sealed_at = now()
        number, previous = (1, merkle.FIRST) if last is None else (last.number + 1, last.hash)
        root = merkle.root([leaf.leaf_hash for leaf in leaves])
        digest = merkle.segment_hash(number, start, end, len(leaves), root, previous, microseconds(sealed_at))
        segment = Segment(
            number=number,
            from_xid=start,
            to_xid=end,
            count=len(leaves),
            leaves=b"".join(leaf.event_id.bytes + leaf.leaf_hash for leaf in leaves),
            root=root,
            previous=previous,
            hash=digest,
            sealed_at=sealed_at,
            key_version=version,
            signature=Ed25519PrivateKey.from_private_bytes(seed).sign(digest),
        )
        await queries.add_segment(tx, segment=segment)
    telemetry.metrics.audit_sealed(len(leaves))
    return len(leaves)


async def _next_leaves(tx: Conn, start: int) -> tuple[int, list[LeafRow]]:
    """The leaves of the next segment, and the transaction before which it ends."""
    horizon = await queries.get_horizon(tx)
    leaves = await queries.list_leaves(tx, from_xid=start, to_xid=horizon, most=ROWS + 1)
    if len(leaves) <= ROWS:
        return horizon, leaves
    end = leaves[-1].xid
    whole = [leaf for leaf in leaves if leaf.xid < end]
    if whole:
        return end, whole
    return end + 1, await queries.list_leaves(tx, from_xid=end, to_xid=end + 1, most=2**31 - 1)


async def verify(
    db: Db,
    keyring: Keyring,
    *,
    first: int = 1,
    upto: int | None = None,
    against: Sequence[Checkpoint] = (),
    archived: Archived = nothing_archived,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Hold the whole trail against its segments, up to the first thing that is wrong.

    Of a part, from the segment `first` on and up to `upto`, that it is whole and follows the segment before. `against`
    are checkpoints that were kept elsewhere; `archived` gives the rows of a segment that have left PostgreSQL.

    Raises NotFound when there is no segment before `first`, KeysUnavailable, and what `archived` raises.
    """
    async with db.read() as conn:
        newest = await queries.get_last_segment(conn)
        before = await queries.list_segments(conn, after=first - 2, most=1) if first > 1 else []
    if first > 1 and (not before or before[0].number != first - 1):
        raise NotFound
    chain = Chain(partial(public_key, keyring), against, before[0] if before else None)
    total, tail = 0 if newest is None else newest.number, list[SealedRow]()
    while chain.finding is None and (upto is None or chain.number < upto):
        # A sealed segment does not change, so each is looked at by itself: nothing is held for the whole of it.
        async with db.snapshot() as conn:
            found = await queries.list_segments(conn, after=chain.number, most=1)
            if not found:
                tail = await queries.list_rows(conn, from_xid=chain.end, to_xid=None)
                break
            there = await queries.list_rows(conn, from_xid=found[0].from_xid, to_xid=found[0].to_xid)
        if len(there) < found[0].count:
            there = sorted([*there, *await archived(found[0].number)], key=lambda row: (row.xid, row.event_id))
        chain.follow(found[0], there)
        progress(chain.number, max(total, chain.number))
    if upto is None:
        chain.close()
    if chain.finding is None:
        changed = next((row for row in tail if leaf_of(row) != row.leaf_hash), None)
        chain.finding = None if changed is None else Finding("changed", 0, changed.event_id)
    return chain.verified(len(tail))


async def get_newest(db: Db) -> Checkpoint | None:
    """The checkpoint of the whole trail as it is sealed now."""
    async with db.snapshot() as conn:
        last = await queries.get_last_segment(conn)
        segments = [] if last is None else await queries.list_segments(conn, after=last.number - 1, most=1)
    return checkpoint_of(segments[0]) if segments else None


async def prove(db: Db, keyring: Keyring, event_id: UUID) -> Proof:
    """That a row is in the sealed trail. Raises NotFound for one that is not there or not sealed yet."""
    async with db.snapshot() as conn:
        xid = await queries.get_row_xid(conn, event_id=event_id)
        segment = None if xid is None else await queries.get_segment_of(conn, xid=xid)
    if segment is None:
        raise NotFound
    ids, leaves = _entries(segment)
    if event_id not in ids:
        raise NotFound
    index = ids.index(event_id)
    return Proof(
        event_id=event_id,
        leaf=leaves[index].hex(),
        index=index,
        path=[node.hex() for node in merkle.path(leaves, index)],
        number=segment.number,
        from_xid=segment.from_xid,
        to_xid=segment.to_xid,
        count=segment.count,
        root=segment.root.hex(),
        previous=segment.previous.hex(),
        sealed_at_us=microseconds(segment.sealed_at),
        hash=segment.hash.hex(),
        key_version=segment.key_version,
        signature=segment.signature.hex(),
        public_key=public_key(keyring, segment.key_version).public_bytes_raw().hex(),
    )


def first_difference(segment: Segment, rows: Sequence[SealedRow]) -> Finding | None:
    """The first row that is not what was sealed."""
    # Nearly always all is as it was, and one look at all of it is enough.
    made = b"".join([row.event_id.bytes + leaf_of(row) for row in rows])
    if made == segment.leaves == b"".join([row.event_id.bytes + row.leaf_hash for row in rows]):
        return None
    ids, leaves = _entries(segment)
    there, sealed = {row.event_id for row in rows}, set(ids)
    for at, row in enumerate(rows):
        if at < len(ids) and row.event_id == ids[at]:
            if leaf_of(row) != leaves[at] or row.leaf_hash != leaves[at]:
                return Finding("changed", segment.number, row.event_id)
        elif row.event_id not in sealed:
            return Finding("inserted", segment.number, row.event_id)
        elif at < len(ids) and ids[at] not in there:
            return Finding("removed", segment.number, ids[at])
        else:
            return Finding("reordered", segment.number, row.event_id)
    return Finding("removed", segment.number, ids[len(rows)])


def _entries(segment: Segment) -> tuple[list[UUID], list[bytes]]:
    """The event ids of a segment and their leaf hashes, in their order."""
    ids, leaves = _split(segment)
    return [UUID(bytes=each) for each in ids], leaves


def _split(segment: Segment) -> tuple[list[bytes], list[bytes]]:
    parts = [segment.leaves[at : at + ENTRY_BYTES] for at in range(0, len(segment.leaves), ENTRY_BYTES)]
    return [part[:ID_BYTES] for part in parts], [part[ID_BYTES:] for part in parts]


def leaf_of(row: SealedRow) -> bytes:
    """The leaf hash of a row, made anew from what it says."""
    return leaf_hash(
        row.event_id,
        row.user_id,
        row.actor_id,
        row.actor_kind,
        row.client,
        row.action,
        row.resource,
        row.old_value,
        row.new_value,
        row.ip_mac,
        row.timestamp,
        row.scope,
        row.purpose,
        row.request_id,
        row.trace_id,
    )


def checkpoint_of(segment: Segment) -> Checkpoint:
    """What the trail up to this segment hangs on."""
    return Checkpoint(segment.number, segment.to_xid, segment.hash.hex(), segment.key_version, segment.signature.hex())


def public_key(keyring: Keyring, version: int) -> Ed25519PublicKey:
    """With which a segment's signature is verified. Raises KeysUnavailable."""
    return Ed25519PrivateKey.from_private_bytes(keyring.audit_key(version)[1]).public_key()
