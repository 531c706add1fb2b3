"""Verbs of profiles: read with audit, update. Transactions begin and end here."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, cast
from uuid import UUID

import msgspec
from msgspec.structs import replace

from usercore import telemetry
from usercore.batcher import Batcher, Connect, Observe
from usercore.db import Conn, Db, is_away
from usercore.errors import (
    AuditUnavailable,
    DatabaseUnavailable,
    IdentityLocked,
    KeysUnavailable,
    OpenFailed,
    PiiUnavailable,
    VersionMismatch,
)
from usercore.events import UserUpdated, new_event_id, now
from usercore.outbox import Actor, AuditRow, Change, audit_row, audit_text, record, records_of
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring, UserKeys
from usercore.pii.user_keys import key_rows, replace_keys
from usercore.profiles import profile as profiles
from usercore.profiles import queries
from usercore.profiles.profile import Me, Profile, ProfilePatch
from usercore.profiles.queries import ProfileRow, ReadProfileRow, Saving
from usercore.users.actions import UnknownUser, lock_user, refuse_erased, refuse_inactive

T = TypeVar("T")

_SHOWN = [*profiles.FIELDS, "email", "avatar_url"]
READ = audit_text({"fields": _SHOWN})
READ_MASKED = audit_text({"fields": _SHOWN, "masked": True})
MEMBERS = profiles.MEMBERS
"""What of a profile can be revealed."""
Address, mask = profiles.Address, profiles.mask


class ProfileReader:
    """Audited reads. A profile is opened only when the audit row of its reader is durable."""

    def __init__(self, connect: Connect, keyring: Keyring, observe: Observe = telemetry.metrics.audit_write) -> None:
        self._keyring = keyring
        self._batcher = Batcher(
            connect,
            prepare=_audit_row,
            run=queries.read_each,
            finish=self._open,
            observe=observe,
            refusal=lambda _: AuditUnavailable(),
        )

    async def read(self, user_id: UUID, actor: Actor, read: str = READ) -> tuple[Me, int]:
        """The user, opened, and its version; `read` is what the trail says of it.

        Raises UnknownUser, AccountErased, AuditUnavailable.
        """
        return await self._batcher.read((user_id, actor, read))

    async def close(self) -> None:
        """Answer who waits, and refuse everybody else."""
        await self._batcher.close()

    def _open(self, found: ReadProfileRow | None) -> tuple[Me, int]:
        row = _known(found)
        return profiles.open_me(row, self._keyring), row.version


def _audit_row(read: tuple[UUID, Actor, str]) -> AuditRow:
    user_id, actor, new = read
    return audit_row(Change(action="profile.read", user_id=user_id, resource="user_profiles", new=new), actor)


class ProfileWriter:
    """Changes. Those that come together share their first look at the users, and the statement that saves them."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring
        self._rows: Batcher[UUID, UUID, ProfileRow | None, ProfileRow] = Batcher(
            db.dedicated, prepare=_same, run=queries.list_each, finish=_known, refusal=_refusal
        )
        self._savings: Batcher[Saving, Saving, bool, bool] = Batcher(
            db.dedicated, prepare=_same, run=queries.save_each, finish=_same, refusal=_refusal, repeats=False
        )

    async def update(
        self, user_id: UUID, patch: ProfilePatch, actor: Actor, *, if_match: Sequence[int] | None = None
    ) -> tuple[Me, int]:
        """Merge `patch` into the profile and return the user as GET shows it, with its version.

        A patch that changes nothing writes only the audit row of its own read. Raises UnknownUser, AccountErased,
        VersionMismatch, AccountNotActive, IdentityLocked, ValidationFailed, PiiUnavailable, KeysUnavailable and
        DatabaseUnavailable.
        """
        given, keyring = profiles.validated(patch), self._keyring
        read = Change(action="profile.read", user_id=user_id, resource="user_profiles", new=READ)

        def changed(row: ProfileRow, keys: UserKeys) -> dict[str, object]:
            if if_match is not None and row.version not in if_match:
                raise VersionMismatch
            refuse_inactive(row.status)
            found = _changed(row, keys, given)
            locked = row.kyc_status in ("pending", "in_review", "approved")
            if locked and not profiles.IDENTITY_FIELDS.isdisjoint(found):
                raise IdentityLocked
            return found

        with telemetry.span("user.update_profile"):
            row = await self._rows.read(user_id)
            keys = profiles.keys_of_row(keyring, row)
            changes = changed(row, keys)
            if not changes:
                async with self._db.read() as conn:
                    await record(conn, read, actor=actor)
            elif not keys.broken(_classes(changes)) and await self._savings.read(
                saving := _saving(keyring, row, keys, changes, actor, read)
            ):
                row = saving.after
            else:  # somebody was faster or holds the user just now, or a key has to be replaced first
                async with self._db.begin() as tx:
                    await lock_user(tx, user_id)
                    row = await _get_profile(tx, user_id)
                    changes = changed(row, profiles.keys_of_row(keyring, row))
                    if changes:
                        row = await _save(tx, keyring, row, changes, actor, read)
                    else:
                        await record(tx, read, actor=actor)
            if changes:
                telemetry.metrics.profile_updated()
        return profiles.open_me(row, keyring), row.version

    async def close(self) -> None:
        """As ProfileReader's."""
        await self._rows.close()
        await self._savings.close()


def _same(value: T) -> T:
    return value


def _refusal(error: Exception | None) -> Exception:
    return DatabaseUnavailable() if error is None or is_away(error) else error


async def _get_profile(conn: Conn, user_id: UUID) -> ProfileRow:
    """Raises UnknownUser and AccountErased."""
    return _known(await queries.get_profile(conn, user_id=user_id))


def _known(row: ProfileRow | None) -> ProfileRow:
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
            merged = profiles.merge({} if old is None else profiles.stored_address(old), part)
            address = profiles.complete_address(cast("dict[str, object]", merged))
            value = msgspec.json.encode(address).decode()
        if not readable or value != old:
            changed[name] = value
    return changed


async def fill_emails(tx: Conn, keyring: Keyring, emails: dict[UUID, str], actor: Actor) -> None:
    """Give users that were created without an address (by a token or a deactivation) the one that Auth knows."""
    for user_id in await queries.list_without_email(tx, user_ids=sorted(emails)):
        await lock_user(tx, user_id)
        row = await _get_profile(tx, user_id)
        if row.email is None:
            await _save(tx, keyring, row, {"email": emails[user_id]}, actor)


async def _save(
    tx: Conn, keyring: Keyring, row: ProfileRow, changed: dict[str, object], actor: Actor, *also: Change
) -> ProfileRow:
    """Seal and write the changed members of a user whom `tx` has locked; `also` is recorded with the change."""
    keys = profiles.keys_of_row(keyring, row)
    if broken := keys.broken(_classes(changed)):
        rows = [*key_rows(row.id, row), *await replace_keys(tx, keyring, keys, broken)]
        keys = keyring.unlock(row.id, rows)
        row = replace(
            row,
            key_classes=[key.retention_class for key in rows],
            key_versions=[key.version for key in rows],
            key_epochs=[key.epoch for key in rows],
            key_wraps=[key.wrapped for key in rows],
        )
    saving = _saving(keyring, row, keys, changed, actor, *also)
    if await queries.save_each(tx, [saving]) != [True]:
        raise RuntimeError("a user who was locked has changed")
    return saving.after


def _classes(changed: Collection[str]) -> set[pii.RetentionClass]:
    return {profiles.FIELDS.get(name, pii.EMAIL).retention for name in changed}


def _saving(
    keyring: Keyring,
    row: ProfileRow,
    keys: UserKeys,
    changed: Mapping[str, object],
    actor: Actor,
    *also: Change,
) -> Saving:
    """The changed members sealed under the row's `keys`, and the records of it and of `also`."""
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
    after = replace(row, **columns, updated_at=at, profile_updated_at=at, version=row.version + 1)
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
    return Saving(after, records_of([updated, *also], actor))


async def keys_of(tx: Conn, keyring: Keyring, user_id: UUID, retention: pii.RetentionClass) -> UserKeys:
    """The keys of one user, for other domains that seal something of this class; whoever calls has locked the user."""
    row = await _get_profile(tx, user_id)
    keys = profiles.keys_of_row(keyring, row)
    if broken := keys.broken([retention]):
        fresh = await replace_keys(tx, keyring, keys, broken)
        keys = keyring.unlock(user_id, [*key_rows(user_id, row), *fresh])
    return keys


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
        await _save(tx, keyring, row, {**empty}, actor)


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
