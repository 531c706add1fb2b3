"""Verbs of notification preferences: read, replace. Transactions begin and end here."""

from uuid import UUID

from msgspec.structs import asdict

from usercore.db import Db
from usercore.events import now
from usercore.outbox import Actor, Change, record
from usercore.prefs import queries
from usercore.prefs.queries import Prefs, StoredPrefs
from usercore.users.actions import get_version, lock_user, refuse_inactive


async def get_prefs(db: Db, user_id: UUID) -> StoredPrefs:
    """The user's preferences. Raises UnknownUser and AccountErased."""
    await get_version(db, user_id)
    async with db.read() as conn:
        return await queries.get_prefs(conn, user_id=user_id)


async def replace_prefs(db: Db, user_id: UUID, prefs: Prefs, actor: Actor) -> StoredPrefs:
    """Replace the user's preferences; the same ones again change and record nothing.

    Raises UnknownUser, AccountErased and AccountNotActive: a frozen account's alerts cannot be turned off.
    """
    async with db.begin() as tx:
        refuse_inactive((await lock_user(tx, user_id)).status)
        before = await queries.get_prefs(tx, user_id=user_id)
        wanted = asdict(prefs)
        changed = {name: value for name, value in wanted.items() if value != getattr(before, name)}
        if not changed:
            return before
        at = now()
        await queries.save_prefs(tx, user_id=user_id, prefs=prefs, at=at)
        change = Change(
            action="prefs.updated",
            user_id=user_id,
            resource="notification_prefs",
            old={name: getattr(before, name) for name in changed},
            new=changed,
        )
        await record(tx, change, actor=actor)
    return StoredPrefs(**wanted, updated_at=at)
