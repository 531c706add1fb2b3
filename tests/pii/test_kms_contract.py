"""What every KMS provider promises, each against a server that speaks its real protocol."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.pii.kms_stands import Stand
from usercore.db import Db
from usercore.errors import KmsRefused, KmsUnavailable, NetworkInTransaction
from usercore.pii.kms import Kms, VersionState

CONTEXT = {"service": "usercore", "purpose": "user_keys", "version": "1"}
KEY = bytes(range(32))
PATIENCE_S = 4.0  # "about three seconds", and what a busy machine adds


def names_its_versions(stand: Stand) -> bool:
    """AWS does not: to it the key is the version."""
    return not stand.uri.startswith("aws-kms")


async def test_what_is_wrapped_is_unwrapped(kms: Kms):
    wrapped = await kms.wrap(KEY, CONTEXT)
    assert KEY not in wrapped.ciphertext
    assert (await kms.wrap(KEY, CONTEXT)).ciphertext != wrapped.ciphertext
    unwrapped = await kms.unwrap(wrapped.ciphertext, CONTEXT, wrapped.key_version)
    assert (unwrapped.plaintext, unwrapped.rewrap_wanted) == (KEY, False)
    turned = dict(reversed(CONTEXT.items()))
    assert (await kms.unwrap(wrapped.ciphertext, turned, wrapped.key_version)).plaintext == KEY


async def test_another_process_unwraps_it(stand: Stand, kms: Kms):
    wrapped = await kms.wrap(KEY, CONTEXT)
    other = stand.open()
    assert (await other.unwrap(wrapped.ciphertext, CONTEXT, wrapped.key_version)).plaintext == KEY
    await other.close()


@pytest.mark.parametrize(
    "context",
    [
        {},
        {**CONTEXT, "version": "2"},
        {**CONTEXT, "more": "1"},
        {"service": "usercore", "purpose": "user_keys"},
        dict(zip(CONTEXT, reversed(CONTEXT.values()), strict=True)),
    ],
)
async def test_another_context_is_refused(kms: Kms, context: Mapping[str, str]):
    wrapped = await kms.wrap(KEY, CONTEXT)
    with pytest.raises(KmsRefused):
        await kms.unwrap(wrapped.ciphertext, context, wrapped.key_version)


async def test_every_flipped_bit_is_refused(kms: Kms):
    wrapped = await kms.wrap(KEY, CONTEXT)
    for bit in range(0, len(wrapped.ciphertext) * 8, 41):
        broken = bytearray(wrapped.ciphertext)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KmsRefused):
            await kms.unwrap(bytes(broken), CONTEXT, wrapped.key_version)
    for size in (1, 12, 27):
        with pytest.raises(KmsRefused):
            await kms.unwrap(wrapped.ciphertext[:size], CONTEXT, wrapped.key_version)


async def test_a_new_version_wraps_and_the_old_one_still_opens(stand: Stand, kms: Kms):
    old = await kms.wrap(KEY, CONTEXT)
    version = await kms.rotate()
    new = await kms.wrap(KEY, CONTEXT)
    assert new.key_version == version
    before = await kms.unwrap(old.ciphertext, CONTEXT, old.key_version)
    after = await kms.unwrap(new.ciphertext, CONTEXT, new.key_version)
    assert (before.plaintext, after.plaintext) == (KEY, KEY)
    assert not after.rewrap_wanted
    assert before.rewrap_wanted is names_its_versions(stand)
    description = await kms.describe()
    assert description.uri == stand.uri
    assert description.primary == version
    assert set(description.versions) == {old.key_version, version}
    assert set(description.versions.values()) == {"enabled"}


@pytest.mark.parametrize("state", ["disabled", "destroyed"])
async def test_a_version_that_is_disabled_or_destroyed_opens_nothing(stand: Stand, kms: Kms, state: VersionState):
    old = await kms.wrap(KEY, CONTEXT)
    await kms.rotate()
    await stand.set_state(old.key_version, state)
    with pytest.raises(KmsRefused, match=r"disabled|destroyed|deleted"):
        await kms.unwrap(old.ciphertext, CONTEXT, old.key_version)
    assert (await kms.describe()).versions[old.key_version] == state
    if state == "disabled":
        await stand.set_state(old.key_version, "enabled")
        assert (await kms.unwrap(old.ciphertext, CONTEXT, old.key_version)).plaintext == KEY


async def test_destroying_leaves_the_newer_version_and_refuses_the_primary_one(stand: Stand, kms: Kms):
    old = await kms.wrap(KEY, CONTEXT)
    if not names_its_versions(stand):
        with pytest.raises(KmsRefused, match="whole keys only"):
            await kms.destroy(old.key_version)
        return
    with pytest.raises(KmsRefused, match="primary"):
        await kms.destroy(old.key_version)
    assert (await kms.unwrap(old.ciphertext, CONTEXT, old.key_version)).plaintext == KEY
    await kms.rotate()
    new = await kms.wrap(KEY, CONTEXT)
    await kms.destroy(old.key_version)
    with pytest.raises(KmsRefused, match="destroyed"):
        await kms.unwrap(old.ciphertext, CONTEXT, old.key_version)
    assert (await kms.unwrap(new.ciphertext, CONTEXT, new.key_version)).plaintext == KEY
    description = await kms.describe()
    assert (description.versions[old.key_version], description.versions[new.key_version]) == ("destroyed", "enabled")


async def each(stand: Stand, kms: Kms) -> None:
    """Every call of the service fails as one that may be tried again, in time."""
    wrapped = b"vault:v1:AAAA" if stand.uri.startswith("hcvault") else b"\x01" * 61
    key_version = stand.uri.rpartition("/")[2] if stand.uri.startswith("aws") else "1"
    for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(wrapped, CONTEXT, key_version), kms.describe()):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(KmsUnavailable):
                await call


async def test_a_server_that_has_too_much_to_do_is_asked_again_later(stand: Stand, kms: Kms):
    await kms.describe()
    await asyncio.to_thread(stand.throttle, True)
    try:
        await each(stand, kms)
    finally:
        await asyncio.to_thread(stand.throttle, False)
    assert await kms.wrap(KEY, CONTEXT)


@pytest.mark.parametrize("trouble", ["hangs", "refuses"])
async def test_a_server_that_is_away_and_comes_back(stand: Stand, kms: Kms, trouble: str):
    await kms.describe()
    if stand.proxy is None:
        pytest.skip("a file has no network")
    stand.proxy.swallow, stand.proxy.refuse = trouble == "hangs", trouble == "refuses"
    if trouble == "refuses":
        stand.proxy.cut()
    await each(stand, kms)
    stand.proxy.swallow = stand.proxy.refuse = False
    stand.proxy.cut()
    async with asyncio.timeout(20):
        while True:
            try:
                wrapped = await kms.wrap(KEY, CONTEXT)
            except KmsUnavailable:
                await asyncio.sleep(0)
            else:
                break
    assert (await kms.unwrap(wrapped.ciphertext, CONTEXT, wrapped.key_version)).plaintext == KEY


async def test_no_call_inside_a_transaction(kms: Kms, db: Db):
    async with db.begin():
        for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(b"vault:v1:", CONTEXT, "1"), kms.describe(), kms.rotate()):
            with pytest.raises((NetworkInTransaction, KmsRefused)) as raised:
                await call
            assert isinstance(raised.value, NetworkInTransaction) or "wrapped by" in str(raised.value)
