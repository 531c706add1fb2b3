"""Fetching: each document once, whatever happens in between, and given up with a reason when it cannot be had."""

import asyncio
import hashlib
import os
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import get_args

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.artifacts.conftest import Desk, Fresh
from tests.plugins.vendor_server import Handler, serving
from usercore import telemetry
from usercore.artifacts.actions import MOST_TRIES, Place
from usercore.artifacts.store import Store, open_store
from usercore.events import now
from usercore.plugins import Artifact, ArtifactType, VendorProtocolError, VendorUnavailable

JPEG = b"\xff\xd8\xff\xe0" + os.urandom(200_000)


def counted(outcome: str) -> float:
    return telemetry.metrics.registry.get_sample_value("usercore_artifacts_total", {"outcome": outcome}) or 0.0


def answering(body: bytes = JPEG, content_type: str = "image/jpeg", status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, status=status)

    return answer


async def test_a_document_is_stored(desk: Desk) -> None:
    before = counted("stored")
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url + "/selfie?signature=secret")
        row = await desk.row(selfie)
        assert (row["state"], row["tries"], row["hash"], row["uploaded_at"]) == ("pending", 0, None, None)
        assert b"signature" not in row["source_enc"]
        assert await desk.fetch() == 1
        assert await desk.fetch() == 0
    row = await desk.row(selfie)
    assert (row["state"], row["hash"], row["size"], row["media_type"]) == (
        "stored",
        hashlib.sha256(JPEG).hexdigest(),
        len(JPEG),
        "image/jpeg",
    )
    assert row["uploaded_at"] is not None
    assert (row["source_enc"], row["next_try_at"], row["given_up_for"]) == (None, None, None)
    assert counted("stored") == before + 1
    assert desk.files() == [desk.file()]
    assert JPEG[1000:1016] not in desk.file().read_bytes()
    assert await desk.read(selfie) == JPEG


async def test_a_document_of_each_type_once(desk: Desk) -> None:
    kinds: tuple[ArtifactType, ...] = get_args(ArtifactType)
    async with serving(answering()) as served:
        found = [Artifact(type=kind, url=f"{served.url}/{kind}") for kind in kinds]
        added = await desk.add(*found, Artifact(type="selfie", url=f"{served.url}/another"))
        assert len(added) == len(kinds)
        assert await desk.add(*found) == added
        while await desk.fetch():
            pass
        assert Counter(request.path for request in served.requests) == Counter(f"/{kind}" for kind in kinds)
    assert desk.files() == sorted(desk.file(kind) for kind in kinds)


async def test_a_newer_address_is_taken_while_it_waits_and_not_after(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url + "/old")
        assert await desk.add_one(served.url + "/new") == selfie
        await desk.fetch()
        assert [request.path for request in served.requests] == ["/new"]
        stored = await desk.row(selfie)
        assert await desk.add_one(served.url + "/newer") == selfie
        assert await desk.row(selfie) == stored


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (answering(content_type="text/html"), "wrong_content"),
        (answering(b"no picture"), "wrong_content"),
        (answering(JPEG + bytes(200_000)), "too_large"),
        (answering(status=503), "refused"),
    ],
)
async def test_it_is_tried_again_later_each_time_and_given_up(desk: Desk, handler: Handler, reason: str) -> None:
    before = counted(reason), counted("given_up")
    async with serving(handler) as served:
        selfie = await desk.add_one(served.url)
        pauses: list[timedelta] = []
        for tries in range(1, MOST_TRIES):
            started = now()
            assert await desk.fetch_again() == 1
            assert await desk.fetch() == 0
            row = await desk.row(selfie)
            assert (row["state"], row["tries"]) == ("pending", tries)
            pauses.append(row["next_try_at"] - started)
        assert await desk.fetch_again() == 1
        assert await desk.fetch_again() == 0
        assert len(served.requests) == MOST_TRIES
    row = await desk.row(selfie)
    assert (row["state"], row["given_up_for"], row["tries"]) == ("given_up", reason, MOST_TRIES)
    assert (row["source_enc"], row["next_try_at"], row["hash"]) == (None, None, None)
    assert all(2 * earlier < later for earlier, later in pairwise(pauses))
    assert pauses[-1] < timedelta(hours=1)
    assert (counted(reason), counted("given_up")) == (before[0] + MOST_TRIES - 1, before[1] + 1)
    assert desk.files() == []


async def test_it_is_had_when_the_host_recovers(desk: Desk) -> None:
    answers = [answering(status=500), answering(b""), answering()]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers.pop(0)(request)

    async with serving(answer) as served:
        selfie = await desk.add_one(served.url)
        for _ in range(3):
            assert await desk.fetch_again() == 1
    assert (await desk.row(selfie))["state"] == "stored"
    assert await desk.read(selfie) == JPEG


async def test_one_that_hangs_does_not_keep_the_others(desk: Desk) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/selfie":
            return await asyncio.get_running_loop().create_future()
        return await answering()(request)

    async with serving(answer) as served:
        found = [Artifact(type=kind, url=f"{served.url}/{kind}") for kind in ("selfie", "pan_card")]
        selfie, card = await desk.add(*found)
        assert await desk.fetch() == 2
    assert (await desk.row(card))["state"] == "stored"
    assert (await desk.row(selfie))["state"] == "pending"


# Addresses that are too old -------------------------------------------------------------------------------------------


def keeping(*paths: str) -> Handler:
    """A host that knows these paths, and says 403 to all others."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answering(status=200 if request.path in paths else 403)(request)

    return answer


async def test_an_address_that_is_too_old_is_replaced_at_once(desk: Desk) -> None:
    async with serving(keeping("/new")) as served:
        selfie = await desk.add_one(served.url + "/old")
        fresh = Fresh(served.url + "/new")
        assert await desk.fetch(fresh) == 1
        assert fresh.asked == [(desk.attempt, "selfie")]
        assert [request.path for request in served.requests] == ["/old", "/new"]
    row = await desk.row(selfie)
    assert (row["state"], row["tries"]) == ("stored", 1)


@pytest.mark.parametrize("answer", [None, VendorProtocolError()])
async def test_without_a_new_one_it_is_tried_again(desk: Desk, answer: Exception | None) -> None:
    async with serving(keeping()) as served:
        selfie = await desk.add_one(served.url + "/old")
        for _ in range(MOST_TRIES):
            assert await desk.fetch_again(Fresh(answer)) == 1
    row = await desk.row(selfie)
    assert (row["state"], row["given_up_for"]) == ("given_up", "expired")


async def test_a_new_one_that_is_too_old_as_well(desk: Desk) -> None:
    async with serving(keeping()) as served:
        selfie = await desk.add_one(served.url + "/old")
        fresh = Fresh(served.url + "/new")
        assert await desk.fetch(fresh) == 1
        assert len(served.requests) == 2
    assert ((await desk.row(selfie))["state"], len(fresh.asked)) == ("pending", 1)


async def test_a_new_one_on_a_host_that_is_not_listed(desk: Desk) -> None:
    async with serving(keeping()) as served:
        selfie = await desk.add_one(served.url + "/old")
        for _ in range(MOST_TRIES):
            await desk.fetch_again(Fresh("http://127.0.0.2:1/new", "http://127.0.0.2:1/new"))
    assert (await desk.row(selfie))["given_up_for"] == "wrong_host"


async def test_a_vendor_that_is_away_costs_no_try(desk: Desk) -> None:
    async with serving(keeping("/new")) as served:
        selfie = await desk.add_one(served.url + "/old")
        for _ in range(MOST_TRIES + 2):
            assert await desk.fetch_again(Fresh(VendorUnavailable())) == 1
        row = await desk.row(selfie)
        assert (row["state"], row["tries"]) == ("pending", 0)
        assert row["next_try_at"] > now()
        await desk.fetch_again(Fresh(served.url + "/new"))
    assert (await desk.row(selfie))["state"] == "stored"


# Ours to answer for ---------------------------------------------------------------------------------------------------


async def test_a_store_that_is_away_costs_no_try(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url)
        (desk.folder / "kyc").write_bytes(b"a file where a folder should be")
        for _ in range(MOST_TRIES + 1):
            assert await desk.fetch_again() == 1
        row = await desk.row(selfie)
        assert (row["state"], row["tries"]) == ("pending", 0)
        (desk.folder / "kyc").unlink()
        assert await desk.fetch_again() == 1
    assert await desk.read(selfie) == JPEG


async def test_nobody_can_open_it_any_more(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url)
        await desk.owner.execute("update kyc_artifacts set storage_ref_enc = source_enc")
        assert await desk.fetch() == 1
        assert served.requests == []
    assert (await desk.row(selfie))["given_up_for"] == "unreadable"


async def test_the_user_was_erased(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url)
        await desk.owner.execute("update users set erased_at = now() where id = $1", desk.user)
        assert await desk.fetch() == 1
        assert served.requests == []
    row = await desk.row(selfie)
    assert (row["state"], row["given_up_for"], row["source_enc"]) == ("given_up", "account_erased", None)


# Whoever dies, and whoever is too many --------------------------------------------------------------------------------


class Died(Exception):
    """The worker is gone."""


class DyingStore(Store):
    """The process that has it dies before an upload, or right after."""

    def __init__(self, store: Store, *, after: bool) -> None:
        super().__init__(store._store)
        self._after = after

    async def put(self, key: str, data: bytearray) -> None:
        if self._after:
            await super().put(key, data)
        raise Died


@pytest.mark.parametrize("after", [False, True])
async def test_a_worker_dies_around_the_upload(desk: Desk, after: bool) -> None:
    dying = replace(desk.artifacts, store=DyingStore(desk.artifacts.store, after=after))
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url)
        with pytest.raises(Died):
            await desk.fetch(artifacts=dying)
        assert ((await desk.row(selfie))["state"], len(desk.files())) == ("pending", int(after))
        assert await desk.fetch() == 0  # leased
        assert await desk.fetch_again() == 1
        assert len(served.requests) == 2
    assert desk.files() == [desk.file()]
    assert await desk.read(selfie) == JPEG


async def test_what_a_dead_worker_uploaded_goes_when_the_document_is_given_up(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie = await desk.add_one(served.url)
        with pytest.raises(Died):
            await desk.fetch(artifacts=replace(desk.artifacts, store=DyingStore(desk.artifacts.store, after=True)))
        assert desk.files() == [desk.file()]
    for _ in range(MOST_TRIES - 1):
        assert await desk.fetch_again() == 1
    assert (await desk.row(selfie))["given_up_for"] == "unreachable"
    assert desk.files() == []


async def test_two_workers_at_once(desk: Desk) -> None:
    kinds: tuple[ArtifactType, ...] = get_args(ArtifactType)
    async with serving(answering()) as served:
        added = await desk.add(*(Artifact(type=kind, url=f"{served.url}/{kind}") for kind in kinds))
        taken = await asyncio.gather(*(desk.fetch() for _ in range(4)))
        assert sum(taken) == len(kinds)
        assert Counter(request.path for request in served.requests) == Counter(f"/{kind}" for kind in kinds)
    assert {(await desk.row(each))["state"] for each in added} == {"stored"}


async def test_a_row_that_somebody_holds_keeps_nobody_waiting(desk: Desk) -> None:
    async with serving(answering()) as served:
        selfie, card = await desk.add(
            *(Artifact(type=kind, url=f"{served.url}/{kind}") for kind in ("selfie", "pan_card"))
        )
        async with desk.owner.transaction():
            await desk.owner.execute("select from kyc_artifacts where id = $1 for update", selfie)
            assert await desk.fetch() == 1
        assert (await desk.row(card))["state"] == "stored"
        assert await desk.fetch() == 1


async def test_a_worker_that_is_late_writes_nothing(desk: Desk) -> None:
    """Its lease is over, and another one has done it meanwhile."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if not arrived.is_set():
            arrived.set()
            await release.wait()
        return await answering()(request)

    async with serving(answer) as served:
        selfie = await desk.add_one(served.url)
        late = asyncio.create_task(desk.fetch())
        await arrived.wait()
        assert await desk.fetch_again() == 1
        row = await desk.row(selfie)
        assert row["state"] == "stored"
        release.set()
        assert await late == 1
    assert await desk.row(selfie) == row
    assert await desk.read(selfie) == JPEG


async def test_a_worker_that_is_late_and_failed_writes_nothing(desk: Desk) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await release.wait()
        return await answering(status=500)(request)

    async with serving(answer) as served:
        selfie = await desk.add_one(served.url)
        late = asyncio.create_task(desk.fetch())
        await arrived.wait()
        lease = await desk.owner.fetchval(
            "update kyc_artifacts set tries = 2, next_try_at = next_try_at + interval '1 minute' returning next_try_at"
        )
        release.set()
        await late
    row = await desk.row(selfie)
    assert (row["tries"], row["next_try_at"]) == (2, lease)


def test_stores_of_each_kind_open() -> None:
    """Without asking anybody: credentials are looked for at the first call."""
    for url in ("s3://bucket/folder", "gs://bucket/folder"):
        assert isinstance(open_store(url), Store)


async def test_the_folder_is_made_and_an_object_is_replaced(desk: Desk) -> None:
    store = open_store((desk.folder / "a folder" / "below").as_uri())
    await store.put("kyc/x", bytearray(b"first"))
    await store.put("kyc/x", bytearray(b"second"))
    assert b"".join([chunk async for chunk in store.get("kyc/x")]) == b"second"
    await store.remove("kyc/x")
    await store.remove("kyc/x")
    with pytest.raises(FileNotFoundError):
        await anext(store.get("kyc/x"))


def test_a_place_does_not_show_its_key() -> None:
    assert repr(Place("kyc/x", b"secret")) == "Place(…)"
