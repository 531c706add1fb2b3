"""The plugins' way to a vendor without the host's guard: for tests of a client against its sandbox."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from usercore.plugins.errors import VendorProtocolError, VendorUnavailable
from usercore.plugins.http import retry_after
from usercore.plugins.vendor import Response

TOTAL_S = 8.0
"""As the host has it."""


class PlainHttp:
    """`Http` that does each call once. It has a session of its own, from `async with` to its end."""

    def __init__(self, total_s: float = TOTAL_S) -> None:
        self._timeout = aiohttp.ClientTimeout(total=total_s)
        self._session: aiohttp.ClientSession | None = None
        self.operations: list[str] = []
        """What was called, in order."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(
        self, operation: str, url: str, *, json: object, headers: Mapping[str, str], safe: bool = False
    ) -> Response:
        """Send JSON. Raises VendorUnavailable, and VendorProtocolError for a redirect."""
        sent = {"content-type": "application/json", **{name.lower(): value for name, value in headers.items()}}
        return await self._call("POST", operation, url, sent, msgspec.json.encode(json))

    async def get(self, operation: str, url: str, *, headers: Mapping[str, str]) -> Response:
        """As `post`."""
        return await self._call("GET", operation, url, headers, None)

    async def _call(
        self, method: str, operation: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        assert self._session is not None, "PlainHttp is entered with `async with`"
        self.operations.append(operation)
        try:
            async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
                names = {name.lower(): value for name, value in answer.headers.items()}
                if answer.status == 429 or answer.status >= 500:
                    raise VendorUnavailable(retry_after_s=retry_after(names))
                if 300 <= answer.status < 400:
                    raise VendorProtocolError
                return Response(status=answer.status, headers=names, body=await answer.read())
        except aiohttp.ClientConnectorError:
            raise VendorUnavailable(reached=False) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError):
            raise VendorUnavailable from None
        except aiohttp.ClientError:
            raise VendorProtocolError from None
