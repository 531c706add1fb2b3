"""Log lines, metrics and spans: their names, and that no value gets into them."""

import json
import logging
import re
from collections.abc import Generator
from typing import cast
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.edge.web import settings
from usercore import logs, telemetry
from usercore.telemetry import Metrics

SECRET = "ABCPS1234K"
log = telemetry.logger("usercore.users.actions")


@pytest.fixture(autouse=True)
def configured() -> Generator[None, None, None]:
    sink, root = getattr(logs, "_sink"), logging.getLogger()  # noqa: B009
    before = sink.threshold, sink.configured, root.handlers[:], root.level
    telemetry.configure_logging("info")
    yield
    sink.threshold, sink.configured, root.handlers[:], level = before
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def fail() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        raise RuntimeError(f"again {SECRET}") from error


def traced_failure(parents: list[str | None]) -> None:
    with telemetry.span("user.update_profile", user_id=UUID(int=1)):
        parents.append(telemetry.current_traceparent())
        fail()


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with telemetry.bound(request_id="r", trace_id="t"):
        log.info("profile_changed", user_id=UUID(int=1), count=2, reason=None)
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("ts")), re.ASCII)
    assert line == {
        "level": "info",
        "event": "profile_changed",
        "request_id": "r",
        "trace_id": "t",
        "logger": "users.actions",
        "user_id": "00000000-0000-0000-0000-000000000001",
        "count": 2,
        "reason": None,
    }


def test_lines_below_the_level_are_not_shown_but_checked(capsys: pytest.CaptureFixture[str]) -> None:
    log.debug("details", count=1)
    assert not lines(capsys)
    with pytest.raises(TypeError):
        log.debug("details", email="x")


def test_what_is_no_field_or_event_is_refused() -> None:
    for name in ("email", "pan_number", "body", "message", "path", "url"):
        with pytest.raises(TypeError, match="not a log field"):
            log.info("something", **{name: "x"})
    for event in (f"read {SECRET}", SECRET, "a", "Ünicode", "x" * 80, "line\nbreak"):
        with pytest.raises(TypeError):
            log.info(event)
    with pytest.raises(TypeError):
        log.info("something", count={"a": 1})  # pyright: ignore[reportArgumentType]


def test_exceptions_show_classes_and_frames_only(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        fail()
    except RuntimeError as error:
        log.error("it_failed", error, code="x")
        log.warning("it_failed", exc=error)
    first, second = lines(capsys)
    assert (first["error"], first["causes"], first["level"]) == ("RuntimeError", ["ValueError"], "error")
    assert all(
        re.fullmatch(r"tests/edge/test_telemetry.py:\d+:\w+", str(frame))
        for frame in cast("list[str]", first["frames"])
    )
    assert second["level"] == "warning"
    assert SECRET not in json.dumps([first, second])


def test_libraries_are_located_and_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("aiokafka.consumer")
    library.error("bad record %s", SECRET)
    library.warning(SECRET)
    library.info("chatter")
    try:
        fail()
    except RuntimeError:
        library.exception(SECRET)
    found = lines(capsys)
    assert [line["level"] for line in found] == ["error", "warning", "error"]
    assert {line["event"] for line in found} == {"library_log"}
    assert found[2]["error"] == "RuntimeError"
    assert str(found[0]["at"]).startswith("tests/edge/test_telemetry.py:")
    assert SECRET not in json.dumps(found)


def test_before_configuration_stdout_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    sink = getattr(logs, "_sink")  # noqa: B009
    sink.configured, sink.threshold = False, 30
    log.info("quiet")
    log.warning("loud")
    out, err = capsys.readouterr()
    assert not out
    assert "loud" in err
    assert "quiet" not in err


# Metrics


def test_the_counters_of_the_contract_have_their_names() -> None:
    metrics = Metrics()
    metrics.user_created(2)
    metrics.kyc_initiated("hyperverge")
    metrics.kyc_completed("signzy", "approved")
    metrics.profile_updated()
    metrics.user_frozen("risk_review")
    text = metrics.render()[0].decode()
    for line in (
        "user_created_total 2.0",
        'user_kyc_initiated_total{vendor="hyperverge"} 1.0',
        'user_kyc_completed_total{status="approved",vendor="signzy"} 1.0',
        "user_profile_update_total 1.0",
        'user_frozen_total{reason="risk_review"} 1.0',
    ):
        assert line in text.splitlines()
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert all(name.startswith(("usercore_", "user_")) for name in names)
    assert "_created " not in text.replace("user_created", "")


def test_the_others_are_counted() -> None:
    metrics = Metrics()
    metrics.http_request("/v1/me", "GET", 200, 0.004)
    metrics.http_request("/v1/me", "GET", 200, 0.03)
    metrics.rate_limited("/v1/me")
    metrics.audit_write("success", 5)
    metrics.pii_open_failed("wrong_key")
    metrics.outbox(3, 1.5)
    metrics.relay_events("published", 4)
    metrics.consumer_lag("auth.created.v1", 0, 9)
    metrics.consumer_events("auth.created.v1", "applied", 7)
    metrics.dead_letters("auth.created.v1")
    metrics.db_pool(in_use=1, idle=2)
    metrics.erasures_outstanding(2, 61)
    metrics.audit_partition_horizon(60)
    metrics.keyring_epochs("active", 4)
    metrics.redis_up(True)
    metrics.vendor_request("acme", "start", "answered", 0.3)
    metrics.vendor_request("acme", "start", "breaker_open", None)
    metrics.vendor_breaker("acme", open=True)
    metrics.vendor_bug("acme")
    text = metrics.render()[0].decode().splitlines()
    for line in (
        'usercore_http_requests_total{method="GET",route="/v1/me",status="200"} 2.0',
        'usercore_http_request_seconds_bucket{le="0.005",method="GET",route="/v1/me"} 1.0',
        'usercore_http_request_seconds_count{method="GET",route="/v1/me"} 2.0',
        'usercore_rate_limited_total{route="/v1/me"} 1.0',
        'usercore_audit_writes_total{outcome="success"} 5.0',
        'usercore_pii_open_failures_total{reason="wrong_key"} 1.0',
        "usercore_outbox_depth 3.0",
        "usercore_outbox_oldest_seconds 1.5",
        "usercore_erasures_outstanding 2.0",
        "usercore_erasure_tries 61.0",
        'usercore_relay_events_total{outcome="published"} 4.0',
        'usercore_consumer_lag{partition="0",topic="auth.created.v1"} 9.0',
        'usercore_consumer_events_total{outcome="applied",topic="auth.created.v1"} 7.0',
        'usercore_dead_letters_total{topic="auth.created.v1"} 1.0',
        'usercore_db_pool_connections{state="in_use"} 1.0',
        "usercore_audit_partition_horizon_days 60.0",
        'usercore_keyring_epochs{state="active"} 4.0',
        "usercore_redis_up 1.0",
        'usercore_vendor_requests_total{operation="start",outcome="answered",vendor="acme"} 1.0',
        'usercore_vendor_requests_total{operation="start",outcome="breaker_open",vendor="acme"} 1.0',
        'usercore_vendor_request_seconds_count{operation="start",vendor="acme"} 1.0',
        'usercore_vendor_breaker_open{vendor="acme"} 1.0',
        'usercore_vendor_bugs_total{vendor="acme"} 1.0',
    ):
        assert line in text


def test_rendering_asks_for_fresh_gauges_and_speaks_open_metrics() -> None:
    metrics = Metrics()
    metrics.before_render(lambda: metrics.db_pool(in_use=3, idle=0))
    text, media_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert text.endswith(b"# EOF\n")
    assert media_type.startswith("application/openmetrics-text")
    assert b'usercore_db_pool_connections{state="in_use"} 3.0' in text


# Trace context and spans

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (PARENT, True),
        (PARENT[:-2] + "00", True),
        ("01" + PARENT[2:] + "-more", True),
        (PARENT + "-more", False),
        ("ff" + PARENT[2:], False),
        (PARENT.upper(), False),
        (PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), False),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), False),
        (PARENT + "\n", False),
        ("", False),
        (None, False),
    ],
)
def test_traceparent(value: str | None, valid: bool) -> None:
    found = telemetry.parse_traceparent(value)
    assert (found is not None) is valid
    if value is not None and found is not None:
        assert found.traceparent()[3:] == value[3:55]


def test_a_consumed_record_continues_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert telemetry.current_traceparent() is None
    with telemetry.continue_trace(PARENT):
        assert telemetry.current_traceparent() == PARENT
        log.info("consumed")
    with telemetry.continue_trace(None) as fresh:
        assert telemetry.current_trace_id() == fresh.trace_id
    assert lines(capsys)[0]["trace_id"] == PARENT[3:35]


def test_spans_carry_names_and_classes(tmp_path_factory: pytest.TempPathFactory) -> None:
    exporter = InMemorySpanExporter()
    with telemetry.span("user.create"):
        pass
    stop = telemetry.configure_tracing(settings(tmp_path_factory.mktemp("keys")), exporter)
    try:
        parents: list[str | None] = []
        with pytest.raises(RuntimeError):
            traced_failure(parents)
        with pytest.raises(TypeError):
            telemetry.span("user.freeze", email="x")
    finally:
        stop()
    (span,) = exporter.get_finished_spans()
    assert span.name == "user.update_profile"
    assert span.attributes == {"user_id": str(UUID(int=1)), "error.type": "RuntimeError"}
    assert not span.events
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in str(parents[0])
    assert SECRET not in span.to_json()
    assert telemetry.current_traceparent() is None
