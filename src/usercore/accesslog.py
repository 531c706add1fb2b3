"""The log line and the metrics of each request, made for all that end in one turn of the event loop together.

One system call writes them all, and the same code over and over stays in the processor's caches: one by one they took
twice as long.
"""

import asyncio
from typing import Final
from uuid import UUID

from msgspec import Struct

from usercore import logs
from usercore.calls import Call
from usercore.operations import Access
from usercore.telemetry import Metrics

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Others share one label, or a client could make series without end."""
CANCELLED: Final = 499
"""The status of a request whose task ended before there was an answer."""


class Line(Struct, omit_defaults=True):
    """What is logged of a request. A person's own token names the user; anybody else acts on one."""

    ts: str
    level: str
    event: str
    request_id: str
    trace_id: str | None
    method: str
    route: str
    status: int
    duration_ms: float
    user_id: UUID | None = None
    actor_id: UUID | None = None
    client_id: str | None = None
    code: str | None = None


class AccessLog:
    """Of one edge."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ended: list[tuple[Call, float]] = []

    def ended(self, call: Call, seconds: float) -> None:
        """The request is answered, or its client is gone."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._write)
        self._ended.append((call, seconds))

    def _write(self) -> None:
        ended, self._ended = self._ended, []
        ts = logs.timestamp()
        lines: list[Line] = []
        for call, seconds in ended:
            status = call.status or CANCELLED
            method = label(call.method)
            self._metrics.http_request(call.route, method, status, seconds)
            if call.rule is None or not call.rule.quiet or status >= 400:
                lines.append(_line(ts, call, method, status, seconds))
        logs.write(lines)


def label(method: str) -> str:
    return method if method in METHODS else "OTHER"


def _line(ts: str, call: Call, method: str, status: int, seconds: float) -> Line:
    caller = call.principal
    own = caller is not None and Access.USER.admits(caller)
    return Line(
        ts,
        "info",
        "http_request",
        call.request_id,
        None if call.trace is None else call.trace.trace_id,
        method,
        call.route,
        status,
        round(seconds * 1000, 2),
        caller.sub if caller is not None and own else None,
        caller.sub if caller is not None and not own else None,
        None if caller is None else caller.client_id,
        call.code,
    )
