"""A trail that was restored into another cluster, whose transactions count from the beginning again, goes on."""

import asyncio
from collections.abc import Generator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.backups import dump, restore
from tests.databases import DatabaseUrls
from usercore import app, migrate
from usercore.db import Conn, Db
from usercore.devstack.postgres import Postgres
from usercore.errors import DatabaseUnavailable
from usercore.outbox import SYSTEM
from usercore.settings import load
from usercore.trail.actions import seal, verify
from usercore.users.actions import create_user
from usercore.worker import Parts


@pytest.fixture
def elsewhere(servers_folder: Path) -> Generator[Postgres]:
    """A cluster that is younger than the one of the other tests."""
    server = Postgres(servers_folder / "elsewhere", durable=False)
    server.start()
    yield server
    server.stop()


async def test_a_trail_goes_on_in_another_cluster(
    parts: Parts, owner: Conn, database: DatabaseUrls, environ: Mapping[str, str], elsewhere: Postgres, tmp_path: Path
) -> None:
    # Its transactions have higher numbers than those of the other cluster will have.
    await owner.execute("do $$ begin for n in 1..5000 loop perform pg_current_xact_id(); commit; end loop; end $$")
    for _ in range(2):
        await create_user(parts.db, parts.keyring, uuid4(), None, SYSTEM)
        assert await seal(parts.db, parts.keyring) == 1
    # Written, and not sealed before it was dumped.
    await create_user(parts.db, parts.keyring, uuid4(), None, SYSTEM)
    kept = (await verify(parts.db, parts.keyring)).checkpoint
    assert kept is not None
    elsewhere.create_database("restored")
    await dump(database.owner, tmp_path / "dump")
    await restore(tmp_path / "dump", elsewhere.owner_url("restored"))

    # Nobody writes before the trail: neither the pool nor a batch.
    db = await Db.connect(elsewhere.app_url("restored"))
    with pytest.raises(DatabaseUnavailable):
        async with db.begin():
            pass
    with pytest.raises(Exception, match="restored into another cluster"):
        await db.dedicated()
    await db.close()

    said: list[str] = []
    await asyncio.to_thread(migrate.apply, elsewhere.owner_url("restored"), said.append)
    await asyncio.to_thread(migrate.apply, elsewhere.owner_url("restored"), said.append)
    (shift,) = [int(line.rpartition("+ ")[2].rstrip(".")) for line in said if "audit trail goes on" in line]
    assert shift > 0

    settings = load({**environ, "POSTGRES_URL": elsewhere.app_url("restored")})
    async with app.opened(settings) as restored:
        await create_user(restored.db, restored.keyring, uuid4(), None, SYSTEM)
        # The row from before the dump and the one from after it, in this order.
        assert await seal(restored.db, restored.keyring) == 2
        assert await seal(restored.db, restored.keyring) == 0
        found = await verify(restored.db, restored.keyring, against=[kept])
        assert (found.segments, found.rows, found.unsealed, found.finding) == (3, 4, 0, None)
