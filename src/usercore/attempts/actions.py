"""Verbs of attempts: have a vendor take one, ask it for the result, give up. Transactions begin and end here.

A start is two transactions with a state between them: the attempt is written before the vendor hears of it, and what
the vendor said is written after. Whoever dies in between leaves an attempt that the sweeper takes up with the same id.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from usercore import telemetry
from usercore.attempts import queries
from usercore.attempts.queries import AttemptRow, AttemptState, NewAttempt
from usercore.attempts.work import CALL_S, Hosted, Kyc, Work, disclosed
from usercore.db import Conn
from usercore.disclosures.actions import disclose
from usercore.events import new_event_id, now
from usercore.kyc.actions import OPEN, Heard, Settled, apply, event_of, hear, lock
from usercore.outbox import SYSTEM, Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring
from usercore.plugins import (
    ArtifactType,
    Attempt,
    BankAccount,
    Evidence,
    Standing,
    Started,
    StartRequest,
    VendorAuthError,
    VendorError,
    VendorRejected,
    VendorUnavailable,
)
from usercore.plugins.loading import Vendor
from usercore.plugins.webhooks import new_token, token_digest
from usercore.profiles.actions import keys_of, open_profile

log = telemetry.logger(__name__)

LEASE_S = 20
FIRST_LOOK_S = 30
"""After a start; a webhook is usually there before."""
LONGEST_PAUSE_S = 1800

__all__ = [
    "CALL_S",
    "FIRST_LOOK_S",
    "LEASE_S",
    "LONGEST_PAUSE_S",
    "AttemptRow",
    "AttemptState",
    "Hosted",
    "Kyc",
    "add_attempt",
    "find",
    "find_by_token",
    "free",
    "fresh_url",
    "lease",
    "look",
    "newest_attempt",
    "postpone",
    "report",
    "start",
]


async def add_attempt(
    tx: Conn, keyring: Keyring, user_id: UUID, case_id: UUID, attempt_id: UUID, vendor: str, at: datetime
) -> None:
    """Write an attempt that `start` takes up; whoever calls has locked the user.

    The first attempt of a case has the case's own id: what a vendor calls it is then what our API calls it.
    """
    token = new_token()
    keys = await keys_of(tx, keyring, user_id, pii.ATTEMPT_TOKEN.retention)
    attempt = NewAttempt(
        id=attempt_id,
        case_id=case_id,
        vendor=vendor,
        token_hash=token_digest(token),
        token_enc=keys.seal(pii.ATTEMPT_TOKEN, token),
        created_at=at,
    )
    await queries.add_attempt(tx, attempt=attempt)


async def start(kyc: Kyc, attempt_id: UUID, actor: Actor = SYSTEM) -> None:
    """Have the vendor take the attempt and write what came of it; nothing when somebody else is at it.

    A vendor that was certainly not reached is left for the next one that can do the same.
    """
    trying: UUID | None = attempt_id
    while trying is not None:
        work = await _claim(kyc, trying, actor)
        if work is None:
            return
        trying = None
        try:
            started = await work.vendor.kyc.start(work.request)
        except VendorUnavailable as error:
            if not error.reached:
                trying = await _fail_over(kyc, work, actor)
            if trying is None:
                await postpone(kyc, work.case_id, error.retry_after_s or FIRST_LOOK_S)
        except VendorRejected as refusal:
            evidence = Evidence(standing=Standing.REJECTED, vendor_status="refused", rejection_code=refusal.code)
            await apply(
                kyc.db, kyc.keyring, kyc.rules, work.case_id, Heard(work.attempt.id, "start", "start", evidence), actor
            )
        except VendorError as error:
            report("vendor_start_failed", error, work.vendor, work.case_id)
            await postpone(kyc, work.case_id, LONGEST_PAUSE_S if isinstance(error, VendorAuthError) else FIRST_LOOK_S)
        else:
            await _keep(kyc, work, started, actor)


async def _claim(kyc: Kyc, attempt_id: UUID, actor: Actor) -> Work | None:
    """Take the right to make the call, and record what it will disclose."""
    at = now()
    async with kyc.db.begin() as tx:
        attempt = await queries.get_attempt(tx, attempt_id=attempt_id)
        if attempt is None:
            return None
        user, case = await lock(tx, attempt.case_id)
        vendor = kyc.vendors.get(attempt.vendor)
        if case.status not in OPEN or vendor is None:
            return None
        if await queries.take_call(tx, attempt_id=attempt_id, at=at, not_after=at - timedelta(seconds=CALL_S)) is None:
            return None
        profile = await open_profile(tx, kyc.keyring, user.id)
        keys = await keys_of(tx, kyc.keyring, user.id, pii.ATTEMPT_TOKEN.retention)
        token = keys.open(pii.ATTEMPT_TOKEN, attempt.token_enc).reveal()
        account = None
        if case.bank_account_enc is not None:
            opened = keys.open(pii.BANK_ACCOUNT, case.bank_account_enc).reveal()
            account = msgspec.json.decode(opened, type=BankAccount)
        spec = vendor.enabled.installed.spec
        person = disclosed(profile, spec.discloses)
        fields = [name for name in sorted(spec.discloses) if getattr(person, name) is not None]
        if account is not None:
            fields.append("bank_account")
        if fields:
            await disclose(
                tx, user.id, vendor.name, fields, "kyc", actor, attempt_id=attempt_id, resource=f"kyc_case:{case.id}"
            )
    callback = f"{kyc.public_url}/v1/kyc/webhook/{vendor.name}"
    if vendor.enabled.webhook is not None and vendor.enabled.webhook.scheme == "url_token":
        callback += f"/{token}"
    request = StartRequest(
        attempt_id=attempt_id,
        checks=kyc.rules.tiers[case.target_tier],
        person=person,
        callback_url=callback,
        redirect_url=case.redirect_url,
        bank_account=account,
    )
    return Work(attempt, case.id, user.id, vendor, request)


async def _keep(kyc: Kyc, work: Work, started: Started, actor: Actor) -> None:
    """Write that the vendor has taken the attempt, and what it said already."""
    at = now()
    settled: Settled | None = None
    async with kyc.db.begin() as tx:
        user, case = await lock(tx, work.case_id)
        keys = await keys_of(tx, kyc.keyring, user.id, pii.HOSTED.retention)
        hosted = Hosted(started.redirect_url, started.sdk_token)
        await queries.set_started(
            tx,
            attempt_id=work.attempt.id,
            vendor_case_id=started.vendor_case_id,
            hosted_enc=keys.seal(pii.HOSTED, msgspec.json.encode(hosted).decode()),
            expires_at=started.expires_at,
            at=at,
        )
        if started.evidence is not None:
            heard = Heard(work.attempt.id, "start", "start", started.evidence)
            settled = await hear(tx, kyc.keyring, kyc.rules, user, case, heard, actor)
        await queries.set_case_attempt(
            tx,
            case_id=case.id,
            vendor=work.vendor.name,
            vendor_case_id=started.vendor_case_id,
            next_look_at=at + timedelta(seconds=FIRST_LOOK_S),
        )
    if settled is not None:
        settled.count()


async def _fail_over(kyc: Kyc, work: Work, actor: Actor) -> UUID | None:
    """A new attempt with the next vendor that was not tried yet; None when there is none."""
    at = now()
    async with kyc.db.begin() as tx:
        _, case = await lock(tx, work.case_id)
        if case.status not in OPEN:
            return None
        tried = {attempt.vendor for attempt in await queries.list_attempts(tx, case_id=case.id)}
        able = [vendor for vendor in kyc.able(work.request.checks) if vendor.name not in tried]
        if not able:
            return None
        await queries.set_state(tx, attempt_id=work.attempt.id, state="superseded")
        attempt_id = new_event_id()
        await add_attempt(tx, kyc.keyring, case.user_id, case.id, attempt_id, able[0].name, at)
        await queries.set_case_attempt(
            tx, case_id=case.id, vendor=able[0].name, vendor_case_id=None, next_look_at=at + timedelta(seconds=CALL_S)
        )
        change = Change(
            action="kyc.updated",
            user_id=case.user_id,
            resource=f"kyc_case:{case.id}",
            old={"vendor": work.vendor.name},
            new={"vendor": able[0].name},
        )
        await record(tx, change, actor=actor)
    log.warning("kyc_vendor_replaced", vendor=able[0].name, kyc_case_id=work.case_id)
    return attempt_id


async def look(kyc: Kyc, attempt: AttemptRow, actor: Actor = SYSTEM) -> Settled | None:
    """Ask the vendor how an attempt stands and let its case follow. Raises VendorError."""
    evidence = await _ask(kyc, attempt)
    heard = Heard(attempt.id, "fetch", event_of(kyc.keyring, evidence), evidence)
    return await apply(kyc.db, kyc.keyring, kyc.rules, attempt.case_id, heard, actor)


async def fresh_url(kyc: Kyc, attempt_id: UUID, kind: ArtifactType) -> str | None:
    """Where the vendor has a document now, None when it has none. Raises VendorError."""
    async with kyc.db.read() as conn:
        attempt = await queries.get_attempt(conn, attempt_id=attempt_id)
    if attempt is None:
        return None
    evidence = await _ask(kyc, attempt)
    return next((artifact.url for artifact in evidence.artifacts if artifact.type == kind), None)


async def _ask(kyc: Kyc, attempt: AttemptRow) -> Evidence:
    vendor = kyc.vendors.get(attempt.vendor)
    if vendor is None or attempt.vendor_case_id is None:
        raise VendorUnavailable
    async with kyc.db.read() as conn:
        tier = await queries.get_target_tier(conn, case_id=attempt.case_id)
    assert tier is not None
    checks = kyc.rules.tiers[tier]
    return await vendor.kyc.fetch(Attempt(attempt_id=attempt.id, vendor_case_id=attempt.vendor_case_id, checks=checks))


async def find(conn: Conn, vendor: str, vendor_case_id: str | None, attempt_id: str | None) -> AttemptRow | None:
    """The attempt that a message of this vendor names, by either reference."""
    own: UUID | None = None
    if vendor_case_id is not None:
        own = await queries.get_id_by_reference(conn, vendor=vendor, vendor_case_id=vendor_case_id)
    if own is None and attempt_id is not None:
        with suppress(ValueError):
            own = UUID(attempt_id)
    found = None if own is None else await queries.get_attempt(conn, attempt_id=own)
    return found if found is not None and found.vendor == vendor else None


async def find_by_token(conn: Conn, vendor: str, token: str) -> AttemptRow | None:
    """The attempt whose callback URL has this secret."""
    found = await queries.get_attempt_by_token(conn, token_hash=token_digest(token))
    return found if found is not None and found.vendor == vendor else None


async def lease(kyc: Kyc, case_id: UUID) -> bool:
    """Take the right to ask the vendor about a case; false while somebody else does."""
    at = now()
    async with kyc.db.begin() as tx:
        until = at + timedelta(seconds=LEASE_S)
        return await queries.take_lease(tx, case_id=case_id, at=at, leased_until=until) is True


async def free(kyc: Kyc, case_id: UUID) -> None:
    async with kyc.db.begin() as tx:
        await queries.set_free(tx, case_id=case_id)


async def newest_attempt(conn: Conn, case_id: UUID) -> AttemptRow | None:
    """The newest attempt of a case that may still come to something."""
    attempts = await queries.list_attempts(conn, case_id=case_id)
    return next((each for each in reversed(attempts) if each.state in ("starting", "started")), None)


async def postpone(kyc: Kyc, case_id: UUID, seconds: float) -> None:
    """Nobody need look after the case for so long; the lease is given back."""
    async with kyc.db.begin() as tx:
        await queries.set_next_look(tx, case_id=case_id, at=now() + timedelta(seconds=seconds))


def report(event: str, error: VendorError, vendor: Vendor | None, case_id: UUID) -> None:
    log.warning(event, error, vendor=None if vendor is None else vendor.name, kyc_case_id=case_id)
