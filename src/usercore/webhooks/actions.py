"""Verbs of webhooks: receive one, apply what waits, forget what is old. Transactions begin and end here.

Receiving verifies, seals, inserts and answers; it waits for no vendor. Applying reads the message again, fetches the
result where the message alone is no proof, and hands it on as evidence. A crash anywhere leaves a row that is tried
again, and evidence counts once.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from datetime import date, timedelta
from uuid import UUID

import msgspec

from usercore import logs, telemetry
from usercore.attempts.actions import AttemptRow, Kyc, find, find_by_token, free, lease, look
from usercore.db import Conn
from usercore.errors import AccountErased, KeysUnavailable, MalformedWebhook, OpenFailed, Unauthenticated
from usercore.events import new_event_id, now
from usercore.kyc.actions import Heard, apply
from usercore.outbox import Actor
from usercore.pii import classification as pii
from usercore.pii.keyring import Keyring, UserKeys
from usercore.pii.wraps import UserKeyRow
from usercore.plugins import (
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorUnavailable,
    WebhookEvent,
    WebhookScheme,
)
from usercore.plugins.loading import Vendor
from usercore.plugins.webhooks import RawHeaders, authenticates_body, readable, verify
from usercore.webhooks import queries
from usercore.webhooks.payload import without_aadhaar
from usercore.webhooks.queries import MessageRow, NewMessage, WebhookState

log = telemetry.logger(__name__)

LEASE_S = 30
"""A worker has applied a message by then, or it is dead."""
BATCH = 16
"""Messages applied at once by one worker."""
LONGEST_PAUSE_S = 600
UNCLAIMED_AFTER = timedelta(hours=24)
"""So long a message for an attempt that we do not know waits: the vendor may be faster than our own commit."""
KEPT = timedelta(days=7)


async def receive(
    kyc: Kyc, name: str | None, token: str | None, headers: RawHeaders, body: bytes, request_id: str
) -> None:
    """Keep a message that is authentic. Without a name exactly one enabled vendor has to accept it.

    Raises Unauthenticated, the same for whatever is wrong, MalformedWebhook for a message that nobody can read, and
    KeysUnavailable.
    """
    at = time.time()
    named = kyc.vendors.values() if name is None else filter(None, (kyc.vendors.get(name),))
    accepting: list[tuple[Vendor, WebhookScheme]] = [
        (each, each.enabled.webhook.scheme)
        for each in named
        if each.enabled.webhook is not None and verify(each.enabled.webhook, headers, body, token, at)
    ]
    if len(accepting) != 1:
        raise Unauthenticated("The message is not authentic.")
    ((vendor, scheme),) = accepting
    attempt: AttemptRow | None = None
    if scheme == "url_token":
        async with kyc.db.read() as conn:
            attempt = await find_by_token(conn, vendor.name, token or "")
        if attempt is None:
            raise Unauthenticated("The message is not authentic.")
    told = readable(headers)
    try:
        event = vendor.kyc.read_webhook(told, body)
    except VendorError:
        raise MalformedWebhook() from None
    if attempt is not None and not _names(event, attempt):
        raise Unauthenticated("The message is not authentic.")
    received = now()
    async with kyc.db.begin() as tx:
        keys = await _keys(tx, kyc.keyring, received.date())
        message = NewMessage(
            id=new_event_id(),
            vendor=vendor.name,
            dedupe_key=event.event_id or hashlib.sha256(body).hexdigest(),
            attempt_id=None if attempt is None else attempt.id,
            authentic_body=authenticates_body(scheme),
            body_enc=keys.seal(pii.WEBHOOK_BODY, without_aadhaar(body).decode("latin-1")),
            headers_enc=keys.seal(pii.WEBHOOK_HEADERS, msgspec.json.encode(_kept(told, vendor)).decode()),
            day=received.date(),
            request_id=request_id,
            traceparent=telemetry.current_traceparent(),
            received_at=received,
        )
        fresh = await queries.accept_message(tx, message=message)
    telemetry.metrics.webhook_received(vendor.name, "new" if fresh else "duplicate")


def _names(event: WebhookEvent, attempt: AttemptRow) -> bool:
    """Whether a message is about the attempt whose secret it came with: it may name no other.

    It may be here before the vendor's answer to the start is, which says what the vendor calls the attempt.
    """
    own = event.attempt_id in (None, str(attempt.id))
    return own and (attempt.vendor_case_id is None or event.vendor_case_id in (None, attempt.vendor_case_id))


def _kept(headers: Mapping[str, str], vendor: Vendor) -> dict[str, str]:
    """The headers without what authenticates them: nobody needs a secret again."""
    secret = {"authorization", "cookie", vendor.enabled.installed.spec.webhook_header.lower()}
    return {name: value for name, value in headers.items() if name not in secret}


async def _keys(tx: Conn, keyring: Keyring, day: date) -> UserKeys:
    """The key of a day, made when it is the first to be used. It belongs to the day as a user's key does to a user."""
    owner = UUID(int=day.toordinal())
    row = await queries.get_key(tx, day=day)
    if row is None:
        (made,) = keyring.new_user_keys(owner, (pii.WEBHOOK_BODY.retention,))
        await queries.accept_key(tx, day=day, key=made)
        row = await queries.get_key(tx, day=day)
        assert row is not None
    return keyring.unlock(owner, [UserKeyRow(owner, pii.WEBHOOK_BODY.retention, 1, row.epoch, row.wrapped)])


async def apply_waiting(kyc: Kyc) -> int:
    """Apply messages that are due; the number of them."""
    at = now()
    async with kyc.db.begin() as tx:
        until = at + timedelta(seconds=LEASE_S)
        messages = await queries.take_waiting(tx, at=at, leased_until=until, most=BATCH)
    await asyncio.gather(*(_apply(kyc, message) for message in messages))
    return len(messages)


async def _apply(kyc: Kyc, message: MessageRow) -> None:
    trace = telemetry.parse_traceparent(message.traceparent) if message.traceparent else None
    ids = logs.bound(message.request_id, None if trace is None else trace.trace_id)
    with ids, telemetry.span("user.process_kyc_webhook"):
        try:
            state = await _applied(kyc, message)
        except (VendorPending, VendorUnavailable, KeysUnavailable) as error:
            await _later(kyc, message, error)
        except (VendorError, OpenFailed, AccountErased) as error:
            log.error("webhook_not_applied", error, vendor=message.vendor)
            await _later(kyc, message, error)
        else:
            await (_later(kyc, message, None) if state is None else _done(kyc, message, state))


async def _applied(kyc: Kyc, message: MessageRow) -> WebhookState | None:
    """What became of it; None when its attempt is not known, or somebody else asks the vendor about its case."""
    vendor = kyc.vendors.get(message.vendor)
    if vendor is None or message.body_enc is None or message.headers_enc is None:
        return None
    async with kyc.db.begin() as tx:
        keys = await _keys(tx, kyc.keyring, message.day)
    headers = msgspec.json.decode(keys.open(pii.WEBHOOK_HEADERS, message.headers_enc).reveal(), type=dict[str, str])
    body = keys.open(pii.WEBHOOK_BODY, message.body_enc).reveal().encode("latin-1")
    try:
        event = vendor.kyc.read_webhook(headers, body)
    except VendorProtocolError:
        return "unreadable"
    own = event.attempt_id if message.attempt_id is None else str(message.attempt_id)
    async with kyc.db.read() as conn:
        attempt = await find(conn, vendor.name, event.vendor_case_id, own)
    if attempt is None:
        return "unclaimed" if now() - message.received_at > UNCLAIMED_AFTER else None
    actor = Actor(kind="vendor", client=vendor.name, request_id=message.request_id)
    if message.authentic_body and event.evidence is not None:
        heard = Heard(attempt.id, "webhook", event.event_id or str(message.id), event.evidence)
        await apply(kyc.db, kyc.keyring, kyc.rules, attempt.case_id, heard, actor)
        return "applied"
    if not await lease(kyc, attempt.case_id):
        return None
    try:
        await look(kyc, attempt, actor)
    finally:
        await free(kyc, attempt.case_id)
    return "applied"


async def _done(kyc: Kyc, message: MessageRow, state: WebhookState) -> None:
    at = now()
    async with kyc.db.begin() as tx:
        if state == "applied":
            await queries.set_applied(tx, message_id=message.id, at=at)
        else:
            await queries.set_given_up(tx, message_id=message.id, state=state, at=at)
    telemetry.metrics.webhook_applied(message.vendor, state, (at - message.received_at).total_seconds())


async def _later(kyc: Kyc, message: MessageRow, error: Exception | None) -> None:
    """Soon the first times: an attempt may be a commit away, and a vendor often says so before it has the result."""
    pause_s = min(0.1 * 2**message.tries, LONGEST_PAUSE_S)
    if isinstance(error, VendorUnavailable) and error.retry_after_s is not None:
        pause_s = max(pause_s, error.retry_after_s)
    async with kyc.db.begin() as tx:
        await queries.set_next_try(tx, message_id=message.id, at=now() + timedelta(seconds=pause_s))


async def forget_old(kyc: Kyc) -> None:
    """Destroy messages that are a week old, and their keys."""
    async with kyc.db.begin() as tx:
        await queries.take_old(tx, before=now() - KEPT)
