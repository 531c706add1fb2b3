"""What an admin sees of cases and decides: with versions, with four eyes, with a purpose."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.kyc.conftest import World
from tests.service import Person
from tests.trail import actions_of
from usercore.db import Conn


def admin(world: World, scope: str = "admin") -> Person:
    return world.client.user(scope=scope, client_id="backoffice")


async def in_review(world: World, person: Person, **told: object) -> dict[str, Any]:
    await world.initiate(person)
    await world.finish(person, "review", **told)
    return (await world.becomes(person, "in_review"))["case"]


def decision(case: dict[str, Any], what: str, reason: str, **more: object) -> dict[str, object]:
    return {
        "case_id": case["case_id"], "decision": what, "reason": reason, "case_version": case["case_version"], **more
    }  # fmt: skip


async def test_a_reviewer_approves(world: World, owner: Conn) -> None:
    asha = await world.person()
    case = await in_review(world, asha)
    reviewer = admin(world)
    found = (await reviewer.get("/admin/kyc/reviews")).json()
    assert [each["case_id"] for each in found["items"]] == [case["case_id"]]
    assert found["items"][0]["review_reason"] == "vendor_review"

    stale = decision(case, "approve", "documents_verified") | {"case_version": 1}
    assert (await reviewer.send("POST", "/admin/kyc/manual-review", json=stale)).code == "case_changed"
    unknown = decision(case, "approve", "documents_verified") | {"case_id": str(uuid4())}
    assert (await reviewer.send("POST", "/admin/kyc/manual-review", json=unknown)).code == "case_not_found"
    noteless = decision(case, "reject", "other")
    assert (await reviewer.send("POST", "/admin/kyc/manual-review", json=noteless)).code == "validation_failed"

    said = decision(case, "approve", "documents_verified", note="Looked at the card.")
    reply = await reviewer.send("POST", "/admin/kyc/manual-review", json=said, headers={"Idempotency-Key": "k"})
    assert reply.status == 200, reply.body
    assert (reply.json()["status"], reply.json()["decision"]) == ("approved", "approve")
    again = await reviewer.send("POST", "/admin/kyc/manual-review", json=said, headers={"Idempotency-Key": "k"})
    assert (again.status, again.json()) == (200, reply.json())
    assert (await reviewer.send("POST", "/admin/kyc/manual-review", json=said)).code == "case_changed"
    assert (await world.status(asha))["kyc_tier"] == "tier_1"
    assert (await actions_of(owner, asha.id)).count("kyc.reviewed") == 1
    note: bytes | None = await owner.fetchval("select note_enc from kyc_cases where id = $1", UUID(case["case_id"]))
    assert note
    assert b"Looked" not in note
    assert (await reviewer.get("/admin/kyc/reviews")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        ("documents_unclear", "document_unreadable", "pending"),
        ("expired_document", "document_expired", "pending"),
        ("fraud", "fraud", "frozen"),
    ],
)
async def test_a_reviewer_rejects(world: World, reason: str, code: str, status: str) -> None:
    asha = await world.person()
    case = await in_review(world, asha)
    reply = await admin(world).send("POST", "/admin/kyc/manual-review", json=decision(case, "reject", reason))
    assert (reply.json()["status"], reply.json()["rejection_code"]) == ("rejected", code)
    assert (await asha.get()).json()["status"] == status


async def test_a_decision_hides_what_the_vendor_says_later(world: World) -> None:
    asha = await world.person()
    case = await in_review(world, asha)
    await admin(world).send("POST", "/admin/kyc/manual-review", json=decision(case, "reject", "documents_unclear"))
    await world.finish(asha, "approve")
    assert (await world.status(asha))["case"]["status"] == "rejected"


async def test_evidence_is_masked_and_revealed_for_a_purpose(world: World, owner: Conn) -> None:
    asha = await world.person()
    case = await in_review(world, asha)
    path = f"/admin/kyc/cases/{case['case_id']}"
    masked = (await admin(world).get(path)).json()
    identity = next(said["identity"] for said in reversed(masked["evidence"]) if said["identity"])
    assert identity["pan_number"] == "XXXXX1234X"
    assert "Verma" not in str(masked)
    assert (await admin(world).get(f"{path}?reveal=pan_number&purpose=support")).status == 403
    privileged = admin(world, "admin pii:read")
    assert (await privileged.get(f"{path}?reveal=pan_number")).code == "validation_failed"
    assert (await privileged.get(f"{path}?reveal=shoe_size&purpose=support")).code == "validation_failed"
    shown = (await privileged.get(f"{path}?reveal=pan_number&purpose=compliance")).json()
    revealed = next(said["identity"] for said in reversed(shown["evidence"]) if said["identity"])
    assert (revealed["pan_number"], revealed["date_of_birth"]) == ("ABCPV1234F", "1994-XX-XX")
    row = await owner.fetchrow("select recipient, fields, purpose from pii_disclosures where action = 'pii.revealed'")
    assert row is not None
    assert tuple(row) == ("backoffice", ["pan_number"], "compliance")
    assert (await actions_of(owner, asha.id)).count("pii.revealed") == 1
    assert (await privileged.get(f"/admin/kyc/cases/{uuid4()}")).code == "case_not_found"


class TestFourEyes:
    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        environ["KYC_FOUR_EYES"] = "on"
        return environ

    async def test_two_approve(self, world: World) -> None:
        asha = await world.person()
        case = await in_review(world, asha)
        one, other = admin(world), admin(world)
        said = decision(case, "approve", "documents_verified")
        first = await one.send("POST", "/admin/kyc/manual-review", json=said)
        assert (first.status, first.json()) == (202, {"approvals": 1})
        case = (await world.status(asha))["case"]
        said = decision(case, "approve", "documents_verified")
        assert (await one.send("POST", "/admin/kyc/manual-review", json=said)).code == "second_reviewer_required"
        assert (await other.send("POST", "/admin/kyc/manual-review", json=said)).status == 200
        assert (await world.status(asha))["kyc_tier"] == "tier_1"


async def test_reviews_come_in_pages(world: World) -> None:
    cases = [await in_review(world, await world.person(pan_number=f"ABCPV123{n}F")) for n in range(3)]
    reviewer = admin(world)
    first = (await reviewer.get("/admin/kyc/reviews?limit=2")).json()
    second = (await reviewer.get(f"/admin/kyc/reviews?limit=2&cursor={first['next_cursor']}")).json()
    assert [each["case_id"] for each in first["items"] + second["items"]] == [case["case_id"] for case in cases]
    assert second["next_cursor"] is None
    assert (await reviewer.get("/admin/kyc/reviews?cursor=abc")).code == "invalid_cursor"
    assert (await reviewer.get("/admin/kyc/reviews?limit=0")).status == 422
