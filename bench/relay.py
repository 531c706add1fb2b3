"""Outbox rows → Kafka, acknowledged and deleted, by one worker."""

import time

import psycopg

from bench import topics
from bench.report import Result, at_least
from bench.servers import Servers

EVENTS = 60_000
WITHIN_S = 40.0
TARGET = 10_000
TOPIC = "user.updated.v1"
FILL = """
insert into outbox (event_id, user_id, topic, payload, occurred_at, traceparent)
select gen_random_uuid(), u.id, %(topic)s,
    format('{"event_id":"%%s","occurred_at":"2026-01-15T09:30:00.123456Z","user_id":"%%s","version":%%s,'
           '"changed_fields":["address","first_name"]}', gen_random_uuid(), u.id, n / 1000),
    now(), '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
from generate_series(1, %(events)s) as n
join (select row_number() over () as place, gen_random_uuid() as id from generate_series(1, 1000)) as u
    on u.place = n %% 1000 + 1
order by n
"""


def run(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_relay", kafka=True)
    before = topics.count(environ["KAFKA_BROKERS"], TOPIC)
    with psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True) as conn:
        conn.execute(FILL, {"topic": TOPIC, "events": EVENTS})
        conn.execute("analyze outbox")
        with servers.running("usercore", "work", "relay", environ=environ, port=environ["OPS_PORT"]):
            rate = _rate(conn)
    published = topics.count(environ["KAFKA_BROKERS"], TOPIC) - before
    if published < EVENTS:
        raise RuntimeError(f"{published} of {EVENTS} events are on the topic")
    return [at_least("relay", "outbox → Kafka, one worker", rate, "/s", TARGET)]


def _rate(conn: psycopg.Connection) -> float:
    """Events a second, from when the first are gone until all are."""
    deadline = time.monotonic() + WITHIN_S
    first: tuple[float, int] | None = None
    while True:
        row = conn.execute("select count(*) from outbox").fetchone()
        assert row is not None
        at, depth = time.monotonic(), int(row[0])
        if first is None and depth < EVENTS:
            first = (at, depth)
        if first is not None and depth == 0:
            return first[1] / (at - first[0])
        if at > deadline:
            raise RuntimeError(f"{depth} events are left after {WITHIN_S:g} s")
        time.sleep(0.05)
