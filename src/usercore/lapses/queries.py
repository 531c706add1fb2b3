"""Typed SQL of lapses: sql/lapses.sql."""

from datetime import datetime
from uuid import UUID

from usercore.db import Conn, Sql

sql = Sql("lapses")


@sql
async def list_lapsed(conn: Conn, *, at: datetime, most: int) -> list[UUID]: ...


@sql
async def set_lapsed(conn: Conn, *, user_id: UUID, at: datetime) -> list[UUID]: ...
