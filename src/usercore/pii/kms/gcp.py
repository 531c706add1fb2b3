"""gcp-kms://projects/…/locations/…/keyRings/…/cryptoKeys/…: Google Cloud KMS, symmetric encryption.

The credentials are those of the machine (Application Default Credentials). Every CRC32C is sent and verified, as
https://cloud.google.com/kms/docs/data-integrity-guidelines asks.
"""

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

import google.auth
import google_crc32c
import grpc
import grpc.aio
from google.api_core import exceptions
from google.api_core.retry import AsyncRetry, if_exception_type
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import kms
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcAsyncIOTransport as Transport,
)

from usercore.db import outside_transaction
from usercore.errors import KmsRefused, KmsUnavailable
from usercore.pii.classification import SERVICE, length_prefixed
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey

ATTEMPT_S = 2.0
TOTAL_S = 3.0
_TRANSIENT = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.TooManyRequests,
    exceptions.InternalServerError,
    exceptions.Aborted,
    exceptions.Unknown,
    exceptions.Cancelled,
    exceptions.RetryError,
)
_RETRY = AsyncRetry(
    predicate=if_exception_type(exceptions.ServiceUnavailable), initial=0.1, maximum=0.5, timeout=TOTAL_S
)
RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 2000),  # so long an attempt to connect takes at most
)
"""By itself gRPC pauses up to two minutes after an outage, and answers meanwhile that there is nobody."""
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_NAME = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}", re.ASCII)

T = TypeVar("T")
Client = kms.KeyManagementServiceAsyncClient
_State = kms.CryptoKeyVersion.CryptoKeyVersionState
_STATES: Mapping[int, VersionState] = {
    _State.ENABLED: "enabled",
    _State.DESTROYED: "destroyed",
    _State.DESTROY_SCHEDULED: "destroyed",  # opens nothing already, and comes back only by a person's hand
}


class GcpKms:
    def __init__(self, name: str, client: Client | None = None) -> None:
        """The key's resource name. Raises KmsRefused for another one, such as that of a version."""
        if not _NAME.fullmatch(name):
            raise KmsRefused(
                "After gcp-kms:// has to come projects/…/locations/…/keyRings/…/cryptoKeys/… and no version."
            )
        self._name = name
        self._client = client

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        aad = _aad(context)
        request = kms.EncryptRequest(
            name=self._name,
            plaintext=plaintext,
            plaintext_crc32c=_crc(plaintext),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        client = await self._connected()
        answer = await self._ask(client.encrypt(request, retry=_RETRY, timeout=ATTEMPT_S))
        _agree(answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c)
        _agree(answer.ciphertext_crc32c == _crc(answer.ciphertext))
        return WrappedKey(answer.ciphertext, self._version(answer.name))

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        """The answer does not name the version; `used_primary` tells only whether it is the newest one."""
        aad = _aad(context)
        request = kms.DecryptRequest(
            name=self._name,
            ciphertext=ciphertext,
            ciphertext_crc32c=_crc(ciphertext),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        client = await self._connected()
        answer = await self._ask(client.decrypt(request, retry=_RETRY, timeout=ATTEMPT_S))
        _agree(answer.plaintext_crc32c == _crc(answer.plaintext))
        return Unwrapped(answer.plaintext, rewrap_wanted=not answer.used_primary)

    async def describe(self) -> KmsDescription:
        client = await self._connected()
        key = await self._ask(client.get_crypto_key(name=self._name, retry=_RETRY, timeout=ATTEMPT_S))
        if key.purpose != kms.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT:
            raise KmsRefused(f"{self._name} is a key for {key.purpose.name}; one for ENCRYPT_DECRYPT is needed.")
        if not key.primary.name:
            raise KmsRefused(f"{self._name} has no primary version: enable one or make one.")
        versions: dict[str, VersionState] = {}
        pages = await self._ask(client.list_crypto_key_versions(parent=self._name, retry=_RETRY, timeout=ATTEMPT_S))
        async for version in pages:
            versions[self._version(version.name)] = _STATES.get(version.state, "disabled")
        return KmsDescription(f"gcp-kms://{self._name}", self._version(key.primary.name), versions)

    async def rotate(self) -> str:
        client = await self._connected()
        made = await self._ask(
            client.create_crypto_key_version(
                parent=self._name, crypto_key_version=kms.CryptoKeyVersion(), timeout=ATTEMPT_S
            )
        )
        version = self._version(made.name)
        await self._ask(
            client.update_crypto_key_primary_version(
                name=self._name, crypto_key_version_id=version, retry=_RETRY, timeout=ATTEMPT_S
            )
        )
        return version

    async def destroy(self, key_version: str) -> None:
        """Google keeps it for the time that the key names (30 days unless set), opening nothing, then forgets it."""
        if key_version == (await self.describe()).primary:
            raise KmsRefused(f"Version {key_version} is the primary one: rotate first.")
        client = await self._connected()
        name = f"{self._name}/cryptoKeyVersions/{key_version}"
        await self._ask(client.destroy_crypto_key_version(name=name, timeout=ATTEMPT_S))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.transport.close()

    async def _connected(self) -> Client:
        outside_transaction()
        if self._client is None:
            try:
                # In a thread: it reads files and may ask the machine's metadata server.
                credentials = await asyncio.to_thread(_credentials)
            except DefaultCredentialsError:
                raise KmsRefused(
                    "No Google credentials were found: use a service account or set GOOGLE_APPLICATION_CREDENTIALS."
                ) from None
            except GoogleAuthError as error:
                raise KmsUnavailable(f"Google's credentials could not be had: {type(error).__name__}.") from None
            self._client = make_client(credentials)
        return self._client

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(TOTAL_S):
                return await call
        except (TimeoutError, *_TRANSIENT) as error:
            raise KmsUnavailable(f"Google Cloud KMS did not answer: {type(error).__name__}.") from None
        except exceptions.GoogleAPICallError as error:
            # The status alone: messages of Google's name people and projects.
            raise KmsRefused(f"Google Cloud KMS refused {self._name}: {_said(error)}.") from None
        except GoogleAuthError as error:
            raise KmsUnavailable(f"Google's credentials could not be renewed: {type(error).__name__}.") from None

    def _version(self, name: str) -> str:
        """The last part of a version's name; of our key, else what answered is not what was asked."""
        key, separator, version = name.rpartition("/cryptoKeyVersions/")
        if key != self._name or not separator:
            raise KmsRefused("Google Cloud KMS answered for another key than the one that was asked for.")
        return version


def make_client(credentials: Credentials) -> Client:
    """Connects when it is first asked."""

    def transport(**given: Any) -> Transport:
        return Transport(channel=channel, **given)

    def channel(host: str, *, options: Sequence[tuple[str, int]] = (), **given: Any) -> grpc.aio.Channel:
        return Transport.create_channel(host, options=[*options, *RECONNECT], **given)

    return Client(credentials=credentials, transport=transport)


def _credentials() -> Credentials:
    # The library has no types for what it finds.
    return cast("Credentials", google.auth.default(scopes=[_SCOPE])[0])  # pyright: ignore[reportUnknownMemberType]


def _aad(context: Mapping[str, str]) -> bytes:
    return length_prefixed(SERVICE, *(text.encode() for pair in sorted(context.items()) for text in pair))


def _crc(data: bytes) -> int:
    return cast("int", google_crc32c.value(data))


def _agree(correct: bool) -> None:
    if not correct:
        raise KmsUnavailable("What went to or came from Google Cloud KMS was damaged on its way.")


def _said(error: exceptions.GoogleAPICallError) -> str:
    meanings = {
        "PERMISSION_DENIED": "permission denied (grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key)",
        "NOT_FOUND": "there is no such key",
        "INVALID_ARGUMENT": "it did not wrap this, or not for this context",
        "FAILED_PRECONDITION": "the version is disabled or destroyed",
    }
    status = cast("grpc.StatusCode | None", error.grpc_status_code)
    name = "UNKNOWN" if status is None else status.name
    return meanings.get(name, name)
