"""The verb of KYC: take what a vendor said and let case, checks and user follow. Transactions begin and end here."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from usercore import telemetry
from usercore.artifacts.actions import add_artifacts
from usercore.db import Conn, Db
from usercore.errors import CaseNotFound
from usercore.events import KycCaseStatus, KycTier, UserKycUpdated, UserVerified, new_event_id, now
from usercore.identities.actions import bind, let_go
from usercore.kyc import cases, queries
from usercore.kyc.cases import (
    LEVELS,
    OPEN,
    CheckStatus,
    Decision,
    Heard,
    Level,
    Outcome,
    ReviewReason,
    Rules,
    Ruling,
    Said,
    TierRules,
    kept_text,
    next_tier,
)
from usercore.kyc.queries import CaseRow, EvidenceRow, NewCheck, NewEvidence, UserKyc
from usercore.lifecycle.actions import KYC_FRAUD, activate, hold_for_kyc
from usercore.outbox import Actor, Change, record
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring, UserKeys
from usercore.pii.sealed import Sealed
from usercore.plugins import Check, CheckResult, Evidence, Identity, Standing
from usercore.profiles.actions import keys_of
from usercore.users.actions import UserRow, lock_user

__all__ = [
    "LEVELS",
    "OPEN",
    "CaseRow",
    "CheckStatus",
    "Decision",
    "Heard",
    "Level",
    "Outcome",
    "ReviewReason",
    "Rules",
    "Settled",
    "TierRules",
    "apply",
    "enter",
    "event_of",
    "follow",
    "hear",
    "latest_case",
    "lock",
    "next_tier",
    "open_case",
    "open_evidence",
    "settle",
]


class Settled(Struct, frozen=True):
    """What became of a case, for metrics once it is committed."""

    case: CaseRow
    previous: KycCaseStatus
    frozen: bool = False

    def count(self) -> None:
        if self.case.status != self.previous and self.case.status not in OPEN:
            telemetry.metrics.kyc_completed(self.case.vendor, self.case.status)
        if self.frozen:
            telemetry.metrics.user_frozen(KYC_FRAUD)


async def apply(db: Db, keyring: Keyring, rules: Rules, case_id: UUID, heard: Heard, actor: Actor) -> Settled | None:
    """Keep what a vendor said and let the case follow; None when it changed nothing.

    Raises AccountErased, OpenFailed and KeysUnavailable.
    """
    async with db.begin() as tx:
        user, case = await lock(tx, case_id)
        settled = await hear(tx, keyring, rules, user, case, heard, actor)
    if settled is not None:
        settled.count()
    return settled


async def lock(tx: Conn, case_id: UUID) -> tuple[UserRow, CaseRow]:
    """The user and then the case, both held: the one order in which they are locked. Raises CaseNotFound."""
    user_id = await queries.get_case_user(tx, case_id=case_id)
    if user_id is None:
        raise CaseNotFound
    user = await lock_user(tx, user_id)
    case = await queries.lock_case(tx, case_id=case_id)
    assert case is not None
    return user, case


async def latest_case(tx: Conn, user_id: UUID) -> CaseRow | None:
    """The newest case of a user who is locked."""
    case_id = await queries.get_latest_case(tx, user_id=user_id)
    return None if case_id is None else await queries.lock_case(tx, case_id=case_id)


async def hear(
    tx: Conn, keyring: Keyring, rules: Rules, user: UserRow, case: CaseRow, heard: Heard, actor: Actor
) -> Settled | None:
    """`apply` inside a transaction that holds user and case."""
    keys = await keys_of(tx, keyring, user.id, pii.EVIDENCE.retention)
    evidence = heard.evidence
    at = now()
    kept = await queries.accept_evidence(
        tx,
        evidence=NewEvidence(
            id=new_event_id(),
            case_id=case.id,
            attempt_id=heard.attempt_id,
            source=heard.source,
            source_event=heard.event,
            standing=int(evidence.standing),
            vendor_status=evidence.vendor_status,
            rejection_code=evidence.rejection_code,
            payload_enc=keys.seal(pii.EVIDENCE, kept_text(evidence)),
            occurred_at=evidence.occurred_at,
            received_at=at,
        ),
    )
    await add_artifacts(tx, keys, case.id, heard.attempt_id, evidence.artifacts, at)  # also heard before: new links
    return await settle(tx, keyring, rules, user, case, actor, at) if kept else None


def event_of(keyring: Keyring, evidence: Evidence) -> str:
    """A name for an answer that has none: the same answer again is the same evidence."""
    said = replace(evidence, artifacts=(), occurred_at=None)  # links are new each time
    return hmac.digest(keyring.token_key(b"evidence"), msgspec.json.encode(said), "sha256").hex()


async def settle(
    tx: Conn, keyring: Keyring, rules: Rules, user: UserRow, case: CaseRow, actor: Actor, at: datetime
) -> Settled | None:
    """Let case, checks and user follow from all that was said and decided. Nothing is written when nothing changes."""
    rows = await queries.list_evidence(tx, case_id=case.id)
    said = [Said(Standing(row.standing), row.rejection_code, row.received_at, row.superseded) for row in rows]
    ruling = None
    if case.decision is not None and case.decided_at is not None:
        ruling = Ruling(case.decision, case.rejection_code, case.decided_at)
    ended = None
    if case.status == "expired":
        ended = "account_closed" if case.rejection_code == "account_closed" else "expired"
    outcome = cases.derive(said, ruling=ruling, ended=ended)
    if outcome.status == "approved" and ruling is None and case.status != "approved":
        keys = await keys_of(tx, keyring, user.id, pii.EVIDENCE.retention)
        required = rules.tiers[case.target_tier]
        identity, checks = findings(keys, rows)
        if not all(checks.get(check) == "passed" for check in required):
            # The vendor approves, and has not said of everything that we asked for that it is good.
            outcome = cases.derive(said, identity="vendor_review")
        else:
            conflict = await bind(tx, keyring, user.id, identity, actor, at, claim="pan" in required)
            outcome = cases.derive(said, identity=conflict)
            user = await lock_user(tx, user.id)  # what was filled in has raised its version
    if outcome == Outcome(case.status, case.rejection_code, case.review_reason):
        return None
    return await enter(tx, rules, user, case, outcome, actor, at)


def findings(keys: UserKeys, rows: list[EvidenceRow]) -> tuple[Identity, dict[Check, CheckResult]]:
    """What the evidence that counts read off the documents, and found; of several of one rank the last one's word."""
    identity: Identity | None = None
    checks: dict[Check, CheckResult] = {}
    top = max((row.standing for row in rows if not row.superseded), default=0)
    for row in rows:
        if not row.superseded and row.standing == top:
            evidence = open_evidence(keys, row.payload_enc)
            identity = evidence.identity or identity
            checks.update(evidence.checks)
    return identity or Identity(), checks


def open_evidence(keys: UserKeys, payload: Sealed) -> Evidence:
    """Raises OpenFailed."""
    return msgspec.json.decode(keys.open(pii.EVIDENCE, payload).reveal(), type=Evidence)


async def enter(
    tx: Conn, rules: Rules, user: UserRow, case: CaseRow, outcome: Outcome, actor: Actor, at: datetime
) -> Settled:
    """Write what a case has come to, with everything that follows from it."""
    over = outcome.status not in OPEN
    after = replace(
        case,
        status=outcome.status,
        rejection_code=outcome.rejection_code,
        review_reason=outcome.review_reason,
        completed_at=at if over else None,
        bank_account_enc=None if over else case.bank_account_enc,
    )
    after = replace(after, version=await queries.save_case(tx, case=after))
    status = cases.check_status(outcome)
    await queries.save_checks(tx, checks=_checks(rules, case.id, user.id, case.vendor, case.target_tier, status, at))
    kyc, passed = await _kyc_of(tx, rules, user, at)
    risen = kyc.kyc_tier > user.kyc_tier
    if risen:
        await activate(tx, user.id, actor, at)
    version = await queries.set_kyc(tx, user_id=user.id, kyc=kyc)
    updated = UserKycUpdated(
        event_id=new_event_id(),
        occurred_at=at,
        user_id=user.id,
        version=version,
        kyc_case_id=case.id,
        vendor=case.vendor,
        status=after.status,
        previous_status=case.status,
        rejection_code=after.rejection_code,
        kyc_status=kyc.kyc_status,
        kyc_tier=kyc.kyc_tier,
        previous_tier=user.kyc_tier,
    )
    changes = [
        Change(
            action="kyc.updated",
            user_id=user.id,
            resource=f"kyc_case:{case.id}",
            old=_shown(case),
            new=_shown(after),
            event=updated,
        )
    ]
    if (kyc.kyc_status, kyc.kyc_tier) != (user.kyc_status, user.kyc_tier):
        verified = UserVerified(
            event_id=new_event_id(),
            occurred_at=at,
            user_id=user.id,
            version=version,
            kyc_tier=kyc.kyc_tier,
            previous_tier=user.kyc_tier,
            kyc_case_id=case.id,
            verified_at=at,
        )
        changes.append(
            Change(
                action="status.changed",
                user_id=user.id,
                resource="users",
                old={"kyc_status": user.kyc_status, "kyc_tier": user.kyc_tier},
                new={"kyc_status": kyc.kyc_status, "kyc_tier": kyc.kyc_tier},
                event=verified if risen else None,
            )
        )
    await record(tx, *changes, actor=actor)
    if "pan" not in passed:
        await let_go(tx, user.id)
    frozen = False
    if outcome == Outcome("rejected", "fraud"):
        frozen = await hold_for_kyc(tx, user.id, "freeze", KYC_FRAUD, case.id, actor, at)
    return Settled(after, case.status, frozen)


async def open_case(
    tx: Conn, rules: Rules, user: UserRow, case_id: UUID, vendor: str, tier: KycTier, at: datetime
) -> int:
    """The checks of a new case, and the user who follows from it: the user's new version."""
    await queries.save_checks(tx, checks=_checks(rules, case_id, user.id, vendor, tier, "pending", at))
    return (await follow(tx, rules, user, at))[1]


async def follow(tx: Conn, rules: Rules, user: UserRow, at: datetime) -> tuple[UserKyc, int]:
    """Let the user follow from all of its cases and checks: what it comes to, and its new version."""
    kyc, _ = await _kyc_of(tx, rules, user, at)
    return kyc, await queries.set_kyc(tx, user_id=user.id, kyc=kyc)


async def _kyc_of(tx: Conn, rules: Rules, user: UserRow, at: datetime) -> tuple[UserKyc, frozenset[Check]]:
    """What all of its cases and checks come to, and the checks that are passed."""
    checks = await queries.list_checks(tx, user_id=user.id)
    good = (check for check in checks if check.valid_until is None or check.valid_until > at)
    passed: frozenset[Check] = frozenset(check.kind for check in good if check.status == "passed")
    tier = cases.tier_of(passed, rules.tiers)
    kyc = UserKyc(
        kyc_status=cases.user_status(tier, await queries.get_latest_status(tx, user_id=user.id)),
        kyc_tier=tier,
        verified_at=at if tier > user.kyc_tier else user.verified_at,
        at=at,
    )
    return kyc, passed


def _checks(
    rules: Rules, case_id: UUID, user_id: UUID, vendor: str, tier: KycTier, status: CheckStatus, at: datetime
) -> list[NewCheck]:
    return [
        NewCheck(
            id=new_event_id(),
            case_id=case_id,
            user_id=user_id,
            kind=kind,
            status=status,
            vendor=vendor,
            completed_at=at if status in ("passed", "failed") else None,
            valid_until=at + rules.validity if status == "passed" else None,
        )
        for kind in sorted(rules.tiers[tier])
    ]


def _shown(case: CaseRow) -> Mapping[str, object]:
    found = {"status": case.status, "rejection_code": case.rejection_code, "review_reason": case.review_reason}
    return {name: value for name, value in found.items() if value is not None}
