"""Temporary servers for a run: a durable PostgreSQL, Redis, Kafka when asked for, and processes of ours."""

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import psutil
import psycopg

from usercore import migrate
from usercore.clickhouse import ClickHouse
from usercore.devstack import clickhouse, provision
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.processes import free_port
from usercore.devstack.redis import Redis

READY_WITHIN_S = 30.0


class Servers:
    """Loopback only; everything is gone when the run ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres")
        self.redis = Redis(folder / "redis")
        provision.make_keys(folder)
        self._signing_key = (folder / "jwt-private.pem").read_text()

    @functools.cached_property
    def kafka(self) -> Kafka:
        kafka = Kafka(self.folder / "kafka")
        kafka.start()
        return kafka

    def stop(self) -> None:
        if "kafka" in self.__dict__:
            self.kafka.kill()
        self.redis.kill()
        self.postgres.kill()

    def checkpoint(self) -> None:
        """Have PostgreSQL write now what it would write in the middle of a measurement."""
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as admin:
            admin.execute("checkpoint")

    def environ(self, database: str, *, kafka: bool = False) -> dict[str, str]:
        """The environment of a service on a fresh, migrated database; Kafka's topics are shared by all of them.

        Servers that do not run yet are started.
        """
        self.postgres.start()
        self.redis.start()
        self.postgres.create_database(database)
        migrate.apply(self.postgres.owner_url(database), lambda _: None)
        if kafka:
            self.kafka.create_topics(provision.TOPICS)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "USERCORE_ENV": "dev",
            "PORT": str(free_port()),
            "OPS_PORT": str(free_port()),
            "POSTGRES_URL": self.postgres.app_url(database),
            "POSTGRES_OWNER_URL": self.postgres.owner_url(database),
            "REDIS_URL": self.redis.url,
            "KAFKA_BROKERS": self.kafka.brokers if kafka else "127.0.0.1:9",
            "PII_ENCRYPTION_KEY_ID": f"local://{self.folder / 'kms-local.json'}",
            "JWT_PUBLIC_KEY_FILE": str(self.folder / "jwt-public.pem"),
            "JWT_ISSUER": "https://auth.bench",
            "JWT_AUDIENCE": "usercore",
            "PROFILE_PATCH_LIMIT_PER_MINUTE": "100000",
        }

    @contextmanager
    def archive(self, environ: Mapping[str, str]) -> Generator[dict[str, str]]:
        """The environment with a ClickHouse of its own, in which the archive's tables are, until the block ends."""
        program = clickhouse.choose(print)
        if program is None:
            raise RuntimeError("there is no ClickHouse here")
        server = clickhouse.ClickHouse(Path(tempfile.mkdtemp(prefix="clickhouse-", dir=self.folder)), program)
        try:
            server.start()
            asyncio.run(_make_tables(server.url()))
            yield {**environ, "CLICKHOUSE_URL": server.url()}
        finally:
            server.kill()

    def token(self, user_id: UUID, scope: str = "") -> str:
        now = int(time.time())
        claims = {
            "iss": "https://auth.bench",
            "aud": "usercore",
            "sub": str(user_id),
            "iat": now - 1,
            "exp": now + 3600,
            "email": f"{user_id}@example.in",
            "scope": scope,
        }
        return jwt.encode(claims, self._signing_key, "ES256")

    def tokens(self, count: int) -> dict[UUID, str]:
        """That many users who do not exist yet, each with a token."""
        return {user_id: self.token(user_id) for user_id in (uuid4() for _ in range(count))}

    @contextmanager
    def running(
        self, module: str, *arguments: str, environ: Mapping[str, str], port: str
    ) -> Generator[subprocess.Popen[bytes]]:
        """`python -m module` until the block ends; it is ready when /health/live answers on `port`."""
        log = self.folder / f"{module}-{port}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], env=dict(environ), stdout=out, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_live(process, port, log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_until_live(self, process: subprocess.Popen[bytes], port: str, log: Path) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1).close()
            except urllib.error.HTTPError:
                return
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{process.args} did not come up: {tail}") from error
                time.sleep(0.05)
            else:
                return


async def _make_tables(url: str) -> None:
    archive = ClickHouse(url)
    await archive.migrate()
    await archive.close()


@contextmanager
def temporary() -> Generator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="usercore-bench-"))
    # PostgreSQL may run as another account.
    folder.chmod(0o755)
    servers = None
    try:
        servers = Servers(folder)
        yield servers
    finally:
        if servers is not None:
            servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def ports(count: int) -> Sequence[str]:
    found: set[str] = set()
    while len(found) < count:
        found.add(str(free_port()))
    return sorted(found)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """CPU time that a process has used, in seconds."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system
