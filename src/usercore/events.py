"""Every Kafka event as a Struct: those we publish, and those we consume from the Auth Service.

Published events carry no personal data: names of changed fields, never values. Field names and order are a contract
with consumers; golden files in tests/golden/events hold them.
"""

from datetime import UTC, datetime
from typing import ClassVar, Literal
from uuid import UUID

from msgspec import Struct
from uuid_utils.compat import uuid7

UserStatus = Literal["pending", "active", "suspended", "frozen", "closed"]
KycStatus = Literal["not_started", "pending", "in_review", "approved", "rejected", "expired"]
KycTier = Literal["tier_0", "tier_1", "tier_2", "tier_3"]
KycCaseStatus = Literal["initiated", "documents_submitted", "in_review", "approved", "rejected", "expired"]

AUTH_CREATED = "auth.created.v1"
AUTH_DEACTIVATED = "auth.account.deactivated.v1"
DEAD_LETTERS = "usercore.dlq.v1"
CHECKPOINTS = "usercore.audit.checkpoints.v1"


def new_event_id() -> UUID:
    """A version 7 UUID (RFC 9562): unique, and close in time is close in the index."""
    return uuid7()


def now() -> datetime:
    """The current time in UTC, in the microseconds that PostgreSQL keeps."""
    return datetime.now(UTC)


class AuthCreated(Struct, frozen=True, kw_only=True):
    """Auth made an account: we make its user. Unknown fields are ignored."""

    event_id: UUID
    occurred_at: datetime
    auth_id: UUID
    email: str


class AuthAccountDeactivated(Struct, frozen=True, kw_only=True):
    """Auth took an account out of use: we place an Auth hold."""

    event_id: UUID
    occurred_at: datetime
    auth_id: UUID
    reason: str = ""


class UserEvent(Struct, frozen=True, kw_only=True):
    """What every published event carries. `version` is the user's version after the change: consumers discard older."""

    topic: ClassVar[str]

    event_id: UUID
    event_type: str
    occurred_at: datetime
    user_id: UUID
    version: int


class UserCreated(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.created.v1"

    event_type: Literal["user.created.v1"] = "user.created.v1"
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier


class UserUpdated(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.updated.v1"

    event_type: Literal["user.updated.v1"] = "user.updated.v1"
    changed_fields: list[str]


class UserFrozen(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.frozen.v1"

    event_type: Literal["user.frozen.v1"] = "user.frozen.v1"
    reason: str
    source: str
    actor_id: UUID | None


class UserSuspended(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.suspended.v1"

    event_type: Literal["user.suspended.v1"] = "user.suspended.v1"
    reason: str
    actor_id: UUID | None


class UserUnfrozen(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.unfrozen.v1"

    event_type: Literal["user.unfrozen.v1"] = "user.unfrozen.v1"
    reason: str
    source: str
    actor_id: UUID | None


class UserClosed(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.closed.v1"

    event_type: Literal["user.closed.v1"] = "user.closed.v1"
    reason: str
    actor_id: UUID | None


class UserErased(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.erased.v1"

    event_type: Literal["user.erased.v1"] = "user.erased.v1"
    reason: str
    actor_id: UUID | None


class UserVerified(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.verified.v1"

    event_type: Literal["user.verified.v1"] = "user.verified.v1"
    kyc_tier: KycTier
    previous_tier: KycTier
    kyc_case_id: UUID
    verified_at: datetime


class UserKycInitiated(UserEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "user.kyc.initiated.v1"

    event_type: Literal["user.kyc.initiated.v1"] = "user.kyc.initiated.v1"
    kyc_case_id: UUID
    vendor: str
    target_tier: KycTier


class UserKycUpdated(UserEvent, frozen=True, kw_only=True):
    """`status` and `previous_status` are the case's; `kyc_status` and the tiers are the user's."""

    topic: ClassVar[str] = "user.kyc.updated.v1"

    event_type: Literal["user.kyc.updated.v1"] = "user.kyc.updated.v1"
    kyc_case_id: UUID
    vendor: str
    status: KycCaseStatus
    previous_status: KycCaseStatus
    rejection_code: str | None
    kyc_status: KycStatus
    kyc_tier: KycTier
    previous_tier: KycTier


PUBLISHED: tuple[type[UserEvent], ...] = (
    UserCreated,
    UserUpdated,
    UserVerified,
    UserFrozen,
    UserUnfrozen,
    UserSuspended,
    UserClosed,
    UserErased,
    UserKycInitiated,
    UserKycUpdated,
)
"""All events that exist so far; topics are made from it, golden files tested with it."""
