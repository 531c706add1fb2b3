"""Typed SQL of exports: sql/exports.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.outbox import ActorKind
from usercore.plugins import ArtifactType

sql = Sql("exports")


class Recipient(Struct, frozen=True):
    """A vendor, service or admin's console that received fields; the person who looked is not named."""

    recipient: str
    recipient_kind: ActorKind
    fields: list[str]
    purposes: list[str]
    times: int
    last_at: datetime


class Document(Struct, frozen=True):
    """A document of a verification, which the privacy desk hands out by its id; `size` in bytes."""

    id: UUID
    artifact_type: ArtifactType
    vendor: str
    media_type: str
    size: int
    sha256: str
    kept_since: datetime


@sql
async def list_recipients(conn: Conn, *, user_id: UUID) -> list[Recipient]: ...


@sql
async def list_documents(conn: Conn, *, user_id: UUID) -> list[Document]: ...
