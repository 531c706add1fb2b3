"""What goes on while something is done to the keys: nobody may notice it."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.keys.people import first_name, pan, phone
from tests.service import Client, Person
from tests.waiting import eventually

PEOPLE = 3
PHONES = 1000
"""Numbers that one person has in turn, and nobody else."""


class Traffic:
    """People who change what is sealed, read it back and are found by it, without a pause."""

    def __init__(self, client: Client) -> None:
        self.people = [client.user(email=None) for _ in range(PEOPLE)]
        self.done: Counter[str] = Counter()
        self._rounds = [0] * PEOPLE
        self._admin = client.user(scope="admin", client_id="back-office")
        self._dice = random.Random(20_261_126)

    @asynccontextmanager
    async def flowing(self) -> AsyncGenerator[None]:
        for number, person in enumerate(self.people):
            reply = await person.patch({"first_name": first_name(number), "pan_number": pan(number)})
            assert reply.status == 200, reply.body
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, person in enumerate(self.people):
                group.create_task(self._lives(number, person, stop))
            yield
            stop.set()
        print("\n" + ", ".join(f"{times} {what}" for what, times in self.done.items()))

    async def turned_over(self) -> None:
        """Nobody is at anything that they were at before."""
        before = list(self._rounds)

        async def all_are() -> bool:
            return all(now > was + 1 for was, now in zip(before, self._rounds, strict=True))

        await eventually(all_are)

    async def _lives(self, number: int, person: Person, stop: asyncio.Event) -> None:
        while not stop.is_set():
            mine = phone(number * PHONES + self._dice.randrange(PHONES))
            reply = await person.patch({"phone": mine})
            assert reply.status == 200, reply.body
            self.done["writes"] += 1
            reply = await person.get()
            assert reply.status == 200, reply.body
            body = reply.json()
            seen = [body["pii_masked"], *(body["profile"][name] for name in ("first_name", "pan_number", "phone"))]
            assert seen == [False, first_name(number), pan(number), mine]
            self.done["reads"] += 1
            for asked in ({"phone": mine}, {"pan_number": pan(number)}):
                reply = await self._admin.send("POST", "/admin/users/search", json=asked)
                assert reply.status == 200, reply.body
                assert [item["id"] for item in reply.json()["items"]] == [str(person.id)]
                self.done["hits"] += 1
            self._rounds[number] += 1
