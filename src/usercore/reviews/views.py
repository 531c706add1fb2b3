"""What an admin sees of a case: masked but for what is revealed; pure."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from usercore.errors import KeysUnavailable, OpenFailed
from usercore.events import KycCaseStatus, KycTier
from usercore.kyc.actions import Decision, ReviewReason, open_evidence
from usercore.pii import masks
from usercore.pii.keyring import UserKeys
from usercore.plugins import Check, Identity, RejectionCode, Standing
from usercore.reviews.queries import CaseArtifact, CaseCheck, CaseEvidence, ReviewRow, WholeCase


class Review(Struct, frozen=True, kw_only=True):
    """A case that waits for a reviewer; `age_s` in seconds since it was initiated."""

    case_id: UUID
    user_id: UUID
    vendor: str
    target_tier: KycTier
    review_reason: ReviewReason | None
    initiated_at: datetime
    age_s: int
    case_version: int


class EvidenceView(Struct, frozen=True, kw_only=True):
    """What a vendor said. `identity` is masked but for what was revealed; null when it does not open."""

    id: UUID
    vendor: str
    source: str
    standing: str
    vendor_status: str
    rejection_code: RejectionCode | None
    checks: dict[Check, str]
    identity: dict[str, object] | None
    occurred_at: datetime | None
    received_at: datetime


class ArtifactView(Struct, frozen=True, kw_only=True):
    """`href` is where the bytes are, once they are stored: an audited stream."""

    id: UUID
    artifact_type: str
    state: str
    hash: str | None
    size: int | None
    uploaded_at: datetime | None
    href: str | None


class CaseView(Struct, frozen=True, kw_only=True):
    """The whole of a case for a reviewer."""

    case_id: UUID
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
    case_version: int
    decision: Decision | None
    decided_at: datetime | None
    decided_by: UUID | None
    checks: list[CaseCheck] | UnsetType = UNSET
    evidence: list[EvidenceView] | UnsetType = UNSET
    artifacts: list[ArtifactView] | UnsetType = UNSET


def review(row: ReviewRow, at: datetime) -> Review:
    return Review(
        case_id=row.id,
        user_id=row.user_id,
        vendor=row.vendor,
        target_tier=row.target_tier,
        review_reason=row.review_reason,
        initiated_at=row.initiated_at,
        age_s=int((at - row.initiated_at).total_seconds()),
        case_version=row.version,
    )


def shown(row: WholeCase) -> CaseView:
    values = msgspec.structs.asdict(row)
    return CaseView(case_id=values.pop("id"), case_version=values.pop("version"), **values)


def evidence(keys: UserKeys, row: CaseEvidence, fields: Collection[str]) -> EvidenceView:
    try:
        opened = open_evidence(keys, row.payload_enc)
    except (OpenFailed, KeysUnavailable):
        opened = None
    return EvidenceView(
        id=row.id,
        vendor=row.vendor,
        source=row.source,
        standing=_standing(row.standing),
        vendor_status=row.vendor_status,
        rejection_code=row.rejection_code,
        checks=dict(opened.checks) if opened is not None else {},
        identity=None if opened is None or opened.identity is None else _identity(opened.identity, fields),
        occurred_at=row.occurred_at,
        received_at=row.received_at,
    )


def _standing(rank: int) -> str:
    return Standing(rank).name.lower()


def _identity(identity: Identity, fields: Collection[str]) -> dict[str, object]:
    """Masked member by member, but for what is revealed."""
    born, address = identity.date_of_birth, identity.address
    text = {
        "name": identity.name,
        "date_of_birth": None if born is None else born.isoformat(),
        "pan_number": identity.pan_number,
        "aadhaar_last4": identity.aadhaar_last4,
        "address": None if address is None else msgspec.json.encode(address).decode(),
    }
    hide = {
        "name": masks.person_name,
        "date_of_birth": masks.date,
        "pan_number": masks.pan,
        "aadhaar_last4": masks.aadhaar_last4,
        "address": masks.address,
    }
    shown: dict[str, object] = {}
    for name, value in text.items():
        seen = value if value is None or name in fields else hide[name](value)
        shown[name] = msgspec.json.decode(seen) if name == "address" and seen and seen[0] == "{" else seen
    return shown


def artifact(row: CaseArtifact) -> ArtifactView:
    href = f"/admin/kyc/artifacts/{row.id}" if row.state == "stored" else None
    return ArtifactView(**msgspec.structs.asdict(row), href=href)
