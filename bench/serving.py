"""The server process of the read benchmark: the service and its two rivals, each on a port of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import uvicorn
import uvloop
from litestar import Litestar, get
from litestar.di import Provide

from usercore import app
from usercore.auth import Authenticator
from usercore.callers import Service
from usercore.db import Db
from usercore.edge import Edge
from usercore.operations import Readiness
from usercore.outbox import Actor
from usercore.pii.keyring import Keyring
from usercore.profiles import api, queries
from usercore.profiles.actions import ProfileReader, ProfileWriter
from usercore.profiles.profile import Address, Me, Profile, open_me
from usercore.server import Server, make_server, settle
from usercore.settings import load
from usercore.telemetry import configure_logging
from usercore.users.actions import UnknownUser
from usercore.web import build
from usercore.worker import Parts

_AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
ME = Me(
    id=uuid4(),
    status="pending",
    kyc_status="not_started",
    kyc_tier="tier_0",
    created_at=_AT,
    updated_at=_AT,
    verified_at=None,
    profile=Profile(
        first_name="Asha",
        last_name="Verma",
        date_of_birth="1994-08-12",
        pan_number="ABCPV1234F",
        aadhaar_last4="4321",
        address=Address("14 MG Road", "Pune", "Maharashtra", "411001"),
        phone="+919876543210",
        email="asha@example.in",
        avatar_url="https://cdn.example.in/a/14.png",
        updated_at=_AT,
    ),
    pii_masked=False,
)


class PlainReader(ProfileReader):
    """Opens the same fields after a select of its own, and leaves no audit row."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    async def read(self, user_id: object, actor: Actor, read: object = None) -> tuple[Me, int]:
        async with self._db.read() as conn:
            row = await queries.get_profile(conn, user_id=actor.id or uuid4())
        if row is None:
            raise UnknownUser
        return open_me(row, self._keyring), row.version


def unaudited(parts: Parts) -> Edge:
    """The handler of GET /v1/me behind the same edge, with a plain select."""
    reader, writer = PlainReader(parts.db, parts.keyring), ProfileWriter(parts.db, parts.keyring)
    service = Service(parts.db, parts.keyring, reader, writer, parts.kyc, parts.artifacts, {}, None, {}, "bench")

    async def ready() -> Readiness:
        return Readiness("ready", {})

    return build(
        (api.get_me,),
        settings=parts.settings,
        authenticator=Authenticator.from_settings(parts.settings),
        ready=ready,
        dependencies={"service": Provide(lambda: service, use_cache=True, sync_to_thread=False)},
    )


def bare() -> Litestar:
    """A route that returns the same Struct and does nothing else."""

    @get("/v1/me", sync_to_thread=False)
    def get_me() -> Me:
        return ME

    return Litestar([get_me], openapi_config=None, logging_config=None)


def stock(app: Litestar, port: int) -> Server:
    """uvicorn at its fastest settings and as it comes, which is what a bare route would be run with."""
    return Server(
        uvicorn.Config(app, port=port, loop="none", http="httptools", ws="none", log_config=None, access_log=False)
    )


async def serve(ports: Sequence[str]) -> None:
    settings = load(os.environ)
    async with app.opened(settings) as parts, app.api(parts) as (edge, _):
        settle()
        servers = [
            make_server(edge, "127.0.0.1", int(ports[0])),
            make_server(unaudited(parts), "127.0.0.1", int(ports[1])),
            stock(bare(), int(ports[2])),
        ]
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        # The last one first, so that the first port answers when all do.
        serving = [asyncio.create_task(server.serve()) for server in reversed(servers)]
        await stopped.wait()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)


if __name__ == "__main__":
    configure_logging("info")
    uvloop.run(serve(sys.argv[1:]))
