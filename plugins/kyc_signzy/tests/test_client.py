"""The client against the sandbox over loopback: each documented oddity of the wire format."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from kyc_signzy.client import Signzy, own_url
from kyc_signzy.sandbox import Account
from kyc_signzy.settings import SignzySettings

from plugins.kyc_signzy.tests.journeys import AADHAAR, BANK, PERSON, Journey, journey
from usercore.plugins import (
    Address,
    BankAccount,
    Check,
    Evidence,
    Identity,
    Person,
    Response,
    Standing,
    Started,
    StartRequest,
    VendorAuthError,
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    VendorUnavailable,
)
from usercore.testing.sandbox import Options

ATTEMPT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ASHA = {"name": "Asha Verma", "date_of_birth": "1994-08-12", "aadhaar_number": "499118665246"}


# Starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2", "v1"])
async def test_start_gives_a_link_whose_state_is_the_request(version: str) -> None:
    async with journey(Account(v1=True), digilocker_version=version) as here:
        started = await here.start()
        assert started.redirect_url is not None
        assert len(started.vendor_case_id) == 24
        assert parse_qs(urlsplit(started.redirect_url).query)["state"] == [started.vendor_case_id]
        assert (started.evidence, started.sdk_token, started.expires_at) == (None, None, None)
        assert here.http.operations == ["create_url"]


async def test_start_again_is_the_same_consent_and_another_attempt_is_another() -> None:
    async with journey() as here:
        first = await here.start(attempt_id=ATTEMPT, redirect_url="https://app.example/done")
        assert await here.start(attempt_id=ATTEMPT, redirect_url="https://app.example/done") == first
        other = await here.start(redirect_url="https://app.example/done")
        assert other.vendor_case_id != first.vendor_case_id


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://app.example/done", f"https://app.example/done?attempt={ATTEMPT}"),
        ("https://app.example/done?a=1&b=#x", f"https://app.example/done?a=1&b=&attempt={ATTEMPT}#x"),
        ("https://app.example/done?sig=a/b%2fc&&x", f"https://app.example/done?sig=a/b%2fc&&x&attempt={ATTEMPT}"),
        ("https://app.example/?q=%26+%E0%A4%85", f"https://app.example/?q=%26+%E0%A4%85&attempt={ATTEMPT}"),
    ],
)
def test_way_back_is_each_attempts_own(url: str, expected: str) -> None:
    assert own_url(url, ATTEMPT) == expected


async def test_attempt_is_their_internal_id() -> None:
    async with journey() as here:
        started = await here.start(attempt_id=ATTEMPT)
        done = await here.told("complete", reference=str(ATTEMPT), outcome="approve")
        assert (done["reference"], done["attempt_id"]) == (started.vendor_case_id, str(ATTEMPT))


# What a token and an account may do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "wrong-key"])
async def test_token_that_is_not_accepted(key: str) -> None:
    async with journey(api_key=key) as here:
        for call in (here.start(), here.bank("123456789012"), here.fetch(Started(vendor_case_id="x"))):
            with pytest.raises(VendorAuthError):
                await call


async def test_account_that_is_not_entitled_to_v1() -> None:
    async with journey(digilocker_version="v1") as here:
        with pytest.raises(VendorAuthError):
            await here.start()


async def test_account_that_is_out_of_credits() -> None:
    async with journey(Account(no_credits=True)) as here:
        with pytest.raises(VendorAuthError):
            await here.bank("123456789012")


async def test_client_id_is_sent_where_there_is_one() -> None:
    async with journey(Account(client_id=True), client_id="ops@example.in") as here:
        assert (await here.start()).redirect_url
    async with journey(Account(client_id=True)) as here:
        with pytest.raises(VendorAuthError):
            await here.start()


@pytest.mark.parametrize("turn", [0, 1, 2])
async def test_signzy_that_fails_is_unavailable(turn: int) -> None:
    async with journey(options=Options(failure_rate=1.0)) as here:
        for _ in range(turn + 1):
            with pytest.raises(VendorUnavailable):
                await here.start()


async def test_signzy_that_is_not_there_was_not_reached() -> None:
    async with journey(base_url="http://127.0.0.1:9") as here:
        with pytest.raises(VendorUnavailable) as caught:
            await here.start()
        assert not caught.value.reached


# Fetching -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2", "v1"])
@pytest.mark.parametrize("outcome", [None, "cancel"])
async def test_consent_that_was_not_given_is_pending(version: str, outcome: str | None) -> None:
    async with journey(Account(v1=True), digilocker_version=version) as here:
        started = await here.start()
        if outcome is not None:
            await here.told("complete", reference=started.vendor_case_id, outcome=outcome)
        with pytest.raises(VendorPending):
            await here.fetch(started)


@pytest.mark.parametrize("version", ["v2", "v1"])
async def test_consent_gives_the_person(version: str) -> None:
    async with journey(Account(v1=True), digilocker_version=version) as here:
        found = await here.finished(await here.start(), "approve", identity=ASHA)
        assert (found.standing, found.vendor_status, found.rejection_code) == (
            Standing.APPROVED,
            "aadhaar_dsc_yes",
            None,
        )
        assert found.checks == {"aadhaar": "passed", "address": "passed"}
        assert found.identity == Identity(
            name="Asha Verma",
            date_of_birth=date(1994, 8, 12),
            aadhaar_last4="5246",
            address=Address(line1="14 Main Road", city="LOOHAR", state="UTTAR PRADESH", pin_code="221717"),
        )
        assert [each.type for each in found.artifacts] == ["aadhaar_front"]
        assert found.occurred_at is None


async def test_whole_aadhaar_number_ends_here() -> None:
    async with journey(Account(unmasked=True)) as here:
        started = await here.start()
        found = await here.finished(started, "approve", identity=ASHA)
        assert found.identity is not None
        assert found.identity.aadhaar_last4 == "5246"
        body = {"requestId": started.vendor_case_id}
        _, answer = await here.call("/api/v3/digilocker-v2/geteAadhaar", body)
        assert answer["result"]["uid"] == "499118665246"


async def test_sandbox_plays_the_person_with_what_it_was_told() -> None:
    async with journey() as here:
        found = await here.finished(await here.start(), "approve")
        assert found.identity is not None
        assert found.identity.name == "Ravi Kumar"
        assert (found.identity.date_of_birth, found.identity.aadhaar_last4) == (None, None)


@pytest.mark.parametrize(
    ("outcome", "said", "standing", "status", "code"),
    [
        ("decline", {}, Standing.REJECTED, "aadhaar_dsc_no", "aadhaar_invalid"),
        ("review", {}, Standing.REVIEW, "aadhaar_dsc_unknown", None),
        ("approve", {"identity": {"address": None}}, Standing.REVIEW, "aadhaar_dsc_yes", None),
        ("approve", {"identity": {"name": None}}, Standing.REVIEW, "aadhaar_dsc_yes", None),
    ],
)
async def test_other_outcomes(outcome: str, said: Any, standing: Standing, status: str, code: str | None) -> None:
    async with journey() as here:
        found = await here.finished(await here.start(), outcome, **said)
        assert (found.standing, found.vendor_status, found.rejection_code) == (standing, status, code)


async def test_link_that_lapsed_leaves_the_person_where_they_were() -> None:
    async with journey(Account(link_s=0)) as here:
        found = await here.fetch(await here.start())
        assert found == Evidence(standing=Standing.STARTED, vendor_status="token_used")


async def test_request_that_is_not_known() -> None:
    async with journey() as here:
        found = await here.fetch(Started(vendor_case_id="0" * 24))
        assert found == Evidence(standing=Standing.STARTED, vendor_status="token_not_found")


# Bank accounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "standing", "result", "code", "owner"),
    [
        ("123456789012", Standing.APPROVED, "passed", None, "RAVI KUMAR"),
        ("123456780000", Standing.REJECTED, "failed", "bank_invalid", None),
        ("123456780001", Standing.REVIEW, "review", None, "SOMEBODY ELSE"),
        ("123456780002", Standing.REVIEW, "review", None, None),
    ],
)
async def test_bank_account_has_its_verdict_at_once(
    number: str, standing: Standing, result: str, code: str | None, owner: str | None
) -> None:
    async with journey() as here:
        started = await here.bank(number)
        assert (started.redirect_url, started.sdk_token) == (None, None)
        found = started.evidence
        assert found is not None
        assert (found.standing, found.checks, found.rejection_code) == (standing, {"bank": result}, code)
        assert (found.identity.name if found.identity else None) == owner
        if result != "failed":
            assert found.occurred_at is not None
            assert abs((datetime.now(UTC) - found.occurred_at).total_seconds()) < 60
        cases = await here.session.get(here.url + "/_control/cases")
        assert [case["reference"] for case in (await cases.json())["cases"]] == [started.vendor_case_id]
        assert here.http.operations == ["verify_bank"]


async def test_bank_account_is_not_asked_for_again() -> None:
    async with journey() as here:
        started = await here.bank("123456780001")
        with pytest.raises(VendorPending):
            await here.fetch(started, BANK)
        assert here.http.operations == ["verify_bank"]


async def test_bank_account_is_refused_for_what_the_person_gave() -> None:
    async with journey() as here:
        with pytest.raises(VendorRejected) as caught:
            await here.bank("123456780009")
        assert caught.value.code == "bank_invalid"


async def test_no_bank_account_is_none_to_verify() -> None:
    async with journey() as here:
        with pytest.raises(VendorRejected):
            await here.start(checks=BANK)
        assert here.http.operations == []


async def test_bank_account_without_a_name_is_a_review() -> None:
    async with journey() as here:
        account = BankAccount(account_number="123456789012", ifsc="KKBK0008066")
        started = await here.start(checks=BANK, account=account, person=Person())
        assert started.evidence is not None
        assert started.evidence.standing is Standing.REVIEW


@pytest.mark.parametrize(
    ("outcome", "standing"),
    [("approve", Standing.APPROVED), ("decline", Standing.REJECTED), ("review", Standing.REVIEW)],
)
async def test_bank_account_does_what_the_control_interface_says(outcome: str, standing: Standing) -> None:
    async with journey() as here:
        await here.told("next", outcome=outcome)
        found = (await here.bank("123456780000")).evidence
        assert found is not None
        assert found.standing is standing


async def test_bank_account_whose_answer_was_lost_is_the_same_case() -> None:
    async with journey() as here:
        await here.told("next", outcome="error")
        for _ in range(2):
            with pytest.raises(VendorUnavailable):
                await here.bank("123456789012")
        cases = await (await here.session.get(here.url + "/_control/cases")).json()
        (case,) = cases["cases"]
        await here.told("complete", reference=case["reference"], outcome="decline")
        started = await here.bank("123456789012")
        assert started.vendor_case_id == case["reference"]
        assert started.evidence is not None
        assert started.evidence.standing is Standing.REJECTED


# Both at once ---------------------------------------------------------------------------------------------------------

EVERYTHING: frozenset[Check] = AADHAAR | BANK


async def everything(here: Journey, number: str) -> Started:
    return await here.start(
        checks=EVERYTHING, account=BankAccount(account_number=number, ifsc="KKBK0008066"), attempt_id=uuid4()
    )


async def test_good_account_waits_for_the_consent() -> None:
    async with journey() as here:
        started = await everything(here, "123456789012")
        assert started.redirect_url
        assert started.evidence is not None
        assert (started.evidence.standing, started.evidence.checks) == (Standing.STARTED, {"bank": "passed"})
        found = await here.finished(started, "approve")
        assert (found.standing, found.checks) == (Standing.APPROVED, {"aadhaar": "passed", "address": "passed"})


@pytest.mark.parametrize(("number", "standing"), [("0000", Standing.REJECTED), ("0001", Standing.REVIEW)])
async def test_account_that_is_not_good_has_nothing_to_consent_to(number: str, standing: Standing) -> None:
    async with journey() as here:
        started = await everything(here, "12345678" + number)
        assert started.redirect_url is None
        assert started.evidence is not None
        assert started.evidence.standing is standing
        with pytest.raises(VendorPending):
            await here.fetch(started, EVERYTHING)


# What is no answer of theirs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"result": None},
        {"result": []},
        {"result": {"url": "https://x.example/"}},
        {"result": {"url": "javascript:alert(1)", "requestId": "652d08105aac750011ff8a71"}},
        {"result": {"url": "https://x.example/", "requestId": 7}},
        {"result": {"url": "https://x.example/", "requestId": ""}},
        {"result": {"url": "https://x.example/", "requestId": "x" * 129}},
        {"error": {"message": "Consent journey is not completed"}},
        [],
        None,
        "",
    ],
)
async def test_answer_that_is_none(answering: Any, body: Any) -> None:
    async with answering(200, body) as here:
        with pytest.raises(VendorProtocolError):
            await here.start()


@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"result":{"url":', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize(
    ("status", "error"),
    [(200, VendorProtocolError), (400, VendorProtocolError), (401, VendorAuthError), (502, VendorUnavailable)],
)
async def test_answer_that_is_no_json(answering: Any, raw: bytes, status: int, error: type[VendorError]) -> None:
    async with answering(status, raw) as here:
        for call in (here.start(), here.fetch(Started(vendor_case_id="x")), here.bank("1")):
            with pytest.raises(error):
                await call


async def test_bank_conflict_is_a_review(answering: Any) -> None:
    async with answering(409, {"error": {"message": "No match"}}) as here:
        started = await here.start(
            checks=BANK, attempt_id=ATTEMPT, account=BankAccount(account_number="1", ifsc="KKBK0008066")
        )
        assert started.vendor_case_id == str(ATTEMPT)
        assert started.evidence is not None
        assert (started.evidence.standing, started.evidence.checks) == (Standing.REVIEW, {"bank": "review"})


@pytest.mark.parametrize("reference", [None, 7, "", "x" * 129])
async def test_bank_answer_without_a_reference_has_the_attempts(answering: Any, reference: Any) -> None:
    async with answering(200, {"result": {"active": "no", "signzyReferenceId": reference}}) as here:
        account = BankAccount(account_number="1", ifsc="KKBK0008066")
        started = await here.start(checks=BANK, attempt_id=ATTEMPT, account=account)
        assert started.vendor_case_id == str(ATTEMPT)


async def test_refusal_of_a_bank_call_that_is_about_us(answering: Any) -> None:
    async with answering(400, {"error": {"message": "nameMatchScore must be a number"}}) as here:
        with pytest.raises(VendorProtocolError):
            await here.bank("123456789012")


async def test_what_signzy_is_sent(answering: Any) -> None:
    result = {"url": "https://x.example/", "requestId": "652d08105aac750011ff8a71"}
    async with answering(200, {"result": result}) as here:
        await here.start(
            attempt_id=ATTEMPT, callback_url="https://us.example/hook/x", redirect_url="https://app.example/"
        )
        (sent,) = here.requests
        assert sent["path"] == "/api/v3/digilocker-v2/createUrl"
        assert sent["authorization"] == "token"
        assert sent["body"] == {
            "signup": True,
            "callbackUrl": "https://us.example/hook/x",
            "internalId": str(ATTEMPT),
            "docType": ["ADHAR"],
            "purpose": "kyc",
            "getEAadhaarPdf": True,
            "getEAadhaarJpeg": True,
            "successRedirectUrl": f"https://app.example/?attempt={ATTEMPT}",
            "successRedirectTime": "3",
            "failureRedirectUrl": f"https://app.example/?attempt={ATTEMPT}",
            "failureRedirectTime": "3",
            "sandboxPerson": {"name": "Ravi Kumar"},
        }


async def test_what_signzy_is_asked(answering: Any) -> None:
    async with answering(200, {"result": {"name": "Ravi Kumar"}}) as here:
        await here.fetch(Started(vendor_case_id="652d08105aac750011ff8a71"))
        (sent,) = here.requests
        assert sent["path"] == "/api/v3/digilocker-v2/geteAadhaar"
        assert sent["body"] == {
            "requestId": "652d08105aac750011ff8a71",
            "getEAadhaarPdf": True,
            "getEAadhaarJpeg": True,
            "extraDigitalCertificateParams": True,
        }


async def test_what_signzy_is_asked_of_an_account(answering: Any) -> None:
    async with answering(200, {"result": {"active": "yes", "nameMatch": "yes"}}) as here:
        await here.bank("123456789012")
        (sent,) = here.requests
        assert sent["path"] == "/api/v3/bankaccountverification/bankaccountverifications"
        assert sent["body"] == {
            "beneficiaryAccount": "123456789012",
            "beneficiaryIFSC": "KKBK0008066",
            "beneficiaryName": "Ravi Kumar",
            "nameFuzzy": "true",
            "nameMatchScore": "0.9",
        }


class Recorder:
    """`Http` of the real Signzy: keeps what it would be sent."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    async def post(
        self, operation: str, url: str, *, json: object, headers: Mapping[str, str], safe: bool = False
    ) -> Response:
        self.sent.append(json)
        return Response(status=200, headers={}, body=b'{"result":{"url":"https://x.example/","requestId":"1"}}')

    async def get(self, operation: str, url: str, *, headers: Mapping[str, str]) -> Response:
        raise AssertionError


async def test_digilocker_is_sent_nothing_of_the_person() -> None:
    http = Recorder()
    request = StartRequest(attempt_id=ATTEMPT, checks=AADHAAR, person=PERSON, callback_url="https://us.example/hook")
    await Signzy(SignzySettings(api_key="token"), http).start(request)
    (sent,) = http.sent
    assert "Ravi" not in str(sent)
    assert "sandboxPerson" not in str(sent)


@pytest.mark.parametrize("status", [401, 404])
async def test_start_is_never_pending(answering: Any, status: int) -> None:
    async with answering(status, {"message": "Consent journey is not completed"}) as here:
        with pytest.raises(VendorAuthError if status == 401 else VendorProtocolError):
            await here.start()
