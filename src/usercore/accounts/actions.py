"""Verbs of accounts: look at one, freeze, unfreeze, close. Transactions begin and end here."""

from collections.abc import Collection
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore import cursors, telemetry
from usercore.accounts import queries
from usercore.accounts.queries import OpenHold
from usercore.archive.actions import Row, at, list_older
from usercore.clickhouse import ClickHouse
from usercore.cursors import Position
from usercore.db import Conn, Db
from usercore.disclosures.actions import reveal
from usercore.errors import FieldError, InvalidTransition, UserNotFound, ValidationFailed
from usercore.events import UserStatus, new_event_id, now
from usercore.idempotency import Answer, Attempt, claim, keep
from usercore.kyc.actions import OPEN, Outcome, Rules, Settled, enter, latest_case
from usercore.lifecycle.actions import NewHold, close_account, is_frozen_by, lift_holds, place_hold
from usercore.outbox import AccessPurpose, Actor, ActorKind, AuditAction, Change, record
from usercore.pii import classification as pii
from usercore.pii import validators
from usercore.pii.keyring import Keyring
from usercore.pii.sealed import Sealed
from usercore.profiles.actions import MEMBERS, READ_MASKED, Me, ProfileReader, keys_of, mask, open_kept, open_me
from usercore.users.actions import UnknownUser, get_version, lock_user, refuse_erased

FreezeReason = Literal[
    "suspected_fraud",
    "risk_review",
    "court_order",
    "user_request",
    "auth_deactivated",
    "kyc_fraud",
    "kyc_overdue",
    "other",
]
UnfreezeReason = Literal["cleared", "court_order_lifted", "user_verified", "other"]
CloseReason = Literal["user_request", "fraud", "deceased", "compliance", "other"]


READS: tuple[AuditAction, ...] = ("profile.read",)
STAFF: tuple[ActorKind, ...] = ("internal", "admin")
"""Whose masked reads the access log shows; what people of these kinds received is a disclosure of its own."""


class Freeze(Struct, frozen=True, forbid_unknown_fields=True):
    """Why, and for whom; `other` needs a note. Only an admin names another party than its own."""

    reason: FreezeReason
    note: str | None = None
    source: str | None = None


class Unfreeze(Struct, frozen=True, forbid_unknown_fields=True):
    """As Freeze."""

    reason: UnfreezeReason
    note: str | None = None
    source: str | None = None


class Close(Struct, frozen=True, forbid_unknown_fields=True):
    """Why; `other` needs a note."""

    reason: CloseReason
    note: str | None = None


class Access(Struct, frozen=True):
    """Somebody who read or received fields of a profile: in which role and from which service, not who it was."""

    at: datetime
    actor_kind: ActorKind
    client: str
    fields: list[str]
    purpose: str | None
    action: str


class _Looked(Struct):
    fields: list[str] = []


class Accesses(Struct, frozen=True):
    items: list[Access]
    next_cursor: str | None


class Account(Struct, frozen=True):
    status: UserStatus
    holds: list[OpenHold]


async def get_user(
    db: Db,
    keyring: Keyring,
    reader: ProfileReader,
    user_id: UUID,
    actor: Actor,
    *,
    fields: Collection[str],
    purpose: AccessPurpose | None,
) -> Me:
    """The user, masked; `fields` are shown in clear for the purpose. Recorded before anything is shown.

    Of an erased person a legal request alone sees what the law keeps. Raises UserNotFound, AccountErased,
    AuditUnavailable and ValidationFailed.
    """
    if not MEMBERS.issuperset(fields):
        error = FieldError("/query/reveal", "unknown_field", f"Any of {', '.join(sorted(MEMBERS))}.")
        raise ValidationFailed(errors=[error])
    try:
        if not fields or purpose is None:
            me, _ = await reader.read(user_id, actor, READ_MASKED)
            return mask(me, ())
        async with db.begin() as tx:
            by_law = purpose == "legal_request"
            await lock_user(tx, user_id, by_law=by_law)
            await reveal(tx, user_id, sorted(fields), purpose, actor, resource="user_profiles")
            me = await (open_kept if by_law else open_me)(tx, keyring, user_id)
        return mask(me, fields)
    except UnknownUser:
        raise UserNotFound from None


async def list_accesses(
    db: Db, keyring: Keyring, user_id: UUID, limit: int, cursor: str | None, archive: ClickHouse | None
) -> Accesses:
    """A page of who read or received which fields of the user, newest first.

    Raises UnknownUser, AccountErased, InvalidCursor and ArchiveUnavailable.
    """
    keys, context = keyring.token_keys(b"cursor"), b"access log" + user_id.bytes
    after = cursors.NEWEST if cursor is None else cursors.open(keys, Position, cursor, context=context)
    await get_version(db, user_id)
    async with db.read() as conn:
        rows = await queries.list_accesses(
            conn, user_id=user_id, before_at=after.at, before_id=after.id, most=limit + 1
        )
    since = rows[-1].at if len(rows) > limit else cursors.OLDEST.at
    older = await list_older(db, archive, user_id, after, limit + 1, since=since, actions=READS, actor_kinds=STAFF)
    # A month that left PostgreSQL in between is in both.
    every = {row.id: row for row in (*rows, *map(_archived, older))}
    rows = sorted(every.values(), key=lambda row: (row.at, row.id), reverse=True)[: limit + 1]
    rows, more = cursors.page(rows, limit, lambda row: Position(row.at, row.id), keys, context=context)
    items = [Access(row.at, row.actor_kind, row.client, row.fields, row.purpose, row.action) for row in rows]
    return Accesses(items, more)


def _archived(row: Row) -> queries.AccessRow:
    fields = msgspec.json.decode(row.new_value or "{}", type=_Looked).fields
    return queries.AccessRow(
        at(row), row.event_id, row.actor_kind, row.client or row.actor_kind, fields, row.purpose, row.action
    )


async def get_account(db: Db, user_id: UUID) -> Account:
    """The status of a user and the holds that it follows from; opens nothing. Raises UserNotFound, AccountErased."""
    async with db.snapshot() as conn:
        user = await queries.get_status(conn, user_id=user_id)
        if user is None:
            raise UserNotFound
        refuse_erased(user)
        return Account(user.status, await queries.list_open_holds(conn, user_id=user_id))


async def freeze(
    db: Db, keyring: Keyring, user_id: UUID, asked: Freeze, source: str, actor: Actor, key: Attempt | None
) -> Answer:
    """Place a hold for a party, unless it has one; the user as it is then, masked.

    Raises UserNotFound, AccountErased, InvalidTransition, ValidationFailed, KeysUnavailable, and what `claim` raises.
    """
    note = validators.note(asked.reason, asked.note)
    frozen = False
    try:
        with telemetry.span("user.freeze"):
            async with db.begin() as tx:
                if earlier := await claim(tx, keyring, key):
                    return earlier
                user = await lock_user(tx, user_id)
                if user.status == "closed":
                    raise InvalidTransition(members={"from": "closed", "to": "frozen"})
                # A court order is a hold of its own, also of a party that has one: it keeps a person from being erased.
                if not await is_frozen_by(tx, user_id, source, asked.reason if asked.reason == "court_order" else None):
                    hold = NewHold(
                        id=new_event_id(),
                        user_id=user_id,
                        effect="freeze",
                        source=source,
                        reason=asked.reason,
                        note_enc=await _sealed(tx, keyring, user_id, pii.HOLD_NOTE, note),
                        placed_by=actor.id,
                        placed_at=now(),
                        source_event_id=None,
                    )
                    frozen = await place_hold(tx, hold, actor)
                answer = await _shown(tx, keyring, user_id, actor, key)
    except UnknownUser:
        raise UserNotFound from None
    if frozen:
        telemetry.metrics.user_frozen(asked.reason)
    return answer


async def unfreeze(
    db: Db, keyring: Keyring, user_id: UUID, asked: Unfreeze, source: str, actor: Actor, key: Attempt | None
) -> Answer:
    """Lift the holds of a party; those of others stay. The user as it is then, masked. Raises as `freeze`."""
    note = validators.note(asked.reason, asked.note)
    try:
        with telemetry.span("user.unfreeze"):
            async with db.begin() as tx:
                if earlier := await claim(tx, keyring, key):
                    return earlier
                user = await lock_user(tx, user_id)
                if user.status == "closed":
                    raise InvalidTransition(members={"from": "closed", "to": "active"})
                sealed = await _sealed(tx, keyring, user_id, pii.LIFT_NOTE, note)
                await lift_holds(tx, user_id, source, asked.reason, sealed, actor, now())
                return await _shown(tx, keyring, user_id, actor, key)
    except UnknownUser:
        raise UserNotFound from None


async def close(
    db: Db, keyring: Keyring, rules: Rules, user_id: UUID, asked: Close, actor: Actor, key: Attempt | None
) -> Answer:
    """Close the account for good, and its open case with it. The user as it is then, masked.

    Raises UserNotFound, AccountErased, ValidationFailed, KeysUnavailable, and what `claim` raises.
    """
    note = validators.note(asked.reason, asked.note)
    settled: Settled | None = None
    at = now()
    try:
        async with db.begin() as tx:
            if earlier := await claim(tx, keyring, key):
                return earlier
            user = await lock_user(tx, user_id)
            if user.status != "closed":
                sealed = await _sealed(tx, keyring, user_id, pii.HOLD_NOTE, note)
                settled = await close_within(tx, rules, user_id, asked.reason, sealed, actor, at)
            answer = await _shown(tx, keyring, user_id, actor, key)
    except UnknownUser:
        raise UserNotFound from None
    if settled is not None:
        settled.count()
    return answer


async def close_within(
    tx: Conn, rules: Rules, user_id: UUID, reason: str, note: Sealed | None, actor: Actor, at: datetime
) -> Settled | None:
    """Close an account that is open, and its open case with it; what to count when that is committed."""
    await close_account(tx, user_id, reason, note, actor, at)
    case = await latest_case(tx, user_id)
    if case is None or case.status not in OPEN:
        return None
    outcome = Outcome("expired", "account_closed")
    return await enter(tx, rules, await lock_user(tx, user_id), case, outcome, actor, at)


async def _shown(tx: Conn, keyring: Keyring, user_id: UUID, actor: Actor, key: Attempt | None) -> Answer:
    """The user, masked, as the answer that is kept; that it was looked at is recorded with the change."""
    read = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ_MASKED)
    await record(tx, read, actor=actor)
    me = mask(await open_me(tx, keyring, user_id), ())
    return await keep(tx, keyring, key, Answer(200, msgspec.Raw(msgspec.json.encode(me))))


async def _sealed(tx: Conn, keyring: Keyring, user_id: UUID, field: pii.Field, note: str | None) -> Sealed | None:
    if note is None:
        return None
    return (await keys_of(tx, keyring, user_id, field.retention)).seal(field, note)
