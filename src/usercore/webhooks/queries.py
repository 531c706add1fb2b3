"""Typed SQL of the webhook inbox: sql/webhooks.sql."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.sealed import Sealed
from usercore.pii.wraps import UserKeyRow

sql = Sql("webhooks")

WebhookState = Literal["waiting", "applied", "unreadable", "unclaimed"]


class NewMessage(Struct, frozen=True):
    """A verified message. `authentic_body` is false when the body is only a hint."""

    id: UUID
    vendor: str
    dedupe_key: str
    attempt_id: UUID | None
    authentic_body: bool
    body_enc: Sealed
    headers_enc: Sealed
    day: date
    request_id: str | None
    traceparent: str | None
    received_at: datetime


class MessageRow(Struct, frozen=True):
    id: UUID
    vendor: str
    attempt_id: UUID | None
    authentic_body: bool
    body_enc: Sealed | None
    headers_enc: Sealed | None
    day: date
    tries: int
    request_id: str | None
    traceparent: str | None
    received_at: datetime


class KeyRow(Struct, frozen=True):
    owner: UUID
    epoch: int
    wrapped: bytes


@sql
async def accept_message(conn: Conn, *, message: NewMessage) -> bool | None: ...


@sql
async def take_waiting(conn: Conn, *, at: datetime, leased_until: datetime, most: int) -> list[MessageRow]: ...


@sql
async def set_applied(conn: Conn, *, message_id: UUID, at: datetime) -> None: ...


@sql
async def set_given_up(conn: Conn, *, message_id: UUID, state: WebhookState, at: datetime) -> None: ...


@sql
async def set_next_try(conn: Conn, *, message_id: UUID, at: datetime) -> None: ...


@sql
async def get_key(conn: Conn, *, day: date) -> KeyRow | None: ...


@sql
async def accept_key(conn: Conn, *, day: date, key: UserKeyRow) -> None: ...


@sql
async def take_old(conn: Conn, *, before: datetime) -> None: ...


@sql
async def count_waiting(conn: Conn) -> int: ...
