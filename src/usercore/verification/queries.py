"""Typed SQL of verification as its user sees it: sql/verification.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycCaseStatus, KycStatus, KycTier
from usercore.kyc.actions import CheckStatus
from usercore.pii.classification import RetentionClass
from usercore.pii.sealed import Sealed
from usercore.plugins import Check, RejectionCode

sql = Sql("verification")


class NewCase(Struct, frozen=True):
    id: UUID
    user_id: UUID
    vendor: str
    target_tier: KycTier
    redirect_url: str | None
    bank_account_enc: Sealed | None
    initiated_at: datetime
    expires_at: datetime
    next_look_at: datetime


class OwnCase(Struct, frozen=True):
    id: UUID
    vendor: str
    status: KycCaseStatus
    rejection_code: RejectionCode | None
    target_tier: KycTier
    initiated_at: datetime
    completed_at: datetime | None
    expires_at: datetime
    version: int
    answered: bool


class HostedRow(Struct, frozen=True):
    hosted_enc: Sealed | None
    expires_at: datetime | None
    key_classes: list[RetentionClass] | None
    key_versions: list[int] | None
    key_epochs: list[int] | None
    key_wraps: list[bytes] | None


class UserKycRow(Struct, frozen=True):
    kyc_status: KycStatus
    kyc_tier: KycTier
    verified_at: datetime | None
    erased_at: datetime | None


class CurrentCheck(Struct, frozen=True):
    kind: Check
    status: CheckStatus
    vendor: str
    completed_at: datetime | None
    valid_until: datetime | None


@sql
async def add_case(conn: Conn, *, case: NewCase) -> None: ...


@sql
async def get_newest_case(conn: Conn, *, user_id: UUID) -> OwnCase | None: ...


@sql
async def get_case(conn: Conn, *, case_id: UUID, user_id: UUID) -> OwnCase | None: ...


@sql
async def count_failed(conn: Conn, *, user_id: UUID, target_tier: KycTier) -> int: ...


@sql
async def get_hosted(conn: Conn, *, case_id: UUID) -> HostedRow | None: ...


@sql
async def get_user_kyc(conn: Conn, *, user_id: UUID) -> UserKycRow | None: ...


@sql
async def list_current_checks(conn: Conn, *, user_id: UUID) -> list[CurrentCheck]: ...
