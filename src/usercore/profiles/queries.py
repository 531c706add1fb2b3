"""Typed SQL of profiles: sql/profiles.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycStatus, KycTier, UserStatus
from usercore.outbox import AuditRow, OutboxRow, Records, counted
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
    """The writable columns of user_profiles, and the version of the user that they were made from."""

    user_id: UUID
    version: int
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
async def save_profiles(
    conn: Conn, *, profiles: Sequence[ProfileValues], audit: Sequence[AuditRow], events: Sequence[OutboxRow]
) -> list[UUID]: ...


@sql
async def list_without_email(conn: Conn, *, user_ids: Sequence[UUID]) -> list[UUID]: ...


class Saving(Struct, frozen=True):
    """A row as it is to become, with what its change leaves behind."""

    after: ProfileRow
    records: Records


async def read_each(conn: Conn, reads: Sequence[AuditRow]) -> list[ReadProfileRow | None]:
    """One result for each read, None for an unknown user."""
    rows = {row.read_id: row for row in await read_profiles(conn, reads=reads)}
    return [rows.get(read.event_id) for read in reads]


async def list_each(conn: Conn, user_ids: Sequence[UUID]) -> list[ProfileRow | None]:
    """One result for each id, None for an unknown user."""
    rows = {row.id: row for row in await list_profiles(conn, user_ids=sorted({*user_ids}))}
    return [rows.get(user_id) for user_id in user_ids]


async def save_each(conn: Conn, savings: Sequence[Saving]) -> list[bool]:
    """Which of them were written: those whose users are as they were, and of two of one user the first."""
    first = {saving.after.id: saving for saving in reversed(savings)}
    # In one order, as everybody who writes several profiles: so nobody waits in a circle.
    chosen = sorted(first.values(), key=lambda saving: saving.after.id)
    audit = [row for saving in chosen for row in saving.records.audit]
    events = [row for saving in chosen for row in saving.records.events]
    with counted(len(audit)) as written:
        values = [_values(saving.after) for saving in chosen]
        saved = set(await save_profiles(conn, profiles=values, audit=audit, events=events))
        written.rows = sum(row.user_id in saved for row in audit)
    return [saving is first[saving.after.id] and saving.after.id in saved for saving in savings]


def _values(row: ProfileRow) -> ProfileValues:
    """What is written of a row that was made from the version before it."""
    return ProfileValues(
        user_id=row.id,
        version=row.version - 1,
        first_name_enc=row.first_name_enc,
        last_name_enc=row.last_name_enc,
        date_of_birth_enc=row.date_of_birth_enc,
        pan_number_enc=row.pan_number_enc,
        aadhaar_last4_enc=row.aadhaar_last4_enc,
        address_enc=row.address_enc,
        phone_enc=row.phone_enc,
        email=row.email,
        avatar_url=row.avatar_url,
        pan_number_index=row.pan_number_index,
        phone_index=row.phone_index,
        updated_at=row.profile_updated_at,
    )
