"""Webhooks as a vendor sends them: until they are taken, or a few times, and authenticated or forged."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from msgspec import Struct

from usercore.plugins.vendor import WebhookScheme
from usercore.plugins.webhooks import sign

TRIES = 3
"""Vendors give up after a few; the number is nobody's."""
BACKOFF_S = 0.2
"""Before the second try, and doubled before each further one; vendors wait for minutes, and tests do not."""
ANSWER_S = 10.0


class Message(Struct, frozen=True, kw_only=True):
    """A webhook of a vendor."""

    event_id: str
    kind: str
    """The vendor's name of the event, for the control interface."""
    body: bytes
    headers: Mapping[str, str] = {}
    """Besides those that authenticate it."""


class Sender:
    """Sends webhooks under one scheme."""

    def __init__(
        self,
        scheme: WebhookScheme,
        secret: str,
        header: str,
        *,
        tries: int = TRIES,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        """`header` is where a `static_header` goes."""
        self._scheme: WebhookScheme = scheme
        self._secret = secret
        self._header = header
        self._tries = tries
        self._backoff_s = backoff_s
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, url: str, message: Message, *, headers: Mapping[str, str] | None = None, forged: bool = False
    ) -> dict[str, Any]:
        """Send until a 2xx comes back, or give up. What became of it: a status for each try, 0 without an answer.

        `headers` are static ones that the customer has asked for; a forged message has not their values.
        """
        statuses: list[int] = []
        for turn in range(self._tries):
            if turn:
                await asyncio.sleep(self._backoff_s * 2 ** (turn - 1))
            statuses.append(await self._try(url, message, headers or {}, forged))
            # Somebody who forges does not mind what the answer is.
            if 200 <= statuses[-1] < 300 or forged:
                break
        return {"event_id": message.event_id, "kind": message.kind, "forged": forged, "statuses": statuses}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _try(self, url: str, message: Message, static: Mapping[str, str], forged: bool) -> int:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=ANSWER_S)
            )
        headers = {"content-type": "application/json", **message.headers}
        secret = "forged-" + secrets.token_hex(16) if forged else self._secret
        headers.update({name: secret if forged else value for name, value in static.items()})
        if self._scheme == "hmac":
            # Signed anew for each try, as the time in it is that of the try.
            headers.update(sign(secret, message.event_id, int(time.time()), message.body))
        elif self._scheme == "static_header":
            # A customer who has asked for this header has given its value, too.
            if self._header.lower() not in {name.lower() for name in static}:
                headers[self._header] = secret
        elif forged:
            url = url.rpartition("/")[0] + "/" + secrets.token_urlsafe(32)
        try:
            async with self._session.post(url, data=message.body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError, ValueError):
            return 0
