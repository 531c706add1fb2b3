"""The client against the sandbox over loopback: documented oddities, page, webhooks, control interface."""

import base64
import re
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiohttp import web
from kyc_hyperverge import SPEC
from kyc_hyperverge.sandbox import HyperVergeSandbox
from kyc_hyperverge.settings import BASE_URL, TOKEN_URL, HyperVergeSettings

from plugins.kyc_hyperverge.tests.transactions import PERSON, Journey, attempt, journey
from tests.testing.toy import receiving
from tests.waiting import eventually
from usercore.plugins import (
    RejectionCode,
    Standing,
    VendorAuthError,
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    VendorUnavailable,
)
from usercore.plugins.vendor import WebhookScheme
from usercore.plugins.webhooks import WebhookConfig
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import running

EVENTS = ["INTERMEDIATE_TRANSACTION_WEBHOOK", "FINISH_TRANSACTION_WEBHOOK"]


async def test_start_gives_the_link_and_a_token_of_that_transaction() -> None:
    async with journey() as to:
        attempt_id = uuid4()
        started = await to.start(attempt_id)
        assert started.vendor_case_id == str(attempt_id)
        assert (started.redirect_url or "").startswith(to.url + "/kyc/")
        payload = (started.sdk_token or "").split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="))
        assert claims["transactionId"] == str(attempt_id)
        assert claims["workflowId"] == "wf_kyc"
        again = await to.start(attempt_id)
        assert again.redirect_url == started.redirect_url
        assert len((await to.ask("GET", "/_control/cases"))[1]["cases"]) == 1


@pytest.mark.parametrize(
    ("outcome", "status", "standing"),
    [
        ("approve", "auto_approved", Standing.APPROVED),
        ("decline", "auto_declined", Standing.REJECTED),
        ("review", "needs_review", Standing.REVIEW),
        ("cancel", "user_cancelled", Standing.STARTED),
    ],
)
async def test_outcomes(outcome: str, status: str, standing: Standing) -> None:
    async with journey() as to:
        started = await to.start()
        with pytest.raises(VendorPending):
            await to.vendor.fetch(attempt(started))
        await to.control("complete", reference=started.vendor_case_id, outcome=outcome)
        found = await to.vendor.fetch(attempt(started))
        assert (found.standing, found.vendor_status) == (standing, status)
        if outcome == "approve":
            assert found.checks == {"pan": "passed", "selfie": "passed"}
            assert found.identity
            assert (found.identity.name, found.identity.pan_number) == ("Ravi Kumar", PERSON.pan_number)
            assert found.identity.date_of_birth == PERSON.date_of_birth
            assert [artifact.type for artifact in found.artifacts] == ["pan_card", "selfie"]
            for artifact in found.artifacts:
                async with to.session.get(artifact.url) as answer:
                    assert (await answer.read()).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(("outcome", "standing"), [("approve", 40), ("decline", 41)])
async def test_reviewer_decides(outcome: str, standing: int) -> None:
    async with journey() as to:
        started = await to.start()
        await to.control("complete", reference=started.vendor_case_id, outcome="review")
        await to.control("complete", reference=started.vendor_case_id, outcome=outcome)
        assert (await to.vendor.fetch(attempt(started))).standing == standing


@pytest.mark.parametrize(
    ("code", "checks"),
    [
        ("document_unreadable", {"pan": "failed", "selfie": "passed"}),
        ("document_expired", {"pan": "failed", "selfie": "passed"}),
        ("pan_invalid", {"pan": "failed", "selfie": "passed"}),
        ("face_mismatch", {"pan": "passed", "selfie": "failed"}),
        ("liveness_failed", {"pan": "passed", "selfie": "failed"}),
        ("identity_mismatch", {"pan": "passed", "selfie": "passed"}),
    ],
)
async def test_reason_of_a_decline(code: RejectionCode, checks: dict[str, str]) -> None:
    async with journey() as to:
        await to.control("next", outcome="decline", code=code)
        started = await to.start()
        await eventually(lambda: _is_done(to))
        found = await to.vendor.fetch(attempt(started))
        assert (found.standing, found.rejection_code, found.checks) == (Standing.REJECTED, code, checks)


async def test_fraud_and_another_identity() -> None:
    async with journey() as to:
        started = await to.start()
        said = {"outcome": "decline", "code": "fraud", "identity": {"pan_number": "ZZZPZ9999Z", "date_of_birth": None}}
        await to.control("complete", reference=started.vendor_case_id, **said)
        found = await to.vendor.fetch(attempt(started))
        assert (found.standing, found.rejection_code) == (Standing.FRAUD, "fraud")
        assert found.identity
        assert (found.identity.pan_number, found.identity.date_of_birth) == ("ZZZPZ9999Z", None)


# Oddities -------------------------------------------------------------------------------------------------------------


async def test_flags_are_an_object_when_a_journey_broke() -> None:
    async with journey() as to:
        started = await to.start()
        await to.control("complete", reference=started.vendor_case_id, outcome="cancel", code="error")
        asked = {"transactionId": started.vendor_case_id, "sendDebugInfo": "yes"}
        _, answer = await to.ask("POST", "/v1/output", asked)
        assert (answer["result"]["status"], answer["result"]["flags"]) == ("error", {})
        assert answer["result"]["debugInfo"] == {"latestModule": "module_selfie"}
        assert (await to.vendor.fetch(attempt(started))).standing == Standing.STARTED


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v1/output", {"transactionId": "x"}, 400, "TransactionId not found"),
        ("/v1/link-kyc/results", {"transactionId": "x"}, 422, "TransactionId not found"),
        (
            "/v1/output",
            {"transactionId": "x", "sendAllDebugInfo": "maybe"},
            422,
            '"sendAllDebugInfo" must be one of [yes, no]',
        ),
        ("/v1/output", {}, 422, '"transactionId" is required'),
        ("/v1/link-kyc/start", {"transactionId": "x"}, 422, '"workflowId" is required'),
        ("/v1/output", [], 422, "Invalid request body"),
    ],
)
async def test_errors_come_in_the_envelope(path: str, body: Any, status: int, error: str) -> None:
    async with journey() as to:
        found, answer = await to.ask("POST", path, body)
        assert found == answer["statusCode"] == status
        assert (answer["status"], answer["result"]) == ("failure", {"error": error})
        assert re.fullmatch("[0-9]{13}-[0-9a-f-]{36}", answer["metadata"]["requestId"])


@pytest.mark.parametrize("headers", [{}, {"appId": "app"}, {"appKey": "key"}, {"appId": "app", "appKey": "wrong-key"}])
@pytest.mark.parametrize("path", ["/v1/output", "/v1/link-kyc/results", "/v1/link-kyc/start", "/api/v1/config"])
async def test_credentials_are_looked_at(path: str, headers: dict[str, str]) -> None:
    async with journey() as to:
        status, answer = await to.ask("POST", path, {}, headers)
        assert (status, answer["result"]["error"]) == (401, "Missing/Invalid credentials")


async def test_wrong_key_is_an_auth_error_in_every_call() -> None:
    async with journey() as to:
        started = await to.start()
        to.vendor = to.vendor_with(api_key="wrong-key")
        with pytest.raises(VendorAuthError):
            await to.start()
        with pytest.raises(VendorAuthError):
            await to.vendor.fetch(attempt(started))


async def test_login_has_a_text_for_a_status_and_bearer_in_its_token() -> None:
    async with journey() as to:
        status, answer = await to.ask("POST", "/login", {"appId": "app", "appKey": "key", "expiry": 300})
        assert (status, answer["statusCode"]) == (200, "200")
        assert answer["result"]["token"].startswith("Bearer ")


async def test_server_errors_take_turns() -> None:
    async with journey(Options(failure_rate=1.0)) as to:
        statuses = [(await to.ask("POST", "/v1/output", {}))[0] for _ in range(4)]
        assert statuses == [500, 503, 429, 500]
        with pytest.raises(VendorUnavailable):
            await to.start()


async def test_case_in_trouble_fails_and_recovers() -> None:
    async with journey() as to:
        await to.control("next", outcome="error")
        attempt_id = uuid4()
        with pytest.raises(VendorUnavailable):
            await to.start(attempt_id)
        await to.control("complete", reference=str(attempt_id), outcome="approve")
        assert (await to.vendor.fetch(attempt(await to.start(attempt_id)))).standing == Standing.APPROVED


class Odd(Sandbox):
    """A vendor that answers whatever it was given."""

    answers: dict[str, tuple[int, Any]]

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/{rest:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        status, body = self.answers.get(request.path, (404, {}))
        return web.json_response(body, status=status)


LINK = "/v1/link-kyc/start"
Answer = tuple[int, Any]
GOOD: Answer = (200, {"status": "success", "statusCode": "200", "result": {"startKycUrl": "https://hv.example/x"}})


async def odd_start(answers: dict[str, tuple[int, Any]]) -> tuple[str | None, str | None] | type[Exception]:
    sandbox = Odd()
    sandbox.answers = answers
    async with running(sandbox) as url, journey() as to:
        to.vendor = to.vendor_with(base_url=url)
        try:
            started = await to.start()
        except VendorError as error:
            return type(error)
        return started.redirect_url, started.sdk_token


TOKENS: list[tuple[Answer, str | None]] = [
    ((200, {"statusCode": 200, "result": {"authToken": "a.b.c"}}), "a.b.c"),
    ((200, {"status": "success", "statusCode": "200", "result": {"token": "Bearer a.b.c"}}), "a.b.c"),
    ((200, {"result": {"authToken": "Bearer a.b.c"}}), "a.b.c"),
    ((200, {"result": {"authToken": 7}}), None),
    ((200, {"status": "failure", "statusCode": "401", "error": "x"}), None),
    ((401, {}), None),
    ((500, {}), None),
]


@pytest.mark.parametrize(("answer", "token"), TOKENS)
async def test_both_forms_of_a_token_and_none(answer: tuple[int, Any], token: str | None) -> None:
    assert await odd_start({LINK: GOOD, "/v2/auth/token": answer}) == ("https://hv.example/x", token)


REFUSALS: list[tuple[Answer, type[Exception]]] = [
    ((400, {"statusCode": 400, "result": {"error": "TransactionId exists"}}), VendorProtocolError),
    ((422, {"statusCode": "422", "result": {"error": "x"}}), VendorProtocolError),
    ((200, {"status": "failure", "statusCode": "401", "error": "x"}), VendorAuthError),
    ((200, {"statusCode": 200, "result": {}}), VendorProtocolError),
    ((200, {"statusCode": 200, "result": {"startKycUrl": "javascript:x"}}), VendorProtocolError),
    ((200, []), VendorProtocolError),
    ((503, {}), VendorUnavailable),
    # The status is in the body, as a number or a text, whatever HTTP says: nobody is judged by an outage.
    ((200, {"status": "failure", "statusCode": 429, "result": {"error": "rate limit"}}), VendorUnavailable),
    ((200, {"status": "failure", "statusCode": "503", "error": "busy"}), VendorUnavailable),
    ((400, {"statusCode": "500", "result": {"summary": {"action": "fail"}}}), VendorUnavailable),
]


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_start_without_a_link(answer: tuple[int, Any], error: type[Exception]) -> None:
    assert await odd_start({LINK: answer}) is error


OUTPUT = "/v1/output"
LOGS = "/v1/link-kyc/results"
DONE: Answer = (200, {"status": "success", "statusCode": 200, "result": {"status": "auto_approved", "flags": []}})
FETCHES: list[tuple[dict[str, Answer], type[Exception]]] = [
    (
        {OUTPUT: (200, {"status": "failure", "statusCode": "401", "error": "Missing/Invalid credentials"})},
        VendorAuthError,
    ),
    ({OUTPUT: (200, {"status": "failure", "statusCode": 403, "result": {"error": "x"}})}, VendorAuthError),
    ({OUTPUT: (200, {"status": "failure", "statusCode": 429, "result": {"error": "rate limit"}})}, VendorUnavailable),
    ({OUTPUT: (200, {"status": "failure", "statusCode": "500", "error": "busy"})}, VendorUnavailable),
    ({OUTPUT: (429, {})}, VendorUnavailable),
    ({OUTPUT: (400, {"statusCode": 400, "result": {"error": "TransactionId not found"}})}, VendorPending),
    ({OUTPUT: (422, {"statusCode": 422, "result": {"error": "x"}})}, VendorProtocolError),
    ({OUTPUT: DONE, LOGS: (200, {"status": "failure", "statusCode": "401", "error": "x"})}, VendorAuthError),
    ({OUTPUT: DONE, LOGS: (200, {"status": "failure", "statusCode": "503", "error": "x"})}, VendorUnavailable),
    ({OUTPUT: DONE, LOGS: (422, {"statusCode": 422, "result": {"error": "TransactionId not found"}})}, VendorPending),
]


@pytest.mark.parametrize(("answers", "error"), FETCHES)
async def test_fetch_without_a_result(answers: dict[str, Answer], error: type[Exception]) -> None:
    """The status stands in the body too, as a number or a text, and nobody is judged by an outage."""
    sandbox = Odd()
    sandbox.answers = answers
    async with running(sandbox) as url, journey() as to:
        started = await to.start()
        to.vendor = to.vendor_with(base_url=url)
        with pytest.raises(error):
            await to.vendor.fetch(attempt(started))


async def test_a_module_that_refuses_the_person_is_a_rejection() -> None:
    """Their module APIs say it with a 400 and a summary that fails."""
    summary = {"action": "fail", "details": [{"code": "111", "message": "PAN verification failed"}]}
    answer = (400, {"status": "failure", "statusCode": 400, "result": {"error": "Bad Request", "summary": summary}})
    assert await odd_start({LINK: answer}) is VendorRejected


async def test_flags_are_a_list_of_a_journey_that_ended() -> None:
    async with journey() as to:
        started = await to.start()
        said = {"outcome": "decline", "code": "document_unreadable"}
        await to.control("complete", reference=started.vendor_case_id, **said)
        _, answer = await to.ask("POST", OUTPUT, {"transactionId": started.vendor_case_id})
        (flag,) = answer["result"]["flags"]
        assert flag["values"] == {"422": "Document not detected"}
        assert (await to.vendor.fetch(attempt(started))).rejection_code == "document_unreadable"


# The page -------------------------------------------------------------------------------------------------------------


async def click_through(to: Journey, url: str, outcome: str) -> str:
    """Where the browser is sent at the end."""
    for form in ({"name": "Ravi Kumar", "date_of_birth": "1990-01-31", "pan_number": "ABCPE1234F"}, {}):
        async with to.session.post(url, data=form, allow_redirects=False) as answer:
            assert answer.status == 303
            url = to.url + answer.headers["location"]
    async with to.session.get(url) as answer:
        assert "Send to review" in await answer.text()
    async with to.session.post(url, data={"outcome": outcome}, allow_redirects=False) as answer:
        assert answer.status == 303
        return answer.headers["location"]


async def test_page_ends_in_the_redirect_and_opened_again_it_takes_the_approval_back() -> None:
    async with journey() as to:
        started = await to.start(redirect_url="https://app.example/back?x=1")
        assert started.redirect_url
        async with to.session.get(started.redirect_url) as answer:
            assert "Your PAN card" in await answer.text()
        back = "https://app.example/back?x=1&transactionId=" + started.vendor_case_id
        assert await click_through(to, started.redirect_url + "/0", "approve") == back + "&status=auto_approved"
        assert (await to.vendor.fetch(attempt(started))).standing == Standing.APPROVED
        async with to.session.get(started.redirect_url) as answer:
            assert "Open it again" in await answer.text()
        assert await click_through(to, started.redirect_url + "/0", "cancel") == back + "&status=user_cancelled"
        assert (await to.vendor.fetch(attempt(started))).vendor_status == "user_cancelled"


# Webhooks -------------------------------------------------------------------------------------------------------------


MODES: list[tuple[str, list[tuple[str, bool]]]] = [
    ("normal", [(EVENTS[0], True), (EVENTS[1], True)]),
    ("duplicate", [(EVENTS[0], True), (EVENTS[1], True), (EVENTS[1], True)]),
    ("reordered", [(EVENTS[1], True), (EVENTS[0], True)]),
    ("forged", [(EVENTS[1], False)]),
    ("drop", []),
]


@pytest.mark.parametrize("scheme", sorted(SPEC.webhook_schemes))
@pytest.mark.parametrize(("mode", "expected"), MODES, ids=[mode for mode, _ in MODES])
async def test_webhooks(scheme: WebhookScheme, mode: str, expected: list[tuple[str, bool]]) -> None:
    async with receiving(WebhookConfig(scheme=scheme, secrets=("s3cret",))) as receiver:
        options = Options(webhook_auth=scheme, webhook_secret="s3cret", webhook_url=receiver.url)
        async with journey(options) as to:
            started = await to.start()
            await to.control("complete", reference=started.vendor_case_id, outcome="approve", webhook=mode)
            if mode == "drop":
                # What comes afterwards shows that nothing came before.
                await to.control("complete", reference=started.vendor_case_id, outcome="cancel", webhook="normal")
                expected = [(EVENTS[1], True)]

            async def taken() -> bool:
                return len(receiver.taken) >= len(expected)

            await eventually(taken)
            bodies = [msgspec.json.decode(body) for _, body, _ in receiver.raw]
            goods = [good for _, good in receiver.taken]
            assert list(zip([body["eventType"] for body in bodies], goods, strict=True)) == expected
            events = [to.vendor.read_webhook({}, body) for _, body, _ in receiver.raw]
            assert {event.vendor_case_id for event in events} == {started.vendor_case_id}
            assert {event.attempt_id for event in events} == {started.vendor_case_id}
            assert all(event.evidence is None for event in events)
            assert len({event.event_id for event in events}) == (len(expected) - (mode == "duplicate"))
            assert bodies[-1].get("appId") == ("app" if mode == "reordered" else None)


async def test_reviewers_webhook_has_no_time_and_is_read() -> None:
    async with receiving(WebhookConfig(scheme="hmac", secrets=("s",))) as receiver:  # noqa: SIM117 - needs the first
        async with journey(Options(webhook_secret="s", webhook_url=receiver.url)) as to:
            started = await to.start()
            await to.control("complete", reference=started.vendor_case_id, outcome="review", webhook="drop")
            await to.control("complete", reference=started.vendor_case_id, outcome="approve", webhook="normal")

            async def taken() -> bool:
                return bool(receiver.taken)

            await eventually(taken)
            [(_, raw, _)] = receiver.raw
            body = msgspec.json.decode(raw)
            assert (body["eventType"], body["applicationStatus"]) == (
                "MANUAL_REVIEW_STATUS_UPDATE",
                "manually_approved",
            )
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{4}\.\d{3}Z", body["eventTime"])
            assert "@" in body["reviewerEmail"]
            assert to.vendor.read_webhook({}, raw).event_id == body["eventId"]


async def test_subscription_chooses_address_events_and_headers() -> None:
    config = WebhookConfig(scheme="static_header", secrets=("mine",))
    async with receiving(config) as receiver, journey(Options(webhook_auth="static_header")) as to:
        assert (await to.ask("GET", "/api/v1/config"))[0] == 400
        asked = {"webhookUrl": receiver.url, "events": EVENTS[1:], "headers": {"X-Webhook-Secret": "mine"}}
        for method in ("POST", "GET"):
            _, answer = await to.ask(method, "/api/v1/config", asked)
            assert answer["result"].keys() == {"appId", "webhookUrl", "created_at", "updated_at", "id"}
        _, answer = await to.ask("GET", "/api/v1/config?details=yes")
        assert answer["result"][0].keys() >= {"createdAt", "updatedAt", "events", "vendor"}
        assert (await to.ask("PUT", "/api/v1/config", asked))[1]["result"] == 1
        assert (await to.ask("PUT", "/api/v1/config", asked | {"events": ["X"]}))[0] == 422
        started = await to.start()
        await to.control("complete", reference=started.vendor_case_id, outcome="approve")

        async def taken() -> bool:
            return bool((await to.case())["deliveries"])

        await eventually(taken)
        [(_, body, _)] = receiver.raw
        assert msgspec.json.decode(body)["eventType"] == EVENTS[1]
        assert receiver.taken[0][1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"eventType":"X"}',
        b'{"eventType":"X","transactionId":7}',
        b'{"eventType":"X","transactionId":""}',
        b'{"eventType":"","transactionId":"x"}',
        b'{"eventType":"X","transactionId":"x","eventId":[]}',
        b'{"eventType":"X","transactionId":"' + b"x" * 129 + b'"}',
        b"[" * 100_000,
    ],
    ids=range(13),
)
async def test_no_message_of_theirs(body: bytes) -> None:
    async with journey() as to:
        with pytest.raises(VendorProtocolError):
            to.vendor.read_webhook({}, body)


async def _is_done(to: Journey) -> bool:
    return (await to.case())["outcome"] is not None


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ({}, TOKEN_URL),
        ({"base_url": BASE_URL}, TOKEN_URL),
        ({"base_url": "http://127.0.0.1:1/"}, "http://127.0.0.1:1"),
        ({"base_url": "http://127.0.0.1:1", "token_url": "https://t.example/"}, "https://t.example"),
    ],
)
def test_where_tokens_are_made(given: dict[str, Any], host: str) -> None:
    assert HyperVergeSettings(**given).token_host() == host


def test_key_goes_with_the_rest_and_is_not_shown() -> None:
    with pytest.raises(ValueError, match="app_id"):
        HyperVergeSettings(api_key="sesame")
    assert "sesame" not in repr(HyperVergeSettings(api_key="sesame", app_id="a", workflow_id="w"))
    assert SPEC.sandbox == HyperVergeSandbox.__module__
