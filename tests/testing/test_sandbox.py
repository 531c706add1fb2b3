"""The base of the sandboxes: control interface, hosted page, webhooks in each mode, latency, failures, the process."""

import asyncio
import html
import re
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.testing.toy import Receiver, Toy, receiving
from tests.waiting import eventually
from usercore.plugins.vendor import WebhookScheme
from usercore.plugins.webhooks import WebhookConfig
from usercore.testing.sandbox import Options
from usercore.testing.server import running

PERSON = {"name": "Ravi <b>Kumar</b>", "date_of_birth": "1990-01-31", "pan_number": "ABCPE1234F"}
TOKEN = "A" * 43


class Client:
    """Who speaks with a sandbox."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        async with self.session.post(self.url + path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as answer:
            assert answer.status == 200
            return await answer.json()

    async def page(self, url: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, body and where it leads."""
        method = "GET" if form is None else "POST"
        async with self.session.request(method, url, data=form, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers.get("location", "")

    async def settled(self, reference: str) -> dict[str, Any]:
        """The case when it has an outcome."""

        async def look() -> dict[str, Any] | None:
            found = [case for case in (await self.get("/_control/cases"))["cases"] if case["reference"] == reference]
            return found[0] if found[0]["outcome"] else None

        case = await eventually(look)
        assert case
        return case


@asynccontextmanager
async def toy(options: Options | None = None) -> AsyncGenerator[Client]:
    async with running(Toy(options)) as url, aiohttp.ClientSession() as session:
        yield Client(url, session)


@pytest.mark.parametrize("reference", ["toy-1", "1"])
async def test_person_can_be_played_by_the_control_interface(reference: str) -> None:
    async with toy() as client:
        await client.post("/start", {"id": "1", "person": PERSON})
        assert (await client.get("/result/toy-1"))["status"] is None
        await client.post("/_control/complete", {"reference": reference, "outcome": "review"})
        result = await client.get("/result/toy-1")
        assert (result["status"], result["manual"], result["identity"]) == ("review", False, PERSON)
        await client.post(
            "/_control/complete",
            {"reference": reference, "outcome": "approve", "identity": {"first_name": "Asha", "last_name": "Rao"}},
        )
        result = await client.get("/result/toy-1")
        assert (result["status"], result["manual"]) == ("approve", True)
        assert result["identity"] == PERSON | {"name": "Asha Rao"}


@pytest.mark.parametrize("outcome", ["approve", "decline", "review", "cancel"])
async def test_next_case_does_what_was_said_and_no_other(outcome: str) -> None:
    async with toy() as client:
        said = {"outcome": outcome, "code": "E7", "identity": {"pan_number": None}}
        await client.post("/_control/next", said)
        await client.post("/start", {"id": "1", "person": PERSON})
        case = await client.settled("toy-1")
        assert (case["outcome"], case["code"], case["attempt_id"]) == (outcome, "E7", "1")
        assert (await client.get("/result/toy-1"))["identity"] == PERSON | {"pan_number": None}
        await client.post("/start", {"id": "2", "person": PERSON})
        assert (await client.get("/result/toy-2"))["status"] is None


async def test_start_again_is_the_same_case() -> None:
    async with toy() as client:
        first = await client.post("/start", {"id": "1", "person": PERSON})
        await client.post("/_control/next", {"outcome": "decline"})
        assert await client.post("/start", {"id": "1"}) == first
        assert len((await client.get("/_control/cases"))["cases"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("next", {"outcome": "yes"}, "Invalid enum value 'yes' - at `$.outcome`"),
        ("next", {"outcome": "approve", "dealy_ms": 1}, "Object contains unknown field `dealy_ms`"),
        ("next", {"identity": {"nmae": "x"}}, "Object contains unknown field `nmae` - at `$.identity`"),
        ("next", {"webhook": "twice"}, "Invalid enum value 'twice' - at `$.webhook`"),
        ("next", {"outcome": "approve", "delay_ms": -1}, "delay_ms is from 0 to 600000"),
        ("next", [], "Expected `object`, got `array`"),
        ("complete", {"outcome": "approve"}, "Object missing required field `reference`"),
        ("complete", {"reference": "toy-1"}, "outcome is missing"),
        ("complete", {"reference": "toy-1", "outcome": "approve", "delay_ms": 10**9}, "delay_ms is from 0 to 600000"),
    ],
)
async def test_control_says_what_is_wrong(path: str, body: Any, text: str) -> None:
    async with toy() as client:
        await client.post("/start", {"id": "1"})
        assert (await client.post("/_control/" + path, body, 400))["error"].startswith(text)


async def test_control_does_not_know_every_case() -> None:
    async with toy() as client:
        await client.post("/_control/complete", {"reference": "toy-9", "outcome": "approve"}, 404)
        assert (await client.get("/_control/health"))["status"] == "ok"


async def test_vendor_hangs_until_it_recovers() -> None:
    async with toy() as client:
        await client.post("/_control/next", {"outcome": "timeout"})
        hanging = asyncio.create_task(client.post("/start", {"id": "1"}))

        async def known() -> list[Any]:
            return (await client.get("/_control/cases"))["cases"]

        assert (await eventually(known))[0]["trouble"] == "timeout"
        assert not hanging.done()
        await client.post("/_control/complete", {"reference": "1", "outcome": "approve"})
        assert (await hanging)["id"] == "toy-1"
        assert (await client.get("/result/toy-1"))["status"] == "approve"


async def test_vendor_hangs_for_as_long_as_it_was_told() -> None:
    async with toy() as client:
        await client.post("/_control/next", {"outcome": "timeout", "delay_ms": 20})
        assert (await client.post("/start", {"id": "1"}))["id"] == "toy-1"
        assert (await client.get("/result/toy-1"))["status"] is None


async def test_vendor_fails_until_the_case_is_completed() -> None:
    async with toy() as client:
        await client.post("/_control/next", {"outcome": "error"})
        for _ in range(2):
            await client.post("/start", {"id": "1"}, 500)
        await client.post("/_control/complete", {"reference": "1", "outcome": "decline"})
        assert (await client.post("/start", {"id": "1"}))["id"] == "toy-1"


async def test_every_call_fails_at_a_rate_of_one_but_not_control_and_pages() -> None:
    async with toy(Options(failure_rate=1.0)) as client:
        await client.post("/start", {"id": "1"}, 500)
        assert (await client.get("/_control/cases")) == {"cases": []}
        assert (await client.page(client.url + "/kyc/nothing"))[0] == 404


async def test_latency_is_before_each_answer() -> None:
    async with toy(Options(latency_ms=60)) as client:
        clock = asyncio.get_running_loop().time
        before = clock()
        await client.post("/start", {"id": "1"})
        assert clock() - before >= 0.06


# The hosted page ------------------------------------------------------------------------------------------------------


async def clicked_through(client: Client, url: str, outcome: str, pan: str = "ABCPE1234F") -> tuple[int, str, str]:
    """A person with a browser: reads each page, submits its form."""
    status, text, _ = await client.page(url)
    assert status == 200
    assert "<h1>PAN card</h1>" in text
    values = {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" type="\w+" value="(.*?)"', text)}
    assert values == PERSON
    status, _, location = await client.page(url + "/0", values | {"pan_number": pan})
    assert (status, location.rpartition("/")[2]) == (303, "1")
    status, text, _ = await client.page(client.url + location)
    assert "<h1>Selfie</h1>" in text
    _, _, location = await client.page(client.url + location, {})
    status, text, _ = await client.page(client.url + location)
    assert pan in text
    assert re.findall(r'name="outcome" value="(\w+)"', text) == ["approve", "decline", "review", "cancel"]
    return await client.page(client.url + location, {"outcome": outcome})


@pytest.mark.parametrize("outcome", ["approve", "decline", "review", "cancel"])
async def test_page_can_be_clicked_through_to_the_redirect(outcome: str) -> None:
    async with toy() as client:
        started = {"id": "1", "person": PERSON, "redirect": "https://app.example/done?case=7"}
        url = (await client.post("/start", started))["url"]
        status, _, location = await clicked_through(client, url, outcome, pan="ZZZPZ9999Z")
        assert (status, location) == (303, f"https://app.example/done?case=7&id=toy-1&status={outcome}")
        result = await client.get("/result/toy-1")
        assert result["status"] == outcome
        assert result["identity"]["pan_number"] == "ZZZPZ9999Z"
        assert "finished" in (await client.page(url))[1]


@pytest.mark.parametrize("redirect", [None, "javascript:alert(1)", "//", "data:text/html,x"])
async def test_page_ends_where_there_is_nowhere_to_go(redirect: str | None) -> None:
    async with toy() as client:
        url = (await client.post("/start", {"id": "1", "person": PERSON, "redirect": redirect}))["url"]
        status, text, location = await clicked_through(client, url, "approve")
        assert (status, location) == (200, "")
        assert "You may close this page" in text


async def test_page_escapes_what_it_shows_and_loads_nothing() -> None:
    async with toy() as client:
        person = {"name": '"><script>alert(1)</script>'}
        url = (await client.post("/start", {"id": "1", "person": person}))["url"]
        async with client.session.get(url) as answer:
            text = await answer.text()
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        last = (await client.page(url + "/2"))[1]
        for page in (text, last):
            assert "<script" not in page
            assert "&lt;script&gt;" in page
            assert "Toy &amp; Co" in page
            assert "http" not in page.replace(client.url, "")


async def test_page_says_what_is_no_date_and_stays() -> None:
    async with toy() as client:
        url = (await client.post("/start", {"id": "1", "person": PERSON}))["url"]
        status, text, _ = await client.page(url + "/0", {"date_of_birth": "31/01/1990"})
        assert status == 200
        assert 'role="alert">The date of birth is not a date.' in text
        assert (await client.get("/result/toy-1"))["identity"] == PERSON


@pytest.mark.parametrize("path", ["/kyc/x", "/kyc/x/0"])
async def test_page_of_no_case(path: str) -> None:
    async with toy() as client:
        assert (await client.page(client.url + path))[0] == 404


# Webhooks -------------------------------------------------------------------------------------------------------------

SCHEMES: list[WebhookScheme] = ["hmac", "static_header", "url_token"]
MODES = [
    ("normal", [("progress", True), ("approve", True)]),
    ("duplicate", [("progress", True), ("approve", True), ("approve", True)]),
    ("reordered", [("approve", True), ("progress", True)]),
    ("forged", [("approve", False)]),
]


@asynccontextmanager
async def hooked(scheme: WebhookScheme) -> AsyncGenerator[tuple[Client, Receiver]]:
    options = Options(webhook_auth=scheme, webhook_secret="s3cret")
    config = WebhookConfig(scheme=scheme, secrets=("s3cret",))
    async with receiving(config, "/hook/" + TOKEN) as receiver, toy(options) as client:
        yield client, receiver


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("mode", "expected"), MODES, ids=[mode for mode, _ in MODES])
async def test_webhooks(scheme: WebhookScheme, mode: str, expected: list[tuple[str, bool]]) -> None:
    async with hooked(scheme) as (client, receiver):
        await client.post("/_control/next", {"outcome": "approve", "webhook": mode})
        await client.post("/start", {"id": "1", "callback": receiver.url})

        async def taken() -> bool:
            return len(receiver.taken) >= len(expected)

        await eventually(taken)
        assert receiver.taken == expected
        bodies = [body for _, body, _ in receiver.raw]
        assert len(set(bodies)) == (2 if len(expected) > 1 else 1)
        if mode == "forged":
            assert (await client.get("/result/toy-1"))["status"] is None


async def test_dropped_webhook_leaves_a_result() -> None:
    async with hooked("hmac") as (client, receiver):
        await client.post("/_control/next", {"webhook": "drop"})
        await client.post("/start", {"id": "1", "callback": receiver.url})
        await client.post("/_control/complete", {"reference": "1", "outcome": "approve"})
        assert (await client.get("/result/toy-1"))["status"] == "approve"
        await client.post("/start", {"id": "2", "callback": receiver.url})
        await client.post("/_control/complete", {"reference": "2", "outcome": "cancel"})

        async def taken() -> bool:
            return bool(receiver.taken)

        await eventually(taken)
        assert [body for _, body, _ in receiver.raw] == [b'{"id":"toy-2","status":"cancel"}']


@pytest.mark.parametrize(("refusals", "statuses"), [(1, [503, 202]), (2, [503, 503, 202]), (9, [503, 503, 503])])
async def test_webhook_is_repeated_a_few_times(refusals: int, statuses: list[int]) -> None:
    async with hooked("hmac") as (client, receiver):
        receiver.refusals = refusals
        await client.post("/start", {"id": "1", "callback": receiver.url})
        await client.post("/_control/complete", {"reference": "1", "outcome": "cancel"})

        async def told() -> list[Any]:
            return (await client.get("/_control/cases"))["cases"][0]["deliveries"]

        assert [delivery["statuses"] for delivery in await eventually(told)] == [statuses]
        assert len(receiver.raw) == len(statuses)


# The process ----------------------------------------------------------------------------------------------------------

PROGRAM = "from tests.testing.toy import Toy; from usercore.testing.server import main; main(Toy)"


async def test_process_listens_on_loopback_and_ends_by_a_signal() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "--port", str(port), "--webhook-auth", "url_token"
    )
    try:
        async with aiohttp.ClientSession() as session:

            async def healthy() -> bool:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/_control/health") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(healthy)
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
