"""Typed SQL of erasing: sql/erasure.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import UserStatus
from usercore.pii.classification import RetentionClass

sql = Sql("erasure")


class Subject(Struct, frozen=True):
    id: UUID
    status: UserStatus
    closed_at: datetime | None
    erased_at: datetime | None
    had_case: bool
    legal_hold: bool


class NewErasure(Struct, frozen=True):
    """`keys_destroyed` is JSON: see actions.DestroyedKey."""

    user_id: UUID
    event_id: UUID
    reason: str
    actor_id: UUID | None
    erased_at: datetime
    keys_destroyed: str
    identity_until: datetime | None
    contact_until: datetime | None
    kyc_evidence_until: datetime | None
    addresses_again_at: datetime


@sql
async def lock_subject(conn: Conn, *, user_id: UUID) -> Subject | None: ...


@sql
async def take_keys(conn: Conn, *, user_id: UUID, classes: Sequence[RetentionClass]) -> None: ...


@sql
async def set_erased(conn: Conn, *, user_id: UUID, at: datetime) -> int: ...


@sql
async def set_unsearchable(conn: Conn, *, user_id: UUID, at: datetime) -> None: ...


@sql
async def set_no_contact(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def set_no_identity(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def set_no_notes(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def take_answers(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def set_no_sealed_kyc(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def take_evidence(conn: Conn, *, user_id: UUID) -> None: ...


@sql
async def take_addresses(conn: Conn, *, user_id: UUID) -> int | None: ...


@sql
async def add_erasure(conn: Conn, *, erasure: NewErasure) -> None: ...


@sql
async def take_late_addresses(conn: Conn, *, at: datetime, most: int) -> list[UUID]: ...


@sql
async def list_due(conn: Conn, *, at: datetime, most: int) -> list[UUID]: ...


@sql
async def list_ended(conn: Conn, *, user_id: UUID, at: datetime) -> list[RetentionClass]: ...


@sql
async def set_fallen_due(conn: Conn, *, user_id: UUID, at: datetime, keys_destroyed: str) -> None: ...


@sql
async def list_forgotten(conn: Conn, *, before: datetime, most: int) -> list[UUID]: ...


@sql
async def list_unerased(conn: Conn, *, user_ids: Sequence[UUID]) -> list[UUID]: ...
