"""Typed SQL of the keyring's life: sql/keys.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.classification import RetentionClass
from usercore.pii.keyring import EpochState, KeyPurpose
from usercore.pii.queries import NewEpoch

sql = Sql("keys")


class KeyringRow(Struct, frozen=True):
    epoch: int
    purpose: KeyPurpose
    version: int
    kms_uri: str
    kms_version: str
    wrapped: bytes
    commitment: bytes
    state: EpochState
    created_at: datetime
    state_since: datetime
    unused_since: datetime | None


class Dependents(Struct, frozen=True):
    """How many rows of a table depend on an epoch."""

    epoch: int
    what: str
    count: int


class Quarantined(Struct, frozen=True):
    """A data key that its epoch did not open; `reason` is that of OpenFailed."""

    user_id: UUID
    retention_class: RetentionClass
    version: int
    epoch: int
    reason: str
    found_at: datetime


@sql
async def list_keyring(conn: Conn) -> list[KeyringRow]: ...


@sql
async def list_dependents(conn: Conn) -> list[Dependents]: ...


@sql
async def add_epoch(conn: Conn, *, epoch: NewEpoch) -> int: ...


@sql
async def set_retiring(conn: Conn, *, purpose: KeyPurpose) -> None: ...


@sql
async def set_active(conn: Conn, *, epoch: int) -> None: ...


@sql
async def set_retired(conn: Conn, *, epoch: int) -> None: ...


@sql
async def set_destroyed(conn: Conn, *, epoch: int) -> None: ...


@sql
async def set_wrapped(
    conn: Conn, *, epoch: int, was: bytes, kms_uri: str, kms_version: str, wrapped: bytes
) -> bool | None: ...


@sql
async def lock_user_keys(conn: Conn) -> None: ...


@sql
async def take_old_claims(conn: Conn, *, index_version: int) -> None: ...


@sql
async def count_quarantined(conn: Conn, *, epoch: int) -> int: ...


@sql
async def list_quarantined(conn: Conn, *, most: int) -> list[Quarantined]: ...
