"""PATCH /v1/me against pgbench on the same PostgreSQL, which flushes every commit.

pgbench runs the transaction as it is usually written (begin, lock, read, write, commit) and then as the service sends
it for one user alone: a read, and one statement that writes everything if nobody else was faster. The service shares
both statements among the callers that come together.
"""

from bench import load, people, pgbench
from bench.load import Job
from bench.report import Result, compare
from bench.servers import Servers

USERS = 5000
"""So many that PostgreSQL looks each of them up by its key, as it does with a million."""
ROUNDS = 5
ROUND_S = 3.0
WARM_UP_S = 0.5
# Each pass over the users changes what the pass before wrote.
NAMES = ("Asha", "Meera")


def run(servers: Servers) -> list[Result]:
    return measure(servers, servers.environ("bench_update"))


def measure(servers: Servers, environ: dict[str, str]) -> list[Result]:
    port = environ["PORT"]
    tokens = servers.tokens(USERS)
    requests = [
        load.patch("/v1/me", token, f'{{"first_name":"{name}"}}'.encode())
        for name in reversed(NAMES)
        for token in tokens.values()
    ]
    ours: list[float] = []
    transaction: list[float] = []
    statements: list[float] = []
    with servers.running("usercore", "serve", environ=environ, port=port), load.client() as client:
        people.create(client, port, tokens)
        sent = pgbench.record(environ, next(iter(tokens)))
        held = pgbench.write_script(servers.folder / "held.sql", pgbench.holding_the_user(sent))
        optimistic = pgbench.write_script(servers.folder / "optimistic.sql", sent)
        for _ in range(ROUNDS):
            ours.append(client.run(Job(int(port), requests, ROUND_S, WARM_UP_S)).rate)
            for script, rates in ((held, transaction), (optimistic, statements)):
                url = environ["POSTGRES_URL"]
                rates.append(pgbench.run(url, script, clients=load.CONNECTIONS, seconds=ROUND_S))
    return [
        compare("update", "PATCH /v1/me", ours, "pgbench, the transaction", transaction, at_least=0.6),
        compare("update", "PATCH /v1/me", ours, "pgbench, our two statements", statements),
    ]
