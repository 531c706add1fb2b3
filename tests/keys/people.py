"""Users with sealed fields, and what of them has to open and be found whatever is done to the keys."""

from collections.abc import Sequence
from typing import cast
from uuid import UUID, uuid4

import msgspec

from usercore.db import Conn, Db
from usercore.lookup.actions import Search, search
from usercore.outbox import SYSTEM, Actor
from usercore.pii.keyring import Keyring
from usercore.pii.wraps import UserKeyRow
from usercore.profiles.actions import ProfileWriter, open_profile
from usercore.profiles.profile import ProfilePatch
from usercore.users.actions import create_user

ADMIN = Actor(kind="admin", id=uuid4(), client="tests", scope="admin")


def pan(number: int) -> str:
    return f"ABCPK{number:04d}F"


def first_name(number: int) -> str:
    return "Asha " + "".join(chr(ord("a") + int(digit)) for digit in str(number))


def phone(number: int) -> str:
    return f"+91987654{number:04d}"


async def a_person(db: Db, keyring: Keyring, number: int) -> UUID:
    user_id = uuid4()
    await create_user(db, keyring, user_id, None, SYSTEM)
    await patched(db, keyring, user_id, first_name=first_name(number), pan_number=pan(number), phone=phone(number))
    return user_id


async def people(db: Db, keyring: Keyring, count: int) -> list[UUID]:
    return [await a_person(db, keyring, number) for number in range(count)]


async def patched(db: Db, keyring: Keyring, user_id: UUID, **members: str) -> None:
    patch = msgspec.convert(members, ProfilePatch)
    writer = ProfileWriter(db, keyring)
    await writer.update(user_id, patch, Actor(kind="user", id=user_id))
    await writer.close()


async def unreadable(db: Db, keyring: Keyring, users: Sequence[UUID]) -> list[UUID]:
    """Those whose PAN, phone and name do not open to what `a_person` wrote."""
    found: list[UUID] = []
    for number, user_id in enumerate(users):
        async with db.begin() as tx:
            try:
                profile = await open_profile(tx, keyring, user_id)
            except Exception:
                found.append(user_id)
                continue
        if (profile.pan_number, profile.phone, profile.first_name) != (pan(number), phone(number), first_name(number)):
            found.append(user_id)
    return found


async def lost_hits(db: Db, keyring: Keyring, users: Sequence[UUID]) -> list[UUID]:
    """Those that a search by PAN or by phone does not find."""
    found: list[UUID] = []
    for number, user_id in enumerate(users):
        for asked in (Search(pan_number=pan(number)), Search(phone=phone(number))):
            page = await search(db, keyring, asked, ADMIN)
            if [each.id for each in page.items] != [user_id]:
                found.append(user_id)
    return found


async def wraps(owner: Conn) -> list[UserKeyRow]:
    rows = await owner.fetch("select user_id, retention_class, version, epoch, wrapped from user_keys order by 1, 2, 3")
    return [UserKeyRow(*row) for row in rows]


async def long_ago(owner: Conn) -> None:
    """Rotations and passes that were just now were an hour ago."""
    await owner.execute(
        "update pii_keyring set state_since = state_since - interval '1 hour', "
        "unused_since = unused_since - interval '1 hour'"
    )


async def count(owner: Conn, statement: str, *arguments: object) -> int:
    return cast("int", await owner.fetchval(statement, *arguments))
