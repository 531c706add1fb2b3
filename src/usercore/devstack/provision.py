"""What the services find on a new stack: topics, keys, and the settings that point at the servers."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.redis import Redis
from usercore.pii.kms import local

DATABASE = "usercore"

_WEEK_MS = str(7 * 24 * 3600 * 1000)
# A record of the default limit of 1 MiB, and the headers of a dead letter.
_TWO_MIB = str(2 * 1024 * 1024)
# Contract §3: what is consumed, what is produced, and the dead letters, which must not be kept for ever.
TOPICS: Mapping[str, Mapping[str, str]] = {
    "auth.created.v1": {},
    "auth.account.deactivated.v1": {},
    "user.created.v1": {},
    "user.updated.v1": {},
    "user.verified.v1": {},
    "user.frozen.v1": {},
    "user.unfrozen.v1": {},
    "user.suspended.v1": {},
    "user.closed.v1": {},
    "user.erased.v1": {},
    "user.kyc.initiated.v1": {},
    "user.kyc.updated.v1": {},
    # What the trail is held against, for as long as there is a trail.
    "usercore.audit.checkpoints.v1": {"retention.ms": "-1"},
    "usercore.dlq.v1": {"retention.ms": _WEEK_MS, "max.message.bytes": _TWO_MIB},
}


def make_keys(home: Path) -> None:
    """The local KMS key, and the pair of keys with which `usercore token` and the service play the Auth Service."""
    local.create(home / "kms-local.json")
    private, public = home / "jwt-private.pem", home / "jwt-public.pem"
    if private.exists() and public.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    private.unlink(missing_ok=True)
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def settings(home: Path, postgres: Postgres, redis: Redis, kafka: Kafka, ports: Mapping[str, int]) -> dict[str, str]:
    """Contract §5 and §6, pointing at running servers."""
    url = f"http://127.0.0.1:{ports['PORT']}"
    return {
        "USERCORE_ENV": "dev",
        "USERCORE_URL": url,
        "PUBLIC_URL": url,
        **{name: str(port) for name, port in ports.items()},
        "POSTGRES_URL": postgres.app_url(DATABASE),
        "POSTGRES_OWNER_URL": postgres.owner_url(DATABASE),
        "REDIS_URL": redis.url,
        "KAFKA_BROKERS": kafka.brokers,
        "PII_ENCRYPTION_KEY_ID": f"local://{quote(str(home / 'kms-local.json'))}",
        "ARTIFACT_STORE_URL": (home / "artifacts").as_uri(),
        "JWT_PUBLIC_KEY_FILE": str(home / "jwt-public.pem"),
        "JWT_PRIVATE_KEY_FILE": str(home / "jwt-private.pem"),
        "JWT_ISSUER": "https://auth.dev.usercore",
        "JWT_AUDIENCE": "usercore",
    }
