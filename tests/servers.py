"""Fixtures that start real servers for the tests and leave none running, however the tests end."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from usercore.devstack import clickhouse as clickhouse_server
from usercore.devstack.clickhouse import ClickHouse
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.redis import Redis

# Waits until the pipe to the tests closes, then ends what is still there: also after kill -9 of pytest.
GUARD = """
cat >/dev/null
for pid in "$1"/*/pid "$1"/*/data/postmaster.pid; do
    [ -f "$pid" ] && kill -9 "$(head -n 1 "$pid")" 2>/dev/null
done
sleep 0.2
rm -rf "$1"
"""


@pytest.fixture(scope="session")
def servers_folder() -> Generator[Path]:
    """Where the tests' servers live; not below pytest's own folder, which other accounts cannot enter."""
    folder = Path(tempfile.mkdtemp(prefix="usercore-tests-"))
    folder.chmod(0o755)
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert guard.stdin
    try:
        yield folder
    finally:
        guard.stdin.close()
        guard.wait()


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Generator[Postgres]:
    """PostgreSQL with both roles and no database; without fsync."""
    server = Postgres(servers_folder / "postgres", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> Generator[Redis]:
    server = Redis(servers_folder / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka(servers_folder: Path) -> Generator[Kafka]:
    server = Kafka(servers_folder / "kafka")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def clickhouse_program() -> Path:
    """Skips where no server can be had, which must not be the case where CI runs."""
    program = clickhouse_server.choose(print)
    if program is None:
        assert "CI" not in os.environ, "no ClickHouse here"
        pytest.skip("no ClickHouse can be had on this machine")
    return program


@pytest.fixture(scope="session")
def clickhouse(servers_folder: Path, clickhouse_program: Path) -> Generator[ClickHouse]:
    server = ClickHouse(servers_folder / "clickhouse", clickhouse_program)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server_home(servers_folder: Path) -> Generator[Callable[[str], Path]]:
    """New folders for servers that a test has for itself; removed with what runs in them."""
    made: list[Path] = []

    def make(name: str) -> Path:
        # In a flat list, so that the guard finds every pid file.
        folder = servers_folder / f"{name}-{os.urandom(4).hex()}"
        folder.mkdir()
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture
def fresh_postgres(server_home: Callable[[str], Path]) -> Generator[Callable[[], Postgres]]:
    """Started servers for tests that kill them; with fsync, as in production."""
    made: list[Postgres] = []

    def make() -> Postgres:
        server = Postgres(server_home("postgres"))
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def fresh_redis(server_home: Callable[[str], Path]) -> Generator[Callable[[], Redis]]:
    made: list[Redis] = []

    def make() -> Redis:
        server = Redis(server_home("redis"))
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def fresh_kafka(server_home: Callable[[str], Path]) -> Generator[Callable[[], Kafka]]:
    made: list[Kafka] = []

    def make() -> Kafka:
        server = Kafka(server_home("kafka"))
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def fresh_clickhouse(
    server_home: Callable[[str], Path], clickhouse_program: Path
) -> Generator[Callable[[], ClickHouse]]:
    made: list[ClickHouse] = []

    def make() -> ClickHouse:
        server = ClickHouse(server_home("clickhouse"), clickhouse_program)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()
