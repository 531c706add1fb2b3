"""What Kafka may bring from the Auth Service on a bad day: good events, repeated ones, early ones, and poison."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
from confluent_kafka import Producer
from msgspec import Struct

from usercore.events import AUTH_CREATED, AUTH_DEACTIVATED


class Sent(Struct, frozen=True):
    """A record as it goes to Kafka. `event_id` and `user_id` are those of a good event."""

    topic: str
    key: bytes | None
    value: bytes | None
    event_id: UUID
    user_id: UUID


def created(user_id: UUID, **more: object) -> Sent:
    """`auth.created.v1`; `more` replaces members or adds some."""
    return _sent(AUTH_CREATED, user_id, {"email": f"{user_id}@example.in", **more})


def deactivated(user_id: UUID, **more: object) -> Sent:
    return _sent(AUTH_DEACTIVATED, user_id, {"reason": "NUL \0 and \u2028 in it", **more})


def _sent(topic: str, user_id: UUID, members: dict[str, object]) -> Sent:
    event_id = uuid4()
    event = {"event_id": event_id, "occurred_at": datetime.now(UTC), "auth_id": user_id, **members}
    return Sent(topic, str(user_id).encode(), msgspec.json.encode(event), event_id, user_id)


def odd(user_id: UUID, dice: random.Random) -> Sent:
    """A good event, perhaps with what has to be ignored or kept as it is."""
    kinds: list[dict[str, object]] = [
        {},
        {"unknown": {"nested": ["NUL \0", None, 1e300]}, "phone": "+919876543210"},
        {"email": f"UPPER-{user_id}@EXAMPLE.IN"},
        {"email": f"é中{user_id.hex}@example.in"},
        {"occurred_at": "1970-01-01T00:00:00Z"},
    ]
    return created(user_id, **dice.choice(kinds))


def poison() -> list[Sent]:
    """One of each kind that nobody can apply."""

    def bad(value: bytes | None, sent: Sent | None = None, *, key: bytes | None = b"poison") -> Sent:
        return msgspec.structs.replace(sent or created(uuid4()), key=key, value=value)

    good = created(uuid4()).value or b""
    nested = b"[" * 100_000 + b"]" * 100_000
    return [
        bad(good[:-1]),
        bad(b""),
        bad(None),
        bad(None, key=None),
        bad(b"\xff\xfe" + good),
        bad(b"[" + good + b"]"),
        bad(good.replace(b"@example.in", b"\xff@example.in")),
        bad(good.replace(b"@example.in", b"\\ud800@example.in")),
        # Deeper than a parser follows: another error than that of a bad document.
        bad(good[:-1] + b',"unknown":' + nested + b"}"),
        # As large as a record may be by default: with the headers of a dead letter it is larger.
        bad(b'{"event_id":"' + uuid4().hex.encode() * 32_700),
        # Larger than a dead letter may be.
        bad(b'{"event_id":"' + uuid4().hex.encode() * 90_000),
        created(uuid4(), auth_id=7),
        created(uuid4(), auth_id="not-a-uuid"),
        created(uuid4(), event_id=None),
        created(uuid4(), occurred_at="yesterday"),
        created(uuid4(), email=["a@example.in"]),
        created(uuid4(), email="not an address"),
        created(uuid4(), email="nul\0byte@example.in"),
        created(uuid4(), email=f"{'a' * 400}@example.in"),
        deactivated(uuid4(), auth_id=None),
        deactivated(uuid4(), reason={"text": "fraud"}),
        bad(b'{"event_id":"', deactivated(uuid4())),
    ]


class AuthService:
    """Sends with librdkafka, as a service in another language would."""

    def __init__(self, brokers: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": brokers, "linger.ms": 1, "message.max.bytes": 4_000_000, "log_level": 0}
        )

    def send(self, records: Iterable[Sent]) -> None:
        """Returns when all are on Kafka."""
        refused: list[object] = []
        for record in records:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                on_delivery=lambda error, _: refused.append(error) if error else None,
            )
        assert self._producer.flush(30) == 0, "Kafka did not take them"
        assert not refused
