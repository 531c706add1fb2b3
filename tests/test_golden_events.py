"""Every Kafka event held against files that are never changed: consumers elsewhere were written against these bytes.

A published event has a file for each example below: key, headers and value of the record. When an event gets a field,
its example gets a file with the next number; the older one stays, and what it shows must still be there. A consumed
event has files that the Auth Service might send.
"""

import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiokafka import ConsumerRecord
from jsonschema import Draft202012Validator

from usercore import consumer, relay
from usercore.devstack import provision
from usercore.events import (
    AUTH_CREATED,
    AUTH_DEACTIVATED,
    CHECKPOINTS,
    DEAD_LETTERS,
    PUBLISHED,
    AuthAccountDeactivated,
    AuthCreated,
    UserClosed,
    UserCreated,
    UserErased,
    UserEvent,
    UserFrozen,
    UserKycInitiated,
    UserKycUpdated,
    UserSuspended,
    UserUnfrozen,
    UserUpdated,
    UserVerified,
    new_event_id,
    now,
)
from usercore.outbox import Actor, outbox_row

GOLDEN = Path(__file__).parent / "golden" / "events"
FILES = sorted(GOLDEN.iterdir())

AT = datetime(2026, 1, 15, 9, 30, 0, 120_000, tzinfo=UTC)
EVENT = UUID("01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11")
USER = UUID("5b7c2f0e-9a41-4c1d-8f53-1d0a6f0f7a31")
ADMIN = UUID("0c9e4d2a-7d5e-4b0c-9a55-6a0f3b6b2c44")
CASE = UUID("01978c5e-5a0c-7d52-9d0e-3f6f2a1c9b11")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

EXAMPLES: Mapping[str, UserEvent] = {
    "user.created.v1-1.json": UserCreated(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=1,
        status="pending",
        kyc_status="not_started",
        kyc_tier="tier_0",
    ),
    "user.updated.v1-1.json": UserUpdated(
        event_id=EVENT, occurred_at=AT, user_id=USER, version=2, changed_fields=["address", "first_name"]
    ),
    "user.frozen.v1-1.json": UserFrozen(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=3,
        reason="auth_deactivated",
        source="auth",
        actor_id=None,
    ),
    "user.frozen.v1-2.json": UserFrozen(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=3,
        reason="risk_review",
        source="risk",
        actor_id=ADMIN,
    ),
    "user.unfrozen.v1-1.json": UserUnfrozen(
        event_id=EVENT, occurred_at=AT, user_id=USER, version=5, reason="cleared", source="risk", actor_id=ADMIN
    ),
    "user.closed.v1-1.json": UserClosed(
        event_id=EVENT, occurred_at=AT, user_id=USER, version=6, reason="user_request", actor_id=ADMIN
    ),
    "user.erased.v1-1.json": UserErased(
        event_id=EVENT, occurred_at=AT, user_id=USER, version=7, reason="user_request", actor_id=ADMIN
    ),
    "user.suspended.v1-1.json": UserSuspended(
        event_id=EVENT, occurred_at=AT, user_id=USER, version=4, reason="kyc_overdue", actor_id=None
    ),
    "user.verified.v1-1.json": UserVerified(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=4,
        kyc_tier="tier_1",
        previous_tier="tier_0",
        kyc_case_id=CASE,
        verified_at=AT,
    ),
    "user.kyc.initiated.v1-1.json": UserKycInitiated(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=3,
        kyc_case_id=CASE,
        vendor="hyperverge",
        target_tier="tier_1",
    ),
    "user.kyc.updated.v1-1.json": UserKycUpdated(
        event_id=EVENT,
        occurred_at=AT,
        user_id=USER,
        version=4,
        kyc_case_id=CASE,
        vendor="hyperverge",
        status="rejected",
        previous_status="in_review",
        rejection_code="face_mismatch",
        kyc_status="rejected",
        kyc_tier="tier_0",
        previous_tier="tier_0",
    ),
}

CONSUMED = {
    "auth.created.v1-1.json": AuthCreated(event_id=EVENT, occurred_at=AT, auth_id=USER, email="asha@example.in"),
    "auth.account.deactivated.v1-1.json": AuthAccountDeactivated(
        event_id=EVENT, occurred_at=AT, auth_id=USER, reason="user_request"
    ),
}

# Contract §3, field by field ------------------------------------------------------------------------------------------


def one_of(*values: str) -> dict[str, object]:
    return {"enum": list(values)}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


ID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"}
WORD = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}
TIER = one_of("tier_0", "tier_1", "tier_2", "tier_3")
STATUS = one_of("pending", "active", "suspended", "frozen", "closed")
KYC_STATUS = one_of("not_started", "pending", "in_review", "approved", "rejected", "expired")
CASE_STATUS = one_of("initiated", "documents_submitted", "in_review", "approved", "rejected", "expired")
HOLD = {"reason": WORD, "source": WORD, "actor_id": or_null(ID)}
END = {"reason": WORD, "actor_id": or_null(ID)}

DATA: Mapping[str, dict[str, Any]] = {
    "user.created.v1": {"status": STATUS, "kyc_status": KYC_STATUS, "kyc_tier": TIER},
    "user.updated.v1": {"changed_fields": {"type": "array", "items": WORD, "minItems": 1, "uniqueItems": True}},
    "user.verified.v1": {"kyc_tier": TIER, "previous_tier": TIER, "kyc_case_id": ID, "verified_at": TIME},
    "user.frozen.v1": HOLD,
    "user.unfrozen.v1": HOLD,
    "user.suspended.v1": END,
    "user.closed.v1": END,
    "user.erased.v1": END,
    "user.kyc.initiated.v1": {"kyc_case_id": ID, "vendor": WORD, "target_tier": TIER},
    "user.kyc.updated.v1": {
        "kyc_case_id": ID,
        "vendor": WORD,
        "status": CASE_STATUS,
        "previous_status": CASE_STATUS,
        "rejection_code": or_null(WORD),
        "kyc_status": KYC_STATUS,
        "kyc_tier": TIER,
        "previous_tier": TIER,
    },
}
AUTH_DATA: Mapping[str, dict[str, Any]] = {
    AUTH_CREATED: {"email": {"type": "string"}},
    AUTH_DEACTIVATED: {"reason": {"type": "string"}},
}


def schema_of(topic: str) -> dict[str, Any]:
    """What a record's value must be: these fields, all of them, and no others."""
    common = {
        "event_id": ID,
        "event_type": {"const": topic},
        "occurred_at": TIME,
        "user_id": ID,
        "version": {"type": "integer", "minimum": 1},
    }
    fields = {**common, **DATA[topic]}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def problems(topic: str, value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema_of(topic)).iter_errors(value)]


# Published ------------------------------------------------------------------------------------------------------------


def record_of(event: UserEvent) -> bytes:
    """The Kafka record of an event as a golden file has it."""
    row = outbox_row(event, Actor(kind="system", traceparent=TRACEPARENT))
    headers = relay.headers(row)
    assert len(dict(headers)) == len(headers), "each once"
    record = {
        "key": str(row.user_id),
        "headers": {name: value.decode() for name, value in headers},
        "value": msgspec.Raw(row.payload.encode()),
    }
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def golden(file: Path) -> Any:
    return msgspec.json.decode(file.read_bytes())


def topic_of(file: Path) -> str:
    found = re.fullmatch(r"(.+)-[1-9][0-9]*\.json", file.name)
    assert found, f"{file.name} is not named <topic>-<number>.json"
    return found[1]


PUBLISHED_TOPICS = {event.topic: event for event in PUBLISHED}
PUBLISHED_FILES = [file for file in FILES if topic_of(file) in PUBLISHED_TOPICS]


@pytest.mark.parametrize("name", EXAMPLES)
def test_event_is_published_as_ever(name: str) -> None:
    record = record_of(EXAMPLES[name])
    assert (GOLDEN / name).is_file(), f"the golden file {name} is missing; it would be\n{record.decode()}"
    assert record == (GOLDEN / name).read_bytes(), "consumers rely on it: add a field with a file of its own"


def test_every_event_has_an_example() -> None:
    assert {type(event) for event in EXAMPLES.values()} == set(PUBLISHED)
    assert {topic_of(file) for file in FILES} == PUBLISHED_TOPICS.keys() | AUTH_DATA.keys()
    assert {file.name for file in FILES} >= EXAMPLES.keys() | CONSUMED.keys()


@pytest.mark.parametrize("file", PUBLISHED_FILES, ids=lambda file: file.name)
def test_what_a_file_shows_is_still_there(file: Path) -> None:
    """Also for the files of older shapes: no field is dropped, renamed or given another type."""
    value = golden(file)["value"]
    event = msgspec.convert(value, PUBLISHED_TOPICS[topic_of(file)])
    today = msgspec.to_builtins(event)
    assert {name: today.get(name) for name in value} == value


@pytest.mark.parametrize("topic", PUBLISHED_TOPICS)
def test_event_has_exactly_the_fields_of_the_contract(topic: str) -> None:
    struct = PUBLISHED_TOPICS[topic]
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert fields.keys() == schema_of(topic)["properties"].keys()
    examples = [golden(GOLDEN / name)["value"] for name in EXAMPLES if name.startswith(topic)]
    for value in examples:
        assert problems(topic, value) == []
        for name in value:
            assert problems(topic, {key: part for key, part in value.items() if key != name}), f"{name} is required"
        assert problems(topic, {**value, "email": "asha@example.in"}), "and nothing else"


@pytest.mark.parametrize("file", PUBLISHED_FILES, ids=lambda file: file.name)
def test_headers_are_those_of_cloudevents(file: Path) -> None:
    record = golden(file)
    value = record["value"]
    assert record["key"] == value["user_id"]
    assert record["headers"] == {
        "ce_specversion": "1.0",
        "ce_id": value["event_id"],
        "ce_type": topic_of(file),
        "ce_source": "usercore",
        "ce_subject": value["user_id"],
        "ce_time": value["occurred_at"],
        "content-type": "application/json",
        "traceparent": TRACEPARENT,
    }


@pytest.mark.parametrize("at", [AT, AT.replace(microsecond=0), AT.replace(microsecond=1), now()])
def test_time_is_the_same_in_header_and_value(at: datetime) -> None:
    event = UserUpdated(event_id=new_event_id(), occurred_at=at, user_id=USER, version=2, changed_fields=["phone"])
    row = outbox_row(event, Actor(kind="system"))
    headers = dict(relay.headers(row))
    assert headers["ce_time"].decode() == msgspec.json.decode(row.payload)["occurred_at"]
    assert "traceparent" not in headers, "without a trace there is none"


def test_topics_are_those_of_the_contract() -> None:
    assert PUBLISHED_TOPICS.keys() <= DATA.keys()
    assert provision.TOPICS.keys() == DATA.keys() | AUTH_DATA.keys() | {DEAD_LETTERS, CHECKPOINTS}


# Consumed -------------------------------------------------------------------------------------------------------------


def received(topic: str, value: object) -> consumer.AuthEvent:
    """What the consumer reads in a record with this value."""
    raw = msgspec.json.encode(value)
    return consumer.read(
        ConsumerRecord(
            topic=topic,
            partition=0,
            offset=0,
            timestamp=0,
            timestamp_type=0,
            key=None,
            value=raw,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=len(raw),
            headers=(),
        )
    )


@pytest.mark.parametrize("name", CONSUMED)
def test_event_is_understood_as_ever(name: str) -> None:
    topic, value = topic_of(GOLDEN / name), golden(GOLDEN / name)["value"]
    assert value.keys() == {"event_id", "occurred_at", "auth_id"} | AUTH_DATA[topic].keys()
    assert received(topic, value) == CONSUMED[name]
    assert received(topic, {**value, "new_field": {"of": "theirs"}}) == CONSUMED[name]


@pytest.mark.parametrize(
    ("topic", "field"),
    [
        *((AUTH_CREATED, field) for field in ("event_id", "occurred_at", "auth_id", "email")),
        *((AUTH_DEACTIVATED, field) for field in ("event_id", "occurred_at", "auth_id")),
    ],
)
def test_event_without_a_field_that_matters_is_not_understood(topic: str, field: str) -> None:
    value = golden(GOLDEN / f"{topic}-1.json")["value"]
    with pytest.raises(msgspec.ValidationError):
        received(topic, {name: part for name, part in value.items() if name != field})


# Append-only ----------------------------------------------------------------------------------------------------------


def test_golden_files_are_never_changed() -> None:
    """In the history, as far as it is here, and in the working tree."""
    git = ["git", "-C", str(GOLDEN)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("not a git checkout")
    changes = "--diff-filter=DMRT"
    for command in (["log", "--format=%h", changes, "--", "."], ["diff", "HEAD", "--name-only", changes, "--", "."]):
        found = subprocess.run([*git, *command], capture_output=True, check=True, text=True).stdout
        assert found == "", "a golden file was changed: restore it and add another"
