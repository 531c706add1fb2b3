"""The edge: who gets in, what comes back, and what is written about it."""

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from litestar import post
from litestar.params import JSONBody
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.edge.issuer import SUB, Issuer
from tests.edge.web import SECRET, USER, Site, call, issuer, served
from tests.servers import Redis
from tests.waiting import turns
from usercore import logs, telemetry, web
from usercore.ratelimit import RedisGuard
from usercore.web import Access, Readiness, operation

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON = {"content-type": "application/json"}
PERSON = issuer.token()
SERVICE = issuer.token(scope="internal", client_id="risk-engine")
ADMIN = issuer.token(scope="admin")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is logged, as it would be written."""
    written: list[dict[str, Any]] = []
    sink = getattr(logs, "_sink")  # noqa: B009
    monkeypatch.setattr(sink, "threshold", 20)

    def send(sent: Sequence[object]) -> None:
        written.extend(json.loads(line) for line in msgspec.json.Encoder().encode_lines(sent).splitlines())

    monkeypatch.setattr(sink, "send", send)
    return written


# Access


def tokens() -> dict[str, str | None]:
    return {
        "none": None,
        "person": PERSON,
        "person with other scopes": issuer.token(scope="pii:read profile"),
        "internal": SERVICE,
        "internal with pii:read": issuer.token(scope="internal pii:read"),
        "admin": ADMIN,
        "expired": issuer.token(exp=1),
        "other key": Issuer().token(scope="internal admin"),
        "nonsense": "nonsense",
    }


LETS_IN = {
    Access.USER: {"person", "person with other scopes"},
    Access.INTERNAL: {"internal", "internal with pii:read", "admin"},
    Access.ADMIN: {"admin"},
    Access.NONE: set(tokens()),
    Access.OPS: set(tokens()),
    None: set[str](),
}
FORBIDDEN_NOT_UNKNOWN = {"person", "person with other scopes", "internal", "internal with pii:read", "admin"}


async def test_every_route_lets_in_whom_it_declares_and_nobody_else(site: Site) -> None:
    checked = 0
    for route in web.routes(site.app.litestar):
        path = route.path.replace("{user_id}", str(USER)).replace("{vendor}", "x").replace("{how}", "x")
        for name, token in tokens().items():
            reply = await call(site.app, route.method, path, token=token, headers=JSON, body=b"{}", query="since=1")
            let_in = reply.status not in (401, 403)
            assert let_in is (name in LETS_IN[route.access]), (route, name, reply)
            if not let_in:
                expected = 403 if name in FORBIDDEN_NOT_UNKNOWN or route.access is None else 401
                assert reply.status == expected, (route, name)
                assert reply.headers["www-authenticate"].startswith("Bearer ")
            checked += 1
    assert checked == 12 * len(tokens())


async def test_a_route_that_declares_nothing_is_denied_and_reported(site: Site, lines: list[dict[str, Any]]) -> None:
    for token in (None, PERSON, ADMIN):
        assert (await call(site.app, "GET", "/undeclared", token=token)).code == "forbidden"
    assert [line["route"] for line in lines if line["event"] == "route_without_access"] == ["/undeclared"] * 3
    assert [route.path for route in web.routes(site.app.litestar) if route.access is None] == ["/undeclared"]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", PERSON, f"Token {PERSON}", f"Bearer{PERSON}"])
async def test_other_authorization_headers_are_no_token(site: Site, value: str) -> None:
    assert (await call(site.app, "GET", "/v1/me", headers={"authorization": value})).code == "unauthenticated"


async def test_the_scheme_may_be_written_as_one_likes(site: Site) -> None:
    reply = await call(site.app, "GET", "/v1/me", headers={"authorization": f"bEARER  {PERSON} "})
    assert UUID(reply.json()["caller"]) == SUB


async def test_a_further_scope_is_asked_for(site: Site) -> None:
    path, query = f"/internal/users/{USER}", "purpose=support"
    assert (await call(site.app, "GET", path, token=SERVICE, query=query)).code == "forbidden"
    token = issuer.token(scope="internal pii:read")
    assert (await call(site.app, "GET", path, token=token, query=query)).status == 200


async def test_litestar_alone_serves_nobody(site: Site) -> None:
    inner: Any = site.app.litestar
    with pytest.raises(RuntimeError, match="past the edge"):
        await call(inner, "GET", "/v1/me", token=PERSON)
    assert site.services.opened == 0


# Errors


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("GET", "/nowhere", "not_found", 404),
        ("GET", "/", "not_found", 404),
        ("GET", "/schema", "not_found", 404),
        ("GET", "/internal/users/nobody", "not_found", 404),
        ("DELETE", "/v1/me", "method_not_allowed", 405),
        ("OPTIONS", "/v1/me", "method_not_allowed", 405),
        ("BREW", "/v1/me", "method_not_allowed", 405),
        ("GET", "/fails/audit", "audit_unavailable", 503),
        ("GET", "/fails/badly", "internal_error", 500),
        ("GET", "/fails/render", "internal_error", 500),
    ],
)
async def test_every_error_is_a_problem(site: Site, method: str, path: str, code: str, status: int) -> None:
    reply = await call(site.app, method, path, token=ADMIN, query=f"q={SECRET}")
    assert (reply.status, reply.code) == (status, code)
    assert SECRET.encode() not in reply.body
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json()["trace_id"]
    if status == 405:
        assert reply.headers["allow"] == "GET, HEAD, PATCH"
    if status == 503:
        assert reply.headers["retry-after"] == "1"


async def test_a_failure_is_logged_without_its_message(site: Site, lines: list[dict[str, Any]]) -> None:
    reply = await call(site.app, "GET", "/fails/badly")
    failure = next(line for line in lines if line["event"] == "request_failed")
    assert failure["error"] == "ValueError"
    assert failure["frames"][-1].startswith("tests/edge/web.py:")
    assert failure["trace_id"] == reply.json()["trace_id"]
    assert SECRET not in json.dumps(lines)


async def test_an_answer_that_breaks_off_is_not_mended(site: Site, lines: list[dict[str, Any]]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            raise OSError(SECRET)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: Any = {"type": "http", "method": "GET", "path": "/health/live", "headers": [], "query_string": b""}
    await site.app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert any(line["event"] == "answer_not_completed" for line in lines)
    assert SECRET not in json.dumps(lines)


# Bodies

BAD_BODIES: list[tuple[bytes, int, str, str | None, str | None]] = [
    (b"", 400, "malformed_body", None, None),
    (b"{", 400, "malformed_body", None, None),
    (b"{} {}", 400, "malformed_body", None, None),
    (b'{"first_name":NaN}', 400, "malformed_body", None, None),
    (b'{"first_name":"\xff"}', 400, "malformed_body", None, None),
    (b'"\xff"', 400, "malformed_body", None, None),
    (b'{"first_name":1,"x":"\xff"}', 400, "malformed_body", None, None),
    (b"[" * 30_000, 400, "malformed_body", None, None),
    (b'{"a":' * 10_000, 400, "malformed_body", None, None),
    (b"null", 422, "validation_failed", "", "wrong_type"),
    (b"[]", 422, "validation_failed", "", "wrong_type"),
    (b'{"ABCPS1234K":1}', 422, "validation_failed", "", "unknown_field"),
    (b'{"address":{"ABCPS1234K":1,"city":"x"}}', 422, "validation_failed", "/address", "unknown_field"),
    (b'{"address":{}}', 422, "validation_failed", "/address/city", "missing_field"),
    (b'{"address":{"city":"x","lines":["a",7]}}', 422, "validation_failed", "/address/lines/1", "wrong_type"),
    (
        b'{"address":{"city":"x","lines":["ABCPS1234KABCPS1234KX"]}}',
        422,
        "validation_failed",
        "/address/lines/0",
        "out_of_range",
    ),
    (b'{"first_name":7}', 422, "validation_failed", "/first_name", "wrong_type"),
    (b'{"subscribed":"true"}', 422, "validation_failed", "/subscribed", "wrong_type"),
    (b'{"subscribed":1}', 422, "validation_failed", "/subscribed", "wrong_type"),
    (b'{"tier":"ABCPS1234K"}', 422, "validation_failed", "/tier", "not_allowed"),
    (b'{"age":7}', 422, "validation_failed", "/age", "out_of_range"),
    (b'{"born":"ABCPS1234K"}', 422, "validation_failed", "/born", "invalid_format"),
]


@pytest.mark.parametrize(("body", "status", "code", "pointer", "error"), BAD_BODIES, ids=lambda value: str(value)[:30])
async def test_a_bad_body_is_refused_and_not_echoed(
    site: Site, body: bytes, status: int, code: str, pointer: str | None, error: str | None
) -> None:
    reply = await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=JSON, body=body)
    assert (reply.status, reply.code) == (status, code)
    if pointer is not None:
        (found,) = reply.json()["errors"]
        assert (found["pointer"], found["code"]) == (pointer, error)
    assert SECRET.encode() not in reply.body


async def test_absent_null_and_given_are_told_apart(site: Site) -> None:
    for body, shown in ((b"{}", "UNSET"), (b'{"first_name":null}', "None"), (b'{"first_name":"A"}', "'A'")):
        reply = await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=JSON, body=body)
        assert reply.json()["first_name"] == shown


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["first_name", "subscribed", "tier", "age", "address", "city", "x"]), inner)
    ),
    max_leaves=8,
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=60), anything.map(msgspec.json.encode)))
async def test_any_body_gets_an_answer_that_the_contract_knows(site: Site, body: bytes) -> None:
    reply = await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=JSON, body=body)
    assert reply.status in (200, 400, 409, 422)
    if reply.status != 200:
        assert reply.code in ("malformed_body", "validation_failed", "identity_locked")


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"content-type": "application/json"}, True),
        ({"content-type": "application/merge-patch+json"}, True),
        ({"content-type": 'Application/JSON ; charset="UTF-8"'}, True),
        ({"content-type": "application/json; charset=latin-1"}, False),
        ({"content-type": "application/jsonp"}, False),
        ({"content-type": "text/plain"}, False),
        ({"content-type": "multipart/form-data; boundary=x"}, False),
        ({"content-type": ""}, False),
        ({}, False),
        ({"content-type": "application/json", "content-encoding": "gzip"}, False),
    ],
)
async def test_only_declared_media_types_are_read(site: Site, headers: dict[str, str], accepted: bool) -> None:
    reply = await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=headers, body=b"{}")
    assert reply.status == (200 if accepted else 415)


async def test_bodies_are_limited_as_declared_and_as_they_arrive(site: Site) -> None:
    announced = {**JSON, "content-length": "70000"}
    assert (await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=announced)).code == "body_too_large"
    # Before the token is looked at: it costs less.
    assert (await call(site.app, "PATCH", "/v1/me", headers=announced)).code == "body_too_large"
    parts = [b'{"first_name":"', *[b"x" * 1000] * 70, b'"}']
    assert (await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=JSON, body=parts)).code == "body_too_large"
    fits = [b'{"first_name":"', *[b"x" * 1000] * 60, b'"}']
    assert (await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=JSON, body=fits)).status == 200
    assert (await call(site.app, "POST", "/v1/hook/x", body=b"x" * 1000)).json()["first_name"] == "x 1000"
    assert (await call(site.app, "POST", "/v1/hook/x", body=b"x" * 1001)).code == "body_too_large"
    for length in ("-1", "1e3", "٣", "9" * 30, ""):
        reply = await call(
            site.app, "POST", "/v1/hook/x", headers=[("content-length", length.encode().decode("latin-1"))]
        )
        assert reply.status in (400, 413)


async def test_a_client_that_leaves_while_sending_is_no_error(site: Site, lines: list[dict[str, Any]]) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {PERSON}".encode())]
    scope: Any = {"type": "http", "method": "PATCH", "path": "/v1/me", "headers": headers, "query_string": b""}
    await site.app(scope, receive, send)
    await turns(1)
    assert [(line["event"], line["status"]) for line in lines] == [("http_request", 499)]


async def test_headers_that_may_come_once_may_not_come_twice(site: Site) -> None:
    for name in ("authorization", "content-type", "content-length", "idempotency-key", "if-match"):
        twice = [(name, "1"), (name, "2")]
        assert (await call(site.app, "PATCH", "/v1/me", token=PERSON, headers=twice)).code == "invalid_request"
    assert (
        await call(site.app, "GET", "/v1/me", token=PERSON, headers=[("accept", "a"), ("accept", "b")])
    ).status == 200


def test_a_body_type_that_lets_unknown_fields_pass_does_not_start(tmp_path: Path) -> None:
    class Inner(msgspec.Struct):
        a: int

    class Outer(msgspec.Struct, forbid_unknown_fields=True):
        inner: list[Inner | None]

    @post("/x", **operation(Access.NONE, "x", summary="x", tag="me"), signature_namespace={"Outer": Outer})
    async def lenient(data: JSONBody[Outer]) -> None: ...

    site = Site(tmp_path)
    with pytest.raises(TypeError, match="Inner"):
        web.build([lenient], settings=site.settings, authenticator=site.authenticator, ready=site.ready)


# Parameters


@pytest.mark.parametrize(
    ("path", "query", "errors"),
    [
        (f"/internal/users/{USER}", f"limit={SECRET}", [("/query/limit", "wrong_type")]),
        (f"/internal/users/{USER}", "limit=0", [("/query/limit", "out_of_range")]),
        (f"/internal/users/{USER}", "limit=1_0", [("/query/limit", "wrong_type")]),
        (
            f"/internal/users/{USER}",
            f"limit=201&purpose={SECRET}",
            [("/query/limit", "out_of_range"), ("/query/purpose", "not_allowed")],
        ),
        ("/internal/needs", "", [("/query/since", "missing_parameter")]),
    ],
)
async def test_bad_parameters_are_named(site: Site, path: str, query: str, errors: list[tuple[str, str]]) -> None:
    reply = await call(site.app, "GET", path, token=SERVICE, query=query)
    assert reply.code == "validation_failed"
    assert [(found["pointer"], found["code"]) for found in reply.json()["errors"]] == errors
    assert SECRET.encode() not in reply.body


async def test_unknown_parameters_are_ignored(site: Site) -> None:
    reply = await call(site.app, "GET", f"/internal/users/{USER}", token=SERVICE, query="limit=7&utm=x")
    assert reply.json()["first_name"] == "7 None"


# What every answer carries


async def test_ids_are_echoed_made_and_continued(site: Site, lines: list[dict[str, Any]]) -> None:
    fresh = await call(site.app, "GET", "/nowhere")
    assert fresh.headers["x-request-id"] != (await call(site.app, "GET", "/nowhere")).headers["x-request-id"]
    given = await call(site.app, "GET", "/nowhere", headers={"x-request-id": "a.B-1_", "traceparent": PARENT})
    assert given.headers["x-request-id"] == "a.B-1_"
    assert given.json()["trace_id"] == PARENT[3:35]
    assert (lines[-1]["request_id"], lines[-1]["trace_id"]) == ("a.B-1_", PARENT[3:35])
    for bad in ("", "a b", "x" * 65, "é", "a\n"):
        reply = await call(site.app, "GET", "/nowhere", headers={"x-request-id": bad, "traceparent": bad})
        assert reply.headers["x-request-id"] != bad
        assert len(reply.headers["x-request-id"]) == 32


async def test_answers_are_not_stored_or_sniffed(site: Site) -> None:
    for path in ("/v1/me", "/nowhere", "/health/live", "/fails/x"):
        headers = (await call(site.app, "GET", path, token=PERSON)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")


async def test_head_is_get_without_its_body(site: Site) -> None:
    got, head = [await call(site.app, method, "/v1/me", token=PERSON) for method in ("GET", "HEAD")]
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", got.headers["etag"])
    # The handler opened nothing for it, so the length is not known.
    assert "content-length" not in head.headers
    assert site.services.opened == 1
    got, head = [await call(site.app, method, "/health/live") for method in ("GET", "HEAD")]
    assert (head.body, head.headers["content-length"]) == (b"", got.headers["content-length"])
    assert (await call(site.app, "HEAD", "/nowhere")).body == b""
    assert (await call(site.app, "HEAD", "/v1/hook/x")).status == 405


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.66, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["", "junk"], "10.0.0.1"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
    ],
)
async def test_the_clients_address(site: Site, peer: str, forwarded: list[str], client: str) -> None:
    headers = [("x-forwarded-for", value) for value in forwarded]
    assert (await call(site.app, "GET", "/v1/me", token=PERSON, headers=headers, peer=peer)).json()["ip"] == client


async def test_limited_routes_say_how_much_is_left(tmp_path: Path, redis_server: Redis) -> None:
    guard = RedisGuard(redis_server.url)
    site = Site(tmp_path, redis=guard)
    token = issuer.token(sub="01890000-0000-7000-8000-00000000000a")
    first, locked, third, fourth = [
        await call(site.app, "PATCH", "/v1/me", token=token, headers=JSON, body=body)
        for body in (b"{}", b'{"first_name":"locked"}', b"{}", b"{}")
    ]
    assert first.headers["ratelimit-policy"] == '"profile_patch";q=3;w=60'
    assert first.headers["ratelimit"].startswith('"profile_patch";r=2;t=')
    # An attempt counts whatever becomes of it, and its answer says so.
    assert (locked.code, locked.headers["ratelimit"][:19]) == ("identity_locked", '"profile_patch";r=1')
    assert third.status == 200
    assert fourth.code == "rate_limited"
    assert 1 <= int(fourth.headers["retry-after"]) <= 60
    await guard.close()


# What is written about it


async def test_requests_are_counted_by_template_and_logged_without_values(
    site: Site, lines: list[dict[str, Any]]
) -> None:
    await call(site.app, "GET", f"/internal/users/{USER}", token=SERVICE, query=f"q={SECRET}")
    await call(site.app, "GET", "/v1/me", token=PERSON)
    await call(site.app, "GET", f"/{SECRET}")
    await call(site.app, SECRET, "/v1/me")
    await call(site.app, "GET", "/health/live")
    service, person, unmatched, odd = lines
    assert service["route"] == "/internal/users/{user_id}"
    assert (service["actor_id"], service["client_id"], service["status"]) == (str(SUB), "risk-engine", 200)
    assert person["user_id"] == str(SUB)
    assert (unmatched["route"], unmatched["code"]) == ("unmatched", "not_found")
    assert odd["method"] == "OTHER"
    for line in lines:
        assert line["event"] == "http_request"
        assert line["duration_ms"] >= 0
        assert set(line) - {"ts", "level", "event"} <= logs.FIELDS
    text = site.metrics.render()[0].decode()
    assert 'usercore_http_requests_total{method="GET",route="/internal/users/{user_id}",status="200"} 1.0' in text
    assert 'usercore_http_requests_total{method="GET",route="/health/live",status="200"} 1.0' in text
    assert SECRET not in text + json.dumps(lines)
    assert str(USER) not in text


async def test_each_request_is_a_span(site: Site) -> None:
    exporter = InMemorySpanExporter()
    stop = telemetry.configure_tracing(site.settings, exporter)
    try:
        reply = await call(site.app, "GET", "/fails/badly", headers={"traceparent": PARENT}, query=f"q={SECRET}")
    finally:
        stop()
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /fails/{how}"
    assert span.attributes == {"http.route": "/fails/{how}", "http.response.status_code": 500}
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert reply.json()["trace_id"] == PARENT[3:35]
    assert SECRET not in span.to_json()


# Operations


async def test_health(site: Site) -> None:
    assert (await call(site.app, "GET", "/health/live")).json() == {"status": "alive"}
    for status, expected in (("ready", 200), ("degraded", 200), ("unavailable", 503)):
        site.services.readiness = Readiness(status, {"postgres": status})  # pyright: ignore[reportArgumentType]
        reply = await call(site.app, "GET", "/health/ready")
        assert (reply.status, reply.json()["status"]) == (expected, status)


async def test_metrics_and_schema_are_apart_in_production(tmp_path: Path) -> None:
    dev = Site(tmp_path)
    production = Site(
        tmp_path,
        USERCORE_ENV="production",
        ARTIFACT_STORE_URL="s3://documents",
        CLICKHOUSE_URL="clickhouse://ch/audit",
        PII_ENCRYPTION_KEY_ID="gcp-kms://projects/p",
        PUBLIC_URL="https://usercore.test",
    )
    for path, media_type in (
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/schema/openapi.json", "application/json"),
    ):
        assert (await call(dev.app, "GET", path)).headers["content-type"] == media_type
        assert (await call(production.app, "GET", path)).code == "not_found"
        assert (await call(production.ops(), "GET", path)).headers["content-type"] == media_type
    reply = await call(production.ops(), "GET", "/v1/me", token=PERSON)
    assert reply.code == "not_found"
    assert "/v1/me" in (await call(production.ops(), "GET", "/schema/openapi.json")).json()["paths"]


async def test_handlers_serve_several_applications(tmp_path: Path) -> None:
    first, second = Site(tmp_path), Site(tmp_path)
    for site in (first, second):
        await call(site.app, "GET", "/v1/me", token=PERSON)
    assert (first.services.opened, second.services.opened) == (1, 1)


# Over a socket


@pytest.fixture
async def address(site: Site) -> AsyncGenerator[str, None]:
    async with served(site.app) as address:
        yield address


async def test_over_a_real_server(address: str) -> None:
    headers = {"authorization": f"Bearer {PERSON}"}
    async with aiohttp.ClientSession(headers=headers) as client:
        async with client.get(f"{address}/v1/me") as reply:
            assert (reply.status, (await reply.json())["first_name"]) == (200, "Asha")
            assert "server" not in reply.headers
        async with client.head(f"{address}/v1/me") as reply:
            assert (reply.status, await reply.read()) == (200, b"")
            assert reply.headers["etag"] == '"7"'
        async with client.get(f"{address}/v1/me", headers={"if-none-match": '"7"'}) as reply:
            assert (reply.status, await reply.read()) == (304, b"")
        async with client.get(f"{address}//v1/me/") as reply:
            assert reply.status == 200
        async with client.patch(f"{address}/v1/me", json={"first_name": "B"}) as reply:
            assert (await reply.json())["first_name"] == "'B'"
        async with client.patch(f"{address}/v1/me", data=b"x" * 100_000, headers=JSON) as reply:
            assert reply.status == 413
        async with client.get(f"{address}/v1/me?x=%F0%9F%92%A9&x[]=%00") as reply:
            assert reply.status == 200
        async with client.get(f"{address}/fails/badly") as reply:
            assert (reply.status, reply.content_type) == (500, "application/problem+json")


async def test_a_stream_that_grows_too_long_is_cut_off(address: str) -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        for _ in range(200):
            yield b"x" * 1000

    headers = {"authorization": f"Bearer {PERSON}", **JSON}
    async with (
        aiohttp.ClientSession() as client,
        client.patch(f"{address}/v1/me", data=endless(), headers=headers) as reply,
    ):
        assert reply.status == 413


async def test_websockets_are_closed(site: Site) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope: Any = {"type": "websocket", "path": "/v1/me", "headers": []}
    await site.app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
