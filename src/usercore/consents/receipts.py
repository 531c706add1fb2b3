"""Receipts of consents, in the shape of ISO/IEC TS 27560:2023: what was agreed to, with whom, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.consents.queries import Consent, ConsentType

SCHEMA_VERSION = "ISO-IEC-TS-27560:2023"


class Party(Struct, frozen=True):
    party_id: str
    party_role: Literal["pii_controller"]
    party_name: str


class Purpose(Struct, frozen=True):
    purpose: str
    lawful_basis: Literal["consent", "contract", "legal_obligation"]
    pii_categories: list[str]
    withdrawal_method: str
    jurisdiction: str = "IN"


class Processing(Struct, frozen=True):
    """`privacy_notice` is the version of the text that was shown."""

    consent_type: ConsentType
    privacy_notice: str
    purposes: list[Purpose]


class ConsentEvent(Struct, frozen=True):
    event_time: datetime
    event_state: Literal["consent given", "consent withdrawn"]
    entity_id: str


class Receipt(Struct, frozen=True):
    """`receipt_id` is the row of the grant or withdrawal; `pii_principal_id` is the user's id, no name."""

    schema_version: str
    receipt_id: UUID
    issued_at: datetime
    pii_principal_id: UUID
    parties: list[Party]
    processing: Processing
    events: list[ConsentEvent]


WITHDRAWAL = 'POST /v1/me/consents with "granted": false'

PURPOSES: Mapping[ConsentType, Purpose] = {
    "terms_of_service": Purpose(
        "Keep and operate a trading account", "contract", ["identity", "contact", "kyc_evidence"], WITHDRAWAL
    ),
    "privacy_policy": Purpose(
        "Process personal data as the privacy policy says", "consent", ["identity", "contact"], WITHDRAWAL
    ),
    "marketing": Purpose("Tell the person about products and offers", "consent", ["contact"], WITHDRAWAL),
    "data_sharing": Purpose(
        "Share personal data with the partners that the text names", "consent", ["identity", "contact"], WITHDRAWAL
    ),
    "risk_disclosure": Purpose(
        "Show that the risks of trading were explained, as SEBI asks", "legal_obligation", [], WITHDRAWAL
    ),
}


def receipt(consent: Consent, user_id: UUID, controller: str, at: datetime) -> Receipt:
    """Of a grant or a withdrawal, as it stands at `at`."""
    given = ConsentEvent(consent.granted_at, "consent given", str(user_id))
    ended = [] if consent.revoked_at is None else [ConsentEvent(consent.revoked_at, "consent withdrawn", str(user_id))]
    return Receipt(
        SCHEMA_VERSION,
        consent.id,
        at,
        user_id,
        [Party("usercore", "pii_controller", controller)],
        Processing(consent.consent_type, consent.version, [PURPOSES[consent.consent_type]]),
        [given, *ended],
    )
