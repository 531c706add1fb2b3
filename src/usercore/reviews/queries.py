"""Typed SQL of reviews: sql/reviews.sql."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import KycCaseStatus, KycTier
from usercore.kyc.actions import CheckStatus, Decision, ReviewReason
from usercore.pii.sealed import Sealed
from usercore.plugins import ArtifactType, Check, RejectionCode

sql = Sql("reviews")

ArtifactState = Literal["pending", "stored", "given_up"]


class ReviewRow(Struct, frozen=True):
    id: UUID
    user_id: UUID
    vendor: str
    target_tier: KycTier
    review_reason: ReviewReason | None
    initiated_at: datetime
    version: int


class WholeCase(Struct, frozen=True):
    id: UUID
    user_id: UUID
    vendor: str
    vendor_case_id: str | None
    status: KycCaseStatus
    rejection_code: RejectionCode | None
    review_reason: ReviewReason | None
    target_tier: KycTier
    initiated_at: datetime
    completed_at: datetime | None
    expires_at: datetime
    version: int
    decision: Decision | None
    decided_at: datetime | None
    decided_by: UUID | None


class CaseCheck(Struct, frozen=True):
    kind: Check
    status: CheckStatus
    vendor: str
    completed_at: datetime | None


class CaseEvidence(Struct, frozen=True):
    id: UUID
    vendor: str
    source: str
    standing: int
    vendor_status: str
    rejection_code: RejectionCode | None
    payload_enc: Sealed
    occurred_at: datetime | None
    received_at: datetime


class CaseArtifact(Struct, frozen=True):
    id: UUID
    artifact_type: ArtifactType
    state: ArtifactState
    hash: str | None
    size: int | None
    uploaded_at: datetime | None


@sql
async def list_reviews(conn: Conn, *, after_at: datetime, after_id: UUID, most: int) -> list[ReviewRow]: ...


@sql
async def get_case(conn: Conn, *, case_id: UUID) -> WholeCase | None: ...


@sql
async def list_case_checks(conn: Conn, *, case_id: UUID) -> list[CaseCheck]: ...


@sql
async def list_case_evidence(conn: Conn, *, case_id: UUID) -> list[CaseEvidence]: ...


@sql
async def list_case_artifacts(conn: Conn, *, case_id: UUID) -> list[CaseArtifact]: ...


@sql
async def set_first_approval(conn: Conn, *, case_id: UUID, reviewer: UUID) -> int: ...


@sql
async def set_note(conn: Conn, *, case_id: UUID, note_enc: Sealed) -> None: ...
