"""The keys: rewrapping beside reads, how fast a rotation is seen, how a start depends on the users, erasing."""

import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from statistics import median, quantiles
from uuid import uuid4

import asyncpg
import psycopg

from bench import load, people
from bench.load import Job
from bench.report import Result, at_least, below, compare
from bench.servers import Servers
from usercore import app
from usercore.db import Db
from usercore.erasure.actions import Erase, erase
from usercore.keys.actions import rotate
from usercore.outbox import SYSTEM
from usercore.pii import keystore
from usercore.pii.keyring import Keyring
from usercore.pii.kms import open_kms
from usercore.settings import load as load_settings
from usercore.users.actions import create_user
from usercore.worker import REWRAPS_PER_S

READERS = 500
KEYED = 300_000
"""Users with two data keys each, besides the readers: rewrapping them takes longer than the reads beside it."""
MANY = 1_000_000
PACE = 22_000
"""Keys a second that rewrapping beside reads aims at: no faster than it has to be, which takes least from them."""
ROUND_S = 3.0
WARM_UP_S = 0.5
STARTS = 5
PROCESSES = 4
ERASED = 200


def run(servers: Servers) -> list[Result]:
    environ = servers.environ("bench_keys")
    return [*_rewrap(servers, environ), *asyncio.run(_in_process(environ)), *_starts(servers, environ)]


def _rewrap(servers: Servers, environ: dict[str, str]) -> list[Result]:
    port, tokens = environ["PORT"], servers.tokens(READERS)
    requests = [load.get("/v1/me", token) for token in tokens.values()]
    alone: list[float] = []
    beside: list[float] = []
    beside_worker: list[float] = []
    with servers.running("usercore", "serve", environ=environ, port=port), load.client() as client:
        people.create(client, port, tokens)
        asyncio.run(_add_users(environ, KEYED))
        rates = [_moved(environ)]

        def reads(rounds: list[float]) -> None:
            rounds.append(client.run(Job(int(port), requests, ROUND_S, WARM_UP_S)).rate)

        for _ in range(3):
            _tidy(servers, environ)
            reads(alone)
            asyncio.run(_rotate(environ))
            rewrapping = _under_way(environ, PACE)
            reads(beside)
            rates.append(_rate(rewrapping))
            _tidy(servers, environ)
            asyncio.run(_rotate(environ))
            rewrapping = _under_way(environ, REWRAPS_PER_S)
            reads(beside_worker)
            rewrapping.kill()  # the next one goes on
            rewrapping.communicate()
    alone_rate, *busy = rates
    return [
        at_least("keys", "rewrap, nothing else to do", alone_rate, "keys/s", 20_000),
        at_least("keys", "rewrap beside reads, paced", median(busy), "keys/s", 20_000),
        compare("keys", "GET /v1/me beside it", beside, "without it", alone, at_least=0.9),
        compare("keys", "GET /v1/me beside a worker at its own pace", beside_worker, "without it", alone, at_least=0.9),
    ]


def _moved(environ: dict[str, str]) -> float:
    asyncio.run(_rotate(environ))
    return _rate(_keys_rewrap(environ))


def _keys_rewrap(environ: dict[str, str], *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "usercore", "keys-rewrap", "--json", *more]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)


def _under_way(environ: dict[str, str], rate: int) -> "subprocess.Popen[bytes]":
    """When it has moved its first keys: before, it starts and counts what there is to do."""
    rewrapping = _keys_rewrap(environ, "--rate", str(rate))
    active = "select epoch from pii_keyring where purpose = 'user_keys' and state = 'active'"
    with psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True) as owner:
        while owner.execute(f"select from user_keys where epoch = ({active}) limit 1").fetchone() is None:
            time.sleep(0.05)
    return rewrapping


def _tidy(servers: Servers, environ: dict[str, str]) -> None:
    """What a pass leaves to PostgreSQL to do, before the next measurement instead of in it."""
    with psycopg.connect(environ["POSTGRES_OWNER_URL"], autocommit=True) as owner:
        owner.execute("vacuum analyze user_keys")
    servers.checkpoint()


def _rate(rewrapping: "subprocess.Popen[bytes]") -> float:
    out, _ = rewrapping.communicate(timeout=300)
    done = json.loads(out)
    assert done["user_keys"] >= KEYED, done
    return done["user_keys"] / done["seconds"]


async def _rotate(environ: dict[str, str]) -> None:
    settings = load_settings(environ)
    kms, owner = open_kms(settings.pii_encryption_key_id), await Db.connect(environ["POSTGRES_OWNER_URL"], max_size=1)
    await rotate(owner, kms, ["user_keys"], settle_s=0)
    await owner.close()


async def _add_users(environ: dict[str, str], count: int) -> None:
    """Users with their data keys and nothing else, by COPY."""
    settings = load_settings(environ)
    keyring, db = Keyring(), await Db.connect(environ["POSTGRES_URL"], max_size=1)
    await keystore.load(db, open_kms(settings.pii_encryption_key_id), keyring)
    await db.close()
    owner = await asyncpg.connect(environ["POSTGRES_OWNER_URL"])
    ids = [uuid4() for _ in range(count)]
    await owner.execute("create temporary table made (id uuid)")
    await owner.copy_records_to_table("made", records=[(each,) for each in ids])
    await owner.execute(
        "insert into users (id, auth_id, created_at, updated_at) select id, id, now(), now() from made", timeout=300
    )
    columns = ["user_id", "retention_class", "version", "epoch", "wrapped"]
    rows = (
        (row.user_id, row.retention_class, row.version, row.epoch, row.wrapped)
        for each in ids
        for row in keyring.new_user_keys(each)
    )
    await owner.copy_records_to_table("user_keys", records=rows, columns=columns, timeout=300)
    await owner.execute("vacuum analyze user_keys, users", timeout=300)
    await owner.close()


async def _in_process(environ: dict[str, str]) -> list[Result]:
    settings = load_settings(environ)
    async with app.opened(settings) as parts:
        kms = open_kms(settings.pii_encryption_key_id)
        owner = await Db.connect(environ["POSTGRES_OWNER_URL"], max_size=2)
        seen = [Keyring() for _ in range(PROCESSES)]
        tasks = [asyncio.create_task(keystore.keep_loaded(parts.db, kms, each)) for each in seen]
        await asyncio.gather(*(each.ready.wait() for each in seen))
        began = time.monotonic()
        (epoch,) = await rotate(owner, kms, ["user_keys"])
        # A keyring tells nobody that it was refreshed.
        while any(each.active("user_keys").epoch != epoch for each in seen):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        visible_s = time.monotonic() - began
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await owner.close()
        work = parts.erasing
        took: list[float] = []
        for _ in range(ERASED):
            user_id = uuid4()
            await create_user(parts.db, parts.keyring, user_id, None, SYSTEM)
            began = time.monotonic()
            done = await erase(work, user_id, Erase("user_request"), SYSTEM, None)
            took.append(time.monotonic() - began)
            assert done.certificate is not None
    return [
        below("keys", f"rotation, until {PROCESSES} processes use it", visible_s, "s", 5),
        below("keys", "erase with certificate, p95", quantiles(took, n=20)[-1] * 1000, "ms", 1000),
    ]


def _starts(servers: Servers, environ: dict[str, str]) -> list[Result]:
    """Until /health/live answers, with a million users more and without any, in turns."""
    asyncio.run(_add_users(environ, MANY))
    servers.checkpoint()
    without = servers.environ("bench_keys_few")
    few: list[float] = []
    many: list[float] = []
    for _ in range(STARTS):
        few.append(_start_s(servers, without))
        many.append(_start_s(servers, environ))
    return [below("keys", "start with 10^6 users, beside without any", median(many) / median(few), "times", 1.2)]


def _start_s(servers: Servers, environ: dict[str, str]) -> float:
    began = time.monotonic()
    with servers.running("usercore", "serve", environ=environ, port=environ["PORT"]):
        return time.monotonic() - began
