"""The load generator: a process of its own that sends prebuilt HTTP/1.1 requests over keep-alive connections.

It reads only the status and the content-length of an answer, so it takes some 15 µs a request and leaves the machine to
the server. Jobs come as lines of JSON on stdin, outcomes go as lines to stdout.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

CONNECTIONS = 32
LONGEST_S = 20.0


class Job(Struct, frozen=True):
    """Send `requests` round and round for some seconds after the warm-up, or once each when `seconds` is 0.

    With `rate` they go at so many a second, and latencies count from when each was due.
    """

    port: int
    requests: list[str]
    seconds: float = 0.0
    warm_up_s: float = 0.0
    connections: int = CONNECTIONS
    rate: float = 0.0
    longest_s: float = LONGEST_S
    """After the seconds; requests that go once each have to be answered by then."""


class Outcome(Struct, frozen=True):
    """Latencies in milliseconds; `statuses` by status code."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float
    statuses: dict[int, int]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Connection(asyncio.Protocol):
    """One request at a time, the next one as soon as the answer is complete."""

    def __init__(self, source: Iterator[bytes], latencies: list[float], statuses: list[bytes]) -> None:
        self._source = source
        self._latencies = latencies
        self._statuses = statuses
        self._buffer = b""
        self._missing = 0
        self._sent = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            if self._buffer:
                data, self._buffer = self._buffer + data, b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            length = data.find(b"content-length: ", 0, end)
            body = int(data[length + 16 : data.index(b"\r", length)]) if length >= 0 else 0
            self._missing = body - (len(data) - end - 4)
            self._statuses.append(data[9:12])
        if self._missing == 0:
            self._latencies.append(time.perf_counter() - self._sent)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        request = next(self._source, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


class PacedConnection(Connection):
    """Sends each request when it is due. One that waits for the answer before it counts from then all the same."""

    def __init__(
        self, source: Iterator[bytes], latencies: list[float], statuses: list[bytes], due: Iterator[float]
    ) -> None:
        super().__init__(source, latencies, statuses)
        self._due = due

    def _send(self) -> None:
        due = next(self._due)
        asyncio.get_running_loop().call_later(max(0.0, due - time.perf_counter()), self._send_late, due)

    def _send_late(self, due: float) -> None:
        super()._send()
        self._sent = min(self._sent, due)


async def run(job: Job) -> Outcome:
    requests = [request.encode() for request in job.requests]
    latencies: list[float] = []
    statuses: list[bytes] = []
    stopped = False

    def source() -> Iterator[bytes]:
        for request in itertools.cycle(requests) if job.seconds else requests:
            if stopped:
                return
            yield request

    shared = source()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    due = itertools.count(started, 1 / job.rate) if job.rate else None

    def connection() -> Connection:
        if due is None:
            return Connection(shared, latencies, statuses)
        return PacedConnection(shared, latencies, statuses, due)

    connections = [(await loop.create_connection(connection, "127.0.0.1", job.port))[1] for _ in range(job.connections)]
    if job.seconds:
        await asyncio.sleep(job.warm_up_s)
        latencies.clear()
        statuses.clear()
        started = time.perf_counter()
        await asyncio.sleep(job.seconds)
        stopped = True
    async with asyncio.timeout(job.longest_s):
        await asyncio.gather(*(connection.done for connection in connections))
    seconds = time.perf_counter() - started
    latencies.sort()

    def percentile(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

    counted = {int(status): count for status, count in Counter(statuses).items()}
    return Outcome(len(latencies), seconds, percentile(0.5), percentile(0.95), percentile(0.99), counted)


class Client:
    """The process that runs jobs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, job: Job, *, expected: Sequence[int] = (200,)) -> Outcome:
        """Raises RuntimeError when an answer has another status than the expected ones: it would not be comparable."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator died")
        outcome = msgspec.json.decode(line, type=Outcome)
        if not outcome.statuses or not set(outcome.statuses) <= set(expected):
            raise RuntimeError(f"expected {expected}, and the answers were {outcome.statuses}")
        return outcome

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def client() -> Generator[Client]:
    opened = Client()
    try:
        yield opened
    finally:
        opened.close()


def get(path: str, token: str) -> str:
    return _request("GET", path, token, "")


def patch(path: str, token: str, body: bytes) -> str:
    """A JSON Merge Patch."""
    return _request(
        "PATCH", path, token, f"content-type: application/json\r\ncontent-length: {len(body)}\r\n", body.decode()
    )


def post(path: str, headers: Mapping[str, str], body: bytes) -> str:
    """JSON, with the headers that authenticate it."""
    given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\n{given}content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body.decode()}"
    )


def _request(method: str, path: str, token: str, headers: str, body: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n{headers}\r\n{body}"


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        found = uvloop.run(run(msgspec.json.decode(line, type=Job)))
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()
