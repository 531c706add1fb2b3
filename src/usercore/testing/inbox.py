"""The host's part of webhooks in the kit: takes every one, whoever sends it."""

from collections.abc import Mapping

from aiohttp import web
from msgspec import Struct


class Hook(Struct, frozen=True, kw_only=True):
    """A webhook as it came in."""

    path: str
    headers: Mapping[str, str]
    raw: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Inbox:
    """Takes every webhook, whoever sends it."""

    def __init__(self) -> None:
        self.url = ""
        self.hooks: list[Hook] = []

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        hook = Hook(path=request.path, headers=headers, raw=tuple(request.raw_headers), body=await request.read())
        self.hooks.append(hook)
        return web.Response(status=200)
