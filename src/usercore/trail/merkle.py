"""Merkle trees as in RFC 9162, section 2.1, proofs, and what a segment's hash and signature cover: pure.

Leaf hashes are there already (`outbox.leaf_hash`), so a tree begins with them. An inner node is SHA-256 over 0x01 and
its two children; a segment's hash is SHA-256 over 0x02 and the MessagePack array of its fields.
"""

import hashlib
from collections.abc import Sequence
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

_canonical = msgspec.msgpack.Encoder()

FIRST = bytes(32)
"""What the first segment has for the hash of the one before."""


class Proof(Struct, frozen=True):
    """That a row is in the trail: RFC 9162's audit path to the root of its segment, and the segment's signature."""

    event_id: UUID
    leaf: str
    index: int
    path: list[str]
    number: int
    from_xid: int
    to_xid: int
    count: int
    root: str
    previous: str
    sealed_at_us: int
    hash: str
    key_version: int
    signature: str
    public_key: str


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; of none it is SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256().digest()
    level = leaves
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of a leaf, from the bottom up."""
    found: list[bytes] = []
    level, at = leaves, index
    while len(level) > 1:
        sibling = at ^ 1
        if sibling < len(level):
            found.append(level[sibling])
        level = _parents(level)
        at //= 2
    return found


def root_of_path(leaf: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes:
    """The root that a leaf and its audit path lead to. Raises ValueError when the path has another length."""
    node, at, last, left = leaf, index, size - 1, list(siblings)
    while last > 0:
        if at % 2 or at < last:
            if not left:
                raise ValueError("the path is too short")
            node = _node(left.pop(0), node) if at % 2 else _node(node, left.pop(0))
        at, last = at // 2, last // 2
    if left:
        raise ValueError("the path is too long")
    return node


def segment_hash(
    number: int, from_xid: int, to_xid: int, count: int, tree_root: bytes, previous: bytes, sealed_at_us: int
) -> bytes:
    """What is signed of a segment, and what the next one chains to."""
    fields = (number, from_xid, to_xid, count, tree_root, previous, sealed_at_us)
    return hashlib.sha256(b"\x02" + _canonical.encode(fields)).digest()


def is_proven(proof: Proof) -> bool:
    """Whether a proof holds, by nothing but itself: its public key has to be known to be ours."""
    try:
        leaf, path = bytes.fromhex(proof.leaf), [bytes.fromhex(node) for node in proof.path]
        tree_root = root_of_path(leaf, proof.index, proof.count, path)
        digest = segment_hash(
            proof.number, proof.from_xid, proof.to_xid, proof.count, tree_root, bytes.fromhex(proof.previous),
            proof.sealed_at_us,
        )  # fmt: skip
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(proof.public_key))
        key.verify(bytes.fromhex(proof.signature), digest)
    except (ValueError, InvalidSignature):
        return False
    return digest.hex() == proof.hash and tree_root.hex() == proof.root


def _parents(level: Sequence[bytes]) -> Sequence[bytes]:
    """Pairs from the left, an odd one goes up as it is: the same tree as splitting at the largest power of two."""
    pairs, sha256 = b"".join(level), hashlib.sha256
    parents = [sha256(b"\x01" + pairs[at : at + 64]).digest() for at in range(0, len(pairs) - 63, 64)]
    return [*parents, level[-1]] if len(level) % 2 else parents


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
