"""Keys and fields: what was sealed for one place opens there and nowhere else, and every failure is one typed error."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import get_args
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from usercore.errors import KeysUnavailable, OpenFailed, OpenFailure
from usercore.pii import classification as pii
from usercore.pii.cipher import CipherFactory, CipherName, CryptographyCipher, cipher
from usercore.pii.classification import FIELDS, Field
from usercore.pii.keyring import (
    PURPOSES,
    REMEMBERED_DATA_KEYS,
    EpochKey,
    EpochState,
    KeyPurpose,
    Keyring,
    UserKeys,
    derive,
    epoch_commitment,
)
from usercore.pii.sealed import Sealed
from usercore.pii.wraps import UserKeyRow

USER, OTHER = UUID(int=1), UUID(int=2)
ALL = ("identity", "contact", "kyc_evidence")
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
fields = st.sampled_from(FIELDS)


def secret(epoch: int) -> bytes:
    return hashlib.sha256(b"test epoch %d" % epoch).digest()


def epoch(number: int, purpose: KeyPurpose, version: int = 1, state: EpochState = "active") -> EpochKey:
    return EpochKey(number, purpose, version, state, secret(number))


FIRST_EPOCHS = [epoch(number, purpose) for number, purpose in enumerate(PURPOSES, 1)]
ROTATED_EPOCHS = [
    *(replace(each, state="retiring") for each in FIRST_EPOCHS),
    *(epoch(number, purpose, 2) for number, purpose in enumerate(PURPOSES, 5)),
]


def loaded(epochs: Sequence[EpochKey] = FIRST_EPOCHS, factory: CipherFactory = CryptographyCipher) -> Keyring:
    keyring = Keyring(factory)
    keyring.install(epochs)
    return keyring


RING = loaded()
ROWS = RING.new_user_keys(USER, ALL) + RING.new_user_keys(USER, ALL, version=2)
OTHER_ROWS = RING.new_user_keys(OTHER, ALL)
KEYS = RING.unlock(USER, ROWS)


def reason(action: Callable[[], object]) -> OpenFailure:
    with pytest.raises(OpenFailed) as failure:
        action()
    assert str(failure.value) == failure.value.reason
    return failure.value.reason


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


# --------------------------------------------------------------------------------------------------------- the fields


@given(field=fields, value=values)
def test_a_field_opens_where_it_was_sealed(field: Field, value: str):
    sealed = KEYS.seal(field, value)
    opened = RING.unlock(USER, ROWS).open(field, sealed)
    assert opened == value
    assert repr(opened) == "Plain(…)"
    assert value.encode() not in sealed or len(value.encode()) < 4


@given(field=fields, value=values, data=st.data())
def test_every_flipped_bit_is_one_typed_failure(field: Field, value: str, data: st.DataObject):
    sealed = KEYS.seal(field, value)
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    broken = Sealed(flip(sealed, bit))
    expected = {0: {"unknown_format"}, 1: {"unknown_format"}, 2: {"missing_key"}, 3: {"missing_key", "corrupt"}}
    assert reason(lambda: KEYS.open(field, broken)) in expected.get(bit // 8, {"corrupt"})


@given(field=fields, value=values, data=st.data())
def test_a_cut_or_lengthened_field_does_not_open(field: Field, value: str, data: st.DataObject):
    sealed = KEYS.seal(field, value)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    assert reason(lambda: KEYS.open(field, Sealed(sealed[:cut]))) == "corrupt"
    assert reason(lambda: KEYS.open(field, Sealed(sealed + data.draw(st.binary(min_size=1))))) == "corrupt"


@given(st.binary(max_size=300))
def test_bytes_that_were_never_sealed_do_not_open(junk: bytes):
    assert reason(lambda: KEYS.open(pii.PHONE, Sealed(junk))) in {"corrupt", "unknown_format", "missing_key"}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.table}.{field.column}")
def test_a_field_opens_in_no_other_column_table_or_class(field: Field):
    sealed = KEYS.seal(field, "value")
    for elsewhere in (
        *(other for other in FIELDS if other != field),
        *(Field(field.table, field.column, each, field.mask) for each in ALL if each != field.retention),
        Field("users", field.column, field.retention, field.mask),
        Field(field.table + field.column[0], field.column[1:], field.retention, field.mask),  # joined it is the same
    ):
        assert reason(lambda elsewhere=elsewhere: KEYS.open(elsewhere, sealed)) == "corrupt"


def test_a_field_opens_for_no_other_user():
    sealed = KEYS.seal(pii.PHONE, "+919876543210")
    assert reason(lambda: RING.unlock(OTHER, OTHER_ROWS).open(pii.PHONE, sealed)) in {"corrupt", "missing_key"}
    # Not with the user's own keys on the other's page either: the wraps say whose they are.
    moved = [replace(row, user_id=OTHER) for row in ROWS]
    assert reason(lambda: RING.unlock(OTHER, moved).open(pii.PHONE, sealed)) == "wrong_key"


def test_the_user_is_bound_besides_the_key():
    row = RING.new_user_keys(USER)[0]
    data_key = RING.unwrap(USER, row)

    class SharedKey(Keyring):
        def unwrap(self, user_id: UUID, row: UserKeyRow) -> bytes:
            return data_key

    ring = SharedKey()
    sealed = ring.unlock(USER, [row]).seal(pii.PAN_NUMBER, "ABCPE1234F")
    assert ring.unlock(USER, [row]).open(pii.PAN_NUMBER, sealed) == "ABCPE1234F"
    assert reason(lambda: ring.unlock(OTHER, [row]).open(pii.PAN_NUMBER, sealed)) == "corrupt"


def test_the_newest_key_seals_and_the_older_one_opens():
    before = RING.unlock(USER, [row for row in ROWS if row.version == 1]).seal(pii.PHONE, "old")
    after = KEYS.seal(pii.PHONE, "new")
    assert (before[2:4], after[2:4]) == (b"\0\1", b"\0\2")
    assert KEYS.newest_version("contact") == 2
    assert [KEYS.open(pii.PHONE, sealed) for sealed in (before, after)] == ["old", "new"]
    # A ciphertext that claims another version, which exists, does not open.
    assert reason(lambda: KEYS.open(pii.PHONE, Sealed(before[:2] + after[2:4] + before[4:]))) == "corrupt"


def test_a_version_that_is_gone_is_a_missing_key():
    sealed = KEYS.seal(pii.PHONE, "value")
    assert reason(lambda: RING.unlock(USER, ROWS[:3]).open(pii.PHONE, sealed)) == "missing_key"
    assert reason(lambda: RING.unlock(USER, []).open(pii.PHONE, sealed)) == "missing_key"
    assert reason(lambda: RING.unlock(USER, []).seal(pii.PHONE, "value")) == "missing_key"
    assert RING.unlock(USER, []).newest_version("contact") == 0


# ---------------------------------------------------------------------------------------------------------- the wraps


@given(data=st.data())
def test_every_flipped_bit_of_a_wrap_is_one_typed_failure(data: st.DataObject):
    row = data.draw(st.sampled_from(ROWS))
    bit = data.draw(st.integers(0, len(row.wrapped) * 8 - 1))
    broken = replace(row, wrapped=flip(row.wrapped, bit))
    expected = "unknown_format" if bit < 16 else "wrong_key" if bit < 62 * 8 else "commitment"
    assert reason(lambda: RING.unwrap(USER, broken)) == expected


@given(st.binary(max_size=200))
def test_any_other_wrap_is_one_typed_failure(junk: bytes):
    assert reason(lambda: RING.unwrap(USER, replace(ROWS[0], wrapped=junk))) in {"unknown_format", "wrong_key"}


def test_wraps_do_not_open_for_another_user_class_version_or_epoch():
    ring = loaded(ROTATED_EPOCHS)
    row = ring.new_user_keys(USER)[0]
    assert row.epoch == 5
    assert len(ring.unwrap(USER, row)) == 32
    assert reason(lambda: ring.unwrap(OTHER, row)) == "wrong_key"
    assert reason(lambda: ring.unwrap(USER, replace(row, retention_class="contact"))) == "wrong_key"
    assert reason(lambda: ring.unwrap(USER, replace(row, version=2))) == "wrong_key"
    assert reason(lambda: ring.unwrap(USER, replace(row, epoch=1))) == "wrong_key"


def test_an_epoch_number_is_bound_besides_its_key():
    same_secret = [replace(each, epoch=each.epoch + 4, secret=secret(each.epoch)) for each in FIRST_EPOCHS]
    row = RING.new_user_keys(USER)[0]
    assert reason(lambda: loaded(same_secret).unwrap(USER, replace(row, epoch=5))) == "wrong_key"


def test_a_wrap_commits_to_its_data_key():
    row = RING.new_user_keys(USER)[0]
    data_key = RING.unwrap(USER, row)
    assert row.wrapped[62:] not in (data_key, hashlib.sha256(data_key).digest())
    swapped = replace(row, wrapped=row.wrapped[:62] + RING.new_user_keys(USER)[0].wrapped[62:])
    assert reason(lambda: RING.unwrap(USER, swapped)) == "commitment"


@pytest.mark.parametrize("column", ["user_id", "retention_class", "version", "epoch", "wrapped"])
def test_a_remembered_key_is_found_by_the_whole_of_its_wrap_only(column: str):
    ring = loaded(ROTATED_EPOCHS)
    identity, contact, _ = ring.new_user_keys(USER, ALL)
    for row in (identity, contact):
        assert ring.data_cipher(USER, row) is ring.data_cipher(USER, row)
    user = OTHER if column == "user_id" else USER
    other = {"retention_class": "contact", "version": 2, "epoch": 1, "wrapped": contact.wrapped}
    moved = identity if column == "user_id" else replace(identity, **{column: other[column]})
    assert reason(lambda: ring.data_cipher(user, moved)) == "wrong_key"


def test_remembered_keys_are_few_and_not_for_long():
    unwrapped: list[UserKeyRow] = []

    class Counting(Keyring):
        def unwrap(self, user_id: UUID, row: UserKeyRow) -> bytes:
            unwrapped.append(row)
            return super().unwrap(user_id, row)

    ring = Counting()
    ring.install(FIRST_EPOCHS)
    row, *others = [ring.new_user_keys(USER)[0] for _ in range(REMEMBERED_DATA_KEYS + 1)]
    for _ in range(3):
        ring.data_cipher(USER, row)
    assert len(unwrapped) == 1
    ring.install(FIRST_EPOCHS)  # as every few seconds
    ring.data_cipher(USER, row)
    assert len(unwrapped) == 2
    for other in others:
        ring.data_cipher(USER, other)
    ring.data_cipher(USER, row)
    assert len(unwrapped) == 2 + len(others) + 1


def test_a_remembered_key_ends_with_its_epoch():
    ring = loaded(ROTATED_EPOCHS)
    row = loaded().new_user_keys(USER)[0]
    ring.data_cipher(USER, row)
    ring.install([each for each in ROTATED_EPOCHS if each.epoch != row.epoch])
    assert reason(lambda: ring.data_cipher(USER, row)) == "missing_key"


def test_data_keys_are_all_different():
    rows = [row for _ in range(50) for row in RING.new_user_keys(USER, ALL)]
    assert len({RING.unwrap(USER, row) for row in rows}) == len(rows) == 150


@pytest.mark.parametrize("name", get_args(CipherName))
def test_both_ciphers_read_what_the_other_wrote(name: CipherName):
    other = "pycryptodome" if name == "cryptography" else "cryptography"
    writing, reading = loaded(factory=cipher(name)), loaded(factory=cipher(other))
    rows = writing.new_user_keys(USER)
    sealed = writing.unlock(USER, rows).seal(pii.LAST_NAME, "Rao")
    assert reading.unlock(USER, rows).open(pii.LAST_NAME, sealed) == "Rao"


# -------------------------------------------------------------------------------------------------- what is available


def test_an_empty_keyring_seals_and_opens_nothing():
    empty = Keyring()
    sealed = KEYS.seal(pii.PHONE, "value")
    assert not empty.available
    assert not empty.ready.is_set()
    assert reason(lambda: empty.unlock(USER, ROWS).open(pii.PHONE, sealed)) == "keys_unavailable"
    for action in (
        lambda: empty.unlock(USER, ROWS).seal(pii.PHONE, "value"),
        lambda: empty.new_user_keys(USER),
        lambda: empty.blind_index(pii.PHONE, "value"),
        lambda: empty.blind_indexes(pii.PHONE, "value"),
        lambda: empty.ip_mac("127.0.0.1"),
        lambda: empty.token_key(b"cursors"),
    ):
        with pytest.raises(KeysUnavailable):
            action()


@pytest.mark.parametrize("purpose", PURPOSES)
def test_available_means_every_purpose(purpose: KeyPurpose):
    assert not loaded([each for each in FIRST_EPOCHS if each.purpose != purpose]).available
    retiring = [replace(each, state="retiring") if each.purpose == purpose else each for each in FIRST_EPOCHS]
    assert not loaded(retiring).available
    assert loaded().available
    assert loaded().ready.is_set()


def test_an_epoch_says_why_it_does_not_open():
    keyring = loaded([epoch(5, "user_keys", 2), *FIRST_EPOCHS[1:]])
    row = keyring.new_user_keys(USER)[0]
    assert reason(lambda: keyring.unwrap(USER, replace(row, epoch=1))) == "missing_key"
    assert not keyring.refresh_wanted.is_set()
    keyring.install(keyring.epochs, unopened=[1])
    assert reason(lambda: keyring.unwrap(USER, replace(row, epoch=1))) == "keys_unavailable"
    assert not keyring.refresh_wanted.is_set()
    # Another process has rotated the keys a moment ago.
    assert reason(lambda: keyring.unwrap(USER, replace(row, epoch=9))) == "keys_unavailable"
    assert keyring.refresh_wanted.is_set()


def test_a_retiring_epoch_still_opens_and_a_retired_one_does_not():
    keys = RING.new_user_keys(USER)
    sealed = RING.unlock(USER, keys).seal(pii.PHONE, "value")
    rotated = loaded(ROTATED_EPOCHS)
    assert rotated.unlock(USER, keys).open(pii.PHONE, sealed) == "value"
    assert {row.epoch for row in rotated.new_user_keys(USER)} == {5}
    retired = loaded([replace(each, state="retired") if each.epoch < 5 else each for each in ROTATED_EPOCHS])
    assert reason(lambda: retired.unlock(USER, keys).open(pii.PHONE, sealed)) == "missing_key"


def test_nothing_secret_in_a_repr():
    assert secret(1) not in repr(FIRST_EPOCHS[0]).encode("latin-1", "replace")
    assert repr(FIRST_EPOCHS[0]) == "EpochKey(1, 'user_keys', 1, 'active', secret=…)"
    assert "x00" not in repr(RING) + repr(KEYS)


# ------------------------------------------------------------------------------------------------------- derived keys


def test_blind_indexes_are_equal_for_equal_values_of_one_column_only():
    index = RING.blind_index(pii.PHONE, "+919876543210")
    assert index == RING.blind_index(pii.PHONE, "+919876543210")
    assert len(index) == 34
    assert index[:2] == b"\0\1"
    assert index != RING.blind_index(pii.PHONE, "+919876543211")
    assert index != RING.blind_index(pii.PAN_NUMBER, "+919876543210")


def test_blind_indexes_of_every_live_version_the_written_one_first():
    rotated = loaded(ROTATED_EPOCHS)
    indexes = rotated.blind_indexes(pii.PAN_NUMBER, "ABCPE1234F")
    assert [index[:2] for index in indexes] == [b"\0\2", b"\0\1"]
    assert indexes == [
        rotated.blind_index(pii.PAN_NUMBER, "ABCPE1234F"),
        RING.blind_index(pii.PAN_NUMBER, "ABCPE1234F"),
    ]


def test_ip_macs_are_of_the_address_however_it_is_written():
    assert RING.ip_mac("2001:DB8:0:0::1") == RING.ip_mac("2001:db8::1")
    assert RING.ip_mac("127.0.0.1") != RING.ip_mac("127.0.0.2")
    rotated = loaded(ROTATED_EPOCHS)
    assert rotated.ip_mac("127.0.0.1")[:2] == b"\0\2"
    assert rotated.ip_mac("127.0.0.1", version=1) == RING.ip_mac("127.0.0.1")
    with pytest.raises(KeysUnavailable):
        rotated.ip_mac("127.0.0.1", version=3)


def test_token_keys_differ_by_label_and_change_with_the_epoch():
    assert RING.token_key(b"cursors") == loaded().token_key(b"cursors")
    assert len({RING.token_key(b"cursors"), RING.token_key(b"fingerprints"), secret(4)}) == 3
    keyring = loaded()
    before = keyring.token_key(b"cursors")
    keyring.install(ROTATED_EPOCHS)
    assert keyring.token_key(b"cursors") != before


# ------------------------------------------------------------- the formats, written a second time from the description


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def hkdf(key: bytes, *info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=lp(b"usercore", *info)).derive(key)


def test_formats_are_as_described():
    wrapping = hkdf(secret(1), b"user_keys")
    data_key, nonce = bytes(range(32)), bytes(range(12))
    wrap_aad = lp(b"usercore", b"user_keys", b"contact", USER.bytes, b"\0\3", b"\0\0\0\1")
    commitment = hashlib.sha256(b"usercore key commitment" + data_key + wrap_aad).digest()
    wrapped = b"\1\1" + nonce + AESGCM(wrapping).encrypt(nonce, data_key, wrap_aad) + commitment
    row = UserKeyRow(USER, "contact", 3, 1, wrapped)
    assert RING.unwrap(USER, row) == data_key

    head = b"\1\1\0\3"
    aad = lp(b"usercore", b"user_profiles", b"phone_enc", USER.bytes, b"contact", head)
    padded = b"\0\0\0\x0d" + b"+919876543210" + bytes(64 - 4 - 13)
    sealed = Sealed(head + nonce + AESGCM(data_key).encrypt(nonce, padded, aad))
    assert RING.unlock(USER, [row]).open(pii.PHONE, sealed) == "+919876543210"

    index_key = hkdf(secret(2), b"blind_index", b"user_profiles", b"phone_enc")
    digest = hmac.digest(index_key, b"+919876543210", "sha256")
    assert RING.blind_index(pii.PHONE, "+919876543210") == b"\0\1" + digest
    assert RING.ip_mac("10.0.0.1") == b"\0\1" + hmac.digest(hkdf(secret(3), b"audit_ip"), b"\x0a\0\0\1", "sha256")
    assert RING.token_key(b"cursors") == hkdf(secret(4), b"tokens", b"cursors")
    assert epoch_commitment(secret(1), "user_keys", 7) == hkdf(secret(1), b"commitment", b"user_keys", b"\0\0\0\7")


def test_stored_bytes_of_the_first_release_still_open():
    """Append-only: what is stored cannot be changed by changing this test."""
    stored_key = UserKeyRow(
        USER,
        "identity",
        1,
        1,
        bytes.fromhex(
            "0101a48c11f8fda12e6435e59103b800aa0007ce91f080ef10fb4c86f169829149bef9492097b3166c5b5718"
            "50e4cf6c3124bf1da879b34719306a2d386fa18ff710306d7671431097036eda34230a3c56241004fd8433b6"
            "3e8989a88058"
        ),
    )
    stored_field = Sealed(
        bytes.fromhex(
            "0101000124a71d7c99e26987d8c46c14099e119dbaddf453aaf4f6bca13834f476b39234e93cd84f100a53c1"
            "8dd2474c6e342b17308dac1105e49ee87debbcd63b2b6656928c720a1613d6a61caea3eafd4e28e63e3d46e0"
            "f856d308949dcf50"
        )
    )
    assert RING.unlock(USER, [stored_key]).open(pii.PAN_NUMBER, stored_field) == "ABCPE1234F"
    assert RING.blind_index(pii.PAN_NUMBER, "ABCPE1234F").hex() == (
        "0001dbb16caf6bc0e1ec61f615dedd73b1fae28a32abb288ba02e11eb28a275fa09e"
    )
    assert RING.ip_mac("10.0.0.1").hex() == ("0001b860f009ecd90206ae25d146a6ae0fee8bce8a2e1328421a1311ea7cff85a74b")
    assert RING.token_key(b"cursors").hex() == "9ab0bfd026d9ba1dccdb75875a62cb5ab36ac7cb623cfe6d706a2fefb14347f9"


def test_hkdf_is_rfc_5869():
    # Appendix A.1 with our own info: cryptography's HKDF is held to the RFC's vectors, ours is held to it.
    assert derive(bytes([0x0B] * 22), b"info") == hkdf(bytes([0x0B] * 22), b"info")


def test_user_ids_of_drivers_are_user_ids():
    class DriverUuid(UUID):
        pass

    user_id = uuid4()
    rows = RING.new_user_keys(user_id)
    sealed = RING.unlock(user_id, rows).seal(pii.FIRST_NAME, "Asha")
    assert isinstance(RING.unlock(user_id, rows), UserKeys)
    assert RING.unlock(DriverUuid(str(user_id)), rows).open(pii.FIRST_NAME, sealed) == "Asha"
