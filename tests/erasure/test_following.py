"""What follows an erasure: cut off, with stores and vendors that are away, when it falls due, after a restore."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.backups import dump, restore
from tests.databases import DatabaseUrls
from tests.erasure.cases import Erasable, a_case, soon, told
from tests.erasure.conftest import left_of
from tests.interrupting import Cancel, Error, Interrupted, Interruption, LateCancel, Steps
from tests.keys.people import a_person, count, people, unreadable
from tests.verbs.world import RULES, Acme, vendor
from usercore.artifacts.store import Store
from usercore.db import Conn, Db
from usercore.devstack.postgres import Postgres
from usercore.erased.actions import LIST, Erasing, finish, finish_open, get_certificate, get_outstanding
from usercore.erased.queries import Outstanding
from usercore.erasure.actions import Erase, erase, erase_forgotten, fall_due, replay
from usercore.errors import ServiceUnavailable
from usercore.events import now
from usercore.outbox import SYSTEM
from usercore.pii.validators import INDIA
from usercore.trail.actions import seal, verify
from usercore.worker import Parts

ASKED = Erase("user_request")


class Away(Store):
    """A store that nobody reaches."""

    async def put(self, key: str, data: bytearray) -> None:
        await asyncio.sleep(0)
        raise ServiceUnavailable


async def audited(owner: Conn, user_id: UUID) -> int:
    return await count(owner, "select count(*) from user_audit where user_id = $1 and action = 'user.erased'", user_id)


@pytest.mark.parametrize("how", [Error, Cancel, LateCancel])
async def test_cut_off_at_any_await_it_is_as_before_or_finished_by_the_workers(
    work: Erasing, owner: Conn, how: Callable[[], Interruption]
) -> None:
    db, keyring = work.kyc.db, work.kyc.keyring
    (other,) = await people(db, keyring, 1)
    at = 0
    while True:
        at += 1
        user_id = await a_person(db, keyring, at)
        steps = Steps(how(), at)
        with suppress(Interrupted, asyncio.CancelledError):
            await steps.run(erase(work, user_id, ASKED, SYSTEM, None))
        where = steps.interrupted_at
        if not await audited(owner, user_id):
            assert await owner.fetchval("select status::text from users where id = $1", user_id) == "pending", where
            assert len(await left_of(owner, user_id)) > 3, where
            await erase(work, user_id, ASKED, SYSTEM, None)
        await soon(owner)
        await finish_open(work)
        assert await get_certificate(work, user_id) is not None, where
        assert await left_of(owner, user_id) == [], where
        assert await audited(owner, user_id) == 1, where
        if where is None:
            break
    assert at > 15
    assert await unreadable(db, keyring, [other]) == []


async def test_a_store_that_is_away_is_waited_for(work: Erasing, owner: Conn) -> None:
    user_id = await a_person(work.kyc.db, work.kyc.keyring, 1)
    away = replace(work, artifacts=replace(work.artifacts, store=Away(work.artifacts.store._store)))
    done = await erase(away, user_id, ASKED, SYSTEM, None)
    assert done.certificate is None
    assert await left_of(owner, user_id) == []  # gone all the same
    assert await get_outstanding(owner) == Outstanding(1, 0)
    assert (await erase(away, user_id, ASKED, SYSTEM, None)).certificate is None
    assert await finish_open(away) == 1
    assert await get_outstanding(owner) == Outstanding(1, 1)
    await soon(owner)
    assert await finish_open(work) == 1
    assert await finish_open(work) == 0
    assert await get_outstanding(owner) == Outstanding(0, 0)
    signed = await get_certificate(work, user_id)
    assert signed is not None
    assert (await erase(work, user_id, ASKED, SYSTEM, None)).certificate == signed


async def test_a_vendor_that_declares_erasure_is_told_until_it_hears(work: Erasing, owner: Conn) -> None:
    user_id = await a_person(work.kyc.db, work.kyc.keyring, 1)
    case = await a_case(owner, user_id)
    acme = Erasable()
    acme.away = True
    work = replace(work, kyc=replace(work.kyc, vendors={"acme": told(acme)}, rules=RULES))
    assert (await erase(work, user_id, ASKED, SYSTEM, None)).certificate is None
    acme.away = False
    await soon(owner)
    await finish_open(work)
    assert acme.erased == [f"vendor-{case}"]
    assert await get_certificate(work, user_id) is not None


async def test_what_was_kept_goes_class_by_class_when_it_falls_due(work: Erasing, owner: Conn, parts: Parts) -> None:
    db, keyring = work.kyc.db, work.kyc.keyring
    user_id = await a_person(db, keyring, 1)
    case = await a_case(owner, user_id)
    work = replace(work, kyc=replace(work.kyc, vendors={"acme": vendor(Acme())}, rules=RULES))
    await work.artifacts.store.put(f"kyc/{case}/{case}/selfie", bytearray(b"picture"))
    first = (await erase(work, user_id, ASKED, SYSTEM, None)).certificate
    assert first is not None
    (identity, evidence) = (kept.until for kept in first.certificate.kept)
    assert await fall_due(work, evidence - timedelta(seconds=1)) == 0

    assert await fall_due(work, evidence) == 1
    assert await fall_due(work, evidence) == 0
    await finish_open(work)
    second = await get_certificate(work, user_id)
    assert second is not None
    assert [kept.retention_class for kept in second.certificate.kept] == ["identity"]
    with pytest.raises(FileNotFoundError):
        [chunk async for chunk in work.artifacts.store.get(f"kyc/{case}/{case}/selfie")]
    assert await owner.fetchval("select count(*) from kyc_evidence") == 0
    assert await owner.fetchval("select count(*) from user_keys where user_id = $1", user_id) == 1

    assert await fall_due(work, identity) == 1
    await finish_open(work)
    third = await get_certificate(work, user_id)
    assert third is not None
    assert third.certificate.kept == []
    assert await left_of(owner, user_id, ["kyc_attempts.token_enc"]) == []
    assert await owner.fetchval("select count(*) from user_keys where user_id = $1", user_id) == 0
    await seal(parts.db, parts.keyring)
    assert (await verify(parts.db, parts.keyring)).finding is None


async def test_accounts_that_were_closed_long_ago_are_erased_unasked(work: Erasing, owner: Conn) -> None:
    db, keyring = work.kyc.db, work.kyc.keyring
    old, young, held, here = await people(db, keyring, 4)
    for user_id, years in ((old, 9), (young, 7), (held, 9)):
        at = datetime.now(INDIA) - timedelta(days=365 * years + 5)
        await owner.execute("update users set status = 'closed', closed_at = $2 where id = $1", user_id, at)
    await owner.execute(
        "insert into account_holds (id, user_id, effect, source, reason, placed_at) "
        "values (gen_random_uuid(), $1, 'freeze', 'admin', 'court_order', now())",
        held,
    )
    assert await erase_forgotten(work, now()) == 1
    assert await erase_forgotten(work, now()) == 0
    assert [await audited(owner, each) for each in (old, young, held, here)] == [1, 0, 0, 0]


async def test_a_restored_backup_forgets_again_whom_the_list_names(
    work: Erasing, owner: Conn, database: DatabaseUrls, postgres: Postgres, tmp_path: Path
) -> None:
    db, keyring = work.kyc.db, work.kyc.keyring
    gone, stays = await people(db, keyring, 2)
    await dump(database.owner, tmp_path / "dump")
    await erase(work, gone, ASKED, SYSTEM, None)
    assert [names async for names in work.artifacts.store.list(LIST, 10)] == [[f"{LIST}{gone}"]]
    postgres.create_database("restored_once")
    await restore(tmp_path / "dump", postgres.owner_url("restored_once"))
    old = await Db.connect(postgres.app_url("restored_once"), min_size=1, max_size=2)
    again = replace(work, kyc=replace(work.kyc, db=old))
    assert await unreadable(old, keyring, [gone, stays]) == []  # what the backup brought back
    assert await replay(again) == 1
    assert await replay(again) == 0
    assert await unreadable(old, keyring, [gone, stays]) == [gone]
    assert await get_certificate(again, gone) is not None
    await old.close()
    assert await replay(work) == 0


async def test_two_at_once_erase_once(work: Erasing, owner: Conn) -> None:
    user_id = await a_person(work.kyc.db, work.kyc.keyring, 1)
    both = await asyncio.gather(*(erase(work, user_id, ASKED, SYSTEM, None) for _ in range(4)))
    await finish(work, user_id)
    assert await audited(owner, user_id) == 1
    signed = await get_certificate(work, user_id)
    assert all(done.certificate in (None, signed) for done in both)
