"""Typed SQL of lookup: sql/lookup.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycStatus, KycTier, UserStatus

sql = Sql("lookup")


class Filters(Struct, frozen=True, kw_only=True):
    """What is searched for, all of it at once; None asks for nothing. Times are half-open."""

    email: str | None
    status: UserStatus | None
    kyc_status: KycStatus | None
    kyc_tier: KycTier | None
    created_from: datetime
    created_to: datetime


class FoundRow(Struct, frozen=True):
    id: UUID
    email: str | None
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier
    created_at: datetime
    verified_at: datetime | None


@sql
async def list_people(
    conn: Conn,
    *,
    filters: Filters,
    phone_indexes: Sequence[bytes] | None,
    pan_number_indexes: Sequence[bytes] | None,
    before_at: datetime,
    before_id: UUID,
    most: int,
) -> list[FoundRow]: ...


@sql
async def list_accounts(
    conn: Conn, *, filters: Filters, before_at: datetime, before_id: UUID, most: int
) -> list[FoundRow]: ...
