"""What only one KMS provider can get wrong, and how a URI, a key or a token that is wrong is reported."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import kms as google_kms

from tests.pii.kms_stands import AwsStand, Bao, GcpStand, VaultStand, aws_stand, gcp_stand, vault_stand
from tests.pii.test_kms_contract import CONTEXT, KEY
from usercore.errors import KmsRefused, KmsUnavailable
from usercore.pii.kms import SCHEMES, gcp, open_kms


@pytest.fixture
async def google() -> AsyncGenerator[GcpStand]:
    async with gcp_stand() as stand:
        yield stand


@pytest.fixture
async def aws(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[AwsStand]:
    async with aws_stand(monkeypatch.setenv) as stand:
        yield stand


@pytest.fixture
async def vault(bao: Bao, tmp_path: Path) -> AsyncGenerator[VaultStand]:
    async with vault_stand(bao, tmp_path) as stand:
        yield stand


KEY_NAME = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
ARN = "arn:aws:kms:ap-south-1:123456789012"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gcp-kms://projects/p", "cryptoKeys"),
        (f"gcp-kms://{KEY_NAME}/cryptoKeyVersions/1", "no version"),
        (f"gcp-kms:///{KEY_NAME}", "cryptoKeys"),
        (f"gcp-kms://{KEY_NAME}\n", "cryptoKeys"),
        ("aws-kms://1234", "ARN"),
        (f"aws-kms://{ARN}:alias/usercore", "ARN"),
        ("aws-kms://arn:aws:s3:ap-south-1:123456789012:key/x", "ARN"),
        ("hcvault://vault:8200/transit", "HOST:PORT/MOUNT/KEY"),
        ("hcvault://vault:8200/transit/k", "token_file"),
        ("hcvault://vault:8200/transit/k?token=hvs.secret", "HOST:PORT/MOUNT/KEY"),
        ("hcvault://root:secret@vault:8200/transit/k?token_file=t", "HOST:PORT/MOUNT/KEY"),
        ("gcp-kms:/x", "gcp-kms://"),
        ("azure-kms://x", "has to start with"),
    ],
)
def test_a_uri_with_a_mistake_says_what_it_has_to_be(uri: str, says: str):
    with pytest.raises(KmsRefused, match=says) as refused:
        open_kms(uri)
    assert "secret" not in str(refused.value)


def test_opening_touches_nothing(tmp_path: Path):
    for uri in (f"gcp-kms://{KEY_NAME}", f"aws-kms://{ARN}:key/1", "hcvault://nowhere:1/t/k?token_file=none"):
        open_kms(uri)
    assert set(SCHEMES) == {"local", "gcp-kms", "aws-kms", "hcvault"}


def test_a_client_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    monkeypatch.delitem(__import__("sys").modules, "usercore.pii.kms.aws", raising=False)
    with pytest.raises(KmsRefused, match="needs boto3: install usercore with the extra `aws`"):
        open_kms(f"aws-kms://{ARN}:key/1")


@pytest.mark.parametrize("damage", ["ciphertext", "unverified"])
async def test_bytes_that_changed_on_their_way_to_google_are_noticed(google: GcpStand, damage: str):
    kms = google.open()
    google.server.damage = damage  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KmsUnavailable, match="damaged on its way"):
        await kms.wrap(KEY, CONTEXT)
    await kms.close()


async def test_bytes_that_changed_on_their_way_from_google_are_noticed(google: GcpStand):
    kms = google.open()
    wrapped = await kms.wrap(KEY, CONTEXT)
    google.server.damage = "plaintext"
    with pytest.raises(KmsUnavailable, match="damaged on its way"):
        await kms.unwrap(wrapped.ciphertext, CONTEXT, "1")
    await kms.close()


async def test_an_answer_of_google_for_another_key_is_refused(google: GcpStand):
    kms = google.open()
    google.server.damage = "name"
    with pytest.raises(KmsRefused, match="another key"):
        await kms.wrap(KEY, CONTEXT)
    await kms.close()


async def test_googles_refusals_say_what_to_do_and_name_nobody(google: GcpStand):
    kms = google.open()
    google.server.denied = True
    with pytest.raises(KmsRefused, match=r"permission denied .*cryptoKeyEncrypterDecrypter") as denied:
        await kms.wrap(KEY, CONTEXT)
    assert "example.in" not in str(denied.value)
    assert denied.value.__cause__ is None
    google.server.denied = False
    google.server.purpose = google_kms.CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN
    with pytest.raises(KmsRefused, match="a key for ASYMMETRIC_SIGN"):
        await kms.describe()
    google.server.versions.clear()
    with pytest.raises(KmsRefused, match="no such key"):
        await kms.describe()
    await kms.close()


async def test_every_version_of_google_is_listed_over_pages(google: GcpStand):
    kms = google.open()
    for _ in range(4):
        await kms.rotate()
    assert list((await kms.describe()).versions) == ["1", "2", "3", "4", "5"]
    assert google.server.calls.count("ListCryptoKeyVersions") == 3
    await kms.close()


async def test_aws_opens_nothing_of_another_key(aws: AwsStand):
    kms = aws.open()
    wrapped = await kms.wrap(KEY, CONTEXT)
    with pytest.raises(KmsRefused, match="not by the key"):
        await kms.unwrap(wrapped.ciphertext, CONTEXT, "another")
    unknown = open_kms(f"{aws.uri[:-3]}000")
    with pytest.raises(KmsRefused, match="no such key"):
        await unknown.describe()
    await unknown.close()
    await kms.close()


async def test_the_context_that_aws_logs_has_ids_only(aws: AwsStand):
    assert all(value.isascii() and len(value) < 20 for value in CONTEXT.values())


async def test_a_vault_key_that_ignores_contexts_is_refused(vault: VaultStand):
    vault.bao.ask("POST", f"transit/keys/{vault.key}-plain", {"derived": False})
    plain = open_kms(f"hcvault://{vault.address}/transit/{vault.key}-plain?token_file={vault.token_file}&tls=off")
    vault.token_file.write_text(vault.bao.token(f"{vault.key}-plain", 60))
    for call in (plain.wrap(KEY, CONTEXT), plain.unwrap(b"vault:v1:AAAA", CONTEXT, "1"), plain.describe()):
        with pytest.raises(KmsRefused, match="derived=true"):
            await call
    await plain.close()


async def test_the_service_needs_no_operators_policy(vault: VaultStand):
    vault.token_file.write_text(vault.bao.token(vault.key, 60, operator=False))
    kms = vault.open()
    wrapped = await kms.wrap(KEY, CONTEXT)
    assert (await kms.unwrap(wrapped.ciphertext, CONTEXT, "1")).plaintext == KEY
    for call in (kms.rotate(), kms.destroy("0")):
        with pytest.raises(KmsRefused, match="permission denied"):
            await call
    await kms.close()


async def test_a_token_is_read_again_and_a_wrong_one_is_named(vault: VaultStand):
    kms = vault.open()
    good = vault.token_file.read_text()
    await kms.describe()
    vault.token_file.write_text("hvs.wrong")
    with pytest.raises(KmsRefused, match="permission denied") as refused:
        await kms.describe()
    assert "hvs" not in str(refused.value)
    vault.token_file.unlink()
    with pytest.raises(KmsUnavailable, match="cannot be read"):
        await kms.describe()
    vault.token_file.write_text(good)
    assert (await kms.describe()).primary == "1"
    await kms.close()


async def test_a_token_is_renewed_before_it_ends(vault: VaultStand):
    vault.token_file.write_text(vault.bao.token(vault.key, 2))
    kms = vault.open()
    await kms.describe()
    loop = asyncio.get_running_loop()
    until = loop.time() + 5
    while loop.time() < until:
        assert await kms.wrap(KEY, CONTEXT)  # would be refused 2 s after the start
    await kms.close()


async def test_what_is_not_vault_is_no_refusal(vault: VaultStand, google: GcpStand):
    assert google.proxy is not None
    kms = open_kms(f"hcvault://127.0.0.1:{google.proxy.port}/t/k?token_file={vault.token_file}&tls=off")
    with pytest.raises(KmsUnavailable):
        await kms.describe()
    await kms.close()


async def test_vault_over_tls_is_the_default(vault: VaultStand):
    kms = open_kms(f"{vault.uri}?token_file={vault.token_file}")
    with pytest.raises(KmsUnavailable, match=r"ClientConnectorSSLError|ClientConnectorError|Ssl|SSL"):
        await kms.describe()
    await kms.close()


async def test_google_is_connected_to_again_soon_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def create_channel(host: str, **options: Any) -> grpc.aio.Channel:
        given.update(options)
        return grpc.aio.insecure_channel("127.0.0.1:9")

    monkeypatch.setattr(gcp.Transport, "create_channel", create_channel)
    gcp.make_client(AnonymousCredentials())
    assert {*gcp.RECONNECT} < {*given["options"]}
