"""kill -9 at every step of a verification: it ends as without, and nobody is asked or told twice for it."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import pytest_asyncio

from tests.chaos.conftest import Start
from tests.chaos.moments import Crossing, Front, Moments, calls, commits, started
from tests.chaos.programs import Program
from tests.databases import DatabaseUrls
from tests.kyc.conftest import SANDBOXES, World
from tests.service import Client, Person, Signer, listening
from tests.trail import events_of
from tests.waiting import eventually
from usercore import app, worker
from usercore.db import Conn
from usercore.devstack.processes import free_port
from usercore.settings import load
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import running
from usercore.worker import Parts

MOST = 40
"""Moments of one flow: none has nearly as many."""
EVENTS = {
    "tier_1": ["user.kyc.initiated.v1", "user.kyc.updated.v1", "user.verified.v1"],
    "tier_2": ["user.kyc.initiated.v1", "user.kyc.updated.v1", "user.verified.v1"] * 2,
}
"""Of a person without a crash, besides those of the profile."""
DUE = (
    "update kyc_cases set leased_until = null",
    "update kyc_cases set next_look_at = now() where completed_at is null",
    "update kyc_attempts set called_at = now() - interval '1 minute' where state = 'starting'",
    "update webhook_inbox set next_try_at = now() where state = 'waiting'",
)
"""The time has passed after which somebody else takes up what a dead program was at."""
NOT_APPLIED = "select count(*) from webhook_inbox where state = 'waiting' or body_enc is not null"
LOOKED_AFTER = "select looks > 0 from kyc_cases where user_id = $1"
"""Whether the sweeper is done with the user's only case."""


class Scene(World):
    """A world whose programs can be killed; a copy of each, in the test's process, goes on after them."""

    def __init__(
        self,
        client: Client,
        parts: Parts,
        sandboxes: Mapping[str, Sandbox],
        urls: Mapping[str, str],
        *,
        owner: Conn,
        moments: Moments,
        front: Front,
        vendors: Mapping[str, Crossing],
        program: Callable[..., Program],
    ) -> None:
        super().__init__(client, parts, sandboxes, urls)
        self.owner = owner
        self.moments = moments
        self.front = front
        self.vendors = vendors
        self.program = program
        self._numbers = itertools.count(1000)

    async def someone(self) -> Person:
        """A person with a PAN of their own."""
        return await self.person(pan_number=f"ABCPV{next(self._numbers)}F")

    @asynccontextmanager
    async def others_at_work(self) -> AsyncGenerator[None]:
        """The loops of KYC in another copy."""
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(self.parts, ("webhooks", "kyc"), stop))
        try:
            yield
        finally:
            stop.set()
            await working

    async def waiting_message(self, person: Person) -> None:
        """The person finishes, and the vendor's message is kept; nobody applies it."""
        await self.finish(person, "approve")

        async def kept() -> bool:
            return await self.owner.fetchval("select count(*) from webhook_inbox where state = 'waiting'") == 1

        await eventually(kept)

    async def killed_at_work(self, loop: str, number: int) -> None:
        """A worker with this loop, killed at its so-manieth request: the loop asks again when nothing is left."""
        self.moments.aim(self.program("work", loop), number, answers=False)
        await eventually(self._is_over, why=f"{loop} comes to moment {number}: {self.moments.names}")

    async def _is_over(self) -> bool:
        return self.moments.over.is_set()

    async def ends_well(self, person: Person, tier: str, *, finish: bool = False) -> None:
        """After a kill: others go on, the person finishes unless they have, and all is as if nothing had been."""
        self.moments.rest()
        for statement in DUE:
            await self.owner.execute(statement)
        async with self.others_at_work():
            if finish:
                await self.finish(person, "approve")
            assert (await self.becomes(person, "approved"))["kyc_tier"] == tier

            async def applied() -> bool:
                return await self.owner.fetchval(NOT_APPLIED) == 0

            await eventually(applied)
        at = self.moments.names[-1:]
        events = [event["event_type"] for event in await events_of(self.owner, person.id)]
        assert [event for event in events if "kyc" in event or "verified" in event] == EVENTS[tier], at
        attempts = await self.owner.fetch(
            "select a.id, a.state::text, a.vendor, a.vendor_case_id, c.target_tier::text from kyc_attempts a "
            "join kyc_cases c on c.id = a.case_id where c.user_id = $1 order by a.created_at",
            person.id,
        )
        tiers = [f"tier_{number}" for number in range(1, int(tier[-1]) + 1)]
        assert [(each["target_tier"], each["state"]) for each in attempts] == [(each, "started") for each in tiers], at
        for attempt in attempts:
            known = [case for case in self.sandboxes[attempt["vendor"]].cases.values() if case.has(str(attempt["id"]))]
            assert [case.reference for case in known] == [attempt["vendor_case_id"]], at
        claims = "select count(*) from identity_claims where user_id = $1 and kind = 'pan'"
        assert await self.owner.fetchval(claims, person.id) == 1, at
        evidence = "select count(*) from kyc_evidence e where e.attempt_id = $1 and e.source = 'fetch'"
        for attempt in attempts:
            assert await self.owner.fetchval(evidence, attempt["id"]) <= 1, at


@pytest_asyncio.fixture
async def scene(
    environ: dict[str, str], signer: Signer, database: DatabaseUrls, owner: Conn, programs: Start
) -> AsyncGenerator[Scene]:
    port = free_port()
    moments = Moments()
    front = Front("127.0.0.1", port)
    url = urlsplit(database.app)
    postgres = Crossing(str(url.hostname), url.port or 5432, commits, moments)
    sandboxes: dict[str, Sandbox] = {}
    urls: dict[str, str] = {}
    vendors: dict[str, Crossing] = {}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for proxy in (front, postgres):
            await stack.enter_async_context(started(proxy))
        through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{postgres.port}").geturl()
        environ["PUBLIC_URL"] = f"http://127.0.0.1:{front.port}"
        environ["KYC_INITIATE_LIMIT_PER_HOUR"] = "1000"
        for name, kind in SANDBOXES.items():
            secret = f"secret of {name}"
            hook = f"{environ['PUBLIC_URL']}/v1/kyc/webhook/{name}"
            sandboxes[name] = kind(Options(webhook_secret=secret, webhook_url=hook))
            urls[name] = await stack.enter_async_context(running(sandboxes[name]))
            vendors[name] = Crossing("127.0.0.1", urlsplit(urls[name]).port or 0, calls, moments)
            await stack.enter_async_context(started(vendors[name]))
            environ[f"{name.upper()}_BASE_URL"] = f"http://127.0.0.1:{vendors[name].port}"
            environ[f"{name.upper()}_API_KEY"] = environ[f"{name.upper()}_APP_ID"] = "sandbox"
            environ[f"{name.upper()}_WORKFLOW_ID"] = "wf_kyc"
            environ[f"{name.upper()}_WEBHOOK_SECRETS"] = secret
        # One message a case: two would be applied at the same time, and no moment would be the same twice.
        told = {
            "webhookUrl": f"{environ['PUBLIC_URL']}/v1/kyc/webhook/hyperverge",
            "events": ["FINISH_TRANSACTION_WEBHOOK"],
        }
        headers = {"appId": "sandbox", "appKey": "sandbox"}
        async with http.put(f"{urls['hyperverge']}/api/v1/config", json=told, headers=headers) as answer:
            assert answer.status == 200
        parts = await stack.enter_async_context(app.opened(load(environ)))
        edge, _ = await stack.enter_async_context(app.api(parts))
        base = await stack.enter_async_context(listening(edge, port))

        def program(*arguments: str) -> Program:
            return programs(*arguments, POSTGRES_URL=through)

        client = Client(http, base, signer)
        yield Scene(
            client, parts, sandboxes, urls, owner=owner, moments=moments, front=front, vendors=vendors, program=program
        )


async def at_every_moment(scene: Scene, kill: Callable[[int], Awaitable[bool]]) -> list[str]:
    """Kill at one moment after the other until nothing was left to do; the moments."""
    for number in range(1, MOST):
        if await kill(number):
            print(f"\n{number}: {', '.join(scene.moments.names)}")
            return list(scene.moments.names)
    raise AssertionError("there is no end of it")


async def test_initiate(scene: Scene) -> None:
    async def kill(number: int) -> bool:
        asha = await scene.someone()
        serve = await scene.program("serve").listens()
        asking = Person(Client(scene.client.http, serve.base, scene.client.signer), asha.id, None)
        asked = {"json": {}, "headers": {"Idempotency-Key": str(uuid4())}}
        scene.moments.aim(serve, number, answers=True)
        try:
            answered = (await asking.send("POST", "/v1/kyc/initiate", **asked)).status
        except aiohttp.ClientError:
            answered = None
        scene.moments.rest()
        serve.kill()
        assert answered in (None, 201)
        assert (answered is None) == (len(scene.moments.names) == number)
        again = await asha.send("POST", "/v1/kyc/initiate", **asked)
        assert again.status in (200, 201, 202), again.body
        await scene.ends_well(asha, "tier_1", finish=True)
        assert UUID(again.json()["case_id"]) == UUID((await scene.status(asha))["case"]["case_id"])
        return answered is not None

    names = await at_every_moment(scene, kill)
    assert "/v1/link-kyc/start answered" in names


async def test_receive(scene: Scene) -> None:
    """The vendor sends again what was not answered; the load balancer knows by then who lives."""
    own_port = int(scene.client.base.rpartition(":")[2])

    async def kill(number: int) -> bool:
        asha = await scene.someone()
        await scene.initiate(asha)
        serve = await scene.program("serve").listens()
        scene.front.lead_to(serve.port)
        scene.moments.aim(serve, number, answers=True)
        await scene.finish(asha, "approve")
        (case,) = [
            each for each in scene.sandboxes["hyperverge"].cases.values() if each.outcome and not each.deliveries
        ]

        async def over() -> bool:
            return scene.moments.over.is_set() or bool(case.deliveries)

        await eventually(over)
        scene.front.lead_to(own_port)

        async def delivered() -> bool:
            return bool(case.deliveries)

        await eventually(delivered)
        statuses = case.deliveries[0]["statuses"]
        assert statuses[-1] == 200
        left_alone = not scene.moments.over.is_set()
        serve.kill()
        assert (statuses == [200]) == left_alone
        await scene.ends_well(asha, "tier_1")
        return left_alone

    assert await at_every_moment(scene, kill) == ["commit asked", "commit answered"]


async def test_process_by_asking(scene: Scene) -> None:
    """HyperVerge's message says only that there is something to ask for."""

    async def kill(number: int) -> bool:
        asha = await scene.someone()
        await scene.initiate(asha)
        await scene.waiting_message(asha)
        await scene.killed_at_work("webhooks", number)
        done = await scene.owner.fetchval(NOT_APPLIED) == 0
        await scene.ends_well(asha, "tier_1")
        return done

    names = await at_every_moment(scene, kill)
    assert {"/v1/output asked", "/v1/link-kyc/results asked"} < set(names)


async def test_process_what_is_said(scene: Scene) -> None:
    """Signzy's message brings what it is about."""

    async def kill(number: int) -> bool:
        asha = await scene.someone()
        async with scene.others_at_work():
            await scene.verified(asha, "tier_1")
        await scene.initiate(asha)
        await scene.waiting_message(asha)
        await scene.killed_at_work("webhooks", number)
        done = await scene.owner.fetchval(NOT_APPLIED) == 0
        await scene.ends_well(asha, "tier_2")
        return done

    assert await at_every_moment(scene, kill) == ["commit asked"] * 5


async def test_sweep_what_was_not_started(scene: Scene) -> None:
    async def kill(number: int) -> bool:
        asha = await scene.someone()
        await start_dies(scene, asha)
        await scene.killed_at_work("kyc", number)
        done = bool(await scene.owner.fetchval(LOOKED_AFTER, asha.id))
        await scene.ends_well(asha, "tier_1", finish=True)
        return done

    assert "/v1/link-kyc/start asked" in await at_every_moment(scene, kill)


async def start_dies(scene: Scene, person: Person) -> None:
    """As after a kill before the vendor has heard of the attempt; it is due."""
    crossing = scene.vendors["hyperverge"]
    crossing.deaf, crossing.unheard = True, 0
    asking = asyncio.create_task(scene.initiate(person))

    async def called() -> bool:
        return crossing.unheard > 0

    await eventually(called)
    for call in list(scene.parts.kyc.calls):
        call.cancel()
    await asking
    crossing.deaf = False
    crossing.cut()
    for statement in DUE:
        await scene.owner.execute(statement)


async def test_sweep_what_nobody_told(scene: Scene) -> None:
    async def kill(number: int) -> bool:
        asha = await scene.someone()
        await scene.initiate(asha)
        await scene.finish(asha, "approve", webhook="drop")
        for statement in DUE:
            await scene.owner.execute(statement)
        await scene.killed_at_work("kyc", number)
        done = bool(await scene.owner.fetchval(LOOKED_AFTER, asha.id))
        await scene.ends_well(asha, "tier_1")
        return done

    assert "/v1/output asked" in await at_every_moment(scene, kill)
