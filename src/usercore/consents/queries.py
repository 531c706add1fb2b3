"""Typed SQL of consents: sql/consents.sql."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql

sql = Sql("consents")

ConsentType = Literal["terms_of_service", "privacy_policy", "marketing", "data_sharing", "risk_disclosure"]


class Consent(Struct, frozen=True):
    """A grant or a withdrawal. A withdrawal has `granted` false, and both ends of the grant that it ended."""

    id: UUID
    consent_type: ConsentType
    version: str
    granted: bool
    ip_addr: str | None
    granted_at: datetime
    revoked_at: datetime | None


@sql
async def set_revoked(conn: Conn, *, user_id: UUID, consent_type: ConsentType, at: datetime) -> Consent | None: ...


@sql
async def add_consent(conn: Conn, *, user_id: UUID, consent: Consent, at: datetime) -> None: ...


@sql
async def get_consent(conn: Conn, *, user_id: UUID, id: UUID) -> Consent | None: ...


@sql
async def list_current(conn: Conn, *, user_id: UUID) -> list[Consent]: ...


@sql
async def list_history(conn: Conn, *, user_id: UUID) -> list[Consent]: ...
