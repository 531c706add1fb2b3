"""Typed SQL of identity claims: sql/identities.sql."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from usercore.db import Conn, Sql

sql = Sql("identities")


@sql
async def accept_claims(
    conn: Conn, *, user_id: UUID, index_versions: Sequence[int], digests: Sequence[bytes], at: datetime
) -> None: ...


@sql
async def has_foreign_claim(
    conn: Conn, *, user_id: UUID, index_versions: Sequence[int], digests: Sequence[bytes]
) -> bool: ...


@sql
async def take_claims(conn: Conn, *, user_id: UUID) -> None: ...
