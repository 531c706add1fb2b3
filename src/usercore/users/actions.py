"""Verbs of users: create, read, update the profile, place a hold. Transactions begin and end here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

import msgspec
from msgspec.structs import replace

from usercore import telemetry
from usercore.batcher import Batcher
from usercore.db import Conn, Db
from usercore.errors import (
    AccountErased,
    AccountNotActive,
    IdentityLocked,
    KeysUnavailable,
    OpenFailed,
    PiiUnavailable,
    UsercoreError,
    VersionMismatch,
)
from usercore.events import (
    AUTH_CREATED,
    AUTH_DEACTIVATED,
    AuthAccountDeactivated,
    AuthCreated,
    UserCreated,
    UserFrozen,
    UserStatus,
    UserUpdated,
    new_event_id,
    now,
)
from usercore.outbox import SYSTEM, Actor, AuditRow, Change, audit_row, outbox_row, record
from usercore.pii import classification as pii
from usercore.pii import masks
from usercore.pii.keyring import Keyring, UserKeyRow, UserKeys
from usercore.pii.sealed import Sealed
from usercore.users import profile as profiles
from usercore.users import queries
from usercore.users.profile import Address, Me, Profile, ProfilePatch
from usercore.users.queries import HoldEffect, NewHold, NewUser, ProfileRow, ReadProfileRow, UserRow

log = telemetry.logger(__name__)

PROFILE_FIELDS = {
    "first_name": pii.FIRST_NAME,
    "last_name": pii.LAST_NAME,
    "date_of_birth": pii.DATE_OF_BIRTH,
    "pan_number": pii.PAN_NUMBER,
    "aadhaar_last4": pii.AADHAAR_LAST4,
    "address": pii.ADDRESS,
    "phone": pii.PHONE,
}
"""The sealed fields of a profile; their columns are the name and `_enc`."""

READ = {"fields": [*PROFILE_FIELDS, "email", "avatar_url"]}


class UnknownUser(UsercoreError):
    """No user has this id: a first call, or a stranger."""


# ------------------------------------------------------------------------------------------------------------ creating


async def add_users(
    tx: Conn, keyring: Keyring, newcomers: Sequence[tuple[UUID, str | None]], actor: Actor
) -> list[UUID]:
    """Create the users that do not exist yet, of (id, email), with profile, preferences, keys, audit row and event.

    Returns the ids that are new. Raises KeysUnavailable before anything is written.
    """
    at = now()
    users: list[NewUser] = []
    keys: list[UserKeyRow] = []
    audit: list[AuditRow] = []
    events: list[UserCreated] = []
    for user_id, email in newcomers:
        own_keys = keyring.new_user_keys(user_id)
        created = UserCreated(
            event_id=new_event_id(),
            occurred_at=at,
            user_id=user_id,
            version=1,
            status="pending",
            kyc_status="not_started",
            kyc_tier="tier_0",
        )
        sealed = None if email is None else keyring.unlock(user_id, own_keys).seal(pii.EMAIL, email)
        users.append(NewUser(user_id, email, at))
        keys.extend(own_keys)
        change = Change(
            action="user.created",
            user_id=user_id,
            resource="users",
            new={"status": "pending", "kyc_status": "not_started", "kyc_tier": "tier_0", "email": sealed},
        )
        audit.append(audit_row(change, actor, at))
        events.append(created)
    return await queries.add_users(
        tx, users=users, keys=keys, audit=audit, events=[outbox_row(event, actor) for event in events]
    )


async def create_user(db: Db, keyring: Keyring, user_id: UUID, email: str | None, actor: Actor) -> None:
    """Create the user of a first call by the same code as the auth event; nothing happens if it exists."""
    with telemetry.span("user.create"):
        async with db.begin() as tx:
            created = await add_users(tx, keyring, [(user_id, profiles.valid_email(email))], actor)
        telemetry.metrics.user_created(len(created))


async def fill_emails(tx: Conn, keyring: Keyring, emails: dict[UUID, str], actor: Actor) -> None:
    """Give users that were created without an address (by a token or a deactivation) the one that Auth knows."""
    for user_id in await queries.list_without_email(tx, user_ids=sorted(emails)):
        await queries.lock_user(tx, user_id=user_id)
        row = await queries.get_profile(tx, user_id=user_id)
        if row.email is None and row.erased_at is None:
            await _save(tx, keyring, row, {"email": emails[user_id]}, actor)


# ------------------------------------------------------------------------------------------------------------- reading


class ProfileReader:
    """Audited reads: a profile is opened only when the audit row of its reader is durable."""

    def __init__(self, batcher: Batcher[AuditRow, ReadProfileRow | None], keyring: Keyring) -> None:
        self._batcher = batcher
        self._keyring = keyring

    async def read(self, user_id: UUID, actor: Actor) -> tuple[Me, int]:
        """The user, opened, and its version. Raises UnknownUser, AccountErased, AuditUnavailable."""
        change = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ)
        row = await self._batcher.read(audit_row(change, actor))
        if row is None:
            raise UnknownUser
        _refuse_erased(row)
        return open_me(row, self._keyring), row.version


async def read_batch(conn: Conn, reads: Sequence[AuditRow]) -> list[ReadProfileRow | None]:
    """One result for each read, None for an unknown user: what the batcher of ProfileReader runs."""
    rows = {row.read_id: row for row in await queries.read_profiles(conn, reads=reads)}
    return [rows.get(read.event_id) for read in reads]


async def get_version(db: Db, user_id: UUID) -> int:
    """The version of a user, opening nothing. Raises UnknownUser and AccountErased."""
    async with db.read() as conn:
        row = await queries.get_version(conn, user_id=user_id)
    if row is None:
        raise UnknownUser
    _refuse_erased(row)
    return row.version


def open_me(row: ProfileRow, keyring: Keyring) -> Me:
    """The user of a row, opened; masked as a whole when one of its fields does not open."""
    try:
        opened = _opened(row, user_keys(keyring, row))
        masked = False
    except OpenFailed as failure:
        log.error("pii_open_failed", user_id=row.id, reason=failure.reason)
        telemetry.metrics.pii_open_failed(failure.reason)
        opened = _masked(row)
        masked = True
    return Me(
        id=row.id,
        status=row.status,
        kyc_status=row.kyc_status,
        kyc_tier=row.kyc_tier,
        created_at=row.created_at,
        updated_at=row.updated_at,
        verified_at=row.verified_at,
        profile=opened,
        pii_masked=masked,
    )


def user_keys(keyring: Keyring, row: ProfileRow) -> UserKeys:
    """The user's wrapped keys, ready to open and seal; nothing is unwrapped before it is needed."""
    return keyring.unlock(row.id, user_key_rows(row))


def user_key_rows(row: ProfileRow) -> list[UserKeyRow]:
    if row.key_classes is None or row.key_versions is None or row.key_epochs is None or row.key_wraps is None:
        return []
    keys = zip(row.key_classes, row.key_versions, row.key_epochs, row.key_wraps, strict=True)
    return [UserKeyRow(row.id, *key) for key in keys]


def _opened(row: ProfileRow, keys: UserKeys) -> Profile:
    address = _open(keys, "address", row.address_enc)
    return Profile(
        first_name=_open(keys, "first_name", row.first_name_enc),
        last_name=_open(keys, "last_name", row.last_name_enc),
        date_of_birth=_open(keys, "date_of_birth", row.date_of_birth_enc),
        pan_number=_open(keys, "pan_number", row.pan_number_enc),
        aadhaar_last4=_open(keys, "aadhaar_last4", row.aadhaar_last4_enc),
        address=None if address is None else msgspec.json.decode(address, type=Address),
        phone=_open(keys, "phone", row.phone_enc),
        email=row.email,
        avatar_url=row.avatar_url,
        updated_at=row.profile_updated_at,
    )


def _open(keys: UserKeys, name: str, sealed: Sealed | None) -> str | None:
    return None if sealed is None else keys.open(PROFILE_FIELDS[name], sealed).reveal()


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


# ------------------------------------------------------------------------------------------------------------ updating


async def update_profile(
    db: Db, keyring: Keyring, user_id: UUID, patch: ProfilePatch, actor: Actor, *, if_match: Sequence[int] | None = None
) -> tuple[Me, int]:
    """Merge `patch` into the profile and return the user as GET shows it, with its version.

    A patch that changes nothing writes only the audit row of its own read. Raises UnknownUser, AccountErased,
    VersionMismatch, AccountNotActive, IdentityLocked, ValidationFailed, PiiUnavailable and KeysUnavailable.
    """
    given = profiles.validated(patch)
    with telemetry.span("user.update_profile"):
        async with db.begin() as tx:
            user = await lock_user(tx, user_id)
            if if_match is not None and user.version not in if_match:
                raise VersionMismatch
            refuse_inactive(user)
            row = await queries.get_profile(tx, user_id=user_id)
            changed = _changed(row, user_keys(keyring, row), given)
            if user.kyc_status in ("pending", "in_review", "approved") and not profiles.IDENTITY_FIELDS.isdisjoint(
                changed
            ):
                raise IdentityLocked
            read = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ)
            row = await _save(tx, keyring, row, changed, actor, read)
        if changed:
            telemetry.metrics.profile_updated()
    return open_me(row, keyring), row.version


def _changed(row: ProfileRow, keys: UserKeys, given: dict[str, object]) -> dict[str, object]:
    """Those of the given members whose value differs from the stored one; the address merged and complete."""
    changed: dict[str, object] = {}
    for name, value in given.items():
        try:
            old = row.avatar_url if name == "avatar_url" else _open(keys, name, getattr(row, f"{name}_enc"))
            readable = True
        except OpenFailed as failure:
            if failure.reason == "keys_unavailable":
                raise KeysUnavailable from failure
            old, readable = None, False
        if name == "address" and value is not None:
            part = cast("dict[str, object]", value)
            if not readable and not profiles.replaces_whole_address(part):
                raise PiiUnavailable
            merged = profiles.merge({} if old is None else _without_nulls(old), part)
            address = profiles.complete_address(cast("dict[str, object]", merged))
            value = msgspec.json.encode(address).decode()
        if not readable or value != old:
            changed[name] = value
    return changed


def _without_nulls(address: str) -> dict[str, object]:
    decoded = msgspec.json.decode(address, type=dict[str, object])
    return {part: value for part, value in decoded.items() if value is not None}


async def _save(
    tx: Conn, keyring: Keyring, row: ProfileRow, changed: dict[str, object], actor: Actor, *also: Change
) -> ProfileRow:
    """Seal and write the changed members with their audit row and event; `also` is recorded with them."""
    if not changed:
        await record(tx, *also, actor=actor)
        return row
    key_rows = await _working_keys(tx, keyring, row, changed)
    keys = keyring.unlock(row.id, key_rows)
    columns: dict[str, object] = {}
    old: dict[str, object] = {}
    new: dict[str, object] = {}
    for name, value in changed.items():
        text = None if value is None else str(value)
        if name in PROFILE_FIELDS:
            field = PROFILE_FIELDS[name]
            # The old ciphertext is copied unopened: a value that cannot be read can still be replaced.
            old[name] = getattr(row, f"{name}_enc")
            new[name] = columns[f"{name}_enc"] = None if text is None else keys.seal(field, text)
            if field.indexed:
                columns[f"{name}_index"] = None if text is None else keyring.blind_index(field, text)
        else:
            field = pii.EMAIL if name == "email" else pii.AVATAR_URL
            before = getattr(row, name)
            old[name] = None if before is None else keys.seal(field, before)
            new[name] = None if text is None else keys.seal(field, text)
            columns[name] = text
    at = now()
    after = replace(
        row,
        **columns,
        updated_at=at,
        profile_updated_at=at,
        version=row.version + 1,
        key_classes=[key.retention_class for key in key_rows],
        key_versions=[key.version for key in key_rows],
        key_epochs=[key.epoch for key in key_rows],
        key_wraps=[key.wrapped for key in key_rows],
    )
    await queries.save_profile(tx, profile=_values(after), version=row.version)
    updated = Change(
        action="profile.updated",
        user_id=row.id,
        resource="user_profiles",
        old=old,
        new=new,
        event=UserUpdated(
            event_id=new_event_id(),
            occurred_at=at,
            user_id=row.id,
            version=after.version,
            changed_fields=sorted(changed),
        ),
    )
    await record(tx, updated, *also, actor=actor)
    return after


async def _working_keys(tx: Conn, keyring: Keyring, row: ProfileRow, changed: Mapping[str, object]) -> list[UserKeyRow]:
    """The user's keys, with a new version for each class among the changed whose own key is lost or broken.

    Without it a user whose key is damaged could not even replace what nobody can read any more.
    """
    rows = user_key_rows(row)
    keys = keyring.unlock(row.id, rows)
    classes: set[pii.RetentionClass] = {PROFILE_FIELDS.get(name, pii.EMAIL).retention for name in changed}
    fresh: list[UserKeyRow] = []
    for retention in sorted(classes):
        if not keys.works(retention):
            # Never 1 again: the first key was that, and may come back from a backup.
            version = max(keys.newest_version(retention), 1) + 1
            fresh += keyring.new_user_keys(row.id, (retention,), version=version)
    if fresh:
        log.error("user_key_replaced", user_id=row.id, count=len(fresh))
        await queries.add_user_keys(tx, keys=fresh)
    return rows + fresh


def _values(row: ProfileRow) -> queries.ProfileValues:
    return queries.ProfileValues(
        user_id=row.id,
        first_name_enc=row.first_name_enc,
        last_name_enc=row.last_name_enc,
        date_of_birth_enc=row.date_of_birth_enc,
        pan_number_enc=row.pan_number_enc,
        aadhaar_last4_enc=row.aadhaar_last4_enc,
        address_enc=row.address_enc,
        phone_enc=row.phone_enc,
        email=row.email,
        avatar_url=row.avatar_url,
        pan_number_index=row.pan_number_index,
        phone_index=row.phone_index,
        updated_at=row.profile_updated_at,
    )


# ------------------------------------------------------------------------------------------------------ status, holds


async def lock_user(tx: Conn, user_id: UUID) -> UserRow:
    """The user, held until the transaction ends. Raises UnknownUser and AccountErased."""
    user = await queries.lock_user(tx, user_id=user_id)
    if user is None:
        raise UnknownUser
    _refuse_erased(user)
    return user


def refuse_inactive(user: UserRow) -> None:
    """Raises AccountNotActive for a frozen, suspended or closed account."""
    if user.status in ("frozen", "suspended", "closed"):
        raise AccountNotActive


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
    """Place a hold and derive the status; true when the account became frozen. A hold placed before changes nothing."""
    user = await queries.lock_user(tx, user_id=hold.user_id)
    if user is None or user.erased_at is not None or not await queries.accept_hold(tx, hold=hold):
        return False
    placed = Change(
        action="hold.placed",
        user_id=user.id,
        resource="account_holds",
        new={"hold_id": str(hold.id), "effect": hold.effect, "source": hold.source, "reason": hold.reason},
    )
    status = derive_status(
        closed_at=user.closed_at,
        open_effects=await queries.list_open_effects(tx, user_id=user.id),
        activated_at=user.activated_at,
    )
    if status == user.status:
        await record(tx, placed, actor=actor)
        return False
    version = await queries.set_status(tx, user_id=user.id, status=status, at=hold.placed_at)
    frozen = UserFrozen(
        event_id=new_event_id(),
        occurred_at=hold.placed_at,
        user_id=user.id,
        version=version,
        reason=hold.reason,
        source=hold.source,
        actor_id=actor.id,
    )
    changed = Change(
        action="status.changed",
        user_id=user.id,
        resource="users",
        old={"status": user.status},
        new={"status": status},
        event=frozen if status == "frozen" else None,
    )
    await record(tx, placed, changed, actor=actor)
    return status == "frozen"


def _refuse_erased(row: ProfileRow | UserRow | queries.VersionRow) -> None:
    if row.erased_at is not None:
        raise AccountErased


# --------------------------------------------------------------------------------------------------------- auth events


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
    row = await queries.get_profile(tx, user_id=event.auth_id)
    if row.erased_at is not None:
        return False
    note = user_keys(keyring, row).seal(pii.HOLD_NOTE, event.reason) if event.reason else None
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
