"""The classification registry: for every column of every table whether it is personal, and how it is kept."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, cast

import msgspec

from usercore.pii import masks
from usercore.pii.masks import Mask

RetentionClass = Literal[
    "identity", "contact", "kyc_evidence", "identity_locked", "contact_locked", "kyc_evidence_locked"
]
"""The locked ones are of erased people, whose data the law keeps: only keys have them, fields never."""
Storage = Literal["clear", "sealed", "digest"]

SERVICE = b"usercore"  # the first part of every AAD: keys shared with another service by mistake open nothing


def length_prefixed(*parts: bytes) -> bytes:
    """Joined so that no two lists of parts give the same bytes: two bytes of length, big endian, before each."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def locked(retention: RetentionClass) -> RetentionClass:
    """The class of keys that no ordinary read asks for."""
    return cast("RetentionClass", f"{retention}_locked")


def base(retention: RetentionClass) -> RetentionClass:
    """The class of the fields that a locked key sealed; of a key that is not locked one that no field has."""
    found = retention.removesuffix("_locked")
    return cast("RetentionClass", found if found != retention else f"not locked: {retention}")


class Field(msgspec.Struct, frozen=True):
    """A column whose values are sealed: at rest, or (storage `clear`) only where an audit row copies them."""

    table: str
    column: str
    retention: RetentionClass
    mask: Mask
    indexed: bool = False  # has a blind index: equality search, nothing else
    storage: Storage = "sealed"
    aad_before_user: bytes = b""
    aad_after_user: bytes = b""

    def __post_init__(self) -> None:
        before = length_prefixed(SERVICE, self.table.encode(), self.column.encode()) + (16).to_bytes(2, "big")
        after = length_prefixed(self.retention.encode()) + (4).to_bytes(2, "big")
        msgspec.structs.force_setattr(self, "aad_before_user", before)
        msgspec.structs.force_setattr(self, "aad_after_user", after)

    @property
    def name(self) -> str:
        """As clients and events name it: `pan_number` for pan_number_enc."""
        return self.column.removesuffix("_enc")

    def aad(self, user: bytes, header: bytes) -> bytes:
        """Service, table, column, the user id's 16 bytes, class, the sealed header's 4 bytes: each length-prefixed."""
        return self.aad_before_user + user + self.aad_after_user + header


class Classification(msgspec.Struct, frozen=True):
    """One column. Personal without a class: each value in it is sealed under the class of the field it copies."""

    personal: bool
    retention: RetentionClass | None = None
    storage: Storage = "clear"
    mask: Mask | None = None
    indexed: bool = False


FIRST_NAME = Field("user_profiles", "first_name_enc", "identity", masks.person_name)
LAST_NAME = Field("user_profiles", "last_name_enc", "identity", masks.person_name)
DATE_OF_BIRTH = Field("user_profiles", "date_of_birth_enc", "identity", masks.date)
PAN_NUMBER = Field("user_profiles", "pan_number_enc", "identity", masks.pan, indexed=True)
AADHAAR_LAST4 = Field("user_profiles", "aadhaar_last4_enc", "identity", masks.aadhaar_last4)
ADDRESS = Field("user_profiles", "address_enc", "identity", masks.address)
PHONE = Field("user_profiles", "phone_enc", "contact", masks.phone, indexed=True)
EMAIL = Field("user_profiles", "email", "contact", masks.email, storage="clear")
AVATAR_URL = Field("user_profiles", "avatar_url", "contact", masks.url, storage="clear")
HOLD_NOTE = Field("account_holds", "note_enc", "identity", masks.free_text)
LIFT_NOTE = Field("account_holds", "lift_note_enc", "identity", masks.free_text)
EVIDENCE = Field("kyc_evidence", "payload_enc", "kyc_evidence", masks.free_text)
BANK_ACCOUNT = Field("kyc_cases", "bank_account_enc", "kyc_evidence", masks.free_text)
REVIEW_NOTE = Field("kyc_cases", "note_enc", "kyc_evidence", masks.free_text)
ATTEMPT_TOKEN = Field("kyc_attempts", "token_enc", "kyc_evidence", masks.free_text)
HOSTED = Field("kyc_attempts", "hosted_enc", "kyc_evidence", masks.free_text)
STORAGE_REF = Field("kyc_artifacts", "storage_ref_enc", "kyc_evidence", masks.free_text)
ARTIFACT_SOURCE = Field("kyc_artifacts", "source_enc", "kyc_evidence", masks.free_text)
WEBHOOK_BODY = Field("webhook_inbox", "body_enc", "kyc_evidence", masks.free_text)
WEBHOOK_HEADERS = Field("webhook_inbox", "headers_enc", "kyc_evidence", masks.free_text)
IDEMPOTENT_BODY = Field("idempotency_keys", "body_enc", "identity", masks.free_text)

FIELDS = (
    *(FIRST_NAME, LAST_NAME, DATE_OF_BIRTH, PAN_NUMBER, AADHAAR_LAST4, ADDRESS, PHONE, EMAIL, AVATAR_URL),
    *(HOLD_NOTE, LIFT_NOTE, IDEMPOTENT_BODY),
    *(
        EVIDENCE,
        BANK_ACCOUNT,
        REVIEW_NOTE,
        ATTEMPT_TOKEN,
        HOSTED,
        STORAGE_REF,
        ARTIFACT_SOURCE,
        WEBHOOK_BODY,
        WEBHOOK_HEADERS,
    ),
)

_NOT_PERSONAL = Classification(personal=False)
_ADDRESS_OF_CALLER = Classification(personal=True, retention="contact")
_COPIES = Classification(personal=True, storage="sealed")
_PAN_DIGEST = Classification(personal=True, retention="identity", storage="digest", indexed=True)
_PHONE_DIGEST = Classification(personal=True, retention="contact", storage="digest", indexed=True)
_ADDRESS_DIGEST = Classification(personal=True, retention="contact", storage="digest")

# Ids are pseudonyms: they say nothing without the rows they point to, and stay when a person is erased.
_NOT_PERSONAL_COLUMNS: Mapping[str, str] = {
    "users": "id auth_id status kyc_status kyc_tier version created_at updated_at verified_at activated_at closed_at "
    "erased_at",
    "user_profiles": "id user_id updated_at",
    "user_keys": "user_id retention_class version epoch wrapped created_at",
    "pii_keyring": "epoch purpose version kms_uri kms_version wrapped commitment state created_at state_since "
    "unused_since",
    "user_keys_quarantine": "user_id retention_class version epoch reason found_at",
    "user_consents": "id user_id consent_type version granted granted_at revoked_at recorded_at",
    "notification_prefs": "user_id email_trade_fills email_deposits email_withdrawals email_security_alerts "
    "push_enabled sms_enabled updated_at",
    "account_holds": "id user_id effect source reason placed_by placed_at lifted_by lifted_at lift_reason "
    "source_event_id",
    "audit_archive": "one shipped_to holder leased_until",
    "user_audit": "event_id user_id actor_id actor_kind client action resource timestamp scope purpose request_id "
    "trace_id leaf_hash xid",
    "audit_partitions": "name starts_at ends_at retired_at",
    "audit_clusters": "number system shift since",
    "audit_segments": "number from_xid to_xid count leaves root previous hash sealed_at key_version signature",
    "outbox": "shard id event_id user_id topic payload occurred_at traceparent",
    "inbox": "topic event_id received_at",
    "idempotency_keys": "sub method path key fingerprint created_at",
    "kyc_cases": "id user_id vendor vendor_case_id status rejection_code rejection_reason target_tier redirect_url "
    "initiated_at completed_at expires_at version review_reason decision decided_at decided_by first_approval_by "
    "leased_until next_look_at looks",
    "kyc_attempts": "id case_id vendor vendor_case_id state token_hash expires_at calls called_at created_at "
    "started_at",
    "kyc_evidence": "id case_id attempt_id source source_event standing vendor_status rejection_code occurred_at "
    "received_at",
    "kyc_checks": "id case_id user_id kind status vendor completed_at valid_until",
    "kyc_artifacts": "id kyc_case_id attempt_id artifact_type state hash size media_type tries next_try_at "
    "given_up_for uploaded_at created_at",
    "erasures": "user_id event_id reason actor_id erased_at keys_destroyed identity_until contact_until "
    "kyc_evidence_until due_at listed_at vendors_told_at artifacts_gone_at addresses_again_at next_try_at tries "
    "certificate",
    "webhook_inbox_keys": "day owner epoch wrapped",
    "webhook_inbox": "id vendor dedupe_key attempt_id authentic_body day state tries next_try_at request_id "
    "traceparent received_at applied_at",
    "pii_disclosures": "id user_id recipient recipient_kind actor_id fields purpose action attempt_id at",
    "usercore_migrations": "id content_hash applied_at",
}

_PERSONAL_COLUMNS: Mapping[tuple[str, str], Classification] = {
    ("user_profiles", "pan_number_index"): _PAN_DIGEST,
    ("user_profiles", "phone_index"): _PHONE_DIGEST,
    ("user_consents", "ip_addr"): _ADDRESS_OF_CALLER,
    ("identity_claims", "kind"): _NOT_PERSONAL,
    ("identity_claims", "index_version"): _NOT_PERSONAL,
    ("identity_claims", "user_id"): _NOT_PERSONAL,
    ("identity_claims", "claimed_at"): _NOT_PERSONAL,
    ("identity_claims", "digest"): _PAN_DIGEST,
    ("user_audit", "ip_addr"): _ADDRESS_OF_CALLER,
    ("user_audit", "ip_mac"): _ADDRESS_DIGEST,
    ("user_audit", "old_value"): _COPIES,
    ("user_audit", "new_value"): _COPIES,
}


def _registry() -> Iterator[tuple[tuple[str, str], Classification]]:
    for table, columns in _NOT_PERSONAL_COLUMNS.items():
        for column in columns.split():
            yield (table, column), _NOT_PERSONAL
    yield from _PERSONAL_COLUMNS.items()
    for field in FIELDS:
        yield (
            (field.table, field.column),
            Classification(True, field.retention, field.storage, field.mask, field.indexed),
        )


REGISTRY: Mapping[tuple[str, str], Classification] = MappingProxyType(dict(_registry()))
