"""The way to one vendor: time-outs, repetitions of what is safe, breaker, bulkhead, size caps, metrics and spans."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from usercore.db import outside_transaction
from usercore.logs import logger
from usercore.plugins.breaker import Breaker, Pass
from usercore.plugins.errors import VendorError, VendorProtocolError, VendorUnavailable
from usercore.plugins.vendor import Response
from usercore.telemetry import Metrics, vendor_span

Method = Literal["GET", "POST"]
Outcome = Literal[
    "answered",  # with 2xx or 4xx, which the plugin reads
    "throttled",
    "server_error",
    "redirect",
    "too_large",
    "malformed",
    "not_reached",
    "lost",
    "breaker_open",
    "busy",
    "abandoned",  # by who called
]
FAILURES: frozenset[Outcome] = frozenset(("server_error", "not_reached", "lost"))
"""What opens the breaker. A vendor that throttles is there, and a 4xx is its answer."""

MOST_OPERATIONS = 16
"""Names a vendor may have in metrics: a plugin that makes them up from data is stopped before the series are many."""
LONGEST_RETRY_AFTER_S = 3600.0
_OPERATION = re.compile("[a-z][a-z_]{1,39}[0-9]?")

log = logger(__name__)


class Limits(Struct, frozen=True, kw_only=True):
    """What a vendor may cost us. The defaults are those of the design, and for tests it is less."""

    connect_s: float = 2.0
    """With looking the name up and TLS."""
    total_s: float = 8.0
    """Of one call with all its repetitions."""
    concurrent: int = 50
    """Calls at once: a slow vendor holds so many, and no more of the service."""
    queue_s: float = 1.0
    """How long a call waits for one of these places."""
    attempts: int = 3
    backoff_s: float = 0.2
    """Before the second attempt; twice as long before the third."""
    largest: int = 1024 * 1024
    """Bytes of an answer, unpacked. Those of the vendors are a few KiB; documents come another way."""
    breaker_failures: int = 5
    breaker_pause_s: float = 10.0


class VendorHttp:
    """`Http` for one vendor over a session of `addresses.open_session`, which the caller closes."""

    def __init__(
        self,
        vendor: str,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        *,
        production: bool,
        limits: Limits | None = None,
    ) -> None:
        self._vendor = vendor
        self._session = session
        self._metrics = metrics
        self._schemes = ("https",) if production else ("https", "http")
        self._limits = limits or Limits()
        self._places = asyncio.Semaphore(self._limits.concurrent)
        self._breaker = Breaker(self._limits.breaker_failures, self._limits.breaker_pause_s, self._breaker_changed)
        self._operations: set[str] = set()
        metrics.vendor_breaker(vendor, open=False)

    async def post(
        self,
        operation: str,
        url: str,
        *,
        json: object,
        headers: Mapping[str, str],
        safe: bool = False,
    ) -> Response:
        """Send JSON. Raises VendorUnavailable and VendorProtocolError; ValueError and TypeError are the plugin's bugs.

        `operation` is a constant of the plugin: letters and underscores, at most 16 of them a vendor.
        """
        body = msgspec.json.encode(json)
        return await self._call("POST", operation, url, headers, body, safe=safe)

    async def get(self, operation: str, url: str, *, headers: Mapping[str, str]) -> Response:
        """As `post`, and always safe."""
        return await self._call("GET", operation, url, headers, None, safe=True)

    async def _call(
        self, method: Method, operation: str, url: str, headers: Mapping[str, str], body: bytes | None, *, safe: bool
    ) -> Response:
        outside_transaction()
        self._check_operation(operation)
        self._check_url(url)
        sent = {name.lower(): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("content-type", "application/json")
        request = _Request(method, operation, url, sent, body)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.total_s
        reached = False
        with vendor_span(operation, self._vendor):
            async with self._place(operation):
                attempt = 1
                while True:
                    try:
                        return await self._attempt(request, deadline)
                    except VendorUnavailable as error:
                        reached |= error.reached
                        pause = self._pause(attempt, error.retry_after_s)
                        if not safe or attempt == self._limits.attempts or clock() + pause >= deadline:
                            # Once reached is reached, even if the last attempt was not.
                            raise VendorUnavailable(retry_after_s=error.retry_after_s, reached=reached) from None
                    await asyncio.sleep(pause)
                    attempt += 1

    async def _attempt(self, request: "_Request", deadline: float) -> Response:
        entered = self._breaker.enter()
        if not isinstance(entered, Pass):
            self._metrics.vendor_request(self._vendor, request.operation, "breaker_open", None)
            raise VendorUnavailable(retry_after_s=entered, reached=False)
        clock = asyncio.get_running_loop().time
        started = clock()
        outcome: Outcome = "abandoned"
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    outcome, result = await self._exchange(request, min(self._limits.connect_s, deadline - started))
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                outcome, result = "not_reached", VendorUnavailable(reached=False)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError):
                # The time-outs are OSErrors too. The vendor may have done what it was asked.
                outcome, result = "lost", VendorUnavailable()
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
                # Nothing was sent, so nothing is known of the vendor.
                result = VendorProtocolError()
            except aiohttp.ClientError:
                outcome, result = "malformed", VendorProtocolError()
        finally:
            if outcome in FAILURES:
                entered.failed()
            elif outcome != "abandoned":
                entered.answered()
            entered.leave()
            self._metrics.vendor_request(self._vendor, request.operation, outcome, clock() - started)
        if isinstance(result, VendorError):
            raise result
        return result

    async def _exchange(self, request: "_Request", connect_s: float) -> tuple[Outcome, Response | VendorError]:
        async with self._session.request(
            request.method,
            request.url,
            data=request.body,
            headers=request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
        ) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            if answer.status == 429:
                return "throttled", VendorUnavailable(retry_after_s=retry_after(headers))
            if answer.status >= 500:
                return "server_error", VendorUnavailable(retry_after_s=retry_after(headers))
            if 300 <= answer.status < 400:
                # Nobody but the vendor that we know gets our credentials and a person's data.
                return "redirect", VendorProtocolError()
            if answer.status < 200:
                return "malformed", VendorProtocolError()
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > self._limits.largest:
                    answer.close()
                    return "too_large", VendorProtocolError()
            return "answered", Response(status=answer.status, headers=headers, body=bytes(body))

    @asynccontextmanager
    async def _place(self, operation: str) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._limits.queue_s):
                await self._places.acquire()
        except TimeoutError:
            self._metrics.vendor_request(self._vendor, operation, "busy", None)
            raise VendorUnavailable(retry_after_s=self._limits.queue_s, reached=False) from None
        try:
            yield
        finally:
            self._places.release()

    def _pause(self, attempt: int, retry_after_s: float | None) -> float:
        # Spread, or those who failed together would come again together.
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it
        return (retry_after_s or 0.0) + self._limits.backoff_s * 2 ** (attempt - 1) * jitter

    def _check_operation(self, operation: str) -> None:
        if operation not in self._operations:
            if not _OPERATION.fullmatch(operation) or len(self._operations) >= MOST_OPERATIONS:
                raise ValueError("an operation is one of a few constants of the plugin")
            self._operations.add(operation)

    def _check_url(self, url: str) -> None:
        """URLs may come from the vendor; raises VendorProtocolError for those that we would not send anything to."""
        try:
            parts = urlsplit(url)
            good = parts.scheme in self._schemes and parts.hostname and "@" not in parts.netloc
        except ValueError:
            good = False
        if not good:
            raise VendorProtocolError

    def _breaker_changed(self, open: bool) -> None:
        self._metrics.vendor_breaker(self._vendor, open=open)
        log.warning("vendor_breaker_changed", vendor=self._vendor, state="open" if open else "closed")


class _Request(Struct, frozen=True):
    method: Method
    operation: str
    url: str
    headers: dict[str, str]
    body: bytes | None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds, from a header in seconds or as a date (RFC 9110, 10.2.3); None for none, or one that is neither."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        seconds = float(value)
    else:
        try:
            at = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
