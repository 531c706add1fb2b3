"""What a change leaves behind: its audit row, and its outbox row when it carries an event.

`record` writes both in the transaction of the change itself, so there is no change without audit and no event without
its change. The leaf hash of an audit row covers canonical bytes that any reader of the row can make again; the Merkle
tree over the trail is built from these hashes.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.events import UserEvent, new_event_id, now
from usercore.telemetry import metrics

sql = Sql("outbox")

AuditAction = Literal[
    "user.created",
    "profile.read",
    "profile.updated",
    "pii.revealed",
    "consent.granted",
    "consent.revoked",
    "prefs.updated",
    "kyc.initiated",
    "kyc.updated",
    "kyc.reviewed",
    "status.changed",
    "hold.placed",
    "hold.lifted",
    "user.searched",
    "user.exported",
    "user.erased",
    "artifact.read",
]
ActorKind = Literal["user", "internal", "admin", "vendor", "system"]
AccessPurpose = Literal["support", "compliance", "fraud_investigation", "legal_request", "operations"]


class Actor(Struct, frozen=True, kw_only=True):
    """Who does something, and from where. `ip_mac` is the keyed digest that stays when the address is forgotten."""

    kind: ActorKind
    id: UUID | None = None
    client: str | None = None
    scope: str | None = None
    purpose: AccessPurpose | None = None
    ip: str | None = None
    ip_mac: bytes | None = None
    request_id: str | None = None
    trace_id: str | None = None
    traceparent: str | None = None


SYSTEM = Actor(kind="system")


class Change(Struct, frozen=True, kw_only=True):
    """One thing that happened, to one user or to none. Values are JSON scalars; `Sealed` ones stay ciphertext.

    What is the same each time may be given as the text that `audit_text` makes of it.
    """

    action: AuditAction
    user_id: UUID | None
    resource: str
    old: Mapping[str, object] | str | None = None
    new: Mapping[str, object] | str | None = None
    event: UserEvent | None = None


class AuditRow(Struct, frozen=True):
    """A row of user_audit but for its transaction id, which PostgreSQL fills in."""

    event_id: UUID
    user_id: UUID | None
    actor_id: UUID | None
    actor_kind: ActorKind
    client: str | None
    action: AuditAction
    resource: str
    old_value: str | None
    new_value: str | None
    ip_addr: str | None
    ip_mac: bytes | None
    timestamp: datetime
    scope: str | None
    purpose: AccessPurpose | None
    request_id: str | None
    trace_id: str | None
    leaf_hash: bytes


class OutboxRow(Struct, frozen=True):
    """A row of outbox but for the columns that PostgreSQL fills in. `payload` is the event's JSON."""

    event_id: UUID
    user_id: UUID
    topic: str
    payload: str
    occurred_at: datetime
    traceparent: str | None


@sql
async def add_records(conn: Conn, *, audit: Sequence[AuditRow], events: Sequence[OutboxRow]) -> None: ...


class Backlog(Struct, frozen=True):
    """How many events wait for Kafka, and since when."""

    depth: int
    oldest: datetime | None


@sql
async def get_backlog(conn: Conn) -> Backlog: ...


@sql
async def take_consumed(conn: Conn) -> None: ...


async def record(tx: Conn, *changes: Change, actor: Actor) -> list[UUID]:
    """Write the audit row of each change, and the outbox row of each that carries an event, in one round trip.

    Returns the ids of the audit rows.
    """
    records = records_of(changes, actor)
    with counted(len(records.audit)):
        await add_records(tx, audit=records.audit, events=records.events)
    return [row.event_id for row in records.audit]


class Records(Struct, frozen=True):
    """What changes leave behind."""

    audit: list[AuditRow]
    events: list[OutboxRow]


def records_of(changes: Sequence[Change], actor: Actor) -> Records:
    """For statements that write a change together with its records; all others call `record`."""
    return Records(
        [audit_row(change, actor) for change in changes],
        [outbox_row(change.event, actor) for change in changes if change.event is not None],
    )


class Written:
    """`rows` is set when the statement found that there was less to write."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


@contextmanager
def counted(rows: int) -> Generator[Written]:
    """Count audit rows by whether the statement that writes them worked; one that failed undid its change too."""
    written = Written(rows)
    try:
        yield written
    except BaseException:
        metrics.audit_write("failure", rows)
        raise
    metrics.audit_write("success", written.rows)


def audit_row(change: Change, actor: Actor, at: datetime | None = None) -> AuditRow:
    """The audit row of a change. `at` (UTC, now when absent) is the row's time and chooses its partition."""
    event_id = new_event_id()
    timestamp = at or now()
    old, new = _text(change.old), _text(change.new)
    return AuditRow(
        event_id,
        change.user_id,
        actor.id,
        actor.kind,
        actor.client,
        change.action,
        change.resource,
        old,
        new,
        actor.ip,
        actor.ip_mac,
        timestamp,
        actor.scope,
        actor.purpose,
        actor.request_id,
        actor.trace_id,
        leaf_hash(
            event_id,
            change.user_id,
            actor.id,
            actor.kind,
            actor.client,
            change.action,
            change.resource,
            old,
            new,
            actor.ip_mac,
            timestamp,
            actor.scope,
            actor.purpose,
            actor.request_id,
            actor.trace_id,
        ),
    )


def outbox_row(event: UserEvent, actor: Actor) -> OutboxRow:
    payload = msgspec.json.encode(event).decode()
    return OutboxRow(event.event_id, event.user_id, event.topic, payload, event.occurred_at, actor.traceparent)


def audit_text(values: Mapping[str, object]) -> str:
    """Values as the JSON text that user_audit keeps. Ciphertext becomes {"sealed": base64}, so a reader can tell."""
    marked = {name: {"sealed": value} if isinstance(value, bytes) else value for name, value in values.items()}
    return msgspec.json.encode(marked).decode()


def _text(values: Mapping[str, object] | str | None) -> str | None:
    return values if values is None or isinstance(values, str) else audit_text(values)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_canonical = msgspec.msgpack.Encoder()


def microseconds(at: datetime) -> int:
    """Since 1970: exact, whatever time zone a session shows."""
    return (at - _EPOCH) // _MICROSECOND


def from_microseconds(since_1970: int) -> datetime:
    """The time of which `microseconds` made this."""
    return _EPOCH + since_1970 * _MICROSECOND


def leaf_hash(
    event_id: UUID,
    user_id: UUID | None,
    actor_id: UUID | None,
    actor_kind: ActorKind,
    client: str | None,
    action: AuditAction,
    resource: str,
    old_value: str | None,
    new_value: str | None,
    ip_mac: bytes | None,
    timestamp: datetime,
    scope: str | None,
    purpose: AccessPurpose | None,
    request_id: str | None,
    trace_id: str | None,
) -> bytes:
    """SHA-256 of the leaf's canonical bytes, domain-separated from inner nodes as in RFC 9162, section 2.1.1.

    The bytes are a MessagePack array in shortest forms: text as str, digests and the 16 bytes of a UUID as bin, absent
    as nil, the time as microseconds since 1970.
    """
    fields = (
        event_id.bytes,
        user_id.bytes if user_id is not None else None,
        actor_id.bytes if actor_id is not None else None,
        actor_kind,
        client,
        action,
        resource,
        old_value,
        new_value,
        ip_mac,
        microseconds(timestamp),
        scope,
        purpose,
        request_id,
        trace_id,
    )
    return hashlib.sha256(b"\x00" + _canonical.encode(fields)).digest()
