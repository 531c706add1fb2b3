"""The sealed trail as files: exported for somebody outside, and verified there with the public keys alone.

`segments.jsonl` has a segment a line, `rows.jsonl` its rows in their order, `public-keys.json` the keys of the
signatures by version, in hexadecimal. Binary values are base64, as msgspec writes them; personal ones are sealed.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from usercore.db import Db
from usercore.pii.keyring import Keyring
from usercore.trail.actions import (
    Chain,
    Checkpoint,
    Finding,
    SealedRow,
    Segment,
    Verified,
    list_rows,
    list_segments,
    public_key,
)

SEGMENTS, ROWS, KEYS = "segments.jsonl", "rows.jsonl", "public-keys.json"

PublicKeys = dict[int, str]


async def export(
    db: Db,
    keyring: Keyring,
    folder: Path,
    archived: Callable[[int], Awaitable[Sequence[SealedRow]]],
    progress: Callable[[int], None],
) -> int:
    """Write every sealed segment with its rows; the number of rows. The folder is there and empty."""
    keys: PublicKeys = {}
    number = rows = 0
    with (folder / SEGMENTS).open("wb") as segments_out, (folder / ROWS).open("wb") as rows_out:
        while True:
            async with db.snapshot() as conn:
                found = await list_segments(conn, after=number, most=1)
                if not found:
                    break
                segment = found[0]
                there = await list_rows(conn, from_xid=segment.from_xid, to_xid=segment.to_xid)
            if len(there) < segment.count:
                there = sorted([*there, *await archived(segment.number)], key=lambda row: (row.xid, row.event_id))
            segments_out.write(msgspec.json.encode(segment) + b"\n")
            rows_out.writelines(msgspec.json.encode(row) + b"\n" for row in there)
            keys[segment.key_version] = public_key(keyring, segment.key_version).public_bytes_raw().hex()
            number, rows = segment.number, rows + len(there)
            progress(number)
    (folder / KEYS).write_bytes(msgspec.json.encode(keys) + b"\n")
    return rows


def verify_files(folder: Path, keys: PublicKeys, against: Sequence[Checkpoint]) -> Verified:
    """As `trail.verify`, of what was exported. Raises OSError, MsgspecError, and ValueError for a key that is none."""
    public = {version: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for version, key in keys.items()}
    chain = Chain(public.__getitem__, against)
    with (folder / SEGMENTS).open("rb") as segments_in, (folder / ROWS).open("rb") as rows_in:
        rows = _rows(rows_in)
        waiting: SealedRow | None = next(rows, None)
        for line in segments_in:
            segment = msgspec.json.decode(line, type=Segment)
            there: list[SealedRow] = []
            while waiting is not None and waiting.xid < segment.to_xid:
                there.append(waiting)
                waiting = next(rows, None)
            chain.follow(segment, there)
            if chain.finding is not None:
                break
        if chain.finding is None and waiting is not None:
            chain.finding = Finding("inserted", 0, waiting.event_id)
    chain.close()
    return chain.verified(unsealed=0)


def keys_in(folder: Path) -> PublicKeys:
    return msgspec.json.decode((folder / KEYS).read_bytes(), type=PublicKeys)


def _rows(lines: Iterator[bytes]) -> Iterator[SealedRow]:
    decoder = msgspec.json.Decoder(SealedRow)
    return (decoder.decode(line) for line in lines)
