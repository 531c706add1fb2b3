"""Idempotency keys: the first answer to a key is given again to whoever repeats the request.

The key's row is inserted in the verb's own transaction, so there is no state "running" that a crash could leave: the
row and the change commit together or neither does. A duplicate that comes meanwhile waits for the row's lock.
"""

import hashlib
import hmac
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from usercore.db import Conn, Db, Sql
from usercore.errors import (
    ApiError,
    Conflict,
    IdempotencyInProgress,
    IdempotencyMismatch,
    KeysUnavailable,
    OpenFailed,
    ValidationFailed,
    problem,
)
from usercore.pii import classification as pii
from usercore.pii.cipher import Cipher
from usercore.pii.keyring import Keyring
from usercore.pii.queries import list_user_keys
from usercore.pii.sealed import HEADER_BYTES, Sealed, header, seal, unseal

sql = Sql("idempotency")
T = TypeVar("T")


class Attempt(Struct, frozen=True):
    """One request with an Idempotency-Key. `key` is what `stored_key` makes of it, `fingerprint` that of its body.

    `fingerprints` are those that older keys of ours make: the first request may have come before a rotation.
    """

    sub: UUID
    method: str
    path: str
    key: str
    fingerprint: bytes
    fingerprints: tuple[bytes, ...] = ()


class Answer(Struct, frozen=True):
    """A response: status, and its JSON."""

    status: int
    body: msgspec.Raw
    replayed: bool = False


class AnswerRow(Struct, frozen=True):
    fingerprint: bytes
    body_enc: Sealed | None


@sql
async def accept_attempt(conn: Conn, *, attempt: Attempt) -> bool | None: ...


@sql
async def get_answer(conn: Conn, *, attempt: Attempt) -> AnswerRow | None: ...


@sql
async def set_answer(conn: Conn, *, attempt: Attempt, body_enc: Sealed) -> None: ...


@sql
async def take_expired(conn: Conn) -> None: ...


def stored_key(sub: UUID, key: str) -> str:
    """What is stored of a client's key, which may be anything that occurred to it, also an e-mail address.

    A plain SHA-256, because under a key that is rotated a repeated request would count as a new one.
    """
    return hashlib.sha256(sub.bytes + key.encode()).hexdigest()


def fingerprints(keyring: Keyring, body: bytes) -> Sequence[bytes]:
    """HMAC-SHA256 of a request body: says whether two are the same, and nothing of what is in them.

    Under the key that is used now, then under older ones.
    """
    return [hmac.digest(key, body, "sha256") for key in keyring.token_keys(b"idempotency")]


async def claim(tx: Conn, keyring: Keyring, attempt: Attempt | None) -> Answer | None:
    """Claim the key for this transaction, or return the answer that its first request got.

    Raises IdempotencyMismatch when that request had another body, IdempotencyInProgress when it is still under way
    after a second, KeysUnavailable when its answer cannot be opened.
    """
    if attempt is None:
        return None
    try:
        if await accept_attempt(tx, attempt=attempt):
            return None
    except asyncpg.LockNotAvailableError as error:
        raise IdempotencyInProgress from error
    earlier = await get_answer(tx, attempt=attempt)
    if earlier is None or earlier.body_enc is None:
        raise IdempotencyInProgress  # pruned between the two statements: the next try finds the key free
    known = (attempt.fingerprint, *attempt.fingerprints)
    if not any(hmac.compare_digest(earlier.fingerprint, each) for each in known):
        raise IdempotencyMismatch
    try:
        opened = await _opened(tx, keyring, attempt.sub, earlier.body_enc)
    except OpenFailed as failure:
        raise KeysUnavailable from failure
    stored = msgspec.json.decode(opened, type=Answer)
    return msgspec.structs.replace(stored, replayed=True)


async def keep(tx: Conn, keyring: Keyring, attempt: Attempt | None, answer: Answer) -> Answer:
    """Keep the answer for whoever repeats the request, sealed under the subject's own key.

    Raises KeysUnavailable when that key cannot be had or is broken: the answer could not be given again.
    """
    if attempt is not None:
        text = msgspec.json.encode(answer).decode()
        rows = await list_user_keys(tx, user_id=attempt.sub)
        try:
            if rows:
                sealed = keyring.unlock(attempt.sub, rows).seal(pii.IDEMPOTENT_BODY, text)
            else:
                aad = pii.IDEMPOTENT_BODY.aad(attempt.sub.bytes, _SERVICE_HEAD)
                sealed = seal(_service_ciphers(keyring)[0], _SERVICE_HEAD, aad, text)
        except OpenFailed as failure:
            raise KeysUnavailable from failure
        await set_answer(tx, attempt=attempt, body_enc=sealed)
    return answer


_SERVICE_HEAD = header(0)
"""Of answers to services and admins, who are no users and have no keys: no user's key has this version."""


def _service_ciphers(keyring: Keyring) -> Sequence[Cipher]:
    return [keyring.cipher(key) for key in keyring.token_keys(b"idempotent answers")]


async def _opened(tx: Conn, keyring: Keyring, sub: UUID, body: Sealed) -> str:
    """Raises OpenFailed and KeysUnavailable."""
    if body[:HEADER_BYTES] == _SERVICE_HEAD:
        aad = pii.IDEMPOTENT_BODY.aad(sub.bytes, _SERVICE_HEAD)
        for cipher in _service_ciphers(keyring):
            with suppress(OpenFailed):
                return unseal(cipher, aad, body)
        raise OpenFailed("corrupt")
    rows = await list_user_keys(tx, user_id=sub)
    return keyring.unlock(sub, rows).open(pii.IDEMPOTENT_BODY, body).reveal()


async def keep_refusal(
    db: Db, keyring: Keyring, attempt: Attempt | None, trace_id: str, verb: Coroutine[Any, Any, T]
) -> T:
    """Await the verb. A refusal (409, 422) undid its transaction and the key with it: keep it in one of its own."""
    try:
        return await verb
    except (IdempotencyInProgress, IdempotencyMismatch):
        raise
    except (Conflict, ValidationFailed) as refusal:
        if attempt is not None:
            await _keep_refusal(db, keyring, attempt, refusal, trace_id)
        raise


async def _keep_refusal(db: Db, keyring: Keyring, attempt: Attempt, refusal: ApiError, trace_id: str) -> None:
    async with db.begin() as tx:
        if await accept_attempt(tx, attempt=attempt):
            await keep(tx, keyring, attempt, Answer(refusal.status, msgspec.Raw(problem(refusal, trace_id))))
