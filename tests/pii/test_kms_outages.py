"""A minute without the KMS, under load: who runs serves on, who starts shows masks or waits, new epochs wait."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import DatabaseUrls
from tests.keys.people import first_name, pan
from tests.keys.traffic import PEOPLE, Traffic
from tests.pii.kms_stands import Bao, Stand, one_of_each
from tests.service import Client, Person, Signer, client_of
from tests.waiting import eventually
from usercore import app
from usercore.db import Db
from usercore.errors import KmsUnavailable
from usercore.keys.actions import rotate
from usercore.pii.keyring import PURPOSES
from usercore.pii.kms import Kms
from usercore.settings import Settings, load
from usercore.worker import Parts

OUTAGE_S = 60.0
BACK_S = 30.0
"""So long after an outage all is as before without a restart."""


class Outage:
    """One service with one provider: a process that runs when the KMS goes, and one that starts without it."""

    def __init__(self, stand: Stand, settings: Settings, signer: Signer) -> None:
        self._stand = stand
        self._settings = settings
        self._signer = signer
        self.seen: Counter[str] = Counter()

    async def lived_through(self) -> None:
        assert self._settings.postgres_owner_url is not None
        operator = await Db.connect(self._settings.postgres_owner_url.reveal(), min_size=1, max_size=2)
        kms = self._stand.open()
        try:
            async with app.opened(self._settings) as parts, client_of(parts, self._signer) as client:
                traffic = Traffic(client)
                async with traffic.flowing():
                    await traffic.turned_over()
                    self._stand.cut_off(True)
                    over_at = asyncio.get_running_loop().time() + OUTAGE_S
                    async with app.opened(self._settings) as late, client_of(late, self._signer) as later:
                        while asyncio.get_running_loop().time() < over_at:
                            await self._nothing_new(operator, kms)
                            await self._newcomer_is_served(client)
                            await self._late_shows_nothing(later, traffic)
                        assert not late.keyring.available
                        self._stand.cut_off(False)
                        mended_at = asyncio.get_running_loop().time()
                        await eventually(lambda: _is_available(late), within_s=BACK_S, why="the late one has no keys")
                        self.seen["seconds till it was back"] = round(asyncio.get_running_loop().time() - mended_at)
                        await self._late_shows_all(later, traffic)
                        made = dict(zip(PURPOSES, await self._rotated(operator, kms), strict=True))

                        async def all_know() -> bool:
                            known = [
                                {each: one.keyring.active(each).epoch for each in PURPOSES} for one in (parts, late)
                            ]
                            return known == [made, made]

                        await eventually(all_know, within_s=5)
                        await traffic.turned_over()
                        await self._late_shows_all(later, traffic)
                self.seen.update(traffic.done)
        finally:
            await kms.close()
            await operator.close()

    async def _nothing_new(self, operator: Db, kms: Kms) -> None:
        with pytest.raises(KmsUnavailable):
            await rotate(operator, kms, PURPOSES, settle_s=0)
        self.seen["rotations that wait"] += 1

    async def _rotated(self, operator: Db, kms: Kms) -> list[int]:
        """As soon as its own client has noticed that the KMS is back."""

        async def done() -> list[int] | None:
            try:
                return await rotate(operator, kms, PURPOSES)
            except KmsUnavailable:
                return None

        return await eventually(done, within_s=BACK_S) or []

    async def _newcomer_is_served(self, client: Client) -> None:
        asha = client.user()
        reply = await asha.patch({"first_name": "Asha", "phone": "+919876500000"})
        assert (reply.status, reply.json()["pii_masked"]) == (200, False)
        self.seen["newcomers"] += 1

    async def _late_shows_nothing(self, later: Client, traffic: Traffic) -> None:
        for number, person in enumerate(traffic.people):
            same = Person(later, person.id, None)
            for reply in (await same.get(), await same.patch({"first_name": "Usha"}), await later.user().get()):
                assert reply.status in (200, 503), reply.body
                assert reply.status == 503 or reply.json()["pii_masked"]
                for secret in (first_name(number), pan(number), "+91987654"):
                    assert secret.encode() not in reply.body
                self.seen["masked" if reply.status == 200 else "told to wait"] += 1
        ready = await later.send("GET", "/health/ready")
        assert (ready.status, ready.json()["components"]["kms"]) == (200, "unavailable")

    async def _late_shows_all(self, later: Client, traffic: Traffic) -> None:
        for number, person in enumerate(traffic.people):
            reply = await Person(later, person.id, None).get()
            assert reply.status == 200, reply.body
            assert reply.json()["profile"]["pan_number"] == pan(number)


async def _is_available(parts: Parts) -> bool:
    return parts.keyring.available


async def test_a_minute_without_each_provider(
    environ: dict[str, str],
    signer: Signer,
    databases: Callable[[], DatabaseUrls],
    bao: Bao,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "kms").mkdir()
    async with one_of_each(tmp_path / "kms", bao, monkeypatch.setenv) as each:
        by_uri = {stand.uri: stand for stand in each}

        def opened(uri: str) -> Kms:
            return by_uri[uri].open()

        monkeypatch.setattr(app, "open_kms", opened)
        outages: list[Outage] = []
        for stand in each:
            urls = databases()
            own = {"POSTGRES_URL": urls.app, "POSTGRES_OWNER_URL": urls.owner, "PII_ENCRYPTION_KEY_ID": stand.uri}
            settings = load({**environ, **own, "PROFILE_PATCH_LIMIT_PER_MINUTE": "100000"})
            outages.append(Outage(stand, settings, signer))
        await asyncio.gather(*(outage.lived_through() for outage in outages))
    for stand, outage in zip(each, outages, strict=True):
        print(
            f"\n{stand.uri.partition(':')[0]}: " + ", ".join(f"{count} {what}" for what, count in outage.seen.items())
        )
        assert outage.seen["reads"] > PEOPLE * OUTAGE_S
        assert outage.seen["rotations that wait"] > 3
        assert outage.seen["told to wait"] > outage.seen["rotations that wait"]
