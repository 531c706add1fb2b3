"""Typed SQL of the keyring: sql/keyring.sql."""

from collections.abc import Sequence

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.keyring import EpochState, KeyPurpose

sql = Sql("keyring")


class EpochRow(Struct, frozen=True):
    """An epoch as it is stored: its secret wrapped by the KMS."""

    epoch: int
    purpose: KeyPurpose
    version: int
    kms_version: str
    wrapped: bytes
    commitment: bytes
    state: EpochState


class NewEpoch(Struct, frozen=True):
    purpose: KeyPurpose
    version: int
    kms_uri: str
    kms_version: str
    wrapped: bytes
    commitment: bytes


@sql
async def list_epochs(conn: Conn) -> list[EpochRow]: ...


@sql
async def lock_keyring(conn: Conn) -> None: ...


@sql
async def add_epochs(conn: Conn, *, epochs: Sequence[NewEpoch]) -> list[int]: ...
