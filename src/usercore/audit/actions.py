"""Verbs of the audit trail: keep partitions ahead of time."""

from usercore import telemetry
from usercore.audit import queries
from usercore.db import Db
from usercore.events import now

MONTHS_AHEAD = 6
"""A missing partition would stop every read and change; half a year outlasts any outage of the workers."""


async def keep_partitions(db: Db) -> int:
    """Make what is missing of the partitions ahead; returns how many were made."""
    async with db.begin() as tx:
        made = await queries.add_partitions(tx, months_ahead=MONTHS_AHEAD)
        horizon = await queries.get_horizon(tx)
    ahead = 0.0 if horizon is None else (horizon - now()).total_seconds() / 86_400
    telemetry.metrics.audit_partition_horizon(ahead)
    return made
