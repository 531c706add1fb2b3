"""Verbs of what follows an erasure: remove documents, tell vendors, enter it in the list, sign the certificate.

Each step can be repeated; the workers go on where one was cut off.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore import telemetry
from usercore.artifacts.actions import Artifacts, path_of
from usercore.attempts.actions import Kyc
from usercore.db import Conn
from usercore.erased import queries
from usercore.erased.queries import ErasureRow, Outstanding
from usercore.errors import ServiceUnavailable
from usercore.events import now
from usercore.pii.classification import RetentionClass
from usercore.plugins import Attempt, VendorError
from usercore.signatures import sign

LIST = "erased/"
"""Where the store of artifacts keeps who was erased: a backup of PostgreSQL that is restored does not know."""
RETRY_S = 60.0
BATCH = 20

log = telemetry.logger(__name__)


class Erasing(Struct, frozen=True):
    """What these verbs work with; `periods` are those of the settings, which go before the law's."""

    kyc: Kyc
    artifacts: Artifacts
    periods: Mapping[str, timedelta]
    controller: str


class DestroyedKey(Struct, frozen=True):
    """A data key that is gone; `wrap` is the SHA-256 of its wrap, which a backup may still have."""

    retention_class: RetentionClass
    version: int
    wrap: str


class StoreEvidence(Struct, frozen=True):
    store: str
    done: str
    at: datetime


class Kept(Struct, frozen=True):
    """What the law keeps, locked, and until when."""

    retention_class: RetentionClass
    until: datetime


class Certificate(Struct, frozen=True):
    """What was done and when; `audit_event_id` is its row in the audit trail, which names the same keys."""

    user_id: UUID
    controller: str
    reason: str
    erased_at: datetime
    issued_at: datetime
    audit_event_id: UUID
    keys_destroyed: list[DestroyedKey]
    stores: list[StoreEvidence]
    kept: list[Kept]


class SignedCertificate(Struct, frozen=True):
    """`jws` signs the JSON of `certificate`."""

    certificate: Certificate
    jws: str


class Listed(Struct, frozen=True):
    """An entry of the list of erased people."""

    user_id: UUID
    reason: str
    erased_at: datetime


async def get_certificate(work: Erasing, user_id: UUID) -> SignedCertificate | None:
    """None while something is outstanding, and for whoever is not erased."""
    async with work.kyc.db.read() as conn:
        row = await queries.get_erasure(conn, user_id=user_id)
    if row is None or row.certificate is None:
        return None
    return msgspec.json.decode(row.certificate, type=SignedCertificate)


async def get_outstanding(conn: Conn) -> Outstanding:
    """What is not complete."""
    return await queries.get_outstanding(conn)


async def finish_open(work: Erasing) -> int:
    """Take up erasures that are not complete and whose turn it is; their number."""
    at = now()
    async with work.kyc.db.begin() as tx:
        taken = await queries.take_open(tx, at=at, again_at=at + timedelta(seconds=RETRY_S), most=BATCH)
    for user_id in taken:
        await finish(work, user_id)
    return len(taken)


async def finish(work: Erasing, user_id: UUID) -> None:
    """Do what is outstanding, and sign the certificate when nothing is. What cannot be done now is done later."""
    async with work.kyc.db.read() as conn:
        row = await queries.get_erasure(conn, user_id=user_id)
    if row is None or row.certificate is not None:
        return
    listed_at, told_at, gone_at = row.listed_at, row.vendors_told_at, row.artifacts_gone_at
    try:
        if listed_at is None:
            entry = Listed(user_id, row.reason, row.erased_at)
            await work.artifacts.store.put(f"{LIST}{user_id}", bytearray(msgspec.json.encode(entry)))
            listed_at = now()
        if gone_at is None and row.kyc_evidence_until is None:
            await _remove_documents(work, user_id)
            gone_at = now()
        if told_at is None:
            await _tell_vendors(work, user_id)
            told_at = now()
    except (ServiceUnavailable, VendorError) as error:
        log.warning("erasure_waits", error, user_id=str(user_id))
    async with work.kyc.db.begin() as tx:
        await queries.set_progress(
            tx, user_id=user_id, listed_at=listed_at, vendors_told_at=told_at, artifacts_gone_at=gone_at
        )
        row = await queries.get_erasure(tx, user_id=user_id)
        assert row is not None
        stores = _evidence(row)
        if stores is not None and work.kyc.keyring.available:
            certificate = _certificate(work, row, stores)
            signed = SignedCertificate(certificate, sign(work.kyc.keyring, "erasure-certificate", certificate))
            await queries.set_certificate(tx, user_id=user_id, certificate=msgspec.json.encode(signed).decode())


async def list_erased(work: Erasing, size: int) -> AsyncGenerator[list[UUID]]:
    """Everybody in the list, some at a time. Raises ServiceUnavailable."""
    async for names in work.artifacts.store.list(LIST, size):
        yield [UUID(name.removeprefix(LIST)) for name in names]


async def get_listed(work: Erasing, user_id: UUID) -> Listed:
    """An entry of the list. Raises ServiceUnavailable and FileNotFoundError."""
    content = b"".join([chunk async for chunk in work.artifacts.store.get(f"{LIST}{user_id}")])
    return msgspec.json.decode(content, type=Listed)


async def _remove_documents(work: Erasing, user_id: UUID) -> None:
    """Raises ServiceUnavailable."""
    async with work.kyc.db.read() as conn:
        documents = await queries.list_documents(conn, user_id=user_id)
    for document in documents:
        await work.artifacts.store.remove(path_of(document.kyc_case_id, document.attempt_id, document.artifact_type))
    if documents:
        async with work.kyc.db.begin() as tx:
            await queries.take_documents(tx, ids=[document.id for document in documents])


async def _tell_vendors(work: Erasing, user_id: UUID) -> None:
    """Those that declare `erase`; one that is not enabled is waited for. Raises VendorError and ServiceUnavailable."""
    async with work.kyc.db.read() as conn:
        attempts = await queries.list_told_vendors(conn, user_id=user_id)
    for attempt in attempts:
        vendor = work.kyc.vendors.get(attempt.vendor)
        if vendor is None:
            raise ServiceUnavailable
        if "erase" in vendor.enabled.installed.spec.operations:
            await vendor.kyc.erase(
                Attempt(attempt_id=attempt.id, vendor_case_id=attempt.vendor_case_id, checks=frozenset())
            )


def _evidence(row: ErasureRow) -> list[StoreEvidence] | None:
    """None while something is outstanding."""
    gone_at = row.artifacts_gone_at if row.kyc_evidence_until is None else row.erased_at
    if row.listed_at is None or row.vendors_told_at is None or gone_at is None:
        return None
    documents = "removed" if row.kyc_evidence_until is None else "kept by law; opened by locked keys only"
    return [
        StoreEvidence("postgres", "keys destroyed, columns emptied, indexes and claims removed", row.erased_at),
        StoreEvidence("clickhouse", "holds only what these keys sealed, and no address", row.erased_at),
        StoreEvidence("kafka", "events carry ids only; the last one is user.erased.v1", row.erased_at),
        StoreEvidence("redis", "holds counters of ids for an hour at most", row.erased_at),
        StoreEvidence("artifacts", documents, gone_at),
        StoreEvidence("vendors", "those that declare erasure were told", row.vendors_told_at),
        StoreEvidence("erasure list", "entered, for backups that are restored", row.listed_at),
    ]


def _certificate(work: Erasing, row: ErasureRow, stores: Sequence[StoreEvidence]) -> Certificate:
    until: Mapping[RetentionClass, datetime | None] = {
        "identity": row.identity_until,
        "contact": row.contact_until,
        "kyc_evidence": row.kyc_evidence_until,
    }
    return Certificate(
        user_id=row.user_id,
        controller=work.controller,
        reason=row.reason,
        erased_at=row.erased_at,
        issued_at=now(),
        audit_event_id=row.event_id,
        keys_destroyed=msgspec.json.decode(row.keys_destroyed, type=list[DestroyedKey]),
        stores=list(stores),
        kept=[Kept(retention, at) for retention, at in until.items() if at is not None],
    )
