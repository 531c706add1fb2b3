"""The read and update benchmarks again, while a worker seals the trail that they write and ships it into ClickHouse."""

from collections.abc import Callable

from msgspec.structs import replace

from bench import read, update
from bench.report import Result
from bench.servers import Servers

RUNS: tuple[tuple[str, Callable[[Servers, dict[str, str]], list[Result]]], ...] = (
    ("bench_read_beside", read.measure),
    ("bench_update_beside", update.measure),
)


def run(servers: Servers) -> list[Result]:
    results: list[Result] = []
    for database, measure in RUNS:
        with (
            servers.archive(servers.environ(database)) as environ,
            servers.running("usercore", "work", "sealer", "shipper", environ=environ, port=environ["OPS_PORT"]),
        ):
            results += measure(servers, environ)
    return [replace(result, bench="beside") for result in results]
