"""Typed SQL of the archive's side in PostgreSQL: sql/archive.sql."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql

sql = Sql("archive")


class Month(Struct, frozen=True):
    """A partition of the trail."""

    name: str
    starts_at: datetime
    ends_at: datetime


class Range(Struct, frozen=True):
    """First and last transaction."""

    first: int | None
    last: int | None


@sql
async def take_lease(conn: Conn, *, holder: UUID) -> int | None: ...


@sql
async def set_shipped(conn: Conn, *, holder: UUID, shipped_to: int) -> None: ...


@sql
async def get_shipped(conn: Conn) -> int: ...


@sql
async def get_border(conn: Conn) -> datetime | None: ...


@sql
async def get_retirable(conn: Conn, *, before: datetime) -> Month | None: ...


@sql
async def get_range(conn: Conn, *, since: datetime, until: datetime) -> Range: ...


@sql
async def take_partition(conn: Conn, *, name: str, rows: int, digest: bytes) -> bool: ...
