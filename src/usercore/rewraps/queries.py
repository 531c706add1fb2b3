"""Typed SQL of rewrapping and indexing anew: sql/rewraps.sql."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.classification import RetentionClass
from usercore.pii.keyring import KeyPurpose
from usercore.pii.sealed import Sealed
from usercore.pii.wraps import UserKeyRow

sql = Sql("rewraps")


class InboxKeyRow(Struct, frozen=True):
    day: date
    owner: UUID
    epoch: int
    wrapped: bytes


class IndexedRow(Struct, frozen=True):
    """A profile's searchable fields with their indexes, and the user's keys as four parallel lists."""

    user_id: UUID
    pan_number_enc: Sealed | None
    phone_enc: Sealed | None
    pan_number_index: bytes | None
    phone_index: bytes | None
    key_classes: list[RetentionClass] | None
    key_versions: list[int] | None
    key_epochs: list[int] | None
    key_wraps: list[bytes] | None


@sql
async def set_unused(conn: Conn, *, epochs: Sequence[int]) -> None: ...


@sql
async def has_unfinished(conn: Conn, *, purpose: KeyPurpose) -> bool: ...


@sql
async def get_slice_end(conn: Conn, *, after: UUID, most: int) -> UUID | None: ...


@sql
async def list_outdated(conn: Conn, *, after: UUID, until: UUID, epoch: int) -> list[UserKeyRow]: ...


@sql
async def set_wraps(conn: Conn, *, keys: Sequence[UserKeyRow], was: Sequence[bytes]) -> int: ...


@sql
async def add_quarantined(
    conn: Conn, *, user_id: UUID, retention_class: RetentionClass, version: int, epoch: int, reason: str
) -> bool | None: ...


@sql
async def list_outdated_inbox_keys(conn: Conn, *, epoch: int) -> list[InboxKeyRow]: ...


@sql
async def set_inbox_wrap(conn: Conn, *, day: date, was: bytes, epoch: int, wrapped: bytes) -> None: ...


@sql
async def get_profile_slice_end(conn: Conn, *, after: UUID, most: int) -> UUID | None: ...


@sql
async def list_unindexed(conn: Conn, *, after: UUID, until: UUID, prefix: bytes) -> list[IndexedRow]: ...


@sql
async def set_indexes(
    conn: Conn,
    *,
    user_id: UUID,
    pan_number_index: bytes | None,
    phone_index: bytes | None,
    was_pan_number: bytes | None,
    was_phone: bytes | None,
) -> bool | None: ...


@sql
async def add_claim(
    conn: Conn,
    *,
    user_id: UUID,
    index_version: int,
    digest: bytes,
    older_versions: Sequence[int],
    older_digests: Sequence[bytes],
) -> None: ...
