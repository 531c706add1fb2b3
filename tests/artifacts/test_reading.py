"""Reading: by admins with a scope and a purpose, recorded before the first byte, and nothing that did not verify."""

import os
from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest

from tests.artifacts.conftest import Desk
from tests.artifacts.test_fetching import answering
from tests.plugins.vendor_server import serving
from tests.service import Client, Person
from tests.trail import actions_of
from usercore.pii.streams import CHUNK

PDF = b"%PDF-1.7\n" + os.urandom(3 * CHUNK)
HEADER = 18
SEALED_CHUNK = CHUNK + 16


async def stored(desk: Desk, body: bytes = PDF) -> UUID:
    async with serving(answering(body, "application/pdf")) as served:
        artifact_id = await desk.add_one(served.url)
        await desk.fetch()
    assert (await desk.row(artifact_id))["state"] == "stored"
    return artifact_id


def path_of(artifact_id: UUID, purpose: str | None = "compliance") -> str:
    return f"/admin/kyc/artifacts/{artifact_id}" + ("" if purpose is None else f"?purpose={purpose}")


def admin(client: Client, scope: str = "admin pii:read") -> Person:
    return client.user(scope=scope, client_id="backoffice")


async def disclosures(desk: Desk) -> list[tuple[object, ...]]:
    rows = await desk.owner.fetch(
        "select recipient, recipient_kind, actor_id, fields, purpose, action from pii_disclosures where user_id = $1",
        desk.user,
    )
    return [tuple(row) for row in rows]


async def test_an_admin_reads(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    reader = admin(client)
    reply = await reader.get(path_of(artifact_id))
    assert (reply.status, reply.body) == (200, PDF)
    assert reply.headers["Content-Type"] == "application/pdf"
    assert reply.headers["Content-Length"] == str(len(PDF))
    assert reply.headers["Content-Disposition"] == f'attachment; filename="selfie-{artifact_id}.pdf"'
    assert reply.headers.getall("Cache-Control") == ["no-store"]  # pyright: ignore[reportAttributeAccessIssue]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"

    row = await desk.owner.fetchrow("select * from user_audit where action = 'artifact.read'")
    assert row is not None
    assert (row["user_id"], row["actor_id"], row["actor_kind"], row["client"]) == (
        desk.user,
        reader.id,
        "admin",
        "backoffice",
    )
    assert (row["resource"], row["purpose"]) == (f"kyc_case:{desk.case}", "compliance")
    assert msgspec.json.decode(row["new_value"]) == {"fields": ["selfie"], "artifact_id": str(artifact_id)}
    assert await disclosures(desk) == [
        ("backoffice", "admin", reader.id, ["selfie"], "compliance", "artifact.read"),
    ]


async def test_each_reading_is_recorded_and_head_too(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    reader = admin(client)
    head = await reader.send("HEAD", path_of(artifact_id))
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(PDF)))
    await reader.get(path_of(artifact_id))
    assert (await actions_of(desk.owner, desk.user)).count("artifact.read") == 2
    assert len(await disclosures(desk)) == 2


@pytest.mark.parametrize("size", [20, CHUNK, CHUNK + 1])
async def test_documents_of_other_sizes(desk: Desk, client: Client, size: int) -> None:
    body = PDF[:size]
    artifact_id = await stored(desk, body)
    assert (await admin(client).get(path_of(artifact_id))).body == body


async def test_who_may_not(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    for reader, purpose, status, code in (
        (admin(client, "admin"), "compliance", 403, "forbidden"),
        (admin(client, "internal pii:read"), "compliance", 403, "forbidden"),
        (admin(client, "pii:read"), "compliance", 403, "forbidden"),
        (client.user(sub=desk.user), "compliance", 403, "forbidden"),
        (admin(client), None, 422, "validation_failed"),
        (admin(client), "curiosity", 422, "validation_failed"),
        (admin(client), "", 422, "validation_failed"),
    ):
        reply = await reader.get(path_of(artifact_id, purpose))
        assert (reply.status, reply.code) == (status, code), purpose
    assert (await client.send("GET", path_of(artifact_id))).status == 401
    assert "artifact.read" not in await actions_of(desk.owner, desk.user)
    assert await disclosures(desk) == []


async def test_what_is_not_there(desk: Desk, client: Client) -> None:
    waiting = await desk.add_one("http://127.0.0.1:9/")
    reader = admin(client)
    for artifact_id in (uuid4(), waiting):
        assert (await reader.get(path_of(artifact_id))).code == "not_found"
    assert (await reader.get("/admin/kyc/artifacts/selfie?purpose=compliance")).status == 404
    await desk.owner.execute(
        "update kyc_artifacts set state = 'given_up', given_up_for = 'slow', source_enc = null, next_try_at = null"
    )
    assert (await reader.get(path_of(waiting))).code == "not_found"
    assert await disclosures(desk) == []


async def test_of_an_erased_user(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    await desk.owner.execute("update users set erased_at = now() where id = $1", desk.user)
    assert (await admin(client).get(path_of(artifact_id))).code == "account_erased"


async def test_not_without_its_audit_row(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    await desk.owner.execute("revoke insert on pii_disclosures from usercore_app")
    reply = await admin(client).get(path_of(artifact_id))
    assert reply.status == 500
    assert PDF[:100] not in reply.body
    assert "artifact.read" not in await actions_of(desk.owner, desk.user)


# What was changed in the store ----------------------------------------------------------------------------------------


Change = Callable[[bytes], bytes]


def flipped(at: int) -> Change:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def chunk(number: int) -> slice:
    return slice(HEADER + number * SEALED_CHUNK, HEADER + (number + 1) * SEALED_CHUNK)


AT_ONCE: Mapping[str, Change] = {
    "header": flipped(0),
    "first chunk": flipped(HEADER + 9),
    "swapped": lambda d: d[:HEADER] + d[chunk(1)] + d[chunk(0)] + d[chunk(2).start :],
    "cut off early": lambda d: d[: HEADER + 5],
    "cut off after the first chunk": lambda d: d[: chunk(0).stop],
    "emptied": lambda d: b"",
}


@pytest.mark.parametrize("change", AT_ONCE.values(), ids=AT_ONCE.keys())
async def test_what_does_not_open_at_once(desk: Desk, client: Client, change: Change) -> None:
    """Refused, and recorded all the same: somebody wanted to read it."""
    artifact_id = await stored(desk)
    desk.file().write_bytes(change(desk.file().read_bytes()))
    reply = await admin(client).get(path_of(artifact_id))
    assert (reply.status, reply.code) == (409, "pii_unavailable")
    assert len(await disclosures(desk)) == 1


LATER: Mapping[str, Change] = {
    "third chunk": flipped(chunk(2).start + 9),
    "cut off by a byte": lambda d: d[:-1],
    "cut off between chunks": lambda d: d[: chunk(2).stop],
    "reordered": lambda d: d[: chunk(2).start] + d[chunk(3).start :] + d[chunk(2)],
    "a byte more": lambda d: d + b"\0",
}


@pytest.mark.parametrize("change", LATER.values(), ids=LATER.keys())
async def test_what_does_not_open_later_breaks_off(desk: Desk, client: Client, change: Change) -> None:
    """What was given is the beginning of the document, and the client sees that it is not all."""
    artifact_id = await stored(desk)
    desk.file().write_bytes(change(desk.file().read_bytes()))
    given = bytearray()

    async def read() -> None:
        headers = {"Authorization": f"Bearer {admin(client).token}"}
        async with client.http.get(client.base + path_of(artifact_id), headers=headers) as answer:
            assert answer.status == 200
            async for data in answer.content.iter_any():
                given.extend(data)

    with pytest.raises(aiohttp.ClientPayloadError):
        await read()
    assert PDF.startswith(given)
    assert len(given) < len(PDF)


async def test_an_older_upload_of_other_bytes_is_not_what_was_hashed(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk, PDF[:1000])
    await desk.owner.execute("update kyc_artifacts set hash = $1", "0" * 64)
    assert (await admin(client).get(path_of(artifact_id))).code == "pii_unavailable"


async def test_one_document_in_the_place_of_another(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    await desk.owner.execute("update kyc_artifacts set id = $1", other := uuid4())
    assert other != artifact_id
    assert (await admin(client).get(path_of(other))).code == "pii_unavailable"


async def test_the_file_is_gone(desk: Desk, client: Client) -> None:
    artifact_id = await stored(desk)
    desk.file().unlink()
    assert (await admin(client).get(path_of(artifact_id))).code == "pii_unavailable"
