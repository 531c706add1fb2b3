"""Verbs of KYC: cases, attempts, webhooks, reviews, documents, lapses."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from tests.verbs.users import attempt, create, everything, patched
from tests.verbs.world import RULES, Call, Case, Given, Subject, World, after, signed
from usercore.accounts import actions as accounts
from usercore.artifacts import actions as artifacts
from usercore.artifacts.actions import Reading, add_artifacts
from usercore.attempts import actions as attempts
from usercore.attempts.actions import AttemptRow
from usercore.db import Conn
from usercore.events import now
from usercore.kyc import actions as kyc
from usercore.lapses import actions as lapses
from usercore.outbox import Actor
from usercore.pii.sealed import Sealed
from usercore.plugins import Artifact, Evidence, Standing, WebhookEvent
from usercore.profiles import actions as profiles
from usercore.profiles.profile import ProfilePatch
from usercore.reviews import actions as reviews
from usercore.upkeep import actions as upkeep
from usercore.users.actions import lock_user
from usercore.verification import actions as verification
from usercore.verification.actions import Initiate
from usercore.webhooks import actions as webhooks

# Situations -----------------------------------------------------------------------------------------------------------


async def a_case(w: World, s: Subject, owner: Conn) -> None:
    """`s.key` is a case, `s.created` its attempt, which the vendor has taken. Without a PAN, which one of them has."""
    await after(create)(w, s, owner)
    await _add_case(w, s, owner, state="started", vendor_case_id=str(s.created))


def a_new_case(vendor: str = "acme", profile: Call = everything) -> Given:
    """As `a_case`, and the vendor was not called yet."""

    async def given(w: World, s: Subject, owner: Conn) -> None:
        await after(create, profile)(w, s, owner)
        await _add_case(w, s, owner, state="starting", vendor=vendor)

    return given


async def _add_case(
    w: World, s: Subject, owner: Conn, *, state: str, vendor: str = "acme", vendor_case_id: str | None = None
) -> None:
    async with w.db.begin() as tx:
        await profiles.keys_of(tx, w.keyring, s.user, "kyc_evidence")
    await owner.execute(
        """insert into kyc_cases (id, user_id, vendor, target_tier, initiated_at, expires_at, next_look_at)
        values ($1, $2, $3, 'tier_1', now(), now() + interval '1 day', now())""",
        s.key,
        s.user,
        vendor,
    )
    async with w.db.begin() as tx:
        await attempts.add_attempt(tx, w.keyring, s.user, s.key, s.created, vendor, now())
    await owner.execute(
        "update kyc_attempts set state = $2::text::kyc_attempt_state, vendor_case_id = $3 where id = $1",
        s.created,
        state,
        vendor_case_id,
    )


def heard(standing: Standing) -> Call:
    evidence = Evidence(standing=standing, vendor_status="so", checks={"pan": "passed"})
    return lambda w, s: kyc.apply(
        w.db, w.keyring, RULES, s.key, kyc.Heard(s.created, "webhook", standing.name, evidence), s.actor
    )


def case_after(*standings: Standing) -> Given:
    async def given(w: World, s: Subject, owner: Conn) -> None:
        await a_case(w, s, owner)
        for standing in standings:
            await heard(standing)(w, s)

    return given


async def lapsed(w: World, s: Subject, owner: Conn) -> None:
    await case_after(Standing.APPROVED)(w, s, owner)
    await owner.execute("update kyc_checks set valid_until = now() where user_id = $1", s.user)


async def due(w: World, s: Subject, owner: Conn) -> None:
    """Whoever was at it is taken for dead."""
    await owner.execute("update kyc_cases set leased_until = null, next_look_at = now() where user_id = $1", s.user)
    await owner.execute(
        "update kyc_attempts a set called_at = a.created_at - interval '1 minute' from kyc_cases c "
        "where c.id = a.case_id and c.user_id = $1 and a.called_at is not null",
        s.user,
    )
    await owner.execute(
        "update webhook_inbox set next_try_at = now() where state = 'waiting' and dedupe_key = $1", str(s.created)
    )
    await owner.execute(
        "update kyc_artifacts set next_try_at = now() where state = 'pending' and attempt_id = $1", s.created
    )


async def leased(w: World, s: Subject, owner: Conn) -> None:
    await a_case(w, s, owner)
    await attempts.lease(w.kyc, s.key)


def a_message(*, hint: bool) -> Given:
    async def given(w: World, s: Subject, owner: Conn) -> None:
        await a_case(w, s, owner)
        await received(hint=hint)(w, s)

    return given


async def an_unclaimed_message(w: World, s: Subject, owner: Conn) -> None:
    await a_message(hint=True)(w, s, owner)
    await owner.execute(
        "update webhook_inbox set id = $1, state = 'unclaimed', tries = 7 where dedupe_key = $2",
        s.created_other,
        str(s.created),
    )


async def old_message(w: World, s: Subject, owner: Conn) -> None:
    await a_message(hint=True)(w, s, owner)
    await owner.execute(
        "update webhook_inbox set received_at = now() - interval '8 days' where dedupe_key = $1", str(s.created)
    )


async def a_document(w: World, s: Subject, owner: Conn) -> None:
    await a_case(w, s, owner)
    async with w.db.begin() as tx:
        await lock_user(tx, s.user)
        keys = await profiles.keys_of(tx, w.keyring, s.user, "kyc_evidence")
        picture = Artifact(type="selfie", url="https://acme.example.in/selfie")
        await add_artifacts(tx, keys, s.key, s.created, [picture], now())
    await owner.execute("update kyc_artifacts set id = $1 where attempt_id = $2", s.created_other, s.created)


async def a_stored_document(w: World, s: Subject, owner: Conn) -> None:
    await a_document(w, s, owner)
    await fetch_waiting(w, s)


# Calls ----------------------------------------------------------------------------------------------------------------


def initiate(*, keyed: bool = False, again: bool = False) -> Call:
    return lambda w, s: verification.initiate(
        w.kyc, s.user, Initiate(), s.actor, attempt(w, s) if keyed else None, again=again
    )


def received(*, hint: bool) -> Call:
    evidence = Evidence(standing=Standing.APPROVED, vendor_status="so", checks={"pan": "passed"})

    def call(w: World, s: Subject) -> Coroutine[Any, Any, object]:
        event = WebhookEvent(
            event_id=str(s.created), vendor_case_id=str(s.created), evidence=None if hint else evidence
        )
        headers, body = signed(event)
        return webhooks.receive(w.kyc, "acme", None, headers, body, "request")

    return call


def fetch_waiting(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return artifacts.fetch_waiting(w.artifacts, lambda attempt_id, kind: attempts.fresh_url(w.kyc, attempt_id, kind))


def sweep(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return upkeep.sweep(w.kyc)


def look(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    row = AttemptRow(s.created, s.key, "acme", str(s.created), "started", Sealed(b""), None, None, 1)
    return attempts.look(w.kyc, row)


def decide(decision: kyc.Decision, reason: reviews.ReviewCode, *, four_eyes: bool = False, keyed: bool = False) -> Call:
    def call(w: World, s: Subject) -> Coroutine[Any, Any, object]:
        asked = reviews.Decide(case_id=s.key, decision=decision, reason=reason, case_version=2, note="so it is")
        reviewer = Actor(kind="admin", id=s.other, client="backoffice")
        own = replace(w.kyc, four_eyes=four_eyes)
        return reviews.decide(own, asked, reviewer, attempt(w, s) if keyed else None)

    return call


async def without_bytes(reading: Reading) -> object:
    await reading.chunks.aclose()
    return (reading.id, reading.type, reading.media_type, reading.size)


# The table ------------------------------------------------------------------------------------------------------------

APPLY = "kyc.apply"
INITIATE = "verification.initiate"
START = "attempts.start"
SWEEP = "upkeep.sweep"
WEBHOOKS = "webhooks.apply_waiting"
DECIDE = "reviews.decide"
CASE = "users kyc_cases kyc_checks"
HEARD = f"{CASE} kyc_evidence"
ENDED = "kyc.updated status.changed"
KYC_UPDATED = "user.kyc.updated.v1"
VERIFIED = f"{KYC_UPDATED} user.verified.v1"
STARTED = "kyc_cases kyc_attempts pii_disclosures"

CASES = [
    Case(APPLY, "approved", heard(Standing.APPROVED), a_case, HEARD, ENDED, VERIFIED),
    Case(APPLY, "declined", heard(Standing.REJECTED), a_case, HEARD, ENDED, KYC_UPDATED),
    Case(
        APPLY,
        "fraud after approval",
        heard(Standing.FRAUD),
        case_after(Standing.APPROVED),
        f"{HEARD} account_holds",
        f"{ENDED} hold.placed",
        f"{KYC_UPDATED} user.frozen.v1",
    ),
    Case(APPLY, "nothing new", heard(Standing.STARTED), a_case, "kyc_evidence"),
    Case(
        "lapses.end_case",
        "nobody finished it",
        lambda w, s: lapses.end_case(w.db, RULES, s.key, s.actor),
        a_case,
        CASE,
        ENDED,
        KYC_UPDATED,
    ),
    Case(
        "accounts.close",
        "with an open case",
        lambda w, s: accounts.close(w.db, w.keyring, RULES, s.user, accounts.Close("fraud"), s.actor, None),
        a_case,
        CASE,
        f"{ENDED} profile.read",
        f"{KYC_UPDATED} user.closed.v1",
        repeats=True,
    ),
    Case(
        "lapses.end_validity",
        "too old",
        lambda w, s: lapses.end_validity(w.db, RULES, s.user),
        lapsed,
        "users kyc_checks account_holds",
        "kyc.updated hold.placed status.changed",
        f"{KYC_UPDATED} user.suspended.v1",
    ),
    Case(
        "lapses.end_validities",
        "one is too old",
        lambda w, s: lapses.end_validities(w.db, RULES),
        lapsed,
        "users kyc_checks account_holds",
        "kyc.updated hold.placed status.changed",
        f"{KYC_UPDATED} user.suspended.v1",
    ),
    Case(
        INITIATE,
        "the first step",
        initiate(),
        after(create, everything),
        f"{CASE} kyc_attempts user_keys pii_disclosures",
        "kyc.initiated profile.read",
        "user.kyc.initiated.v1",
        steps=3,
        due=due,
        others=sweep,
    ),
    Case(
        INITIATE,
        "the first step, with a key",
        initiate(keyed=True),
        after(create, everything),
        f"{CASE} kyc_attempts user_keys pii_disclosures idempotency_keys",
        "kyc.initiated profile.read",
        "user.kyc.initiated.v1",
        steps=3,
        due=due,
        others=sweep,
    ),
    Case(INITIATE, "it is open", initiate(), a_case),
    Case(
        "verification.get_status",
        "a case is open",
        lambda w, s: verification.get_status(w.kyc, s.user),
        a_case,
    ),
    Case(
        START,
        "a new attempt",
        lambda w, s: attempts.start(w.kyc, s.created),
        a_new_case(),
        STARTED,
        "profile.read",
        steps=2,
        due=due,
    ),
    Case(
        START,
        "a vendor that answers at once",
        lambda w, s: attempts.start(w.kyc, s.created),
        a_new_case("quick", patched(ProfilePatch(first_name="Asha"))),  # without a PAN, which one of them has
        f"{STARTED} {HEARD}",
        f"profile.read {ENDED}",
        VERIFIED,
        steps=2,
        due=due,
    ),
    Case(
        START,
        "a vendor that is not reached",
        lambda w, s: attempts.start(w.kyc, s.created),
        a_new_case("away"),
        STARTED,
        "profile.read kyc.updated",
        steps=4,
        due=due,
        others=sweep,
    ),
    Case("attempts.look", "approved", look, a_case, f"{HEARD} kyc_artifacts", ENDED, VERIFIED),
    Case(
        "attempts.fresh_url",
        "it is there",
        lambda w, s: attempts.fresh_url(w.kyc, s.created, "selfie"),
        a_case,
    ),
    Case("attempts.lease", "free", lambda w, s: attempts.lease(w.kyc, s.key), a_case, "kyc_cases"),
    Case("attempts.free", "leased", lambda w, s: attempts.free(w.kyc, s.key), leased, "kyc_cases"),
    Case("attempts.postpone", "leased", lambda w, s: attempts.postpone(w.kyc, s.key, 30), leased, "kyc_cases"),
    Case(SWEEP, "one to start", sweep, a_new_case(), STARTED, "profile.read", steps=2, due=due),
    Case(SWEEP, "one to ask about", sweep, a_case, f"{HEARD} kyc_artifacts", ENDED, VERIFIED, steps=1, due=due),
    Case(
        "upkeep.reconcile",
        "one to ask about",
        lambda w, s: upkeep.reconcile(w.kyc, s.key),
        a_case,
        f"{HEARD} kyc_artifacts",
        ENDED,
        VERIFIED,
        steps=1,
        due=due,
    ),
    Case(
        "upkeep.list_open_cases",
        "one is open",
        lambda w, s: upkeep.list_open_cases(w.db, None, timedelta(), 1),
        a_case,
    ),
    Case(
        "upkeep.list_messages",
        "one waits",
        lambda w, s: upkeep.list_messages(w.db, None, 1),
        a_message(hint=True),
    ),
    Case(
        "upkeep.replay",
        "one that nobody claimed",
        lambda w, s: upkeep.replay(w.db, [s.created_other]),
        an_unclaimed_message,
        "webhook_inbox",
    ),
    Case("webhooks.receive", "new", received(hint=False), a_case, "webhook_inbox"),
    Case(
        WEBHOOKS,
        "one that says all",
        lambda w, s: webhooks.apply_waiting(w.kyc),
        a_message(hint=False),
        f"{HEARD} webhook_inbox",
        ENDED,
        VERIFIED,
        steps=2,
        due=due,
    ),
    Case(
        WEBHOOKS,
        "a hint",
        lambda w, s: webhooks.apply_waiting(w.kyc),
        a_message(hint=True),
        f"{HEARD} webhook_inbox kyc_artifacts",
        ENDED,
        VERIFIED,
        steps=2,
        due=due,
    ),
    Case(
        "webhooks.forget_old",
        "one is old",
        lambda w, s: webhooks.forget_old(w.kyc),
        old_message,
        "webhook_inbox",
    ),
    Case(
        "reviews.list_reviews",
        "one waits",
        lambda w, s: reviews.list_reviews(w.kyc, 1, None),
        case_after(Standing.REVIEW),
    ),
    Case(
        "reviews.get_case",
        "in clear",
        lambda w, s: reviews.get_case(w.kyc, s.key, s.actor, fields=["name"], purpose="compliance"),
        case_after(Standing.REVIEW),
        "pii_disclosures",
        "pii.revealed",
        repeats=True,
    ),
    Case(
        DECIDE,
        "approve",
        decide("approve", "documents_verified"),
        case_after(Standing.REVIEW),
        CASE,
        f"{ENDED} kyc.reviewed",
        VERIFIED,
    ),
    Case(
        DECIDE,
        "reject with a key",
        decide("reject", "documents_unclear", keyed=True),
        case_after(Standing.REVIEW),
        f"{CASE} idempotency_keys",
        f"{ENDED} kyc.reviewed",
        KYC_UPDATED,
    ),
    Case(
        DECIDE,
        "the first of two",
        decide("approve", "documents_verified", four_eyes=True),
        case_after(Standing.REVIEW),
        "kyc_cases",
        "kyc.reviewed",
    ),
    Case(
        "artifacts.fetch_waiting",
        "a selfie",
        fetch_waiting,
        a_document,
        "kyc_artifacts",
        steps=1,
        due=due,
    ),
    Case(
        "artifacts.open_artifact",
        "a selfie",
        lambda w, s: artifacts.open_artifact(w.artifacts, s.created_other, "compliance", s.actor),
        a_stored_document,
        "pii_disclosures",
        "artifact.read",
        repeats=True,
        shown=without_bytes,
    ),
]
