"""What each exception becomes at the edge: an ApiError, in words of our own.

Messages of Litestar and msgspec are not passed on: the former contain URLs with their queries, the latter values.
"""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
from litestar.exceptions import HTTPException, ValidationException

from usercore.errors import (
    ApiError,
    BodyTooLarge,
    FieldError,
    Forbidden,
    InternalError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthenticated,
    UnsupportedMediaType,
    ValidationFailed,
)
from usercore.operations import allow

_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
    422: ValidationFailed,
    429: RateLimited,
    503: ServiceUnavailable,
}
_LOCATION = re.compile(r" - at (?:`key` in )?`\$(.*)`\Z", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]+)\]")
_MISSING_PARAMETER = re.compile(r"Missing required (query|header|cookie|path) parameter '([A-Za-z0-9_-]+)'")


def api_error(exception: Exception) -> ApiError:
    """Everything that nobody expected is an InternalError."""
    if isinstance(exception, ApiError):
        return exception
    if isinstance(exception, ValidationException):
        return _invalid_parameters(exception)
    if isinstance(exception, HTTPException):
        return _http_error(exception)
    return InternalError()


def body_error(error: msgspec.ValidationError, body: bytes) -> ApiError:
    """What is wrong with a body that did not become its type: it may not have been JSON to begin with."""
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return MalformedBody()
    return ValidationFailed(errors=[field_error(str(error))])


def field_error(message: str, base: str = "") -> FieldError:
    """A message of msgspec as pointer, code and a detail that names types and limits, never values."""
    found = _LOCATION.search(message)
    pointer = base
    if found is not None:
        message = message[: found.start()]
        for name, index in _STEP.findall(found[1]):
            pointer += f"/{name or index}"
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return FieldError(f"{pointer}/{missing[1]}", "missing_field", "This field is required.")
    if message.startswith("Object contains unknown field"):
        # Its name is the caller's: it could be anything.
        return FieldError(pointer, "unknown_field", "There is a field that is not known here.")
    if expected := re.fullmatch(r"Expected `([\w |\[\], .]+)`, got `[\w .]+`", message):
        return FieldError(pointer, "wrong_type", f"Expected {expected[1]}.")
    if message.startswith("Invalid enum value"):
        return FieldError(pointer, "not_allowed", "This is not one of the allowed values.")
    if limit := re.fullmatch(r"Expected `(\w+)` ((?:of length )?(?:[<>]=?) [0-9.]+)", message):
        return FieldError(pointer, "out_of_range", f"Expected {limit[1]} {limit[2]}.")
    return FieldError(pointer, "invalid_format", "This value is not acceptable.")


def _http_error(exception: HTTPException) -> ApiError:
    if exception.status_code == 405:
        methods = {name.strip() for name in (exception.headers or {}).get("allow", "").split(",")} - {""}
        return MethodNotAllowed(headers={"Allow": allow(methods)})
    known = _BY_STATUS.get(exception.status_code)
    if known is not None:
        return known()
    return InvalidRequest() if exception.status_code < 500 else InternalError()


def _invalid_parameters(exception: ValidationException) -> ValidationFailed:
    """Litestar's errors of query, path and header parameters; bodies never get that far."""
    errors: list[FieldError] = []
    extra = cast("object", exception.extra)
    if isinstance(extra, Sequence) and not isinstance(extra, str):
        for item in cast("Sequence[Mapping[str, str]]", extra):
            source = str(getattr(item.get("source"), "value", None) or item.get("source") or "query")
            name = item.get("key", "").split(".")[0]
            errors.append(field_error(item.get("message", ""), f"/{source}/{name}" if name else ""))
    elif missing := _MISSING_PARAMETER.search(exception.detail):
        errors.append(FieldError(f"/{missing[1]}/{missing[2]}", "missing_parameter", "This parameter is required."))
    return ValidationFailed(errors=errors)
