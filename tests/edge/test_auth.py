"""Tokens: what is accepted, what is not, and where the keys come from."""

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.issuer import AUDIENCE, ISSUER, SUB, Issuer, KeyServer, payload, raw_token
from usercore import jwks
from usercore.auth import Authenticator
from usercore.errors import ServiceUnavailable, Unauthenticated
from usercore.jwks import FileKeys, JwksKeys, read_jwks, read_pem

issuer = Issuer("ES256")
stranger = Issuer("ES256")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "public.pem"
    file.write_bytes(issuer.pem)
    return file


@pytest.fixture
def authenticator(key_file: Path) -> Authenticator:
    return Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=FileKeys(key_file))


@pytest.fixture
async def key_server() -> AsyncGenerator[KeyServer, None]:
    server = KeyServer(Issuer("ES256", "one"))
    yield server
    await server.stop()


async def refused(authenticator: Authenticator, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(token)
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_a_good_token_names_its_caller(authenticator: Authenticator) -> None:
    token = issuer.token(scope="internal pii:read", client_id="risk-engine", email="a@example.in")
    assert authenticator.remembered(token) is None
    principal = await authenticator.authenticate(token)
    assert principal.sub == SUB
    assert principal.scopes == {"internal", "pii:read"}
    assert (principal.client_id, principal.email) == ("risk-engine", "a@example.in")
    assert authenticator.remembered(token) == principal


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_each_algorithm_verifies(algorithm: str, tmp_path: Path) -> None:
    own = Issuer(algorithm)
    (tmp_path / "key.pem").write_bytes(own.pem)
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=FileKeys(tmp_path / "key.pem"))
    assert (await verifier.authenticate(own.token())).sub == SUB
    await refused(verifier, Issuer(algorithm).token())


now = int(time.time())
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": now - 61},
    "no exp": {"exp": None},
    "exp as text": {"exp": str(now + 600)},
    "exp as boolean": {"exp": True},
    "not yet valid": {"nbf": now + 86_400},
    "issued in the future": {"iat": now + 86_400},
    "nbf as text": {"nbf": "0"},
    "other issuer": {"iss": "https://elsewhere.test"},
    "no issuer": {"iss": None},
    "issuer as list": {"iss": [ISSUER]},
    "other audience": {"aud": "wallet"},
    "other audiences": {"aud": ["wallet", "orders"]},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "subject is no UUID": {"sub": "42"},
    "scope as list": {"scope": ["admin"]},
}


@pytest.mark.parametrize("claims", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_bad_claims_are_refused(authenticator: Authenticator, claims: dict[str, Any]) -> None:
    # Signed as bytes: the library would check some of them when it encodes.
    await refused(authenticator, jwt.PyJWS().encode(msgspec.json.encode(payload(**claims)), issuer.private, "ES256"))


@pytest.mark.parametrize(
    "offsets", [{"exp": -50}, {"nbf": 50}, {"iat": 50}, {"exp": 9.5}], ids=["exp", "nbf", "iat", "fraction"]
)
async def test_clocks_may_differ_by_a_minute(authenticator: Authenticator, offsets: dict[str, float]) -> None:
    claims: dict[str, Any] = {name: int(time.time()) + offset for name, offset in offsets.items()}
    assert (await authenticator.authenticate(issuer.token(**claims))).sub == SUB


async def test_one_of_several_audiences_may_be_ours(authenticator: Authenticator) -> None:
    assert (await authenticator.authenticate(issuer.token(aud=["x", AUDIENCE]))).sub == SUB


async def test_tricks_are_refused(authenticator: Authenticator) -> None:
    good = issuer.token()
    head, body, signature = good.split(".")
    tricks = [
        "",
        ".",
        "..",
        "a.b",
        good + ".",
        good + "." + signature,
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature[:-2]}AA",
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace(".", ". "),
        good + "é",
        raw_token({"alg": "none"}, payload()),
        raw_token({"alg": "None"}, payload()),
        raw_token({"alg": "NONE", "typ": "JWT"}, payload(), b"x"),
        raw_token({}, payload()),
        raw_token({"alg": ["ES256"]}, payload()),
        jwt.PyJWS().encode(b"{}", b"k" * 32, "HS256"),
        hmac_with_public_key(),
        stranger.token(),
        issuer.token(header={"crit": ["exp"]}),
        issuer.token(header={"jwk": stranger.jwk, "jku": "https://elsewhere.test/jwks.json"})[:-8] + "AAAAAAAA",
        issuer.token(filler="x" * 9000),
    ]
    for token in tricks:
        await refused(authenticator, token)


def hmac_with_public_key() -> str:
    """HS256 whose secret is our public key, as a confused library would verify it."""
    unsigned = raw_token({"alg": "HS256", "typ": "JWT"}, payload(scope="admin")).rpartition(".")[0]
    mac = hmac.digest(issuer.pem, unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@given(
    st.one_of(
        st.text(max_size=200), st.text("abcABC019-_.=", max_size=200), st.binary().map(lambda b: b.decode("latin-1"))
    )
)
async def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    source = StaticKeys()
    await refused(Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=source), text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries({}, optional={name: json_values for name in ("alg", "kid", "typ", "crit", "b64", "zip")}),
    st.fixed_dictionaries(
        {}, optional={name: json_values for name in ("iss", "aud", "exp", "nbf", "iat", "sub", "scope")}
    ),
    st.binary(max_size=80),
)
async def test_any_unsigned_structure_is_refused(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    source = StaticKeys()
    await refused(Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=source), raw_token(header, claims, signature))


@given(
    st.fixed_dictionaries(
        {}, optional={name: json_values for name in ("aud", "exp", "nbf", "iat", "sub", "scope", "email", "client_id")}
    )
)
async def test_any_signed_claims_are_refused_or_make_sense(claims: dict[str, Any]) -> None:
    full = {**payload(), **claims}
    token = jwt.PyJWS().encode(msgspec.json.encode(full), issuer.private, "ES256")
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=StaticKeys())
    try:
        principal = await verifier.authenticate(token)
    except Unauthenticated:
        return
    assert principal.sub == UUID(full["sub"])
    assert full["exp"] + 60 > time.time()
    assert all(scope in str(full.get("scope")) for scope in principal.scopes)


class StaticKeys:
    """Keys that are simply there."""

    generation = 1

    def look(self) -> None: ...

    async def keys_for(self, kid: str | None, algorithm: jwks.Algorithm) -> list[jwks.Key]:
        return [key for key in read_pem(issuer.pem) if key.algorithm == algorithm]

    async def close(self) -> None: ...


async def test_a_remembered_token_still_expires(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    token = issuer.token()
    await authenticator.authenticate(token)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 700)
    assert authenticator.remembered(token) is None
    await refused(authenticator, token)


def write(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)


async def test_a_changed_file_takes_effect(
    authenticator: Authenticator, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FILE_CHECK_S", 0.0)
    old, new = issuer.token(), stranger.token()
    await authenticator.authenticate(old)
    write(key_file, stranger.pem + issuer.pem)
    assert authenticator.remembered(old) is None
    await authenticator.authenticate(new)
    await authenticator.authenticate(old)
    write(key_file, stranger.pem)
    await refused(authenticator, old)
    # Broken or gone: the last good keys stay.
    write(key_file, b"nonsense")
    await authenticator.authenticate(new)
    write(key_file, None)
    await authenticator.authenticate(new)


async def test_no_key_yet_is_not_the_callers_fault(tmp_path: Path) -> None:
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=FileKeys(tmp_path / "absent.pem"))
    with pytest.raises(ServiceUnavailable):
        await verifier.authenticate(issuer.token())


def test_a_private_key_or_a_weak_one_is_no_public_key() -> None:
    private = issuer.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    weak = rsa.generate_private_key(65537, 1024).public_key()
    for content in (
        private,
        b"",
        weak.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ):
        with pytest.raises(ValueError):
            read_pem(content)


def test_a_key_set_gives_only_what_we_verify_with() -> None:
    es, ed, rs = Issuer("ES256", "a"), Issuer("EdDSA", "b"), Issuer("RS256", "c")
    entries: list[Any] = [
        es.jwk,
        ed.jwk,
        rs.jwk,
        {**es.jwk, "use": "enc"},
        {**es.jwk, "alg": "ES384"},
        {**es.jwk, "key_ops": ["encrypt"]},
        {**es.jwk, "d": "AAAA"},
        {**es.jwk, "x": "!"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "EC", "crv": "P-384"},
        "nonsense",
        None,
        {},
    ]
    keys = read_jwks(msgspec.json.encode({"keys": entries}))
    assert [(key.kid, key.algorithm) for key in keys] == [("a", "ES256"), ("b", "EdDSA"), ("c", "RS256")]
    for content in (b"[]", b"{}", b"{", b'{"keys":{}}'):
        with pytest.raises(ValueError):
            read_jwks(content)


async def test_keys_come_from_the_url_and_rotate(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "JWKS_PAUSE_S", 0.0)
    monkeypatch.setattr(jwks, "JWKS_FIRST_PAUSE_S", 0.0)
    one, two = Issuer("ES256", "one"), Issuer("EdDSA", "two")
    key_server.keys = [one.jwk]
    source = JwksKeys(await key_server.start())
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=source)
    try:
        old, new = one.token(), two.token()
        await verifier.authenticate(old)
        await verifier.authenticate(one.token(jti="x"))
        assert key_server.asked == 1
        key_server.keys = [one.jwk, two.jwk]
        assert (await verifier.authenticate(new)).sub == SUB
        assert key_server.asked == 2
        # The old key leaves: its tokens are refused once the set is stale, the remembered ones too.
        key_server.keys = [two.jwk]
        monkeypatch.setattr(source, "_stale_at", 0.0)
        verifier.remembered(old)
        await source.keys_for("unknown", "EdDSA")
        await refused(verifier, old)
        await verifier.authenticate(new)
    finally:
        await verifier.close()


async def test_a_dead_key_server_changes_nothing(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "JWKS_PAUSE_S", 0.0)
    monkeypatch.setattr(jwks, "JWKS_FIRST_PAUSE_S", 0.0)
    one = Issuer("RS256", "one")
    key_server.keys = [one.jwk]
    source = JwksKeys(await key_server.start())
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=source)
    try:
        await verifier.authenticate(one.token())
        for status, body in ((500, b""), (200, b"nonsense"), (200, b'{"keys":[]}'), (200, b" " * 300_000), (302, b"")):
            key_server.status, key_server.body = status, body
            await source.keys_for("unknown", "RS256")
            await verifier.authenticate(one.token(jti=str(status)))
        await key_server.stop()
        await source.keys_for("unknown", "RS256")
        await verifier.authenticate(one.token(jti="stopped"))
    finally:
        await verifier.close()


async def test_unknown_key_ids_do_not_flood_the_key_server(key_server: KeyServer) -> None:
    one = Issuer("ES256", "one")
    key_server.keys = [one.jwk]
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=JwksKeys(await key_server.start()))
    try:
        await verifier.authenticate(one.token())
        for number in range(20):
            await refused(verifier, Issuer("ES256", f"made-up-{number}").token())
        assert key_server.asked == 1
    finally:
        await verifier.close()


async def test_a_key_server_that_was_never_there_is_503(key_server: KeyServer) -> None:
    url = await key_server.start()
    await key_server.stop()
    verifier = Authenticator(issuer=ISSUER, audience=AUDIENCE, keys=JwksKeys(url))
    try:
        with pytest.raises(ServiceUnavailable):
            await verifier.authenticate(issuer.token())
    finally:
        await verifier.close()
