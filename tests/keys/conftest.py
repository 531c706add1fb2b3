"""An operator's way to the keyring, and processes that keep theirs up to date."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from usercore.db import Db
from usercore.pii.keyring import Keyring
from usercore.pii.keystore import keep_loaded, load
from usercore.pii.kms import Kms, open_kms
from usercore.pii.kms.local import create

REFRESH_S = 0.05
SETTLE_S = 0.3

Process = Callable[[], AbstractAsyncContextManager[Keyring]]


@pytest.fixture
def kms_file(tmp_path: Path) -> Path:
    """That of the service's settings too."""
    path = tmp_path / "kms.json"
    create(path)
    return path


@pytest.fixture
def kms(kms_file: Path) -> Kms:
    return open_kms(f"local://{kms_file}")


@pytest.fixture
def process(db: Db, kms: Kms) -> Process:
    @asynccontextmanager
    async def running() -> AsyncGenerator[Keyring]:
        keyring = Keyring()
        await load(db, kms, keyring)
        task: asyncio.Task[None] = asyncio.create_task(keep_loaded(db, kms, keyring, refresh_s=REFRESH_S))
        try:
            yield keyring
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return running
