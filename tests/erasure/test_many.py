"""A thousand people erased among two thousand: nothing of them anywhere, and nobody else touched."""

import asyncio
import subprocess
from pathlib import Path
from uuid import UUID, uuid4

from tests.databases import DatabaseUrls
from tests.keys.people import first_name, lost_hits, pan, patched, phone, unreadable
from usercore.db import Conn
from usercore.devstack.accounts import reachable_binaries
from usercore.devstack.processes import quiet
from usercore.erased.actions import Certificate, Erasing, get_certificate
from usercore.erasure.actions import Erase, erase
from usercore.outbox import SYSTEM
from usercore.signatures import public_keys, verify
from usercore.trail.actions import seal
from usercore.trail.actions import verify as verify_trail
from usercore.users.actions import create_user
from usercore.worker import Parts

PEOPLE = 2000
AT_ONCE = 20


def email(number: int) -> str:
    return f"zyx{number:04d}@example.in"


async def a_person(work: Erasing, number: int) -> UUID:
    db, keyring, user_id = work.kyc.db, work.kyc.keyring, uuid4()
    await create_user(db, keyring, user_id, email(number), SYSTEM)
    await patched(db, keyring, user_id, first_name=first_name(number), pan_number=pan(number), phone=phone(number))
    return user_id


async def test_a_thousand_among_two_thousand(
    work: Erasing, parts: Parts, owner: Conn, database: DatabaseUrls, tmp_path: Path
) -> None:
    db, keyring = work.kyc.db, work.kyc.keyring
    users: list[UUID] = []
    for start in range(0, PEOPLE, AT_ONCE):
        users += await asyncio.gather(*(a_person(work, number) for number in range(start, start + AT_ONCE)))
    await seal(parts.db, parts.keyring)
    gone = users[::2]
    for start in range(0, len(gone), AT_ONCE):
        batch = gone[start : start + AT_ONCE]
        await asyncio.gather(*(erase(work, user_id, Erase("user_request"), SYSTEM, None) for user_id in batch))
    await seal(parts.db, parts.keyring)

    found = await verify_trail(parts.db, parts.keyring)
    assert (found.finding, found.unsealed) == (None, 0)
    assert await unreadable(db, keyring, users) == gone
    assert await lost_hits(db, keyring, users[:40]) == [each for each in gone[:20] for _ in range(2)]
    keys = public_keys(keyring)
    for user_id in gone:
        signed = await get_certificate(work, user_id)
        assert signed is not None
        assert verify(signed.jws, "erasure-certificate", keys, Certificate) == signed.certificate
    left = await owner.fetchval("select count(*) from user_keys where user_id = any($1)", gone)
    assert left == 0

    file = tmp_path / "dump.sql"
    command = [str(reachable_binaries(None, quiet) / "pg_dump"), f"--file={file}", f"--dbname={database.owner}"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    dump = await asyncio.to_thread(file.read_text)
    there = {number for number in range(PEOPLE) if email(number) in dump}
    assert there == set(range(1, PEOPLE, 2))  # the positive control: the others' are found
    assert not any(text in dump for number in range(0, PEOPLE, 2) for text in (pan(number), phone(number)))
