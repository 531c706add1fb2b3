"""DigiLocker's callbacks: what the plugin reads, and what the sandbox sends under each scheme and in each mode."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from kyc_signzy.client import Signzy
from kyc_signzy.settings import SignzySettings

from plugins.kyc_signzy.tests.journeys import Receiver, journey, receiving
from usercore.plugins import Address, Artifact, Standing, VendorProtocolError, WebhookEvent, WebhookScheme
from usercore.plugins.webhooks import WebhookConfig
from usercore.testing.http import PlainHttp
from usercore.testing.sandbox import Options

CLIENT = Signzy(SignzySettings(), PlainHttp())
SAMPLE: dict[str, Any] = {
    "id": "6613f4438a9e13081022bca3",
    "event": "consentComplete",
    "requestId": "6613f34e6dad050023a8cd07",
    "internalId": "case-1",
    "status": "success",
    "message": "Authorization completed successfully",
    "timestamp": 1712583747105,
    "aadharDetail": {
        "name": "Ravi Kumar",
        "uid": "xxxxxxxx3445",
        "dob": "31/01/1990",
        "gender": "MALE",
        "address": "Loohar",
        "photo": "https://persist.signzy.tech/photo",
        "splitAddress": {
            "district": ["BALLIA"],
            "state": [["UTTAR PRADESH", "UP"]],
            "city": ["LOOHAR"],
            "pincode": "221717",
            "country": ["IN", "IND", "INDIA"],
            "addressLine": "14 Main Road",
        },
        "x509Data": {"subjectName": "DS", "certificate": "", "details": {}, "validAadhaarDSC": "yes"},
        "xmlFileLink": "https://persist.signzy.tech/xml",
        "aadhaarJpeg": "https://persist.signzy.tech/jpeg",
        "aadhaarPdf": "https://persist.signzy.tech/pdf",
    },
    "details": {"userDetails": {"digilockerid": "x", "name": "Ravi Kumar"}, "files": []},
}
HINT = WebhookEvent(event_id="6613f4438a9e13081022bca3", vendor_case_id="6613f34e6dad050023a8cd07", attempt_id="case-1")


def read(body: Any) -> WebhookEvent:
    return CLIENT.read_webhook({}, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_their_sample() -> None:
    event = read(SAMPLE)
    assert (event.event_id, event.vendor_case_id, event.attempt_id) == (
        "6613f4438a9e13081022bca3",
        "6613f34e6dad050023a8cd07",
        "case-1",
    )
    found = event.evidence
    assert found is not None
    assert (found.standing, found.vendor_status) == (Standing.APPROVED, "aadhaar_dsc_yes")
    assert found.occurred_at == datetime(2024, 4, 8, 13, 42, 27, 105000, UTC)
    assert found.identity is not None
    assert (found.identity.aadhaar_last4, found.identity.date_of_birth) == ("3445", date(1990, 1, 31))
    assert found.identity.address == Address(
        line1="14 Main Road", city="LOOHAR", state="UTTAR PRADESH", pin_code="221717"
    )
    assert found.artifacts == (Artifact(type="aadhaar_front", url="https://persist.signzy.tech/jpeg"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failure"},
        {"status": "SUCCESS"},
        {"event": "consentDenied", "status": "failure"},
        {"event": "consentExpired"},
        {"event": ""},
        {"event": None, "status": None},
        {"event": 7, "status": False},
        {"status": None, "aadharDetail": None, "details": None, "timestamp": None},
        {"aadharDetail": None},
        {"aadharDetail": {}},
        {"aadharDetail": "x"},
        {"aadharDetail": {"name": "Ravi Kumar"}},
        {"aadharDetail": SAMPLE["aadharDetail"] | {"splitAddress": None}},
        {"aadharDetail": SAMPLE["aadharDetail"] | {"x509Data": {"validAadhaarDSC": "maybe"}}},
    ],
)
def test_what_does_not_decide_only_says_that_there_is_something_to_fetch(changes: Any) -> None:
    assert read(SAMPLE | changes) == HINT


def test_failure_that_says_no_more_than_of_what_is_a_hint() -> None:
    event = read({"requestId": SAMPLE["requestId"], "status": "failure"})
    assert event == WebhookEvent(vendor_case_id=SAMPLE["requestId"])


def test_spelling_is_theirs() -> None:
    told = {**SAMPLE, "aadhaarDetail": SAMPLE["aadharDetail"]}
    del told["aadharDetail"]
    assert read(told) == HINT


def test_signature_that_is_wrong_is_said_at_once() -> None:
    detail = SAMPLE["aadharDetail"] | {"x509Data": {"validAadhaarDSC": "no"}}
    found = read(SAMPLE | {"aadharDetail": detail}).evidence
    assert found is not None
    assert (found.standing, found.rejection_code) == (Standing.REJECTED, "aadhaar_invalid")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": None}, {"event_id": None}),
        ({"id": ""}, {"event_id": None}),
        ({"id": 7}, {"event_id": "7"}),
        ({"internalId": None}, {"attempt_id": None}),
        ({"internalId": ""}, {"attempt_id": None}),
    ],
)
def test_references_that_are_missing(changes: Any, expected: dict[str, Any]) -> None:
    event = read(SAMPLE | changes)
    assert {name: getattr(event, name) for name in expected} == expected


@pytest.mark.parametrize("timestamp", [None, "soon", True, 10**30, -(10**30), 1e300, [], {}])
def test_time_that_is_none_does_no_harm(timestamp: Any) -> None:
    event = read(SAMPLE | {"timestamp": timestamp})
    assert event.evidence is not None
    assert event.evidence.occurred_at is None


STRANGERS: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"consentComplete"',
    b"\xff\xfe",
    b"[" * 100_000,
    {},
    {"event": "consentComplete", "status": "success"},
    SAMPLE | {"requestId": ""},
    SAMPLE | {"requestId": 7},
    SAMPLE | {"internalId": []},
    SAMPLE | {"id": {}},
    SAMPLE | {"id": "x" * 129},
    SAMPLE | {"requestId": "x" * 129},
    SAMPLE | {"internalId": "x" * 129},
    # Liveness, a contract, GO onboarding, HyperVerge.
    {"token": "x", "consumerId": "y", "status": True},
    {"contractId": "x", "status": "COMPLETED"},
    {"merchantSignup": {}, "merchantData": {"id": "x", "status": "accept"}},
    {"eventId": "x", "eventType": "FINISH_TRANSACTION_WEBHOOK", "transactionId": "y"},
]


@pytest.mark.parametrize("body", STRANGERS)
def test_what_is_no_callback_of_digilocker(body: Any) -> None:
    with pytest.raises(VendorProtocolError) as caught:
        read(body)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# Sent by the sandbox --------------------------------------------------------------------------------------------------

SECRET = "s3cret"
SCHEMES: list[WebhookScheme] = ["hmac", "static_header", "url_token"]


def scheme_of(scheme: WebhookScheme) -> tuple[WebhookConfig, Options]:
    return WebhookConfig(scheme=scheme, secrets=(SECRET,)), Options(webhook_auth=scheme, webhook_secret=SECRET)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("mode", "count", "authentic"), [("normal", 1, True), ("duplicate", 2, True), ("reordered", 1, True)]
)
async def test_callback(scheme: WebhookScheme, mode: str, count: int, authentic: bool) -> None:
    config, options = scheme_of(scheme)
    async with receiving(config) as receiver, journey(options=options) as here:
        started = await here.start(callback_url=receiver.url)
        reference = started.vendor_case_id
        await here.told("complete", reference=reference, outcome="approve", webhook=mode)
        events = await receiver.read(here.client, count)
        assert receiver.authentic == [authentic] * count
        assert len({event.event_id for event in events}) == 1
        for event in events:
            assert event.vendor_case_id == reference
            assert event.evidence is not None
            assert event.evidence.standing is Standing.APPROVED
            assert event.evidence.occurred_at is not None
        signs_of_life(receiver, scheme)


def signs_of_life(receiver: Receiver, scheme: WebhookScheme) -> None:
    """Signzy signs nothing: what authenticates a callback is there only where the sandbox was told so."""
    for headers in receiver.headers:
        names = {name.decode().lower() for name, _ in headers}
        assert ("webhook-signature" in names) == (scheme == "hmac")
        assert ("x-webhook-secret" in names) == (scheme == "static_header")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_forged_callback_is_not_authentic_and_changes_nothing(scheme: WebhookScheme) -> None:
    config, options = scheme_of(scheme)
    async with receiving(config) as receiver, journey(options=options) as here:
        started = await here.start(callback_url=receiver.url)
        await here.told("complete", reference=started.vendor_case_id, webhook="forged")
        (event,) = await receiver.read(here.client)
        assert receiver.authentic == [False]
        assert event.vendor_case_id == started.vendor_case_id
        cases = await (await here.session.get(here.url + "/_control/cases")).json()
        assert cases["cases"][0]["outcome"] is None


async def test_dropped_callback_leaves_the_result() -> None:
    config, options = scheme_of("hmac")
    async with receiving(config) as receiver, journey(options=options) as here:
        started = await here.start(callback_url=receiver.url)
        found = await here.finished(started, "approve", webhook="drop")
        assert found.standing is Standing.APPROVED
        other = await here.start(callback_url=receiver.url)
        await here.told("complete", reference=other.vendor_case_id, outcome="approve")
        (event,) = await receiver.read(here.client)
        assert event.vendor_case_id == other.vendor_case_id


@pytest.mark.parametrize(
    ("outcome", "name", "standing"),
    [
        ("decline", "consentComplete", Standing.REJECTED),
        ("review", "consentComplete", None),
        ("cancel", "consentFailed", None),
    ],
)
async def test_callbacks_of_other_outcomes(outcome: str, name: str, standing: Standing | None) -> None:
    config, options = scheme_of("hmac")
    async with receiving(config) as receiver, journey(options=options) as here:
        started = await here.start(callback_url=receiver.url)
        await here.told("complete", reference=started.vendor_case_id, outcome=outcome)
        (event,) = await receiver.read(here.client)
        body = json.loads(receiver.bodies[0])
        assert (body["event"], body["status"]) == (name, "failure" if outcome == "cancel" else "success")
        assert (event.evidence.standing if event.evidence else None) is standing


async def test_callback_has_their_shape() -> None:
    config, options = scheme_of("hmac")
    async with receiving(config) as receiver, journey(options=options) as here:
        await here.told("next", outcome="approve", identity={"aadhaar_last4": "3445"})
        started = await here.start(callback_url=receiver.url)
        await receiver.read(here.client)
        body = json.loads(receiver.bodies[0])
        assert body.keys() == SAMPLE.keys()
        # v2 calls the link to the XML otherwise.
        named = {"eAadhaarXmlLink" if name == "xmlFileLink" else name for name in SAMPLE["aadharDetail"]}
        assert body["aadharDetail"].keys() == named
        assert body["aadharDetail"]["splitAddress"].keys() == SAMPLE["aadharDetail"]["splitAddress"].keys()
        assert body["aadharDetail"]["uid"] == "xxxxxxxx3445"
        assert body["requestId"] == started.vendor_case_id
        assert abs(body["timestamp"] / 1000 - datetime.now(UTC).timestamp()) < 60


async def test_bank_account_calls_nobody_back() -> None:
    config, options = scheme_of("hmac")
    async with receiving(config) as receiver, journey(options=options) as here:
        await here.told("next", outcome="approve")
        await here.bank("123456789012")
        started = await here.start(callback_url=receiver.url)
        await here.told("complete", reference=started.vendor_case_id, outcome="approve")
        (event,) = await receiver.read(here.client)
        assert event.vendor_case_id == started.vendor_case_id
