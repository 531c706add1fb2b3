"""Verbs of profiles: read with audit, update. Transactions begin and end here."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast
from uuid import UUID

import msgspec
from msgspec.structs import replace

from usercore import telemetry
from usercore.batcher import Batcher, Connect, Observe
from usercore.db import Conn, Db
from usercore.errors import IdentityLocked, KeysUnavailable, OpenFailed, PiiUnavailable, VersionMismatch
from usercore.events import UserUpdated, new_event_id, now
from usercore.outbox import Actor, AuditRow, Change, audit_row, audit_text, counted, record, records_of
from usercore.pii import classification as pii
from usercore.pii.keyring import FIRST_CLASSES, Keyring, UserKeys
from usercore.pii.queries import add_user_keys
from usercore.pii.user_keys import key_rows
from usercore.pii.wraps import UserKeyRow
from usercore.profiles import profile as profiles
from usercore.profiles import queries
from usercore.profiles.profile import Address, Me, Profile, ProfilePatch
from usercore.profiles.queries import ProfileRow, ReadProfileRow
from usercore.users.actions import UnknownUser, lock_user, refuse_erased, refuse_inactive

__all__ = [
    "MEMBERS",
    "READ_MASKED",
    "Address",
    "Me",
    "Profile",
    "ProfileReader",
    "fill_emails",
    "fill_verified",
    "keys_of",
    "list_empty",
    "mask",
    "open_kept",
    "open_me",
    "open_profile",
    "update_profile",
]

log = telemetry.logger(__name__)

_SHOWN = [*profiles.FIELDS, "email", "avatar_url"]
READ = audit_text({"fields": _SHOWN})
READ_MASKED = audit_text({"fields": _SHOWN, "masked": True})
MEMBERS = profiles.MEMBERS
"""What of a profile can be revealed."""
mask = profiles.mask


class ProfileReader:
    """Audited reads: a profile is opened only when the audit row of its reader is durable."""

    def __init__(self, connect: Connect, keyring: Keyring, observe: Observe = telemetry.metrics.audit_write) -> None:
        self._keyring = keyring
        self._batcher = Batcher(connect, prepare=_audit_row, run=_read, finish=self._open, observe=observe)

    async def read(self, user_id: UUID, actor: Actor, read: str = READ) -> tuple[Me, int]:
        """The user, opened, and its version; `read` is what the trail says of it.

        Raises UnknownUser, AccountErased, AuditUnavailable.
        """
        return await self._batcher.read((user_id, actor, read))

    async def close(self) -> None:
        """Answer who waits, and refuse everybody else."""
        await self._batcher.close()

    def _open(self, row: ReadProfileRow | None) -> tuple[Me, int]:
        if row is None:
            raise UnknownUser
        refuse_erased(row)
        return profiles.open_me(row, self._keyring), row.version


def _audit_row(read: tuple[UUID, Actor, str]) -> AuditRow:
    user_id, actor, new = read
    return audit_row(Change(action="profile.read", user_id=user_id, resource="user_profiles", new=new), actor)


async def _read(conn: Conn, reads: Sequence[AuditRow]) -> list[ReadProfileRow | None]:
    """One result for each read, None for an unknown user."""
    rows = {row.read_id: row for row in await queries.read_profiles(conn, reads=reads)}
    return [rows.get(read.event_id) for read in reads]


async def update_profile(
    db: Db, keyring: Keyring, user_id: UUID, patch: ProfilePatch, actor: Actor, *, if_match: Sequence[int] | None = None
) -> tuple[Me, int]:
    """Merge `patch` into the profile and return the user as GET shows it, with its version.

    A patch that changes nothing writes only the audit row of its own read. Raises UnknownUser, AccountErased,
    VersionMismatch, AccountNotActive, IdentityLocked, ValidationFailed, PiiUnavailable and KeysUnavailable.
    """
    given = profiles.validated(patch)

    async def attempt(conn: Conn, *, held: bool) -> tuple[ProfileRow, bool] | None:
        row = await _get_profile(conn, user_id)
        if if_match is not None and row.version not in if_match:
            raise VersionMismatch
        refuse_inactive(row.status)
        changed = _changed(row, profiles.keys_of_row(keyring, row), given)
        if row.kyc_status in ("pending", "in_review", "approved") and not profiles.IDENTITY_FIELDS.isdisjoint(changed):
            raise IdentityLocked
        read = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ)
        if not changed:
            await record(conn, read, actor=actor)
            return row, False
        saved = await _save(conn, keyring, row, changed, actor, read, held=held)
        return None if saved is None else (saved, True)

    with telemetry.span("user.update_profile"):
        # Two round trips: the change is one statement, which does nothing when the row is not what it was.
        async with db.read() as conn:
            done = await attempt(conn, held=False)
        if done is None:
            async with db.begin() as tx:
                await lock_user(tx, user_id)
                done = await attempt(tx, held=True)
        if done is None:
            raise RuntimeError("a user who was locked has changed")
        row, changed = done
        if changed:
            telemetry.metrics.profile_updated()
    return profiles.open_me(row, keyring), row.version


async def _get_profile(conn: Conn, user_id: UUID) -> ProfileRow:
    """Raises UnknownUser and AccountErased."""
    row = await queries.get_profile(conn, user_id=user_id)
    if row is None:
        raise UnknownUser
    refuse_erased(row)
    return row


def _changed(row: ProfileRow, keys: UserKeys, given: dict[str, object]) -> dict[str, object]:
    """Those of the given members whose value differs from the stored one; the address merged and complete."""
    changed: dict[str, object] = {}
    for name, value in given.items():
        try:
            old = (
                row.avatar_url if name == "avatar_url" else profiles.open_field(keys, name, getattr(row, f"{name}_enc"))
            )
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


async def fill_emails(tx: Conn, keyring: Keyring, emails: dict[UUID, str], actor: Actor) -> None:
    """Give users that were created without an address (by a token or a deactivation) the one that Auth knows."""
    for user_id in await queries.list_without_email(tx, user_ids=sorted(emails)):
        await lock_user(tx, user_id)
        row = await _get_profile(tx, user_id)
        if row.email is None:
            await _save(tx, keyring, row, {"email": emails[user_id]}, actor, held=True)


async def _save(
    conn: Conn, keyring: Keyring, row: ProfileRow, changed: dict[str, object], actor: Actor, *also: Change, held: bool
) -> ProfileRow | None:
    """Seal and write the changed members with their audit row and event; `also` is recorded with them.

    None when somebody else was faster, or when a key has to be replaced first, for which the user has to be `held`:
    locked by the transaction of `conn`.
    """
    rows = key_rows(row.id, row)
    if broken := _broken(keyring, row, {profiles.FIELDS.get(name, pii.EMAIL).retention for name in changed}):
        if not held:
            return None
        rows += await _replace_keys(conn, keyring, row, broken)
    keys = keyring.unlock(row.id, rows)
    columns: dict[str, object] = {}
    old: dict[str, object] = {}
    new: dict[str, object] = {}
    for name, value in changed.items():
        text = None if value is None else str(value)
        if name in profiles.FIELDS:
            field = profiles.FIELDS[name]
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
        key_classes=[key.retention_class for key in rows],
        key_versions=[key.version for key in rows],
        key_epochs=[key.epoch for key in rows],
        key_wraps=[key.wrapped for key in rows],
    )
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
    records = records_of([updated, *also], actor)
    with counted(len(records.audit)) as written:
        version = await queries.save_profile(
            conn, profile=profiles.values(after), version=row.version, audit=records.audit, events=records.events
        )
        written.nothing = version is None
    return None if version is None else after


def _broken(keyring: Keyring, row: ProfileRow, classes: Collection[pii.RetentionClass]) -> list[pii.RetentionClass]:
    """Those of the classes whose newest key is lost or does not open. Raises KeysUnavailable when nobody can tell."""
    keys = profiles.keys_of_row(keyring, row)
    return [retention for retention in sorted(classes) if not keys.works(retention)]


async def _replace_keys(
    tx: Conn, keyring: Keyring, row: ProfileRow, broken: Sequence[pii.RetentionClass]
) -> list[UserKeyRow]:
    """A new version of each of these keys, or the first one of a class that a user does not begin with.

    Without it a user whose key is damaged could not even replace what nobody can read any more.
    """
    keys = profiles.keys_of_row(keyring, row)
    fresh: list[UserKeyRow] = []
    for retention in broken:
        newest = keys.newest_version(retention)
        if newest == 0 and retention not in FIRST_CLASSES:
            version = 1
        else:
            # Never 1 again: the first key was that, and may come back from a backup.
            version = max(newest, 1) + 1
            log.error("user_key_replaced", user_id=row.id, retention_class=retention)
        fresh += keyring.new_user_keys(row.id, (retention,), version=version)
    await add_user_keys(tx, keys=fresh)
    return fresh


async def keys_of(tx: Conn, keyring: Keyring, user_id: UUID, retention: pii.RetentionClass) -> UserKeys:
    """The keys of one user, for other domains that seal something of this class; whoever calls has locked the user."""
    row = await _get_profile(tx, user_id)
    rows = key_rows(row.id, row)
    if broken := _broken(keyring, row, [retention]):
        rows += await _replace_keys(tx, keyring, row, broken)
    return keyring.unlock(user_id, rows)


async def open_profile(conn: Conn, keyring: Keyring, user_id: UUID) -> Profile:
    """A profile in clear, for verbs that compare it or hand it on; they record that they do.

    Raises UnknownUser, AccountErased and OpenFailed.
    """
    row = await _get_profile(conn, user_id)
    return profiles.opened(row, profiles.keys_of_row(keyring, row))


async def fill_verified(tx: Conn, keyring: Keyring, user_id: UUID, verified: Mapping[str, str], actor: Actor) -> None:
    """Write verified values into fields that are still empty; whoever calls has locked the user."""
    row = await _get_profile(tx, user_id)
    empty = {name: value for name, value in verified.items() if getattr(row, f"{name}_enc") is None}
    if empty:
        await _save(tx, keyring, row, {**empty}, actor, held=True)


async def list_empty(tx: Conn, user_id: UUID, names: Sequence[str]) -> list[str]:
    """Those of the sealed members that are empty; opens nothing. Raises UnknownUser and AccountErased."""
    row = await _get_profile(tx, user_id)
    return [name for name in names if getattr(row, f"{name}_enc") is None]


async def open_me(conn: Conn, keyring: Keyring, user_id: UUID) -> Me:
    """A user in clear, for verbs that show some of it; they record that they do. Raises UnknownUser, AccountErased."""
    return profiles.open_me(await _get_profile(conn, user_id), keyring)


async def open_kept(conn: Conn, keyring: Keyring, user_id: UUID) -> Me:
    """What the law keeps of an erased person, in clear, for a legal request. Raises UnknownUser."""
    row = await queries.get_profile(conn, user_id=user_id)
    if row is None:
        raise UnknownUser
    return profiles.open_me(row, keyring, by_law=row.erased_at is not None)
