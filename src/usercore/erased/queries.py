"""Typed SQL of what follows an erasure: sql/erased.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.plugins import ArtifactType

sql = Sql("erased")


class ErasureRow(Struct, frozen=True):
    """How far an erasure is; what the law keeps has an `until`."""

    user_id: UUID
    event_id: UUID
    reason: str
    erased_at: datetime
    keys_destroyed: str
    identity_until: datetime | None
    contact_until: datetime | None
    kyc_evidence_until: datetime | None
    listed_at: datetime | None
    vendors_told_at: datetime | None
    artifacts_gone_at: datetime | None
    certificate: str | None


class Outstanding(Struct, frozen=True):
    """Erasures without a certificate, and the tries of the one that was tried most."""

    count: int
    most_tries: int


class DocumentRow(Struct, frozen=True):
    id: UUID
    kyc_case_id: UUID
    attempt_id: UUID
    artifact_type: ArtifactType


class AttemptRow(Struct, frozen=True):
    id: UUID
    vendor: str
    vendor_case_id: str


@sql
async def list_documents(conn: Conn, *, user_id: UUID) -> list[DocumentRow]: ...


@sql
async def take_documents(conn: Conn, *, ids: Sequence[UUID]) -> None: ...


@sql
async def list_told_vendors(conn: Conn, *, user_id: UUID) -> list[AttemptRow]: ...


@sql
async def get_erasure(conn: Conn, *, user_id: UUID) -> ErasureRow | None: ...


@sql
async def take_open(conn: Conn, *, at: datetime, again_at: datetime, most: int) -> list[UUID]: ...


@sql
async def set_progress(
    conn: Conn,
    *,
    user_id: UUID,
    listed_at: datetime | None,
    vendors_told_at: datetime | None,
    artifacts_gone_at: datetime | None,
) -> None: ...


@sql
async def set_certificate(conn: Conn, *, user_id: UUID, certificate: str) -> None: ...


@sql
async def get_outstanding(conn: Conn) -> Outstanding: ...
