"""Verbs of erasing a person: what PostgreSQL has goes in one transaction, with its audit row and its event.

A person counts as erased from this transaction on: the keys are gone with it, so what is left elsewhere is noise. The
stores beside PostgreSQL follow: see `erased`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from usercore import telemetry
from usercore.accounts.actions import close_within
from usercore.db import Conn
from usercore.erased.actions import DestroyedKey, Erasing, SignedCertificate, finish, get_certificate, get_listed
from usercore.erased.actions import list_erased as listed
from usercore.erasure import law, queries
from usercore.erasure.law import CLASSES, PlanItem, keep_until
from usercore.erasure.queries import NewErasure, Subject
from usercore.errors import LegalHold, OpenFailed, UserNotFound
from usercore.events import UserErased, new_event_id, now
from usercore.idempotency import Answer, Attempt, claim, keep
from usercore.identities.actions import let_go
from usercore.kyc.actions import Settled
from usercore.outbox import SYSTEM, Actor, Change, record
from usercore.pii import validators
from usercore.pii.classification import RetentionClass, locked
from usercore.pii.queries import add_user_keys, list_user_keys
from usercore.pii.wraps import UserKeyRow

EraseReason = Literal["user_request", "legal_order", "retention_elapsed", "other"]
PATIENCE_S = 5.0
"""So long an answer waits for the stores; vendors take longer."""
LATE = timedelta(minutes=1)
"""So long after an erasure nothing is under way any more that began before it."""
BATCH = 20
LIST_PAGE = 500

log = telemetry.logger(__name__)


class Erase(Struct, frozen=True, forbid_unknown_fields=True):
    """Why; `other` needs a note. A dry run changes nothing."""

    reason: EraseReason
    note: str | None = None
    dry_run: bool = False


class Erased(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A plan, or the certificate, or neither while a store or vendor is outstanding."""

    dry_run: bool
    plan: list[PlanItem] | None = None
    certificate: SignedCertificate | None = None


async def erase(work: Erasing, user_id: UUID, asked: Erase, actor: Actor, key: Attempt | None) -> Erased:
    """Erase a person, or say what would become of what. Of somebody who is erased already: the same certificate.

    Raises UserNotFound, LegalHold, ValidationFailed, KeysUnavailable, and what `claim` raises.
    """
    validators.note(asked.reason, asked.note)
    settled: Settled | None = None
    async with work.kyc.db.begin() as tx:
        repeated = await claim(tx, work.kyc.keyring, key)
        subject = await queries.lock_subject(tx, user_id=user_id)
        if subject is None:
            raise UserNotFound
        if not asked.dry_run and subject.erased_at is None:
            settled = await _erase_rows(tx, work, subject, asked.reason, actor, now())
        if repeated is None:
            await keep(tx, work.kyc.keyring, key, Answer(200, msgspec.Raw(b"null")))
    if settled is not None:
        settled.count()
    if asked.dry_run:
        return Erased(dry_run=True, plan=law.plan(_kept(work, subject, now()), work.periods))
    # Not wait_for: neither this wait nor a client that leaves ends what was begun.
    finishing = asyncio.create_task(finish(work, user_id))
    work.kyc.keep(finishing)
    await asyncio.wait([finishing], timeout=PATIENCE_S)
    return Erased(dry_run=False, certificate=await get_certificate(work, user_id))


def _kept(work: Erasing, subject: Subject, at: datetime) -> dict[RetentionClass, datetime | None]:
    """Until when each class stays; None for what goes now."""
    kept: dict[RetentionClass, datetime | None] = {}
    for each in CLASSES:
        until = keep_until(each, subject.closed_at or at, had_case=subject.had_case, periods=work.periods)
        kept[each] = until if until is not None and until > at else None
    return kept


async def _erase_rows(
    tx: Conn, work: Erasing, subject: Subject, reason: str, actor: Actor, at: datetime
) -> Settled | None:
    """Raises LegalHold, and KeysUnavailable when a key that stays cannot be locked now."""
    if subject.legal_hold:
        raise LegalHold
    user_id, keyring, settled = subject.id, work.kyc.keyring, None
    if subject.status != "closed":
        settled = await close_within(tx, work.kyc.rules, user_id, "user_request", None, actor, at)
    kept = _kept(work, subject, at)
    gone: list[UserKeyRow] = []
    held: list[UserKeyRow] = []
    for row in await list_user_keys(tx, user_id=user_id):
        if kept[row.retention_class] is None:
            gone.append(row)
            continue
        try:
            held.append(keyring.rewrapped(row, locked(row.retention_class)))
        except OpenFailed as failure:
            if failure.reason == "keys_unavailable":
                raise
            gone.append(row)  # what nobody can open is not kept either
    await queries.take_keys(tx, user_id=user_id, classes=CLASSES)
    if held:
        await add_user_keys(tx, keys=held)
    version = await queries.set_erased(tx, user_id=user_id, at=at)
    await queries.set_unsearchable(tx, user_id=user_id, at=at)
    await queries.take_answers(tx, user_id=user_id)
    await let_go(tx, user_id)
    await queries.take_addresses(tx, user_id=user_id)
    await _clear(tx, user_id, [each for each in CLASSES if kept[each] is None])
    destroyed = _destroyed(gone)
    change = Change(
        action="user.erased",
        user_id=user_id,
        resource="users",
        new={
            "reason": reason,
            "keys_destroyed": msgspec.to_builtins(destroyed),
            "kept": {each: until.isoformat() for each, until in kept.items() if until is not None},
        },
        event=UserErased(
            event_id=new_event_id(),
            occurred_at=at,
            user_id=user_id,
            version=version,
            reason=reason,
            actor_id=actor.id,
        ),
    )
    (event_id,) = await record(tx, change, actor=actor)
    erasure = NewErasure(
        user_id=user_id,
        event_id=event_id,
        reason=reason,
        actor_id=actor.id,
        erased_at=at,
        keys_destroyed=msgspec.json.encode(destroyed).decode(),
        identity_until=kept["identity"],
        contact_until=kept["contact"],
        kyc_evidence_until=kept["kyc_evidence"],
        addresses_again_at=at + LATE,
    )
    await queries.add_erasure(tx, erasure=erasure)
    return settled


async def _clear(tx: Conn, user_id: UUID, classes: Sequence[RetentionClass]) -> None:
    if "identity" in classes:
        await queries.set_no_identity(tx, user_id=user_id)
        await queries.set_no_notes(tx, user_id=user_id)
    if "contact" in classes:
        await queries.set_no_contact(tx, user_id=user_id)
    if "kyc_evidence" in classes:
        await queries.set_no_sealed_kyc(tx, user_id=user_id)
        await queries.take_evidence(tx, user_id=user_id)


def _destroyed(rows: Sequence[UserKeyRow]) -> list[DestroyedKey]:
    return [DestroyedKey(row.retention_class, row.version, hashlib.sha256(row.wrapped).hexdigest()) for row in rows]


async def forget_late_addresses(work: Erasing, at: datetime) -> int:
    """Forget the addresses that reads left which were under way at an erasure, of some people; how many."""
    async with work.kyc.db.begin() as tx:
        return len(await queries.take_late_addresses(tx, at=at, most=BATCH))


async def fall_due(work: Erasing, at: datetime) -> int:
    """Erase what the law kept until now, of some people; how many."""
    async with work.kyc.db.read() as conn:
        users = await queries.list_due(conn, at=at, most=BATCH)
    for user_id in users:
        async with work.kyc.db.begin() as tx:
            await queries.lock_subject(tx, user_id=user_id)
            classes = await queries.list_ended(tx, user_id=user_id, at=at)
            if not classes:
                continue  # another worker was faster
            gone = [
                row for row in await list_user_keys(tx, user_id=user_id) if row.retention_class in map(locked, classes)
            ]
            await queries.take_keys(tx, user_id=user_id, classes=[locked(each) for each in classes])
            await _clear(tx, user_id, classes)
            destroyed = _destroyed(gone)
            change = Change(
                action="user.erased",
                user_id=user_id,
                resource="users",
                new={"reason": "retention_elapsed", "keys_destroyed": msgspec.to_builtins(destroyed)},
            )
            await record(tx, change, actor=SYSTEM)
            await queries.set_fallen_due(
                tx, user_id=user_id, at=at, keys_destroyed=msgspec.json.encode(destroyed).decode()
            )
    return len(users)


async def erase_forgotten(work: Erasing, at: datetime) -> int:
    """Erase accounts that were closed so long ago that no rule keeps anything of them; how many."""
    longest = max(law.longest(each, work.periods) for each in CLASSES)
    async with work.kyc.db.read() as conn:
        users = await queries.list_forgotten(conn, before=at - longest, most=BATCH)
    for user_id in users:
        await erase(work, user_id, Erase("retention_elapsed"), SYSTEM, None)
    return len(users)


async def replay(work: Erasing) -> int:
    """Erase again whoever is in the list of erased people and not erased here: a backup was restored. How many."""
    count = 0
    async for user_ids in listed(work, LIST_PAGE):
        async with work.kyc.db.read() as conn:
            again = await queries.list_unerased(conn, user_ids=user_ids)
        for user_id in again:
            entry = await get_listed(work, user_id)
            async with work.kyc.db.begin() as tx:
                subject = await queries.lock_subject(tx, user_id=user_id)
                if subject is None or subject.erased_at is not None:
                    continue
                known = replace(subject, closed_at=subject.closed_at or entry.erased_at, legal_hold=False)
                await _erase_rows(tx, work, known, entry.reason, SYSTEM, now())
            await finish(work, user_id)
            log.warning("erasure_replayed", user_id=str(user_id))
            count += 1
    return count
