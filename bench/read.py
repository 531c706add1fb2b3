"""GET /v1/me, audited: against a plain select without audit, and against a bare route."""

from statistics import median

from bench import load, people
from bench.load import Job, Outcome
from bench.report import Result, below, cheaper, compare
from bench.servers import Servers, cpu_s, ports

USERS = 500
CLIENTS = 128
"""Enough that the service always has something to do: with 64 it waits a tenth of the time for PostgreSQL to commit."""
ROUNDS = 10
ROUND_S = 1.0
"""Short, and in turns: a shared machine changes its speed by a third within seconds."""


def run(servers: Servers) -> list[Result]:
    return measure(servers, servers.environ("bench_read"))


def measure(servers: Servers, environ: dict[str, str]) -> list[Result]:
    on = ports(3)
    tokens = servers.tokens(USERS)
    requests = [load.get("/v1/me", token) for token in tokens.values()]
    outcomes: list[list[Outcome]] = [[], [], []]
    cpu: list[list[float]] = [[], [], []]
    with servers.running("bench.serving", *on, environ=environ, port=on[0]) as server, load.client() as client:
        people.create(client, on[0], tokens)
        for _ in range(ROUNDS):
            for port, found, times in zip(on, outcomes, cpu, strict=True):
                before = cpu_s(server)
                # No warm-up in the time of the process: it would count and its requests would not.
                outcome = client.run(Job(int(port), requests, ROUND_S, connections=CLIENTS))
                times.append((cpu_s(server) - before) / outcome.requests * 1e6)
                found.append(outcome)
    audited, plain, bare = ([outcome.rate for outcome in found] for found in outcomes)
    ours = outcomes[0]
    return [
        compare("read", "audited GET /v1/me", audited, "plain select, no audit", plain, at_least=0.9),
        compare("read", "audited GET /v1/me", audited, "bare Litestar route", bare, at_least=0.5),
        cheaper("read", "CPU of an audited read", cpu[0], "plain select, no audit", cpu[1]),
        cheaper("read", "CPU of an audited read", cpu[0], "bare Litestar route", cpu[2]),
        Result("read", f"p50 of {CLIENTS} clients", median(outcome.p50 for outcome in ours), "ms"),
        below("read", f"p95 of {CLIENTS} clients", median(outcome.p95 for outcome in ours), "ms", 50),
        Result("read", f"p99 of {CLIENTS} clients", median(outcome.p99 for outcome in ours), "ms"),
    ]
