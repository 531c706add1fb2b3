"""Which webhooks are authentic: known answers, flipped bits, clocks, several secrets, headers that were changed."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.plugins import Person, StartRequest, WebhookScheme, sign
from usercore.plugins.webhooks import (
    TOLERANCE_S,
    RawHeaders,
    WebhookConfig,
    authenticates_body,
    new_token,
    readable,
    token_digest,
    verify,
)

NOW = 1_700_000_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"transactionId":"t-1","status":"auto_approved"}'
HMAC = WebhookConfig(scheme="hmac", secrets=(SECRET,))
STATIC = WebhookConfig(scheme="static_header", secrets=("s3cret-of-acme",), header="x-acme-auth")


def raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def digest(signed: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def standard(timestamp: int = NOW, secret: str = SECRET) -> list[tuple[bytes, bytes]]:
    return raw(sign(secret, "evt_1", timestamp, BODY))


def stamped(timestamp: int | str = NOW, secret: str = SECRET) -> list[tuple[bytes, bytes]]:
    signature = digest(f"{timestamp}.".encode() + BODY, secret)
    return raw({"x-webhook-signature": f"t={timestamp},v1={signature}"})


def bare(secret: str = SECRET) -> list[tuple[bytes, bytes]]:
    return raw({"x-webhook-signature": f"sha256={digest(BODY, secret)}"})


FORMS = {"standard": standard(), "stamped": stamped(), "body": bare()}
forms = pytest.mark.parametrize("headers", FORMS.values(), ids=FORMS)


def authentic(headers: RawHeaders, body: bytes = BODY, config: WebhookConfig = HMAC, now: float = NOW) -> bool:
    return verify(config, headers, body, None, now)


def flipped(text: bytes, bit: int) -> bytes:
    place, shift = divmod(bit % (len(text) * 8), 8)
    return text[:place] + bytes([text[place] ^ (1 << shift)]) + text[place + 1 :]


def test_a_known_answer_of_standard_webhooks() -> None:
    """From the tests of the reference libraries."""
    headers = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert authentic(raw(headers), b'{"test": 2432232314}', now=1614265330)


@forms
def test_the_good_one_is_authentic(headers: RawHeaders) -> None:
    assert authentic(headers)
    assert authentic([(name.upper(), value) for name, value in headers])
    assert authentic([(b"host", b"x"), *headers])


@given(st.sampled_from(list(FORMS.values())), st.integers(0, 10_000))
def test_any_flipped_bit_of_the_body_is_seen(headers: RawHeaders, bit: int) -> None:
    assert not authentic(headers, flipped(BODY, bit))


@given(st.sampled_from(list(FORMS.values())), st.integers(0, 5), st.integers(0, 10_000))
def test_any_flipped_bit_of_a_header_is_seen(headers: RawHeaders, which: int, bit: int) -> None:
    """Of id, timestamp and signature; also those bits that base64 has no use for."""
    changed = list(headers)
    name, value = changed[which % len(changed)]
    changed[which % len(changed)] = name, flipped(value, bit)
    assert not authentic(changed)


def test_every_bit_of_every_header() -> None:
    for headers in FORMS.values():
        for which, (name, value) in enumerate(headers):
            for bit in range(len(value) * 8):
                changed = [*headers[:which], (name, flipped(value, bit)), *headers[which + 1 :]]
                assert not authentic(changed), (name, bit)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_nothing_made_up_is_authentic(value: bytes, body: bytes) -> None:
    for names in ((b"x-webhook-signature",), (b"webhook-id", b"webhook-timestamp", b"webhook-signature")):
        assert not authentic([(name, value) for name in names], body)
    assert not authentic([(b"x-acme-auth", value)], body, STATIC)


@given(st.text(min_size=1, alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF)), st.binary())
def test_what_is_signed_with_any_secret_is_authentic(secret: str, body: bytes) -> None:
    headers = raw(sign(secret, "evt-1", NOW, body))
    assert authentic(headers, body, WebhookConfig(scheme="hmac", secrets=(secret,)))
    assert not authentic(headers, body, WebhookConfig(scheme="hmac", secrets=(secret + "x",)))


@pytest.mark.parametrize("make", [standard, stamped])
def test_old_and_future_ones_are_refused(make: Callable[[int], RawHeaders]) -> None:
    for age in (-TOLERANCE_S, 0, TOLERANCE_S):
        assert authentic(make(NOW + age))
    for age in (-TOLERANCE_S - 1, TOLERANCE_S + 1, 10 * 365 * 86_400):
        assert not authentic(make(NOW + age))


@pytest.mark.parametrize(
    "timestamp",
    ["", "-1", "+1700000000", "1_700_000_000", "1700000000.0", "١٧٠٠٠٠٠٠٠٠", "9" * 400, "nan", " 1700000000"],
)
def test_a_timestamp_is_digits(timestamp: str) -> None:
    """Signed all the same, by whoever has the secret: there is only one way to write a time."""
    signed = f"{timestamp}.".encode() + BODY
    value = f"t={timestamp},v1={digest(signed)}".encode()
    assert not authentic([(b"x-webhook-signature", value)])
    headers = dict(standard()) | {b"webhook-timestamp": timestamp.encode()}
    assert not authentic(list(headers.items()))


def test_several_secrets_are_live_and_several_signatures_are_looked_at() -> None:
    both = WebhookConfig(scheme="hmac", secrets=("old-secret", SECRET))
    for make in (standard, stamped):
        assert authentic(make(secret="old-secret"), config=both)
        assert authentic(make(secret=SECRET), config=both)
        assert not authentic(make(secret="older-secret"), config=both)
    assert authentic(bare("old-secret"), config=both)
    good, bad = (dict(standard(secret=secret))[b"webhook-signature"] for secret in (SECRET, "x"))
    assert authentic([*standard()[:2], (b"webhook-signature", b"v1a,abc " + bad + b" " + good)])
    value = f"t={NOW},v1={'0' * 64},v0=x,v1={digest(f'{NOW}.'.encode() + BODY)}".encode()
    assert authentic([(b"x-webhook-signature", value)])


def test_the_bare_hex_is_a_form_and_other_spellings_are_not() -> None:
    hex = digest(BODY)
    assert authentic(raw({"x-webhook-signature": hex}))
    for value in (hex.upper(), f"SHA256={hex}", f"sha1={hex}", f" {hex}", f"{hex} ", f"{hex},{hex}", hex[:-1], ""):
        assert not authentic(raw({"x-webhook-signature": value}))


@forms
def test_missing_double_and_non_ascii_headers(headers: list[tuple[bytes, bytes]]) -> None:
    for which, (name, value) in enumerate(headers):
        rest = [*headers[:which], *headers[which + 1 :]]
        assert not authentic(rest)
        assert not authentic([*headers, (name, value)]), "twice"
        assert not authentic([*headers, (name.upper(), b"other")]), "twice"
        for other in (b"\xff" + value, "ключ".encode(), value + b"\n", b"", value + b"\x00"):
            assert not authentic([*rest, (name, other)])


def test_a_part_of_standard_webhooks_is_not_saved_by_another_form() -> None:
    assert not authentic([*standard()[:2], *stamped()])
    assert not authentic([*standard(NOW - 3600), *stamped()])


@pytest.mark.parametrize("secrets", [(), ("",), ("whsec_",), ("", "")])
def test_an_empty_secret_opens_nothing(secrets: tuple[str, ...]) -> None:
    for secret in ("", "whsec_"):
        assert not authentic(stamped(secret=secret), config=WebhookConfig(scheme="hmac", secrets=secrets))
        assert not authentic(bare(secret), config=WebhookConfig(scheme="hmac", secrets=secrets))
    static = WebhookConfig(scheme="static_header", secrets=secrets)
    for headers in ([], [(b"x-webhook-secret", b"")], [(b"x-webhook-secret", b"anything")]):
        assert not authentic(headers, config=static)


def test_a_static_header() -> None:
    assert authentic([(b"X-Acme-Auth", b"s3cret-of-acme")], config=STATIC)
    assert authentic([(b"x-acme-auth", b"s3cret-of-acme")], b"another body", STATIC)
    for value in (b"", b"s3cret-of-acm", b"s3cret-of-acme ", b"S3cret-of-acme", b"\xe9", b"s3cret-of-acme\xff"):
        assert not authentic([(b"x-acme-auth", value)], config=STATIC)
    assert not authentic([(b"x-webhook-secret", b"s3cret-of-acme")], config=STATIC)
    assert not authentic([(b"x-acme-auth", b"s3cret-of-acme")] * 2, config=STATIC)
    two = WebhookConfig(scheme="static_header", secrets=("one", "two"), header="x-acme-auth")
    assert all(authentic([(b"x-acme-auth", value)], config=two) for value in (b"one", b"two"))
    assert not authentic([(b"x-acme-auth", b"one,two")], config=two)


def test_only_the_scheme_that_is_configured() -> None:
    token = new_token()
    static = [(b"x-webhook-secret", SECRET.encode())]
    cases: dict[WebhookScheme, tuple[RawHeaders, str | None]] = {
        "hmac": (standard(), None),
        "static_header": (static, None),
        "url_token": ([], token),
    }
    for scheme in cases:
        config = WebhookConfig(scheme=scheme, secrets=(SECRET,))
        for other, (headers, given_token) in cases.items():
            assert verify(config, headers, BODY, given_token, NOW) is (scheme == other)
    assert authenticates_body("hmac")
    assert not authenticates_body("static_header")
    assert not authenticates_body("url_token")


def test_tokens() -> None:
    config = WebhookConfig(scheme="url_token")
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(verify(config, [], BODY, token, NOW) for token in tokens)
    for token in (None, "", "x" * 42, "x" * 44, "x" * 42 + "/", "x" * 42 + "é", "x" * 43 + "\n"):
        assert not verify(config, [], BODY, token, NOW)
    assert token_digest("abc").hex() == hashlib.sha256(b"abc").hexdigest()


def test_no_secret_in_a_repr_and_headers_for_the_plugin() -> None:
    assert SECRET not in repr(HMAC)
    assert readable([(b"X-A", b"1"), (b"x-b", b"\xff")]) == {"x-a": "1", "x-b": "\xff"}


def test_a_start_request_does_not_show_the_secret_in_its_callback() -> None:
    request = StartRequest(
        attempt_id=UUID(int=7),
        checks=frozenset({"pan"}),
        person=Person(),
        callback_url=f"https://us.test/v1/kyc/webhook/acme/{SECRET}",
    )
    assert SECRET not in repr(request)
