"""The sandbox: who may call, the hosted page, files that expire, the forms of errors, its process."""

import asyncio
import re
import socket
import sys
import time
from typing import Any

import aiohttp
import pytest
from kyc_signzy.documents import FILES
from kyc_signzy.sandbox import Account

from plugins.kyc_signzy.tests.journeys import HEADERS, Journey, journey
from tests.waiting import eventually
from usercore.plugins import Standing, Started
from usercore.testing.sandbox import Options

V1, V2 = "/api/v3/digilocker/", "/api/v3/digilocker-v2/"
BANK = "/api/v3/bankaccountverification/bankaccountverifications"
CALLS = [V2 + "createUrl", V2 + "geteAadhaar", V2 + "getDetails", BANK]
LOOPBACK_401 = {
    "error": {
        "statusCode": 401,
        "name": "Error",
        "message": "Authorization Required",
        "code": "AUTHORIZATION_REQUIRED",
    }
}


# Who calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {"message": "No API key found in request"}),
        ({"Authorization": "wrong-key"}, LOOPBACK_401),
        ({"Authorization": "Bearer token"}, LOOPBACK_401),
    ],
)
async def test_token_comes_as_it_is(path: str, headers: dict[str, str], body: Any) -> None:
    async with journey() as here:
        assert await here.call(path, {}, headers) == (401, body)


@pytest.mark.parametrize("path", [V1 + "createUrl", V1 + "geteaadhaar", V1 + "geteaadhaarwithxml", V1 + "getDetails"])
async def test_v1_needs_an_entitlement(path: str) -> None:
    async with journey() as here:
        assert await here.call(path, {}) == (403, {"message": "You cannot consume this service"})
    async with journey(Account(v1=True)) as here:
        assert (await here.call(path, {}))[0] in (200, 400)


async def test_paths_have_their_own_case() -> None:
    async with journey() as here, here.session.post(here.url + V2 + "geteaadhaar", headers=HEADERS) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "raw", "text"),
    [
        (V2 + "createUrl", b"[]", "Invalid request body"),
        (V2 + "createUrl", b"{", "Invalid request body"),
        (V2 + "createUrl", b"\xff", "Invalid request body"),
        (V2 + "createUrl", b'{"consentValidTill":"1"}', '"consentValidTill" must be a number'),
        (V2 + "geteAadhaar", b"{}", "Token not found"),
        (V2 + "geteAadhaar", b'{"requestId":[]}', "Token not found"),
        (BANK, b"{}", '"beneficiaryAccount" must be a string'),
        (BANK, b'{"beneficiaryAccount":"1","beneficiaryIFSC":2}', '"beneficiaryIFSC" must be a string'),
    ],
)
async def test_bad_calls_are_told_in_one_of_the_two_forms(path: str, raw: bytes, text: str) -> None:
    async with journey() as here, here.session.post(here.url + path, data=raw, headers=HEADERS) as answer:
        body = await answer.json()
        assert answer.status == 400
        assert text in (body.get("message"), body.get("error", {}).get("message"))


@pytest.mark.parametrize(
    ("version", "status", "key"),
    [("v2", 401, "error"), ("v1", 404, "message")],
)
async def test_pending_looks_like_a_bad_token_or_nothing(version: str, status: int, key: str) -> None:
    async with journey(Account(v1=True), digilocker_version=version) as here:
        started = await here.start()
        path = V1 + "geteaadhaar" if version == "v1" else V2 + "geteAadhaar"
        found, body = await here.call(path, {"requestId": started.vendor_case_id})
        assert found == status
        assert "consent journey is not completed" in str(body[key])


async def test_request_of_one_version_is_not_known_in_the_other() -> None:
    async with journey(Account(v1=True)) as here:
        started = await here.start()
        status, _ = await here.call(V1 + "geteaadhaar", {"requestId": started.vendor_case_id})
        assert status == 400


async def test_bank_account_is_not_a_consent() -> None:
    async with journey() as here:
        started = await here.bank("123456789012")
        status, _ = await here.call(V2 + "geteAadhaar", {"requestId": started.vendor_case_id})
        assert status == 400


@pytest.mark.parametrize(
    ("version", "path", "xml"),
    [
        ("v1", V1 + "geteaadhaar", "xmlFileLink"),
        ("v1", V1 + "geteaadhaarwithxml", "xmlFileLink"),
        ("v2", V2 + "geteAadhaar", "eAadhaarXmlLink"),
    ],
)
async def test_aadhaar_data_has_their_names(version: str, path: str, xml: str) -> None:
    async with journey(Account(v1=True), digilocker_version=version) as here:
        started = await here.start()
        await here.finished(started, "approve", identity={"aadhaar_last4": "3445", "date_of_birth": "1990-01-31"})
        _, answer = await here.call(path, {"requestId": started.vendor_case_id})
        result = answer["result"]
        assert (result["uid"], result["dob"], result["gender"]) == ("xxxxxxxx3445", "31/01/1990", "MALE")
        assert result["splitAddress"]["state"] == [["UTTAR PRADESH"]]
        assert result["splitAddress"]["country"] == ["IN", "IND", "INDIA"]
        assert result["x509Data"]["validAadhaarDSC"] == "yes"
        assert result[xml].startswith(here.url)
        # They were not asked for.
        assert (result["aadhaarJpeg"], result["aadhaarPdf"]) == ("", "")


async def test_details_are_of_digilocker() -> None:
    async with journey() as here:
        started = await here.start()
        await here.finished(started, "approve")
        _, answer = await here.call(V2 + "getDetails", {"requestId": started.vendor_case_id})
        assert answer["result"]["userDetails"]["name"] == "Ravi Kumar"
        assert answer["result"]["userDetails"]["mobile"] == "UNAVAILABLE"


async def test_account_that_is_not_active_is_no_error() -> None:
    async with journey() as here:
        body = {"beneficiaryAccount": "123456780000", "beneficiaryIFSC": "KKBK0008066"}
        status, answer = await here.call(BANK, body)
        assert status == 200
        assert answer["result"]["active"] == "no"
        assert answer["result"]["reason"] == "Either ifsc or bank account is invalid"
        assert "bankTransfer" not in answer["result"]


async def test_score_of_a_name_is_not_available() -> None:
    async with journey() as here:
        body = {"beneficiaryAccount": "1", "beneficiaryIFSC": "KKBK0008066", "beneficiaryName": "Ravi Kumar"}
        _, answer = await here.call(BANK, body)
        result = answer["result"]
        assert (result["active"], result["nameMatch"], result["nameMatchScore"]) == ("yes", "yes", "not available")
        assert result["bankTransfer"]["beneName"] == "RAVI KUMAR"


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_failures_are_of_both_forms(turns: int) -> None:
    async with journey(options=Options(failure_rate=1.0)) as here:
        found = [await here.call(BANK, {}) for _ in range(turns)]
        expected = [(500, "error"), (502, "message"), (504, "message")]
        assert [(status, next(iter(body))) for status, body in found] == expected[:turns]


# Files ----------------------------------------------------------------------------------------------------------------


async def files(here: Journey) -> dict[str, str]:
    started = await here.start()
    await here.finished(started, "approve")
    body = {"requestId": started.vendor_case_id, "getEAadhaarPdf": True, "getEAadhaarJpeg": True}
    _, answer = await here.call(V2 + "geteAadhaar", body)
    names = {"photo": "photo.jpeg", "aadhaarJpeg": "aadhaar.jpeg", "aadhaarPdf": "aadhaar.pdf"}
    return {file: answer["result"][name] for name, file in (names | {"eAadhaarXmlLink": "aadhaar.xml"}).items()}


async def test_files_are_there_for_a_while() -> None:
    async with journey() as here:
        for name, url in (await files(here)).items():
            async with here.session.get(url) as answer:
                assert answer.status == 200
                assert (answer.content_type, await answer.read()) == FILES[name]


async def test_links_to_files_are_good_for_half_a_minute() -> None:
    async with journey() as here:
        made = time.monotonic_ns()
        for url in (await files(here)).values():
            until = int(url.split("/")[-2].partition("-")[0])
            assert made < until <= time.monotonic_ns() + 30 * 10**9
            assert until > made + 29 * 10**9


async def test_files_are_gone_after_their_time() -> None:
    async with journey(Account(file_s=0)) as here:
        for url in (await files(here)).values():
            async with here.session.get(url) as answer:
                assert answer.status == 403


async def test_file_that_nobody_gave_a_link_to() -> None:
    async with journey() as here:
        url = (await files(here))["aadhaar.pdf"]
        key = url.split("/")[-2]
        longer = f"9{key}"
        for path in (f"/persist/{longer}/aadhaar.pdf", f"/persist/{key}/aadhaar.jpeg", "/persist/x/photo.jpeg"):
            async with here.session.get(here.url + path) as answer:
                assert answer.status == 404


async def test_fetching_again_gives_fresh_links() -> None:
    async with journey() as here:
        started = await here.start()
        first = (await here.finished(started, "approve")).artifacts
        again = (await here.fetch(started)).artifacts
        assert first[0].url != again[0].url


def test_files_are_what_they_say() -> None:
    assert FILES["photo.jpeg"][1].startswith(b"\xff\xd8\xff\xe0\x00\x10JFIF\0")
    assert FILES["photo.jpeg"][1].endswith(b"\xff\xd9")
    pdf = FILES["aadhaar.pdf"][1]
    start = re.search(rb"startxref\n([0-9]+)\n%%EOF\n$", pdf)
    assert start is not None
    assert pdf[int(start[1]) :].startswith(b"xref\n")
    for number, place in enumerate(re.findall(rb"([0-9]{10}) 00000 n", pdf), 1):
        assert pdf[int(place) :].startswith(b"%d 0 obj" % number)


# The hosted page ------------------------------------------------------------------------------------------------------


async def clicked(here: Journey, started: Started, outcome: str) -> tuple[int, str]:
    """A person with a browser, which sends a form to the address that it came from; where it ends."""
    assert started.redirect_url is not None
    _, text, _ = await here.page(started.redirect_url)
    assert "<h1>Sign in to DigiLocker</h1>" in text
    _, _, location = await here.page(started.redirect_url, {"aadhaar_number": "499118665246"})
    _, text, _ = await here.page(here.url + location)
    assert "<h1>Share your Aadhaar</h1>" in text
    assert "14 Main Road" in text
    form = {"name": "Asha Verma", "date_of_birth": "1994-08-12"}
    _, _, location = await here.page(here.url + location, form)
    _, text, _ = await here.page(here.url + location)
    assert "Asha Verma" in text
    status, _, location = await here.page(here.url + location, {"outcome": outcome})
    return status, location


@pytest.mark.parametrize(
    ("outcome", "standing"),
    [("approve", Standing.APPROVED), ("decline", Standing.REJECTED), ("review", Standing.REVIEW)],
)
async def test_page_can_be_clicked_through(outcome: str, standing: Standing) -> None:
    async with journey() as here:
        started = await here.start(redirect_url="https://app.example/done?a=1")
        status, location = await clicked(here, started, outcome)
        assert (status, location.partition("&")[0]) == (303, "https://app.example/done?a=1")
        found = await here.fetch(started)
        assert found.standing is standing
        assert found.identity is not None
        assert (found.identity.name, found.identity.aadhaar_last4) == ("Asha Verma", "5246")


async def test_page_leads_elsewhere_when_the_person_refuses() -> None:
    async with journey() as here:
        urls = {"successRedirectUrl": "https://app.example/good", "failureRedirectUrl": "https://app.example/bad"}
        _, answer = await here.call(V2 + "createUrl", urls)
        result = answer["result"]
        started = Started(vendor_case_id=result["requestId"], redirect_url=result["url"])
        assert await clicked(here, started, "cancel") == (303, "https://app.example/bad")


async def test_same_addresses_may_get_the_consent_that_is_there() -> None:
    async with journey() as here:
        urls = {"callbackUrl": "https://us.example/hook", "successRedirectUrl": "https://app.example/good"}
        first, again = [await here.call(V2 + "createUrl", urls) for _ in range(2)]
        assert first == again
        assert first != await here.call(V2 + "createUrl", urls | {"internalId": "2"})
        nothing = [await here.call(V2 + "createUrl", {}) for _ in range(2)]
        assert nothing[0] != nothing[1]


# The process ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def test_process_has_the_settings_of_its_command_line() -> None:
    port = free_port()
    arguments = ["--port", str(port), "--webhook-auth", "url_token", "--v1", "--client-id", "--file-s", "1"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "kyc_signzy.sandbox", *arguments)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:

            async def healthy() -> bool:
                try:
                    async with session.get(url + "/_control/health") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(healthy)
            async with session.post(url + V1 + "createUrl", json={}, headers=HEADERS) as answer:
                assert await answer.json() == {"message": "x-client-unique-id is missing"}
            headers = HEADERS | {"x-client-unique-id": "ops@example.in"}
            async with session.post(url + V1 + "createUrl", json={}, headers=headers) as answer:
                assert answer.status == 200
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sandboxes_do_not_share_their_settings() -> None:
    async with journey(Account(v1=True)) as one, journey() as other:
        for here, status in ((one, 200), (other, 403)):
            assert (await here.call(V1 + "createUrl", {}))[0] == status
