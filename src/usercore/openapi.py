"""The OpenAPI 3.1 document: Litestar's, with what it cannot know put in and what is not true of us taken out."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from typing import Any, cast

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.types import ControllerRouterHandler

from usercore.calls import EdgeRequest
from usercore.operations import handlers_of

TAGS = {
    "me": "The signed-in person",
    "internal": "For other services",
    "admin": "For administrators",
    "operations": "For those who run the service",
}
_REQUEST_ID = {
    "description": "The caller's X-Request-ID, or one of ours.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}


class Document:
    """The document of some handlers, made when it is first asked for."""

    def __init__(self, handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide]) -> None:
        # Before the API's app takes them.
        self._handlers = deepcopy(list(handlers))
        self._dependencies = dict(dependencies)
        self._rendered: bytes | None = None

    def render(self) -> bytes:
        if self._rendered is None:
            self._rendered = _document(self._handlers, self._dependencies)
        return self._rendered


def _document(handlers: Sequence[ControllerRouterHandler], dependencies: dict[str, Provide]) -> bytes:
    app = Litestar(
        handlers,
        dependencies=dependencies,
        request_class=EdgeRequest,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
        openapi_config=OpenAPIConfig(
            title="usercore",
            version=version("usercore"),
            description="User Service: profiles, consents, preferences, account lifecycle and audit.",
            # Random values would contradict the validators.
            create_examples=False,
            use_handler_docstrings=True,
            tags=[Tag(name=name, description=text) for name, text in TAGS.items()],
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                }
            ),
        ),
    )
    # To plain values and back: Litestar's document holds objects of its own.
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()))
    # A null is not the absence that OpenAPI means by it.
    _drop_nulls(schema["info"])
    paths = cast("dict[str, dict[str, Any]]", schema["paths"])
    for route, handler in handlers_of(app):
        for method in handler.http_methods:
            found = paths.get(route.path_format, {}).get(method.lower())
            if found is not None:
                options = cast("Mapping[str, object]", handler.opt)
                _complete(found, handler.status_code, options)
    # Its own routes for viewing the document are not ours.
    schema["paths"] = {path: item for path, item in paths.items() if not path.startswith("/schema")}
    return msgspec.json.encode(schema)


def _complete(operation: dict[str, Any], status: int, options: Mapping[str, object]) -> None:
    responses = cast("dict[str, dict[str, Any]]", operation["responses"])
    # Litestar answers 400 to what it finds invalid, in a shape of its own; we answer 422, as a problem.
    if "application/problem+json" not in responses.get("400", {}).get("content", {"application/problem+json": None}):
        del responses["400"]
    for code, example in _examples(options.get("response_example"), status).items():
        content = responses.setdefault(str(code), {"description": operation["summary"]}).setdefault(
            "content", {"application/json": {"schema": _success_schema(responses, status)}}
        )
        content.setdefault("application/json", {"schema": _success_schema(responses, status)})["examples"] = {
            "default": {"value": example}
        }
    for response in responses.values():
        response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    if "429" in responses:
        for code in (str(status), "429"):
            responses[code]["headers"] |= {
                "RateLimit": {"schema": {"type": "string"}},
                "RateLimit-Policy": {"schema": {"type": "string"}},
            }
    for code in ("429", "503"):
        if code in responses:
            responses[code]["headers"]["Retry-After"] = {"schema": {"type": "integer"}}
    body = cast("dict[str, Any] | None", operation.get("requestBody"))
    if body is not None:
        schema = next(iter(body["content"].values()))["schema"]
        example = msgspec.to_builtins(options.get("request_example"))
        media: dict[str, Any] = {"schema": schema}
        if example is not None:
            media["examples"] = {"default": {"value": example}}
        body["content"] = dict.fromkeys(
            cast("tuple[str, ...]", options.get("media_types")) or ("application/json",), media
        )


def _examples(given: object, status: int) -> dict[int, object]:
    """Examples by status, as JSON values."""
    if given is None:
        return {}
    by_status = cast("Mapping[int, object]", given) if isinstance(given, Mapping) else {status: given}
    return {code: msgspec.to_builtins(value) for code, value in by_status.items()}


def _success_schema(responses: Mapping[str, dict[str, Any]], status: int) -> object:
    content = cast("dict[str, dict[str, Any]]", responses.get(str(status), {}).get("content") or {})
    return content.get("application/json", {}).get("schema", {})


def _drop_nulls(node: dict[str, Any]) -> None:
    for name in [name for name, value in node.items() if value is None]:
        del node[name]
