"""Typed SQL of the keyring and of the users' data keys: sql/keyring.sql."""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.keyring import EpochState, KeyPurpose
from usercore.pii.wraps import UserKeyRow

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


@sql
async def list_user_keys(conn: Conn, *, user_id: UUID) -> list[UserKeyRow]: ...


@sql
async def add_user_keys(conn: Conn, *, keys: Sequence[UserKeyRow]) -> None: ...
