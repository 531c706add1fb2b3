"""docs/break-glass.md, claim by claim: who can read what with a dump, the KMS, memory, a role or an account."""

import hashlib
from pathlib import Path

import pytest

from tests.backups import dumped_text
from tests.databases import DatabaseUrls
from tests.keys.people import first_name, pan, people, phone, unreadable, wraps
from tests.keys.test_rewrap import whole
from tests.service import Client
from usercore.db import Conn, Db
from usercore.erased.actions import Erasing
from usercore.erasure.actions import Erase, erase
from usercore.errors import KmsRefused, OpenFailed
from usercore.keys.actions import rotate
from usercore.outbox import SYSTEM
from usercore.pii.keyring import Keyring
from usercore.pii.keystore import load
from usercore.pii.kms import Kms, open_kms
from usercore.rewraps.actions import rewrap
from usercore.trail.actions import seal, verify
from usercore.worker import Parts


@pytest.fixture
def service_kms(parts: Parts) -> Kms:
    return open_kms(parts.settings.pii_encryption_key_id)


async def test_a_dump(parts: Parts, owner: Conn, database: DatabaseUrls, tmp_path: Path) -> None:
    (user_id,) = await people(parts.db, parts.keyring, 1)
    await owner.execute("update user_profiles set email = 'asha@example.in' where user_id = $1", user_id)
    dump = await dumped_text(database.owner, tmp_path / "dump.sql")
    assert "asha@example.in" in dump
    for value in (pan(0), phone(0), first_name(0)):
        for form in (value, value.encode().hex(), value[::-1]):
            assert form not in dump
    # Trying every PAN takes the key of the index: what anybody can compute is not what is stored.
    for digest in (hashlib.sha256(pan(0).encode()).hexdigest(), hashlib.sha256(phone(0).encode()).hexdigest()):
        assert digest not in dump


async def test_a_dump_and_the_kms_permission(parts: Parts, service_kms: Kms, owner: Conn) -> None:
    users = await people(parts.db, parts.keyring, 2)
    work = Erasing(parts.kyc, parts.artifacts, {}, "tests")
    await erase(work, users[1], Erase("user_request"), SYSTEM, None)
    stolen = Keyring()
    await load(parts.db, service_kms, stolen)
    assert await unreadable(parts.db, stolen, users) == [users[1]]
    assert {row.user_id for row in await wraps(owner)} == {users[0]}


async def test_the_kms_permission_alone(parts: Parts, service_kms: Kms, owner: Conn) -> None:
    await people(parts.db, parts.keyring, 1)
    (row, *_) = await wraps(owner)
    sealed = await owner.fetchval("select pan_number_enc from user_profiles")
    assert sealed is not None
    for ciphertext in (row.wrapped, sealed):
        for purpose in ("user_keys", "blind_index"):
            context = {"service": "usercore", "purpose": purpose, "version": "1"}
            with pytest.raises(KmsRefused):
                await service_kms.unwrap(ciphertext, context, "1")


async def test_the_memory_of_a_process(parts: Parts, service_kms: Kms, owner: Conn, operator: Db) -> None:
    (user_id,) = await people(parts.db, parts.keyring, 1)
    memory = Keyring()
    memory.install(parts.keyring.epochs)
    before = await wraps(owner)
    assert all(memory.unwrap(user_id, row) for row in before)
    assert await unreadable(parts.db, memory, [user_id]) == []

    await rotate(operator, service_kms, ["user_keys"], settle_s=0)
    await load(parts.db, service_kms, parts.keyring)
    await whole(rewrap(parts.db, parts.keyring))
    for row in await wraps(owner):
        with pytest.raises(OpenFailed):
            memory.unwrap(user_id, row)
    (_, made) = [user_id, (await people(parts.db, parts.keyring, 1))[0]]
    assert await unreadable(parts.db, memory, [made]) == [made]


async def test_the_services_own_database_role(parts: Parts) -> None:
    await people(parts.db, parts.keyring, 1)
    for statement in (
        "update user_audit set action = 'user.erased'",
        "delete from user_audit",
        "truncate user_audit",
        "update pii_keyring set state = 'retired'",
        "delete from pii_keyring",
        "alter table user_audit disable trigger all",
        "drop table user_audit",
    ):
        async with parts.db.begin() as tx:
            with pytest.raises(Exception, match=r"permission denied|must be owner"):
                await tx.execute(statement)


async def test_an_operators_account_without_pii_read(client: Client, parts: Parts) -> None:
    (user_id,) = await people(parts.db, parts.keyring, 1)
    operator = client.user(scope="admin", client_id="back-office")
    seen = (await operator.get(f"/internal/users/{user_id}")).json()["profile"]
    assert seen["pan_number"] != pan(0)
    assert seen["phone"] != phone(0)
    reveal = await operator.get(f"/internal/users/{user_id}?reveal=phone&purpose=support")
    assert reveal.status == 403
    person = client.user(sub=user_id)
    log = (await person.get("/v1/me/access-log")).json()["items"]
    assert [(each["client"], each["action"]) for each in log] == [("back-office", "profile.read")]


async def test_the_owners_database_role(parts: Parts, owner: Conn) -> None:
    await people(parts.db, parts.keyring, 1)
    await seal(parts.db, parts.keyring)
    event = await owner.fetchval("select event_id from user_audit order by xid, event_id limit 1")
    await owner.execute("alter table user_audit disable trigger user")
    await owner.execute("update user_audit set resource = 'nothing' where event_id = $1", event)
    found = await verify(parts.db, parts.keyring)
    assert found.finding is not None
    assert (found.finding.kind, found.finding.event_id) == ("changed", event)


CLAIMS = {
    "a dump of PostgreSQL": test_a_dump,
    "a dump, and the KMS permission to decrypt": test_a_dump_and_the_kms_permission,
    "the KMS permission alone": test_the_kms_permission_alone,
    "the memory of a process": test_the_memory_of_a_process,
    "the service's own database role": test_the_services_own_database_role,
    "an operator's account without `pii:read`": test_an_operators_account_without_pii_read,
    "the owner's database role": test_the_owners_database_role,
}


def test_every_claim_of_the_page_has_its_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "break-glass.md").read_text()
    claims = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert claims[1:] == list(CLAIMS)
