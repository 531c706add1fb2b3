"""A thousand people erased among two thousand: nothing of them anywhere, nobody else touched, also after a restore."""

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg

from tests.backups import dump, restore
from tests.canary import Canary, Place, Searcher, summary
from tests.databases import DatabaseUrls
from tests.journey_kyc import stored_places
from tests.keys.people import first_name, lost_hits, pan, patched, phone, unreadable
from tests.service import Client, Person
from tests.stores import clickhouse_places, is_archived, is_published, kafka_places, postgres_places, redis_places
from tests.waiting import eventually
from usercore import app, worker
from usercore.clickhouse import ClickHouse
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.redis import Redis
from usercore.erased.actions import Certificate, Erasing, get_certificate
from usercore.erasure.actions import Erase, erase, replay
from usercore.outbox import SYSTEM
from usercore.settings import load
from usercore.signatures import public_keys, verify
from usercore.trail.actions import seal
from usercore.trail.actions import verify as verify_trail
from usercore.users.actions import create_user
from usercore.worker import Parts

PEOPLE = 2000
AT_ONCE = 20
LOOKED_FOR = 50
"""So many of them to one whose values are looked for in every form; those of all are, as they are."""
READERS = 40
VALUE = re.compile(rb"zyx(\d{4})@example\.in|abcpk(\d{4})f|987654(\d{4})", re.IGNORECASE)
EVERYBODY = set(range(PEOPLE))
GONE = set(range(0, PEOPLE, 2))


def email(number: int) -> str:
    return f"zyx{number:04d}@example.in"


async def a_person(work: Erasing, number: int) -> UUID:
    db, keyring, user_id = work.kyc.db, work.kyc.keyring, uuid4()
    await create_user(db, keyring, user_id, email(number), SYSTEM)
    await patched(db, keyring, user_id, first_name=first_name(number), pan_number=pan(number), phone=phone(number))
    return user_id


def named(places: Sequence[Place]) -> set[int]:
    """Whose values stand there, as they are."""
    found: set[int] = set()
    for place in places:
        found |= {int(one or two or three) for one, two, three in VALUE.findall(place.data)}
    return found


def searched(places: Sequence[Place], numbers: set[int]) -> set[str]:
    """Where one of their values stands in any form."""
    searcher = Searcher(
        Canary(f"{what} {one}", value)
        for one in sorted(numbers)
        for what, value in (("email", email(one)), ("PAN", pan(one)), ("phone", phone(one)[3:]))
    )
    found = searcher.search(places)
    print(summary(searcher, places, found))
    return {finding.place for finding in found}


async def sound(work: Erasing, parts: Parts, users: Sequence[UUID]) -> None:
    """The trail and the certificates of those who are gone verify; everybody else opens and is found."""
    db, keyring = parts.db, parts.keyring
    found = await verify_trail(db, keyring)
    assert (found.finding, found.unsealed) == (None, 0)
    gone = users[::2]
    assert await unreadable(db, keyring, users) == gone
    assert await lost_hits(db, keyring, users[:40]) == [each for each in gone[:20] for _ in range(2)]
    keys = public_keys(keyring)
    for user_id in gone:
        signed = await get_certificate(work, user_id)
        assert signed is not None
        assert verify(signed.jws, "erasure-certificate", keys, Certificate) == signed.certificate
    async with db.read() as conn:
        assert await conn.fetchval("select count(*) from user_keys where user_id = any($1)", gone) == 0


async def test_a_thousand_among_two_thousand(
    mock_kafka: Kafka,
    own_redis: Redis,
    archive: ClickHouse,
    work: Erasing,
    parts: Parts,
    client: Client,
    environ: dict[str, str],
    owner: Conn,
    database: DatabaseUrls,
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    users: list[UUID] = []
    for start in range(0, PEOPLE, AT_ONCE):
        users += await asyncio.gather(*(a_person(work, number) for number in range(start, start + AT_ONCE)))
    for user_id in users[:READERS]:
        reader = Person(client, user_id, None)
        assert (await reader.get()).status == 200
        assert (await reader.patch({"avatar_url": "https://cdn.example.in/a.png"})).status == 200
    await seal(parts.db, parts.keyring)
    await dump(database.owner, tmp_path / "dump")
    gone = users[::2]
    for start in range(0, len(gone), AT_ONCE):
        batch = gone[start : start + AT_ONCE]
        await asyncio.gather(*(erase(work, user_id, Erase("user_request"), SYSTEM, None) for user_id in batch))
    await seal(parts.db, parts.keyring)
    await sound(work, parts, users)

    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(parts, ("relay", "sealer", "shipper"), stop))
    await eventually(partial(is_published, owner), why="all events are published")
    await eventually(partial(is_archived, owner), why="the trail is in the archive")
    stop.set()
    await working
    elsewhere = [
        *await kafka_places(parts.settings),
        *await redis_places(own_redis.url),
        *await clickhouse_places(archive),
        *stored_places(Path(urlsplit(environ["ARTIFACT_STORE_URL"]).path)),
    ]
    assert {place.store for place in elsewhere} == {"kafka", "redis", "clickhouse", "documents"}
    assert named(elsewhere) == set()
    assert searched(elsewhere, set(range(0, PEOPLE, LOOKED_FOR))) == set()
    left = await postgres_places(owner)
    assert named(left) == EVERYBODY - GONE  # whose e-mail addresses are kept in clear
    assert searched(left, set(range(0, PEOPLE, LOOKED_FOR))) == set()
    assert searched(left, set(range(1, PEOPLE, LOOKED_FOR))) == {"postgres public.user_profiles.email"}

    postgres.create_database("restored_many")
    await restore(tmp_path / "dump", postgres.owner_url("restored_many"))
    restored = await asyncpg.connect(postgres.owner_url("restored_many"))
    assert named(await postgres_places(restored)) == EVERYBODY  # the backup brought them back
    async with app.opened(load({**environ, "POSTGRES_URL": postgres.app_url("restored_many")})) as old:
        assert await replay(old.erasing) == len(gone)
        await seal(old.db, old.keyring)
        await sound(old.erasing, old, users)
    left = await postgres_places(restored)
    await restored.close()
    assert named(left) == EVERYBODY - GONE
    assert searched(left, set(range(0, PEOPLE, LOOKED_FOR))) == set()
