"""aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID: AWS Key Management Service, a symmetric key. Needs the extra `aws`.

The credentials are those of the machine, as boto3 finds them. AWS keeps every material that a key ever had and names
none of them when it wraps, so to us the key has one version: the key itself.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from usercore.db import outside_transaction
from usercore.errors import KmsRefused, KmsUnavailable
from usercore.pii.kms.answers import KmsDescription, Unwrapped, VersionState, WrappedKey

CONNECT_S = 1.0
READ_S = 2.0
TOTAL_S = 3.0
_CONFIG = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"mode": "standard", "total_max_attempts": 2})
_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:key/(?P<id>[a-zA-Z0-9-]+)")
_TRANSIENT = frozenset(
    (
        "ConflictException",
        "DependencyTimeoutException",
        "ExpiredTokenException",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
    )
)
_MEANINGS = {
    "AccessDeniedException": "permission denied (allow kms:Encrypt, kms:Decrypt and kms:DescribeKey on the key)",
    "DisabledException": "the key is disabled",
    "IncorrectKeyException": "another key wrapped this",
    "InvalidCiphertextException": "it did not wrap this, or not for this context",
    "InvalidKeyUsageException": "the key is not for encryption",
    "KMSInvalidStateException": "the key is disabled or about to be deleted",
    "NotFoundException": "there is no such key",
    "UnrecognizedClientException": "the credentials are not known there",
}

T = TypeVar("T")


class AwsKms:
    def __init__(self, arn: str) -> None:
        """The key's ARN, not an alias: what an alias points to can change. Raises KmsRefused for anything else."""
        found = _ARN.fullmatch(arn)
        if found is None:
            raise KmsRefused("After aws-kms:// has to come the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID.")
        self._arn, self._region, self._id = arn, found["region"], found["id"]

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> WrappedKey:
        answer = await self._ask(
            lambda: self._client.encrypt(KeyId=self._arn, Plaintext=plaintext, EncryptionContext=context)
        )
        self._ours(answer["KeyId"])
        return WrappedKey(answer["CiphertextBlob"], self._id)

    async def unwrap(self, ciphertext: bytes, context: Mapping[str, str], key_version: str) -> Unwrapped:
        """The key is named: without it AWS would take any key that the ciphertext asks for."""
        if key_version != self._id:
            raise KmsRefused(
                f"This was wrapped by {key_version[:64]!r}, not by the key that PII_ENCRYPTION_KEY_ID names."
            )
        answer = await self._ask(
            lambda: self._client.decrypt(KeyId=self._arn, CiphertextBlob=ciphertext, EncryptionContext=context)
        )
        self._ours(answer["KeyId"])
        return Unwrapped(answer["Plaintext"], rewrap_wanted=False)

    async def describe(self) -> KmsDescription:
        key = (await self._ask(lambda: self._client.describe_key(KeyId=self._arn)))["KeyMetadata"]
        usage, spec = key.get("KeyUsage", ""), key.get("KeySpec", "")
        if usage != "ENCRYPT_DECRYPT" or spec != "SYMMETRIC_DEFAULT":
            raise KmsRefused(f"The key is {spec} for {usage}; a SYMMETRIC_DEFAULT one for ENCRYPT_DECRYPT is needed.")
        states: Mapping[str, VersionState] = {"Enabled": "enabled", "PendingDeletion": "destroyed"}
        versions: dict[str, VersionState] = {self._id: states.get(key.get("KeyState", ""), "disabled")}
        return KmsDescription(f"aws-kms://{self._arn}", self._id, versions)

    async def rotate(self) -> str:
        """AWS makes a new material, ten times or so in a key's life, and says nothing of it to us."""
        await self._ask(lambda: self._client.rotate_key_on_demand(KeyId=self._arn))
        return self._id

    async def destroy(self, key_version: str) -> None:
        raise KmsRefused(
            "AWS destroys whole keys only: move to another key with keys-rewrap, then schedule this one's deletion."
        )

    @cached_property
    def _client(self):  # boto3's type, which is there only with its stubs
        return boto3.session.Session().client("kms", region_name=self._region, config=_CONFIG)

    async def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    async def _ask(self, call: Callable[[], T]) -> T:
        """In a thread, since boto3 blocks; one that hangs longer than its own time-outs is left behind."""
        outside_transaction()
        try:
            async with asyncio.timeout(TOTAL_S):
                return await asyncio.to_thread(call)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _TRANSIENT or status >= 500 or status == 429:
                raise KmsUnavailable(f"AWS KMS did not answer: {code}.") from None
            # The code alone: messages of AWS name people and accounts.
            raise KmsRefused(f"AWS KMS refused {self._arn}: {_MEANINGS.get(code, code)}.") from None
        except (NoCredentialsError, PartialCredentialsError):
            raise KmsRefused("No AWS credentials were found: give the machine a role, or set AWS_PROFILE.") from None
        except (TimeoutError, BotoCoreError) as error:
            raise KmsUnavailable(f"AWS KMS did not answer: {type(error).__name__}.") from None

    def _ours(self, arn: str) -> None:
        if arn != self._arn:
            raise KmsRefused("AWS KMS answered for another key than the one that was asked for.")
