"""The tree of errors, and what they look like from outside."""

import json
from collections.abc import Iterator

import pytest

from usercore import errors
from usercore.errors import ApiError, FieldError, problem

# Names are fixed: clients act on them.
CODES = {
    "invalid_request": 400,
    "malformed_body": 400,
    "invalid_cursor": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "user_not_found": 404,
    "method_not_allowed": 405,
    "account_erased": 410,
    "version_mismatch": 412,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "validation_failed": 422,
    "email_managed_by_auth": 422,
    "idempotency_mismatch": 422,
    "idempotency_in_progress": 409,
    "identity_locked": 409,
    "account_not_active": 409,
    "consent_not_granted": 409,
    "pii_unavailable": 409,
    "rate_limited": 429,
    "internal_error": 500,
    "service_unavailable": 503,
    "database_unavailable": 503,
    "audit_unavailable": 503,
    "keys_unavailable": 503,
}


def tree(cls: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    for child in cls.__subclasses__():
        yield child
        yield from tree(child)


def test_codes_keep_their_status() -> None:
    found = {cls.code: cls.status for cls in tree() if cls.__module__ == errors.__name__}
    assert {code: status for code, status in found.items() if code in CODES} == CODES


@pytest.mark.parametrize("cls", list(tree()), ids=lambda cls: cls.code)
def test_each_error_speaks_for_itself(cls: type[ApiError]) -> None:
    body = json.loads(problem(cls(), "0" * 32))
    assert body["type"] == f"https://docs.usercore.dev/problems/{cls.code}"
    assert (body["status"], body["code"], body["trace_id"]) == (cls.status, cls.code, "0" * 32)
    assert body["title"] == cls.title != ""
    assert not body["title"].endswith(".")
    assert set(body) <= {"type", "title", "status", "code", "detail", "trace_id"}


def test_a_problem_as_the_contract_shows_it() -> None:
    error = errors.ValidationFailed("…", errors=[FieldError("/pan_number", "pan_format", "…")])
    assert problem(error, "t").decode() == (
        '{"type":"https://docs.usercore.dev/problems/validation_failed","title":"Validation failed","status":422,'
        '"code":"validation_failed","detail":"…","errors":[{"pointer":"/pan_number","code":"pan_format","detail":"…"}],'
        '"trace_id":"t"}'
    )


def test_members_are_added_and_replace_nothing() -> None:
    body = json.loads(problem(errors.Conflict(members={"from": "closed", "to": "frozen", "status": "x"}), "t"))
    assert (body["from"], body["to"], body["status"]) == ("closed", "frozen", 409)


def test_headers() -> None:
    assert errors.ServiceUnavailable().headers == {"Retry-After": "1"}
    assert errors.AuditUnavailable(headers={"Retry-After": "5"}).headers == {"Retry-After": "5"}
    assert "WWW-Authenticate" in errors.Unauthenticated().headers
    first, second = errors.RateLimited(), errors.RateLimited()
    first.headers["X"] = "y"
    assert "X" not in second.headers


def test_every_problem_of_the_settings_is_kept() -> None:
    assert errors.SettingsError(["A is required", "B is required"]).problems == ["A is required", "B is required"]
