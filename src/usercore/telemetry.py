"""Counters and gauges; logging and tracing are re-exported, so that the rest of the service needs one name."""

from collections.abc import Callable
from typing import Literal, cast

import prometheus_client as prometheus
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,  # pyright: ignore[reportUnknownVariableType]
)

from usercore.errors import OpenFailure
from usercore.logs import Field, Log, bound, configure_logging, described, logger
from usercore.spans import (
    Trace,
    configure_tracing,
    continue_trace,
    current,
    current_trace_id,
    current_traceparent,
    identify,
    new_span_id,
    new_trace,
    parse_traceparent,
    server_span,
    span,
    tracing,
    vendor_span,
)

__all__ = [
    "Field",
    "Log",
    "Metrics",
    "Trace",
    "bound",
    "configure_logging",
    "configure_tracing",
    "continue_trace",
    "current",
    "current_trace_id",
    "current_traceparent",
    "described",
    "identify",
    "logger",
    "metrics",
    "new_span_id",
    "new_trace",
    "parse_traceparent",
    "server_span",
    "span",
    "tracing",
    "vendor_span",
]

PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Around the targets: 50 ms for reads, 2 s for starting a case.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Every counter and gauge, on a registry of its own. Labels come from closed sets, never from ids."""

    def __init__(self) -> None:
        # Otherwise each counter has a second series, <name>_created.
        prometheus.disable_created_metrics()
        registry = self.registry = prometheus.CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> prometheus.Counter:
            # The library appends _total.
            return prometheus.Counter(name, help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> prometheus.Gauge:
            return prometheus.Gauge(name, help, labels, registry=registry)

        prometheus.ProcessCollector(namespace="usercore", registry=registry)
        self._user_created = counter("user_created", "Users created")
        self._kyc_initiated = counter("user_kyc_initiated", "KYC cases started", "vendor")
        self._kyc_completed = counter("user_kyc_completed", "KYC cases completed", "vendor", "status")
        self._profile_update = counter("user_profile_update", "Profiles changed")
        self._audit_sealed = counter("usercore_audit_sealed_rows", "Audit rows that were sealed")
        self._audit_shipped = counter("usercore_audit_shipped_rows", "Audit rows that were sent to the archive")
        self._frozen = counter("user_frozen", "Accounts that became frozen", "reason")
        self._requests = counter("usercore_http_requests", "HTTP requests", "route", "method", "status")
        self._request_seconds = prometheus.Histogram(
            "usercore_http_request_seconds", "Time to answer", ("route", "method"), registry=registry, buckets=SECONDS
        )
        self._rate_limited = counter("usercore_rate_limited", "Requests answered with 429", "route")
        self._audit_writes = counter("usercore_audit_writes", "Audit rows, by whether they became durable", "outcome")
        self._open_failures = counter("usercore_pii_open_failures", "Sealed values that did not open", "reason")
        self._outbox_depth = gauge("usercore_outbox_depth", "Events that wait to be published")
        self._outbox_oldest = gauge("usercore_outbox_oldest_seconds", "Age of the oldest of them")
        self._erasures = gauge("usercore_erasures_outstanding", "Erasures without a certificate yet")
        self._erasure_tries = gauge("usercore_erasure_tries", "Tries, one a minute, of the one that takes longest")
        self._relay_events = counter("usercore_relay_events", "Events handed to Kafka", "outcome")
        self._consumer_lag = gauge("usercore_consumer_lag", "Records not yet consumed", "topic", "partition")
        self._consumer_events = counter("usercore_consumer_events", "Records consumed", "topic", "outcome")
        self._dead_letters = counter("usercore_dead_letters", "Records put aside", "topic")
        self._webhooks_received = counter(
            "usercore_webhooks_received", "Authentic webhooks, by whether they were there before", "vendor", "outcome"
        )
        self._webhooks_applied = counter("usercore_webhooks_applied", "Webhooks that are done", "vendor", "outcome")
        self._webhook_seconds = prometheus.Histogram(
            "usercore_webhook_seconds", "From receipt to applied", ("vendor",), registry=registry, buckets=SECONDS
        )
        self._artifacts = counter("usercore_artifacts", "Tries to fetch a document, by what came of them", "outcome")
        self._db_pool = gauge("usercore_db_pool_connections", "Connections to Postgres", "state")
        self._audit_horizon = gauge("usercore_audit_partition_horizon_days", "Days for which audit partitions exist")
        self._keyring_epochs = gauge("usercore_keyring_epochs", "Keyring epochs", "state")
        self._redis_up = gauge("usercore_redis_up", "1 when Redis answers")
        self._vendor_requests = counter(
            "usercore_vendor_requests", "Requests to vendors, each repetition", "vendor", "operation", "outcome"
        )
        self._vendor_seconds = prometheus.Histogram(
            "usercore_vendor_request_seconds",
            "Time until a vendor answered, or did not",
            ("vendor", "operation"),
            registry=registry,
            buckets=SECONDS,
        )
        self._vendor_breaker_open = gauge("usercore_vendor_breaker_open", "1 while a vendor is left alone", "vendor")
        self._vendor_bugs = counter("usercore_vendor_bugs", "Errors of a plugin that no plugin may raise", "vendor")
        for unmeasured in (self._audit_horizon, self._redis_up, self._outbox_depth, self._outbox_oldest):
            # Zero would be a statement, and fire an alert.
            unmeasured.set(float("nan"))
        # Looking a child up by its labels costs more than counting it.
        self._request_children: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}
        self._refreshers: list[Callable[[], None]] = []

    def user_created(self, count: int = 1) -> None:
        self._user_created.inc(count)

    def kyc_initiated(self, vendor: str) -> None:
        self._kyc_initiated.labels(vendor).inc()

    def kyc_completed(self, vendor: str, status: str) -> None:
        self._kyc_completed.labels(vendor, status).inc()

    def profile_updated(self) -> None:
        self._profile_update.inc()

    def user_frozen(self, reason: str) -> None:
        self._frozen.labels(reason).inc()

    def audit_sealed(self, rows: int) -> None:
        self._audit_sealed.inc(rows)

    def audit_shipped(self, rows: int) -> None:
        self._audit_shipped.inc(rows)

    def http_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """`route` is a template, never a path."""
        children = self._request_children.get((route, method, status))
        if children is None:
            children = (
                self._requests.labels(route, method, str(status)).inc,
                self._request_seconds.labels(route, method).observe,
            )
            self._request_children[route, method, status] = children
        children[0]()
        children[1](seconds)

    def rate_limited(self, route: str) -> None:
        self._rate_limited.labels(route).inc()

    def audit_write(self, outcome: str, count: int = 1) -> None:
        self._audit_writes.labels(outcome).inc(count)

    def pii_open_failed(self, reason: OpenFailure) -> None:
        self._open_failures.labels(reason).inc()

    def outbox(self, depth: int, oldest_seconds: float) -> None:
        self._outbox_depth.set(depth)
        self._outbox_oldest.set(oldest_seconds)

    def erasures_outstanding(self, count: int, most_tries: int) -> None:
        self._erasures.set(count)
        self._erasure_tries.set(most_tries)

    def relay_events(self, outcome: str, count: int = 1) -> None:
        self._relay_events.labels(outcome).inc(count)

    def consumer_lag(self, topic: str, partition: int, lag: int) -> None:
        self._consumer_lag.labels(topic, str(partition)).set(lag)

    def consumer_events(self, topic: str, outcome: str, count: int = 1) -> None:
        self._consumer_events.labels(topic, outcome).inc(count)

    def dead_letters(self, topic: str, count: int = 1) -> None:
        self._dead_letters.labels(topic).inc(count)

    def webhook_received(self, vendor: str, outcome: str) -> None:
        self._webhooks_received.labels(vendor, outcome).inc()

    def webhook_applied(self, vendor: str, outcome: str, seconds: float) -> None:
        self._webhooks_applied.labels(vendor, outcome).inc()
        self._webhook_seconds.labels(vendor).observe(seconds)

    def artifact(self, outcome: str) -> None:
        """`stored`, `given_up`, `waiting` for what is not the document's fault, or why it is tried again."""
        self._artifacts.labels(outcome).inc()

    def db_pool(self, *, in_use: int, idle: int) -> None:
        self._db_pool.labels("in_use").set(in_use)
        self._db_pool.labels("idle").set(idle)

    def audit_partition_horizon(self, days: float) -> None:
        self._audit_horizon.set(days)

    def keyring_epochs(self, state: Literal["active", "retiring", "retired"], count: int) -> None:
        self._keyring_epochs.labels(state).set(count)

    def redis_up(self, up: bool) -> None:
        self._redis_up.set(up)

    def vendor_request(self, vendor: str, operation: str, outcome: str, seconds: float | None) -> None:
        """`operation` is a constant of the plugin; `seconds` is None for what was not sent."""
        self._vendor_requests.labels(vendor, operation, outcome).inc()
        if seconds is not None:
            self._vendor_seconds.labels(vendor, operation).observe(seconds)

    def vendor_breaker(self, vendor: str, *, open: bool) -> None:
        self._vendor_breaker_open.labels(vendor).set(open)

    def vendor_bug(self, vendor: str) -> None:
        self._vendor_bugs.labels(vendor).inc()

    def before_render(self, refresh: Callable[[], None]) -> None:
        """`refresh` is called before each rendering, to set gauges that only have a value when somebody looks."""
        self._refreshers.append(refresh)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics when the Accept header asks for it, Prometheus text otherwise."""
        for refresh in self._refreshers:
            refresh()
        if "application/openmetrics-text" in accept:
            return cast("bytes", generate_openmetrics(self.registry)), OPEN_METRICS
        return prometheus.generate_latest(self.registry), PLAIN_TEXT


metrics = Metrics()
