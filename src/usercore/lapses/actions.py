"""Verbs of lapses: end a case that nobody finishes, end a verification that is too old."""

from uuid import UUID

from usercore.db import Db
from usercore.events import UserKycUpdated, new_event_id, now
from usercore.kyc.actions import Outcome, Rules, enter, follow, latest_case, lock
from usercore.lapses import queries
from usercore.lifecycle.actions import KYC_OVERDUE, hold_for_kyc
from usercore.outbox import SYSTEM, Actor, Change, record
from usercore.users.actions import lock_user

MOST = 100


async def end_case(db: Db, rules: Rules, case_id: UUID, actor: Actor) -> None:
    """Expire a case whose person did not finish in time; nothing when there is more to it by now."""
    async with db.begin() as tx:
        user, case = await lock(tx, case_id)
        if case.status not in ("initiated", "documents_submitted"):
            return
        settled = await enter(tx, rules, user, case, Outcome("expired"), actor, now())
    settled.count()


async def end_validities(db: Db, rules: Rules) -> int:
    """Take back tiers whose checks are not good any more; who falls to tier_0 is suspended until verified again."""
    async with db.read() as conn:
        lapsed = await queries.list_lapsed(conn, at=now(), most=MOST)
    for user_id in lapsed:
        await end_validity(db, rules, user_id)
    return len(lapsed)


async def end_validity(db: Db, rules: Rules, user_id: UUID) -> None:
    """Nothing when the checks of the user are good."""
    at = now()
    async with db.begin() as tx:
        user = await lock_user(tx, user_id)
        ended = await queries.set_lapsed(tx, user_id=user_id, at=at)
        case = await latest_case(tx, user_id)
        if not ended or case is None:
            return
        kyc, version = await follow(tx, rules, user, at)
        updated = UserKycUpdated(
            event_id=new_event_id(),
            occurred_at=at,
            user_id=user_id,
            version=version,
            kyc_case_id=case.id,
            vendor=case.vendor,
            status=case.status,
            previous_status=case.status,
            rejection_code=case.rejection_code,
            kyc_status=kyc.kyc_status,
            kyc_tier=kyc.kyc_tier,
            previous_tier=user.kyc_tier,
        )
        change = Change(
            action="kyc.updated",
            user_id=user_id,
            resource="users",
            old={"kyc_status": user.kyc_status, "kyc_tier": user.kyc_tier},
            new={"kyc_status": kyc.kyc_status, "kyc_tier": kyc.kyc_tier},
            event=updated,
        )
        await record(tx, change, actor=SYSTEM)
        if kyc.kyc_tier == "tier_0":
            await hold_for_kyc(tx, user_id, "suspend", KYC_OVERDUE, ended[0], SYSTEM, at)
