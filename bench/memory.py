"""Resident memory of an API process and of a worker, at rest and at its highest under load."""

import subprocess
import threading
from collections.abc import Callable

import psutil
import psycopg

from bench import load, people, topics
from bench.consumer import events, wait_for_users
from bench.load import Job
from bench.report import Result, below
from bench.servers import Servers
from usercore.events import AUTH_CREATED

USERS = 500
EVENTS = 10_000
LOAD_S = 6.0
SAMPLE_S = 0.05
API_LIMIT_MIB = 150


def run(servers: Servers) -> list[Result]:
    return [*_api(servers), *_worker(servers)]


def _api(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_memory_api")
    port = environ["PORT"]
    tokens = servers.tokens(USERS)
    reads = [load.get("/v1/me", token) for token in tokens.values()]
    with servers.running("usercore", "serve", environ=environ, port=port) as process, load.client() as client:
        rest = _mib(process)

        def work() -> None:
            people.create(client, port, tokens)
            client.run(Job(int(port), reads, LOAD_S))

        most = _highest(process, work)
    return [
        Result("memory", "API at rest", rest, "MiB"),
        below("memory", "API under load", most, "MiB", API_LIMIT_MIB),
    ]


def _worker(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_memory_worker", kafka=True)
    # Its database is new, and Kafka may hold the events of another benchmark: they count as load too.
    with (
        servers.running("usercore", "work", environ=environ, port=environ["OPS_PORT"]) as process,
        psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True) as conn,
    ):
        rest = _mib(process)

        def work() -> None:
            topics.fill(environ["KAFKA_BROKERS"], AUTH_CREATED, events(EVENTS))
            wait_for_users(conn, EVENTS)

        most = _highest(process, work)
    return [
        Result("memory", "worker at rest", rest, "MiB"),
        Result("memory", "worker under load", most, "MiB"),
    ]


def _highest(process: subprocess.Popen[bytes], work: Callable[[], None]) -> float:
    """The most that was seen while `work` ran."""
    seen = [_mib(process)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            seen.append(_mib(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(seen)


def _mib(process: subprocess.Popen[bytes]) -> float:
    return psutil.Process(process.pid).memory_info().rss / 2**20
