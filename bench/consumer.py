"""auth.created.v1 on Kafka → users with their keys, audit rows and events in PostgreSQL, by one worker."""

import time
from collections.abc import Iterator
from uuid import uuid4

import msgspec
import psycopg

from bench import topics
from bench.report import Result, at_least
from bench.servers import Servers
from usercore.events import AUTH_CREATED, AuthCreated, now

USERS = 20_000
WITHIN_S = 40.0
TARGET = 3_000


def events(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Records of the Auth Service: the key is the account's id."""
    at = now()
    for _ in range(count):
        auth_id = uuid4()
        event = AuthCreated(event_id=uuid4(), occurred_at=at, auth_id=auth_id, email=f"{auth_id}@example.in")
        yield str(auth_id).encode(), msgspec.json.encode(event)


def run(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_consumer", kafka=True)
    topics.fill(environ["KAFKA_BROKERS"], AUTH_CREATED, events(USERS))
    with (
        servers.running("usercore", "work", "consumer", environ=environ, port=environ["OPS_PORT"]),
        psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True) as conn,
    ):
        wait_for_users(conn, USERS)
        # A batch has one time, when its transaction began: the last one has not been waited for.
        row = conn.execute(
            "select count(*) filter (where created_at < last) / extract(epoch from max(created_at) - min(created_at)) "
            "from users, (select max(created_at) as last from users) as l"
        ).fetchone()
    assert row is not None
    return [at_least("consumer", "auth.created.v1 → users, one worker", float(row[0]), "/s", TARGET)]


def wait_for_users(conn: psycopg.Connection, count: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while (row := conn.execute("select count(*) from users").fetchone()) is None or row[0] < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{row and row[0]} of {count} users after {WITHIN_S:g} s")
        time.sleep(0.1)
