"""Typed SQL of attempts, looks and disclosures: sql/attempts.sql."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycTier
from usercore.pii.sealed import Sealed

sql = Sql("attempts")

AttemptState = Literal["starting", "started", "failed", "superseded"]


class NewAttempt(Struct, frozen=True):
    id: UUID
    case_id: UUID
    vendor: str
    token_hash: bytes
    token_enc: Sealed
    created_at: datetime


class AttemptRow(Struct, frozen=True):
    """An attempt; `calls` counts how often its start was tried."""

    id: UUID
    case_id: UUID
    vendor: str
    vendor_case_id: str | None
    state: AttemptState
    token_enc: Sealed
    hosted_enc: Sealed | None
    expires_at: datetime | None
    calls: int


@sql
async def add_attempt(conn: Conn, *, attempt: NewAttempt) -> None: ...


@sql
async def get_attempt(conn: Conn, *, attempt_id: UUID) -> AttemptRow | None: ...


@sql
async def get_id_by_reference(conn: Conn, *, vendor: str, vendor_case_id: str) -> UUID | None: ...


@sql
async def get_attempt_by_token(conn: Conn, *, token_hash: bytes) -> AttemptRow | None: ...


@sql
async def list_attempts(conn: Conn, *, case_id: UUID) -> list[AttemptRow]: ...


@sql
async def take_call(conn: Conn, *, attempt_id: UUID, at: datetime, not_after: datetime) -> int | None: ...


@sql
async def set_started(
    conn: Conn,
    *,
    attempt_id: UUID,
    vendor_case_id: str,
    hosted_enc: Sealed | None,
    expires_at: datetime | None,
    at: datetime,
) -> None: ...


@sql
async def set_state(conn: Conn, *, attempt_id: UUID, state: AttemptState) -> None: ...


@sql
async def set_case_attempt(
    conn: Conn, *, case_id: UUID, vendor: str, vendor_case_id: str | None, next_look_at: datetime
) -> None: ...


@sql
async def set_next_look(conn: Conn, *, case_id: UUID, at: datetime) -> None: ...


@sql
async def take_lease(conn: Conn, *, case_id: UUID, at: datetime, leased_until: datetime) -> bool | None: ...


@sql
async def set_free(conn: Conn, *, case_id: UUID) -> None: ...


@sql
async def get_target_tier(conn: Conn, *, case_id: UUID) -> KycTier | None: ...
