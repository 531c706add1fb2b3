"""The sealed stream: whole and in order, or not at all."""

import os
from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import pytest

from usercore.errors import OpenFailed
from usercore.pii.cipher import CipherFactory, CryptographyCipher, PycryptodomeCipher
from usercore.pii.streams import CHUNK, Sealing, opened

KEY = bytes(range(32))
DOCUMENT = UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11")
HEADER = 18
SEALED_CHUNK = CHUNK + 16


def sealed(plaintext: bytes, *, key: bytes = KEY, document: UUID = DOCUMENT, step: int = 10_000) -> bytes:
    sealing = Sealing(CryptographyCipher, key, document)
    for start in range(0, len(plaintext), step):
        sealing.add(plaintext[start : start + step])
    sealing.finish()
    return bytes(sealing.sealed)


async def pieces(data: bytes, step: int) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


async def unsealed(
    data: bytes,
    *,
    key: bytes = KEY,
    document: UUID = DOCUMENT,
    step: int = 100_000,
    cipher: CipherFactory = CryptographyCipher,
) -> bytes:
    return b"".join([chunk async for chunk in opened(cipher, key, document, pieces(data, step))])


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
@pytest.mark.parametrize("step", [7919, CHUNK, 10 * CHUNK])
async def test_round_trip(size: int, step: int) -> None:
    plaintext = os.urandom(size)
    data = sealed(plaintext, step=step)
    assert len(data) == HEADER + size + 16 * max(1, -(-size // CHUNK))
    assert await unsealed(data, step=step) == plaintext
    assert await unsealed(data, step=step, cipher=PycryptodomeCipher) == plaintext


def test_nothing_is_in_clear_and_nothing_is_the_same_twice() -> None:
    plaintext = b"%PDF-1.7 of somebody " * 10_000
    first, second = sealed(plaintext), sealed(plaintext)
    assert b"somebody" not in first
    assert first[HEADER : HEADER + 64] != second[HEADER : HEADER + 64]


PLAINTEXT = os.urandom(3 * CHUNK + 100)
STREAM = sealed(PLAINTEXT)
OTHER = sealed(PLAINTEXT)
CHUNKS = [STREAM[start : start + SEALED_CHUNK] for start in range(HEADER, len(STREAM), SEALED_CHUNK)]
OTHERS = [OTHER[start : start + SEALED_CHUNK] for start in range(HEADER, len(OTHER), SEALED_CHUNK)]


def put_together(*chunks: bytes) -> bytes:
    return STREAM[:HEADER] + b"".join(chunks)


def flipped(at: int) -> bytes:
    changed = bytearray(STREAM)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(flipped(0), id="another format"),
        pytest.param(flipped(5), id="another salt"),
        pytest.param(flipped(HEADER), id="a bit of the first chunk"),
        pytest.param(flipped(HEADER + SEALED_CHUNK - 1), id="a bit of a tag"),
        pytest.param(flipped(len(STREAM) - 20), id="a bit of the last chunk"),
        pytest.param(put_together(CHUNKS[1], CHUNKS[0], *CHUNKS[2:]), id="two chunks swapped"),
        pytest.param(put_together(CHUNKS[0], CHUNKS[0], *CHUNKS[2:]), id="one chunk twice"),
        pytest.param(put_together(*CHUNKS[:3]), id="cut off between chunks"),
        pytest.param(put_together(CHUNKS[0]), id="the first chunk alone"),
        pytest.param(put_together(*CHUNKS[1:]), id="without the first chunk"),
        pytest.param(put_together(CHUNKS[0], *CHUNKS[2:]), id="without one in the middle"),
        pytest.param(put_together(CHUNKS[3]), id="the last chunk alone"),
        pytest.param(put_together(*CHUNKS, CHUNKS[3]), id="the last chunk twice"),
        pytest.param(put_together(CHUNKS[0], OTHERS[1], *CHUNKS[2:]), id="a chunk of another upload"),
        pytest.param(STREAM[:-1], id="cut off inside the last chunk"),
        pytest.param(STREAM[: HEADER + 100], id="cut off inside the first chunk"),
        pytest.param(STREAM[:HEADER], id="a header alone"),
        pytest.param(STREAM[: HEADER - 1], id="half a header"),
        pytest.param(STREAM + b"\0", id="a byte more"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_was_changed_does_not_open(data: bytes) -> None:
    with pytest.raises(OpenFailed):
        await unsealed(data)


async def test_what_is_given_before_a_bad_chunk_is_good() -> None:
    given: list[bytes] = []
    chunks = opened(CryptographyCipher, KEY, DOCUMENT, pieces(flipped(HEADER + 2 * SEALED_CHUNK + 5), 1000))
    given += [await anext(chunks), await anext(chunks)]
    with pytest.raises(OpenFailed):
        await anext(chunks)
    assert b"".join(given) == PLAINTEXT[: 2 * CHUNK]


@pytest.mark.parametrize(
    ("key", "document"), [(os.urandom(32), DOCUMENT), (KEY, uuid4())], ids=["another key", "another document"]
)
async def test_it_opens_with_its_own_key_for_its_own_document_only(key: bytes, document: UUID) -> None:
    with pytest.raises(OpenFailed):
        await unsealed(STREAM, key=key, document=document)
