"""The read and update benchmarks again, while a worker seals the trail that they write and ships it into ClickHouse."""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from bench import read, update
from bench.report import Result
from bench.servers import Servers
from usercore import app
from usercore.devstack import clickhouse as server
from usercore.devstack.clickhouse import ClickHouse
from usercore.settings import load

RUNS: tuple[tuple[str, Callable[[Servers, dict[str, str]], list[Result]]], ...] = (
    ("bench_read_beside", read.measure),
    ("bench_update_beside", update.measure),
)


def run(servers: Servers) -> list[Result]:
    program = server.choose(print)
    if program is None:
        raise RuntimeError("there is no ClickHouse here")
    clickhouse = ClickHouse(servers.folder / "clickhouse-beside", program)
    clickhouse.start()
    results: list[Result] = []
    try:
        for database, measure in RUNS:
            environ = {**servers.environ(database), "CLICKHOUSE_URL": clickhouse.url()}
            asyncio.run(_migrate(environ))
            with servers.running("usercore", "work", "sealer", "shipper", environ=environ, port=environ["OPS_PORT"]):
                results += measure(servers, environ)
    finally:
        clickhouse.kill()
    return [replace(result, bench="beside") for result in results]


async def _migrate(environ: dict[str, str]) -> None:
    archive = app.open_archive(load(environ))
    assert archive is not None
    await archive.migrate()
    await archive.close()
