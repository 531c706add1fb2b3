"""Verbs of users, profiles, consents and preferences, and those of loops that are not KYC's."""

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.verbs.world import RULES, Call, Case, Subject, World, after
from usercore import cursors, worker
from usercore.accounts import actions as accounts
from usercore.archive import actions as archive
from usercore.audit import actions as audit
from usercore.consents import actions as consents
from usercore.db import Conn
from usercore.events import AuthAccountDeactivated, AuthCreated, now
from usercore.exports.actions import Opened, open_export
from usercore.idempotency import Attempt, fingerprints, keep_refusal
from usercore.lifecycle import actions as lifecycle
from usercore.lookup import actions as lookup
from usercore.outbox import SYSTEM, Actor
from usercore.prefs import actions as prefs
from usercore.prefs.queries import Prefs
from usercore.profiles.profile import AddressPatch, ProfilePatch
from usercore.trail import actions as trail
from usercore.users import actions as users

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
    return lambda w, s: w.writer.update(s.user, patch, s.actor)


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
    return Attempt(s.user, "POST", "/v1/me/consents", str(s.key), fingerprints(w.keyring, b"body")[0])


def refused_consent(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return keep_refusal(w.db, w.keyring, attempt(w, s), "trace", consent(granted=False, keyed=True)(w, s))


def replace_prefs(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return prefs.replace_prefs(w.db, s.user, Prefs(True, False, True, True, False, True), s.actor)


# Situations -----------------------------------------------------------------------------------------------------------


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


async def who_is_exported(export: Opened) -> object:
    return export.head.user


async def what_is_wrong(found: trail.Verified) -> object:
    return found.finding


async def nothing_of(_: object) -> object:
    return None


async def what_differs(found: archive.Reconciled) -> object:
    return found.differences


HOLDER = UUID(int=1)


async def sealed(w: World, s: Subject, owner: Conn) -> None:
    await unsealed(w, s, owner)
    await trail.seal(w.db, w.keyring)


async def archived(w: World, s: Subject, owner: Conn) -> None:
    await sealed(w, s, owner)
    while await archive.ship(w.db, w.archive, HOLDER):
        pass


async def lost(w: World, s: Subject, owner: Conn) -> None:
    """The archive has less than was sent to it."""
    await sealed(w, s, owner)
    await owner.execute(
        "update audit_archive set holder = $1, shipped_to = (select max(number) from audit_segments)", HOLDER
    )
    await w.archive.fetch("truncate table user_audit")


async def unsealed(w: World, s: Subject, owner: Conn) -> None:
    """The user's own rows, and of everybody else none."""
    while await trail.seal(w.db, w.keyring):
        pass
    await after(create, everything)(w, s, owner)


async def old_rows(w: World, s: Subject, owner: Conn) -> None:
    await after(create, consent(granted=True, keyed=True))(w, s, owner)
    await owner.execute("update idempotency_keys set created_at = now() - interval '25 hours' where sub = $1", s.user)
    await owner.execute("insert into inbox values ('topic', $1, now() - interval '31 days')", s.created)


ADMIN = Actor(kind="admin", client="backoffice", request_id="request", trace_id="trace")


def freeze(*, keyed: bool = False) -> Call:
    asked = accounts.Freeze("other", "because")
    return lambda w, s: accounts.freeze(w.db, w.keyring, s.user, asked, "risk", ADMIN, attempt(w, s) if keyed else None)


def unfreeze(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return accounts.unfreeze(w.db, w.keyring, s.user, accounts.Unfreeze("cleared"), "risk", ADMIN, None)


def close(w: World, s: Subject) -> Coroutine[Any, Any, object]:
    return accounts.close(w.db, w.keyring, RULES, s.user, accounts.Close("fraud"), ADMIN, None)


def get_user(*fields: str) -> Call:
    return lambda w, s: accounts.get_user(
        w.db, w.keyring, w.reader, s.user, ADMIN, fields=fields, purpose="support" if fields else None
    )


# The table ------------------------------------------------------------------------------------------------------------

USER = "users user_profiles notification_prefs user_keys"
CREATE = "users.create_user"
AUTH = "lifecycle.apply_auth_events"
UPDATE = "profiles.ProfileWriter.update"
CONSENT = "consents.give_consent"
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
        "consents.get_receipt",
        "of another's",
        lambda w, s: consents.get_receipt(w.db, w.keyring, s.user, s.key, "Example Broking Ltd"),
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
        "accounts.get_user",
        "masked",
        get_user(),
        after(create, everything),
        audit="profile.read",
        repeats=True,
    ),
    Case(
        "accounts.get_user",
        "revealed",
        get_user("phone", "email"),
        after(create, everything),
        "pii_disclosures",
        "pii.revealed",
        repeats=True,
    ),
    Case(
        "accounts.freeze",
        "active",
        freeze(),
        after(create, everything),
        "users account_holds",
        "hold.placed status.changed profile.read",
        "user.frozen.v1",
        repeats=True,  # it is looked at again
    ),
    Case(
        "accounts.freeze",
        "with a key",
        freeze(keyed=True),
        after(create, everything),
        "users account_holds idempotency_keys",
        "hold.placed status.changed profile.read",
        "user.frozen.v1",
    ),
    Case(
        "accounts.unfreeze",
        "frozen",
        unfreeze,
        after(create, everything, freeze()),
        "users account_holds",
        "hold.lifted status.changed profile.read",
        "user.unfrozen.v1",
        repeats=True,
    ),
    Case(
        "accounts.close",
        "frozen",
        close,
        after(create, everything, freeze()),
        "users",
        "status.changed profile.read",
        "user.closed.v1",
        repeats=True,
    ),
    Case(
        "accounts.get_account",
        "frozen",
        lambda w, s: accounts.get_account(w.db, s.user),
        after(create, freeze()),
    ),
    Case(
        "accounts.list_accesses",
        "one",
        lambda w, s: accounts.list_accesses(w.db, w.keyring, s.user, 1, None, None),
        after(create, get_user("phone")),
    ),
    Case(
        "audit.list_trail",
        "one",
        lambda w, s: audit.list_trail(
            w.db,
            w.keyring,
            s.user,
            action=None,
            since=audit.BEGINNING,
            until=audit.END,
            limit=1,
            cursor=None,
            archive=None,
        ),
        after(create),
    ),
    Case(
        "lookup.search",
        "by PAN",
        lambda w, s: lookup.search(w.db, w.keyring, lookup.Search(pan_number="ABCPD1234E", limit=1), ADMIN),
        after(create, everything),
        audit="user.searched",
        repeats=True,
    ),
    Case(
        "exports.open_export",
        "one's own",
        lambda w, s: open_export(w.kyc, None, "tests", s.user, s.actor),
        after(create, everything),
        audit="user.exported",
        repeats=True,
        shown=who_is_exported,
    ),
    Case("trail.verify", "untouched", lambda w, s: trail.verify(w.db, w.keyring), unsealed, shown=what_is_wrong),
    Case("trail.get_newest", "some", lambda w, s: trail.get_newest(w.db), sealed, shown=nothing_of),
    Case("trail.prove", "a row that is not there", lambda w, s: trail.prove(w.db, w.keyring, s.key), unsealed),
    Case(
        "archive.ship",
        "a segment",
        lambda w, s: archive.ship(w.db, w.archive, HOLDER),
        sealed,
        "audit_archive",
        shown=nothing_of,
    ),
    Case(
        "archive.look_after",
        "less than was sent",
        lambda w, s: archive.look_after(w.db, w.archive, HOLDER),
        lost,
        "audit_archive",
        shown=nothing_of,
    ),
    Case(
        "archive.reconcile",
        "the same",
        lambda w, s: archive.reconcile(w.db, w.archive),
        archived,
        shown=what_differs,
    ),
    Case("archive.retire", "no month", lambda w, s: archive.retire(w.db, w.archive, before=now()), archived),
    Case(
        "archive.list_older",
        "nothing left PostgreSQL",
        lambda w, s: archive.list_older(w.db, w.archive, s.user, cursors.NEWEST, 1),
        archived,
    ),
    Case(
        "archive.list_archived",
        "nothing left PostgreSQL",
        lambda w, s: archive.list_archived(w.db, w.archive, 1),
        archived,
    ),
    Case("trail.seal", "three rows", lambda w, s: trail.seal(w.db, w.keyring), unsealed, "audit_segments"),
    Case("worker.forget", "old rows", lambda w, s: worker.forget(w.db), old_rows, "idempotency_keys inbox"),
    Case(
        "relay.Relay.round",
        "three events",
        lambda w, s: w.relay.round(),
        after(create, everything, clear_and_replace),
        "outbox",
    ),
]
