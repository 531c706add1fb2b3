"""Whether a webhook comes from the vendor: three schemes, apart from what the message says.

`hmac` takes three forms of headers, over the raw bytes of the body:

* Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64> …`, over `id.timestamp.body`
* `x-webhook-signature: t=<unix>,v1=<hex>[,v1=<hex>…]`, over `t.body`
* `x-webhook-signature: sha256=<hex>` or the bare hex, over the body

A secret is the text as it is; one that starts with `whsec_` is also tried decoded, as Standard Webhooks has it, for
others use such a secret as text. Signatures are compared as they are written, so that each has one spelling.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence

from msgspec import Struct

from usercore.plugins.vendor import WebhookScheme

RawHeaders = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: every header of the request, also those that come twice."""

TOLERANCE_S = 300
"""How old a timestamp may be, and how far in the future: what the libraries of Standard Webhooks have."""
TOKEN_BYTES = 32
PREFIX = "whsec_"

_TIMESTAMP = re.compile(rb"[0-9]{1,12}")
_HEX = re.compile(rb"(?:sha256=)?([0-9a-f]{64})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_PRINTABLE = re.compile(rb"[\x20-\x7e]+")


class WebhookConfig(Struct, frozen=True, kw_only=True):
    """How one vendor's webhooks are authenticated; no other way is accepted."""

    scheme: WebhookScheme
    secrets: tuple[str, ...] = ()
    """All of them are accepted but empty ones. With none nothing is authentic under hmac and static_header."""
    header: str = "x-webhook-secret"

    def __repr__(self) -> str:
        return f"WebhookConfig({self.scheme!r}, …)"


def verify(config: WebhookConfig, headers: RawHeaders, body: bytes, token: str | None, now: float) -> bool:
    """Whether the message is authentic; `now` is Unix time.

    With `url_token` true means only that `token` has the shape of one: the caller finds the attempt by its digest.
    With the others the token is not looked at: an attempt may have been started when the scheme was another.
    """
    if config.scheme == "url_token":
        return token is not None and _TOKEN.fullmatch(token) is not None
    if config.scheme == "static_header":
        return _is_static(config, headers)
    return _is_signed(config, headers, body, now)


def authenticates_body(scheme: WebhookScheme) -> bool:
    """Whether the body is the vendor's own word. Where it is not, it is a hint, and the result has to be fetched."""
    return scheme == "hmac"


def readable(headers: RawHeaders) -> dict[str, str]:
    """The headers as `read_webhook` gets them: names in lower case, of those that come twice the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def new_token() -> str:
    """The secret last segment of an attempt's callback URL, for the scheme `url_token`."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_digest(token: str) -> bytes:
    """What is stored of a token, and what one that comes in is looked up by: SHA-256."""
    return hashlib.sha256(token.encode()).digest()


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message as Standard Webhooks 1.0 has them, for those who send one."""
    key = decoded(secret) or secret.encode()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": _standard_signature(key, event_id.encode(), str(timestamp).encode(), body).decode(),
    }


def decoded(secret: str) -> bytes | None:
    """The key in a secret that starts with `whsec_`; None for other secrets, and for one that is not base64."""
    if not secret.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def keys(texts: Iterable[str]) -> list[bytes]:
    """Every key that the secrets stand for. An empty secret, and a prefix with nothing after it, stand for none."""
    found: list[bytes] = []
    for text in texts:
        if text and text != PREFIX:
            found.append(text.encode())
            if (key := decoded(text)) is not None:
                found.append(key)
    return found


def _is_static(config: WebhookConfig, headers: RawHeaders) -> bool:
    given = _only(headers, config.header.encode())
    return given is not None and _is_any([given], [secret.encode() for secret in config.secrets if secret])


def _is_signed(config: WebhookConfig, headers: RawHeaders, body: bytes, now: float) -> bool:
    live = keys(config.secrets)
    if any(name.lower() in (b"webhook-id", b"webhook-timestamp", b"webhook-signature") for name, _ in headers):
        event_id, timestamp = _only(headers, b"webhook-id"), _only(headers, b"webhook-timestamp")
        given = _only(headers, b"webhook-signature")
        if event_id is None or timestamp is None or given is None or not _is_recent(timestamp, now):
            return False
        return _is_any(given.split(b" "), [_standard_signature(key, event_id, timestamp, body) for key in live])
    given = _only(headers, b"x-webhook-signature")
    if given is None:
        return False
    if bare := _HEX.fullmatch(given):
        return _is_any([bare[1]], [_hex(key, body) for key in live])
    parts = [part.partition(b"=")[::2] for part in given.split(b",")]
    timestamps = [value for name, value in parts if name == b"t"]
    if len(timestamps) != 1 or not _is_recent(timestamps[0], now):
        return False
    signed = timestamps[0] + b"." + body
    return _is_any([value for name, value in parts if name == b"v1"], [_hex(key, signed) for key in live])


def _only(headers: RawHeaders, name: bytes) -> bytes | None:
    """The value of a header that is there once; of two, somebody in between may have read the other one."""
    values = [value for given, value in headers if given.lower() == name.lower()]
    return values[0] if len(values) == 1 and _PRINTABLE.fullmatch(values[0]) else None


def _is_recent(timestamp: bytes, now: float) -> bool:
    return _TIMESTAMP.fullmatch(timestamp) is not None and abs(now - int(timestamp)) <= TOLERANCE_S


def _is_any(given: Sequence[bytes], good: Sequence[bytes]) -> bool:
    """Whether one is equal to one; every pair is compared, so that the time tells nothing."""
    equal = False
    for one in given:
        for other in good:
            equal |= hmac.compare_digest(one, other)
    return equal


def _standard_signature(key: bytes, event_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    signed = b".".join((event_id, timestamp, body))
    return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))


def _hex(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256").hex().encode()
