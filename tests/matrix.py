"""The matrix of who may call what: the contract's table, a token of each kind, and what is wrong with an answer."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from tests.edge.issuer import raw_token
from tests.service import AUDIENCE, ISSUER, Client, Reply, Signer
from usercore.db import Conn
from usercore.edge import Edge
from usercore.errors import PROBLEM_MEDIA_TYPE
from usercore.operations import handlers_of, routes, rule_of

PERSON = frozenset({"end user", "another user", "pii:read alone", "scopes that only look like it"})
SERVICE = frozenset({"internal", "admin", "internal admin"})
ADMIN = frozenset({"admin", "internal admin"})
ANYBODY = None

# Contract §1, "Auth" and the routes below it, by hand: nothing here is derived from the code. HEAD goes with GET.
TABLE: Mapping[tuple[str, str], frozenset[str] | None] = {
    ("GET", "/v1/me"): PERSON,
    ("PATCH", "/v1/me"): PERSON,
    ("POST", "/v1/me/consents"): PERSON,
    ("GET", "/v1/me/consents"): PERSON,
    ("GET", "/v1/me/consents/{}/receipt"): PERSON,
    ("GET", "/v1/me/access-log"): PERSON,
    ("GET", "/v1/me/export"): PERSON,
    ("GET", "/v1/me/notification-prefs"): PERSON,
    ("PUT", "/v1/me/notification-prefs"): PERSON,
    ("POST", "/v1/kyc/initiate"): PERSON,
    ("GET", "/v1/kyc/status"): PERSON,
    ("POST", "/v1/kyc/resubmit"): PERSON,
    ("POST", "/v1/kyc/webhook"): ANYBODY,
    ("POST", "/v1/kyc/webhook/{}"): ANYBODY,
    ("POST", "/v1/kyc/webhook/{}/{}"): ANYBODY,
    ("GET", "/internal/users/{}"): SERVICE,
    ("POST", "/internal/users/{}/freeze"): SERVICE,
    ("POST", "/internal/users/{}/unfreeze"): SERVICE,
    ("GET", "/internal/users/{}/audit"): SERVICE,
    ("POST", "/internal/users/{}/close"): ADMIN,
    ("POST", "/internal/users/{}/erase"): ADMIN,
    ("POST", "/admin/users/search"): ADMIN,
    ("GET", "/admin/kyc/reviews"): ADMIN,
    ("GET", "/admin/kyc/cases/{}"): ADMIN,
    ("POST", "/admin/kyc/manual-review"): ADMIN,
    ("GET", "/admin/kyc/artifacts/{}"): ADMIN,
    ("GET", "/health/live"): ANYBODY,
    ("GET", "/health/ready"): ANYBODY,
    ("GET", "/metrics"): ANYBODY,
    ("GET", "/schema/openapi.json"): ANYBODY,
}

NOBODYS = ("no token", "empty token", "token under another scheme")
BAD = (
    "expired",
    "not yet valid",
    "wrong audience",
    "wrong issuer",
    "wrong key",
    "alg none",
    "HS256 with the public key",
    "no subject",
    "subject is no UUID",
    "signature cut off",
)
TOKENS = (*NOBODYS, *BAD, *sorted(PERSON), *sorted(SERVICE))


class Asked(Struct, frozen=True):
    """A route and method as a client calls it; `rule` is the contract's path, `path` one with ids in it."""

    method: str
    rule: str
    path: str
    media_type: str | None
    body: bytes | None

    @property
    def allowed(self) -> frozenset[str] | None:
        return TABLE["GET" if self.method == "HEAD" else self.method, self.rule]


class Callers:
    """The tokens of the matrix. A bad one has the scope that the route wants, and one thing wrong with it."""

    def __init__(self, signer: Signer, person: UUID, other: UUID) -> None:
        self._signer = signer
        self._subjects = {"another user": other, **dict.fromkeys(SERVICE, uuid4())}
        self._person = person
        self._stranger = ec.generate_private_key(ec.SECP256R1())

    def authorization(self, name: str, wanted: frozenset[str] | None) -> str | None:
        """The header's value, None for none."""
        scope = "internal admin" if wanted is not None and wanted <= SERVICE else ""
        own = {"internal": "internal", "admin": "admin", "internal admin": "internal admin"}.get(name, scope)
        if name in PERSON:
            lookalikes = "Admin ADMIN administrator internal,admin internal:admin xadmin"
            own = {"pii:read alone": "pii:read", "scopes that only look like it": lookalikes}.get(name, "")
        claims = self._claims(self._subjects.get(name, self._person), own)
        if name == "no token":
            return None
        if name == "empty token":
            return "Bearer "
        if name == "token under another scheme":
            return f"Basic {self._signed(claims)}"
        return f"Bearer {self._token(name, claims)}"

    def _token(self, name: str, claims: dict[str, Any]) -> str:
        now = int(time.time())
        changes: dict[str, dict[str, Any]] = {
            "expired": {"exp": now - 61},
            "not yet valid": {"nbf": now + 120},
            "wrong audience": {"aud": "wallet"},
            "wrong issuer": {"iss": "https://elsewhere.test"},
            "no subject": {"sub": None},
            "subject is no UUID": {"sub": "42"},
        }
        claims = {key: value for key, value in {**claims, **changes.get(name, {})}.items() if value is not None}
        if name == "alg none":
            return raw_token({"alg": "none", "typ": "JWT"}, claims)
        if name == "HS256 with the public key":
            unsigned = raw_token({"alg": "HS256", "typ": "JWT"}, claims).rpartition(".")[0]
            mac = hmac.digest(self._signer.public_file.read_bytes(), unsigned.encode(), hashlib.sha256)
            return f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        if name == "signature cut off":
            return self._signed(claims).rpartition(".")[0] + "."
        return self._signed(claims, self._stranger if name == "wrong key" else None)

    def _claims(self, subject: UUID, scope: str) -> dict[str, Any]:
        now = int(time.time())
        return {"iss": ISSUER, "aud": AUDIENCE, "sub": str(subject), "iat": now - 1, "exp": now + 600, "scope": scope}

    def _signed(self, claims: dict[str, Any], key: ec.EllipticCurvePrivateKey | None = None) -> str:
        # As bytes: the library would refuse to sign some of them.
        return jwt.PyJWS().encode(msgspec.json.encode(claims), key or self._signer.key, "ES256")


class Site:
    """A running API, what it serves, and two people whose profiles are filled in."""

    def __init__(self, edge: Edge, client: Client, owner: Conn) -> None:
        self.client = client
        self.owner = owner
        self.person, self.other = client.user("asha@example.in"), client.user("ravi@example.in")
        self.callers = Callers(client.signer, self.person.id, self.other.id)
        self.edge = edge
        self.undeclared = [f"{r.method} {r.path}" for r in routes(edge.litestar) if r.access is None]

    def asked(self) -> tuple[list[Asked], list[str]]:
        """Every route and method there is, HEAD too, and those that the contract does not know."""
        found: list[Asked] = []
        unknown: list[str] = []
        for route, handler in handlers_of(self.edge.litestar):
            rule = rule_of(route, handler)
            if rule.automatic:
                continue
            path = re.sub(r"\{[^}]*\}", str(self.person.id), route.path_format)
            example = handler.opt.get("request_example")
            body = None if example is None else msgspec.json.encode(example)
            media_type = (rule.media_types or (None,))[0]
            for method in sorted(handler.http_methods):
                contract = re.sub(r"\{[^}]*\}", "{}", route.path_format)
                if (method, contract) not in TABLE:
                    unknown.append(f"{method} {route.path_format}")
                    continue
                found.append(Asked(method, contract, path, media_type, body))
                if method == "GET":
                    found.append(Asked("HEAD", contract, path, None, None))
        return found, unknown

    async def call(self, asked: Asked, token: str) -> Reply:
        headers: dict[str, str] = {}
        if asked.media_type is not None:
            headers["Content-Type"] = asked.media_type
        if asked.method == "POST":
            headers["Idempotency-Key"] = uuid4().hex
        authorization = self.callers.authorization(token, asked.allowed)
        if authorization is not None:
            headers["Authorization"] = authorization
        return await self.client.send(asked.method, asked.path, body=asked.body, headers=headers)

    async def violations(self) -> list[str]:
        """Every cell that is not as the contract has it. Empty is what one wants."""
        asked, unknown = self.asked()
        found = [f"{route}: not in the contract's table" for route in unknown]
        found += [f"{route}: declares no access" for route in self.undeclared]
        for one in asked:
            cell = f"{one.method} {one.rule}"
            refused = [name for name in TOKENS if one.allowed is not None and name not in one.allowed]
            before = await rows(self.owner)
            for name in refused:
                found += [f"{cell}, {name}: {why}" for why in wrong(one, name, await self.call(one, name))]
            if await rows(self.owner) != before:
                found.append(f"{cell}: a refused request changed the database")
            replies = {name: await self.call(one, name) for name in TOKENS if name not in refused}
            anybodys = {reply.status for reply in replies.values()} if one.allowed is ANYBODY else set[int]()
            if len(anybodys) > 1:
                found.append(f"{cell}: the answer depends on the token")
            for name, reply in replies.items():
                if reply.status >= 500 or (one.allowed is not ANYBODY and reply.status in (400, 401, 403, 405, 415)):
                    found.append(f"{cell}, {name}: {reply.status} where access is granted")
                if one.method == "HEAD" and reply.body:
                    found.append(f"{cell}, {name}: has a body")
        return found


def wrong(asked: Asked, token: str, reply: Reply) -> list[str]:
    """What is wrong with the answer to a request that has to be refused."""
    if reply.status < 400:
        return [f"{reply.status} where access is denied"]
    challenge = reply.headers.get("WWW-Authenticate", "")
    status, code, error = 401, "unauthenticated", 'error="invalid_token"'
    if token in NOBODYS:
        error = ""
    elif token not in BAD:
        status, code, error = 403, "forbidden", 'error="insufficient_scope"'
    found: list[str] = []
    if reply.status != status:
        found.append(f"{reply.status} instead of {status}")
    if reply.headers["Content-Type"] != PROBLEM_MEDIA_TYPE:
        found.append("no problem+json")
    elif asked.method != "HEAD" and (reply.code != code or reply.json()["status"] != status):
        found.append(f"the problem says {reply.code}")
    if asked.method == "HEAD" and reply.body:
        found.append("has a body")
    if ", ".join(filter(None, ['Bearer realm="usercore"', error])) != challenge:
        found.append(f"WWW-Authenticate is {challenge!r}")
    return found


async def rows(owner: Conn) -> dict[str, tuple[int, str]]:
    """Number of rows of every table, and a digest of all that is in them."""
    tables = await owner.fetch(
        "select oid::regclass::text as name from pg_class "
        "where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace"
    )
    found: dict[str, tuple[int, str]] = {}
    for table in tables:
        name: str = table["name"]
        content = [row["text"] for row in await owner.fetch(f"select t::text as text from {name} t order by 1")]
        found[name] = (len(content), hashlib.sha256("\n".join(content).encode()).hexdigest())
    return found
