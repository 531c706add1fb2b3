"""The verb of resealing: new data keys for one person, and everything that may be sealed anew sealed with them.

One transaction, so it is done or it is not. The audit trail is append-only and documents are sealed once: what they
copied stays under the old keys, which therefore stay too.
"""

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from msgspec import Struct

from usercore import telemetry
from usercore.db import Db
from usercore.errors import KeysUnavailable, OpenFailed
from usercore.outbox import Actor, Change, record
from usercore.pii.classification import FIELDS, RetentionClass
from usercore.pii.keyring import Keyring
from usercore.pii.queries import add_user_keys, list_user_keys
from usercore.pii.sealed import Sealed
from usercore.reseals import queries
from usercore.reseals.queries import NewSealed, SealedProfile
from usercore.users.actions import lock_user

log = telemetry.logger(__name__)

_FIELDS = {(field.table, field.column): field for field in FIELDS}
Setter = Callable[..., Awaitable[None]]
SETTERS: Mapping[tuple[str, str], Setter] = {
    ("account_holds", "note_enc"): queries.set_hold_notes,
    ("account_holds", "lift_note_enc"): queries.set_lift_notes,
    ("kyc_cases", "bank_account_enc"): queries.set_bank_accounts,
    ("kyc_cases", "note_enc"): queries.set_review_notes,
    ("kyc_attempts", "token_enc"): queries.set_tokens,
    ("kyc_attempts", "hosted_enc"): queries.set_hosted,
    ("kyc_evidence", "payload_enc"): queries.set_payloads,
    ("kyc_artifacts", "storage_ref_enc"): queries.set_storage_refs,
    ("kyc_artifacts", "source_enc"): queries.set_sources,
}


class Resealed(Struct, frozen=True):
    """Values that are under new keys, and those that did not open and stay as they are."""

    resealed: int
    unreadable: int


async def reseal(db: Db, keyring: Keyring, user_id: UUID, actor: Actor) -> Resealed:
    """Give a person new data keys. Raises UnknownUser, AccountErased and KeysUnavailable."""
    async with db.begin() as tx:
        await lock_user(tx, user_id)
        rows = await list_user_keys(tx, user_id=user_id)
        newest: dict[RetentionClass, int] = {row.retention_class: row.version for row in rows}
        fresh = [
            key
            for retention, version in newest.items()
            for key in keyring.new_user_keys(user_id, (retention,), version=version + 1)
        ]
        await add_user_keys(tx, keys=fresh)
        keys = keyring.unlock(user_id, [*rows, *fresh])
        done: dict[tuple[str, str], list[NewSealed]] = {}
        profile: dict[str, Sealed] = {}
        unreadable = count = 0
        for row in await queries.list_sealed(tx, user_id=user_id):
            field = _FIELDS[row.table, row.column]
            try:
                sealed = keys.seal(field, keys.open(field, row.sealed).reveal())
            except OpenFailed as failure:
                if failure.reason == "keys_unavailable":
                    raise KeysUnavailable from failure
                unreadable += 1
                sealed = row.sealed
            else:
                count += 1
            if row.table == "user_profiles":
                profile[row.column] = sealed
            elif sealed is not row.sealed:
                done.setdefault((row.table, row.column), []).append(NewSealed(row.id, sealed, row.sealed))
        await queries.set_profile(tx, user_id=user_id, profile=SealedProfile(**profile))
        for place, values in done.items():
            await SETTERS[place](tx, rows=values)
        places = [*done, *(("user_profiles", column) for column in profile)]
        opened = sorted({_FIELDS[place].name for place in places})
        change = Change(
            action="profile.read", user_id=user_id, resource="user_keys", new={"fields": opened, "masked": True}
        )
        await record(tx, change, actor=actor)
    log.info("user_resealed", user_id=str(user_id), count=count)
    return Resealed(count, unreadable)
