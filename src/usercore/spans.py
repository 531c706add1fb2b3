"""Trace context (W3C) and spans: names of the contract, attributes held to the list of log fields."""

import os
import re
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from opentelemetry import trace as otel
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from usercore.logs import Field, bound, check_fields
from usercore.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


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


def vendor_span(operation: str, vendor: str) -> AbstractContextManager[object]:
    """The span around one call of a vendor; `operation` is one of the constants of its plugin."""
    if _tracer is None:
        return _nothing
    return _recorded(f"vendor.{operation}", SpanKind.CLIENT, {"vendor": vendor})


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
