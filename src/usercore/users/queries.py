"""Typed SQL of users: sql/users.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycStatus, KycTier, UserStatus
from usercore.outbox import AuditRow, OutboxRow
from usercore.pii.wraps import UserKeyRow

sql = Sql("users")


class NewUser(Struct, frozen=True):
    id: UUID
    email: str | None
    created_at: datetime


class UserRow(Struct, frozen=True):
    id: UUID
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier
    version: int
    verified_at: datetime | None
    activated_at: datetime | None
    closed_at: datetime | None
    erased_at: datetime | None


class VersionRow(Struct, frozen=True):
    version: int
    erased_at: datetime | None


@sql
async def add_users(
    conn: Conn,
    *,
    users: Sequence[NewUser],
    keys: Sequence[UserKeyRow],
    audit: Sequence[AuditRow],
    events: Sequence[OutboxRow],
) -> list[UUID]: ...


@sql
async def lock_user(conn: Conn, *, user_id: UUID) -> UserRow | None: ...


@sql
async def get_version(conn: Conn, *, user_id: UUID) -> VersionRow | None: ...
