"""Who may call what: every route and method with every kind of token, held against a table written by hand."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import aiohttp
import pytest
from litestar import get, post
from litestar.types import ControllerRouterHandler
from msgspec.structs import replace
from yarl import URL

from tests.matrix import PERSON, TOKENS, Asked, Site, rows
from tests.service import Client, Signer, listening
from usercore import app
from usercore.accesslog import METHODS
from usercore.db import Conn
from usercore.errors import PROBLEM_MEDIA_TYPE
from usercore.operations import Access, operation, routes
from usercore.settings import Secret
from usercore.worker import Parts

OPERATIONS = {"/health/live", "/health/ready", "/metrics", "/schema/openapi.json"}


@asynccontextmanager
async def site(
    parts: Parts, signer: Signer, owner: Conn, handlers: Sequence[ControllerRouterHandler] | None = None
) -> AsyncGenerator[Site]:
    """The API with its own handlers, or with others in their place."""
    with pytest.MonkeyPatch.context() as patched:
        if handlers is not None:
            patched.setattr(app, "HANDLERS", tuple(handlers))
        async with app.api(parts) as (edge, _), listening(edge) as base, aiohttp.ClientSession() as http:
            yield Site(edge, Client(http, base, signer), owner)


ADDRESS = {"line1": "14 MG Road", "city": "Pune", "state": "Maharashtra", "pin_code": "411001"}


async def test_only_the_listed_cells_pass(parts: Parts, signer: Signer, owner: Conn) -> None:
    async with site(parts, signer, owner) as whole:
        for person in (whole.person, whole.other):
            assert (await person.patch({"address": ADDRESS})).status == 200
        asked, _ = whole.asked()
        assert {(one.method, one.path) for one in asked} >= {
            ("HEAD", "/v1/me"),
            ("PATCH", "/v1/me"),
            ("GET", "/metrics"),
        }
        assert await whole.violations() == []
        print(f"{len(asked)} routes and methods × {len(TOKENS)} tokens = {len(asked) * len(TOKENS)} cells")


def probe(method: str, path: str, access: Access | None) -> ControllerRouterHandler:
    """A handler of ours on one of the contract's paths, for access rules that no route may have yet."""
    make = {"GET": get, "POST": post}[method]

    async def answer() -> dict[str, str]:
        return {}

    if access is None:
        return make(path)(answer)
    return make(path, **operation(access, re.sub(r"\W", "", path), summary="A probe", tag="probe"))(answer)


INTERNAL_ROUTES = [
    probe("GET", "/internal/users/{user_id:uuid}", Access.INTERNAL),
    probe("POST", "/internal/users/{user_id:uuid}/freeze", Access.INTERNAL),
    probe("POST", "/internal/users/{user_id:uuid}/close", Access.ADMIN),
    probe("GET", "/admin/kyc/reviews", Access.ADMIN),
    probe("GET", "/v1/kyc/status", Access.USER),
    probe("POST", "/v1/kyc/webhook/{vendor:str}", Access.NONE),
]


async def test_rules_that_no_route_has_yet_hold_too(parts: Parts, signer: Signer, owner: Conn) -> None:
    async with site(parts, signer, owner, INTERNAL_ROUTES) as probes:
        assert await probes.violations() == []


SABOTAGED = [
    (
        probe("GET", "/v1/kyc/status", Access.NONE),
        [
            "GET /v1/kyc/status, no token: 200 where access is denied",
            "HEAD /v1/kyc/status, expired: 200 where access is denied",
        ],
    ),
    (
        probe("GET", "/v1/me/access-log", Access.OPS),
        [
            "GET /v1/me/access-log, alg none: 200 where access is denied",
            "HEAD /v1/me/access-log, admin: 200 where access is denied",
        ],
    ),
    (
        probe("GET", "/v1/me", Access.INTERNAL),
        ["GET /v1/me, internal: 200 where access is denied", "GET /v1/me, end user: 403 where access is granted"],
    ),
    (
        probe("POST", "/internal/users/{user_id:uuid}/close", Access.INTERNAL),
        ["POST /internal/users/{}/close, internal: 201 where access is denied"],
    ),
    (
        probe("POST", "/internal/users/{user_id:uuid}/erase", Access.USER),
        ["POST /internal/users/{}/erase, scopes that only look like it: 201 where access is denied"],
    ),
    (
        probe("GET", "/internal/users/{user_id:uuid}", Access.ADMIN),
        ["GET /internal/users/{}, internal: 403 where access is granted"],
    ),
    (probe("POST", "/v1/kyc/webhook", Access.USER), ["POST /v1/kyc/webhook: the answer depends on the token"]),
    (
        probe("GET", "/v1/me/export", None),
        ["GET /v1/me/export: declares no access", "GET /v1/me/export, end user: 403 where access is granted"],
    ),
    (probe("GET", "/v1/me/secrets", Access.USER), ["GET /v1/me/secrets: not in the contract's table"]),
    (probe("POST", "/metrics/reset", Access.OPS), ["POST /metrics/reset: not in the contract's table"]),
]


async def test_the_matrix_sees_a_wrong_or_missing_declaration(parts: Parts, signer: Signer, owner: Conn) -> None:
    async with site(parts, signer, owner, [handler for handler, _ in SABOTAGED]) as sabotaged:
        found = await sabotaged.violations()
    for _, expected in SABOTAGED:
        assert set(expected) <= set(found)
    assert [violation for violation in found if violation.startswith(("GET /health", "HEAD /health"))] == []


async def test_a_refused_request_that_writes_is_seen(parts: Parts, signer: Signer, owner: Conn) -> None:
    """The one thing that no wrong declaration shows: something written although the answer is a refusal."""

    @get("/v1/kyc/status", **operation(Access.NONE, "writes", summary="Writes", tag="probe"))
    async def writes() -> dict[str, str]:
        await owner.execute("insert into inbox (topic, event_id) values ('x', gen_random_uuid())")
        return {}

    async with site(parts, signer, owner, [writes]) as sabotaged:
        assert "GET /v1/kyc/status: a refused request changed the database" in await sabotaged.violations()


async def test_a_route_without_a_rule_is_nobodys(parts: Parts, signer: Signer, owner: Conn) -> None:
    async with site(parts, signer, owner, [probe("GET", "/v1/me/export", None)]) as undeclared:
        for name in TOKENS:
            for method in ("GET", "HEAD"):
                reply = await undeclared.call(Asked(method, "/v1/me/export", "/v1/me/export", None, None), name)
                assert reply.status == 403
                assert reply.headers["Content-Type"] == PROBLEM_MEDIA_TYPE


async def test_other_methods_are_405_for_everybody(client: Client, parts: Parts, signer: Signer, owner: Conn) -> None:
    async with site(parts, signer, owner) as whole:
        asked, _ = whole.asked()
        served: dict[str, set[str]] = {}
        for one in asked:
            served.setdefault(one.path, set()).add(one.method)
        before = await rows(owner)
        for path, methods in served.items():
            for method in sorted(METHODS - methods):
                for token in (None, whole.person.token, signer.token(uuid4(), scope="internal admin")):
                    reply = await client.send(method, path, token=token, body=b"{}")
                    assert reply.status == 405, f"{method} {path}"
                    assert reply.headers["Allow"] == ", ".join(sorted(methods))
                    assert reply.headers["Content-Type"] == PROBLEM_MEDIA_TYPE
        assert await rows(owner) == before


async def test_no_spelling_of_a_path_goes_round_the_rule(client: Client, owner: Conn) -> None:
    before = await rows(owner)
    for path in (
        "//v1/me",
        "/v1//me",
        "/v1/me/",
        "/./v1/me",
        "/x/../v1/me",
        "/V1/me",
        "/v1/%6de",
        "/v1/me%2f",
        "/v1/me;x",
    ):
        async with client.http.get(URL(client.base + path, encoded=True)) as reply:
            assert reply.status in (401, 404), path
    assert await rows(owner) == before


async def test_a_token_shows_and_changes_its_own_data_only(parts: Parts, signer: Signer, owner: Conn) -> None:
    profiles = {
        "asha": {"first_name": "Ashaonly", "pan_number": "AAAPA1111A", "phone": "+919111111111", "address": ADDRESS},
        "ravi": {"first_name": "Ravionly", "pan_number": "BBBPB2222B", "phone": "+919222222222", "address": ADDRESS},
    }
    async with site(parts, signer, owner) as whole:
        people = {"asha": whole.person, "ravi": whole.other}
        for name, person in people.items():
            assert (await person.patch(profiles[name])).status == 200
            consent = {"consent_type": "marketing", "version": f"{name}-only", "granted": True}
            assert (await person.send("POST", "/v1/me/consents", json=consent)).status == 201
        asked, _ = whole.asked()
        before = await own_rows(owner, people["asha"].id)
        for one in (one for one in asked if one.allowed is PERSON):
            reply = await whole.call(one, "another user")
            for secret in ("ashaonly", "aaapa1111a", "9111111111", "asha@", "asha-only", str(whole.person.id)):
                assert secret.encode() not in reply.body.lower(), f"{one.method} {one.path}"
        assert await own_rows(owner, people["asha"].id) == before
        for name, person in people.items():
            me = (await person.get()).json()
            assert (me["id"], me["profile"]["email"]) == (str(person.id), f"{name}@example.in")
            assert me["profile"]["pan_number"] == profiles[name]["pan_number"]
        # What Ravi's requests changed is Ravi's: the consent that he gave in the matrix took the place of his own.
        (kept,) = (await people["asha"].get("/v1/me/consents")).json()["items"]
        assert kept["version"] == "asha-only"


async def own_rows(owner: Conn, user_id: UUID) -> list[str]:
    """Everything that is kept about one person."""
    found: list[str] = []
    for table in ("user_profiles", "user_consents", "notification_prefs", "user_keys", "account_holds", "user_audit"):
        found += [
            row["text"]
            for row in await owner.fetch(
                f"select t::text as text from {table} t where user_id = $1 order by 1", user_id
            )
        ]
    found += [row["text"] for row in await owner.fetch("select t::text as text from users t where id = $1", user_id)]
    return found


async def test_in_production_operations_are_on_their_own_listener(parts: Parts, signer: Signer) -> None:
    settings = replace(parts.settings, usercore_env="production", clickhouse_url=Secret("clickhouse://db/usercore"))
    async with app.api(replace(parts, settings=settings)) as (api, ops), aiohttp.ClientSession() as http:
        assert {route.path for route in routes(ops.litestar)} == OPERATIONS
        assert {route.path for route in routes(api.litestar)} & OPERATIONS == {"/health/live", "/health/ready"}
        async with listening(api) as base:
            for path in ("/metrics", "/schema/openapi.json"):
                assert (await Client(http, base, signer).send("GET", path)).status == 404
        async with listening(ops) as base:
            for path in sorted(OPERATIONS):
                assert (await Client(http, base, signer).send("GET", path)).status == 200
            assert (await Client(http, base, signer).send("GET", "/v1/me")).status == 404
