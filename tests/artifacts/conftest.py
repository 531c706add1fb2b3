"""Fixtures: a case whose vendor has documents, and a worker that fetches them."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest_asyncio
from msgspec.structs import replace

from usercore.artifacts.actions import Artifacts, Reading, add_artifacts, fetch_waiting, open_artifact
from usercore.db import Conn
from usercore.events import now
from usercore.outbox import SYSTEM, Actor
from usercore.plugins import Artifact, ArtifactType
from usercore.plugins.addresses import open_session
from usercore.plugins.documents import DocumentLimits, Documents
from usercore.profiles.actions import keys_of
from usercore.users.actions import create_user, lock_user
from usercore.worker import Parts

ADMIN = Actor(kind="admin", id=uuid4(), client="backoffice")
QUICK = DocumentLimits(connect_s=0.3, total_s=1.0, largest=300_000)


class Fresh:
    """What the vendor says when it is asked for a new address."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[UUID, ArtifactType]] = []

    async def __call__(self, attempt_id: UUID, kind: ArtifactType) -> str | None:
        self.asked.append((attempt_id, kind))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Desk:
    """One user's case and attempt, and what a test does with their documents."""

    def __init__(self, artifacts: Artifacts, owner: Conn, folder: Path) -> None:
        self.artifacts = artifacts
        self.owner = owner
        self.folder = folder
        self.user, self.case, self.attempt = uuid4(), uuid4(), uuid4()

    async def prepare(self) -> None:
        await create_user(self.artifacts.db, self.artifacts.keyring, self.user, None, SYSTEM)
        await self.owner.execute(
            """insert into kyc_cases (id, user_id, vendor, target_tier, initiated_at, expires_at, next_look_at)
            values ($1, $2, 'acme', 'tier_1', now(), now(), now())""",
            self.case,
            self.user,
        )
        await self.owner.execute(
            """insert into kyc_attempts (id, case_id, vendor, vendor_case_id, state, token_hash, token_enc, created_at)
            values ($1, $2, 'acme', 'v', 'started', sha256('x'), $3, now())""",
            self.attempt,
            self.case,
            b"\x01" * 64,
        )

    async def add(self, *found: Artifact) -> list[UUID]:
        """The ids of the attempt's documents, by type."""
        async with self.artifacts.db.begin() as tx:
            await lock_user(tx, self.user)
            keys = await keys_of(tx, self.artifacts.keyring, self.user, "kyc_evidence")
            await add_artifacts(tx, keys, self.case, self.attempt, found, now())
        rows = await self.owner.fetch(
            "select id from kyc_artifacts where attempt_id = $1 order by artifact_type", self.attempt
        )
        return [row["id"] for row in rows]

    async def add_one(self, url: str) -> UUID:
        (added,) = await self.add(Artifact(type="selfie", url=url))
        return added

    async def fetch(self, fresh: Fresh | None = None, artifacts: Artifacts | None = None) -> int:
        return await fetch_waiting(artifacts or self.artifacts, fresh or Fresh())

    async def fetch_again(self, fresh: Fresh | None = None) -> int:
        """As if the pause, or the lease of a worker that died, was over."""
        await self.owner.execute("update kyc_artifacts set next_try_at = now() where state = 'pending'")
        return await self.fetch(fresh)

    async def row(self, artifact_id: UUID) -> asyncpg.Record:
        found = await self.owner.fetchrow("select * from kyc_artifacts where id = $1", artifact_id)
        assert found is not None
        return found

    async def read(self, artifact_id: UUID) -> bytes:
        reading = await open_artifact(self.artifacts, artifact_id, "compliance", ADMIN)
        return await whole(reading)

    def files(self) -> Sequence[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def file(self, kind: str = "selfie") -> Path:
        return self.folder / "kyc" / str(self.case) / str(self.attempt) / kind


async def whole(reading: Reading) -> bytes:
    return b"".join([chunk async for chunk in reading.chunks])


@pytest_asyncio.fixture
async def desk(parts: Parts, owner: Conn, tmp_path: Path) -> AsyncGenerator[Desk]:
    async with open_session(production=False) as session:
        documents = Documents(session, (), production=False, limits=QUICK)
        desk = Desk(replace(parts.artifacts, documents=documents), owner, tmp_path / "artifacts")
        await desk.prepare()
        yield desk
