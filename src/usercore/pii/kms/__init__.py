"""The KMS seam: wraps the keyring's epochs, a handful of times in a process's life, never in a request."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol, cast

from usercore.errors import KmsRefused
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey

__all__ = ["SCHEMES", "Kms", "KmsDescription", "Unwrapped", "VersionState", "WrappedKey", "open_kms"]


class Kms(Protocol):
    """One key of a key management service, with its versions.

    `context` is authenticated, and some services log it in clear: ids only. Every call raises KmsUnavailable when
    trying again may help, KmsRefused when it will not, and NetworkInTransaction inside one. None takes longer than
    about three seconds.
    """

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Under the primary version."""
        ...

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        """`key_version` is the one that `wrap` named; services that find it in the ciphertext check that it agrees."""
        ...

    async def describe(self) -> KmsDescription:
        """The key and its versions. Refused when the key is of a kind that cannot wrap what is to be wrapped."""
        ...

    async def rotate(self) -> str:
        """Make a new version the primary one and name it. For operators: the service needs no permission for it."""
        ...

    async def destroy(self, key_version: str) -> None:
        """Nothing that this version wrapped opens any more, whoever has it. For operators.

        Refused for the primary version, and by services that destroy whole keys only.
        """
        ...

    async def close(self) -> None: ...


SCHEMES: Mapping[str, str] = {
    "local": "local.LocalKms",
    "gcp-kms": "gcp.GcpKms",
    "aws-kms": "aws.AwsKms",
    "hcvault": "vault.VaultTransit",
}
"""Each is imported when it is asked for: a client library takes a second, and that of AWS may not be there."""


def open_kms(uri: str) -> Kms:
    """Touches nothing yet, so a service that is away does not stop the start. Raises KmsRefused for a bad URI."""
    scheme, separator, rest = uri.partition("://")
    opener = SCHEMES.get(scheme)
    if opener is None or not separator or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise KmsRefused(f"PII_ENCRYPTION_KEY_ID has to start with one of {known} and name a key after it.")
    module, name = opener.split(".")
    try:
        found = getattr(import_module(f"usercore.pii.kms.{module}"), name)
    except ModuleNotFoundError as missing:
        raise KmsRefused(f"{scheme}:// needs {missing.name}: install usercore with the extra `aws`.") from None
    return cast("Callable[[str], Kms]", found)(rest)
