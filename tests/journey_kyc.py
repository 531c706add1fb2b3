"""What a verification goes through: three tiers, a review that is decided, a decline, messages of strangers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from tests.canary import Canary, Place
from tests.journey import Recorder
from tests.service import Person
from tests.waiting import eventually
from tests.zyx import ADDRESS, PROFILE, V
from usercore.db import Conn
from usercore.plugins.webhooks import sign
from usercore.testing.sandbox import Sandbox

PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"%PDF")
"""How documents begin."""


def secrets_of(vendor: str) -> dict[str, str]:
    """What a vendor and we know and nobody else: its settings."""
    return {
        f"{vendor.upper()}_API_KEY": f"zyx-api-key-of-{vendor}-4711",
        f"{vendor.upper()}_APP_ID": f"zyxapp{vendor}",
        f"{vendor.upper()}_WORKFLOW_ID": "wf_kyc",
        f"{vendor.upper()}_WEBHOOK_SECRETS": f"zyx-webhook-secret-of-{vendor}-4712",
    }


class Verification:
    """Of two people: one who reaches tier_3, and one who is reviewed."""

    def __init__(
        self, api: Recorder, person: Person, other: Person, owner: Conn, vendors: Mapping[str, tuple[Sandbox, str]]
    ) -> None:
        """`vendors` are the sandboxes with where they are."""
        self._api = api
        self._person = person
        self._other = other
        self._owner = owner
        self._vendors = vendors
        self._sdk_tokens: set[str] = set()
        self._admin = api.user(scope="admin pii:read", client_id="backoffice")

    async def all(self) -> None:
        await self.reaches_tier_3()
        await self.is_declined_and_reviewed()
        await self.hears_from_strangers()
        await eventually(self._are_stored, why="the documents are fetched")
        await self.is_looked_at()
        await self.is_handled_by_services()

    def secrets(self) -> list[Canary]:
        """What the vendors and the people's browsers were given: no store may have it in clear."""
        assert self._sdk_tokens
        found = {f"SDK token {number}": token for number, token in enumerate(self._sdk_tokens)}
        for vendor, (sandbox, _) in self._vendors.items():
            found |= {name: value for name, value in secrets_of(vendor).items() if not name.endswith("WORKFLOW_ID")}
            for number, case in enumerate(sandbox.cases.values()):
                found[f"link {number} of {vendor}"] = case.link
                if case.callback_url is not None and case.callback_url.rpartition("/")[2] != vendor:
                    found[f"callback {number} of {vendor}"] = case.callback_url.rpartition("/")[2]
        return [Canary(name, value) for name, value in found.items()]

    async def reaches_tier_3(self) -> None:
        assert (await self._person.patch(PROFILE)).status == 200
        identity = {
            "name": f"{V['first_name']} {V['last_name']}",
            "date_of_birth": V["date_of_birth"],
            "aadhaar_number": V["Aadhaar that a vendor sends"],
            "address": ADDRESS,
        }
        await self._goes_up(self._person, "hyperverge", "tier_1")
        await self._goes_up(self._person, "signzy", "tier_2", identity=identity)
        account = {"account_number": V["account number"], "ifsc": V["ifsc"]}
        for wrong in ({**account, "ifsc": V["bad ifsc"]}, {**account, "account_number": V["bad account number"]}):
            asked = {"target_tier": "tier_3", "bank_account": wrong}
            assert (await self._person.send("POST", "/v1/kyc/initiate", json=asked)).status == 422
        await self._control("signzy", "next", outcome="approve")
        asked = {"target_tier": "tier_3", "bank_account": account}
        assert (await self._person.send("POST", "/v1/kyc/initiate", json=asked)).status in (201, 202)
        await self._becomes(self._person, "tier_3", "approved")

    async def is_declined_and_reviewed(self) -> None:
        changed = {"pan_number": V["another pan_number"]}
        assert (await self._other.patch({**PROFILE, **changed})).status == 200
        assert (await self._other.send("POST", "/v1/kyc/resubmit", json={})).status == 409
        await self._control("hyperverge", "next", outcome="decline", code=V["reason of a vendor"])
        assert (await self._other.send("POST", "/v1/kyc/initiate", json={})).status in (201, 202)
        await self._becomes(self._other, "tier_1", "rejected")
        await self._control("hyperverge", "next", outcome="approve", identity={"name": V["name on a card"]})
        assert (await self._other.send("POST", "/v1/kyc/resubmit", json={})).status in (201, 202)
        await self._becomes(self._other, "tier_1", "in_review")

    async def is_looked_at(self) -> None:
        """An admin sees masks; what is revealed for a purpose goes to that admin alone."""
        (review,) = (await self._admin_gets("/admin/kyc/reviews"))["items"]
        case = f"/admin/kyc/cases/{review['case_id']}"
        shown = await self._admin_gets(case)
        reply = await self._admin.send("GET", f"{case}?reveal=name,pan_number&purpose=compliance")
        assert V["name on a card"] in reply.body.decode()
        for artifact in shown["artifacts"]:
            reply = await self._admin.send("GET", f"{artifact['href']}?purpose=compliance")
            assert reply.body.startswith(PICTURES)
        decision: dict[str, Any] = {
            "case_id": review["case_id"],
            "decision": "reject",
            "reason": "identity_mismatch",
            "case_version": review["case_version"],
            "note": V["note of a reviewer"],
        }
        headers = {"Idempotency-Key": V["idempotency key"] + "-review"}
        for asked, status in (
            ({**decision, "case_version": 99}, 409),
            ({**decision, "case_id": str(uuid4())}, 404),
            ({**decision, "note": f"it says {V['whole Aadhaar']}"}, 422),
        ):
            reply = await self._admin.send("POST", "/admin/kyc/manual-review", json=asked)
            assert reply.status == status, reply.body
        for _ in range(2):
            reply = await self._admin.send("POST", "/admin/kyc/manual-review", json=decision, headers=headers)
            assert reply.status == 200, reply.body
            self._api.received.append(Place("masked bodies", "POST /admin/kyc/manual-review", reply.body))

    async def is_handled_by_services(self) -> None:
        """Found, looked at, frozen, let go, and told of it: all of it masked."""
        for asked in ({"pan_number": V["pan_number"]}, {"email": V["email"]}, {"phone": f"+91{V['phone']}"}):
            reply = await self._admin.send("POST", "/admin/users/search", json={**asked, "limit": 1})
            assert reply.json()["items"], reply.body
            self._api.received.append(Place("masked bodies", "POST /admin/users/search", reply.body))
        user = f"/internal/users/{self._person.id}"
        reply = await self._admin.send("GET", f"{user}?reveal=phone&purpose=support")
        assert V["phone"] in reply.body.decode()
        for what, reason in (("freeze", "other"), ("unfreeze", "other")):
            asked = {"reason": reason, "note": V["note of a reviewer"]}
            headers = {"Idempotency-Key": f"{V['idempotency key']}-{what}"}
            reply = await self._admin.send("POST", f"{user}/{what}", json=asked, headers=headers)
            assert reply.status == 200, reply.body
        for path in (user, f"{user}/audit?limit=200"):
            await self._admin_gets(path)
        reply = await self._person.get("/v1/me/access-log")
        assert reply.status == 200
        self._api.received.append(Place("masked bodies", "GET /v1/me/access-log", reply.body))

    async def hears_from_strangers(self) -> None:
        """Messages about nobody, in good and bad hands."""
        secret = secrets_of("hyperverge")["HYPERVERGE_WEBHOOK_SECRETS"]
        said = {"eventType": "FINISH_TRANSACTION_WEBHOOK", "reviewerEmail": V["e-mail of a reviewer"], **PROFILE}
        for body, status in (
            (msgspec.json.encode({**said, "transactionId": str(uuid4())}), 200),
            (msgspec.json.encode({**said, "uid": V["Aadhaar that a vendor sends"]}), 400),
            (V["malformed"].encode(), 400),
        ):
            headers = sign(secret, str(uuid4()), int(time.time()), body)
            for path, given, expected in (
                ("/v1/kyc/webhook/hyperverge", headers, status),
                ("/v1/kyc/webhook", headers, status),
                ("/v1/kyc/webhook/signzy", headers, 401),
                (f"/v1/kyc/webhook/{V['path']}/{V['path']}", {}, 401),
            ):
                reply = await self._api.send("POST", path, body=body, headers=given)
                assert reply.status == expected, reply.body

    async def _goes_up(self, person: Person, vendor: str, tier: str, **told: object) -> None:
        assert (await person.send("POST", "/v1/kyc/initiate", json={"target_tier": tier})).status in (201, 202)
        case_id: str | None = None

        async def taken() -> bool:
            nonlocal case_id
            case = (await self._status(person))["case"]
            case_id = case["case_id"]
            if case["sdk_token"] is not None:
                self._sdk_tokens.add(case["sdk_token"])
            return case["redirect_url"] is not None

        await eventually(taken, why=f"{vendor} takes the case")
        await self._control(vendor, "complete", reference=case_id, outcome="approve", **told)
        await self._becomes(person, tier, "approved")

    async def _becomes(self, person: Person, tier: str, status: str) -> None:
        last: dict[str, Any] = {}

        async def there() -> bool:
            nonlocal last
            last = (await self._status(person))["case"]
            return (last["target_tier"], last["status"]) == (tier, status)

        try:
            await eventually(there)
        except AssertionError:
            told = [case.deliveries for sandbox, _ in self._vendors.values() for case in sandbox.cases.values()]
            raise AssertionError(f"the case does not become {status}: {last}, told {told}") from None

    async def _status(self, person: Person) -> dict[str, Any]:
        reply = await person.get("/v1/kyc/status")
        assert reply.status == 200, reply.body
        return reply.json()

    async def _admin_gets(self, path: str) -> dict[str, Any]:
        reply = await self._admin.get(path)
        assert reply.status == 200, reply.body
        self._api.received.append(Place("masked bodies", f"GET {path}", reply.body))
        return reply.json()

    async def _control(self, vendor: str, call: str, **told: object) -> None:
        url = f"{self._vendors[vendor][1]}/_control/{call}"
        self._api.sent.append(Place("sent", url, msgspec.json.encode(told)))
        async with self._api.http.post(url, json=told) as answer:
            assert answer.status == 200, await answer.text()

    async def _are_stored(self) -> bool:
        states = await self._owner.fetchval("select array_agg(distinct state::text) from kyc_artifacts")
        return states == ["stored"]


def stored_places(folder: Path) -> Sequence[Place]:
    """Every file of the object store."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return [Place("documents", str(file.relative_to(folder)), file.read_bytes()) for file in files]
