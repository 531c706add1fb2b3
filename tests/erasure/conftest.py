"""A service whose people can be erased, and what is left of them anywhere."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from tests.service import Client, Person, Reply
from usercore.db import Conn
from usercore.erased.actions import Erasing
from usercore.pii.classification import REGISTRY
from usercore.worker import Parts

__all__ = ["erase", "left_of", "work"]


@pytest.fixture
def desk(client: Client) -> Person:
    return client.user(scope="admin", client_id="privacy-desk")


@pytest.fixture
def work(parts: Parts) -> Erasing:
    return parts.erasing


async def erase(desk: Person, user_id: UUID, **said: Any) -> Reply:
    asked = {"reason": "user_request", **said}
    return await desk.send("POST", f"/internal/users/{user_id}/erase", json=asked)


OF_CASES = "case_id in (select id from kyc_cases where user_id = $1)"
WHERE = {
    "users": "id = $1",
    "idempotency_keys": "sub = $1",
    "user_audit": "user_id = $1 and actor_id = $1",
    "kyc_attempts": OF_CASES,
    "kyc_evidence": OF_CASES,
    "kyc_artifacts": f"kyc_{OF_CASES}",
    "webhook_inbox": "false",  # it is not known whose it is, and its key is destroyed after a week
}
STAY = {("user_audit", "old_value"), ("user_audit", "new_value"), ("user_audit", "ip_mac")}
"""Values that destroyed keys sealed, and a digest that only the address itself would tell."""


async def left_of(owner: Conn, user_id: UUID, besides: Sequence[str] = ()) -> list[str]:
    """The columns that the registry calls personal and that are not empty for this user."""
    found: list[str] = []
    for (table, column), classified in REGISTRY.items():
        name = f"{table}.{column}"
        if not classified.personal or (table, column) in STAY or name in besides:
            continue
        where = WHERE.get(table, "user_id = $1")
        unused = "and $1::uuid is not null" if where == "false" else ""
        statement = f"select count(*) from {table} where {where} {unused} and {column} is not null"
        if await owner.fetchval(statement, user_id):
            found.append(name)
    return found
