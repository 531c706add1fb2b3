"""Every verb in the situations that matter, each with what one call of it leaves behind."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from msgspec import Struct, field

from usercore import app, telemetry, worker
from usercore.audit import actions as audit
from usercore.batcher import Batcher
from usercore.consents import actions as consents
from usercore.db import Conn, Db
from usercore.events import AuthAccountDeactivated, AuthCreated
from usercore.idempotency import Attempt, fingerprint, keep_refusal
from usercore.kyc import actions as kyc
from usercore.lapses import actions as lapses
from usercore.lifecycle import actions as lifecycle
from usercore.outbox import SYSTEM, Actor, AuditRow
from usercore.pii.keyring import Keyring
from usercore.plugins import Evidence, Standing
from usercore.prefs import actions as prefs
from usercore.prefs.queries import Prefs
from usercore.profiles import actions as profiles
from usercore.profiles.profile import AddressPatch, ProfilePatch
from usercore.profiles.queries import ReadProfileRow
from usercore.relay import Relay
from usercore.settings import load
from usercore.users import actions as users


class World(Struct):
    """The service as far as verbs reach, with a pool of one connection: a verb that keeps it starves the next one."""

    db: Db
    keyring: Keyring
    reader: profiles.ProfileReader
    relay: Relay


@asynccontextmanager
async def opened(environ: Mapping[str, str]) -> AsyncGenerator[World]:
    settings = load({**environ, "DB_POOL_SIZE": "1"})
    async with app.opened(settings) as parts:
        batcher: Batcher[AuditRow, ReadProfileRow | None] = Batcher(
            parts.db.dedicated, profiles.read_batch, telemetry.metrics.audit_write
        )
        relay = Relay(parts.db, settings)
        try:
            yield World(parts.db, parts.keyring, profiles.ProfileReader(batcher, parts.keyring), relay)
        finally:
            await relay._drop_producer()
            await batcher.close()


class Subject(Struct, frozen=True):
    """The user of one run, another one, and what else of the run has an id."""

    user: UUID = field(default_factory=uuid4)
    other: UUID = field(default_factory=uuid4)
    created: UUID = field(default_factory=uuid4)
    created_other: UUID = field(default_factory=uuid4)
    deactivated: UUID = field(default_factory=uuid4)
    key: UUID = field(default_factory=uuid4)

    @property
    def names(self) -> dict[UUID, str]:
        return {getattr(self, name): name for name in self.__struct_fields__}

    @property
    def actor(self) -> Actor:
        return Actor(kind="user", id=self.user, ip="203.0.113.7", request_id="request", trace_id="trace")


Call = Callable[[World, Subject], Coroutine[Any, Any, object]]
Given = Callable[[World, Subject, Conn], Awaitable[object]]


async def nobody(w: World, s: Subject, owner: Conn) -> None: ...


class Case(Struct, frozen=True):
    """One call of a verb in a situation that `given` makes, and what the call leaves behind.

    `changes` names the tables besides those of audit and outbox. A second call leaves nothing more, unless `repeats`.
    """

    verb: str
    situation: str
    call: Call
    given: Given = nobody
    changes: str = ""
    audit: str = ""
    events: str = ""
    repeats: bool = False

    @property
    def name(self) -> str:
        return f"{self.verb}: {self.situation}"


# Calls ----------------------------------------------------------------------------------------------------------------

EMAIL = "asha@example.in"
AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)


def create(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return users.create_user(w.db, w.keyring, s.user, EMAIL, s.actor)


def created(event_id: UUID, user_id: UUID) -> AuthCreated:
    return AuthCreated(event_id=event_id, occurred_at=AT, auth_id=user_id, email=f"{user_id}@example.in")


def auth_created(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return lifecycle.apply_auth_events(w.db, w.keyring, [created(s.created, s.user)], [])


def auth_deactivated(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    event = AuthAccountDeactivated(event_id=s.deactivated, occurred_at=AT, auth_id=s.user, reason="left")
    return lifecycle.apply_auth_events(w.db, w.keyring, [], [event])


def auth_batch(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    both = [created(s.created, s.user), created(s.created_other, s.other)]
    event = AuthAccountDeactivated(event_id=s.deactivated, occurred_at=AT, auth_id=s.user, reason="left")
    return lifecycle.apply_auth_events(w.db, w.keyring, both, [event])


def patched(patch: ProfilePatch) -> Call:
    return lambda w, s: profiles.update_profile(w.db, w.keyring, s.user, patch, s.actor)


ADDRESS = AddressPatch(line1="1 MG Road", city="Pune", state="MH", pin_code="411001")
everything = patched(
    ProfilePatch(
        first_name="Asha",
        last_name="Rao",
        date_of_birth="1990-01-02",
        pan_number="ABCPD1234E",
        aadhaar_last4="1234",
        address=ADDRESS,
        phone="+919876543210",
        avatar_url="https://example.in/a.png",
    )
)

clear_and_replace = patched(ProfilePatch(last_name=None, phone="+919876543211", avatar_url=None))


def consent(*, granted: bool, version: str = "2026-01", keyed: bool = False) -> Call:
    said = consents.GiveConsent("marketing", version, granted)
    return lambda w, s: consents.give_consent(w.db, w.keyring, s.user, said, s.actor, attempt(w, s) if keyed else None)


def attempt(w: World, s: Subject) -> Attempt:
    return Attempt(s.user, "POST", "/v1/me/consents", str(s.key), fingerprint(w.keyring, b"body"))


def refused_consent(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return keep_refusal(w.db, w.keyring, attempt(w, s), "trace", consent(granted=False, keyed=True)(w, s))


def replace_prefs(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return prefs.replace_prefs(w.db, s.user, Prefs(True, False, True, True, False, True), s.actor)


# Situations -----------------------------------------------------------------------------------------------------------


def after(*calls: Call) -> Given:
    async def given(w: World, s: Subject, owner: Conn) -> None:
        for call in calls:
            await call(w, s)

    return given


def create_without_email(user: str) -> Call:
    return lambda w, s: users.create_user(w.db, w.keyring, getattr(s, user), None, SYSTEM)


async def broken_key(w: World, s: Subject, owner: Conn) -> None:
    await after(create, everything)(w, s, owner)
    await owner.execute(
        "update user_keys set wrapped = sha256(wrapped) where user_id = $1 and retention_class = 'identity'", s.user
    )


async def missing_partition(w: World, s: Subject, owner: Conn) -> None:
    last = await owner.fetchval("select name from audit_partitions order by starts_at desc limit 1")
    await owner.execute(f"drop table {last}")
    await owner.execute("delete from audit_partitions where name = $1", last)


async def old_rows(w: World, s: Subject, owner: Conn) -> None:
    await after(create, consent(granted=True, keyed=True))(w, s, owner)
    await owner.execute("update idempotency_keys set created_at = now() - interval '25 hours' where sub = $1", s.user)
    await owner.execute("insert into inbox values ('topic', $1, now() - interval '31 days')", s.created)


async def a_case(w: World, s: Subject, owner: Conn) -> None:
    """`s.key` is a case, `s.created` its attempt, which the vendor has taken. Without a PAN, which one of them has."""
    await after(create)(w, s, owner)
    async with w.db.begin() as tx:
        await profiles.keys_of(tx, w.keyring, s.user, "kyc_evidence")
    await owner.execute(
        """insert into kyc_cases (id, user_id, vendor, target_tier, initiated_at, expires_at, next_look_at)
        values ($1, $2, 'acme', 'tier_1', now(), now(), now())""",
        s.key,
        s.user,
    )
    await owner.execute(
        """insert into kyc_attempts (id, case_id, vendor, vendor_case_id, state, token_hash, token_enc, created_at)
        values ($1, $2, 'acme', $4, 'started', sha256(convert_to($4, 'UTF8')), $3, now())""",
        s.created,
        s.key,
        b"\x01" * 64,
        str(s.created),
    )


RULES = kyc.Rules(
    tiers={"tier_1": frozenset({"pan"}), "tier_2": frozenset({"address"}), "tier_3": frozenset({"bank"})},
    validity=timedelta(days=730),
)


def heard(standing: Standing) -> Call:
    evidence = Evidence(standing=standing, vendor_status="so", checks={"pan": "passed"})
    return lambda w, s: kyc.apply(
        w.db, w.keyring, RULES, s.key, kyc.Heard(s.created, "webhook", standing.name, evidence), s.actor
    )


async def approved(w: World, s: Subject, owner: Conn) -> None:
    await a_case(w, s, owner)
    await heard(Standing.APPROVED)(w, s)


async def lapsed(w: World, s: Subject, owner: Conn) -> None:
    await approved(w, s, owner)
    await owner.execute("update kyc_checks set valid_until = now() where user_id = $1", s.user)


# The table ------------------------------------------------------------------------------------------------------------

USER = "users user_profiles notification_prefs user_keys"
CREATE = "users.create_user"
AUTH = "lifecycle.apply_auth_events"
UPDATE = "profiles.update_profile"
CONSENT = "consents.give_consent"
KYC = "kyc.apply"
PROFILE = "users user_profiles"
UPDATED = "profile.read profile.updated"
EVENT = "user.updated.v1"

CASES = [
    Case(CREATE, "new", create, changes=USER, audit="user.created", events="user.created.v1"),
    Case(CREATE, "there", create, after(create)),
    Case(AUTH, "created", auth_created, changes=f"{USER} inbox", audit="user.created", events="user.created.v1"),
    Case(AUTH, "consumed before", auth_batch, after(auth_batch)),
    Case(AUTH, "another address", auth_created, after(create), changes="inbox"),
    Case(
        AUTH,
        "address filled in",
        auth_created,
        after(create_without_email("user")),
        changes=f"{PROFILE} inbox",
        audit="profile.updated",
        events=EVENT,
    ),
    Case(
        AUTH,
        "deactivated",
        auth_deactivated,
        after(create),
        changes="users account_holds inbox",
        audit="hold.placed status.changed",
        events="user.frozen.v1",
    ),
    Case(
        AUTH,
        "deactivated before created",
        auth_deactivated,
        changes=f"{USER} account_holds inbox",
        audit="hold.placed status.changed user.created",
        events="user.created.v1 user.frozen.v1",
    ),
    Case(
        AUTH,
        "deactivated, with a broken key",
        auth_deactivated,
        broken_key,
        changes="users account_holds user_keys inbox",
        audit="hold.placed status.changed",
        events="user.frozen.v1",
    ),
    Case(
        AUTH,
        "a batch of everything",
        auth_batch,
        after(create_without_email("other")),
        changes=f"{USER} account_holds inbox",
        audit="hold.placed profile.updated status.changed user.created",
        events="user.created.v1 user.frozen.v1 user.updated.v1",
    ),
    Case("users.get_version", "there", lambda w, s: users.get_version(w.db, s.user), after(create)),
    Case(
        "profiles.ProfileReader.read",
        "there",
        lambda w, s: w.reader.read(s.user, s.actor),
        after(create, everything),
        audit="profile.read",
        repeats=True,
    ),
    Case(UPDATE, "everything", everything, after(create), PROFILE, UPDATED, EVENT, repeats=True),
    Case(
        UPDATE,
        "clear and replace",
        clear_and_replace,
        after(create, everything),
        PROFILE,
        UPDATED,
        EVENT,
        repeats=True,
    ),
    Case(
        UPDATE,
        "merge the address",
        patched(ProfilePatch(address=AddressPatch(city="Satara", line2="Flat 2"))),
        after(create, everything),
        PROFILE,
        UPDATED,
        EVENT,
        repeats=True,
    ),
    Case(
        UPDATE,
        "replace a broken key",
        patched(ProfilePatch(first_name="Asha")),
        broken_key,
        f"{PROFILE} user_keys",
        UPDATED,
        EVENT,
        repeats=True,
    ),
    Case(UPDATE, "nothing new", everything, after(create, everything), audit="profile.read", repeats=True),
    Case(UPDATE, "frozen account", everything, after(create, auth_deactivated)),
    Case(
        CONSENT,
        "grant",
        consent(granted=True),
        after(create),
        "user_consents",
        "consent.granted",
        repeats=True,
    ),
    Case(
        CONSENT,
        "grant with a key",
        consent(granted=True, keyed=True),
        after(create),
        "user_consents idempotency_keys",
        "consent.granted",
    ),
    Case(
        CONSENT,
        "supersede with a key",
        consent(granted=True, version="2026-02", keyed=True),
        after(create, consent(granted=True)),
        "user_consents idempotency_keys",
        "consent.granted",
    ),
    Case(
        CONSENT,
        "withdraw",
        consent(granted=False),
        after(create, consent(granted=True)),
        "user_consents",
        "consent.revoked",
    ),
    Case(
        CONSENT,
        "withdraw with a key",
        consent(granted=False, keyed=True),
        after(create, consent(granted=True)),
        "user_consents idempotency_keys",
        "consent.revoked",
    ),
    Case("idempotency.keep_refusal", "nothing to withdraw", refused_consent, after(create), "idempotency_keys"),
    Case(
        "consents.list_consents",
        "current",
        lambda w, s: consents.list_consents(w.db, s.user, history=False),
        after(create, consent(granted=True)),
    ),
    Case(
        "prefs.replace_prefs",
        "others",
        replace_prefs,
        after(create),
        "notification_prefs",
        "prefs.updated",
    ),
    Case("prefs.replace_prefs", "the same", replace_prefs, after(create, replace_prefs)),
    Case("prefs.get_prefs", "there", lambda w, s: prefs.get_prefs(w.db, s.user), after(create)),
    Case(
        "audit.keep_partitions",
        "one is missing",
        lambda w, s: audit.keep_partitions(w.db),
        missing_partition,
        "audit_partitions pg_inherits",
    ),
    Case(
        KYC,
        "approved",
        heard(Standing.APPROVED),
        a_case,
        "users kyc_cases kyc_checks kyc_evidence",
        "kyc.updated status.changed",
        "user.kyc.updated.v1 user.verified.v1",
    ),
    Case(
        KYC,
        "declined",
        heard(Standing.REJECTED),
        a_case,
        "users kyc_cases kyc_checks kyc_evidence",
        "kyc.updated status.changed",
        "user.kyc.updated.v1",
    ),
    Case(
        KYC,
        "fraud after approval",
        heard(Standing.FRAUD),
        approved,
        "users kyc_cases kyc_checks kyc_evidence account_holds",
        "kyc.updated status.changed hold.placed",
        "user.kyc.updated.v1 user.frozen.v1",
    ),
    Case(KYC, "nothing new", heard(Standing.STARTED), a_case, "kyc_evidence"),
    Case(
        "lapses.end_case",
        "nobody finished it",
        lambda w, s: lapses.end_case(w.db, RULES, s.key, s.actor),
        a_case,
        "users kyc_cases kyc_checks",
        "kyc.updated status.changed",
        "user.kyc.updated.v1",
    ),
    Case(
        "lapses.end_validity",
        "too old",
        lambda w, s: lapses.end_validity(w.db, RULES, s.user),
        lapsed,
        "users kyc_checks account_holds",
        "kyc.updated hold.placed status.changed",
        "user.kyc.updated.v1 user.suspended.v1",
    ),
    Case(
        "lapses.end_validities",
        "one is too old",
        lambda w, s: lapses.end_validities(w.db, RULES),
        lapsed,
        "users kyc_checks account_holds",
        "kyc.updated hold.placed status.changed",
        "user.kyc.updated.v1 user.suspended.v1",
    ),
    Case("worker.forget", "old rows", lambda w, s: worker.forget(w.db), old_rows, "idempotency_keys inbox"),
    Case(
        "relay.Relay.round",
        "three events",
        lambda w, s: w.relay.round(),
        after(create, everything, clear_and_replace),
        "outbox",
    ),
]
