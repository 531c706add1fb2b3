"""The sealed field's bytes: padding, header, and a repr that says nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.errors import OpenFailed
from usercore.pii.cipher import CryptographyCipher
from usercore.pii.sealed import LARGEST_DOUBLING, Plain, bucket, header, key_version, pad, seal, unseal

CIPHER = CryptographyCipher(bytes(range(32)))


@given(st.binary(max_size=20_000))
def test_padding_is_a_length_and_zeros(value: bytes):
    padded = pad(value)
    assert padded[: 4 + len(value)] == len(value).to_bytes(4, "big") + value
    assert not padded[4 + len(value) :].strip(b"\0")
    assert len(padded) == bucket(len(value)) >= len(value) + 4


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_buckets_are_few_and_ordered(shorter: int, longer: int):
    shorter, longer = sorted((shorter, longer))
    assert bucket(shorter) <= bucket(longer)
    assert bucket(longer) in {64, 128, 256, 512, 1024, 2048, 4096} or bucket(longer) % LARGEST_DOUBLING == 0


@pytest.mark.parametrize(
    ("length", "size"), [(0, 64), (10, 64), (60, 64), (61, 128), (124, 128), (125, 256), (4092, 4096), (4093, 8192)]
)
def test_bucket_edges(length: int, size: int):
    assert bucket(length) == size


def test_the_short_fields_are_all_of_one_length():
    values = ["", "7", "1234", "1990-12-31", "ABCPE1234F", "+919876543210", "Asha", "வேங்கடராமன்"]
    assert len({len(seal(CIPHER, header(1), b"", value)) for value in values}) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=5000))
def test_a_value_comes_back(value: str):
    assert unseal(CIPHER, b"aad", seal(CIPHER, header(1), b"aad", value)) == value


@pytest.mark.parametrize(
    "padded",
    [b"", b"\0\0", b"\0\0\0\x05abcd", b"\xff\xff\xff\xff" + bytes(60), b"\0\0\0\x3d" + bytes(60), pad(b"\xff\xfe")],
)
def test_what_we_would_not_have_sealed_is_a_typed_failure_under_a_good_tag(padded: bytes):
    nonce = bytes(12)
    with pytest.raises(OpenFailed) as failure:
        unseal(CIPHER, b"", header(1) + nonce + CIPHER.seal(nonce, padded, b""))
    assert failure.value.reason == "unknown_format"


@given(st.integers(0, 65535))
def test_the_header_names_the_key(version: int):
    assert key_version(seal(CIPHER, header(version), b"", "x")) == version
    assert header(version) == b"\x01\x01" + version.to_bytes(2, "big")


def test_a_nonce_is_never_used_again():
    assert len({seal(CIPHER, header(1), b"", "x")[4:16] for _ in range(2000)}) == 2000


def test_plain_shows_itself_only_when_asked():
    plain = Plain("ABCPE1234F")
    row = msgspec.defstruct("Row", [("pan", str)])(plain)
    assert plain == "ABCPE1234F"
    assert repr(plain) == "Plain(…)"
    assert "ABCPE1234F" not in repr([plain, {"pan": plain}, row])
    assert type(plain.reveal()) is str
    with pytest.raises(TypeError, match="unsupported"):
        msgspec.json.encode(row)
    assert msgspec.json.encode({"pan": plain.reveal()}) == b'{"pan":"ABCPE1234F"}'
