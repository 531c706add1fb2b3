"""Typed SQL of sealing anew: sql/reseals.sql."""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from usercore.db import Conn, Sql
from usercore.pii.sealed import Sealed

sql = Sql("reseals")


class SealedRow(Struct, frozen=True):
    """A sealed value and where it is."""

    table: str
    column: str
    id: UUID
    sealed: Sealed


class NewSealed(Struct, frozen=True):
    """A value sealed anew, and what it was."""

    id: UUID
    sealed: Sealed
    was: Sealed


class SealedProfile(Struct, frozen=True):
    """The sealed columns of a profile."""

    first_name_enc: Sealed | None = None
    last_name_enc: Sealed | None = None
    date_of_birth_enc: Sealed | None = None
    pan_number_enc: Sealed | None = None
    aadhaar_last4_enc: Sealed | None = None
    address_enc: Sealed | None = None
    phone_enc: Sealed | None = None


@sql
async def list_sealed(conn: Conn, *, user_id: UUID) -> list[SealedRow]: ...


@sql
async def set_profile(conn: Conn, *, user_id: UUID, profile: SealedProfile) -> None: ...


@sql
async def set_hold_notes(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_lift_notes(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_bank_accounts(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_review_notes(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_tokens(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_hosted(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_payloads(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_storage_refs(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...


@sql
async def set_sources(conn: Conn, *, rows: Sequence[NewSealed]) -> None: ...
