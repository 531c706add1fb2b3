"""The KMS seam and its local provider: versions and their states, contexts, and a file that is gone."""

import asyncio
from pathlib import Path

import pytest

from usercore.errors import KmsRefused, KmsUnavailable
from usercore.pii.kms import Kms, open_kms
from usercore.pii.kms.local import LocalKms, add_version, create, set_state

CONTEXT = {"service": "usercore", "purpose": "user_keys", "version": "1"}
KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "kms.json"
    assert create(path)
    return path


@pytest.fixture
def kms(path: Path) -> Kms:
    return open_kms(f"local://{path}")


def content(path: Path, new: bytes | None = None) -> bytes:
    if new is not None:
        path.write_bytes(new)
    return path.read_bytes()


def mode(path: Path, new: int | None = None) -> int:
    if new is not None:
        path.chmod(new)
    return path.stat().st_mode & 0o777


def move(path: Path, target: Path) -> Path:
    return path.rename(target)


def names_beside(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()]


async def test_disabled_comes_back_and_destroyed_does_not(path: Path, kms: Kms):
    wrapped = await kms.wrap(KEY, CONTEXT)
    size = len(content(path))
    set_state(path, "1", "disabled")
    for call in (kms.unwrap(wrapped.ciphertext, CONTEXT, "1"), kms.wrap(KEY, CONTEXT)):
        with pytest.raises(KmsRefused, match="Version 1 of the local KMS key is disabled"):
            await call
    set_state(path, "1", "enabled")
    assert (await kms.unwrap(wrapped.ciphertext, CONTEXT, "1")).plaintext == KEY
    set_state(path, "1", "destroyed")
    with pytest.raises(KmsRefused, match="is destroyed"):
        await kms.unwrap(wrapped.ciphertext, CONTEXT, "1")
    with pytest.raises(KmsRefused, match="cannot be undone"):
        set_state(path, "1", "enabled")
    with pytest.raises(KmsRefused, match="no version"):
        set_state(path, "9", "disabled")
    assert (await kms.describe()).versions == {"1": "destroyed"}
    assert b'"key": null' in content(path)
    assert len(content(path)) < size


async def test_a_file_that_is_gone_is_a_kms_that_is_away(path: Path, kms: Kms):
    wrapped = await kms.wrap(KEY, CONTEXT)
    away = move(path, path.with_suffix(".away"))
    for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(wrapped.ciphertext, CONTEXT, "1"), kms.describe()):
        with pytest.raises(KmsUnavailable, match="cannot be read"):
            await call
    move(away, path)
    assert (await kms.unwrap(wrapped.ciphertext, CONTEXT, "1")).plaintext == KEY


async def test_the_file_is_for_its_owner_only(path: Path, kms: Kms):
    assert mode(path) == 0o600
    add_version(path)
    assert mode(path) == 0o600
    mode(path, 0o640)
    with pytest.raises(KmsRefused, match="chmod 600"):
        await kms.describe()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"kind":"other","primary":"1","versions":{}}'])
async def test_a_damaged_file_is_refused_without_its_content(path: Path, kms: Kms, damage: bytes):
    content(path, damage)
    with pytest.raises(KmsRefused, match=r"is damaged\.$"):
        await kms.describe()


async def test_creating_twice_keeps_the_key_and_leaves_nothing_beside_it(path: Path):
    before = content(path)
    assert not create(path)
    assert content(path) == before
    assert names_beside(path) == [path.name]


async def test_writers_at_once_lose_no_version(path: Path):
    names = await asyncio.gather(*(asyncio.to_thread(add_version, path) for _ in range(20)))
    assert sorted(map(int, names)) == list(range(2, 22))
    assert (await LocalKms(str(path)).describe()).primary == "21"


async def test_a_path_may_be_relative(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    assert (await open_kms("local://kms.json").describe()).primary == "1"
    assert (await open_kms("local://./kms.json").describe()).primary == "1"


@pytest.mark.parametrize("uri", ["", "local", "local://", "local:/x", "s3://bucket", "://x", "file:///etc/passwd"])
def test_other_schemes_are_refused_with_those_there_are(uri: str):
    with pytest.raises(KmsRefused, match="local://"):
        open_kms(uri)
