"""KYC: initiates at a slow vendor, webhooks at a rate and in a burst, and everybody else while a vendor hangs.

The vendors are their sandboxes, as processes of their own. What comes with a status that it should not have ends it.
"""

import time
import urllib.request
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from uuid import UUID, uuid4

import msgspec
import psycopg
from msgspec import Struct

from bench import load, people
from bench.load import Client, Job
from bench.report import Result, at_least, below, compare
from bench.servers import Servers, ports
from usercore.plugins import sign

VENDORS = ("hyperverge", "signzy")
LATENCY_MS = 300
HANGS_MS = 60_000
"""Longer than any call waits. Unlike the control interface's `timeout` it holds for every case of the vendor."""
AT_ONCE = 50
INITIATE_ROUNDS = 4
INITIATE_MS = 2000
CASES = 500
"""Of each of the two parts with webhooks: so many that two messages about one case are never applied at once."""
RATE = 100
RATE_S = 60
APPROVED_AFTER_S = 30
"""Past the first look of the sweeper at each case, which is work that the same worker has in earnest too."""
BURST = 5000
BURST_WITHIN_S = 120.0
DRAINED_WITHIN_S = 240.0
"""Much longer than it takes, also on a machine that does other things."""
SLOW_USERS = 20
ROUNDS = 3
ROUND_S = 3.0
WARM_UP_S = 0.5
TIER_1_WITHIN_S = 30.0


class Stack(Struct, frozen=True):
    """The service with its vendors, and what the benchmark talks to it with."""

    servers: Servers
    port: int
    hyperverge: str
    """The port of its sandbox."""
    secret: str
    client: Client
    conn: psycopg.Connection

    def people(self, count: int) -> dict[UUID, str]:
        """New users with whole profiles. Each has a PAN of its own, or only the first approval would be one."""
        tokens = self.servers.tokens(count)
        people.create(self.client, str(self.port), tokens)
        row = self.conn.execute("select count(*) from users").fetchone()
        first = int(row[0]) - count if row else 0
        pans = [
            load.patch("/v1/me", token, f'{{"pan_number":"ABCPV{number:04}F"}}'.encode())
            for number, token in enumerate(tokens.values(), first)
        ]
        self.client.run(Job(self.port, pans, connections=8))
        return tokens

    def initiates(self, tokens: Iterable[str], connections: int, tier: str = "tier_1") -> Job:
        """One for each user, of whom so many ask at once."""
        body = msgspec.json.encode({"target_tier": tier})
        requests = [load.post("/v1/kyc/initiate", {"authorization": f"Bearer {token}"}, body) for token in tokens]
        return Job(self.port, requests, connections=connections, longest_s=BURST_WITHIN_S)

    def references(self, users: Iterable[UUID]) -> dict[UUID, str]:
        """HyperVerge's ids of their cases; those are left out whose case it has not opened."""
        rows = self.conn.execute(
            "select c.user_id, a.vendor_case_id from kyc_attempts a join kyc_cases c on c.id = a.case_id "
            "where a.vendor_case_id is not null and c.user_id = any(%s)",
            (list(users),),
        ).fetchall()
        return dict(rows)

    def complete(self, references: Iterable[str], **told: object) -> None:
        """Act as the people who finish their cases at HyperVerge."""
        for reference in references:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.hyperverge}/_control/complete",
                data=msgspec.json.encode({"reference": reference, **told}),
                headers={"content-type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=10).close()

    def finished(self, references: Sequence[str], count: int) -> list[str]:
        """HyperVerge's thin messages that cases are finished, round and round, each of them new."""
        at = int(time.time())
        requests: list[str] = []
        for number in range(count):
            event_id = str(uuid4())
            body = msgspec.json.encode(
                {
                    "eventId": event_id,
                    "eventVersion": "1.0.0",
                    "eventType": "FINISH_TRANSACTION_WEBHOOK",
                    "transactionId": references[number % len(references)],
                    "applicationStatus": "auto_approved",
                    "eventTime": "2026-01-15T09:30:00.000Z",
                }
            )
            requests.append(load.post("/v1/kyc/webhook/hyperverge", sign(self.secret, event_id, at, body), body))
        return requests

    def wait(self, query: str, within_s: float) -> None:
        """Until the number that a query counts is 0."""
        deadline = time.monotonic() + within_s
        while (row := self.conn.execute(query.encode()).fetchone()) is None or row[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{row and row[0]} left after {within_s:g} s: {query}")
            time.sleep(0.1)


def run(servers: Servers) -> list[Result]:
    with _stack(servers, "bench_kyc_initiates", {"hyperverge": LATENCY_MS, "signzy": HANGS_MS}) as stack:
        results = _vendors(stack)
    with _stack(servers, "bench_kyc_webhooks", {"hyperverge": 0, "signzy": 0}) as stack:
        return [*results, *_rate(stack), *_burst(stack)]


def _vendors(stack: Stack) -> list[Result]:
    users = stack.people(AT_ONCE * INITIATE_ROUNDS)
    tokens = list(users.values())
    slowest, opened = 0.0, 0
    for start in range(0, len(tokens), AT_ONCE):
        job = stack.initiates(tokens[start : start + AT_ONCE], AT_ONCE)
        outcome = stack.client.run(job, expected=(201, 202))
        slowest, opened = max(slowest, outcome.p95), opened + outcome.statuses.get(201, 0)
    # Whoever asks for tier_2 is in tier_1.
    references = stack.references(users)
    risen = list(references)[: SLOW_USERS * (ROUNDS + 1)]
    stack.complete([references[user_id] for user_id in risen], outcome="approve")
    stack.wait(f"select {len(risen)} - count(*) from users where kyc_tier = 'tier_1'", TIER_1_WITHIN_S)
    fresh = stack.people(AT_ONCE)
    reads = Job(stack.port, [load.get("/v1/me", token) for token in tokens], ROUND_S, WARM_UP_S)
    alone: list[float] = []
    beside: list[float] = []
    with load.client() as second, ThreadPoolExecutor(1) as thread:

        def slow(number: int) -> Job:
            some = risen[number * SLOW_USERS : (number + 1) * SLOW_USERS]
            return stack.initiates([users[user_id] for user_id in some], SLOW_USERS, "tier_2")

        # First, as later the breaker may be open, and then nobody waits for the vendor any more.
        hanging = thread.submit(second.run, slow(ROUNDS), expected=(202, 503))
        meanwhile = stack.client.run(stack.initiates(fresh.values(), SLOW_USERS), expected=(201,)).p95
        hanging.result()
        for number in range(ROUNDS):
            alone.append(stack.client.run(reads).rate)
            hanging = thread.submit(second.run, slow(number), expected=(202, 503))
            beside.append(stack.client.run(reads).rate)
            hanging.result()
    return [
        below("kyc", f"initiate, vendor takes {LATENCY_MS} ms, {AT_ONCE} at once, p95", slowest, "ms", INITIATE_MS),
        at_least("kyc", "the same, answered 201", opened / len(tokens) * 100, "%", 100),
        compare("kyc", "GET /v1/me while a vendor hangs", beside, "without", alone, at_least=0.8),
        below("kyc", "initiate while another vendor hangs, p95", meanwhile, "ms", INITIATE_MS),
    ]


def _rate(stack: Stack) -> list[Result]:
    references = _cases(stack)
    # Two changes of each case: the first messages find a review, later ones an approval.
    stack.complete(references, outcome="review", webhook="drop")
    stack.complete(references, outcome="approve", webhook="drop", delay_ms=APPROVED_AFTER_S * 1000)
    requests = stack.finished(references, RATE * RATE_S)
    received = stack.client.run(Job(stack.port, requests, rate=RATE, longest_s=RATE_S * 2))
    stack.wait("select count(*) from webhook_inbox where state = 'waiting'", DRAINED_WITHIN_S)
    row = stack.conn.execute(
        "select percentile_cont(0.95) within group (order by extract(epoch from applied_at - received_at)::float8) "
        "from webhook_inbox where state = 'applied'"
    ).fetchone()
    assert row is not None
    _check(stack, CASES, len(requests))
    return [
        below("kyc", f"webhooks at {RATE}/s, receipt, p99", received.p99, "ms", 100),
        below("kyc", f"webhooks at {RATE}/s, receipt to applied, p95", row[0] * 1000, "ms", 500),
    ]


def _burst(stack: Stack) -> list[Result]:
    references = _cases(stack)
    stack.complete(references, outcome="approve", webhook="drop")
    row = stack.conn.execute("select count(*), max(received_at) from webhook_inbox").fetchone()
    assert row is not None
    before, since = row
    requests = stack.finished(references, BURST)
    received = stack.client.run(Job(stack.port, requests, longest_s=BURST_WITHIN_S))
    stack.wait("select count(*) from webhook_inbox where state = 'waiting'", DRAINED_WITHIN_S)
    row = stack.conn.execute(
        "select extract(epoch from max(applied_at) - min(received_at))::float8 from webhook_inbox "
        "where received_at > %s",
        (since,),
    ).fetchone()
    assert row is not None
    _check(stack, 2 * CASES, before + BURST)
    return [
        Result("kyc", f"burst of {BURST:,} webhooks, receipt", received.rate, "/s"),
        Result("kyc", f"burst of {BURST:,} webhooks, receipt to applied", BURST / row[0], "/s"),
        below("kyc", f"burst of {BURST:,} webhooks, drained after", row[0], "s", DRAINED_WITHIN_S),
    ]


def _cases(stack: Stack) -> list[str]:
    users = stack.people(CASES)
    stack.client.run(stack.initiates(users.values(), 8), expected=(201,))
    return list(stack.references(users).values())


def _check(stack: Stack, approved: int, applied: int) -> None:
    """The messages have done what they were for."""
    stack.wait(f"select {approved} - count(*) from kyc_cases where status = 'approved'", 0)
    stack.wait(f"select {applied} - count(*) from webhook_inbox where state = 'applied'", 0)


@contextmanager
def _stack(servers: Servers, database: str, latencies_ms: Mapping[str, int]) -> Generator[Stack]:
    """The API, a worker, and the vendors' sandboxes, each a process."""
    environ = servers.environ(database)
    worker_port, *sandbox_ports = ports(1 + len(VENDORS))
    secrets = {vendor: f"secret of {vendor} for the benchmark" for vendor in VENDORS}
    with ExitStack() as stack:
        for vendor, port in zip(VENDORS, sandbox_ports, strict=True):
            name = vendor.upper()
            environ[f"{name}_BASE_URL"] = f"http://127.0.0.1:{port}"
            environ[f"{name}_API_KEY"] = environ[f"{name}_APP_ID"] = environ[f"{name}_WORKFLOW_ID"] = "bench"
            environ[f"{name}_WEBHOOK_SECRETS"] = secrets[vendor]
            sandbox = servers.running(
                f"kyc_{vendor}.sandbox",
                *("--port", port, "--latency-ms", str(latencies_ms[vendor]), "--webhook-secret", secrets[vendor]),
                *("--webhook-url", f"http://127.0.0.1:{environ['PORT']}/v1/kyc/webhook/{vendor}"),
                environ=environ,
                port=port,
            )
            stack.enter_context(sandbox)
        working = {**environ, "OPS_PORT": worker_port}
        stack.enter_context(servers.running("usercore", "serve", environ=environ, port=environ["PORT"]))
        stack.enter_context(servers.running("usercore", "work", "webhooks", "kyc", environ=working, port=worker_port))
        client = stack.enter_context(load.client())
        conn = stack.enter_context(psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True))
        yield Stack(servers, int(environ["PORT"]), sandbox_ports[0], secrets["hyperverge"], client, conn)
