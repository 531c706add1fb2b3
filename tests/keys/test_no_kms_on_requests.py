"""No request asks the KMS: counted over what people, services and admins do."""

from pathlib import Path

import pytest

from tests.keys.people import pan, phone
from tests.service import Client
from usercore.pii.kms import local
from usercore.worker import Parts

PROFILE = {"first_name": "Asha", "pan_number": pan(1), "phone": phone(1)}


async def test_the_kms_is_not_asked(client: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    read = local._read

    def counted(path: Path) -> object:
        asked.append(path)
        return read(path)

    monkeypatch.setattr(local, "_read", counted)
    asha = client.user()
    admin = client.user(scope="admin internal pii:read", client_id="back-office")
    internal = f"/internal/users/{asha.id}"
    said = {"consent_type": "marketing", "version": "1", "granted": True}
    consent = ""
    for method, path, body in (
        ("GET", "/v1/me", None),
        ("PATCH", "/v1/me", PROFILE),
        ("GET", "/v1/me", None),
        ("POST", "/v1/me/consents", said),
        ("GET", "/v1/me/export", None),
        ("GET", "/v1/me/access-log", None),
        ("GET", "/v1/kyc/status", None),
    ):
        reply = await asha.send(method, path, **({} if body is None else {"json": body}))
        assert reply.status in (200, 201), (path, reply.body)
        consent = reply.json().get("id", consent) if path.endswith("consents") else consent
    assert (await asha.get(f"/v1/me/consents/{consent}/receipt")).status == 200
    for method, path, body in (
        ("GET", internal, None),
        ("GET", f"{internal}?reveal=phone&purpose=support", None),
        ("GET", f"{internal}/audit", None),
        ("POST", "/admin/users/search", {"pan_number": pan(1)}),
        ("POST", f"{internal}/freeze", {"reason": "risk_review"}),
        ("POST", f"{internal}/unfreeze", {"reason": "cleared"}),
        ("POST", f"{internal}/erase", {"reason": "user_request"}),
    ):
        reply = await admin.send(method, path, **({} if body is None else {"json": body}))
        assert reply.status == 200, (path, reply.body)
    assert asked == []
    await parts.kyc.finish_calls()
    assert asked == []
