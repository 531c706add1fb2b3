"""A handler's answer, ready for the wire: JSON, or bytes as they come."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

import msgspec
from litestar import Response
from litestar.types import Receive, Scope, Send

T = TypeVar("T")

JSON = "application/json"


class JsonAnswer(Response[T]):
    """A Struct as JSON, or JSON that is there already, or no body.

    Litestar's own Response takes as long to get to the wire as a profile takes to be opened: headers become objects,
    are merged and encoded again. This one does it once.
    """

    def __init__(
        self,
        content: T | msgspec.Raw | None,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = JSON,
    ) -> None:
        self._body = b"" if content is None else _bytes(content)
        self._status = status_code
        self._headers = [
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()),
            (b"content-length", str(len(self._body)).encode()),
        ]
        if content is not None:
            self._headers.append((b"content-type", media_type.encode()))

    def to_asgi_response(self, *_: object, **__: object) -> Any:
        """What Litestar calls with its defaults; everything is decided already."""
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


class StreamAnswer(Response[None]):
    """Bytes as they come. When they break off the client sees it: too few of a known size, or no last chunk."""

    def __init__(
        self, chunks: AsyncGenerator[bytes], *, size: int | None = None, media_type: str, headers: Mapping[str, str]
    ) -> None:
        self._chunks = chunks
        self._headers = [
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()),
            (b"content-type", media_type.encode()),
        ]
        if size is not None:
            self._headers.append((b"content-length", str(size).encode()))

    def to_asgi_response(self, *_: object, **__: object) -> Any:
        """As JsonAnswer's."""
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _bytes(content: object) -> bytes:
    return bytes(cast("Any", content)) if isinstance(content, msgspec.Raw) else msgspec.json.encode(content)
