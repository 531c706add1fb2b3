"""The canary sweep: one user's values are looked for in everything that the service leaves anywhere."""

import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiokafka import AIOKafkaProducer
from kyc_hyperverge.sandbox import HyperVergeSandbox
from kyc_signzy.sandbox import Account, SignzySandbox

from tests.canary import Place, Searcher, summary
from tests.chaos.programs import Program, progress
from tests.journey import PATCHES_A_MINUTE, Journey, Recorder
from tests.journey_kyc import PICTURES, Verification, secrets_of, stored_places
from tests.service import Signer
from tests.stores import (
    SpanReceiver,
    clickhouse_places,
    is_archived,
    is_published,
    kafka_places,
    postgres_places,
    redis_places,
)
from tests.waiting import eventually
from tests.zyx import CANARIES, SEARCHER, leaks
from usercore import kafka as kafka_clients
from usercore.clickhouse import ClickHouse
from usercore.db import Conn
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.processes import free_port
from usercore.devstack.redis import Redis
from usercore.settings import Settings, load
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import running


@asynccontextmanager
async def sandboxes(environ: dict[str, str]) -> AsyncGenerator[dict[str, tuple[Sandbox, str]]]:
    """The vendors, one of which sends whole Aadhaar numbers; the environment says where they are."""
    port = environ["PORT"] = str(free_port())
    environ["PUBLIC_URL"] = f"http://127.0.0.1:{port}"
    found: dict[str, tuple[Sandbox, str]] = {}
    async with AsyncExitStack() as stack:
        for vendor in ("hyperverge", "signzy"):
            secrets = secrets_of(vendor)
            options = Options(
                webhook_secret=secrets[f"{vendor.upper()}_WEBHOOK_SECRETS"],
                webhook_url=f"http://127.0.0.1:{port}/v1/kyc/webhook/{vendor}",
            )
            sandbox = (
                HyperVergeSandbox(options) if vendor == "hyperverge" else SignzySandbox(options, Account(unmasked=True))
            )
            url = await stack.enter_async_context(running(sandbox))
            environ |= {**secrets, f"{vendor.upper()}_BASE_URL": url}
            found[vendor] = (sandbox, url)
        yield found


@asynccontextmanager
async def producing(settings: Settings) -> AsyncGenerator[AIOKafkaProducer]:
    producer = kafka_clients.producer(settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


class Log:
    """What a server of ours logs from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._start = file.stat().st_size

    def place(self) -> Place:
        return Place("logs", f"of {self._file.parent.name}", self._file.read_bytes()[self._start :])


class Programs:
    """`usercore serve` and `usercore work`, each with a client of its listener."""

    def __init__(self, home: Callable[[str], Path], environ: Mapping[str, str]) -> None:
        self.homes = {name: home(f"canary-{name}") for name in ("serve", "work")}
        ports = {"serve": int(environ["PORT"]), "work": free_port()}
        self.programs = {name: Program(folder, [name], environ, ports[name]) for name, folder in self.homes.items()}

    async def __aenter__(self) -> "Programs":
        for program in self.programs.values():
            program.start()
        for program in self.programs.values():
            await program.listens()
        return self

    async def __aexit__(self, *_: object) -> None:
        for program in self.programs.values():
            program.kill()

    def logs(self) -> list[Place]:
        return [Place("logs", f"of {name}", (home / "log").read_bytes()) for name, home in self.homes.items()]

    async def stop(self) -> None:
        """As a deployment does, so that what was held back is still exported."""
        for program in self.programs.values():
            program.send(signal.SIGTERM)
        for program in self.programs.values():
            assert await program.ended(within_s=30) == 0


# Every answer and log event that the journey has to have met, or it has not been where values get out.
ANSWERS = """
200 201 304 400_malformed_body 400_malformed_webhook 401_unauthenticated 404_case_not_found 404_not_found
405_method_not_allowed 409_account_not_active 409_case_changed 409_consent_not_granted 409_identity_locked
409_kyc_resubmit_not_allowed 409_pii_unavailable 410_account_erased 412_version_mismatch
413_body_too_large 415_unsupported_media_type 422_email_managed_by_auth 422_idempotency_mismatch 422_validation_failed
429_rate_limited 500_internal_error 503_audit_unavailable
"""
EVENTS = """
dead_letter http_request library_log pii_open_failed request_failed request_unavailable token_refused user_key_replaced
"""
SPANS = (
    b"user.create",
    b"user.update_profile",
    b"user.initiate_kyc",
    b"user.process_kyc_webhook",
    b"vendor.start",
    b"PATCH /v1/me",
    b"GET /v1/me/consents",
)


async def test_no_value_is_anywhere(
    server_home: Callable[[str], Path],
    environ: dict[str, str],
    mock_kafka: Kafka,
    own_redis: Redis,
    postgres: Postgres,
    signer: Signer,
    owner: Conn,
    archive: ClickHouse,
) -> None:
    async with SpanReceiver() as spans, aiohttp.ClientSession() as http, sandboxes(environ) as vendors:
        environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "LOG_LEVEL": "debug",
            "TRUSTED_PROXIES": "127.0.0.0/8",
            "PROFILE_PATCH_LIMIT_PER_MINUTE": str(PATCHES_A_MINUTE),
        }
        settings = load(environ)
        servers_logs = [Log(server.home / "log") for server in (postgres, own_redis, mock_kafka)]
        async with producing(settings) as producer, Programs(server_home, environ) as service:
            api, ops = (Recorder(http, program.base, signer) for program in service.programs.values())
            for side in (api, ops):
                await eventually(side.is_ready, why="the service starts")
            journey = Journey(api, owner, producer, ops.base)
            verification = Verification(api, journey.somebody(), journey.somebody(), owner, vendors)
            await verification.all()
            await journey.all()
            async with progress(settings) as consumed:
                await eventually(consumed.done, why="all events are consumed")
            await eventually(partial(is_published, owner), why="all events are published")
            await eventually(partial(is_archived, owner), why="the trail is in the archive")
            for side in (api, ops):
                for accept in ("text/plain", "application/openmetrics-text"):
                    await side.send("GET", "/metrics", headers={"Accept": accept})
            in_redis = await redis_places(own_redis.url)
            await service.stop()
        shown = Program(server_home("dlq-list"), ["dlq-list", "--json"], environ)
        shown.start()
        assert await shown.ended(within_s=30) == 0
        assert shown.log().count('"from_offset"') == journey.dead
        in_kafka = await kafka_places(settings)
        logs = service.logs() + [log.place() for log in servers_logs]
        logs.append(Place("logs", "of dlq-list", shown.log().encode()))
        in_archive = await clickhouse_places(archive)
        in_store = stored_places(Path(urlsplit(environ["ARTIFACT_STORE_URL"]).path))
        left = [*await postgres_places(owner), *in_redis, *in_kafka, *in_archive, *in_store, *logs, *spans.places]
    places = [*left, *api.received, *ops.received]
    searcher = Searcher([*CANARIES, *verification.secrets()])
    found = searcher.search(places)
    print(summary(searcher, places, found))
    print(", ".join(f"{count} × {answer}" for answer, count in sorted(api.answers.items())))

    assert leaks(found) == []
    # What the searcher must find: all that was sent, where it was sent to, and what is kept in clear on purpose.
    assert {finding.canary for finding in SEARCHER.search(api.sent)} == {canary.name for canary in CANARIES}
    hits = {(finding.canary, finding.place) for finding in found}
    for column in ("user_profiles.email", "user_profiles.avatar_url", "user_consents.ip_addr"):
        assert any(place == f"postgres public.{column}" for _, place in hits), column
    for topic in ("auth.created.v1", "auth.account.deactivated.v1", "usercore.dlq.v1"):
        assert any(place.startswith(f"kafka {topic}") for _, place in hits), topic
    assert len(in_store) >= 4
    assert [place.name for place in in_store if any(start in place.data for start in PICTURES)] == []
    # And that it was everywhere.
    assert {answer.replace("_", " ", 1) for answer in ANSWERS.split()} <= api.answers.keys()
    assert set(EVENTS.split()) <= {line["event"] for program in service.programs.values() for line in program.events()}
    exported = b"".join(place.data for place in spans.places)
    assert [name for name in SPANS if name not in exported] == []
    for topic in ("user.created.v1", "user.updated.v1", "user.frozen.v1"):
        assert any(place.name.startswith(topic) for place in in_kafka), topic
    assert (
        sum(place.name.startswith("usercore.dlq.v1") and place.name.endswith("value") for place in in_kafka)
        == journey.dead
    )
    assert any(place.name.startswith("key 'user:rate:") for place in in_redis)
    assert len(in_archive) >= 18
    assert all(word in b"".join(place.data for place in in_archive) for word in (b"profile.updated", b"sealed"))
