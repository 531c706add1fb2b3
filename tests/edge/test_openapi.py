"""The OpenAPI document: complete, true, and without what is not ours."""

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.edge.web import EXAMPLE, Site, call
from usercore import web


@pytest.fixture
async def document(tmp_path: Path) -> dict[str, Any]:
    return (await call(Site(tmp_path).app, "GET", "/schema/openapi.json")).json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, found) for path, item in document["paths"].items() for method, found in item.items()]


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["bearer"] == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
    }
    ids = [found["operationId"] for _, _, found in operations(document)]
    assert len(ids) == len(set(ids))


def test_it_has_the_routes_that_people_use(document: dict[str, Any], tmp_path: Path) -> None:
    served = {(route.method.lower(), route.path) for route in web.routes(Site(tmp_path).app.litestar)}
    ours = {(method, path) for method, path, _ in operations(document)}
    assert served - ours == {("get", "/metrics"), ("get", "/schema/openapi.json")}
    assert ours <= served


def test_every_error_is_there_as_a_problem(document: dict[str, Any]) -> None:
    for _, path, found in operations(document):
        for status, response in found["responses"].items():
            assert response["description"]
            assert "X-Request-ID" in response["headers"]
            if int(status) >= 400 and path != "/health/ready":
                (media_type,) = response["content"]
                assert media_type == "application/problem+json", (path, status)
                for code, example in response["content"][media_type]["examples"].items():
                    assert example["value"]["code"] == code
                    assert example["value"]["status"] == int(status)
        assert "500" in found["responses"] or path == "/undeclared"
    me = document["paths"]["/v1/me"]
    assert set(me["get"]["responses"]) == {"200", "400", "401", "403", "410", "429", "500", "503"}
    assert set(me["patch"]["responses"]) == {
        *("200", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503")
    }
    assert set(me["patch"]["responses"]["400"]["content"]["application/problem+json"]["examples"]) == {
        "invalid_request",
        "malformed_body",
    }
    assert me["get"]["security"] == [{"bearer": []}]
    assert not document["paths"]["/health/live"]["get"].get("security")
    assert "Retry-After" in me["get"]["responses"]["429"]["headers"]
    assert "RateLimit" in me["get"]["responses"]["200"]["headers"]


def test_examples_are_true(document: dict[str, Any]) -> None:
    checked = 0
    for _, _, found in operations(document):
        bodies = [found["requestBody"]] if "requestBody" in found else []
        for holder in [*found["responses"].values(), *bodies]:
            for media in holder.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    schema = {**media["schema"], "components": document["components"]}
                    jsonschema.validate(example["value"], schema, cls=jsonschema.Draft202012Validator)
                    checked += 1
    assert checked > 40
    get_me = document["paths"]["/v1/me"]["get"]["responses"]["200"]["content"]["application/json"]
    assert get_me["examples"]["default"]["value"] == msgspec.to_builtins(EXAMPLE)
    assert set(document["paths"]["/v1/me"]["patch"]["requestBody"]["content"]) == {
        "application/merge-patch+json",
        "application/json",
    }
    ready = document["paths"]["/health/ready"]["get"]["responses"]
    assert ready["503"]["content"]["application/json"]["examples"]["default"]["value"]["status"] == "unavailable"
