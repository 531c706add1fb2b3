"""Typed SQL of the audit trail's partitions: sql/audit.sql."""

from datetime import datetime

from usercore.db import Conn, Sql

sql = Sql("audit")


@sql
async def add_partitions(conn: Conn, *, months_ahead: int) -> int: ...


@sql
async def get_horizon(conn: Conn) -> datetime | None: ...
