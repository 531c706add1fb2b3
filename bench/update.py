"""PATCH /v1/me against pgbench running the same transaction on the same PostgreSQL, which flushes every commit."""

from bench import load, people, pgbench
from bench.load import Job
from bench.report import Result, compare
from bench.servers import Servers

USERS = 1000
ROUNDS = 5
ROUND_S = 3.0
WARM_UP_S = 0.5
# Each pass over the users changes what the pass before wrote.
NAMES = ("Asha", "Meera")


def run(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_update")
    port = environ["PORT"]
    tokens = servers.tokens(USERS)
    requests = [
        load.patch("/v1/me", token, f'{{"first_name":"{name}"}}'.encode())
        for name in reversed(NAMES)
        for token in tokens.values()
    ]
    ours: list[float] = []
    theirs: list[float] = []
    with servers.running("usercore", "serve", environ=environ, port=port), load.client() as client:
        people.create(client, port, tokens)
        script = pgbench.write_script(servers.folder / "update.sql", pgbench.record(environ, next(iter(tokens))))
        for _ in range(ROUNDS):
            ours.append(client.run(Job(int(port), requests, ROUND_S, WARM_UP_S)).rate)
            theirs.append(pgbench.run(environ["POSTGRES_URL"], script, clients=load.CONNECTIONS, seconds=ROUND_S))
    return [compare("update", "PATCH /v1/me", ours, "pgbench, same transaction", theirs, at_least=0.6)]
