"""Signzy's sandbox: `python -m kyc_signzy.sandbox --port N` speaks its wire format on loopback."""

import argparse
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct

from kyc_signzy import replies
from kyc_signzy.documents import FILES
from kyc_signzy.reading import a_text, an_object
from kyc_signzy.replies import BankReply, gateway, loopback, stop
from usercore.plugins import Address
from usercore.testing.control import Case, Outcome, Plan, Reading
from usercore.testing.delivery import Message
from usercore.testing.pages import Step
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import main

V1, V2 = "/api/v3/digilocker/", "/api/v3/digilocker-v2/"
BANK = "/api/v3/bankaccountverification/bankaccountverifications"
WRONG_KEY = "wrong-key"
"""A token that is not accepted; any other without a space is."""
FAILURES = ((500, "Internal Server Error"), (502, "Bad Gateway"), (504, "Gateway Timeout"))
"""Of those that Signzy lists, the ones that come of themselves, in turn. It lists no 429."""
ACCOUNTS: Mapping[str, BankReply] = {"0000": "inactive", "0001": "stranger", "0002": "nameless"}
"""By the last four digits of the number."""
REFUSED = "0009"
OUTCOMES: Mapping[Outcome | None, BankReply] = {"approve": "good", "decline": "inactive", "review": "stranger"}
RESULTS: Mapping[BankReply, Outcome] = {
    "good": "approve",
    "inactive": "decline",
    "stranger": "review",
    "nameless": "review",
}
ADDRESSES = ("internalId", "callbackUrl", "successRedirectUrl", "failureRedirectUrl")
HOME = Address(line1="14 Main Road", city="Loohar", state="Uttar Pradesh", pin_code="221717")
"""Where everybody lives of whom nothing else is said."""


class Account(Struct, frozen=True, kw_only=True):
    """What a customer has agreed on with Signzy, and how long it keeps things."""

    v1: bool = False
    """Whether it is entitled to DigiLocker v1, too."""
    client_id: bool = False
    """Whether x-client-unique-id is required."""
    no_credits: bool = False
    unmasked: bool = False
    """Whether Aadhaar numbers come whole, as they should not."""
    file_s: float = 30.0
    link_s: float = 86_400.0
    """How long a consent link is good for: not published."""


class SignzySandbox(Sandbox):
    """DigiLocker, bank accounts, files for a while, and what is odd about them."""

    title = "DigiLocker by Signzy"
    steps = (
        Step(title="Sign in to DigiLocker", text="Use your Aadhaar number.", fields=("aadhaar_number",)),
        Step(
            title="Share your Aadhaar",
            text="DigiLocker gives these to Signzy when you consent.",
            fields=("name", "date_of_birth", "address"),
            button="Allow",
        ),
    )
    agreed: ClassVar[Account] = Account()

    def __init__(self, options: Options | None = None, account: Account | None = None) -> None:
        super().__init__(options)
        self._account = account or self.agreed
        self._consents: dict[tuple[str | None, ...], str] = {}
        """The case of a consent by what it was asked for with."""
        self._unanswered: dict[tuple[str, str], str] = {}
        """The case of a bank account whose answer was lost."""
        self._failures = 0
        self._file_key = secrets.token_bytes()

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.post(V1 + "createUrl", self._create_url),
            web.post(V2 + "createUrl", self._create_url),
            web.post(V1 + "geteaadhaar", self._aadhaar),
            web.post(V1 + "geteaadhaarwithxml", self._aadhaar),
            # The capital A is theirs.
            web.post(V2 + "geteAadhaar", self._aadhaar),
            web.post(V1 + "getDetails", self._details),
            web.post(V2 + "getDetails", self._details),
            web.post(BANK, self._bank),
            web.get("/persist/{key}/{name}", self._file, allow_head=False),
        )

    def failure(self) -> web.Response:
        status, text = FAILURES[self._failures % len(FAILURES)]
        self._failures += 1
        body = loopback(status, text) if status == 500 else gateway(text)
        return web.json_response(body, status=status)

    def message(self, case: Case, outcome: Outcome | None) -> Message | None:
        # Of progress nothing is told, and a bank account has its answer.
        if outcome is None or "version" not in case.memory:
            return None
        link = self._links(case.memory["origin"])
        body = replies.callback(case, outcome, link, unmasked=self._account.unmasked)
        return Message(event_id=body["id"], kind=body["event"], body=msgspec.json.encode(body))

    def finished(self, case: Case) -> None:
        if case.outcome == "cancel":
            case.redirect_url = case.memory.get("failure_url")

    # DigiLocker -----------------------------------------------------------------------------------------------------

    async def _create_url(self, request: web.Request) -> web.Response:
        body = await self._asked(request)
        if not isinstance(body.get("consentValidTill", 0), int):
            raise stop(400, gateway('"consentValidTill" must be a number'))
        attempt_id, callback_url, success_url, failure_url = key = tuple(_given(body, name) for name in ADDRESSES)
        reference = secrets.token_hex(12)
        if any(key):
            # As integrators have seen it: who asks again with the same addresses may get the consent that is there.
            reference = self._consents.setdefault(key, reference)
        case = await self.open(
            reference,
            Reading(name=a_text(an_object(body.get("sandboxPerson")).get("name")) or UNSET, address=HOME),
            attempt_id=attempt_id,
            redirect_url=success_url,
            callback_url=callback_url,
            memory={
                "version": _version(request),
                "origin": str(request.url.origin()),
                "failure_url": failure_url,
                "until": time.monotonic() + self._account.link_s,
                "wanted": _wanted(body),
            },
        )
        url = f"{self.page_url(request, case)}/0?client_id=sandbox&state={case.reference}"
        return web.json_response({"result": {"url": url, "requestId": case.reference}})

    async def _aadhaar(self, request: web.Request) -> web.Response:
        body = await self._asked(request)
        case = await self._consented(request, body)
        link = self._links(str(request.url.origin()))
        result = replies.aadhaar(case, case.outcome, link, _wanted(body), unmasked=self._account.unmasked)
        return web.json_response({"result": result})

    async def _details(self, request: web.Request) -> web.Response:
        case = await self._consented(request, await self._asked(request))
        return web.json_response({"result": replies.details(case)})

    async def _consented(self, request: web.Request, body: Mapping[str, Any]) -> Case:
        """The case that a call is about, when the person has consented. Raises their errors."""
        version = _version(request)
        case = self.cases.get(str(body.get("requestId")))
        if case is None or case.memory.get("version") != version:
            raise stop(400, {"error": {"name": "Error", "status": 400, "message": "Token not found"}})
        await self.reach(case)
        if case.outcome in (None, "cancel"):
            if time.monotonic() >= case.memory["until"]:
                raise stop(400, {"error": {"name": "Error", "status": 400, "message": "Token is Used"}})
            # The status of a bad token, in v2.
            raise stop(401, loopback(401, replies.NOT_YET)) if version == "v2" else stop(404, gateway(replies.NOT_YET))
        return case

    # Bank accounts --------------------------------------------------------------------------------------------------

    async def _bank(self, request: web.Request) -> web.Response:
        body = await self._asked(request)
        number, ifsc = (_required(body, name) for name in ("beneficiaryAccount", "beneficiaryIFSC"))
        if number.endswith(REFUSED):
            raise stop(422, loopback(422, "beneficiaryIFSC is not valid"))
        name = a_text(body.get("beneficiaryName"))
        # Nothing in the call says which attempt it is of: one whose answer was lost is known by its account.
        reference = self._unanswered.setdefault((number, ifsc), secrets.token_hex(12))
        case = await self.open(reference, Reading(name=name or UNSET))
        self._unanswered.pop((number, ifsc), None)
        said = OUTCOMES.get(case.outcome) or OUTCOMES.get(case.plan.outcome)
        reply = said or ACCOUNTS.get(number[-4:], "good")
        if case.outcome is None and said is None:
            self.finish(case, Plan(outcome=RESULTS[reply]))
        return web.json_response({"result": replies.bank(reply, reference, a_text(case.identity.whole_name()), ifsc)})

    # Files ----------------------------------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        until, _, mac = request.match_info["key"].partition("-")
        if name not in FILES or not hmac.compare_digest(mac.encode(), self._mac(until, name).encode()):
            raise stop(404, gateway("File not found"))
        if time.monotonic_ns() >= int(until):
            raise stop(403, gateway("Link has expired"))
        content_type, content = FILES[name]
        return web.Response(body=content, content_type=content_type)

    def _links(self, origin: str) -> Callable[[str], str]:
        """Addresses of files, good for a while from now on."""
        until = str(time.monotonic_ns() + int(self._account.file_s * 1e9))
        return lambda name: f"{origin}/persist/{until}-{self._mac(until, name)}/{name}"

    def _mac(self, until: str, name: str) -> str:
        return hmac.digest(self._file_key, f"{until} {name}".encode(), "sha256").hex()[:32]

    # Who calls ------------------------------------------------------------------------------------------------------

    async def _asked(self, request: web.Request) -> dict[str, Any]:
        """The body of a call by somebody who may make it. Raises their errors."""
        token = request.headers.get("authorization")
        # Which of the two forms a missing and a wrong token have in v3 is not published.
        if not token:
            raise stop(401, gateway("No API key found in request"))
        if " " in token or token == WRONG_KEY:
            raise stop(401, loopback(401, "Authorization Required", {"code": "AUTHORIZATION_REQUIRED"}))
        if self._account.client_id and not request.headers.get("x-client-unique-id"):
            raise stop(401, gateway("x-client-unique-id is missing"))
        if request.path.startswith(V1) and not self._account.v1:
            raise stop(403, gateway("You cannot consume this service"))
        if self._account.no_credits:
            raise stop(403, loopback(403, "You have run out of credits"))
        try:
            return msgspec.json.decode(await request.read(), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # The long form of their errors.
            long = {"status": 400, "reason": "INVALID_PARAM", "type": "Bad Request"}
            raise stop(400, loopback(400, "Invalid request body", long)) from None


def _given(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None


def _wanted(body: Mapping[str, Any]) -> frozenset[str]:
    """The files that a call asks for besides."""
    flags = {"getEAadhaarPdf": "aadhaar.pdf", "getEAadhaarJpeg": "aadhaar.jpeg"}
    return frozenset(file for flag, file in flags.items() if body.get(flag) is True)


def _version(request: web.Request) -> str:
    return "v1" if request.path.startswith(V1) else "v2"


def _required(body: Mapping[str, Any], name: str) -> str:
    value = _given(body, name)
    if value is None:
        raise stop(400, gateway(f'"{name}" must be a string'))
    return value


def run(arguments: Sequence[str] | None = None) -> None:
    """Run as a process until a signal comes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--v1", "--client-id", "--no-credits", "--unmasked"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--file-s", type=float, default=Account().file_s)
    parser.add_argument("--link-s", type=float, default=Account().link_s)
    own, others = parser.parse_known_args(arguments)
    SignzySandbox.agreed = Account(**vars(own))
    main(SignzySandbox, others)


if __name__ == "__main__":
    run()
