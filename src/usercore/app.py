"""Puts the service together: the one module that knows all the others."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import cast

from aiohttp import ClientSession
from litestar.di import Provide

from usercore import telemetry, worker
from usercore.accounts import api as accounts_api
from usercore.artifacts import api as artifacts_api
from usercore.artifacts.actions import Artifacts
from usercore.artifacts.store import open_store
from usercore.attempts.actions import Kyc
from usercore.audit import api as audit_api
from usercore.auth import Authenticator
from usercore.callers import Service
from usercore.clickhouse import ClickHouse
from usercore.consents import api as consents_api
from usercore.db import Db
from usercore.edge import Edge
from usercore.erasure import api as erasure_api
from usercore.exports import api as exports_api
from usercore.health import Health
from usercore.kyc.actions import Rules, TierRules
from usercore.lookup import api as lookup_api
from usercore.pii import keystore
from usercore.pii.cipher import cipher
from usercore.pii.keyring import Keyring
from usercore.pii.kms import open_kms
from usercore.plugins.addresses import open_session
from usercore.plugins.documents import Documents
from usercore.plugins.http import VendorHttp
from usercore.plugins.loading import load
from usercore.prefs import api as prefs_api
from usercore.profiles import api as profiles_api
from usercore.profiles.actions import ProfileReader, ProfileWriter
from usercore.ratelimit import KYC_INITIATE, PROFILE_PATCH, Limiter, RedisGuard, Verdict
from usercore.reviews import api as reviews_api
from usercore.server import make_server, run, settle
from usercore.settings import Settings
from usercore.verification import api as verification_api
from usercore.web import build, build_ops
from usercore.webhooks import api as webhooks_api
from usercore.worker import Parts

log = telemetry.logger(__name__)

HANDLERS = (
    *profiles_api.ROUTES,
    *consents_api.ROUTES,
    *prefs_api.ROUTES,
    *verification_api.ROUTES,
    *webhooks_api.ROUTES,
    *reviews_api.ROUTES,
    *artifacts_api.ROUTES,
    *accounts_api.ROUTES,
    *erasure_api.ROUTES,
    *exports_api.ROUTES,
    *lookup_api.ROUTES,
    *audit_api.ROUTES,
)

KEYS_WAIT_S = 5.0
"""A start waits so long for the KMS, and goes on without it."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Parts]:
    """Database and keyring; the keyring is loaded, and kept up to date, in the background."""
    db = await Db.connect(settings.postgres_url.reveal(), max_size=settings.db_pool_size)
    kms = open_kms(settings.pii_encryption_key_id)
    keyring = Keyring(cipher(settings.pii_cipher))
    loading = asyncio.create_task(keystore.keep_loaded(db, kms, keyring), name="keyring")
    outside = open_session(production=settings.production)
    archive = open_archive(settings)
    try:
        kyc = _kyc(settings, db, keyring, outside)
        with suppress(TimeoutError):
            async with asyncio.timeout(KEYS_WAIT_S):
                await keyring.ready.wait()
        yield Parts(settings, db, keyring, kyc, _artifacts(settings, db, keyring, outside), archive)
        await kyc.finish_calls()
    finally:
        await outside.close()
        if archive is not None:
            await archive.close()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await kms.close()
        await db.close()


def open_archive(settings: Settings) -> ClickHouse | None:
    """The audit archive, which is connected to when it is needed; None without CLICKHOUSE_URL."""
    if settings.clickhouse_url is None:
        return None
    return ClickHouse(settings.clickhouse_url.reveal(), settings.clickhouse_cluster)


def _kyc(settings: Settings, db: Db, keyring: Keyring, outside: ClientSession) -> Kyc:
    """Raises VendorsRefused when a vendor that KYC_VENDORS names cannot be had."""
    metrics = telemetry.metrics

    def http_for(vendor: str) -> VendorHttp:
        return VendorHttp(vendor, outside, metrics, production=settings.production)

    return Kyc(
        db=db,
        keyring=keyring,
        vendors=load(settings, settings.variables, http_for, metrics),
        rules=Rules(tiers=cast("TierRules", settings.kyc_tiers), validity=timedelta(days=settings.kyc_validity_days)),
        public_url=(settings.public_url or "").rstrip("/"),
        redirect_hosts=settings.kyc_redirect_hosts,
        most_failures=settings.kyc_max_attempts,
        four_eyes=settings.kyc_four_eyes,
        calls=set(),
    )


def _artifacts(settings: Settings, db: Db, keyring: Keyring, outside: ClientSession) -> Artifacts:
    return Artifacts(
        db=db,
        keyring=keyring,
        documents=Documents(outside, settings.artifact_hosts, production=settings.production),
        store=open_store(settings.artifact_store_url),
    )


@asynccontextmanager
async def api(parts: Parts) -> AsyncGenerator[tuple[Edge, Edge]]:
    """The API and its listener of operations, on open parts."""
    settings, db, keyring = parts.settings, parts.db, parts.keyring
    metrics = telemetry.metrics
    redis = RedisGuard(settings.redis_url.reveal(), metrics)
    authenticator = Authenticator.from_settings(settings)
    health = Health(db, keyring, redis, settings.kafka_brokers, parts.archive)
    metrics.before_render(lambda: _show_pool(db))
    reader = ProfileReader(db.dedicated, keyring)
    writer = ProfileWriter(db, keyring)
    service = Service(
        db,
        keyring,
        reader,
        writer,
        parts.kyc,
        parts.artifacts,
        settings.hold_sources,
        parts.archive,
        settings.retention,
        settings.controller_name,
    )
    limiter = Limiter(redis)

    async def count_patch(subject: str) -> Verdict:
        return await limiter.hit(PROFILE_PATCH, subject, settings.profile_patch_limit_per_minute, 60)

    async def count_initiate(subject: str) -> Verdict:
        return await limiter.hit(KYC_INITIATE, subject, settings.kyc_initiate_limit_per_hour, 3600)

    try:
        edge = build(
            HANDLERS,
            settings=settings,
            authenticator=authenticator,
            ready=health.ready,
            dependencies={"service": Provide(lambda: service, use_cache=True, sync_to_thread=False)},
            limits={PROFILE_PATCH: count_patch, KYC_INITIATE: count_initiate},
        )
        yield edge, build_ops(edge, settings=settings, authenticator=authenticator, ready=health.ready)
    finally:
        await reader.close()
        await writer.close()
        await authenticator.close()
        await limiter.close()
        await redis.close()


async def serve(settings: Settings) -> None:
    """`usercore serve`: the API on PORT, and in production operations on OPS_PORT, until a signal."""
    async with opened(settings) as parts, api(parts) as (edge, ops):
        settle()
        servers = [make_server(edge, settings.listen_host, settings.port)]
        if settings.production:
            servers.append(make_server(ops, settings.listen_host, settings.ops_port))
        await run(servers)


async def work(settings: Settings, names: Sequence[str]) -> None:
    """`usercore work`: the background loops, with operations on OPS_PORT, until a signal."""
    async with opened(settings) as parts, api(parts) as (_, ops):
        settle()
        stop = asyncio.Event()
        server = make_server(ops, settings.listen_host, settings.ops_port)
        working = asyncio.create_task(worker.run(parts, names, stop))
        try:
            await run([server])
        finally:
            stop.set()
            await working


def _show_pool(db: Db) -> None:
    pool = db.pool_stats()
    telemetry.metrics.db_pool(in_use=pool.in_use, idle=pool.idle)
