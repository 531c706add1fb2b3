"""Typed SQL of notification preferences: sql/prefs.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql

sql = Sql("prefs")


class Prefs(Struct, frozen=True, forbid_unknown_fields=True):
    """What the user wants to be told, and how. All six are needed: a replacement is a whole one."""

    email_trade_fills: bool
    email_deposits: bool
    email_withdrawals: bool
    email_security_alerts: bool
    push_enabled: bool
    sms_enabled: bool


class StoredPrefs(Struct, frozen=True):
    email_trade_fills: bool
    email_deposits: bool
    email_withdrawals: bool
    email_security_alerts: bool
    push_enabled: bool
    sms_enabled: bool
    updated_at: datetime


@sql
async def get_prefs(conn: Conn, *, user_id: UUID) -> StoredPrefs: ...


@sql
async def save_prefs(conn: Conn, *, user_id: UUID, prefs: Prefs, at: datetime) -> None: ...
