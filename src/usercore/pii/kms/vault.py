"""hcvault://HOST:PORT/MOUNT/KEY?token_file=…: the transit engine of HashiCorp Vault or OpenBao.

The key has to be a derived one: only then is the context part of the encryption, and a version can be rewrapped. More
in the query: `namespace`, `ca_file`, and `tls=off` for a server on the same machine.
"""

import asyncio
import ssl
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from usercore import telemetry
from usercore.db import outside_transaction
from usercore.errors import KmsRefused, KmsUnavailable
from usercore.pii.classification import SERVICE, length_prefixed
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey

CONNECT_S = 1.0
TOTAL_S = 3.0
RENEW_RETRY_S = 5.0
_OPTIONS = frozenset(("token_file", "namespace", "ca_file", "tls"))

T = TypeVar("T")
log = telemetry.logger(__name__)


class _Encrypted(Struct):
    ciphertext: str


class _Decrypted(Struct):
    plaintext: str


class _Key(Struct):
    latest_version: int
    min_decryption_version: int
    min_available_version: int
    derived: bool
    supports_encryption: bool


class _Token(Struct):
    ttl: int  # seconds; 0 for a root token, which never ends
    renewable: bool = False


class _Auth(Struct):
    lease_duration: int


class _Answer(Struct):
    data: msgspec.Raw = msgspec.Raw(b"{}")
    auth: _Auth | None = None


class VaultTransit:
    """Wrapped: `vault:v<version>:<base64>`, as text. The token's file is read at each call: an agent may renew it."""

    def __init__(self, rest: str) -> None:
        """What stands after hcvault://. Raises KmsRefused when it names no key or no token file."""
        parts = urlsplit(f"//{rest}")
        options = dict(parse_qsl(parts.query))
        mount, _, name = parts.path.strip("/").rpartition("/")
        if not (parts.hostname and mount and name) or "@" in parts.netloc or not options.keys() <= _OPTIONS:
            raise KmsRefused(
                f"After hcvault:// has to come HOST:PORT/MOUNT/KEY; the query knows {', '.join(_OPTIONS)}."
            )
        if "token_file" not in options:
            raise KmsRefused("hcvault:// needs ?token_file=PATH: a file with the token of a policy for this key alone.")
        self._uri = f"hcvault://{parts.netloc}/{mount}/{name}"
        self._url = f"{'http' if options.get('tls') == 'off' else 'https'}://{parts.netloc}/v1/"
        self._mount, self._name = mount, name
        self._token_file = Path(options["token_file"])
        self._namespace = options.get("namespace")
        self._ca_file = options.get("ca_file")
        self._session: aiohttp.ClientSession | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._latest = 0  # the newest version that an answer told of; 0 until the key was looked at

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        await self._look_once()
        body = {"plaintext": b64encode(plaintext).decode(), "context": _context(context)}
        found = await self._post(f"encrypt/{self._name}", body, _Encrypted)
        version = _version(found.ciphertext)
        self._latest = max(self._latest, int(version))
        return WrappedKey(found.ciphertext.encode(), version)

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        await self._look_once()
        text = ciphertext.decode("ascii", errors="replace")
        if _version(text) != key_version:
            raise KmsRefused(f"This was not wrapped by version {key_version[:16]!r} of the Vault key.")
        found = await self._post(
            f"decrypt/{self._name}", {"ciphertext": text, "context": _context(context)}, _Decrypted
        )
        return Unwrapped(b64decode(found.plaintext), rewrap_wanted=int(key_version) < self._latest)

    async def describe(self) -> KmsDescription:
        key = await self._look()

        def state(version: int) -> VersionState:
            if version < key.min_available_version:
                return "destroyed"
            return "disabled" if version < key.min_decryption_version else "enabled"

        versions: dict[str, VersionState] = {
            str(version): state(version) for version in range(1, key.latest_version + 1)
        }
        return KmsDescription(self._uri, str(key.latest_version), versions)

    async def rotate(self) -> str:
        await self._post(f"keys/{self._name}/rotate", {}, msgspec.Raw)
        return str((await self._look()).latest_version)

    async def destroy(self, key_version: str) -> None:
        """With it every older one, since Vault cuts from the bottom. Raises KmsRefused while the database needs one."""
        key = await self._look()
        if not key_version.isdigit() or int(key_version) >= key.latest_version:
            raise KmsRefused(
                f"Version {key_version[:16]} is the primary one of the Vault key, or none of its: rotate first."
            )
        least = int(key_version) + 1
        limits = {"min_decryption_version": max(least, key.min_decryption_version), "min_encryption_version": least}
        await self._post(f"keys/{self._name}/config", limits, msgspec.Raw)
        await self._post(f"keys/{self._name}/trim", {"min_available_version": least}, msgspec.Raw)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _look_once(self) -> None:
        if not self._latest:
            await self._look()

    async def _look(self) -> _Key:
        key = await self._ask("GET", f"{self._mount}/keys/{self._name}", None, _Key)
        if not key.derived or not key.supports_encryption:
            # Without derivation the context would be taken and ignored.
            raise KmsRefused(f"The Vault key {self._name} has to be made with derived=true and a type that encrypts.")
        self._latest = key.latest_version
        return key

    async def _post(self, path: str, body: Mapping[str, object], answer: type[T]) -> T:
        return await self._ask("POST", f"{self._mount}/{path}", body, answer)

    async def _ask(self, method: str, path: str, body: Mapping[str, object] | None, answer: type[T]) -> T:
        outside_transaction()
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._keep_token(), name="vault-token")
        said = await self._say(method, path, body)
        try:
            return msgspec.json.decode(said.data, type=answer)
        except msgspec.MsgspecError:
            raise KmsUnavailable("What answered is not a Vault server.") from None

    async def _say(self, method: str, path: str, body: Mapping[str, object] | None = None) -> _Answer:
        session = self._opened()
        headers = {"X-Vault-Token": await asyncio.to_thread(_token, self._token_file), "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        try:
            async with session.request(
                method, self._url + path, json=body, headers=headers, allow_redirects=False
            ) as got:
                content = await got.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise KmsUnavailable(f"Vault did not answer: {type(error).__name__}.") from None
        if got.status >= 500 or got.status in (412, 429, 472, 473):
            raise KmsUnavailable(f"Vault answered {got.status}: it is sealed, a standby, or has too much to do.")
        if got.status >= 300:
            raise KmsRefused(f"Vault refused {path.partition('/')[2]}: {_said(got.status, content)}.")
        try:
            return msgspec.json.decode(content or b"{}", type=_Answer)
        except msgspec.MsgspecError:
            raise KmsUnavailable("What answered is not a Vault server.") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            trust = ssl.create_default_context(cafile=self._ca_file)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=4, ssl=trust),
                timeout=aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S),
            )
        return self._session

    async def _keep_token(self) -> None:
        """Renews the token when half of its time has gone. One that cannot be renewed is left alone."""
        troubled = False
        while True:
            try:
                token = msgspec.json.decode((await self._say("GET", "auth/token/lookup-self")).data, type=_Token)
                if not token.renewable or not token.ttl:
                    return
                await asyncio.sleep(token.ttl / 2)
                await self._say("POST", "auth/token/renew-self", {})
                troubled = False
            except (KmsUnavailable, KmsRefused, msgspec.MsgspecError) as error:
                if not troubled:
                    log.warning("vault_token_not_renewed", error)
                troubled = True
                await asyncio.sleep(RENEW_RETRY_S)


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise KmsUnavailable(f"The token of Vault cannot be read from {path}.") from None


def _version(ciphertext: str) -> str:
    """`vault:v3:…` → `3`. Raises KmsRefused for anything else."""
    kind, _, rest = ciphertext.partition(":v")
    version, separator, _ = rest.partition(":")
    if kind != "vault" or not separator or not version.isascii() or not version.isdigit():
        raise KmsRefused("This was not wrapped by a Vault key.")
    return version


def _context(context: Mapping[str, str]) -> str:
    joined = length_prefixed(SERVICE, *(text.encode() for pair in sorted(context.items()) for text in pair))
    return b64encode(joined).decode()


def _said(status: int, content: bytes) -> str:
    """What to do, without Vault's own words, which may name policies and people."""
    if status == 403:
        return "permission denied (the token's policy, or the token has ended)"
    if status == 404:
        return "there is no such key"
    if b"disallowed by policy" in content:
        return "that version is disabled or destroyed"
    return "it did not wrap this, or not for this context"
