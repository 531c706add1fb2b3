"""Messages that no honest vendor sends, over HTTP: each has its answer, and none changes a case."""

import gzip
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from tests.kyc.conftest import World
from tests.service import Person, Reply
from tests.verbs.world import PENDING, Acme, vendor
from usercore.db import Conn
from usercore.plugins import WebhookEvent
from usercore.plugins.webhooks import TOLERANCE_S, sign
from usercore.webhooks.api import LARGEST

HYPERVERGE = "/v1/kyc/webhook/hyperverge"


def body_of(reference: str, **more: object) -> bytes:
    """What HyperVerge says when a journey is over."""
    event = {"eventId": "e1", "eventType": "FINISH_TRANSACTION_WEBHOOK", "transactionId": reference, **more}
    return msgspec.json.encode(event)


def signed(body: bytes, *, name: str = "hyperverge", at: float = 0.0) -> dict[str, str]:
    return sign(f"secret of {name}", "e1", int(time.time() + at), body)


async def post(world: World, path: str, body: bytes | AsyncIterator[bytes], headers: Mapping[str, str]) -> Reply:
    url = world.client.base + path
    sent = {"Content-Type": "application/json", **headers}
    async with world.client.http.post(url, data=body, headers=sent) as answer:
        return Reply(answer.status, answer.headers, await answer.read())


async def a_case(world: World) -> tuple[Person, str]:
    """Somebody whose case is open, and what HyperVerge calls it."""
    asha = await world.person()
    await world.initiate(asha)
    case_id = UUID((await world.status(asha))["case"]["case_id"])
    return asha, await world.attempt(case_id)


async def kept(owner: Conn) -> int | None:
    return await owner.fetchval("select count(*) from webhook_inbox")


async def unchanged(world: World, owner: Conn, person: Person) -> None:
    assert (await world.status(person))["case"]["status"] == "initiated"
    assert await owner.fetchval("select count(*) from kyc_evidence where standing >= 30") == 0


async def test_what_is_not_authentic(world: World, owner: Conn) -> None:
    """One answer for all of it: nobody learns which part was wrong, or who our vendors are."""
    asha, reference = await a_case(world)
    body = body_of(reference)
    good = signed(body)
    spaced = msgspec.json.format(body)
    attempts = {
        "unsigned": (HYPERVERGE, body, {}),
        "forged": (HYPERVERGE, body, sign("a guess", "e1", int(time.time()), body)),
        "another body": (HYPERVERGE, body_of("another"), good),
        "re-serialised": (HYPERVERGE, spaced, good),
        "another id": (HYPERVERGE, body, {**good, "webhook-id": "e2"}),
        "too old": (HYPERVERGE, body, signed(body, at=-TOLERANCE_S - 5)),
        "from the future": (HYPERVERGE, body, signed(body, at=TOLERANCE_S + 5)),
        "another vendor's address": ("/v1/kyc/webhook/signzy", body, good),
        "nobody's address": ("/v1/kyc/webhook/nobody", body, good),
        "another vendor's secret": (HYPERVERGE, body, signed(body, name="signzy")),
        "a token instead": (f"{HYPERVERGE}/{'x' * 43}", body, {}),
        "unsigned, to whoever": ("/v1/kyc/webhook", body, {}),
    }
    answers: dict[str, dict[str, Any]] = {}
    for name, (path, sent, headers) in attempts.items():
        reply = await post(world, path, sent, headers)
        assert reply.status == 401, name
        answers[name] = {key: value for key, value in reply.json().items() if key not in ("trace_id", "instance")}
    assert all(answer == answers["unsigned"] for answer in answers.values())
    assert await kept(owner) == 0
    await unchanged(world, owner, asha)


async def test_what_is_authentic_and_unreadable(world: World, owner: Conn) -> None:
    asha, reference = await a_case(world)
    good = body_of(reference)
    for name, body in {
        "empty": b"",
        "no JSON": b"transactionId=1",
        "truncated": good[:-4],
        "not UTF-8": good.replace(b"FINISH", b"\xff\xfe"),
        "a list": b"[]",
        "nothing in it": b"{}",
        "no reference": msgspec.json.encode({"eventId": "e1", "eventType": "FINISH_TRANSACTION_WEBHOOK"}),
        "a reference of a megabyte": body_of("x" * 100_000),
        "deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    }.items():
        reply = await post(world, HYPERVERGE, body, signed(body))
        assert (reply.status, reply.code) == (400, "malformed_webhook"), name
    assert await kept(owner) == 0
    await unchanged(world, owner, asha)


async def test_a_packed_message_is_not_unpacked(world: World, owner: Conn) -> None:
    """A bomb of 200 MiB is 200 KiB of bytes that are no message."""
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    assert len(bomb) < LARGEST
    for body in (bomb, gzip.compress(body_of("x"))):
        started = time.monotonic()
        reply = await post(world, HYPERVERGE, body, {**signed(body), "Content-Encoding": "gzip"})
        assert reply.status in (400, 415)
        assert time.monotonic() - started < 1
    assert await kept(owner) == 0


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 4096):
        yield b"x" * 4096


async def test_too_large_is_said_before_anything_else(world: World, owner: Conn) -> None:
    large = b"x" * (LARGEST + 1)
    for headers in ({}, signed(large)):
        assert (await post(world, HYPERVERGE, large, headers)).status == 413
    assert (await post(world, HYPERVERGE, chunks(2 * LARGEST), {})).status == 413
    assert (await post(world, "/v1/kyc/webhook/nobody", large, {})).status == 413
    exactly = body_of("x", filler="")
    exactly = body_of("x", filler="y" * (LARGEST - len(exactly)))
    assert len(exactly) == LARGEST
    assert (await post(world, HYPERVERGE, exactly, signed(exactly))).status == 200
    assert await kept(owner) == 1


async def test_a_message_in_pieces_is_a_message(world: World, owner: Conn) -> None:
    asha, reference = await a_case(world)
    body = body_of(reference)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10):
            yield body[at : at + 10]

    assert (await post(world, HYPERVERGE, pieces(), signed(body))).status == 200
    assert await kept(owner) == 1
    await unchanged(world, owner, asha)  # it says that there is something, and there is nothing


async def test_the_same_message_again(world: World, owner: Conn) -> None:
    """Replayed while it is fresh it is answered alike, and kept once."""
    _, reference = await a_case(world)
    body = body_of(reference)
    headers = signed(body)
    replies = [await post(world, path, body, headers) for path in (HYPERVERGE, HYPERVERGE, "/v1/kyc/webhook")]
    assert {(reply.status, reply.body) for reply in replies} == {(200, b'{"received":true}')}
    assert await kept(owner) == 1


async def test_a_key_that_is_there_twice_approves_nobody(world: World, owner: Conn) -> None:
    """Whichever of the two a parser takes: what the message says is asked for at the vendor's."""
    asha, reference = await a_case(world)
    ravi = await world.person(pan_number="ABCPV9999F")
    await world.control("hyperverge", "next", outcome="approve", webhook="drop")
    await world.initiate(ravi)
    other = (await world.status(ravi))["case"]["case_id"]
    twice = body_of(reference).replace(b'"transactionId"', b'"transactionId":"' + other.encode() + b'","transactionId"')
    assert (await post(world, HYPERVERGE, twice, signed(twice))).status == 200
    await owner.execute("update kyc_cases set next_look_at = now()")
    await world.becomes(ravi, "approved")
    assert (await world.status(asha))["case"]["status"] == "initiated"


async def test_a_message_that_two_vendors_accept_is_nobodys(world: World, owner: Conn) -> None:
    """With one secret for two, the address without a name cannot tell whose it is."""
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    vendors["twin"] = msgspec.structs.replace(vendors["hyperverge"])
    body = body_of("x")
    assert (await post(world, "/v1/kyc/webhook", body, signed(body))).status == 401
    assert (await post(world, HYPERVERGE, body, signed(body))).status == 200


async def test_a_secret_of_one_attempt_is_good_for_no_other(world: World, owner: Conn) -> None:
    vendors = cast("dict[str, Any]", world.parts.kyc.vendors)
    vendors.clear()
    told: list[str] = []

    class Listening(Acme):
        async def start(self, request: Any) -> Any:
            told.append(request.callback_url)
            return await super().start(request)

    vendors["acme"] = vendor(Listening(), "acme", "pan", "selfie", scheme="url_token")
    asha, ravi = await world.person(), await world.person(pan_number="ABCPV9999F")
    own, other = [(await world.initiate(person))["case_id"] for person in (asha, ravi)]
    path = told[0].removeprefix(world.parts.kyc.public_url)

    def event(attempt_id: str | None = None, vendor_case_id: str | None = None) -> bytes:
        return msgspec.json.encode(WebhookEvent(event_id="e1", attempt_id=attempt_id, vendor_case_id=vendor_case_id))

    for body in (event(attempt_id=other), event(vendor_case_id=PENDING + other)):
        assert (await post(world, path, body, {})).status == 401
    assert (await post(world, path[:-1] + ("A" if path[-1] != "A" else "B"), event(attempt_id=own), {})).status == 401
    assert (await post(world, path.rpartition("/")[0], event(attempt_id=own), {})).status == 401
    assert await kept(owner) == 0
    for body in (event(attempt_id=own), event(vendor_case_id=PENDING + own)):
        assert (await post(world, path, body, {})).status == 200
    assert await kept(owner) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post(world: World, method: str) -> None:
    reply = await world.client.send(method, HYPERVERGE)
    assert reply.status == 405
    assert "POST" in reply.headers["Allow"]
