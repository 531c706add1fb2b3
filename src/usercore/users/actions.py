"""Verbs of users: create, lock, look at the version. Transactions begin and end here."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from usercore import telemetry
from usercore.db import Conn, Db
from usercore.errors import AccountErased, AccountNotActive, UsercoreError
from usercore.events import UserCreated, UserStatus, new_event_id, now
from usercore.outbox import Actor, AuditRow, Change, audit_row, outbox_row
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring
from usercore.pii.wraps import UserKeyRow
from usercore.users import queries
from usercore.users.queries import NewUser, UserRow

__all__ = [
    "UnknownUser",
    "UserRow",
    "add_users",
    "create_user",
    "get_version",
    "lock_user",
    "refuse_erased",
    "refuse_inactive",
    "valid_email",
]


class Erasable(Protocol):
    @property
    def erased_at(self) -> datetime | None: ...


_EMAIL = re.compile(r"[^\s@\x00-\x1f]{1,64}@[^\s@\x00-\x1f]{1,255}")


class UnknownUser(UsercoreError):
    """No user has this id: a first call, or a stranger."""


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
            created = await add_users(tx, keyring, [(user_id, valid_email(email))], actor)
        telemetry.metrics.user_created(len(created))


def valid_email(text: str | None) -> str | None:
    """An address that can be stored, or None. Auth has verified it; this keeps out what is none at all."""
    return text if text is not None and len(text) <= 320 and _EMAIL.fullmatch(text) else None


async def get_version(db: Db, user_id: UUID) -> int:
    """The version of a user, opening nothing. Raises UnknownUser and AccountErased."""
    async with db.read() as conn:
        row = await queries.get_version(conn, user_id=user_id)
    if row is None:
        raise UnknownUser
    refuse_erased(row)
    return row.version


async def lock_user(tx: Conn, user_id: UUID, *, by_law: bool = False) -> UserRow:
    """The user, held until the transaction ends. Raises UnknownUser and, unless `by_law`, AccountErased."""
    user = await queries.lock_user(tx, user_id=user_id)
    if user is None:
        raise UnknownUser
    if not by_law:
        refuse_erased(user)
    return user


def refuse_inactive(status: UserStatus) -> None:
    """Raises AccountNotActive for a frozen, suspended or closed account."""
    if status in ("frozen", "suspended", "closed"):
        raise AccountNotActive


def refuse_erased(user: Erasable) -> None:
    """Raises AccountErased for the tombstone of an erased user."""
    if user.erased_at is not None:
        raise AccountErased
