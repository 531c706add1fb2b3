"""Fetching documents, from hosts that are slow, gone, flood, redirect, lie and break off."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.plugins.vendor_server import refusing, serving, speaking, swallowing
from usercore.db import Db
from usercore.errors import NetworkInTransaction
from usercore.plugins.addresses import open_session
from usercore.plugins.documents import DocumentLimits, DocumentRefused, Documents, Fetched

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40
QUICK: dict[str, Any] = {"connect_s": 0.3, "total_s": 0.5, "largest": 20_000}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest_asyncio.fixture
async def session() -> AsyncGenerator[aiohttp.ClientSession]:
    async with open_session(production=False) as session:
        yield session


async def fetch(session: aiohttp.ClientSession, url: str, **options: Any) -> tuple[Fetched, bytes]:
    """With what was given to `take`; `hosts` and `production` are the host's."""
    taken: list[bytes] = []
    hosts: tuple[str, ...] = options.pop("hosts", ())
    production: bool = options.pop("production", False)
    documents = Documents(session, hosts, production=production, limits=DocumentLimits(**{**QUICK, **options}))
    fetched = await documents.fetch(url, taken.append)
    return fetched, b"".join(taken)


async def refused(session: aiohttp.ClientSession, url: str, **options: Any) -> str:
    with pytest.raises(DocumentRefused) as refusal:
        await fetch(session, url, **options)
    assert str(refusal.value) == refusal.value.reason  # and nothing of the address
    return refusal.value.reason


def answering(body: bytes, content_type: str | None = "image/jpeg", **options: Any) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, **options)

    return answer


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/jpeg", JPEG),
        ("image/png", b"\x89PNG\r\n\x1a\n" + b"pixels"),
        ("application/pdf", b"%PDF-1.7\n%%EOF"),
        ("video/mp4", b"\0\0\0\x20ftypisom" + b"frames"),
    ],
)
async def test_a_document(session: aiohttp.ClientSession, content_type: str, body: bytes) -> None:
    async with serving(answering(body, content_type)) as served:
        fetched, taken = await fetch(session, served.url + "/a?signature=b")
    assert taken == body
    assert fetched == Fetched(hashlib.sha256(body).hexdigest(), len(body), content_type)
    assert served.requests[0].path_qs == "/a?signature=b"
    assert served.requests[0].headers["accept-encoding"] == "identity"
    assert "cookie" not in served.requests[0].headers


async def test_a_document_in_chunks_of_whatever_size(session: aiohttp.ClientSession) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "image/jpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for start in range(0, len(JPEG), 3):
            await response.write(JPEG[start : start + 3])
        return response

    async with serving(answer) as served:
        fetched, taken = await fetch(session, served.url, total_s=10)
    assert (taken, fetched.size) == (JPEG, len(JPEG))


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (answering(JPEG, "text/html"), "wrong_content"),
        (answering(JPEG, "application/octet-stream"), "wrong_content"),
        (answering(JPEG, "image/png"), "wrong_content"),
        (answering(b"<html>Not here</html>"), "wrong_content"),
        (answering(b"\xff\xd8"), "wrong_content"),
        (answering(b""), "wrong_content"),
        (answering(gzip.compress(JPEG), headers={"content-encoding": "gzip"}), "wrong_content"),
        (answering(JPEG + bytes(20_000)), "too_large"),
        (answering(JPEG, status=302, headers={"location": "http://169.254.169.254/"}), "redirect"),
        (answering(JPEG, status=301, headers={"location": "/elsewhere"}), "redirect"),
        (answering(b"", status=204), "refused"),
        (answering(JPEG, status=206), "refused"),
        (answering(b"busy", status=503), "refused"),
        (answering(b"slow down", status=429), "refused"),
        *((answering(b"expired", status=status), "expired") for status in (400, 401, 403, 404, 410)),
    ],
)
async def test_answers_that_are_refused(session: aiohttp.ClientSession, handler: Handler, reason: str) -> None:
    async with serving(handler) as served:
        assert await refused(session, served.url) == reason
    assert len(served.requests) == 1


async def test_a_flood_is_cut_off(session: aiohttp.ClientSession) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "image/jpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(JPEG)
        while True:
            await response.write(bytes(4096))

    async with serving(answer) as served:
        assert await refused(session, served.url, total_s=20) == "too_large"


async def test_exactly_as_large_as_it_may_be(session: aiohttp.ClientSession) -> None:
    async with serving(answering(JPEG)) as served:
        assert (await fetch(session, served.url, largest=len(JPEG)))[0].size == len(JPEG)
        assert await refused(session, served.url, largest=len(JPEG) - 1) == "too_large"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\n"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (HEAD + b"content-length: 1000\r\n\r\n" + JPEG[:500], "truncated"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n" + JPEG[:5] + b"\r\n", "truncated"),
        (HEAD + b"\r\n" + JPEG, "truncated"),  # nobody can tell whether this was the end
        (b"", "unreachable"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "unreachable"),
    ],
)
async def test_answers_that_break_off(session: aiohttp.ClientSession, sent: bytes, reason: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()

    async with speaking(speak) as served:
        assert await refused(session, served.url) == reason


async def test_hosts_that_are_slow(session: aiohttp.ClientSession) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        return await asyncio.get_running_loop().create_future()

    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "image/jpeg", "content-length": "10000"})
        await response.prepare(request)
        await response.write(JPEG[:100])
        return await asyncio.get_running_loop().create_future()

    for handler in (silent, dripping):
        async with serving(handler) as served:
            assert await refused(session, served.url) == "slow"


async def test_hosts_that_are_not_there(session: aiohttp.ClientSession) -> None:
    with refusing() as url:
        assert await refused(session, url) == "unreachable"
    with swallowing() as url:
        assert await refused(session, url, total_s=5) == "unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/a.jpg",
        "https://files.example.evil.test/a.jpg",
        "https://a.files.example/a.jpg",
        "https://files.example@elsewhere.example/a.jpg",
        "https://user@files.example/a.jpg",
        "http://files.example/a.jpg",
        "https://files.example:8443/a.jpg",
        "https://127.0.0.1/a.jpg",
        "https://localhost/a.jpg",
        "https://[::1]/a.jpg",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://files.example/a.jpg",
        "//files.example/a.jpg",
        "https://files.example:port/a.jpg",
        "https://[files.example/a.jpg",
        "https:///a.jpg",
        "",
        "\0",
    ],
)
async def test_addresses_that_are_not_asked_in_production(session: aiohttp.ClientSession, url: str) -> None:
    assert await refused(session, url, hosts=("files.example",), production=True) == "wrong_host"


async def test_a_host_that_is_not_listed_is_not_asked(session: aiohttp.ClientSession) -> None:
    """127.0.0.2 is loopback, and none of the names that are listed by themselves."""
    async with serving(answering(JPEG), "127.0.0.2") as served:
        assert await refused(session, served.url) == "wrong_host"
        assert served.requests == []
        assert (await fetch(session, served.url, hosts=("127.0.0.2",)))[0].size == len(JPEG)


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"])
async def test_a_listed_host_with_a_private_address(session: aiohttp.ClientSession, host: str) -> None:
    assert await refused(session, f"http://{host}/", hosts=(host,)) == "private_address"


async def test_in_production_a_listed_name_may_not_mean_this_machine() -> None:
    async with open_session(production=True) as session:
        url = "https://localhost/a.jpg"
        assert await refused(session, url, hosts=("localhost",), production=True) == "private_address"


async def test_never_inside_a_transaction(session: aiohttp.ClientSession, db: Db) -> None:
    async with db.begin():
        with pytest.raises(NetworkInTransaction):
            await fetch(session, "http://127.0.0.1:9/")
