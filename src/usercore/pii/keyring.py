"""The keyring in memory: epoch keys by purpose, the users' data keys they wrap, blind indexes and derived keys.

Nothing here waits or does I/O; `keystore` fills it from Postgres and the KMS.
"""

import hmac
import os
from asyncio import Event
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, get_args
from uuid import UUID

import msgspec
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from usercore.errors import KeysUnavailable, OpenFailed
from usercore.pii import wraps
from usercore.pii.cipher import KEY_BYTES, Cipher, CipherFactory, CryptographyCipher
from usercore.pii.classification import FIELDS, SERVICE, Field, RetentionClass, base, length_prefixed
from usercore.pii.sealed import HEADER_BYTES, SMALLEST_SEALED, Plain, Sealed, header, key_version, seal, unseal
from usercore.pii.wraps import UserKeyRow

KeyPurpose = Literal["user_keys", "blind_index", "audit_ip", "tokens", "audit_signing"]
EpochState = Literal["active", "retiring", "retired"]

PURPOSES: tuple[KeyPurpose, ...] = get_args(KeyPurpose)
FIRST_CLASSES: tuple[RetentionClass, ...] = ("identity", "contact")  # every user has these; others come with need
REMEMBERED_IPS = 4096  # a client sends many requests, each with an audit row
REMEMBERED_DATA_KEYS = 4096  # two thousand people who use their app just now; 3 MiB
_VERSION_BYTES = 2

_Index = tuple[bytes, dict[str, bytes]]  # a version of the blind index: its prefix, and a key for each column


class EpochKey(msgspec.Struct, frozen=True):
    """An epoch of the keyring, opened. The repr leaves the secret out."""

    epoch: int
    purpose: KeyPurpose
    version: int
    state: EpochState
    secret: bytes

    def __repr__(self) -> str:
        return f"EpochKey({self.epoch}, {self.purpose!r}, {self.version}, {self.state!r}, secret=…)"


class Keyring:
    """What a process knows of the keys. Empty until the KMS has answered; never emptied again."""

    def __init__(self, cipher: CipherFactory = CryptographyCipher) -> None:
        self.cipher = cipher
        self.ready = Event()  # set when `available` is true for the first time
        self.refresh_wanted = Event()  # set when a row names an epoch that was made after the last refresh
        self._epochs: dict[int, EpochKey] = {}
        self._unopened: frozenset[int] = frozenset()
        self._wrapping: dict[int, Cipher] = {}
        self._active: dict[KeyPurpose, EpochKey] = {}
        self._indexes: list[_Index] = []
        self._by_version: dict[tuple[KeyPurpose, int], bytes] = {}
        self._ip_macs: dict[tuple[str | IPv4Address | IPv6Address, int], bytes] = {}
        self._data_keys: dict[tuple[bytes, RetentionClass, int, int, bytes], Cipher] = {}
        self._token_keys: dict[bytes, list[bytes]] = {}

    @property
    def available(self) -> bool:
        """True when every purpose has its active epoch: everything can be sealed, searched and opened."""
        return self._active.keys() >= set(PURPOSES)  # a newer version may have added others

    @property
    def epochs(self) -> Sequence[EpochKey]:
        return list(self._epochs.values())

    @property
    def unopened(self) -> Collection[int]:
        """Epochs that are in the database and that the KMS has not opened for us."""
        return self._unopened

    def install(self, epochs: Sequence[EpochKey], unopened: Collection[int] = ()) -> None:
        """Replaces what is known, in one step. Derived keys are made here, once, not in requests."""
        live = sorted((e for e in epochs if e.state != "retired"), key=lambda e: (e.state != "active", -e.epoch))
        self._unopened = frozenset(unopened)
        self.forget()
        if {e.epoch: e for e in live} == self._epochs:
            return
        indexed = [field for field in FIELDS if field.indexed]
        self._wrapping = {e.epoch: self.cipher(derive(e.secret, e.purpose)) for e in live if e.purpose == "user_keys"}
        self._indexes = [
            (
                e.version.to_bytes(_VERSION_BYTES, "big"),
                {field.column: derive(e.secret, e.purpose, field.table, field.column) for field in indexed},
            )
            for e in live
            if e.purpose == "blind_index"
        ]
        self._by_version = {(e.purpose, e.version): derive(e.secret, e.purpose) for e in live}
        self._ip_macs = {}
        self._token_keys = {}
        self._active = {e.purpose: e for e in live if e.state == "active"}
        self._epochs = {e.epoch: e for e in live}
        if self.available:
            self.ready.set()

    def new_user_keys(
        self, user_id: UUID, classes: Sequence[RetentionClass] = FIRST_CLASSES, *, version: int = 1
    ) -> list[UserKeyRow]:
        """Fresh data keys, to be inserted; a stored one wins. A higher version takes over from a key that is lost."""
        epoch = self.active("user_keys").epoch
        wrapping = self._wrapping[epoch]
        return [wraps.wrap(wrapping, os.urandom(KEY_BYTES), user_id, each, version, epoch) for each in classes]

    def rewrapped(self, row: UserKeyRow, retention: RetentionClass | None = None) -> UserKeyRow:
        """The same data key under the active epoch, and another class. Raises as `unwrap` does, and KeysUnavailable."""
        epoch = self.active("user_keys").epoch
        data_key = self.unwrap(row.user_id, row)
        return wraps.wrap(
            self._wrapping[epoch], data_key, row.user_id, retention or row.retention_class, row.version, epoch
        )

    def unlock(self, user_id: UUID, rows: Sequence[UserKeyRow], *, by_law: bool = False) -> "UserKeys":
        """Never fails: what is missing or does not open shows when a field asks for it.

        `by_law` takes the locked keys of an erased person instead: for a legal request, and for nothing else.
        """
        if by_law:
            return UserKeys(self, user_id, {(base(row.retention_class), header(row.version)): row for row in rows})
        return UserKeys(self, user_id, {(row.retention_class, header(row.version)): row for row in rows})

    def forget(self) -> None:
        """Drop the users' data keys that were opened lately: none outlives its wrap by more than one refresh."""
        self._data_keys.clear()

    def data_cipher(self, user_id: UUID, row: UserKeyRow) -> Cipher:
        """The cipher of a data key, opened lately or now. Raises as `unwrap` does.

        It is found by the whole of what it was opened from, so a wrap that was destroyed, moved or changed finds none.
        """
        known = (user_id.bytes, row.retention_class, row.version, row.epoch, row.wrapped)
        cipher = self._data_keys.get(known)
        if cipher is None:
            cipher = self.cipher(self.unwrap(user_id, row))
            if len(self._data_keys) >= REMEMBERED_DATA_KEYS:
                self._data_keys.clear()
            self._data_keys[known] = cipher
        return cipher

    def unwrap(self, user_id: UUID, row: UserKeyRow) -> bytes:
        """The data key. Raises OpenFailed: keys_unavailable, missing_key, unknown_format, wrong_key or commitment."""
        wrapping = self._wrapping.get(row.epoch)
        if wrapping is None:
            raise OpenFailed(self._why_missing(row.epoch))
        return wraps.unwrap(wrapping, user_id, row)

    def blind_index(self, field: Field, canonical: str) -> bytes:
        """What is stored: version(2) ‖ HMAC-SHA256 under a key of the column's own. Raises KeysUnavailable."""
        self.active("blind_index")
        return _digest(self._indexes[0], field, canonical)

    def blind_indexes(self, field: Field, canonical: str) -> list[bytes]:
        """What to search for: one for each live version, the one that is written now first."""
        self.active("blind_index")
        return [_digest(index, field, canonical) for index in self._indexes]

    def ip_mac(self, ip: str | IPv4Address | IPv6Address, *, version: int | None = None) -> bytes:
        """version(2) ‖ HMAC-SHA256 of the address in canonical form; an older version is asked for to verify a leaf."""
        wanted = self.active("audit_ip").version if version is None else version
        if (known := self._ip_macs.get((ip, wanted))) is not None:
            return known
        if (key := self._by_version.get(("audit_ip", wanted))) is None:
            raise KeysUnavailable
        address = ip_address(ip).packed if isinstance(ip, str) else ip.packed
        mac = wanted.to_bytes(_VERSION_BYTES, "big") + hmac.digest(key, address, "sha256")
        if len(self._ip_macs) >= REMEMBERED_IPS:
            self._ip_macs.clear()
        self._ip_macs[ip, wanted] = mac
        return mac

    def audit_key(self, version: int | None = None) -> tuple[int, bytes]:
        """The version and the Ed25519 seed that the trail is signed with. Raises KeysUnavailable."""
        wanted = self.active("audit_signing").version if version is None else version
        if (seed := self._by_version.get(("audit_signing", wanted))) is None:
            raise KeysUnavailable
        return wanted, seed

    def signing_seeds(self, label: bytes) -> list[tuple[int, bytes]]:
        """Ed25519 seeds for documents of one kind, with their versions, the one that signs now first."""
        self.active("audit_signing")
        live = [epoch for epoch in self._epochs.values() if epoch.purpose == "audit_signing"]
        return [(epoch.version, derive(epoch.secret, epoch.purpose, label)) for epoch in live]

    def token_key(self, label: bytes) -> bytes:
        """32 bytes for cursors, fingerprints and the like: one key a label, new ones when `tokens` is rotated."""
        return self.token_keys(label)[0]

    def token_keys(self, label: bytes) -> Sequence[bytes]:
        """For what is still about: the one that is used now, then those of the other live versions."""
        self.active("tokens")
        keys = self._token_keys.get(label)
        if keys is None:
            live = [epoch for epoch in self._epochs.values() if epoch.purpose == "tokens"]
            keys = self._token_keys[label] = [derive(epoch.secret, epoch.purpose, label) for epoch in live]
        return keys

    def active(self, purpose: KeyPurpose) -> EpochKey:
        """What is written under now. Raises KeysUnavailable."""
        epoch = self._active.get(purpose)
        if epoch is None:
            raise KeysUnavailable
        return epoch

    def _why_missing(self, epoch: int) -> Literal["keys_unavailable", "missing_key"]:
        if not self._wrapping or epoch in self._unopened:
            return "keys_unavailable"
        if epoch > max(self._epochs):
            self.refresh_wanted.set()  # another process rotated the keys a moment ago
            return "keys_unavailable"
        return "missing_key"


class UserKeys:
    """One user's data keys, each unwrapped when the first field needs it. Lives as long as a request."""

    __slots__ = ("_keyring", "_opened", "_rows", "_user", "user_id")

    def __init__(self, keyring: Keyring, user_id: UUID, rows: dict[tuple[RetentionClass, bytes], UserKeyRow]) -> None:
        """`rows` by class and header: what a sealed field says of its key is looked up as it stands."""
        self.user_id = user_id
        self._keyring = keyring
        self._user = user_id.bytes
        self._rows = rows
        self._opened: dict[tuple[RetentionClass, bytes], Cipher] = {}

    def newest_version(self, retention: RetentionClass) -> int:
        """0 when there is no key of this class."""
        newest = 0
        for row in self._rows.values():
            if row.retention_class == retention and row.version > newest:
                newest = row.version
        return newest

    def works(self, retention: RetentionClass) -> bool:
        """Whether the newest key of the class is there and opens. Raises KeysUnavailable when nobody can tell."""
        try:
            self._unlock(retention, header(self.newest_version(retention)))
        except OpenFailed as failure:
            if failure.reason == "keys_unavailable":
                raise KeysUnavailable from failure
            return False
        return True

    def broken(self, classes: Collection[RetentionClass]) -> list[RetentionClass]:
        """Those of the classes whose newest key does not work. Raises KeysUnavailable when nobody can tell."""
        return [retention for retention in sorted(classes) if not self.works(retention)]

    def seal(self, field: Field, value: str) -> Sealed:
        """Under the newest key of the class. Raises KeysUnavailable; OpenFailed when the user's own key is lost."""
        retention = field.retention
        head = header(self.newest_version(retention))
        try:
            cipher = self._opened.get((retention, head)) or self._unlock(retention, head)
        except OpenFailed as failure:
            if failure.reason == "keys_unavailable":
                raise KeysUnavailable from failure
            raise
        return seal(cipher, head, field.aad(self._user, head), value)

    def open(self, field: Field, sealed: Sealed) -> Plain:
        """Raises OpenFailed, whatever is wrong."""
        return Plain(self.reveal(field, sealed))

    def reveal(self, field: Field, sealed: Sealed) -> str:
        """`open(…).reveal()` without the two copies in between: this is done for every field of every read."""
        head = sealed[:HEADER_BYTES]
        cipher = self._opened.get((field.retention, head))
        if cipher is None or len(sealed) < SMALLEST_SEALED:
            key_version(sealed)
            cipher = self._unlock(field.retention, head)
        # field.aad, without the call.
        return unseal(cipher, field.aad_before_user + self._user + field.aad_after_user + head, sealed)

    def _unlock(self, retention: RetentionClass, head: bytes) -> Cipher:
        row = self._rows.get((retention, head))
        if row is None:
            raise OpenFailed("missing_key")
        cipher = self._opened[retention, head] = self._keyring.data_cipher(self.user_id, row)
        return cipher


def derive(secret: bytes, *info: str | bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, since the secret is random; the parts of `info` are length-prefixed."""
    parts = (part if isinstance(part, bytes) else part.encode() for part in info)
    return HKDF(secret, KEY_BYTES, None, SHA256, 1, length_prefixed(SERVICE, *parts))


def epoch_commitment(secret: bytes, purpose: KeyPurpose, version: int) -> bytes:
    """Stored beside the wrapped epoch, so that a KMS answer for another epoch is refused. Tells nothing of the key."""
    return derive(secret, "commitment", purpose, version.to_bytes(4, "big"))


def _digest(index: _Index, field: Field, canonical: str) -> bytes:
    version, keys = index
    return version + hmac.digest(keys[field.column], canonical.encode(), "sha256")
