"""Metrics, spans and trace context; `logger` and `configure_logging` are re-exported from `logs`."""

import os
import re
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Literal, cast

import prometheus_client as prometheus
from msgspec import Struct
from opentelemetry import trace as otel
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics  # pyright: ignore[reportUnknownVariableType]

from usercore.errors import OpenFailure
from usercore.logs import Field, Log, bound, check_fields, configure_logging, described, logger
from usercore.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = [
    "Field",
    "Log",
    "Metrics",
    "Trace",
    "bound",
    "configure_logging",
    "configure_tracing",
    "continue_trace",
    "current_trace_id",
    "current_traceparent",
    "described",
    "logger",
    "metrics",
    "parse_traceparent",
    "server_span",
    "span",
]

# Metrics --------------------------------------------------------------------------------------------------------------

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
        self._relay_events = counter("usercore_relay_events", "Events handed to Kafka", "outcome")
        self._consumer_lag = gauge("usercore_consumer_lag", "Records not yet consumed", "topic", "partition")
        self._consumer_events = counter("usercore_consumer_events", "Records consumed", "topic", "outcome")
        self._dead_letters = counter("usercore_dead_letters", "Records put aside", "topic")
        self._db_pool = gauge("usercore_db_pool_connections", "Connections to Postgres", "state")
        self._audit_horizon = gauge("usercore_audit_partition_horizon_days", "Days for which audit partitions exist")
        self._keyring_epochs = gauge("usercore_keyring_epochs", "Keyring epochs", "state")
        self._redis_up = gauge("usercore_redis_up", "1 when Redis answers")
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

    def relay_events(self, outcome: str, count: int = 1) -> None:
        self._relay_events.labels(outcome).inc(count)

    def consumer_lag(self, topic: str, partition: int, lag: int) -> None:
        self._consumer_lag.labels(topic, str(partition)).set(lag)

    def consumer_events(self, topic: str, outcome: str, count: int = 1) -> None:
        self._consumer_events.labels(topic, outcome).inc(count)

    def dead_letters(self, topic: str, count: int = 1) -> None:
        self._dead_letters.labels(topic).inc(count)

    def db_pool(self, *, in_use: int, idle: int) -> None:
        self._db_pool.labels("in_use").set(in_use)
        self._db_pool.labels("idle").set(idle)

    def audit_partition_horizon(self, days: float) -> None:
        self._audit_horizon.set(days)

    def keyring_epochs(self, state: Literal["active", "retiring", "retired"], count: int) -> None:
        self._keyring_epochs.labels(state).set(count)

    def redis_up(self, up: bool) -> None:
        self._redis_up.set(up)

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

# Trace context (W3C) --------------------------------------------------------------------------------------------------


class Trace(Struct, frozen=True):
    """Where we are in a trace: 32 and 16 lower-case hex digits, and the flags byte (1 = sampled)."""

    trace_id: str
    span_id: str
    flags: int = 1

    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# Ids are no secrets: a generator seeded from the system is three times as fast as asking it each time.
_random = Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)
current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def parse_traceparent(value: str | None) -> Trace | None:
    """None when absent or not valid. Longer values are accepted for versions after 00 only."""
    found = _TRACEPARENT.fullmatch(value) if value else None
    if found is None or (found[4] and found[0].startswith("00-")):
        return None
    return Trace(found[1], found[2], int(found[3], 16) & 1)


def new_span_id() -> str:
    return f"{_random.getrandbits(64) or 1:016x}"


def new_trace() -> Trace:
    return Trace(f"{_random.getrandbits(128) or 1:032x}", new_span_id())


@contextmanager
def continue_trace(traceparent: str | None) -> Generator[Trace, None, None]:
    """Work inside belongs to the trace named by `traceparent` (a consumed record's header), or to a new one."""
    trace = parse_traceparent(traceparent) or new_trace()
    token = current.set(trace)
    try:
        with bound(trace_id=trace.trace_id):
            yield trace
    finally:
        current.reset(token)


def current_traceparent() -> str | None:
    """What to send along, so that the receiver's spans hang below ours."""
    if _tracer is not None and (context := otel.get_current_span().get_span_context()).is_valid:
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    trace = current.get()
    return trace.traceparent() if trace is not None else None


def current_trace_id() -> str | None:
    trace = current.get()
    return trace.trace_id if trace is not None else None


# Spans ----------------------------------------------------------------------------------------------------------------

SpanName = Literal[
    "user.create",
    "user.update_profile",
    "user.initiate_kyc",
    "user.process_kyc_webhook",
    "user.freeze",
    "user.unfreeze",
]
_tracer: otel.Tracer | None = None
_nothing: AbstractContextManager[None] = nullcontext()


def configure_tracing(settings: Settings, exporter: "SpanExporter | None" = None) -> Callable[[], None]:
    """Export spans when OTEL_EXPORTER_OTLP_ENDPOINT is set (or to `exporter`, at once). Returns what stops it."""
    global _tracer
    if exporter is None and settings.otel_exporter_otlp_endpoint is None:
        return lambda: None
    # 0.2 s and 20 MiB that only those who export spans need to spend.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    if exporter is not None:
        processor = SimpleSpanProcessor(exporter)
    else:
        endpoint = (settings.otel_exporter_otlp_endpoint or "").rstrip("/") + "/v1/traces"
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
    provider = TracerProvider(resource=Resource.create({"service.name": "usercore"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = _tracer = provider.get_tracer("usercore")

    def stop() -> None:
        global _tracer
        if _tracer is tracer:
            _tracer = None
        provider.shutdown()

    return stop


def tracing() -> bool:
    return _tracer is not None


def span(name: SpanName, **attributes: Field) -> AbstractContextManager[object]:
    """A span of the contract. Attributes are log fields, held to the same list; costs next to nothing when off."""
    if _tracer is None:
        return _nothing
    check_fields(attributes)
    return _recorded(name, SpanKind.INTERNAL, attributes)


@contextmanager
def server_span(method: str, parent: Trace | None) -> Generator[otel.Span, None, None]:
    """The span around one HTTP request, to be renamed to `<method> <route>` when the route is known."""
    context = None
    if parent is not None:
        remote = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, TraceFlags(parent.flags))
        context = otel.set_span_in_context(otel.NonRecordingSpan(remote))
    assert _tracer is not None
    with _tracer.start_as_current_span(
        method, context, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    ) as opened:
        yield opened


@contextmanager
def _recorded(name: str, kind: SpanKind, attributes: dict[str, Field]) -> Generator[otel.Span, None, None]:
    assert _tracer is not None
    plain = {key: str(value) for key, value in attributes.items() if value is not None}
    # The SDK would record the exception's message, which may hold values: the class is all that is kept.
    with _tracer.start_as_current_span(
        name, None, kind, plain, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            opened.set_status(Status(StatusCode.ERROR))
            raise


def identify(opened: otel.Span) -> Trace:
    """The trace context of a span of ours."""
    context = opened.get_span_context()
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags & 1)
