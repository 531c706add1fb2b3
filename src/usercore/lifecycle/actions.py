"""Verbs of the account's lifecycle: holds, the status they derive, the Auth Service's events."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid5

from msgspec.structs import replace

from usercore import telemetry
from usercore.db import Conn, Db
from usercore.errors import AccountErased
from usercore.events import (
    AUTH_CREATED,
    AUTH_DEACTIVATED,
    AuthAccountDeactivated,
    AuthCreated,
    UserClosed,
    UserEvent,
    UserFrozen,
    UserStatus,
    UserSuspended,
    UserUnfrozen,
    new_event_id,
    now,
)
from usercore.lifecycle import queries
from usercore.lifecycle.queries import HoldEffect, NewHold
from usercore.outbox import SYSTEM, Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring
from usercore.pii.sealed import Sealed
from usercore.profiles.actions import fill_emails, keys_of
from usercore.users.actions import UserRow, add_users, lock_user

__all__ = [
    "KYC_FRAUD",
    "KYC_OVERDUE",
    "HoldEffect",
    "NewHold",
    "activate",
    "apply_auth_events",
    "close_account",
    "derive_status",
    "hold_for_kyc",
    "is_frozen_by",
    "lift_holds",
    "place_hold",
]

KYC_FRAUD = "kyc_fraud"
KYC_OVERDUE = "kyc_overdue"


def derive_status(
    *, closed_at: datetime | None, open_effects: Sequence[HoldEffect], activated_at: datetime | None
) -> UserStatus:
    """The one rule: closed, else frozen or suspended by an open hold, else active once approved, else pending."""
    if closed_at is not None:
        return "closed"
    if "freeze" in open_effects:
        return "frozen"
    if "suspend" in open_effects:
        return "suspended"
    return "pending" if activated_at is None else "active"


async def place_hold(tx: Conn, hold: NewHold, actor: Actor) -> bool:
    """Place a hold and derive the status; true when the account became frozen. A hold placed before changes nothing.

    Raises UnknownUser and AccountErased.
    """
    user = await lock_user(tx, hold.user_id)
    if not await queries.accept_hold(tx, hold=hold):
        return False
    placed = Change(
        action="hold.placed",
        user_id=user.id,
        resource="account_holds",
        new={"hold_id": str(hold.id), "effect": hold.effect, "source": hold.source, "reason": hold.reason},
    )
    return (
        await _derive_again(tx, user, actor, hold.placed_at, placed, reason=hold.reason, source=hold.source) == "frozen"
    )


async def hold_for_kyc(
    tx: Conn, user_id: UUID, effect: HoldEffect, reason: str, cause: UUID, actor: Actor, at: datetime
) -> bool:
    """Place the hold that a case (`cause`) gives reason for, once; true when the account became frozen."""
    hold = NewHold(
        id=new_event_id(),
        user_id=user_id,
        effect=effect,
        source="kyc",
        reason=reason,
        note_enc=None,
        placed_by=None,
        placed_at=at,
        source_event_id=uuid5(cause, reason),
    )
    return await place_hold(tx, hold, actor)


async def activate(tx: Conn, user_id: UUID, actor: Actor, at: datetime) -> None:
    """A user has reached a tier: active from now on, unless a hold is in the way. Lifts a hold for an overdue KYC."""
    user = await lock_user(tx, user_id)
    lifted = [
        Change(
            action="hold.lifted",
            user_id=user_id,
            resource="account_holds",
            old={"hold_id": str(hold_id), "effect": "suspend", "source": "kyc", "reason": KYC_OVERDUE},
            new={"lift_reason": "user_verified"},
        )
        for hold_id in await queries.take_overdue_holds(tx, user_id=user_id, at=at)
    ]
    if user.activated_at is None:
        await queries.set_activated(tx, user_id=user_id, at=at)
    active = replace(user, activated_at=user.activated_at or at)
    await _derive_again(tx, active, actor, at, *lifted, reason="user_verified", source="kyc")


async def is_frozen_by(tx: Conn, user_id: UUID, source: str, reason: str | None = None) -> bool:
    """Whether a party has a hold that freezes the account, for this reason or, with none, for any."""
    return await queries.has_open_freeze(tx, user_id=user_id, source=source, reason=reason)


async def lift_holds(
    tx: Conn, user_id: UUID, source: str, reason: str, note_enc: Sealed | None, actor: Actor, at: datetime
) -> None:
    """Lift all holds of a party and derive the status; nothing when it has none. Raises as `lock_user`."""
    user = await lock_user(tx, user_id)
    lifted = await queries.take_holds(
        tx, user_id=user_id, source=source, reason=reason, note_enc=note_enc, lifted_by=actor.id, at=at
    )
    changes = [
        Change(
            action="hold.lifted",
            user_id=user_id,
            resource="account_holds",
            old={"hold_id": str(hold.id), "effect": hold.effect, "source": source, "reason": hold.reason},
            new={"lift_reason": reason, "note": note_enc},
        )
        for hold in lifted
    ]
    if changes:
        await _derive_again(tx, user, actor, at, *changes, reason=reason, source=source)


async def close_account(
    tx: Conn, user_id: UUID, reason: str, note_enc: Sealed | None, actor: Actor, at: datetime
) -> None:
    """Close the account for good; its holds stay as they are. Raises UnknownUser and AccountErased."""
    user = await lock_user(tx, user_id)
    await queries.set_closed(tx, user_id=user_id, at=at)
    await _derive_again(tx, replace(user, closed_at=at), actor, at, reason=reason, source="", note=note_enc)


async def _derive_again(
    tx: Conn,
    user: UserRow,
    actor: Actor,
    at: datetime,
    *also: Change,
    reason: str,
    source: str,
    note: Sealed | None = None,
) -> UserStatus | None:
    """The new status, written and recorded when it is another one; `also` is recorded with it."""
    status = derive_status(
        closed_at=user.closed_at,
        open_effects=await queries.list_open_effects(tx, user_id=user.id),
        activated_at=user.activated_at,
    )
    if status == user.status:
        if also:
            await record(tx, *also, actor=actor)
        return None
    version = await queries.set_status(tx, user_id=user.id, status=status, at=at)
    events = _events_of(user, status, version, reason, source, actor.id, at)
    if len(events) > 1:  # a suspension that the freeze had hidden
        *others, last = also
        also = (*others, replace(last, event=events[0]))
    changed = Change(
        action="status.changed",
        user_id=user.id,
        resource="users",
        old={"status": user.status},
        new={"status": status} if status != "closed" else {"status": status, "reason": reason, "note": note},
        event=events[-1] if events else None,
    )
    await record(tx, *also, changed, actor=actor)
    return status


def _events_of(
    user: UserRow, status: UserStatus, version: int, reason: str, source: str, actor_id: UUID | None, at: datetime
) -> list[UserEvent]:
    """What consumers are told of a new status. Of `active` by itself nothing: `user.verified.v1` says it."""
    found: list[UserEvent] = []
    by_source: list[type[UserFrozen | UserUnfrozen]] = []
    if user.status == "frozen" and status != "closed":
        by_source.append(UserUnfrozen)
    if status == "frozen":
        by_source.append(UserFrozen)
    for kind in by_source:
        found.append(
            kind(
                event_id=new_event_id(),
                occurred_at=at,
                user_id=user.id,
                version=version,
                reason=reason,
                source=source,
                actor_id=actor_id,
            )
        )
    if status in ("suspended", "closed"):
        final = UserSuspended if status == "suspended" else UserClosed
        found.append(
            final(
                event_id=new_event_id(),
                occurred_at=at,
                user_id=user.id,
                version=version,
                reason=reason,
                actor_id=actor_id,
            )
        )
    return found


async def apply_auth_events(
    db: Db, keyring: Keyring, created: Sequence[AuthCreated], deactivated: Sequence[AuthAccountDeactivated]
) -> None:
    """Apply a batch of events of the Auth Service in one transaction; events consumed before change nothing.

    The two topics have no order between them: a deactivation that comes first creates its user too, and the
    `auth.created.v1` that follows fills in the e-mail address.
    """
    with telemetry.span("user.create"):
        async with db.begin() as tx:
            named = [(AUTH_CREATED, event.event_id) for event in created]
            named += [(AUTH_DEACTIVATED, event.event_id) for event in deactivated]
            accepted = set(
                await queries.accept_auth_events(
                    tx, topics=[topic for topic, _ in named], event_ids=[event_id for _, event_id in named]
                )
            )
            emails = {event.auth_id: event.email for event in created if event.event_id in accepted}
            # In the order of ids, as every batch: two batches with the same users wait and do not deadlock.
            holds = sorted(
                (event for event in deactivated if event.event_id in accepted), key=lambda event: event.auth_id
            )
            user_ids = sorted(emails.keys() | {event.auth_id for event in holds})
            newcomers = [(user_id, emails.get(user_id)) for user_id in user_ids]
            if not newcomers:
                return
            added = await add_users(tx, keyring, newcomers, SYSTEM)
            missed = {user_id: emails[user_id] for user_id in emails.keys() - set(added)}
            if missed:
                await fill_emails(tx, keyring, missed, SYSTEM)
            frozen = [await _place_auth_hold(tx, keyring, event) for event in holds]
        telemetry.metrics.user_created(len(added))
        for _ in range(sum(frozen)):
            telemetry.metrics.user_frozen("auth_deactivated")


async def _place_auth_hold(tx: Conn, keyring: Keyring, event: AuthAccountDeactivated) -> bool:
    try:
        await lock_user(tx, event.auth_id)
    except AccountErased:
        return False
    # Also a user whose key is broken is frozen: an error here would stop the partition for everybody behind it.
    keys = await keys_of(tx, keyring, event.auth_id, pii.HOLD_NOTE.retention)
    note = keys.seal(pii.HOLD_NOTE, event.reason) if event.reason else None
    hold = NewHold(
        id=new_event_id(),
        user_id=event.auth_id,
        effect="freeze",
        source="auth",
        reason="auth_deactivated",
        note_enc=note,
        placed_by=None,
        placed_at=now(),
        source_event_id=event.event_id,
    )
    return await place_hold(tx, hold, SYSTEM)
