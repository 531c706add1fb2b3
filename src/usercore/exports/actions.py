"""The verb of exports: a person's data, opened once its audit row is durable, and their access log page by page."""

from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore.accounts.actions import Access, list_accesses
from usercore.attempts.actions import Kyc
from usercore.clickhouse import ClickHouse
from usercore.consents.actions import list_consents
from usercore.disclosures.actions import reveal
from usercore.errors import PiiUnavailable
from usercore.events import now
from usercore.exports import document, queries
from usercore.exports.document import PURPOSES, SCHEMA, Head, Verification
from usercore.outbox import Actor, Change, record
from usercore.prefs.actions import get_prefs
from usercore.profiles.actions import MEMBERS, open_me
from usercore.users.actions import lock_user
from usercore.verification.actions import get_status

PAGE = 200
FIELDS = sorted(MEMBERS)


class Opened(Struct, frozen=True):
    """An export that is recorded and on its way."""

    head: Head
    accesses: AsyncGenerator[Sequence[Access]]

    def json(self) -> AsyncGenerator[bytes]:
        return _json(self)

    def html(self) -> AsyncGenerator[bytes]:
        return document.html(self.head, self.accesses)


async def open_export(kyc: Kyc, archive: ClickHouse | None, controller: str, user_id: UUID, actor: Actor) -> Opened:
    """Recorded before anything is opened; for whoever is not the person it is a disclosure too.

    Raises UnknownUser, AccountErased, KeysUnavailable, and PiiUnavailable when something of it does not open.
    """
    db, keyring = kyc.db, kyc.keyring
    consents = await list_consents(db, user_id, history=True)
    prefs = await get_prefs(db, user_id)
    status = await get_status(kyc, user_id)
    async with db.begin() as tx:
        await lock_user(tx, user_id)
        if actor.id == user_id:
            exported = Change(action="user.exported", user_id=user_id, resource="user_profiles", new={"fields": FIELDS})
            await record(tx, exported, actor=actor)
        else:
            purpose = actor.purpose or "legal_request"
            await reveal(tx, user_id, FIELDS, purpose, actor, resource="user_profiles", action="user.exported")
        recipients = await queries.list_recipients(tx, user_id=user_id)
        documents = await queries.list_documents(tx, user_id=user_id)
        me = await open_me(tx, keyring, user_id)
    if me.pii_masked:
        raise PiiUnavailable
    verification = Verification(status.kyc_status, status.kyc_tier, status.verified_at, status.checks, documents)
    head = Head(SCHEMA, now(), controller, me, prefs, consents, verification, PURPOSES, recipients)
    return Opened(head, _accesses(kyc, archive, user_id))


async def _accesses(kyc: Kyc, archive: ClickHouse | None, user_id: UUID) -> AsyncGenerator[Sequence[Access]]:
    cursor: str | None = None
    while True:
        page = await list_accesses(kyc.db, kyc.keyring, user_id, PAGE, cursor, archive)
        yield page.items
        cursor = page.next_cursor
        if cursor is None:
            return


async def _json(export: Opened) -> AsyncGenerator[bytes]:
    """One document; cut off it is no JSON, so nobody takes half of it for all."""
    yield msgspec.json.encode(export.head)[:-1] + b',"access_log":['
    first = True
    async for page in export.accesses:
        for access in page:
            yield (b"" if first else b",") + msgspec.json.encode(access)
            first = False
    yield b"]}"
