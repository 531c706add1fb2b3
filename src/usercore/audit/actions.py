"""Verbs of the audit trail: show one user's, keep partitions ahead of time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from usercore import cursors, telemetry
from usercore.archive.actions import EVERYTHING, Row, at, list_older
from usercore.audit import queries
from usercore.clickhouse import ClickHouse
from usercore.cursors import Position
from usercore.db import Db
from usercore.errors import UserNotFound
from usercore.events import now
from usercore.outbox import AuditAction
from usercore.pii import masks
from usercore.pii.keyring import Keyring

MONTHS_AHEAD = 6
"""A missing partition would stop every read and change; half a year outlasts any outage of the workers."""


BEGINNING, END = cursors.OLDEST.at, cursors.NEWEST.at


class TrailEntry(Struct, frozen=True, kw_only=True):
    """Something that was done. Sealed values are masks; what was in them is nobody's to see here."""

    event_id: UUID
    user_id: UUID
    actor_id: UUID | None
    action: AuditAction
    resource: str
    old_value: dict[str, Any] | None
    new_value: dict[str, Any] | None
    ip_addr: str | None
    timestamp: datetime


class Trail(Struct, frozen=True):
    items: list[TrailEntry]
    next_cursor: str | None


async def list_trail(
    db: Db,
    keyring: Keyring,
    user_id: UUID,
    *,
    action: AuditAction | None,
    since: datetime,
    until: datetime,
    limit: int,
    cursor: str | None,
    archive: ClickHouse | None,
) -> Trail:
    """A page of one user's trail, newest first; also of somebody who was erased.

    A cursor goes on with whatever filters it is given. Raises UserNotFound, InvalidCursor and ArchiveUnavailable.
    """
    keys, context = keyring.token_keys(b"cursor"), b"trail" + user_id.bytes
    after = cursors.NEWEST if cursor is None else cursors.open(keys, Position, cursor, context=context)
    async with db.read() as conn:
        if not await queries.has_user(conn, user_id=user_id):
            raise UserNotFound
        rows: Sequence[queries.TrailRow] = await queries.list_trail(
            conn,
            user_id=user_id,
            action=action,
            since=since,
            until=until,
            before_at=after.at,
            before_id=after.id,
            most=limit + 1,
        )
    if (wanted := limit + 1 - len(rows)) > 0:
        before = Position(rows[-1].timestamp, rows[-1].event_id) if rows else after
        filters = EVERYTHING if action is None else (action,)
        older = await list_older(db, archive, user_id, before, wanted, since=since, until=until, actions=filters)
        rows = [*rows, *map(_archived, older)]
    rows, more = cursors.page(rows, limit, lambda row: Position(row.timestamp, row.event_id), keys, context=context)
    return Trail([_entry(row) for row in rows], more)


def _archived(row: Row) -> queries.TrailRow:
    return queries.TrailRow(
        event_id=row.event_id,
        user_id=row.user_id,
        actor_id=row.actor_id,
        action=row.action,
        resource=row.resource,
        old_value=row.old_value,
        new_value=row.new_value,
        ip_addr=None,
        timestamp=at(row),
    )


def _entry(row: queries.TrailRow) -> TrailEntry:
    return TrailEntry(
        event_id=row.event_id,
        user_id=row.user_id,
        actor_id=row.actor_id,
        action=row.action,
        resource=row.resource,
        old_value=_masked(row.old_value),
        new_value=_masked(row.new_value),
        ip_addr=row.ip_addr,
        timestamp=row.timestamp,
    )


def _masked(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    values = msgspec.json.decode(text, type=dict[str, Any])
    return {name: masks.UNREADABLE if _is_sealed(value) else value for name, value in values.items()}


def _is_sealed(value: object) -> bool:
    """As `audit_text` marks ciphertext."""
    return isinstance(value, dict) and list(cast("Mapping[str, object]", value)) == ["sealed"]


async def keep_partitions(db: Db) -> int:
    """Make what is missing of the partitions ahead; returns how many were made."""
    async with db.begin() as tx:
        made = await queries.add_partitions(tx, months_ahead=MONTHS_AHEAD)
        horizon = await queries.get_horizon(tx)
    ahead = 0.0 if horizon is None else (horizon - now()).total_seconds() / 86_400
    telemetry.metrics.audit_partition_horizon(ahead)
    return made
