"""Verbs of artifacts: note which documents a vendor has, fetch them, read them. Transactions begin and end here.

The row is there before the upload, and says where it goes: whoever dies between two steps leaves a row that is done
again to the same place. Nothing waits for a document: the verdict comes without it.
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore import telemetry
from usercore.artifacts import queries
from usercore.artifacts.queries import NewArtifact, Stored, StoredRow, WaitingRow
from usercore.artifacts.store import Store, path_of
from usercore.db import Conn, Db
from usercore.disclosures.actions import reveal
from usercore.errors import AccountErased, KeysUnavailable, NotFound, OpenFailed, PiiUnavailable, ServiceUnavailable
from usercore.events import new_event_id, now
from usercore.outbox import AccessPurpose, Actor
from usercore.pii import classification as pii
from usercore.pii.cipher import KEY_BYTES
from usercore.pii.keyring import Keyring, UserKeys
from usercore.pii.sealed import Sealed
from usercore.pii.streams import Sealing, opened
from usercore.plugins import Artifact, ArtifactType, VendorError, VendorUnavailable
from usercore.plugins.documents import DocumentRefused, Documents, Fetched, Refusal
from usercore.profiles.actions import keys_of
from usercore.users.actions import lock_user

log = telemetry.logger(__name__)

LEASE_S = 180
"""Two downloads, a question to the vendor and an upload are over by then, or the worker is dead."""
BATCH = 4
"""Documents fetched at once by one worker: each is whole in memory until it is stored."""
MOST_TRIES = 6
FIRST_PAUSE_S = 5
"""Before the second try; four times as long before each next one, so that the last is after half an hour."""
OUR_PAUSE_S = 30
"""After a try that failed for a reason of ours, or because the vendor is away: it does not count."""

FreshUrl = Callable[[UUID, ArtifactType], Awaitable[str | None]]
"""Where the vendor has a document of an attempt now. Raises VendorError."""
Lost = Literal["account_erased", "unreadable"]
"""Why a document is given up at once: nobody could open it any more."""


class Artifacts(Struct, frozen=True):
    """What the verbs of artifacts work with. Without a store nothing is fetched, and all of it waits."""

    db: Db
    keyring: Keyring
    documents: Documents
    store: Store


class Place(Struct, frozen=True):
    """Where a document is in the store, and the key that opens it: what a sealed storage reference says."""

    path: str
    key: bytes

    def __repr__(self) -> str:
        return "Place(…)"


class Reading(Struct, frozen=True):
    """A stored document that is being read: it was verified as far as `chunks` have come."""

    id: UUID
    type: ArtifactType
    media_type: str
    size: int
    chunks: AsyncGenerator[bytes]


async def add_artifacts(
    tx: Conn, keys: UserKeys, case_id: UUID, attempt_id: UUID, artifacts: Sequence[Artifact], at: datetime
) -> None:
    """Note the documents of an attempt, to be fetched soon; whoever calls has locked the user, whose `keys` these are.

    One of each type, the first. One that is known keeps its place, and takes the newer address while it waits.
    """
    found: dict[ArtifactType, str] = {artifact.type: artifact.url for artifact in reversed(artifacts)}
    for kind, url in found.items():
        place = Place(path_of(case_id, attempt_id, kind), os.urandom(KEY_BYTES))
        artifact = NewArtifact(
            id=new_event_id(),
            case_id=case_id,
            attempt_id=attempt_id,
            type=kind,
            storage_ref_enc=keys.seal(pii.STORAGE_REF, msgspec.json.encode(place).decode()),
            source_enc=keys.seal(pii.ARTIFACT_SOURCE, url),
            created_at=at,
        )
        await queries.accept_artifact(tx, artifact=artifact)


# Fetching -------------------------------------------------------------------------------------------------------------


class _Turn(Struct, frozen=True):
    """A worker's turn at a document: when its lease ends names it, so that nobody writes after it is over."""

    row: WaitingRow
    lease: datetime


class _Work(Struct, frozen=True):
    """A document that is about to be fetched; `url` is None when its row has none."""

    turn: _Turn
    keys: UserKeys
    place: Place
    url: str | None


async def fetch_waiting(artifacts: Artifacts, fresh_url: FreshUrl) -> int:
    """Fetch documents that are due; the number of them."""
    at = now()
    async with artifacts.db.begin() as tx:
        until = at + timedelta(seconds=LEASE_S)
        rows = await queries.take_waiting(tx, at=at, leased_until=until, most=BATCH)
    await asyncio.gather(*(_fetch(artifacts, artifacts.store, fresh_url, _Turn(row, until)) for row in rows))
    return len(rows)


async def _fetch(artifacts: Artifacts, store: Store, fresh_url: FreshUrl, turn: _Turn) -> None:
    row = turn.row
    try:
        work = await _take_up(artifacts, turn)
        try:
            fetched, sealed = await _had(artifacts, fresh_url, work)
        except DocumentRefused as refusal:
            if row.tries < MOST_TRIES:
                await _again(artifacts, turn, refusal.reason)
                return
            # A try that died after its upload has left something.
            await store.remove(work.place.path)
            await _give_up(artifacts, turn, refusal.reason)
            return
        await store.put(work.place.path, sealed)
        async with artifacts.db.begin() as tx:
            stored = Stored(fetched.hash, fetched.size, fetched.media_type, now())
            done = await queries.set_stored(tx, artifact_id=row.id, lease=turn.lease, stored=stored)
        if done:
            telemetry.metrics.artifact("stored")
    except AccountErased:
        await _give_up(artifacts, turn, "account_erased")
    except OpenFailed as error:
        log.error("artifact_unreadable", attempt_id=row.attempt_id, reason=error.reason)
        telemetry.metrics.pii_open_failed(error.reason)
        await _give_up(artifacts, turn, "unreadable")
    except (ServiceUnavailable, VendorUnavailable) as error:
        log.warning("artifact_waits", error, attempt_id=row.attempt_id, kind=row.artifact_type)
        telemetry.metrics.artifact("waiting")
        await _set_next_try(artifacts, turn, OUR_PAUSE_S, counts=False)


async def _take_up(artifacts: Artifacts, turn: _Turn) -> _Work:
    """Raises AccountErased, OpenFailed and KeysUnavailable."""
    row = turn.row
    async with artifacts.db.begin() as tx:
        keys, place = await _unsealed(tx, artifacts.keyring, row.user_id, row.storage_ref_enc)
    source = row.source_enc
    return _Work(turn, keys, place, None if source is None else _open(keys, pii.ARTIFACT_SOURCE, source))


async def _had(artifacts: Artifacts, fresh_url: FreshUrl, work: _Work) -> tuple[Fetched, bytearray]:
    """The document, sealed; from a new address when the vendor does not know the old one any more.

    Raises DocumentRefused, and VendorUnavailable.
    """
    if work.url is not None:
        try:
            return await _download(artifacts, work, work.url)
        except DocumentRefused as refusal:
            if refusal.reason != "expired":
                raise
    try:
        url = await fresh_url(work.turn.row.attempt_id, work.turn.row.artifact_type)
    except VendorUnavailable:
        raise
    except VendorError:
        url = None
    if url is None:
        raise DocumentRefused("expired")
    async with artifacts.db.begin() as tx:
        source = work.keys.seal(pii.ARTIFACT_SOURCE, url)
        await queries.set_source(tx, artifact_id=work.turn.row.id, lease=work.turn.lease, source_enc=source)
    # At once: some are good for half a minute.
    return await _download(artifacts, work, url)


async def _download(artifacts: Artifacts, work: _Work, url: str) -> tuple[Fetched, bytearray]:
    sealing = Sealing(artifacts.keyring.cipher, work.place.key, work.turn.row.id)
    fetched = await artifacts.documents.fetch(url, sealing.add)
    sealing.finish()
    return fetched, sealing.sealed


async def _again(artifacts: Artifacts, turn: _Turn, reason: Refusal) -> None:
    row = turn.row
    log.warning("artifact_refused", attempt_id=row.attempt_id, kind=row.artifact_type, reason=reason, attempt=row.tries)
    telemetry.metrics.artifact(reason)
    await _set_next_try(artifacts, turn, FIRST_PAUSE_S * 4 ** (row.tries - 1), counts=True)


async def _set_next_try(artifacts: Artifacts, turn: _Turn, pause_s: float, *, counts: bool) -> None:
    at = now() + timedelta(seconds=pause_s)
    async with artifacts.db.begin() as tx:
        await queries.set_next_try(tx, artifact_id=turn.row.id, lease=turn.lease, at=at, counts=counts)


async def _give_up(artifacts: Artifacts, turn: _Turn, reason: Refusal | Lost) -> None:
    row = turn.row
    async with artifacts.db.begin() as tx:
        done = await queries.set_given_up(tx, artifact_id=row.id, lease=turn.lease, reason=reason)
    if done:
        log.warning("artifact_given_up", attempt_id=row.attempt_id, kind=row.artifact_type, reason=reason)
        telemetry.metrics.artifact("given_up")


# Reading --------------------------------------------------------------------------------------------------------------


async def open_artifact(artifacts: Artifacts, artifact_id: UUID, purpose: AccessPurpose, actor: Actor) -> Reading:
    """Record that somebody reads a stored document, and begin to. Whoever calls closes its chunks.

    The chunks raise OpenFailed, and ServiceUnavailable; so that this seldom happens with half of the answer given, the
    first is there already. Raises NotFound, AccountErased, PiiUnavailable and ServiceUnavailable.
    """
    try:
        row, place = await _allow(artifacts, artifact_id, purpose, actor)
        sealed = artifacts.store.get(place.path)
        chunks = _whole(row, opened(artifacts.keyring.cipher, place.key, row.id, sealed))
        first = await anext(chunks)
    except OpenFailed:
        raise PiiUnavailable from None
    return Reading(row.id, row.artifact_type, row.media_type, row.size, _joined(first, chunks))


async def _allow(
    artifacts: Artifacts, artifact_id: UUID, purpose: AccessPurpose, actor: Actor
) -> tuple[StoredRow, Place]:
    """Record the reading, before there is anything to read."""
    async with artifacts.db.begin() as tx:
        row = await queries.get_stored(tx, artifact_id=artifact_id)
        if row is None:
            raise NotFound
        _, place = await _unsealed(tx, artifacts.keyring, row.user_id, row.storage_ref_enc)
        await reveal(
            tx,
            row.user_id,
            [row.artifact_type],
            purpose,
            actor,
            resource=f"kyc_case:{row.kyc_case_id}",
            action="artifact.read",
            also={"artifact_id": str(row.id)},
        )
    return row, place


async def _whole(row: StoredRow, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The last chunk is given when all of them are what was fetched. Raises OpenFailed."""
    digest, held = hashlib.sha256(), b""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                if held:
                    yield held
                digest.update(chunk)
                held = chunk
        if not hmac.compare_digest(digest.hexdigest(), row.hash):
            raise OpenFailed("corrupt")
    except OpenFailed as error:
        log.error("artifact_unreadable", kyc_case_id=row.kyc_case_id, reason=error.reason)
        telemetry.metrics.pii_open_failed(error.reason)
        raise
    except FileNotFoundError:
        log.error("artifact_missing", kyc_case_id=row.kyc_case_id)
        raise OpenFailed("corrupt") from None
    yield held


async def _joined(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


async def _unsealed(tx: Conn, keyring: Keyring, user_id: UUID, ref: Sealed) -> tuple[UserKeys, Place]:
    """Raises AccountErased, OpenFailed and KeysUnavailable."""
    await lock_user(tx, user_id)
    keys = await keys_of(tx, keyring, user_id, pii.STORAGE_REF.retention)
    return keys, msgspec.json.decode(_open(keys, pii.STORAGE_REF, ref), type=Place)


def _open(keys: UserKeys, field: pii.Field, sealed: Sealed) -> str:
    try:
        return keys.open(field, sealed).reveal()
    except OpenFailed as failure:
        if failure.reason == "keys_unavailable":
            raise KeysUnavailable from failure
        raise
