"""Verbs of consents: give, withdraw, list. Transactions begin and end here."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from usercore.consents import queries
from usercore.consents.queries import Consent, ConsentType
from usercore.consents.receipts import Receipt, receipt
from usercore.db import Conn, Db
from usercore.errors import ConsentNotFound, ConsentNotGranted
from usercore.events import new_event_id, now
from usercore.idempotency import Answer, Attempt, claim, keep
from usercore.outbox import Actor, Change, record
from usercore.pii.keyring import Keyring
from usercore.signatures import sign
from usercore.users.actions import get_version, lock_user, refuse_inactive


class GiveConsent(Struct, frozen=True, forbid_unknown_fields=True):
    """What the user says about one type of consent, to one version of its text."""

    consent_type: ConsentType
    version: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+\Z")]
    granted: bool


class SignedReceipt(Struct, frozen=True):
    """`jws` signs the JSON of `receipt`: verified alone, with the public key of the `kid` in its header."""

    receipt: Receipt
    jws: str


async def give_consent(
    db: Db, keyring: Keyring, user_id: UUID, said: GiveConsent, actor: Actor, attempt: Attempt | None
) -> Answer:
    """Record a grant, or the withdrawal of the active one, which every account status allows.

    Raises UnknownUser, AccountErased, AccountNotActive and ConsentNotGranted, and what `claim` raises.
    """

    async with db.begin() as tx:
        if answer := await claim(tx, keyring, attempt):
            return answer
        user = await lock_user(tx, user_id)
        if said.granted:
            refuse_inactive(user.status)
        consent = await _record(tx, user_id, said, actor)
        return await keep(tx, keyring, attempt, Answer(201, msgspec.Raw(msgspec.json.encode(consent))))


async def _record(tx: Conn, user_id: UUID, said: GiveConsent, actor: Actor) -> Consent:
    at = now()
    # A newer grant ends the older one: at any moment one text is agreed to at most.
    ended = await queries.set_revoked(tx, user_id=user_id, consent_type=said.consent_type, at=at)
    if said.granted:
        consent = Consent(new_event_id(), said.consent_type, said.version, True, actor.ip, at, None)
    elif ended is None:
        raise ConsentNotGranted
    else:
        consent = replace(ended, id=new_event_id(), granted=False, ip_addr=actor.ip)
    await queries.add_consent(tx, user_id=user_id, consent=consent, at=at)
    change = Change(
        action="consent.granted" if said.granted else "consent.revoked",
        user_id=user_id,
        resource="user_consents",
        old=None if ended is None else {"id": str(ended.id), "version": ended.version, "granted": True},
        new={"id": str(consent.id), "type": consent.consent_type, "version": consent.version, "granted": said.granted},
    )
    await record(tx, change, actor=actor)
    return consent


async def list_consents(db: Db, user_id: UUID, *, history: bool) -> list[Consent]:
    """The current state of each type, or every row. Raises UnknownUser and AccountErased."""
    await get_version(db, user_id)
    async with db.read() as conn:
        return await (queries.list_history if history else queries.list_current)(conn, user_id=user_id)


async def get_receipt(db: Db, keyring: Keyring, user_id: UUID, consent_id: UUID, controller: str) -> SignedReceipt:
    """Raises UnknownUser, AccountErased, ConsentNotFound and KeysUnavailable."""
    await get_version(db, user_id)
    async with db.read() as conn:
        consent = await queries.get_consent(conn, user_id=user_id, id=consent_id)
    if consent is None:
        raise ConsentNotFound
    made = receipt(consent, user_id, controller, now())
    return SignedReceipt(made, sign(keyring, "consent-receipt", made))
