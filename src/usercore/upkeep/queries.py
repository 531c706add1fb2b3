"""Typed SQL of upkeep: sql/upkeep.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.attempts.actions import AttemptState
from usercore.db import Conn, Sql
from usercore.events import KycCaseStatus, KycTier
from usercore.webhooks.actions import WebhookState

sql = Sql("upkeep")


class DueCase(Struct, frozen=True):
    """A case that is due; `looks` counts how often it was taken up."""

    status: KycCaseStatus
    expires_at: datetime
    looks: int


class Message(Struct, frozen=True):
    """A webhook that was not applied; never what is in it."""

    id: UUID
    vendor: str
    state: WebhookState
    tries: int
    received_at: datetime
    next_try_at: datetime | None


class OpenCase(Struct, frozen=True):
    """A case without a verdict, with the state of its newest attempt."""

    id: UUID
    vendor: str
    status: KycCaseStatus
    target_tier: KycTier
    initiated_at: datetime
    next_look_at: datetime
    looks: int
    attempt: AttemptState | None


@sql
async def take_due_cases(conn: Conn, *, at: datetime, leased_until: datetime, most: int) -> list[UUID]: ...


@sql
async def list_messages(conn: Conn, *, vendor: str | None, since: datetime, most: int) -> list[Message]: ...


@sql
async def set_due(conn: Conn, *, message_ids: Sequence[UUID], at: datetime) -> list[UUID]: ...


@sql
async def list_open_cases(conn: Conn, *, vendor: str | None, before: datetime, most: int) -> list[OpenCase]: ...


@sql
async def get_case(conn: Conn, *, case_id: UUID) -> DueCase | None: ...
