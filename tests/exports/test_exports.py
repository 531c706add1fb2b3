"""What a person gets of theirs: by the schema, readable, recorded, and nobody else's."""

import asyncio
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from tests.erasure.conftest import desk as desk
from tests.erasure.conftest import erase
from tests.kyc.conftest import World
from tests.kyc.conftest import world as world
from tests.service import Client, Person
from tests.trail import actions_of
from usercore.cli import main
from usercore.db import Conn
from usercore.exports.document import Export
from usercore.worker import Parts

SCHEMA = Path(__file__).parents[2] / "docs" / "export.schema.json"


class Reader(HTMLParser):
    """What stands on a page, and what it would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs), attrs
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def test_the_schema_is_that_of_the_code() -> None:
    made = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Export)), indent=2) + b"\n"
    assert made == SCHEMA.read_bytes(), "write it anew"


async def test_everything_is_in_it_and_by_the_schema(world: World, owner: Conn) -> None:
    asha = await world.person()
    await world.verified(asha, "tier_1")
    kept = await owner.fetchrow("update kyc_artifacts set state = 'stored', size = 7 returning id, artifact_type::text")
    assert kept is not None
    said = {"consent_type": "marketing", "version": "2026-01", "granted": True}
    await asha.send("POST", "/v1/me/consents", json=said)
    support = world.client.user(scope="internal pii:read", client_id="support-console")
    await support.get(f"/internal/users/{asha.id}?reveal=phone&purpose=support")
    reply = await asha.get("/v1/me/export")
    assert reply.status == 200
    export: dict[str, Any] = reply.json()
    jsonschema.validate(export, json.loads(SCHEMA.read_text()))
    assert export["user"]["profile"] == (await asha.get()).json()["profile"]
    assert [each["consent_type"] for each in export["consents"]] == ["marketing"]
    assert export["verification"]["kyc_tier"] == "tier_1"
    (document,) = [each for each in export["verification"]["documents"] if each["id"] == str(kept["id"])]
    assert (document["artifact_type"], document["vendor"], document["size"]) == (kept[1], "hyperverge", 7)
    recipients = {each["recipient"]: each for each in export["recipients"]}
    assert recipients["support-console"]["fields"] == ["phone"]
    assert recipients["support-console"]["purposes"] == ["support"]
    assert "hyperverge" in recipients
    assert {each["client"] for each in export["access_log"]} >= {"support-console", "hyperverge"}
    assert "actor_id" not in json.dumps(export)
    assert str(support.id) not in json.dumps(export)
    assert "user.exported" in await actions_of(owner, asha.id)


async def test_the_page_is_one_file_that_runs_nothing(client: Client) -> None:
    asha = client.user()
    hostile = "Asha <script>alert(1)</script> & co"
    await asha.patch({"address": {"line1": hostile[:60], "city": "Pune", "state": "MH", "pin_code": "411001"}})
    reply = await asha.get("/v1/me/export?format=html")
    assert reply.status == 200
    page = reply.body.decode()
    assert reply.headers["Content-Disposition"] == 'attachment; filename="personal-data.html"'
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    reader = Reader(page)
    assert reader.open == []
    text = "".join(reader.text)
    assert "Asha <script>" in text
    assert text.rstrip().endswith("This is the end of your data.")
    for heading in ("You", "Your account", "What you agreed to", "Who received it", "Who looked, newest first"):
        assert heading in reader.text


async def test_the_access_log_is_whole_over_many_pages(client: Client, owner: Conn) -> None:
    asha = client.user()
    await asha.get()
    await owner.execute(
        "insert into pii_disclosures (id, user_id, recipient, recipient_kind, fields, purpose, action, at) "
        "select gen_random_uuid(), $1, 'acme', 'vendor', '{phone}', 'kyc', 'kyc.initiated', now() - n * interval '1 s' "
        "from generate_series(1, 1001) n",
        asha.id,
    )
    assert len((await asha.get("/v1/me/export")).json()["access_log"]) == 1001


async def test_nobody_gets_one_of_somebody_who_is_erased_or_does_not_open(
    client: Client, desk: Person, owner: Conn
) -> None:
    asha, ravi = client.user(), client.user()
    for person in (asha, ravi):
        await person.patch({"first_name": "Asha"})
    await erase(desk, asha.id)
    assert (await asha.get("/v1/me/export")).code == "account_erased"
    await owner.execute("update user_keys set wrapped = '\\x00' where user_id = $1", ravi.id)
    assert (await ravi.get("/v1/me/export")).code == "pii_unavailable"
    assert (await ravi.get("/v1/me/export?format=xml")).status == 422


async def test_an_operator_writes_it_to_a_file_and_is_in_the_access_log(
    client: Client, parts: Parts, environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asha = client.user()
    await asha.patch({"first_name": "Asha"})
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "asha.html"
    run = CliRunner().invoke
    arguments = ["user-export", str(UUID(str(asha.id))), "--output", str(file), "--purpose", "legal_request"]
    done = await asyncio.to_thread(run, main, arguments)
    assert done.exit_code == 0, done.output
    assert "This is the end of your data." in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    again = await asyncio.to_thread(run, main, arguments)
    assert "is there already" in again.output
    log = (await asha.get("/v1/me/access-log")).json()["items"]
    assert (log[0]["client"], log[0]["action"], log[0]["purpose"]) == ("usercore-cli", "user.exported", "legal_request")
