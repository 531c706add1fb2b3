"""Acme's sandbox: `python -m usercore.testing.acme.sandbox --port N` speaks its wire format on loopback."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from usercore.testing.control import Case, Outcome, Reading
from usercore.testing.delivery import Message
from usercore.testing.pages import Step
from usercore.testing.sandbox import Sandbox
from usercore.testing.server import main

STATUSES: Mapping[str, str] = {
    "open": "open",
    "done": "processing",
    "approve": "verified",
    "decline": "rejected",
    "review": "in_review",
    "cancel": "abandoned",
    "approve after review": "verified_by_reviewer",
    "decline after review": "rejected_by_reviewer",
}
"""The vendor's word for each outcome of the control interface, and for those before there is one."""


class AcmeSandbox(Sandbox):
    """The base has the control interface, the hosted page and the webhooks; here is what the vendor is like."""

    title = "Acme"
    steps = (
        Step(title="PAN card", text="Hold the card into the frame.", fields=("name", "date_of_birth", "pan_number")),
        Step(title="Selfie", text="Look into the camera.", face=True, button="Take the selfie"),
    )

    def routes(self) -> Iterable[web.RouteDef]:
        return (web.post("/verifications", self._start), web.get("/verifications/{id}", self._result))

    def message(self, case: Case, outcome: Outcome | None) -> Message | None:
        case.events += 1
        event = f"{case.reference}-{case.events}"
        body = {"event": event, "verification": verification(case, outcome)}
        return Message(event_id=event, kind="verification", body=msgspec.json.encode(body))

    def returned(self, case: Case) -> Mapping[str, str]:
        return {"verification": case.reference}

    async def _start(self, request: web.Request) -> web.Response:
        _check_key(request)
        sent = await request.json()
        case = await self.open(
            # The same reference is the same verification: `open` gives the case that there is.
            "ver_" + sent["reference"].replace("-", ""),
            reading(sent.get("person", {})),
            attempt_id=sent["reference"],
            callback_url=sent.get("callback"),
            redirect_url=sent.get("return_to"),
        )
        return web.json_response({"id": case.reference, "page": self.page_url(request, case)}, status=201)

    async def _result(self, request: web.Request) -> web.Response:
        _check_key(request)
        case = self.cases.get(request.match_info["id"])
        if case is None:
            return web.json_response({"error": "not_found"}, status=404)
        await self.reach(case)
        return web.json_response(verification(case, case.outcome))


def reading(person: Mapping[str, Any]) -> Reading:
    """What the documents of a person say who is who they say they are."""
    return msgspec.convert(
        {"name": person.get("name"), "date_of_birth": person.get("born"), "pan_number": person.get("pan")}, Reading
    )


def verification(case: Case, outcome: Outcome | None) -> dict[str, Any]:
    """A result, in an answer and in a webhook. Replace it by the vendor's own words for all of it."""
    word = outcome or ("done" if case.outcome else "open")
    if case.manual and outcome in ("approve", "decline"):
        word += " after review"
    done = outcome in ("approve", "decline", "review")
    result = {"approve": "ok", "decline": "bad"}.get(outcome or "", "unsure")
    identity = case.identity
    born = identity.date_of_birth
    return {
        "id": case.reference,
        "reference": case.attempt_id,
        "status": STATUSES[word],
        "reason": case.code if outcome == "decline" else None,
        "checks": {"pan": result, "selfie": result} if done else {},
        "name": _plain(identity.whole_name()) if done else None,
        "born": _plain(born) if done else None,
        "pan": _plain(identity.pan_number) if done else None,
        "decided_at": case.memory.setdefault("decided_at", datetime.now(UTC).isoformat()) if done else None,
    }


def _plain(value: object) -> str | None:
    return None if value is None or value is UNSET else str(value)


def _check_key(request: web.Request) -> None:
    if not request.headers.get("authorization", "").removeprefix("Bearer "):
        raise web.HTTPUnauthorized(text='{"error": "unauthorized"}', content_type="application/json")


if __name__ == "__main__":
    main(AcmeSandbox)
