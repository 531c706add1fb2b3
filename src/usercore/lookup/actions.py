"""The verb of lookup: search for users. Transactions begin and end here."""

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from usercore import cursors
from usercore.db import Db
from usercore.errors import FieldError, InvalidCursor, ValidationFailed
from usercore.events import KycStatus, KycTier, UserStatus
from usercore.lookup import queries
from usercore.lookup.queries import Filters, FoundRow
from usercore.outbox import Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii import masks, validators
from usercore.pii.keyring import Keyring

_CONTEXT = b"users search"


class Search(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to search for: all of it at once. `created_from` counts, `created_to` does not any more."""

    email: str | None = None
    phone: str | None = None
    pan_number: str | None = None
    status: UserStatus | None = None
    kyc_status: KycStatus | None = None
    kyc_tier: KycTier | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    limit: int = 50
    cursor: str | None = None


class Found(Struct, frozen=True, kw_only=True):
    """A user as a search shows it: the e-mail address is masked."""

    id: UUID
    email: str | None
    status: UserStatus
    kyc_status: KycStatus
    kyc_tier: KycTier
    created_at: datetime
    verified_at: datetime | None


class FoundPage(Struct, frozen=True):
    items: list[Found]
    next_cursor: str | None


class Position(cursors.Position, frozen=True):
    """With the digest of what was searched for."""

    filters: str


async def search(db: Db, keyring: Keyring, asked: Search, actor: Actor) -> FoundPage:
    """A page of the users that are all of what is asked for, newest first; recorded before it is shown.

    Raises InvalidCursor, also for one of another search; ValidationFailed and KeysUnavailable.
    """
    email, phone, pan = (
        _canonical("email", asked.email, str.strip),
        _canonical("phone", asked.phone, validators.mobile),
        _canonical("pan_number", asked.pan_number, validators.pan),
    )
    keys = keyring.token_keys(b"cursor")
    filtered = msgspec.json.encode({**asdict(asked), "limit": None, "cursor": None}).decode()
    same = _digest(keys[0], filtered)
    after = Position(cursors.NEWEST.at, cursors.NEWEST.id, same)
    if asked.cursor is not None:
        after = cursors.open(keys, Position, asked.cursor, context=_CONTEXT)
        if not any(hmac.compare_digest(after.filters, _digest(key, filtered)) for key in keys):
            raise InvalidCursor
    filters = Filters(
        email=email,
        status=asked.status,
        kyc_status=asked.kyc_status,
        kyc_tier=asked.kyc_tier,
        created_from=_zoned("created_from", asked.created_from, cursors.OLDEST.at),
        created_to=_zoned("created_to", asked.created_to, cursors.NEWEST.at),
    )
    async with db.begin() as tx:
        if email is None and phone is None and pan is None:
            rows = await queries.list_accounts(
                tx, filters=filters, before_at=after.at, before_id=after.id, most=asked.limit + 1
            )
        else:
            rows = await queries.list_people(
                tx,
                filters=filters,
                phone_indexes=None if phone is None else keyring.blind_indexes(pii.PHONE, phone),
                pan_number_indexes=None if pan is None else keyring.blind_indexes(pii.PAN_NUMBER, pan),
                before_at=after.at,
                before_id=after.id,
                most=asked.limit + 1,
            )
        searched = {
            "email": _digest_of(keyring, email),
            "phone": _digest_of(keyring, phone),
            "pan_number": _digest_of(keyring, pan),
            "status": asked.status,
            "kyc_status": asked.kyc_status,
            "kyc_tier": asked.kyc_tier,
            "created_from": asked.created_from,
            "created_to": asked.created_to,
        }
        said = {name: value for name, value in searched.items() if value is not None}
        found = min(len(rows), asked.limit)
        change = Change(action="user.searched", user_id=None, resource="users", new={"filters": said, "found": found})
        await record(tx, change, actor=actor)
    rows, more = cursors.page(
        rows, asked.limit, lambda row: Position(row.created_at, row.id, same), keys, context=_CONTEXT
    )
    return FoundPage([_found(row) for row in rows], more)


def _found(row: FoundRow) -> Found:
    return Found(
        id=row.id,
        email=None if row.email is None else masks.email(row.email),
        status=row.status,
        kyc_status=row.kyc_status,
        kyc_tier=row.kyc_tier,
        created_at=row.created_at,
        verified_at=row.verified_at,
    )


def _canonical(name: str, value: str | None, canonical: Callable[[str], str]) -> str | None:
    if value is None:
        return None
    try:
        return canonical(value)
    except validators.Invalid as invalid:
        raise ValidationFailed(errors=[FieldError(f"/{name}", invalid.code, invalid.detail)]) from None


def _zoned(name: str, at: datetime | None, otherwise: datetime) -> datetime:
    """Raises ValidationFailed for a time without a zone."""
    if at is None:
        return otherwise
    if at.tzinfo is None:
        raise ValidationFailed(errors=[FieldError(f"/{name}", "time_zone", "A time with its zone.")])
    return at


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _digest_of(keyring: Keyring, value: str | None) -> str | None:
    """What the trail keeps of a value that was searched for: the same for the same value, and nothing of it."""
    return None if value is None else _digest(keyring.token_key(b"searches"), value)[:32]
