"""Cases of people who are erased: a vendor that is told, and what PostgreSQL has of a case."""

import asyncio
from uuid import UUID, uuid4

from msgspec.structs import replace

from tests.verbs.world import Acme, vendor
from usercore.db import Conn
from usercore.plugins import Attempt, VendorUnavailable
from usercore.plugins.loading import Vendor


class Erasable(Acme):
    """A vendor with the operation `erase`, which is away when it is told to be."""

    def __init__(self) -> None:
        self.erased: list[str] = []
        self.away = False

    async def erase(self, attempt: Attempt) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise VendorUnavailable(reached=False)
        self.erased.append(attempt.vendor_case_id)


def told(acme: Erasable) -> Vendor:
    """The vendor, enabled, with the operation declared."""
    made = vendor(acme)
    spec = replace(made.enabled.installed.spec, operations=frozenset({"erase"}))
    return replace(made, enabled=replace(made.enabled, installed=replace(made.enabled.installed, spec=spec)))


async def soon(owner: Conn) -> None:
    """The time of the next try has come."""
    await owner.execute("update erasures set next_try_at = now() - interval '1 second'")


async def a_case(owner: Conn, user_id: UUID, name: str = "acme") -> UUID:
    """A case that a vendor knows, with evidence and a document, as sealed as the database wants it."""
    case, sealed = uuid4(), b"\x01" * 33
    await owner.execute(
        "insert into kyc_cases (id, user_id, vendor, target_tier, status, initiated_at, expires_at, next_look_at) "
        "values ($1, $2, $3, 'tier_1', 'rejected', now(), now(), now())",
        case, user_id, name,
    )  # fmt: skip
    await owner.execute(
        "insert into kyc_attempts (id, case_id, vendor, vendor_case_id, token_hash, token_enc, created_at) "
        "values ($1, $1, $2, $3, $4, $5, now())",
        case, name, f"vendor-{case}", case.bytes * 2, sealed,
    )  # fmt: skip
    await owner.execute(
        "insert into kyc_evidence "
        "(id, case_id, attempt_id, source, source_event, standing, vendor_status, payload_enc, received_at) "
        "values ($1, $1, $1, 'fetch', 'x', 0, 'x', $2, now())",
        case, sealed,
    )  # fmt: skip
    await owner.execute(
        "insert into kyc_artifacts (id, kyc_case_id, attempt_id, artifact_type, storage_ref_enc, created_at) "
        "values ($1, $1, $1, 'selfie', $2, now())",
        case, sealed,
    )  # fmt: skip
    return case
