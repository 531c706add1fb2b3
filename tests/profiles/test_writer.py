"""Changes that come together share statements: what each of them gets when others fail, wait or are lost."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.proxy import Proxy
from tests.waiting import eventually
from usercore.db import Conn, Db
from usercore.errors import DatabaseUnavailable, VersionMismatch
from usercore.outbox import SYSTEM, Actor
from usercore.pii.keyring import Keyring
from usercore.profiles import queries
from usercore.profiles.actions import ProfileWriter
from usercore.profiles.profile import ProfilePatch
from usercore.users.actions import add_users

WRITERS = 40


@pytest_asyncio.fixture
async def users(db: Db, keyring: Keyring) -> list[UUID]:
    ids = sorted(uuid4() for _ in range(WRITERS))
    async with db.begin() as tx:
        await add_users(tx, keyring, [(user_id, f"{user_id}@example.in") for user_id in ids], SYSTEM)
    return ids


@pytest_asyncio.fixture
async def writer(db: Db, keyring: Keyring) -> AsyncGenerator[ProfileWriter]:
    writer = ProfileWriter(db, keyring)
    yield writer
    await writer.close()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes each statement took."""
    found: list[int] = []
    save = queries.save_profiles

    async def counting(conn: Conn, *, profiles: Sequence[queries.ProfileValues], **records: Any) -> list[UUID]:
        found.append(len(profiles))
        return await save(conn, profiles=profiles, **records)

    monkeypatch.setattr(queries, "save_profiles", counting)
    return found


def actor(user_id: UUID) -> Actor:
    return Actor(kind="user", id=user_id)


def name(number: int) -> str:
    return f"Asha{chr(97 + number // 26)}{chr(97 + number % 26)}"


async def left_behind(owner: Conn) -> dict[UUID, tuple[int, int, int]]:
    """Of each user how many audit rows of changes, of reads, and events of changes there are."""
    rows = await owner.fetch(
        "select u.id, "
        "(select count(*) from user_audit a where a.user_id = u.id and a.action = 'profile.updated') as changes, "
        "(select count(*) from user_audit a where a.user_id = u.id and a.action = 'profile.read') as reads, "
        "(select count(*) from outbox o where o.user_id = u.id and o.topic = 'user.updated.v1') as events from users u"
    )
    return {row["id"]: (row["changes"], row["reads"], row["events"]) for row in rows}


async def test_each_writer_gets_its_own_change_and_they_share_statements(
    writer: ProfileWriter, users: list[UUID], owner: Conn, sizes: list[int]
) -> None:
    async def one(number: int) -> None:
        user_id = users[number]
        me, version = await writer.update(user_id, ProfilePatch(first_name=name(number)), actor(user_id))
        assert (me.id, me.profile.first_name, me.profile.email, version) == (
            user_id,
            name(number),
            f"{user_id}@example.in",
            2,
        )

    await asyncio.gather(*map(one, range(WRITERS)))
    assert await left_behind(owner) == dict.fromkeys(users, (1, 1, 1))
    assert sum(sizes) == WRITERS
    assert len(sizes) < WRITERS / 2


async def test_changes_of_one_user_that_come_together_are_all_made_one_after_the_other(
    writer: ProfileWriter, users: list[UUID], owner: Conn
) -> None:
    user_id, *_ = users
    patches = [
        ProfilePatch(first_name="Asha"),
        ProfilePatch(last_name="Rao"),
        ProfilePatch(phone="+919876543210"),
        ProfilePatch(avatar_url="https://cdn.example.in/a.png"),
    ]
    answers = await asyncio.gather(*(writer.update(user_id, patch, actor(user_id)) for patch in patches))
    assert sorted(version for _, version in answers) == [2, 3, 4, 5]
    (last,) = [me.profile for me, version in answers if version == 5]
    assert (last.first_name, last.last_name, last.phone, last.avatar_url) == (
        "Asha",
        "Rao",
        "+919876543210",
        "https://cdn.example.in/a.png",
    )
    assert (await left_behind(owner))[user_id] == (4, 4, 4)
    events = await owner.fetch("select payload::json ->> 'version' from outbox where user_id = $1 order by id", user_id)
    assert [version for (version,) in events][-4:] == ["2", "3", "4", "5"]


async def test_of_two_that_expect_one_version_one_is_refused(
    writer: ProfileWriter, users: list[UUID], owner: Conn
) -> None:
    user_id, *_ = users
    answers = await asyncio.gather(
        *(writer.update(user_id, ProfilePatch(first_name=name(n)), actor(user_id), if_match=[1]) for n in range(6)),
        return_exceptions=True,
    )
    assert sorted(type(answer) is tuple for answer in answers) == [False] * 5 + [True]
    assert sum(isinstance(answer, VersionMismatch) for answer in answers) == 5
    assert (await left_behind(owner))[user_id] == (1, 1, 1)


async def test_a_user_that_somebody_holds_delays_nobody_else(
    writer: ProfileWriter, users: list[UUID], owner: Conn
) -> None:
    held, *others = users
    async with owner.transaction():
        await owner.execute("select from users where id = $1 for update", held)
        waiting = asyncio.create_task(writer.update(held, ProfilePatch(first_name="Asha"), actor(held)))
        await asyncio.gather(*(writer.update(each, ProfilePatch(first_name="Asha"), actor(each)) for each in others))
        assert not waiting.done()
    me, version = await waiting
    assert (me.profile.first_name, version) == ("Asha", 2)
    assert await left_behind(owner) == dict.fromkeys(users, (1, 1, 1))


async def test_one_writers_bad_value_costs_only_that_writer(
    writer: ProfileWriter, users: list[UUID], owner: Conn
) -> None:
    bad, *others = users
    said = Actor(kind="user", id=bad, request_id="nul\0byte")  # PostgreSQL text holds no NUL
    refused, *answers = await asyncio.gather(
        writer.update(bad, ProfilePatch(first_name="Asha"), said),
        *(writer.update(each, ProfilePatch(first_name="Asha"), actor(each)) for each in others),
        return_exceptions=True,
    )
    assert isinstance(refused, asyncpg.DataError), "500: it is our bug, and no outage"
    assert not any(isinstance(answer, BaseException) for answer in answers)
    assert await left_behind(owner) == {bad: (0, 0, 0), **dict.fromkeys(others, (1, 1, 1))}


async def test_a_change_whose_answer_is_lost_is_not_made_twice(
    proxied: tuple[Proxy, Db], keyring: Keyring, users: list[UUID], owner: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, db = proxied
    writer = ProfileWriter(db, keyring)
    user_id, *_ = users
    save = queries.save_profiles

    async def lost(conn: Conn, **given: Any) -> list[UUID]:
        proxy.lose_answer = True
        return await save(conn, **given)

    await writer.update(user_id, ProfilePatch(first_name="Asha"), actor(user_id))  # the statement is prepared now
    monkeypatch.setattr(queries, "save_profiles", lost)
    with pytest.raises(DatabaseUnavailable):
        await writer.update(user_id, ProfilePatch(first_name="Meera"), actor(user_id))
    monkeypatch.undo()

    async def committed() -> bool:
        return (await left_behind(owner))[user_id] == (2, 2, 2)

    await eventually(committed)
    me, version = await writer.update(user_id, ProfilePatch(first_name="Meera"), actor(user_id))
    assert (me.profile.first_name, version) == ("Meera", 3), "asked again, there is nothing left to change"
    assert (await left_behind(owner))[user_id] == (2, 3, 2)
    await writer.close()
