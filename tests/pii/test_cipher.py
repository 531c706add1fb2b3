"""Both ciphers against the same known answers, and against each other."""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.errors import OpenFailed
from usercore.pii.cipher import Cipher, CipherFactory, CipherName, CryptographyCipher, PycryptodomeCipher, cipher


class Vector(msgspec.Struct, frozen=True):
    source: str
    key: str
    nonce: str
    plaintext: str
    aad: str
    ciphertext: str
    tag: str


VECTORS = msgspec.convert(
    json.loads((Path(__file__).parent / "vectors/aes_256_gcm.json").read_text()), type=list[Vector]
)
FACTORIES: list[CipherFactory] = [cipher(name) for name in get_args(CipherName)]
ciphers = pytest.mark.parametrize("factory", FACTORIES, ids=get_args(CipherName))
keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=12, max_size=12)


def test_both_names_are_different_ciphers():
    assert tuple(FACTORIES) == (CryptographyCipher, PycryptodomeCipher)


@ciphers
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.source.rpartition(",")[2].strip())
def test_known_answers(factory: CipherFactory, vector: Vector):
    sealed = bytes.fromhex(vector.ciphertext + vector.tag)
    one = factory(bytes.fromhex(vector.key))
    nonce, plaintext, aad = (bytes.fromhex(text) for text in (vector.nonce, vector.plaintext, vector.aad))
    assert one.seal(nonce, plaintext, aad) == sealed
    assert one.open(nonce, sealed, aad) == plaintext


@ciphers
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.source.rpartition(",")[2].strip())
def test_every_flipped_bit_is_refused(factory: CipherFactory, vector: Vector):
    sealed = bytes.fromhex(vector.ciphertext + vector.tag)
    one = factory(bytes.fromhex(vector.key))
    nonce, aad = bytes.fromhex(vector.nonce), bytes.fromhex(vector.aad)
    for bit in range(0, len(sealed) * 8, 5):
        _refused(one, nonce, _flip(sealed, bit), aad)
    for bit in range(96):
        _refused(one, _flip(nonce, bit), sealed, aad)
    for bit in range(len(aad) * 8):
        _refused(one, nonce, sealed, _flip(aad, bit))
    _refused(one, nonce, sealed, aad + b"\0")


@given(key=keys, nonce=nonces, plaintext=st.binary(max_size=300), aad=st.binary(max_size=100))
def test_what_one_seals_the_other_opens(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes):
    first, second = (factory(key) for factory in FACTORIES)
    assert first.seal(nonce, plaintext, aad) == second.seal(nonce, plaintext, aad)
    assert second.open(nonce, first.seal(nonce, plaintext, aad), aad) == plaintext
    assert first.open(nonce, second.seal(nonce, plaintext, aad), aad) == plaintext


@ciphers
@given(ciphertext=st.binary(max_size=40))
def test_anything_else_is_refused_with_one_error(factory: CipherFactory, ciphertext: bytes):
    _refused(factory(bytes(32)), bytes(12), ciphertext, b"")


@ciphers
@pytest.mark.parametrize("size", [0, 16, 24, 31, 33, 64])
def test_only_keys_of_256_bits(factory: CipherFactory, size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        factory(bytes(size))


@ciphers
@pytest.mark.parametrize("size", [0, 8, 11, 13, 16])
def test_only_nonces_of_96_bits(factory: CipherFactory, size: int):
    one = factory(bytes(32))
    with pytest.raises(ValueError, match="12 bytes"):
        one.seal(bytes(size), b"", b"")
    with pytest.raises(ValueError, match="12 bytes"):
        one.open(bytes(size), bytes(16), b"")


def _refused(one: Cipher, nonce: bytes, sealed: bytes, aad: bytes) -> None:
    with pytest.raises(OpenFailed) as failure:
        one.open(nonce, sealed, aad)
    assert failure.value.reason == "corrupt"


def _flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]
