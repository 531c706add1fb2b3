"""Typed SQL of cases, evidence and checks: sql/kyc.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycCaseStatus, KycStatus, KycTier
from usercore.kyc.cases import CheckStatus, Decision, ReviewReason
from usercore.pii.sealed import Sealed
from usercore.plugins import Check, RejectionCode

sql = Sql("kyc")


class CaseRow(Struct, frozen=True):
    """A case. `redirect_url` is where the person goes at the end; `version` is case_version."""

    id: UUID
    user_id: UUID
    vendor: str
    vendor_case_id: str | None
    status: KycCaseStatus
    rejection_code: RejectionCode | None
    target_tier: KycTier
    redirect_url: str | None
    bank_account_enc: Sealed | None
    initiated_at: datetime
    completed_at: datetime | None
    expires_at: datetime
    version: int
    review_reason: ReviewReason | None
    decision: Decision | None
    decided_at: datetime | None
    decided_by: UUID | None
    first_approval_by: UUID | None


class NewEvidence(Struct, frozen=True):
    """Evidence as it is kept: `payload_enc` is the whole of it as JSON."""

    id: UUID
    case_id: UUID
    attempt_id: UUID
    source: str
    source_event: str
    standing: int
    vendor_status: str
    rejection_code: RejectionCode | None
    payload_enc: Sealed
    occurred_at: datetime | None
    received_at: datetime


class EvidenceRow(Struct, frozen=True):
    id: UUID
    attempt_id: UUID
    source: str
    standing: int
    vendor_status: str
    rejection_code: RejectionCode | None
    payload_enc: Sealed
    received_at: datetime
    superseded: bool


class CheckRow(Struct, frozen=True):
    case_id: UUID
    kind: Check
    status: CheckStatus
    vendor: str
    completed_at: datetime | None
    valid_until: datetime | None


class NewCheck(Struct, frozen=True):
    id: UUID
    case_id: UUID
    user_id: UUID
    kind: Check
    status: CheckStatus
    vendor: str
    completed_at: datetime | None
    valid_until: datetime | None


class UserKyc(Struct, frozen=True):
    kyc_status: KycStatus
    kyc_tier: KycTier
    verified_at: datetime | None
    at: datetime


@sql
async def lock_case(conn: Conn, *, case_id: UUID) -> CaseRow | None: ...


@sql
async def get_case_user(conn: Conn, *, case_id: UUID) -> UUID | None: ...


@sql
async def accept_evidence(conn: Conn, *, evidence: NewEvidence) -> bool | None: ...


@sql
async def list_evidence(conn: Conn, *, case_id: UUID) -> list[EvidenceRow]: ...


@sql
async def save_case(conn: Conn, *, case: CaseRow) -> int: ...


@sql
async def save_checks(conn: Conn, *, checks: Sequence[NewCheck]) -> None: ...


@sql
async def list_checks(conn: Conn, *, user_id: UUID) -> list[CheckRow]: ...


@sql
async def get_latest_status(conn: Conn, *, user_id: UUID) -> KycCaseStatus | None: ...


@sql
async def set_kyc(conn: Conn, *, user_id: UUID, kyc: UserKyc) -> int: ...


@sql
async def get_latest_case(conn: Conn, *, user_id: UUID) -> UUID | None: ...
