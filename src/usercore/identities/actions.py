"""Verbs of identities: bind a verified person to an account, and let go; inside the transaction of a verdict."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from usercore.db import Conn
from usercore.identities import matching, queries
from usercore.identities.matching import Conflict
from usercore.outbox import Actor
from usercore.pii import classification as pii
from usercore.pii import validators
from usercore.pii.keyring import Keyring
from usercore.plugins import Identity
from usercore.profiles.actions import fill_verified, open_profile


async def bind(
    tx: Conn, keyring: Keyring, user_id: UUID, identity: Identity, actor: Actor, at: datetime, *, claim: bool
) -> Conflict | None:
    """What keeps the verified person from being this user, or None: then empty fields of the profile are filled in.

    With `claim` its PAN becomes this account's and no other's. Whoever calls has locked the user and records the read.
    Raises OpenFailed and KeysUnavailable.
    """
    profile = await open_profile(tx, keyring, user_id)
    known = {
        "first_name": profile.first_name,
        "last_name": profile.last_name,
        "date_of_birth": profile.date_of_birth,
        "pan_number": profile.pan_number,
        "aadhaar_last4": profile.aadhaar_last4,
    }
    if matching.mismatches(known, identity):
        return "identity_mismatch"
    pan = profile.pan_number or identity.pan_number
    if claim and pan is not None and not await _claim(tx, keyring, user_id, pan, at):
        return "identity_conflict"
    await fill_verified(tx, keyring, user_id, _verified(identity), actor)
    return None


async def claim_own_pan(tx: Conn, keyring: Keyring, user_id: UUID, at: datetime) -> bool:
    """Claim the PAN of the profile, for a person whom a reviewer approved; false when another account has it."""
    profile = await open_profile(tx, keyring, user_id)
    return profile.pan_number is None or await _claim(tx, keyring, user_id, profile.pan_number, at)


async def let_go(tx: Conn, user_id: UUID) -> None:
    """Give the claims back, so that whoever the PAN really belongs to can be verified."""
    await queries.take_claims(tx, user_id=user_id)


async def _claim(tx: Conn, keyring: Keyring, user_id: UUID, pan: str, at: datetime) -> bool:
    indexes = keyring.blind_indexes(pii.PAN_NUMBER, pan)
    versions = [int.from_bytes(index[:2], "big") for index in indexes]
    digests = [index[2:] for index in indexes]
    # Insert first: of two that come at once the second waits here, and then sees whose it is.
    await queries.accept_claims(tx, user_id=user_id, index_versions=versions, digests=digests, at=at)
    if not await queries.has_foreign_claim(tx, user_id=user_id, index_versions=versions, digests=digests):
        return True
    await queries.take_claims(tx, user_id=user_id)
    return False


def _verified(identity: Identity) -> Mapping[str, str]:
    """What a profile can take of it: only what the profile's own grammar allows."""
    found = {
        "date_of_birth": None if identity.date_of_birth is None else identity.date_of_birth.isoformat(),
        "pan_number": identity.pan_number,
        "aadhaar_last4": identity.aadhaar_last4,
    }
    if identity.name is not None:
        first, _, last = identity.name.strip().rpartition(" ")
        found |= {"first_name": first or last, "last_name": last if first else None}
    valid: dict[str, str] = {}
    for name, value in found.items():
        if value is None:
            continue
        try:
            valid[name] = _VALIDATORS[name](value)
        except validators.Invalid:
            continue
    return valid


_VALIDATORS = {
    "first_name": validators.person_name,
    "last_name": validators.person_name,
    "date_of_birth": validators.date_of_birth,
    "pan_number": validators.pan,
    "aadhaar_last4": validators.aadhaar_last4,
}
