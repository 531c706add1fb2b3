"""local://path: a KMS in a file of mode 0600, for development and tests; production refuses it.

The file is read again at every call: a version that is added, disabled or destroyed counts at once, and a file that
is gone is a KMS that is away.
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import msgspec

from usercore.db import outside_transaction
from usercore.errors import KmsRefused, KmsUnavailable, OpenFailed
from usercore.pii.cipher import KEY_BYTES, NONCE_BYTES, PycryptodomeCipher
from usercore.pii.classification import SERVICE, length_prefixed
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey


class _Version(msgspec.Struct, frozen=True):
    state: VersionState
    key: bytes | None  # base64 in the file; gone when destroyed


class _KeyFile(msgspec.Struct, frozen=True):
    kind: Literal["usercore-local-kms-1"]
    primary: str
    versions: dict[str, _Version]


class LocalKms:
    """Wrapped: nonce(12) | ciphertext | tag(16), bound to the version and to every pair of the context."""

    def __init__(self, path: str) -> None:
        """The path as it stands in the URI: absolute, or relative to the working directory."""
        self._path = Path(unquote(path))

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        outside_transaction()
        held = await asyncio.to_thread(_read, self._path)
        nonce = os.urandom(NONCE_BYTES)
        sealed = _cipher(held, held.primary).seal(nonce, plaintext, _aad(held.primary, context))
        return WrappedKey(nonce + sealed, held.primary)

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        outside_transaction()
        held = await asyncio.to_thread(_read, self._path)
        nonce, sealed = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
        cipher = _cipher(held, key_version)
        try:
            plaintext = cipher.open(nonce.ljust(NONCE_BYTES, b"\0"), sealed, _aad(key_version, context))
        except OpenFailed:
            raise KmsRefused(f"Version {key_version} of the local KMS key did not wrap this.") from None
        return Unwrapped(plaintext, rewrap_wanted=key_version != held.primary)

    async def describe(self) -> KmsDescription:
        outside_transaction()
        held = await asyncio.to_thread(_read, self._path)
        states: dict[str, VersionState] = {name: version.state for name, version in held.versions.items()}
        return KmsDescription(f"local://{self._path}", held.primary, states)

    async def rotate(self) -> str:
        outside_transaction()
        return await asyncio.to_thread(add_version, self._path)

    async def destroy(self, key_version: str) -> None:
        outside_transaction()
        if key_version == (await self.describe()).primary:
            raise KmsRefused(f"Version {key_version[:16]} of the local KMS key is the primary one: rotate first.")
        await asyncio.to_thread(set_state, self._path, key_version, "destroyed")

    async def close(self) -> None:
        """Nothing is held open."""


def create(path: Path) -> bool:
    """Makes the file with its first version; false, and nothing is changed, when there is one already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if path.exists():
            return False
        _write(path, _KeyFile("usercore-local-kms-1", "1", {"1": _new_version()}))
        return True


def add_version(path: Path) -> str:
    """Makes a new version the primary one and names it; what the old ones wrapped still opens."""
    with _locked(path):
        held = _read(path)
        name = str(max(int(version) for version in held.versions) + 1)
        _write(path, _KeyFile(held.kind, name, {**held.versions, name: _new_version()}))
        return name


def set_state(path: Path, version: str, state: VersionState) -> None:
    """`destroyed` removes the key itself, and nothing brings it back. Raises KmsRefused for a version not there."""
    with _locked(path):
        held = _read(path)
        known = _known(held, version)
        if known.state == "destroyed" and state != "destroyed":
            raise KmsRefused(f"Version {version} of the local KMS key is destroyed; that cannot be undone.")
        changed = _Version(state, None if state == "destroyed" else known.key)
        _write(path, _KeyFile(held.kind, held.primary, {**held.versions, version: changed}))


def _new_version() -> _Version:
    return _Version("enabled", os.urandom(KEY_BYTES))


def _known(held: _KeyFile, version: str) -> _Version:
    known = held.versions.get(version)
    if known is None:
        raise KmsRefused(f"The local KMS key has no version {version[:16]!r}.")
    return known


def _cipher(held: _KeyFile, version: str) -> PycryptodomeCipher:
    known = _known(held, version)
    if known.state != "enabled" or known.key is None:
        raise KmsRefused(f"Version {version} of the local KMS key is {known.state}.")
    return PycryptodomeCipher(known.key)


def _aad(version: str, context: Mapping[str, str]) -> bytes:
    pairs = (text.encode() for pair in sorted(context.items()) for text in pair)
    return length_prefixed(SERVICE, b"local-kms", version.encode(), *pairs)


def _read(path: Path) -> _KeyFile:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except OSError as error:
        raise KmsUnavailable(f"The local KMS file {path} cannot be read: {error.strerror}.") from None
    if mode & 0o077:
        raise KmsRefused(f"The local KMS file {path} is open to others: chmod 600 it.")
    try:
        return msgspec.json.decode(content, type=_KeyFile)
    except msgspec.MsgspecError:
        raise KmsRefused(f"The local KMS file {path} is damaged.") from None


def _write(path: Path, held: _KeyFile) -> None:
    """All or nothing: a reader or a crash sees the old file or the new one. mkstemp makes it 0600."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(held)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """One writer at a time, through a lock on the folder, which leaves nothing behind."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
