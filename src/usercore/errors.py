"""Every exception of the service as one tree, and the one converter from an API error to RFC 9457 problem+json.

    UsercoreError
    ├── ApiError                      has a status and a code; the edge answers it as a problem
    │   ├── InvalidRequest 400 ── MalformedBody, MalformedWebhook, InvalidCursor
    │   ├── Unauthenticated 401, Forbidden 403
    │   ├── NotFound 404 ── UserNotFound, CaseNotFound, ConsentNotFound
    │   ├── MethodNotAllowed 405, VersionMismatch 412, BodyTooLarge 413, UnsupportedMediaType 415
    │   ├── Conflict 409 ── IdempotencyInProgress, IdentityLocked, AccountNotActive, ConsentNotGranted, PiiUnavailable,
    │   │   ProfileIncomplete, KycTierNotNext, KycTierReached, KycResubmitNotAllowed, KycAttemptsExhausted, CaseChanged,
    │   │   CaseNotInReview, SecondReviewerRequired, IdentityConflict, LegalHold
    │   ├── AccountErased 410
    │   ├── ValidationFailed 422 ── EmailManagedByAuth, IdempotencyMismatch
    │   ├── RateLimited 429
    │   └── InternalError 500, ServiceUnavailable 503 ── DatabaseUnavailable, AuditUnavailable, KeysUnavailable,
    │       KycVendorUnavailable
    ├── OpenFailed                    a sealed value did not open
    ├── NoRow                         a statement that promises a row had none
    ├── NetworkInTransaction          a bug: the network was used while a transaction was open
    ├── SettingsError                 the environment is not good enough to start with
    └── SignatureRefused, KeyInUse, KmsUnavailable, KmsRefused

The first line of an ApiError's docstring is its title, the rest its default detail. Nothing in an error may come from a
request, a row or a vendor: they reach clients and logs.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import msgspec

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_TYPE_PREFIX = "https://docs.usercore.dev/problems/"

OpenFailure = Literal["corrupt", "wrong_key", "missing_key", "keys_unavailable", "unknown_format", "commitment"]


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with one member of a request; `pointer` is a JSON pointer into the body, or /query/<name>."""

    pointer: str
    code: str
    detail: str


class UsercoreError(Exception):
    """Root of everything that we raise ourselves."""


class ApiError(UsercoreError):
    """The request failed."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "The request failed"
    default_detail: ClassVar[str | None] = None
    default_headers: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The docstring is the message; `python -OO` strips it, then the code has to do.
        title, _, rest = (cls.__doc__ or cls.code.replace("_", " ").capitalize()).strip().partition("\n")
        cls.title = title.rstrip(".")
        cls.default_detail = " ".join(rest.split()) or None

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.code)
        self.detail = detail if detail is not None else self.default_detail
        self.errors = errors
        self.headers: dict[str, str] = {**self.default_headers, **(headers or {})}
        self.members: dict[str, str] = dict(members or {})


def problem(error: ApiError, trace_id: str) -> bytes:
    """The error as RFC 9457 JSON; members that say nothing are left out."""
    body: dict[str, object] = {
        "type": PROBLEM_TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }
    if error.detail:
        body["detail"] = error.detail
    if error.errors:
        body["errors"] = error.errors
    for name, value in error.members.items():
        body.setdefault(name, value)
    body["trace_id"] = trace_id
    return msgspec.json.encode(body)


# 400 ------------------------------------------------------------------------------------------------------------------


class InvalidRequest(ApiError):
    """Invalid request.

    The request could not be understood.
    """

    code, status = "invalid_request", 400


class MalformedBody(InvalidRequest):
    """Malformed body.

    The body is not valid UTF-8 JSON.
    """

    code = "malformed_body"


class MalformedWebhook(InvalidRequest):
    """Malformed webhook.

    The message is authentic, and not one of this vendor's.
    """

    code = "malformed_webhook"


class InvalidCursor(InvalidRequest):
    """Invalid cursor.

    The cursor was not issued for this list. Start again without one.
    """

    code = "invalid_cursor"


# 401, 403 -------------------------------------------------------------------------------------------------------------


class Unauthenticated(ApiError):
    """Not authenticated.

    A valid bearer token is required.
    """

    code, status = "unauthenticated", 401
    default_headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="usercore"'}


class Forbidden(ApiError):
    """Not allowed.

    The token does not give access to this operation.
    """

    code, status = "forbidden", 403
    # RFC 6750, section 3: a challenge goes with every refusal of a token.
    default_headers: ClassVar[Mapping[str, str]] = {
        "WWW-Authenticate": 'Bearer realm="usercore", error="insufficient_scope"'
    }


# 404, 405, 410 --------------------------------------------------------------------------------------------------------


class NotFound(ApiError):
    """Not found."""

    code, status = "not_found", 404


class UserNotFound(NotFound):
    """User not found."""

    code = "user_not_found"


class CaseNotFound(NotFound):
    """Case not found."""

    code = "case_not_found"


class ConsentNotFound(NotFound):
    """Consent not found."""

    code = "consent_not_found"


class MethodNotAllowed(ApiError):
    """Method not allowed."""

    code, status = "method_not_allowed", 405


class AccountErased(ApiError):
    """Account erased.

    The account was erased. Nothing can be read or changed any more.
    """

    code, status = "account_erased", 410


# 409 ------------------------------------------------------------------------------------------------------------------


class Conflict(ApiError):
    """The request conflicts with the present state."""

    code, status = "conflict", 409


class IdempotencyInProgress(Conflict):
    """Request in progress.

    A request with the same Idempotency-Key is still running. Try again in a moment.
    """

    code = "idempotency_in_progress"
    default_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class IdentityLocked(Conflict):
    """Identity locked.

    Names, date of birth, PAN and Aadhaar digits cannot be changed while verification is open or after it succeeded.
    """

    code = "identity_locked"


class AccountNotActive(Conflict):
    """Account not active.

    The account's status does not allow this.
    """

    code = "account_not_active"


class ConsentNotGranted(Conflict):
    """Consent not granted.

    There is no active consent of this type to revoke.
    """

    code = "consent_not_granted"


class PiiUnavailable(Conflict):
    """Stored data unavailable.

    The stored value cannot be read, so it cannot be changed in part. Send the whole value.
    """

    code = "pii_unavailable"


class ProfileIncomplete(Conflict):
    """Profile incomplete.

    The verification needs members of the profile that are empty: see errors.
    """

    code = "profile_incomplete"


class KycTierNotNext(Conflict):
    """Not the next tier.

    Tiers are reached one after the other.
    """

    code = "kyc_tier_not_next"


class KycTierReached(Conflict):
    """Tier reached.

    There is nothing left to verify for this tier.
    """

    code = "kyc_tier_reached"


class KycResubmitNotAllowed(Conflict):
    """Resubmission not allowed.

    Only after a rejected or expired case.
    """

    code = "kyc_resubmit_not_allowed"


class KycAttemptsExhausted(Conflict):
    """Attempts exhausted.

    This verification has failed too often. Ask support.
    """

    code = "kyc_attempts_exhausted"


class InvalidTransition(Conflict):
    """Invalid transition.

    The account cannot go from the status `from` to the status `to`.
    """

    code = "invalid_transition"


class CaseChanged(Conflict):
    """Case changed.

    The case is not what it was when it was read. Read it again.
    """

    code = "case_changed"


class CaseNotInReview(Conflict):
    """Case not in review.

    Only a case in review can be decided.
    """

    code = "case_not_in_review"


class SecondReviewerRequired(Conflict):
    """Second reviewer required.

    Somebody else has to approve too.
    """

    code = "second_reviewer_required"


class IdentityConflict(Conflict):
    """Identity conflict.

    Another account is verified with this identity.
    """

    code = "identity_conflict"


class LegalHold(Conflict):
    """Legal hold.

    A court order is open on this account: nothing of it may be erased before it is lifted.
    """

    code = "legal_hold"


# 412, 413, 415 --------------------------------------------------------------------------------------------------------


class VersionMismatch(ApiError):
    """Version mismatch.

    The resource has changed since the version named in If-Match.
    """

    code, status = "version_mismatch", 412


class BodyTooLarge(ApiError):
    """Body too large."""

    code, status = "body_too_large", 413


class UnsupportedMediaType(ApiError):
    """Unsupported media type."""

    code, status = "unsupported_media_type", 415


# 422 ------------------------------------------------------------------------------------------------------------------


class ValidationFailed(ApiError):
    """Validation failed.

    One or more values are not acceptable.
    """

    code, status = "validation_failed", 422


class EmailManagedByAuth(ValidationFailed):
    """E-mail managed elsewhere.

    The e-mail address belongs to the sign-in account and is changed there.
    """

    code = "email_managed_by_auth"


class IdempotencyMismatch(ValidationFailed):
    """Idempotency key reused.

    The Idempotency-Key was used before with another request.
    """

    code = "idempotency_mismatch"


# 429 ------------------------------------------------------------------------------------------------------------------


class RateLimited(ApiError):
    """Too many requests.

    Wait as long as Retry-After says.
    """

    code, status = "rate_limited", 429
    default_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


# 5xx ------------------------------------------------------------------------------------------------------------------


class InternalError(ApiError):
    """Internal error.

    Something went wrong on our side. The trace_id helps us to find it.
    """

    code, status = "internal_error", 500


class ServiceUnavailable(ApiError):
    """Service unavailable.

    Try again shortly.
    """

    code, status = "service_unavailable", 503
    default_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class DatabaseUnavailable(ServiceUnavailable):
    """Database unavailable.

    Try again shortly.
    """

    code = "database_unavailable"


class AuditUnavailable(ServiceUnavailable):
    """Audit unavailable.

    Nothing is read or changed while it cannot be audited. Try again shortly.
    """

    code = "audit_unavailable"


class ArchiveUnavailable(ServiceUnavailable):
    """Audit archive unavailable.

    Older parts of the trail cannot be had at the moment. Try again shortly.
    """

    code = "audit_archive_unavailable"


class KeysUnavailable(ServiceUnavailable):
    """Encryption keys unavailable.

    Personal data cannot be stored at the moment. Try again shortly.
    """

    code = "keys_unavailable"


class KycVendorUnavailable(ServiceUnavailable):
    """Verification unavailable.

    No vendor can do this verification at the moment. Try again later.
    """

    code = "kyc_vendor_unavailable"


# Not for clients ------------------------------------------------------------------------------------------------------


class OpenFailed(UsercoreError):
    """A sealed value did not open; `reason` is all that may be logged or counted."""

    def __init__(self, reason: OpenFailure) -> None:
        super().__init__(reason)
        self.reason: OpenFailure = reason


class NoRow(UsercoreError):
    """A statement that promises exactly one row returned none (or more)."""


class NetworkInTransaction(UsercoreError):
    """A network client was called while a database transaction was open."""


class SettingsError(UsercoreError):
    """The settings are missing or bad; every problem is listed, by variable name, without its value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems: list[str] = list(problems)


class SignatureRefused(UsercoreError):
    """A signed document is not what it says; the message says why."""


class KeyInUse(UsercoreError):
    """An epoch of the keyring cannot be retired yet; the message says what depends on it and what to do."""


class KmsUnavailable(UsercoreError):
    """The key management service did not answer; trying again may help."""


class KmsRefused(UsercoreError):
    """The key management service said no; trying again will not help."""
