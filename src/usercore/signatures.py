"""Documents that we sign and others verify without us: JWS (RFC 7515) with Ed25519 keys (RFC 8037) of the keyring.

Each kind of document has keys of its own, derived from the epochs that sign the audit trail, and its kind as `typ`.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, get_args

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.api_jwk import PyJWKSet

from usercore.errors import SignatureRefused
from usercore.pii.keyring import Keyring

Kind = Literal["consent-receipt", "erasure-certificate"]

T = TypeVar("T")
_jws = jwt.PyJWS(algorithms=["EdDSA"])


def sign(keyring: Keyring, kind: Kind, document: msgspec.Struct) -> str:
    """The document's JSON as a compact JWS, under the newest key. Raises KeysUnavailable."""
    version, seed = keyring.signing_seeds(kind.encode())[0]
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return _jws.encode(msgspec.json.encode(document), key, "EdDSA", {"typ": kind, "kid": _kid(kind, version)})


def public_keys(keyring: Keyring) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """The keys of every kind of document as a JWK set (RFC 7517), to be published. Raises KeysUnavailable."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "alg": "EdDSA",
                "use": "sig",
                "kid": _kid(kind, version),
                "x": urlsafe_b64encode(_public(seed).public_bytes_raw()).rstrip(b"=").decode(),
            }
            for kind in get_args(Kind)
            for version, seed in keyring.signing_seeds(kind.encode())
        ]
    }


def verify(jws: str, kind: Kind, keys: Mapping[str, object], type: type[T]) -> T:
    """The document that was signed. Raises SignatureRefused when it was changed, or is of another kind or key."""
    try:
        header = jwt.get_unverified_header(jws)
        known = {key.key_id: key for key in PyJWKSet.from_dict(dict(keys)).keys}
        key = known.get(header.get("kid"))
        if key is None or header.get("typ") != kind or not str(header["kid"]).startswith(f"{kind}-"):
            raise SignatureRefused("It was signed by none of these keys, or is another kind of document.")
        return msgspec.json.decode(_jws.decode(jws, key, ["EdDSA"]), type=type)
    except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        raise SignatureRefused("It was not signed by the key that it names, or was changed afterwards.") from None


def read_keys(text: str | bytes) -> Mapping[str, object]:
    """A JWK set that was published. Raises SignatureRefused."""
    try:
        return msgspec.convert(json.loads(text), dict[str, object])
    except (ValueError, msgspec.ValidationError):
        raise SignatureRefused("The keys are no JWK set.") from None


def _kid(kind: Kind, version: int) -> str:
    return f"{kind}-{version}"


def _public(seed: bytes) -> Ed25519PublicKey:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key()
