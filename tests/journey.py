"""What one user goes through, good and bad: every route, every error and every event."""

import asyncio
import re
from collections import Counter
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer

from tests.canary import Place
from tests.service import Client, Person, Reply, Signer
from tests.waiting import eventually
from tests.zyx import AMBIENT, PROFILE, V, bad_bodies
from usercore.db import Conn
from usercore.events import AUTH_CREATED, AUTH_DEACTIVATED, now

PATCHES_A_MINUTE = 450
"""The limit under which all of this fits, until it is tried out itself."""

# What PostgreSQL says of a duplicate: the code, and the values in the detail.
BROKEN_PROFILES = """
create function probe() returns trigger language plpgsql as $$
begin
    raise exception 'duplicate key value violates unique constraint' using
        errcode = 'unique_violation',
        detail = format('Key (email, avatar_url)=(%s, %s) already exists.', new.email, new.avatar_url),
        hint = new.email, table = new.email, column = new.email;
end
$$;
create trigger probe before insert or update on user_profiles for each row execute function probe();
"""


class Recorder(Client):
    """A client that keeps what it sent, and of the answers what must not hold a value."""

    def __init__(self, http: aiohttp.ClientSession, base: str, signer: Signer) -> None:
        super().__init__(http, base, signer)
        self.sent: list[Place] = []
        self.received: list[Place] = []
        self.answers: Counter[str] = Counter()

    async def send(self, method: str, path: str, **given: Any) -> Reply:
        given["headers"] = {**AMBIENT, **(given.get("headers") or {})}
        reply = await super().send(method, path, **given)
        self.sent.append(Place("sent", f"{method} {path}", f"{path}\n{given}".encode()))
        names = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
        self.received.append(Place("response headers", f"{method} {path}", names.encode()))
        code = reply.code if reply.status >= 400 and reply.body else ""
        self.answers[f"{reply.status} {code}".strip()] += 1
        if reply.status >= 400 or urlsplit(path).path in ("/health/live", "/health/ready", "/schema/openapi.json"):
            self.received.append(Place("error bodies", f"{method} {path} {reply.status} {code}", reply.body))
        elif b'"pii_masked":true' in reply.body and "?reveal=" not in path:
            self.received.append(Place("masked bodies", f"{method} {path}", reply.body))
        elif urlsplit(path).path == "/metrics":
            self.received.append(Place("metrics", f"of {self.base}", reply.body))
        return reply

    async def is_ready(self) -> bool:
        try:
            return (await self.send("GET", "/health/ready")).status == 200
        except aiohttp.ClientConnectionError:
            return False


class Journey:
    """Zyx's; `worker` is the address of the worker's listener."""

    def __init__(self, api: Recorder, owner: Conn, producer: AIOKafkaProducer, worker: str) -> None:
        self.api = api
        self.owner = owner
        self.zyx = self._person(uuid4())
        self.dead = 0
        self._producer = producer
        self._worker = worker

    def somebody(self) -> Person:
        """Another account of the same person."""
        return self._person(uuid4())

    def _person(self, sub: UUID) -> Person:
        person = Person(self.api, sub, V["email"])
        name, phone = V["name in the token"], f"+91{V['phone']}"
        person.token = self.api.signer.token(sub, email=V["email"], name=name, phone_number=phone)
        return person

    async def all(self) -> None:
        await self.is_created_by_an_event()
        await self.fills_in_the_profile()
        await self.gives_consents()
        await self.sends_what_is_refused()
        await self.meets_conflicts()
        await self.has_broken_data()
        await self.meets_failures()
        await self.gets_poison_from_auth()
        await self.is_deactivated()
        await self.tries_too_often()
        await self.is_erased()

    # -------------------------------------------------------------------------------------------------------- good

    async def is_created_by_an_event(self) -> None:
        await self.emit(AUTH_CREATED, {"auth_id": str(self.zyx.id), "email": V["email"], "name": V["event field"]})

        async def created() -> bool:
            return await self._of("users", "id") is not None

        await eventually(created, why="the event creates the user")
        await self.reads_back(email=V["email"])

    async def fills_in_the_profile(self) -> None:
        for patch in (PROFILE, {"first_name": V["first_name of another script"]}, {"first_name": V["first_name"]}):
            assert (await self.zyx.patch(patch)).status == 200
        await self.reads_back(**PROFILE)
        # A second account of the same person, which its first call creates.
        assert (await self._person(uuid4()).patch(PROFILE)).status == 200

    async def reads_back(self, **expected: object) -> None:
        profile = (await self.zyx.get(headers={"If-None-Match": ""})).json()["profile"]
        assert {name: profile[name] for name in expected} == expected

    async def gives_consents(self) -> None:
        for granted, key in ((True, ""), (True, ""), (False, "-2"), (False, "-3")):
            said = {"consent_type": "marketing", "version": "2026-01", "granted": granted}
            headers = {"Idempotency-Key": V["idempotency key"] + key}
            await self.zyx.send("POST", "/v1/me/consents", json=said, headers=headers)
        said = {"consent_type": "privacy_policy", "version": "2026-01", "granted": True}
        headers = {"Idempotency-Key": V["idempotency key"]}
        assert (await self.zyx.send("POST", "/v1/me/consents", json=said, headers=headers)).status == 422
        for history in ("true", "false"):
            assert (await self.zyx.get(f"/v1/me/consents?history={history}")).status == 200
        for format in ("json", "html"):
            assert (await self.zyx.get(f"/v1/me/export?format={format}")).status == 200
        for consent in (await self.zyx.get("/v1/me/consents?history=true")).json()["items"]:
            assert (await self.zyx.get(f"/v1/me/consents/{consent['id']}/receipt")).status == 200
        prefs = dict.fromkeys(("email_trade_fills", "email_deposits", "email_withdrawals", "push_enabled"), False)
        prefs |= {"email_security_alerts": True, "sms_enabled": True}
        assert (await self.zyx.send("PUT", "/v1/me/notification-prefs", json=prefs)).status == 200

    # ----------------------------------------------------------------------------------------------------- refused

    async def sends_what_is_refused(self) -> None:
        """Every operation that the service documents, in every way that is wrong."""
        paths = (await self.api.send("GET", "/schema/openapi.json")).json()["paths"]
        for path, operations in {**paths, "/metrics": {"get": {}}, "/schema/openapi.json": {"get": {}}}.items():
            where = re.sub(r"\{[^}]*\}", quote(V["path"]), path)
            for method, operation in operations.items():
                await self._is_refused(method.upper(), where, operation)
        await self._speaks_no_http()

    async def _is_refused(self, method: str, path: str, operation: dict[str, Any]) -> None:
        query = f"{V['query name']}={V['query']}&cursor={V['cursor']}&limit={V['query']}"
        names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
        for suffix in (f"?{query}", f"/{V['path']}?{query}", *(f"?{name}={V['query']}" for name in names)):
            await self.zyx.send(method, path + suffix)
        await self.zyx.send("HEAD", f"{path}?{query}")
        await self.zyx.send("DELETE", f"{path}?{query}", body=V["malformed"].encode())
        for header in (f"Bearer {V['bad token']}", V["bad token"], f"Bearer {self.zyx.token}{V['bad token']}"):
            await self.api.send(method, path, headers={"Authorization": header})
        for name, value in (
            ("If-Match", V["entity tag"]),
            ("If-Match", f'"{V["entity tag"]}"'),
            ("If-None-Match", "*"),
        ):
            await self.zyx.send(method, path, headers={name: value})
        content = operation.get("requestBody", {}).get("content", {})
        for media_type, media in content.items():
            example = media["examples"]["default"]["value"]
            key = {"Idempotency-Key": V["bad idempotency key"]}
            await self.zyx.send(method, path, json=example, headers=key)
            for body in bad_bodies(example):
                await self.zyx.send(method, path, body=body, headers={"Content-Type": media_type})
            for wrong in ("text/plain", V["media type"], f"{media_type}; charset={V['media type']}"):
                await self.zyx.send(method, path, json=PROFILE, headers={"Content-Type": wrong})
            await self.zyx.send(method, path, json=PROFILE, headers={"Content-Encoding": V["media type"]})

    async def _speaks_no_http(self) -> None:
        """A request line that is none, and a body that never comes to its end."""
        address = urlsplit(self.api.base)
        unfinished = (
            f"PATCH /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.zyx.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{V['unfinished body']}"
        )
        for text in (f"{V['raw request']} / HTTP/9\r\n{V['raw request']}\r\n\r\n", unfinished):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(text.encode())
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            self.api.sent.append(Place("sent", "raw", text.encode()))
            self.api.received.append(Place("error bodies", "raw", answer))

    # --------------------------------------------------------------------------------------------------- conflicts

    async def meets_conflicts(self) -> None:
        assert (await self.zyx.patch(PROFILE, headers={"If-Match": '"1"'})).status == 412
        await self._set("users", "kyc_status = 'approved'")
        assert (await self.zyx.patch({"first_name": V["first_name of another script"]})).code == "identity_locked"
        await self._set("users", "kyc_status = 'not_started'")
        said = {"consent_type": "data_sharing", "version": "1", "granted": False}
        assert (await self.zyx.send("POST", "/v1/me/consents", json=said)).code == "consent_not_granted"
        assert (await self.zyx.patch({"email": V["changed email"]})).code == "email_managed_by_auth"
        assert (await self.zyx.patch({"address": {"line1": f"near {V['whole Aadhaar']}"}})).status == 422

    async def has_broken_data(self) -> None:
        """Fields and keys that do not open: masked reads, and what can still be changed."""
        for column in ("address_enc", "phone_enc"):
            change = f"{column} = set_byte({column}, 40, get_byte({column}, 40) # 1)"
            await self._set("user_profiles", change, "user_id")
        assert (await self.zyx.get()).json()["pii_masked"]
        assert (await self.zyx.patch({"address": {"city": V["city"]}})).code == "pii_unavailable"
        await self._set("user_keys", "wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)", "user_id")
        assert (await self.zyx.get()).json()["pii_masked"]
        assert (await self.zyx.patch(PROFILE)).status == 200
        await self.reads_back(**PROFILE)

    async def meets_failures(self) -> None:
        """Errors of the database, whose details hold values, and an audit trail that cannot be written."""
        refused = V["refused avatar_url"]
        for broken, mended in (
            (
                f"alter table user_profiles add constraint probe check (avatar_url <> '{refused}') not valid",
                "alter table user_profiles drop constraint probe",
            ),
            (BROKEN_PROFILES, "drop function probe cascade"),
        ):
            await self.owner.execute(broken)
            assert (await self.zyx.patch({"avatar_url": refused})).status == 500
            if broken is BROKEN_PROFILES:
                assert (await self._person(uuid4()).get()).status == 500
                await self.is_poison(AUTH_CREATED, {"auth_id": str(uuid4()), "email": V["email"]})
            await self.owner.execute(mended)
        for table, path, status in (
            ("notification_prefs", "/v1/me/notification-prefs", 500),
            ("user_audit", "/v1/me", 503),
        ):
            await self.owner.execute(f"revoke select, insert on {table} from usercore_app")
            assert (await self.zyx.get(path)).status == status
            await self.zyx.patch({"avatar_url": refused})
            await self.owner.execute(f"grant select, insert on {table} to usercore_app")

    # ------------------------------------------------------------------------------------------------------ events

    async def gets_poison_from_auth(self) -> None:
        zyx = {"auth_id": str(self.zyx.id)}
        for topic, value in (
            (AUTH_CREATED, V["poison text"].encode()),
            (AUTH_CREATED, V["poison text"].encode("utf-16")),
            (AUTH_CREATED, {**zyx, "email": V["poison email"]}),
            (AUTH_CREATED, {**zyx, "email": [V["email"]]}),
            (AUTH_CREATED, {"auth_id": V["poison id"], "email": V["email"]}),
            (AUTH_DEACTIVATED, {**zyx, "reason": {V["deactivation reason"]: PROFILE}}),
            (AUTH_DEACTIVATED, {**zyx, "event_id": V["poison id"], "reason": V["deactivation reason"]}),
        ):
            await self.is_poison(topic, value)
        # Not poison: Auth says again what is known, and something new that changes nothing here.
        await self.emit(AUTH_CREATED, {**zyx, "email": V["changed email"]})

    async def is_deactivated(self) -> None:
        await self.emit(AUTH_DEACTIVATED, {"auth_id": str(self.zyx.id), "reason": V["deactivation reason"]})

        async def frozen() -> bool:
            return await self._of("users", "status") == "frozen"

        await eventually(frozen, why="the deactivation freezes the account")
        assert (await self.zyx.patch(PROFILE)).code == "account_not_active"
        said = {"consent_type": "marketing", "version": "2026-01", "granted": True}
        headers = {"Idempotency-Key": f"{V['idempotency key']}-4"}
        assert (await self.zyx.send("POST", "/v1/me/consents", json=said, headers=headers)).code == "account_not_active"
        await self.reads_back(email=V["email"])

    async def tries_too_often(self) -> None:
        for _ in range(PATCHES_A_MINUTE + 1):
            if (await self.zyx.patch({"phone": V["bad phone"]})).status == 429:
                return
        raise AssertionError("the limit is not reached")

    async def is_erased(self) -> None:
        await self._set("users", "erased_at = now()")
        for method, path in (("GET", "/v1/me"), ("GET", "/v1/me/consents"), ("GET", "/v1/me/notification-prefs")):
            assert (await self.zyx.send(method, f"{path}?{V['query']}")).status == 410
        await self.emit(AUTH_CREATED, {"auth_id": str(self.zyx.id), "email": V["email"]})

    async def is_poison(self, topic: str, value: bytes | dict[str, Any]) -> None:
        headers = [("traceparent", V["poison header"]), ("dlq_error", V["poison header"]), ("x", V["poison header"])]
        await self.emit(topic, value, key=V["poison key"], headers=headers)
        self.dead += 1
        await eventually(self._is_buried, why="poison is put aside")

    async def _is_buried(self) -> bool:
        async with self.api.http.get(f"{self._worker}/metrics") as reply:
            counts = re.findall(r"^usercore_dead_letters_total\{.*\} ([0-9.]+)$", await reply.text(), re.MULTILINE)
        return sum(map(float, counts)) == self.dead

    async def emit(
        self, topic: str, value: bytes | dict[str, Any], *, key: str = "", headers: list[tuple[str, str]] | None = None
    ) -> None:
        """One event of the Auth Service; what every event has is added."""
        if isinstance(value, dict):
            key = key or str(value["auth_id"])
            common = {"event_id": str(uuid4()), "occurred_at": now(), V["event field"]: V["event field"]}
            value = msgspec.json.encode({**common, **value})
        sent = [(name, text.encode()) for name, text in headers or [("x", V["event field"])]]
        await self._producer.send_and_wait(topic, value, key=key.encode(), headers=sent)
        self.api.sent.append(Place("sent", topic, key.encode() + b"\n" + value + b"\n" + repr(sent).encode()))

    async def _of(self, table: str, column: str, key: str = "id") -> Any:
        return await self.owner.fetchval(f"select {column} from {table} where {key} = $1", self.zyx.id)

    async def _set(self, table: str, change: str, key: str = "id") -> None:
        assert await self.owner.execute(f"update {table} set {change} where {key} = $1", self.zyx.id) != "UPDATE 0"
