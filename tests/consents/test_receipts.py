"""Receipts of consents: their shape, and that anybody with the public keys can tell a true one from a forged one."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner

from tests.service import Client, Person
from usercore.cli import main
from usercore.consents.actions import SignedReceipt
from usercore.consents.receipts import Receipt
from usercore.db import Db
from usercore.errors import SignatureRefused
from usercore.keys.actions import rotate
from usercore.pii.keystore import load
from usercore.pii.kms import open_kms
from usercore.signatures import public_keys, read_keys, sign, verify
from usercore.worker import Parts


async def given(person: Person, *, granted: bool = True) -> str:
    said = {"consent_type": "marketing", "version": "2026-01", "granted": granted}
    return (await person.send("POST", "/v1/me/consents", json=said)).json()["id"]


def changed(jws: str, part: int, change: dict[str, Any]) -> str:
    parts = jws.split(".")
    padded = parts[part] + "=" * (-len(parts[part]) % 4)
    body = {**json.loads(base64.urlsafe_b64decode(padded)), **change}
    parts[part] = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=").decode()
    return ".".join(parts)


async def test_the_receipt_of_a_grant_and_of_its_withdrawal(client: Client, parts: Parts) -> None:
    person = client.user()
    grant = await given(person)
    reply = await person.get(f"/v1/me/consents/{grant}/receipt")
    assert reply.status == 200
    shown = reply.json()["receipt"]
    assert (shown["schema_version"], shown["receipt_id"]) == ("ISO-IEC-TS-27560:2023", grant)
    assert shown["pii_principal_id"] == (await person.get("/v1/me")).json()["id"]
    assert shown["parties"] == [
        {"party_id": "usercore", "party_role": "pii_controller", "party_name": parts.settings.controller_name}
    ]
    assert shown["processing"]["privacy_notice"] == "2026-01"
    assert [event["event_state"] for event in shown["events"]] == ["consent given"]

    withdrawal = await given(person, granted=False)
    for consent in (grant, withdrawal):
        after = (await person.get(f"/v1/me/consents/{consent}/receipt")).json()["receipt"]
        assert [event["event_state"] for event in after["events"]] == ["consent given", "consent withdrawn"]


async def test_nobody_gets_the_receipt_of_another(client: Client) -> None:
    asha, ravi = client.user(), client.user()
    consent = await given(asha)
    for id in (consent, uuid4()):
        reply = await ravi.get(f"/v1/me/consents/{id}/receipt")
        assert (reply.status, reply.code) == (404, "consent_not_found")
    assert (await ravi.get("/v1/me/consents/nothing/receipt")).status == 404


async def test_it_verifies_with_the_public_keys_alone_and_nothing_else_does(client: Client, parts: Parts) -> None:
    person = client.user()
    reply = await person.get(f"/v1/me/consents/{await given(person)}/receipt")
    signed = msgspec.json.decode(reply.body, type=SignedReceipt)
    keys = read_keys(json.dumps(public_keys(parts.keyring)))
    assert verify(signed.jws, "consent-receipt", keys, Receipt) == signed.receipt

    def refused(jws: str, kind: Any = "consent-receipt", among: Mapping[str, object] = keys) -> None:
        with pytest.raises(SignatureRefused):
            verify(jws, kind, among, Receipt)

    refused(changed(signed.jws, 1, {"receipt_id": str(uuid4())}))
    refused(changed(signed.jws, 0, {"alg": "none"}))
    refused(changed(signed.jws, 0, {"alg": "HS256"}))
    refused(changed(signed.jws, 0, {"kid": "consent-receipt-2"}))
    refused(
        changed(signed.jws, 0, {"kid": "erasure-certificate-1", "typ": "erasure-certificate"}), "erasure-certificate"
    )
    refused(signed.jws, "erasure-certificate")
    refused(sign(parts.keyring, "erasure-certificate", signed.receipt))
    refused(signed.jws[:-4])
    refused("")
    refused("not a jws")
    refused(signed.jws, among={"keys": []})
    refused(signed.jws, among={})


async def test_receipts_of_before_a_rotation_still_verify(client: Client, parts: Parts, operator: Db) -> None:
    person = client.user()
    consent = await given(person)
    before = msgspec.json.decode((await person.get(f"/v1/me/consents/{consent}/receipt")).body, type=SignedReceipt)
    kms = open_kms(parts.settings.pii_encryption_key_id)
    await rotate(operator, kms, ["audit_signing"], settle_s=0)
    await load(parts.db, kms, parts.keyring)
    after = msgspec.json.decode((await person.get(f"/v1/me/consents/{consent}/receipt")).body, type=SignedReceipt)
    keys = public_keys(parts.keyring)
    for signed in (before, after):
        assert verify(signed.jws, "consent-receipt", keys, Receipt) == signed.receipt
    with pytest.raises(SignatureRefused):
        verify(after.jws, "consent-receipt", {"keys": [key for key in keys["keys"] if key["kid"][-1] == "1"]}, Receipt)


async def test_the_command_verifies_what_the_api_gave(client: Client, parts: Parts, tmp_path: Path) -> None:
    person = client.user()
    reply = await person.get(f"/v1/me/consents/{await given(person)}/receipt")
    good, forged, keys = (tmp_path / name for name in ("good.json", "forged.json", "keys.json"))
    good.write_bytes(reply.body)
    keys.write_text(json.dumps(public_keys(parts.keyring)))
    shown = reply.json()
    shown["receipt"]["processing"]["privacy_notice"] = "2027-01"
    forged.write_text(json.dumps(shown))
    run = CliRunner().invoke
    done = run(main, ["receipt-verify", str(good), "--keys", str(keys)])
    assert done.output.startswith("good: marketing 2026-01 of ")
    done = run(main, ["receipt-verify", str(forged), "--keys", str(keys)])
    assert (done.exit_code, done.output) == (1, "Error: What the receipt shows is not what was signed.\n")
    done = run(main, ["receipt-verify", str(keys), "--keys", str(keys)])
    assert (done.exit_code, done.output) == (1, "Error: This is no consent receipt.\n")
