"""What a profile is, how a row is opened to one, and how a merge patch changes it: pure, no I/O."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from usercore import telemetry
from usercore.errors import EmailManagedByAuth, FieldError, OpenFailed, ValidationFailed
from usercore.events import KycStatus, KycTier, UserStatus
from usercore.pii import classification as pii
from usercore.pii import masks, validators
from usercore.pii.keyring import Keyring, UserKeys
from usercore.pii.sealed import Sealed
from usercore.pii.user_keys import key_rows
from usercore.profiles.queries import ProfileRow

log = telemetry.logger(__name__)

IDENTITY_FIELDS = frozenset({"first_name", "last_name", "date_of_birth", "pan_number", "aadhaar_last4"})
"""Locked while a KYC case is open and after approval: a vendor compares, or has compared, them with documents."""


class Address(Struct, frozen=True, omit_defaults=False):
    """A complete postal address. `country` is ISO 3166-1 alpha-2."""

    line1: str
    city: str
    state: str
    pin_code: str
    line2: str | None = None
    country: str = "IN"


class Profile(Struct, frozen=True, kw_only=True):
    """A profile as a client sees it, in clear or masked. Dates are ISO 8601, the phone is E.164."""

    first_name: str | None
    last_name: str | None
    date_of_birth: str | None
    pan_number: str | None
    aadhaar_last4: str | None
    address: Address | None
    phone: str | None
    email: str | None
    avatar_url: str | None
    updated_at: datetime

    def __repr__(self) -> str:
        return "Profile(…)"


class Me(Struct, frozen=True, kw_only=True):
    """A user with its profile: the body of GET /v1/me. Masked when the fields could not be opened."""

    id: UUID
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier
    created_at: datetime
    updated_at: datetime
    verified_at: datetime | None
    profile: Profile
    pii_masked: bool


class AddressPatch(Struct, frozen=True, forbid_unknown_fields=True):
    line1: str | UnsetType | None = UNSET
    line2: str | UnsetType | None = UNSET
    city: str | UnsetType | None = UNSET
    state: str | UnsetType | None = UNSET
    pin_code: str | UnsetType | None = UNSET
    country: str | UnsetType | None = UNSET


class ProfilePatch(Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON Merge Patch (RFC 7396) of a profile: absent leaves, null clears."""

    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    date_of_birth: str | UnsetType | None = UNSET
    pan_number: str | UnsetType | None = UNSET
    aadhaar_last4: str | UnsetType | None = UNSET
    address: AddressPatch | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    """Only to be refused by its own name: Auth owns it."""

    def __repr__(self) -> str:
        return "ProfilePatch(…)"


FIELDS = {
    "first_name": pii.FIRST_NAME,
    "last_name": pii.LAST_NAME,
    "date_of_birth": pii.DATE_OF_BIRTH,
    "pan_number": pii.PAN_NUMBER,
    "aadhaar_last4": pii.AADHAAR_LAST4,
    "address": pii.ADDRESS,
    "phone": pii.PHONE,
}
"""The sealed fields of a profile; their columns are the name and `_enc`."""


def open_me(row: ProfileRow, keyring: Keyring, *, by_law: bool = False) -> Me:
    """The user of a row, opened; masked as a whole when one of its fields does not open. `by_law`: see Keyring."""
    try:
        profile = opened(row, keyring.unlock(row.id, key_rows(row.id, row), by_law=by_law))
        masked = False
    except OpenFailed as failure:
        log.error("pii_open_failed", user_id=row.id, reason=failure.reason)
        telemetry.metrics.pii_open_failed(failure.reason)
        profile = _masked(row)
        masked = True
    return Me(
        id=row.id,
        status=row.status,
        kyc_status=row.kyc_status,
        kyc_tier=row.kyc_tier,
        created_at=row.created_at,
        updated_at=row.updated_at,
        verified_at=row.verified_at,
        profile=profile,
        pii_masked=masked,
    )


MASKED: Mapping[str, Callable[[str], str]] = {
    "first_name": masks.person_name,
    "last_name": masks.person_name,
    "date_of_birth": masks.date,
    "pan_number": masks.pan,
    "aadhaar_last4": masks.aadhaar_last4,
    "phone": masks.phone,
    "email": masks.email,
    "avatar_url": masks.url,
}
"""The members of a profile that are shown as masks, but for the address, which has a mask for each of its parts."""
MEMBERS = frozenset({*MASKED, "address"})


def mask(me: Me, revealed: Collection[str]) -> Me:
    """What somebody else sees of a user: the profile masked, but for the members that are revealed."""
    profile = me.profile
    shown: dict[str, object] = {}
    for name, hide in MASKED.items():
        value: str | None = getattr(profile, name)
        shown[name] = value if value is None or name in revealed else hide(value)
    address = profile.address
    if address is not None and "address" not in revealed:
        parts = {name: masks.address_part(name, value) for name, value in msgspec.structs.asdict(address).items()}
        address = msgspec.convert(parts, Address)
    return replace(me, profile=replace(profile, address=address, **shown), pii_masked=True)


def keys_of_row(keyring: Keyring, row: ProfileRow) -> UserKeys:
    """The user's wrapped keys, ready to open and seal; nothing is unwrapped before it is needed."""
    return keyring.unlock(row.id, key_rows(row.id, row))


def opened(row: ProfileRow, keys: UserKeys) -> Profile:
    """Raises OpenFailed."""
    address = open_field(keys, "address", row.address_enc)
    return Profile(
        first_name=open_field(keys, "first_name", row.first_name_enc),
        last_name=open_field(keys, "last_name", row.last_name_enc),
        date_of_birth=open_field(keys, "date_of_birth", row.date_of_birth_enc),
        pan_number=open_field(keys, "pan_number", row.pan_number_enc),
        aadhaar_last4=open_field(keys, "aadhaar_last4", row.aadhaar_last4_enc),
        address=None if address is None else msgspec.json.decode(address, type=Address),
        phone=open_field(keys, "phone", row.phone_enc),
        email=row.email,
        avatar_url=row.avatar_url,
        updated_at=row.profile_updated_at,
    )


def open_field(keys: UserKeys, name: str, sealed: Sealed | None) -> str | None:
    return None if sealed is None else keys.reveal(FIELDS[name], sealed)


def _masked(row: ProfileRow) -> Profile:
    def hidden(sealed: Sealed | None) -> str | None:
        return None if sealed is None else masks.UNREADABLE

    unreadable = masks.UNREADABLE
    return Profile(
        first_name=hidden(row.first_name_enc),
        last_name=hidden(row.last_name_enc),
        date_of_birth=hidden(row.date_of_birth_enc),
        pan_number=hidden(row.pan_number_enc),
        aadhaar_last4=hidden(row.aadhaar_last4_enc),
        address=None if row.address_enc is None else Address(unreadable, unreadable, unreadable, unreadable),
        phone=hidden(row.phone_enc),
        email=None if row.email is None else masks.email(row.email),
        avatar_url=None if row.avatar_url is None else masks.url(row.avatar_url),
        updated_at=row.profile_updated_at,
    )


_VALIDATORS: Mapping[str, Callable[[str], str]] = {
    "first_name": validators.person_name,
    "last_name": validators.person_name,
    "date_of_birth": validators.date_of_birth,
    "pan_number": validators.pan,
    "aadhaar_last4": validators.aadhaar_last4,
    "phone": validators.mobile,
    "avatar_url": validators.avatar_url,
}
_ADDRESS_VALIDATORS: Mapping[str, Callable[[str], str]] = {
    "line1": validators.address_line,
    "line2": validators.address_line,
    "city": validators.address_line,
    "state": validators.address_line,
    "pin_code": validators.pin_code,
    "country": validators.country,
}
_ADDRESS_REQUIRED = ("line1", "city", "state", "pin_code")


def validated(patch: ProfilePatch) -> dict[str, object]:
    """The members of a patch in canonical form. Raises ValidationFailed with every problem, or EmailManagedByAuth."""
    if patch.email is not UNSET:
        raise EmailManagedByAuth
    errors: list[FieldError] = []
    given: dict[str, object] = {}
    for name, value in members(patch).items():
        if isinstance(value, AddressPatch):
            parts = members(value)
            given[name] = {
                part: _checked(_ADDRESS_VALIDATORS[part], text, f"/address/{part}", errors)
                for part, text in parts.items()
            }
        else:
            given[name] = None if value is None else _checked(_VALIDATORS[name], value, f"/{name}", errors)
    if errors:
        raise ValidationFailed(errors=errors)
    return given


def members(patch: Struct) -> dict[str, object]:
    """The members that a patch names, without those that it leaves alone."""
    values = ((name, getattr(patch, name)) for name in patch.__struct_fields__)
    return {name: value for name, value in values if value is not UNSET}


def _checked(validator: Callable[[str], str], value: object, pointer: str, errors: list[FieldError]) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return validator(value)
    except validators.Invalid as invalid:
        errors.append(FieldError(pointer, invalid.code, invalid.detail))
        return None


def merge(target: object, patch: object) -> object:
    """The algorithm of RFC 7396, section 2, over decoded JSON."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(cast("dict[str, object]", target)) if isinstance(target, dict) else {}
    for name, value in cast("dict[str, object]", patch).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def stored_address(text: str) -> dict[str, object]:
    """A sealed address as what a patch is merged into: its parts, without the absent ones."""
    return {
        part: value for part, value in msgspec.json.decode(text, type=dict[str, object]).items() if value is not None
    }


def replaces_whole_address(patch: Mapping[str, object]) -> bool:
    """Whether nothing of the old address can survive this patch."""
    return all(part in patch for part in AddressPatch.__struct_fields__)


def complete_address(merged: Mapping[str, object]) -> Address:
    """The merged address. Raises ValidationFailed naming the parts that are missing."""
    errors = [
        FieldError(f"/address/{part}", "required", "An address needs this part.")
        for part in _ADDRESS_REQUIRED
        if part not in merged
    ]
    if errors:
        raise ValidationFailed(errors=errors)
    return msgspec.convert(merged, Address)
