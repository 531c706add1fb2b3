"""The KMS seam: wraps the keyring's epochs, a handful of times in a process's life, never in a request."""

from collections.abc import Callable, Mapping
from typing import Protocol

from usercore.errors import KmsRefused
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey
from usercore.pii.kms.local import LocalKms

__all__ = ["SCHEMES", "Kms", "KmsDescription", "Unwrapped", "VersionState", "WrappedKey", "open_kms"]


class Kms(Protocol):
    """One key of a key management service, with its versions.

    `context` is authenticated, and some services log it in clear: ids only. Every call raises KmsUnavailable when
    trying again may help, KmsRefused when it will not, and NetworkInTransaction inside one.
    """

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Under the primary version."""
        ...

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        """`key_version` is the one that `wrap` named; services that find it in the ciphertext check that it agrees."""
        ...

    async def describe(self) -> KmsDescription: ...

    async def close(self) -> None: ...


SCHEMES: Mapping[str, Callable[[str], Kms]] = {"local": LocalKms}


def open_kms(uri: str) -> Kms:
    """Touches nothing yet, so a service that is away does not stop the start. Raises KmsRefused for a bad URI."""
    scheme, separator, rest = uri.partition("://")
    opener = SCHEMES.get(scheme)
    if opener is None or not separator or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise KmsRefused(f"PII_ENCRYPTION_KEY_ID has to start with one of {known} and name a key after it.")
    return opener(rest)
