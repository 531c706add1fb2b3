"""A keyring, and a database behind a proxy that misbehaves when told to."""

from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import urlsplit

import pytest_asyncio

from tests.databases import DatabaseUrls
from tests.proxy import Proxy, proxy_to
from usercore.db import Db
from usercore.pii import keystore
from usercore.pii.keyring import Keyring
from usercore.pii.kms import local, open_kms


@pytest_asyncio.fixture
async def keyring(db: Db, tmp_path: Path) -> Keyring:
    local.create(tmp_path / "kms.json")
    kms = open_kms(f"local://{tmp_path / 'kms.json'}")
    keyring = Keyring()
    await keystore.load(db, kms, keyring)
    await kms.close()
    return keyring


@pytest_asyncio.fixture
async def proxied(database: DatabaseUrls) -> AsyncGenerator[tuple[Proxy, Db]]:
    url = urlsplit(database.app)
    async with proxy_to(str(url.hostname), url.port or 5432) as proxy:
        through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{proxy.port}").geturl()
        db = await Db.connect(through, name="usercore-test-proxied")
        yield proxy, db
        await db.close()
