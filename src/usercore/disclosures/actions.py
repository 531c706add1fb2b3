"""The verb of disclosures: record one, in the transaction before it happens."""

from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from msgspec.structs import replace

from usercore.db import Conn
from usercore.disclosures import queries
from usercore.disclosures.queries import NewDisclosure
from usercore.events import new_event_id, now
from usercore.outbox import AccessPurpose, Actor, AuditAction, Change, record

_NOTHING: Mapping[str, object] = MappingProxyType({})


async def disclose(
    tx: Conn,
    user_id: UUID,
    recipient: str,
    fields: list[str],
    purpose: str,
    actor: Actor,
    *,
    attempt_id: UUID | None,
    resource: str,
) -> None:
    """Record that a vendor is about to receive fields of a profile: for the person, and in the audit trail."""
    disclosure = NewDisclosure(
        id=new_event_id(),
        user_id=user_id,
        recipient=recipient,
        recipient_kind="vendor",
        actor_id=actor.id,
        fields=fields,
        purpose=purpose,
        action="profile.read",
        attempt_id=attempt_id,
        at=now(),
    )
    await queries.add_disclosure(tx, disclosure=disclosure)
    new = {"fields": fields, "recipient": recipient}
    await record(tx, Change(action="profile.read", user_id=user_id, resource=resource, new=new), actor=actor)


async def reveal(
    tx: Conn,
    user_id: UUID,
    fields: list[str],
    purpose: AccessPurpose,
    actor: Actor,
    *,
    resource: str,
    action: AuditAction = "pii.revealed",
    also: Mapping[str, object] = _NOTHING,
) -> None:
    """Record that a caller is about to see fields in clear: for the person, and in the audit trail.

    `also` is for the trail alone.
    """
    disclosure = NewDisclosure(
        id=new_event_id(),
        user_id=user_id,
        recipient=actor.client or actor.kind,
        recipient_kind=actor.kind,
        actor_id=actor.id,
        fields=fields,
        purpose=purpose,
        action=action,
        attempt_id=None,
        at=now(),
    )
    await queries.add_disclosure(tx, disclosure=disclosure)
    change = Change(action=action, user_id=user_id, resource=resource, new={"fields": fields, **also})
    await record(tx, change, actor=replace(actor, purpose=purpose))
