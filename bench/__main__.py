"""`python -m bench [--json] [NAME …]`: runs the benchmarks one after the other and prints one table."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from bench import audit, beside, cache, consumer, fields, keys, kyc, memory, read, relay, report, servers, update
from bench.report import Result
from bench.servers import Servers

BENCHES: Mapping[str, Callable[[Servers], list[Result]]] = {
    "fields": fields.run,
    "read": read.run,
    "update": update.run,
    "consumer": consumer.run,
    "relay": relay.run,
    "kyc": kyc.run,
    "audit": audit.run,
    "beside": beside.run,
    "cache": cache.run,
    "keys": keys.run,
    "memory": memory.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    # So that the servers are stopped then too.
    signal.signal(signal.SIGTERM, _stop)
    results: list[Result] = []
    with servers.temporary() as running:
        for name in options.names or BENCHES:
            started = time.monotonic()
            results += BENCHES[name](running)
            print(f"bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(report.as_json(results) if options.json else report.table(results))
    print(
        f"bench: load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; ratios hold on a busy machine, "
        "numbers a second do not",
        file=sys.stderr,
    )
    return 0


def _stop(number: int, frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
