"""Lines and metrics of requests: written together, and for all of them."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import Buffer

from tests.edge.web import Site, call, issuer
from tests.waiting import turns
from usercore import logs

PERSON = issuer.token()


class Pipe(io.RawIOBase):
    """Keeps each write to it, as a pipe would see it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self.writes.append(bytes(data))
        return len(self.writes[-1])

    def statuses(self) -> list[list[int]]:
        """Of each write the statuses of the requests in it."""
        return [[json.loads(line)["status"] for line in write.splitlines()] for write in self.writes]


def piped(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Where the log goes from now on. No fixture: between those and the test pytest puts stdout back."""
    pipe, sink = Pipe(), getattr(logs, "_sink")  # noqa: B009
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(pipe)))
    monkeypatch.setattr(sink, "configured", True)
    monkeypatch.setattr(sink, "threshold", 20)
    return pipe


async def test_lines_of_requests_leave_together_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, pipe = Site(tmp_path), piped(monkeypatch)
    requests = [call(site.app, "GET", path, token=PERSON) for path in ("/v1/me", "/nowhere", "/v1/me")]
    await asyncio.gather(*requests)
    await turns(1)
    assert pipe.statuses() == [[200, 404, 200]], "one system call for all that ended in one turn"
    await call(site.app, "GET", "/v1/me", token=PERSON)
    await turns(1)
    assert pipe.statuses()[1:] == [[200]]


async def test_what_is_asked_often_is_counted_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, pipe = Site(tmp_path), piped(monkeypatch)
    await call(site.app, "GET", "/health/live")
    await turns(1)
    assert pipe.writes == []
    assert 'usercore_http_requests_total{method="GET",route="/health/live",status="200"} 1.0' in (
        site.metrics.render()[0].decode()
    )


async def test_a_request_that_is_cancelled_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, pipe = Site(tmp_path), piped(monkeypatch)
    started = asyncio.Event()

    async def receive() -> Any:
        started.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {PERSON}".encode())]
    scope: Any = {"type": "http", "method": "PATCH", "path": "/v1/me", "headers": headers, "query_string": b""}
    asked = asyncio.create_task(site.app(scope, receive, send))
    await started.wait()
    asked.cancel()
    await asyncio.wait([asked])
    await turns(1)
    assert pipe.statuses() == [[499]]
