"""Typed SQL of artifacts: sql/artifacts.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.sealed import Sealed
from usercore.plugins import ArtifactType

sql = Sql("artifacts")


class NewArtifact(Struct, frozen=True):
    """A document to be fetched: where it will be stored, and where it is now."""

    id: UUID
    case_id: UUID
    attempt_id: UUID
    type: ArtifactType
    storage_ref_enc: Sealed
    source_enc: Sealed
    created_at: datetime


class WaitingRow(Struct, frozen=True):
    """A document that this worker fetches now; `tries` counts this one."""

    id: UUID
    user_id: UUID
    attempt_id: UUID
    artifact_type: ArtifactType
    storage_ref_enc: Sealed
    source_enc: Sealed | None
    tries: int


class Stored(Struct, frozen=True):
    """What is known of the bytes: SHA-256 of the plaintext in hex, its size in bytes."""

    hash: str
    size: int
    media_type: str
    at: datetime


class StoredRow(Struct, frozen=True):
    id: UUID
    kyc_case_id: UUID
    user_id: UUID
    artifact_type: ArtifactType
    storage_ref_enc: Sealed
    hash: str
    size: int
    media_type: str


@sql
async def accept_artifact(conn: Conn, *, artifact: NewArtifact) -> None: ...


@sql
async def take_waiting(conn: Conn, *, at: datetime, leased_until: datetime, most: int) -> list[WaitingRow]: ...


@sql
async def set_source(conn: Conn, *, artifact_id: UUID, lease: datetime, source_enc: Sealed) -> None: ...


@sql
async def set_stored(conn: Conn, *, artifact_id: UUID, lease: datetime, stored: Stored) -> bool | None: ...


@sql
async def set_next_try(conn: Conn, *, artifact_id: UUID, lease: datetime, at: datetime, counts: bool) -> None: ...


@sql
async def set_given_up(conn: Conn, *, artifact_id: UUID, lease: datetime, reason: str) -> bool | None: ...


@sql
async def get_stored(conn: Conn, *, artifact_id: UUID) -> StoredRow | None: ...
