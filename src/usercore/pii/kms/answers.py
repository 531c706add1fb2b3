"""What every KMS answers with."""

from collections.abc import Mapping
from typing import Literal

import msgspec

VersionState = Literal["enabled", "disabled", "destroyed"]


class WrappedKey(msgspec.Struct, frozen=True):
    ciphertext: bytes
    key_version: str  # as the service names it; stored in pii_keyring.kms_version


class Unwrapped(msgspec.Struct, frozen=True):
    """The repr leaves the key out."""

    plaintext: bytes
    rewrap_wanted: bool  # it was wrapped under a version that is no longer the primary one

    def __repr__(self) -> str:
        return f"Unwrapped(plaintext=…, rewrap_wanted={self.rewrap_wanted})"


class KmsDescription(msgspec.Struct, frozen=True):
    uri: str  # without credentials; stored in pii_keyring.kms_uri
    primary: str
    versions: Mapping[str, VersionState]
