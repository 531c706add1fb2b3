"""Verbs of upkeep: take up open cases that are due, apply messages again. Transactions begin and end here.

The sweeper does it by itself, and operators now.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from usercore import telemetry
from usercore.attempts.actions import (
    FIRST_LOOK_S,
    LEASE_S,
    LONGEST_PAUSE_S,
    Kyc,
    lease,
    look,
    newest_attempt,
    postpone,
    report,
    start,
)
from usercore.db import Db
from usercore.events import KycCaseStatus, now
from usercore.lapses.actions import end_case
from usercore.outbox import SYSTEM
from usercore.plugins import VendorError, VendorPending, VendorUnavailable
from usercore.upkeep import queries
from usercore.upkeep.queries import Message, OpenCase
from usercore.webhooks.actions import KEPT

log = telemetry.logger(__name__)

SWEEP = 5
"""Cases at once: whoever waits for a webhook goes before those whom we only ask about."""

__all__ = ["Message", "OpenCase", "list_messages", "list_open_cases", "reconcile", "replay", "sweep"]


async def sweep(kyc: Kyc) -> int:
    """Take up open cases that are due: start, ask, expire. The number of cases."""
    at = now()
    async with kyc.db.begin() as tx:
        due = await queries.take_due_cases(tx, at=at, leased_until=at + timedelta(seconds=LEASE_S), most=SWEEP)
    await asyncio.gather(*(_take_up(kyc, case_id) for case_id in due))
    return len(due)


async def reconcile(kyc: Kyc, case_id: UUID) -> KycCaseStatus | None:
    """Take a case up now, due or not. Where it stands then; None when somebody else is at it, or it is not there."""
    if not await lease(kyc, case_id):
        return None
    await _take_up(kyc, case_id)
    async with kyc.db.read() as conn:
        case = await queries.get_case(conn, case_id=case_id)
    assert case is not None
    return case.status


async def _take_up(kyc: Kyc, case_id: UUID) -> None:
    """Start, ask or expire a case whose lease the caller has."""
    async with kyc.db.read() as conn:
        case = await queries.get_case(conn, case_id=case_id)
        attempt = await newest_attempt(conn, case_id)
    assert case is not None
    stale = case.expires_at <= now() and case.status != "in_review"
    pause_s: float = min(FIRST_LOOK_S * 2 ** min(case.looks, 8), LONGEST_PAUSE_S)
    try:
        if attempt is not None and attempt.state == "starting" and not stale:
            await start(kyc, attempt.id)
        elif attempt is not None and attempt.state == "started":
            await look(kyc, attempt)  # also before it is expired: the webhook may have been lost
    except VendorPending:
        pass
    except VendorError as error:
        report("vendor_look_failed", error, kyc.vendors.get(attempt.vendor) if attempt else None, case_id)
        stale = stale and not isinstance(error, VendorUnavailable)
    if stale:
        await end_case(kyc.db, kyc.rules, case_id, SYSTEM)
    await postpone(kyc, case_id, pause_s)


async def list_open_cases(db: Db, vendor: str | None, older_than: timedelta, most: int) -> list[OpenCase]:
    """Cases without a verdict, the one that is open for longest first."""
    async with db.read() as conn:
        return await queries.list_open_cases(conn, vendor=vendor, before=now() - older_than, most=most)


async def list_messages(db: Db, vendor: str | None, most: int) -> list[Message]:
    """Messages that wait, that nobody could read, or whose attempt nobody knows; oldest first."""
    async with db.read() as conn:
        return await queries.list_messages(conn, vendor=vendor, since=now() - KEPT, most=most)


async def replay(db: Db, message_ids: Sequence[UUID]) -> list[UUID]:
    """Let these messages be applied as if they had just come: those that there still are.

    What they say counts once, however often it is applied.
    """
    async with db.begin() as tx:
        due = await queries.set_due(tx, message_ids=message_ids, at=now())
    log.info("webhooks_replayed", count=len(due))
    return due
