"""The object store of artifacts: a folder, S3 or Google Cloud Storage, by obstore."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from datetime import timedelta
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from usercore.db import outside_transaction
from usercore.errors import ServiceUnavailable
from usercore.plugins import ArtifactType

T = TypeVar("T")

TOTAL_S = 30
"""Of one call with its repetitions: 10 MiB over a slow line."""
READ = 1024 * 1024
"""Bytes read at once."""


class Store:
    """Objects by key. Each is there whole or not at all, and written again it is the new one."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, key: str, data: bytearray) -> None:
        """Raises ServiceUnavailable."""
        outside_transaction()
        # In one part: an upload in several could be cut off between them, and leave parts that nobody sees.
        await _in_time(obstore.put_async(self._store, key, data, use_multipart=False))

    async def get(self, key: str) -> AsyncGenerator[bytes]:
        """Raises ServiceUnavailable, and FileNotFoundError for a key that is not there."""
        outside_transaction()
        size = (await _in_time(obstore.head_async(self._store, key)))["size"]
        # In parts, each with its own time: whoever reads may be slow.
        for start in range(0, size, READ):
            end = min(start + READ, size)
            yield bytes(await _in_time(obstore.get_range_async(self._store, key, start=start, end=end)))

    async def list(self, prefix: str, size: int) -> AsyncGenerator[list[str]]:
        """The keys that begin so, up to `size` at a time. Raises ServiceUnavailable."""
        outside_transaction()
        pages = obstore.list(self._store, prefix, chunk_size=size)
        while True:
            try:
                page = await _in_time(anext(pages))
            except StopAsyncIteration:
                return
            yield [each["path"] for each in page]

    async def remove(self, key: str) -> None:
        """Raises ServiceUnavailable; nothing when it is not there."""
        outside_transaction()
        try:
            await _in_time(obstore.delete_async(self._store, key))
        except FileNotFoundError:
            return


def path_of(case_id: UUID, attempt_id: UUID, kind: ArtifactType) -> str:
    """Where a document is in the store: found without the keys of the person whom it shows."""
    return f"kyc/{case_id}/{attempt_id}/{kind}"


async def _in_time(call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(TOTAL_S):
            return await call
    except FileNotFoundError:
        raise
    except (BaseError, OSError):
        raise ServiceUnavailable from None


def open_store(url: str) -> Store:
    """The store of ARTIFACT_STORE_URL; a folder is made when it is not there.

    Credentials are found as each cloud's own tools find them.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Store(LocalStore(unquote(parts.path), mkdir=True))
    return Store(
        from_url(
            url,
            client_options={"connect_timeout": timedelta(seconds=2), "timeout": timedelta(seconds=TOTAL_S)},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=TOTAL_S)},
        )
    )
