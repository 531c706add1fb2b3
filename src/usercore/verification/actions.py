"""Verbs of verification: start a case, start again, look. Transactions begin and end here."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore import telemetry
from usercore.attempts.actions import CALL_S, Hosted, Kyc, add_attempt, start
from usercore.db import Conn
from usercore.errors import (
    FieldError,
    KeysUnavailable,
    KycAttemptsExhausted,
    KycResubmitNotAllowed,
    KycTierNotNext,
    KycTierReached,
    KycVendorUnavailable,
    OpenFailed,
    ProfileIncomplete,
    ValidationFailed,
)
from usercore.events import KycCaseStatus, KycStatus, KycTier, UserKycInitiated, new_event_id, now
from usercore.idempotency import Answer, claim, keep
from usercore.idempotency import Attempt as Key
from usercore.kyc.actions import LEVELS, OPEN, CheckStatus, Level, next_tier, open_case
from usercore.outbox import Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii.user_keys import key_rows
from usercore.plugins import BankAccount, Check, RejectionCode
from usercore.profiles.actions import keys_of, list_empty
from usercore.users.actions import UnknownUser, UserRow, lock_user, refuse_erased, refuse_inactive
from usercore.verification import queries
from usercore.verification.queries import NewCase, OwnCase

PATIENCE_S = 1.5
"""A request waits so long for the vendor; the call goes on without it."""
LIFETIME = timedelta(hours=24)
"""Of a case whose person does not finish. How long a vendor's link lives is not documented by either vendor."""

NEEDED: dict[Check, tuple[str, ...]] = {
    "pan": ("first_name", "last_name", "date_of_birth", "pan_number"),
    "selfie": ("first_name", "last_name"),
    "aadhaar": ("first_name", "last_name", "date_of_birth"),
    "address": ("first_name", "last_name"),
    "bank": ("first_name", "last_name"),
}
"""Members of the profile without which a vendor has nothing to compare with."""


class Initiate(Struct, frozen=True, forbid_unknown_fields=True):
    """What the user asks for; the next tier when none is named. `bank_account` is for tier_3 only."""

    target_tier: KycTier | None = None
    redirect_url: str | None = None
    bank_account: BankAccount | None = None


class StartedCase(Struct, frozen=True, kw_only=True):
    """A case as initiate answers it. Nulls until the vendor has answered; `redirect_url` is the vendor's page."""

    case_id: UUID
    vendor: str
    status: KycCaseStatus
    target_tier: KycTier
    redirect_url: str | None
    sdk_token: str | None
    expires_at: datetime | None


class Case(StartedCase, frozen=True, kw_only=True):
    rejection_code: RejectionCode | None
    initiated_at: datetime
    completed_at: datetime | None
    case_version: int


class CheckView(Struct, frozen=True):
    check: Check
    status: CheckStatus
    vendor: str
    completed_at: datetime | None


class NextTier(Struct, frozen=True):
    tier: KycTier
    requires: list[Check]


class Limits(Struct, frozen=True):
    level: Level


class Status(Struct, frozen=True):
    """All that a user's verification has come to."""

    kyc_status: KycStatus
    kyc_tier: KycTier
    verified_at: datetime | None
    expires_at: datetime | None
    case: Case | None
    checks: list[CheckView]
    next_tier: NextTier | None
    limits: Limits


class Opened(Struct, frozen=True):
    """What a request to start came to: the case, whether the vendor has answered, whether it is a new one."""

    case: StartedCase
    answered: bool
    new: bool
    replayed: bool


async def initiate(
    kyc: Kyc,
    user_id: UUID,
    asked: Initiate,
    actor: Actor,
    key: Key | None,
    *,
    again: bool = False,
) -> Opened | Answer:
    """Start the next step, or return the open case; an Answer is the refusal that the key got the first time.

    With `again` only after a rejected or expired case.

    Waits a moment for the vendor; without its answer the case has no link yet. Raises UnknownUser, AccountErased,
    AccountNotActive, ValidationFailed, ProfileIncomplete, KycTierNotNext, KycTierReached, KycResubmitNotAllowed,
    KycAttemptsExhausted, KycVendorUnavailable, and what `claim` raises.
    """
    _check_redirect(asked.redirect_url, kyc.redirect_hosts)
    with telemetry.span("user.initiate_kyc"):
        opened: NewCase | None = None
        async with kyc.db.begin() as tx:
            if earlier := await claim(tx, kyc.keyring, key):
                if earlier.status >= 400:
                    return earlier
                case_id = msgspec.json.decode(bytes(earlier.body), type=UUID)
            else:
                user = await lock_user(tx, user_id)
                if user.status != "suspended":  # which a new verification ends
                    refuse_inactive(user.status)
                newest = await queries.get_newest_case(tx, user_id=user_id)
                if newest is not None and newest.status in OPEN:
                    if again:
                        raise KycResubmitNotAllowed
                    case_id = newest.id
                else:
                    if again and (newest is None or newest.status not in ("rejected", "expired")):
                        raise KycResubmitNotAllowed
                    opened = await _open(tx, kyc, user, asked, actor)
                    case_id = opened.id
                await keep(tx, kyc.keyring, key, Answer(200, msgspec.Raw(msgspec.json.encode(case_id))))
        if opened is not None:
            telemetry.metrics.kyc_initiated(opened.vendor)
            call = asyncio.create_task(start(kyc, opened.id, actor))  # the first attempt has the id of its case
            kyc.keep(call)
            # Not wait_for: neither this wait nor a client that leaves ends the call.
            await asyncio.wait([call], timeout=PATIENCE_S)
        async with kyc.db.read() as conn:
            case = await queries.get_case(conn, case_id=case_id, user_id=user_id)
            assert case is not None
            shown = await _started(conn, kyc, user_id, case)
    answered = case.status != "initiated" or case.answered
    return Opened(shown, answered, opened is not None, earlier is not None)


async def _open(tx: Conn, kyc: Kyc, user: UserRow, asked: Initiate, actor: Actor) -> NewCase:
    tier = next_tier(user.kyc_tier)
    if tier is None:
        raise KycTierReached
    if asked.target_tier not in (None, tier):
        raise KycTierReached if (asked.target_tier or "") <= user.kyc_tier else KycTierNotNext
    if await queries.count_failed(tx, user_id=user.id, target_tier=tier) >= kyc.most_failures:
        raise KycAttemptsExhausted
    checks = kyc.rules.tiers[tier]
    account = _bank_account(asked, checks)
    needed = sorted({name for check in checks for name in NEEDED[check]})
    if missing := await list_empty(tx, user.id, needed):
        raise ProfileIncomplete(errors=[FieldError(f"/{name}", "required", "Fill this in first.") for name in missing])
    able = kyc.able(checks)
    if not able:
        raise KycVendorUnavailable
    at = now()
    keys = await keys_of(tx, kyc.keyring, user.id, pii.BANK_ACCOUNT.retention)
    case = NewCase(
        id=new_event_id(),
        user_id=user.id,
        vendor=able[0].name,
        target_tier=tier,
        redirect_url=asked.redirect_url,
        bank_account_enc=None if account is None else keys.seal(pii.BANK_ACCOUNT, _text(account)),
        initiated_at=at,
        expires_at=at + LIFETIME,
        next_look_at=at + timedelta(seconds=CALL_S),
    )
    await queries.add_case(tx, case=case)
    await add_attempt(tx, kyc.keyring, user.id, case.id, case.id, case.vendor, at)
    version = await open_case(tx, kyc.rules, user, case.id, case.vendor, tier, at)
    initiated = UserKycInitiated(
        event_id=new_event_id(),
        occurred_at=at,
        user_id=user.id,
        version=version,
        kyc_case_id=case.id,
        vendor=case.vendor,
        target_tier=tier,
    )
    change = Change(
        action="kyc.initiated",
        user_id=user.id,
        resource=f"kyc_case:{case.id}",
        new={"vendor": case.vendor, "target_tier": tier},
        event=initiated,
    )
    await record(tx, change, actor=actor)
    return case


def _text(account: BankAccount) -> str:
    return msgspec.json.encode(account).decode()


def _check_redirect(url: str | None, hosts: Sequence[str]) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.hostname in hosts and parts.username is None and len(url) <= 2048
        good = good and parts.port in (None, 443) and url.isascii() and url.isprintable()
    except ValueError:
        good = False
    if not good:
        error = FieldError("/redirect_url", "redirect_host", "An https URL on one of the hosts that are allowed.")
        raise ValidationFailed(errors=[error])


def _bank_account(asked: Initiate, checks: frozenset[Check]) -> BankAccount | None:
    account = asked.bank_account
    if ("bank" in checks) != (account is not None):
        code = "required" if account is None else "not_expected"
        raise ValidationFailed(errors=[FieldError("/bank_account", code, "With tier_3, and with no other.")])
    if account is None:
        return None
    errors = [
        FieldError(f"/bank_account/{name}", code, detail)
        for name, value, grammar, code, detail in (
            ("account_number", account.account_number, "[0-9]{9,18}", "account_number_format", "9 to 18 digits."),
            ("ifsc", account.ifsc, "[A-Z]{4}0[A-Z0-9]{6}", "ifsc_format", "Four letters, a zero, six more."),
        )
        if not re.fullmatch(grammar, value)
    ]
    if errors:
        raise ValidationFailed(errors=errors)
    return account


async def get_status(kyc: Kyc, user_id: UUID) -> Status:
    """All that the user's verification has come to. Raises UnknownUser and AccountErased."""
    async with kyc.db.snapshot() as conn:
        user = await queries.get_user_kyc(conn, user_id=user_id)
        if user is None:
            raise UnknownUser
        refuse_erased(user)
        newest = await queries.get_newest_case(conn, user_id=user_id)
        checks = await queries.list_current_checks(conn, user_id=user_id)
        started = None if newest is None else await _started(conn, kyc, user_id, newest)
    case = None
    if newest is not None and started is not None:
        case = Case(
            **msgspec.structs.asdict(started),
            rejection_code=newest.rejection_code,
            initiated_at=newest.initiated_at,
            completed_at=newest.completed_at,
            case_version=newest.version,
        )
    following = next_tier(user.kyc_tier)
    ends = [check.valid_until for check in checks if check.status == "passed" and check.valid_until is not None]
    return Status(
        kyc_status=user.kyc_status,
        kyc_tier=user.kyc_tier,
        verified_at=user.verified_at,
        expires_at=min(ends, default=None),
        case=case,
        checks=[CheckView(check.kind, check.status, check.vendor, check.completed_at) for check in checks],
        next_tier=None if following is None else NextTier(following, sorted(kyc.rules.tiers[following])),
        limits=Limits(LEVELS[user.kyc_tier]),
    )


async def _started(conn: Conn, kyc: Kyc, user_id: UUID, case: OwnCase) -> StartedCase:
    row = await queries.get_hosted(conn, case_id=case.id) if case.status in OPEN else None
    hosted = Hosted()
    if row is not None and row.hosted_enc is not None:
        keys = kyc.keyring.unlock(user_id, key_rows(user_id, row))
        try:
            hosted = msgspec.json.decode(keys.open(pii.HOSTED, row.hosted_enc).reveal(), type=Hosted)
        except OpenFailed as failure:
            raise KeysUnavailable from failure
    return StartedCase(
        case_id=case.id,
        vendor=case.vendor,
        status=case.status,
        target_tier=case.target_tier,
        redirect_url=hosted.redirect_url,
        sdk_token=hosted.sdk_token,
        expires_at=(row.expires_at if row is not None else None) or (case.expires_at if case.status in OPEN else None),
    )
