"""Five leaks, planted in the running service: the sweep has to catch each."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import pytest
import redis.asyncio

from tests.canary import Finding, Place
from tests.journey import Recorder
from tests.service import Signer, listening
from tests.stores import kafka_places, postgres_places, redis_places
from tests.zyx import PROFILE, SEARCHER, V, leaks
from usercore import app, outbox, telemetry
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.redis import Redis
from usercore.errors import FieldError
from usercore.events import UserEvent
from usercore.outbox import Actor, OutboxRow
from usercore.pii.classification import Field
from usercore.pii.keyring import UserKeys
from usercore.pii.sealed import Sealed
from usercore.profiles import profile
from usercore.profiles.actions import ProfileReader, ProfileWriter
from usercore.profiles.profile import Me, ProfilePatch
from usercore.relay import Relay
from usercore.settings import load
from usercore.worker import Parts


class Here:
    """The service in this process, where it can be made to leak."""

    def __init__(self, api: Recorder, owner: Conn, parts: Parts, patched: pytest.MonkeyPatch) -> None:
        self.api = api
        self.owner = owner
        self.parts = parts
        self.patched = patched
        self.zyx = api.user(V["email"])

    async def leaks(self, logged: bytes) -> set[Finding]:
        places = [
            *await postgres_places(self.owner),
            *await redis_places(self.parts.settings.redis_url.reveal()),
            *await kafka_places(self.parts.settings),
            Place("logs", "of this process", logged),
            *self.api.received,
        ]
        return set(leaks(SEARCHER.search(places)))


async def logs_a_field(here: Here) -> None:
    update = ProfileWriter.update

    async def leaky(self: ProfileWriter, user_id: UUID, patch: ProfilePatch, *given: Any, **named: Any) -> Any:
        telemetry.logger("users").error("profile_changed", reason=str(patch.last_name))
        return await update(self, user_id, patch, *given, **named)

    here.patched.setattr(ProfileWriter, "update", leaky)
    assert (await here.zyx.patch({"last_name": V["last_name"]})).status == 200


async def skips_a_seal(here: Here) -> None:
    def leaky(_: UserKeys, field: Field, value: str) -> Sealed:
        return Sealed(b"\x01\x01\x00\x01" + value.encode().ljust(128, b"\0"))

    here.patched.setattr(UserKeys, "seal", leaky)
    assert (await here.zyx.patch({"pan_number": V["pan_number"]})).status == 200


async def puts_the_email_into_an_event(here: Here) -> None:
    make = outbox.outbox_row

    def leaky(event: UserEvent, actor: Actor) -> OutboxRow:
        row = make(event, actor)
        return msgspec.structs.replace(row, payload=row.payload[:-1] + f', "email": "{V["email"]}"}}')

    here.patched.setattr(outbox, "outbox_row", leaky)
    assert (await here.zyx.patch({"first_name": V["first_name"]})).status == 200
    relay = Relay(here.parts.db, here.parts.settings)
    assert await relay.round() > 0
    stop = asyncio.Event()
    stop.set()
    await relay.run(stop)


async def caches_plaintext(here: Here) -> None:
    read = ProfileReader.read

    async def leaky(self: ProfileReader, user_id: UUID, actor: Actor) -> tuple[Me, int]:
        me, version = await read(self, user_id, actor)
        async with redis.asyncio.Redis.from_url(here.parts.settings.redis_url.reveal()) as client:
            await client.set(f"user:profile:{user_id}", msgspec.json.encode(me), ex=300)
        return me, version

    here.patched.setattr(ProfileReader, "read", leaky)
    assert (await here.zyx.get(headers={"If-None-Match": ""})).status == 200


async def says_the_value_in_an_error(here: Here) -> None:
    check = profile._checked

    def leaky(validator: Any, value: object, pointer: str, errors: list[FieldError]) -> str | None:
        before = len(errors)
        checked = check(validator, value, pointer, errors)
        errors[before:] = [FieldError(pointer, error.code, f"{value} is no {pointer[1:]}") for error in errors[before:]]
        return checked

    here.patched.setattr(profile, "_checked", leaky)
    assert (await here.zyx.patch({"phone": V["bad phone"]})).status == 422


LEAKS: list[tuple[Callable[[Here], Awaitable[None]], str, str]] = [
    (logs_a_field, "last_name", r"logs of this process"),
    (puts_the_email_into_an_event, "email", r"kafka user\.updated\.v1 .* value"),
    (caches_plaintext, "phone", r"redis value of 'user:profile:.*'"),
    (says_the_value_in_an_error, "bad phone", r"error bodies PATCH /v1/me 422 .*"),
    (skips_a_seal, "pan_number", r"postgres public\.user_profiles\.pan_number_enc"),
]


async def test_five_leaks_are_caught(
    environ: dict[str, str],
    mock_kafka: Kafka,
    own_redis: Redis,
    signer: Signer,
    owner: Conn,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    logged = b""
    async with (
        app.opened(load(environ)) as parts,
        app.api(parts) as (edge, _),
        listening(edge) as base,
        aiohttp.ClientSession() as http,
    ):
        with pytest.MonkeyPatch.context() as patched:
            here = Here(Recorder(http, base, signer), owner, parts, patched)
            for patch in (PROFILE, dict.fromkeys(("first_name", "last_name", "pan_number"))):
                assert (await here.zyx.patch(patch)).status == 200
            known = await here.leaks(b"".join(capfdbinary.readouterr()))
            assert known == set()
            for leak, canary, where in LEAKS:
                with patched.context() as here.patched:
                    await leak(here)
                logged += b"".join(capfdbinary.readouterr())
                found = await here.leaks(logged)
                caught = [finding for finding in found - known if finding.canary == canary]
                assert any(re.fullmatch(where, finding.place) for finding in caught), (
                    f"{leak.__name__}: {found - known}"
                )
                known = found
