"""Typed SQL of profiles: sql/profiles.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycStatus, KycTier, UserStatus
from usercore.outbox import AuditRow, OutboxRow
from usercore.pii.classification import RetentionClass
from usercore.pii.sealed import Sealed

sql = Sql("profiles")


class ProfileRow(Struct, frozen=True):
    """A user with its sealed fields and its wrapped keys, which come as four parallel lists."""

    id: UUID
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier
    version: int
    created_at: datetime
    updated_at: datetime
    verified_at: datetime | None
    erased_at: datetime | None
    first_name_enc: Sealed | None
    last_name_enc: Sealed | None
    date_of_birth_enc: Sealed | None
    pan_number_enc: Sealed | None
    aadhaar_last4_enc: Sealed | None
    address_enc: Sealed | None
    phone_enc: Sealed | None
    email: str | None
    avatar_url: str | None
    pan_number_index: bytes | None
    phone_index: bytes | None
    profile_updated_at: datetime
    key_classes: list[RetentionClass] | None
    key_versions: list[int] | None
    key_epochs: list[int] | None
    key_wraps: list[bytes] | None


class ReadProfileRow(ProfileRow, frozen=True):
    """A profile as one of a batch of readers gets it; `read_id` is the event id of that reader's audit row."""

    read_id: UUID


class ProfileValues(Struct, frozen=True):
    """The writable columns of user_profiles."""

    user_id: UUID
    first_name_enc: Sealed | None
    last_name_enc: Sealed | None
    date_of_birth_enc: Sealed | None
    pan_number_enc: Sealed | None
    aadhaar_last4_enc: Sealed | None
    address_enc: Sealed | None
    phone_enc: Sealed | None
    email: str | None
    avatar_url: str | None
    pan_number_index: bytes | None
    phone_index: bytes | None
    updated_at: datetime


@sql
async def read_profiles(conn: Conn, *, reads: Sequence[AuditRow]) -> list[ReadProfileRow]: ...


@sql
async def list_profiles(conn: Conn, *, user_ids: Sequence[UUID]) -> list[ProfileRow]: ...


@sql
async def get_profile(conn: Conn, *, user_id: UUID) -> ProfileRow | None: ...


@sql
async def save_profile(
    conn: Conn, *, profile: ProfileValues, version: int, audit: Sequence[AuditRow], events: Sequence[OutboxRow]
) -> int | None: ...


@sql
async def list_without_email(conn: Conn, *, user_ids: Sequence[UUID]) -> list[UUID]: ...
