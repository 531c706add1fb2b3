"""The way to a vendor, against vendors that are slow, gone, drip, redirect, flood, throttle and break."""

import asyncio
import gzip
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.edge.web import settings
from tests.plugins.vendor_server import refusing, serving, speaking, swallowing
from tests.waiting import eventually
from usercore import db, telemetry
from usercore.errors import NetworkInTransaction
from usercore.plugins import Response, VendorProtocolError, VendorUnavailable
from usercore.plugins.addresses import open_session
from usercore.plugins.http import Limits, VendorHttp, retry_after
from usercore.telemetry import Metrics

QUICK: dict[str, Any] = {"connect_s": 0.3, "total_s": 0.6, "backoff_s": 0.01, "queue_s": 0.05, "breaker_pause_s": 0.05}
CASE: dict[str, str] = {"case": "c-1"}


class Site:
    """A vendor's Http with metrics of its own."""

    def __init__(self, session: aiohttp.ClientSession, **limits: Any) -> None:
        self.metrics = Metrics()
        self.http = VendorHttp(
            "acme",
            session,
            self.metrics,
            production=False,
            limits=Limits(**{**QUICK, "breaker_failures": 99, **limits}),
        )

    async def post(self, url: str, *, safe: bool = False) -> Response:
        return await self.http.post("start", url, json=CASE, headers={"appId": "x"}, safe=safe)

    async def get(self, url: str) -> Response:
        return await self.http.get("fetch", url, headers={})

    def outcomes(self) -> dict[str, float]:
        """How often each came out, over both operations."""
        found: dict[str, float] = {}
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == "usercore_vendor_requests_total":
                    outcome = sample.labels["outcome"]
                    found[outcome] = found.get(outcome, 0) + sample.value
        return found

    def breaker_open(self) -> float | None:
        return self.metrics.registry.get_sample_value("usercore_vendor_breaker_open", {"vendor": "acme"})


Make = Callable[..., Site]


@pytest.fixture
async def make() -> AsyncGenerator[Make]:
    async with open_session(production=False) as session:

        def make(**limits: Any) -> Site:
            return Site(session, **limits)

        yield make


async def unavailable(call: Awaitable[Response]) -> VendorUnavailable:
    with pytest.raises(VendorUnavailable) as caught:
        await call
    return caught.value


async def forever(_: object = None) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


def test_the_defaults_are_those_of_the_design() -> None:
    limits = Limits()
    assert (limits.connect_s, limits.total_s, limits.largest) == (2, 8, 1024 * 1024)


async def test_an_answer(make: Make) -> None:
    site = make()
    types: list[list[str]] = []

    async def echo(request: web.Request) -> web.Response:
        types.append(request.headers.getall("content-type"))
        return web.json_response({"got": await request.json(), "app": request.headers["appid"]}, headers={"X-A": "1"})

    async with serving(echo) as vendor:
        reply = await site.post(vendor.url + "/start?x=1")
        await site.http.post("start", vendor.url, json=CASE, headers={"Content-Type": "text/json", "appid": "x"})
    assert types == [["application/json"], ["text/json"]]
    assert (reply.status, reply.headers["x-a"]) == (200, "1")
    assert reply.json(dict[str, Any]) == {"got": CASE, "app": "x"}
    assert site.outcomes() == {"answered": 2}
    labels = {"vendor": "acme", "operation": "start"}
    assert site.metrics.registry.get_sample_value("usercore_vendor_request_seconds_count", labels) == 2


@pytest.mark.parametrize("status", [201, 400, 401, 403, 404, 409, 422])
async def test_the_plugin_reads_what_is_not_the_hosts(make: Make, status: int) -> None:
    site = make(breaker_failures=1)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=status)

    async with serving(answer) as vendor:
        for _ in range(3):
            assert (await site.get(vendor.url)).status == status
    assert site.outcomes() == {"answered": 3}


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(make: Make, status: int) -> None:
    site = make()

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{request.url.origin()}/other"})

    async with serving(elsewhere) as vendor:
        with pytest.raises(VendorProtocolError):
            await site.get(vendor.url)
        with pytest.raises(VendorProtocolError):
            await site.post(vendor.url, safe=True)
        assert [request.path for request in vendor.requests] == ["/", "/"]
    assert site.outcomes() == {"redirect": 2}


async def test_what_is_not_safe_is_sent_once(make: Make) -> None:
    site = make()

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=503, text="secret of the vendor", headers={"Retry-After": "7"})

    async with serving(broken) as vendor:
        error = await unavailable(site.post(vendor.url))
        assert (error.reached, error.retry_after_s, str(error)) == (True, 7.0, "")
        assert len(vendor.requests) == 1
    assert site.outcomes() == {"server_error": 1}


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_is_safe_is_repeated(make: Make, status: int) -> None:
    site = make()
    answers = [status, status, 200, status, 200]

    async def recovers(_: web.Request) -> web.Response:
        return web.json_response({}, status=answers.pop(0))

    async with serving(recovers) as vendor:
        assert (await site.get(vendor.url)).status == 200
        assert (await site.post(vendor.url, safe=True)).status == 200
        assert not answers
        answers += [status] * 3
        assert (await unavailable(site.get(vendor.url))).reached
        assert len(vendor.requests) == 8
    assert site.outcomes() == {"throttled" if status == 429 else "server_error": 6, "answered": 2}


async def test_retry_after_is_honoured_within_the_total(make: Make) -> None:
    site = make(total_s=5.0, backoff_s=0.001)
    clock = asyncio.get_running_loop().time
    times: list[float] = []

    async def throttles(_: web.Request) -> web.Response:
        times.append(clock())
        return web.Response(status=429 if len(times) == 1 else 200, headers={"Retry-After": "1"})

    async with serving(throttles) as vendor:
        assert (await site.get(vendor.url)).status == 200
        assert times[1] - times[0] >= 1.0

        async def long(_: web.Request) -> web.Response:
            return web.Response(status=429, headers={"Retry-After": "60"})

    async with serving(long) as vendor:
        started = clock()
        error = await unavailable(site.get(vendor.url))
        assert (error.retry_after_s, error.reached, len(vendor.requests)) == (60.0, True, 1)
        assert clock() - started < 1.0, "it would come too late, so nobody waits for it"


async def test_nobody_listens(make: Make) -> None:
    site = make()
    with refusing() as url:
        assert not (await unavailable(site.post(url))).reached
        assert not (await unavailable(site.get(url))).reached
    assert site.outcomes() == {"not_reached": 4}


async def test_a_name_that_is_not_known(make: Make) -> None:
    assert not (await unavailable(make(connect_s=5.0, total_s=6.0).post("http://vendor.invalid/"))).reached


async def test_connecting_takes_too_long(make: Make) -> None:
    site = make(connect_s=0.1, total_s=2.0)
    with swallowing() as url:
        assert not (await unavailable(site.post(url))).reached
    assert site.outcomes() == {"not_reached": 1}


async def test_no_tls(make: Make) -> None:
    async with serving(forever) as vendor:
        error = await unavailable(make().post(vendor.url.replace("http:", "https:")))
        assert not error.reached
        assert not vendor.requests


async def test_a_slow_answer_is_lost(make: Make) -> None:
    site = make(total_s=0.2)
    async with serving(forever) as vendor:
        started = asyncio.get_running_loop().time()
        assert (await unavailable(site.post(vendor.url))).reached
        assert (await unavailable(site.get(vendor.url))).reached
        assert asyncio.get_running_loop().time() - started < 2.0
        assert len(vendor.requests) == 2, "no time is left for a second attempt"
    assert site.outcomes() == {"lost": 2}


async def test_an_answer_that_drips_is_lost(make: Make) -> None:
    # More than it can send in that time: it is the time that ends it.
    site = make(total_s=0.3, largest=1 << 40)

    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0)

    async with serving(drips) as vendor:
        assert (await unavailable(site.get(vendor.url))).reached
    assert site.outcomes() == {"lost": 1}


async def test_the_connection_is_closed_at_once(make: Make) -> None:
    site = make()

    async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with speaking(leaves) as vendor:
        assert (await unavailable(site.post(vendor.url))).reached
        assert vendor.connections == 1
        assert (await unavailable(site.post(vendor.url, safe=True))).reached
        assert vendor.connections == 4
    assert site.outcomes() == {"lost": 4}


async def test_reached_once_is_reached(make: Make) -> None:
    """The first attempt may have done it, whatever becomes of the second."""
    site = make(attempts=2, backoff_s=0.05)
    async with speaking(lambda reader, _: reader.readuntil(b"\r\n\r\n")) as vendor:  # pyright: ignore[reportArgumentType]  what it returns is not looked at
        call = asyncio.ensure_future(site.post(vendor.url, safe=True))

        async def connected() -> bool:
            return vendor.connections == 1

        await eventually(connected)
    assert (await unavailable(call)).reached
    assert site.outcomes()["lost"] >= 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    ],
)
async def test_an_answer_that_is_cut_off_is_lost(make: Make, answer: bytes) -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with speaking(cuts) as vendor:
        assert (await unavailable(make().post(vendor.url))).reached


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
async def test_what_is_not_http_is_refused(make: Make, answer: bytes) -> None:
    site = make()

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with speaking(garbage) as vendor:
        with pytest.raises(VendorProtocolError):
            await site.get(vendor.url)
    assert site.outcomes() == {"malformed": 1}


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_that_is_too_large(make: Make, packed: bool) -> None:
    site = make(total_s=5.0, largest=1024 * 1024)
    flood = b" " * (50 * 1024 * 1024)
    body = gzip.compress(flood, 9) if packed else flood
    headers = {"content-encoding": "gzip"} if packed else {}

    async def floods(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    async with serving(floods) as vendor:
        with pytest.raises(VendorProtocolError):
            await site.get(vendor.url)
    assert site.outcomes() == {"too_large": 1}


async def test_an_answer_of_the_largest_size(make: Make) -> None:
    async def fills(_: web.Request) -> web.Response:
        return web.Response(body=b" " * 1000)

    async with serving(fills) as vendor:
        assert len((await make(largest=1000).get(vendor.url)).body) == 1000
        with pytest.raises(VendorProtocolError):
            await make(largest=999).get(vendor.url)


async def test_the_breaker(make: Make) -> None:
    site = make(breaker_failures=3, breaker_pause_s=0.2, attempts=1)
    broken = True

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({}, status=500 if broken else 200)

    async with serving(answer) as vendor:
        for _ in range(3):
            assert (await unavailable(site.post(vendor.url))).reached
        assert site.breaker_open() == 1
        error = await unavailable(site.post(vendor.url))
        assert not error.reached
        assert error.retry_after_s is not None
        assert 0 < error.retry_after_s <= 0.2
        assert len(vendor.requests) == 3
        broken = False

        async def closed() -> bool:
            try:
                return (await site.post(vendor.url)).status == 200
            except VendorUnavailable:
                return False

        await eventually(closed)
        assert site.breaker_open() == 0
        assert len(vendor.requests) == 4
    outcomes = site.outcomes()
    assert (outcomes["server_error"], outcomes["answered"]) == (3, 1)
    assert outcomes["breaker_open"] >= 1


async def test_a_cancelled_probe_does_not_keep_the_breaker_open(make: Make) -> None:
    site = make(breaker_failures=1, breaker_pause_s=0.01)
    hang = True

    async def answer(_: web.Request) -> web.Response:
        return await forever() if hang else web.Response()

    with refusing() as url:
        await unavailable(site.post(url))
    async with serving(answer) as vendor:

        async def probing() -> asyncio.Task[Response] | None:
            task = asyncio.create_task(site.post(vendor.url))
            before = len(vendor.requests)
            await asyncio.wait([task], timeout=0.05)
            if len(vendor.requests) > before:
                return task
            await unavailable(task)
            return None

        probe = await eventually(probing)
        assert probe is not None
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        hang = False
        assert (await site.post(vendor.url)).status == 200


async def test_the_bulkhead(make: Make) -> None:
    site = make(concurrent=2, total_s=5.0)
    go = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await go.wait()
        return web.Response()

    async with serving(answer) as vendor:
        calls = [asyncio.create_task(site.post(vendor.url)) for _ in range(2)]

        async def both() -> bool:
            return len(vendor.requests) == 2

        await eventually(both)
        error = await unavailable(site.post(vendor.url))
        assert (error.reached, len(vendor.requests)) == (False, 2)
        # Another vendor on the same session does not wait.
        async with serving(lambda _: asyncio.sleep(0, web.Response())) as other:
            assert (await make().post(other.url)).status == 200
        late = asyncio.create_task(make(concurrent=2).post(vendor.url))
        go.set()
        assert [(await call).status for call in (*calls, late)] == [200] * 3
        assert (await site.post(vendor.url)).status == 200
    assert site.outcomes() == {"answered": 3, "busy": 1}


async def test_cancelling_gives_the_place_back(make: Make) -> None:
    site = make(concurrent=1, total_s=5.0)
    hang = True

    async def answer(_: web.Request) -> web.Response:
        return await forever() if hang else web.Response()

    async with serving(answer) as vendor:
        call = asyncio.create_task(site.post(vendor.url))

        async def asked() -> bool:
            return bool(vendor.requests)

        await eventually(asked)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        hang = False
        assert (await site.post(vendor.url)).status == 200
    assert site.outcomes() == {"abandoned": 1, "answered": 1}


async def test_not_in_a_transaction(make: Make) -> None:
    token = db._transaction.set(db._Open(open=True))
    try:
        with pytest.raises(NetworkInTransaction):
            await make().get("http://127.0.0.1:9/")
    finally:
        db._transaction.reset(token)


@pytest.mark.parametrize("operation", ["", "Start", "case-1", "t12345", "start\n", "x" * 60, "fetch_ABCPS1234K"])
async def test_an_operation_is_a_constant(make: Make, operation: str) -> None:
    with pytest.raises(ValueError, match="constants"):
        await make().http.get(operation, "http://127.0.0.1:9/", headers={})


async def test_operations_are_few(make: Make) -> None:
    site = make(attempts=1)
    with refusing() as url:
        for letter in "abcdefghijklmnop":
            await unavailable(site.http.get(f"fetch_{letter}", url, headers={}))
        with pytest.raises(ValueError, match="constants"):
            await site.http.get("fetch_q", url, headers={})
        await unavailable(site.http.get("fetch_a", url, headers={}))


@pytest.mark.parametrize(
    "url", ["", "/start", "ftp://a.test/", "http://", "http://u:p@a.test/", "http://[x/", "file:///x"]
)
async def test_urls_that_nothing_is_sent_to(make: Make, url: str) -> None:
    site = make()
    with pytest.raises(VendorProtocolError):
        await site.get(url)
    assert site.outcomes() == {}


async def test_production_sends_over_https_only(make: Make) -> None:
    async with open_session(production=True) as session:
        http = VendorHttp("acme", session, Metrics(), production=True)
        with pytest.raises(VendorProtocolError):
            await http.get("fetch", "http://vendor.test/", headers={})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_outside_dev_this_machine_is_not_reached(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whether the address is written, or comes from a name."""
    async with serving(lambda _: asyncio.sleep(0, web.Response())) as vendor, open_session(production=True) as session:
        site = Site(session, connect_s=5.0, total_s=6.0, attempts=1)
        assert not (await unavailable(site.get(vendor.url.replace("127.0.0.1", host)))).reached
        assert not vendor.requests
    assert site.outcomes() == {"not_reached": 1}
    out, err = capfd.readouterr()
    assert "address_refused" in out + err


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001"])
async def test_addresses_written_oddly_are_not_reached_either(host: str) -> None:
    async with serving(lambda _: asyncio.sleep(0, web.Response())) as vendor, open_session(production=True) as session:
        with pytest.raises((VendorProtocolError, VendorUnavailable)):
            await Site(session).get(vendor.url.replace("127.0.0.1", host))
        assert not vendor.requests


async def test_in_dev_loopback_is_reached_and_private_networks_are_not(make: Make) -> None:
    async with serving(lambda _: asyncio.sleep(0, web.Response())) as vendor:
        assert (await make().get(vendor.url.replace("127.0.0.1", "localhost"))).status == 200
    started = asyncio.get_running_loop().time()
    assert not (await unavailable(make(connect_s=5.0, total_s=9.0).get("http://10.255.255.1/"))).reached
    assert asyncio.get_running_loop().time() - started < 2.0, "nobody tried to connect"


async def test_nothing_is_remembered_of_a_person(make: Make) -> None:
    async def sets(_: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("session", "of-another-person")
        return response

    site = make()
    async with serving(sets) as vendor:
        await site.get(vendor.url.replace("127.0.0.1", "localhost"))
        await site.get(vendor.url.replace("127.0.0.1", "localhost"))
        assert all("cookie" not in request.headers for request in vendor.requests)
        assert vendor.requests[0].headers["user-agent"] == "usercore"


async def test_spans(make: Make, tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    stop = telemetry.configure_tracing(settings(tmp_path), exporter)
    try:
        with refusing() as url:
            await unavailable(make().post(f"{url}/ABCPS1234K"))
    finally:
        stop()
    (span,) = exporter.get_finished_spans()
    assert span.name == "vendor.start"
    assert span.attributes == {"vendor": "acme", "error.type": "VendorUnavailable"}
    assert "ABCPS1234K" not in span.to_json()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("999999999", 3600.0),
        ("-5", None),
        ("1_0", None),
        ("soon", None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2000 22:13:50 GMT", 0.0),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    now = datetime.fromtimestamp(1_700_000_000, UTC)
    assert retry_after({} if value is None else {"retry-after": value}, now) == expected


def test_what_the_body_is_not_is_no_text_in_an_error() -> None:
    with pytest.raises(VendorProtocolError) as caught:
        Response(status=200, headers={}, body=msgspec.json.encode({"pan": "ABCPS1234K"})).json(list[int])
    assert not re.search("ABCPS|pan", str(caught.value))
