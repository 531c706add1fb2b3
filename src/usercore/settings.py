"""The settings: one frozen Struct read once from the environment, with every problem found at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args
from urllib.parse import SplitResult, urlsplit, urlunsplit

from msgspec import Struct
from msgspec.structs import fields

from usercore.errors import SettingsError

Environment = Literal["dev", "production"]
CipherName = Literal["cryptography", "pycryptodome"]
EventFormat = Literal["json", "avro"]
LogLevel = Literal["debug", "info", "warning", "error"]
KafkaSecurity = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Network = IPv4Network | IPv6Network

POSTGRES_SCHEMES = ("postgresql", "postgres")
KMS_SCHEMES = ("local", "gcp-kms", "aws-kms", "hcvault")
# What RETENTION_<CLASS> may be said about: the classes of the classification registry, and the audit trail.
KYC_CHECKS = frozenset(("pan", "selfie", "aadhaar", "address", "bank"))
KYC_TIERS = (
    ("tier_1", frozenset(("pan", "selfie"))),
    ("tier_2", frozenset(("aadhaar", "address"))),
    ("tier_3", frozenset(("bank",))),
)
RETENTION_CLASSES = ("identity", "contact", "kyc_evidence", "audit")

MASK = "***"
T = TypeVar("T")


class Variables(dict[str, str]):
    """Environment variables, whose values are nobody's to print."""

    def __repr__(self) -> str:
        return "Variables(…)"


class Secret:
    """A value that must not be shown. Only `reveal` gives it back; printing, formatting and encoding do not."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


class Settings(Struct, frozen=True, kw_only=True):
    """Every variable of docs/settings.md, in lower case. Those of vendors are read by `plugins.variables`."""

    usercore_env: Environment
    log_level: LogLevel
    listen_host: str
    port: int
    ops_port: int
    public_url: str | None
    trusted_proxies: tuple[Network, ...]

    postgres_url: Secret
    postgres_owner_url: Secret | None
    db_pool_size: int
    redis_url: Secret
    clickhouse_url: Secret | None
    clickhouse_cluster: str | None
    audit_postgres_months: int

    kafka_brokers: tuple[str, ...]
    kafka_security_protocol: KafkaSecurity
    kafka_sasl_mechanism: SaslMechanism | None
    kafka_sasl_username: str | None
    kafka_sasl_password: Secret | None
    kafka_ssl_ca_file: Path | None
    kafka_session_timeout_ms: int
    event_format: EventFormat
    schema_registry_url: Secret | None

    pii_encryption_key_id: str
    pii_cipher: CipherName
    retention: Mapping[str, timedelta]
    controller_name: str

    jwt_jwks_url: str | None
    jwt_public_key_file: Path | None
    jwt_issuer: str
    jwt_audience: str

    profile_patch_limit_per_minute: int
    hold_sources: Mapping[str, str]
    kyc_vendors: tuple[str, ...]
    kyc_redirect_hosts: tuple[str, ...]
    kyc_max_attempts: int
    kyc_validity_days: int
    kyc_four_eyes: bool
    kyc_initiate_limit_per_hour: int
    artifact_store_url: str
    artifact_hosts: tuple[str, ...]

    otel_exporter_otlp_endpoint: str | None
    kyc_tiers: Mapping[str, frozenset[str]]
    """What each tier asks for besides those below it."""
    variables: Variables
    """Everything in the environment: plugins have settings of their own."""

    @property
    def production(self) -> bool:
        return self.usercore_env == "production"


def load(environ: Mapping[str, str], dotenv: Path | None = None) -> Settings:
    """The settings of this environment; `dotenv` fills in what it does not say, unless it says production.

    Raises SettingsError with every problem, each of which names its variable and never shows a value.
    """
    reader = _Reader(environ, dotenv)
    dev = reader.text("USERCORE_ENV") == "dev"
    port = reader.integer("PORT", 8080, 0, 65535)
    owner_url = reader.url("POSTGRES_OWNER_URL", POSTGRES_SCHEMES)
    postgres_url = reader.url("POSTGRES_URL", POSTGRES_SCHEMES, required=True)
    key_file = reader.path("JWT_PUBLIC_KEY_FILE")
    settings = Settings(
        usercore_env=reader.choice("USERCORE_ENV", Environment, "production"),
        log_level=reader.choice("LOG_LEVEL", LogLevel, "info"),
        # In production a load balancer or a mesh has to reach us; in dev nobody else should.
        listen_host=reader.text("LISTEN_HOST") or ("127.0.0.1" if dev else "0.0.0.0"),  # noqa: S104
        port=port,
        ops_port=reader.integer("OPS_PORT", 9090, 0, 65535),
        public_url=reader.url("PUBLIC_URL", ("https", "http") if dev else ("https",))
        or (f"http://127.0.0.1:{port}" if dev else None),
        trusted_proxies=reader.each("TRUSTED_PROXIES", ip_network, "a list of CIDR networks"),
        postgres_url=Secret(postgres_url or ""),
        postgres_owner_url=_secret(owner_url or (postgres_url if dev else None)),
        db_pool_size=reader.integer("DB_POOL_SIZE", 10, 1, 1000),
        redis_url=Secret(reader.url("REDIS_URL", ("redis", "rediss", "unix"), required=True) or ""),
        clickhouse_url=_secret(reader.url("CLICKHOUSE_URL", ("clickhouse", "clickhouses"))),
        clickhouse_cluster=next(iter(reader.each("CLICKHOUSE_CLUSTER", _slug, "the name of one cluster")), None),
        audit_postgres_months=reader.integer("AUDIT_POSTGRES_MONTHS", 3, 1, 1200),
        kafka_brokers=reader.each("KAFKA_BROKERS", _broker, "a list of host:port", required=True),
        kafka_security_protocol=reader.choice("KAFKA_SECURITY_PROTOCOL", KafkaSecurity, "PLAINTEXT"),
        kafka_sasl_mechanism=reader.choice("KAFKA_SASL_MECHANISM", SaslMechanism, None),
        kafka_sasl_username=reader.text("KAFKA_SASL_USERNAME"),
        kafka_sasl_password=_secret(reader.text("KAFKA_SASL_PASSWORD")),
        kafka_ssl_ca_file=reader.path("KAFKA_SSL_CA_FILE"),
        kafka_session_timeout_ms=reader.integer("KAFKA_SESSION_TIMEOUT_MS", 10_000, 1_000, 1_800_000),
        event_format=reader.choice("EVENT_FORMAT", EventFormat, "json"),
        schema_registry_url=_secret(reader.url("SCHEMA_REGISTRY_URL", ("https", "http"))),
        pii_encryption_key_id=reader.url("PII_ENCRYPTION_KEY_ID", KMS_SCHEMES, required=True) or "",
        pii_cipher=reader.choice("PII_CIPHER", CipherName, "cryptography"),
        retention=reader.retention(),
        controller_name=reader.text("CONTROLLER_NAME") or "usercore",
        jwt_jwks_url=reader.url("JWT_JWKS_URL", ("https", "http") if dev else ("https",)),
        jwt_public_key_file=key_file,
        jwt_issuer=reader.text("JWT_ISSUER", required=True) or "",
        jwt_audience=reader.text("JWT_AUDIENCE", required=True) or "",
        profile_patch_limit_per_minute=reader.integer("PROFILE_PATCH_LIMIT_PER_MINUTE", 10, 1, 100_000),
        hold_sources=dict(reader.each("HOLD_SOURCES", _hold_source, "a list of client_id=source")),
        kyc_vendors=reader.each("KYC_VENDORS", _slug, "a list of vendor names") or ("hyperverge", "signzy"),
        kyc_redirect_hosts=reader.each("KYC_REDIRECT_HOSTS", _host, "a list of host names"),
        kyc_max_attempts=reader.integer("KYC_MAX_ATTEMPTS", 5, 1, 100),
        kyc_validity_days=reader.integer("KYC_VALIDITY_DAYS", 730, 1, 36_500),
        kyc_four_eyes=reader.switch("KYC_FOUR_EYES", default=False),
        kyc_initiate_limit_per_hour=reader.integer("KYC_INITIATE_LIMIT_PER_HOUR", 5, 1, 100_000),
        artifact_store_url=reader.url("ARTIFACT_STORE_URL", ("file", "s3", "gs"))
        or (Path.cwd() / ".dev" / "artifacts").as_uri(),
        artifact_hosts=reader.each("ARTIFACT_HOSTS", _host, "a list of host names"),
        otel_exporter_otlp_endpoint=reader.url("OTEL_EXPORTER_OTLP_ENDPOINT", ("https", "http")),
        kyc_tiers=dict(reader.each("KYC_TIERS", _tier, "a list of tier=check+check") or KYC_TIERS),
        variables=Variables((name, value) for name, value in reader.values.items() if value),
    )
    problems = [*reader.problems, *_contradictions(settings, reader)]
    if problems:
        raise SettingsError(problems)
    return settings


def masked(settings: Settings) -> dict[str, str]:
    """Each variable with its effective value as text, passwords replaced by ***; unset ones are empty."""
    shown: dict[str, str] = {}
    for field in fields(settings):
        if field.name == "kyc_tiers":
            tiers = settings.kyc_tiers.items()
            shown["KYC_TIERS"] = ",".join(f"{tier}={'+'.join(sorted(checks))}" for tier, checks in tiers)
        elif field.name not in ("retention", "variables"):
            shown[field.name.upper()] = printable(getattr(settings, field.name))
    for retention_class, period in sorted(settings.retention.items()):
        shown[f"RETENTION_{retention_class.upper()}"] = f"{period.days}d"
    return shown


def _contradictions(settings: Settings, reader: "_Reader") -> list[str]:
    """What is wrong with variables that are fine one by one; those already complained about are skipped."""
    problems: list[str] = []

    def require(ok: bool, sentence: str) -> None:
        if not ok and not reader.complained_about(sentence.split()[0]):
            problems.append(sentence)

    both = settings.jwt_jwks_url is not None and settings.jwt_public_key_file is not None
    neither = not reader.has("JWT_JWKS_URL") and not reader.has("JWT_PUBLIC_KEY_FILE")
    require(not neither, "JWT_JWKS_URL or JWT_PUBLIC_KEY_FILE is required")
    require(not both, "JWT_JWKS_URL and JWT_PUBLIC_KEY_FILE exclude each other")
    require(settings.port == 0 or settings.port != settings.ops_port, "OPS_PORT must differ from PORT")
    require(
        settings.event_format != "avro" or settings.schema_registry_url is not None,
        "SCHEMA_REGISTRY_URL is required when EVENT_FORMAT is avro",
    )
    if settings.kafka_security_protocol.startswith("SASL_"):
        for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
            variable = name.upper()
            require(
                getattr(settings, name) is not None, f"{variable} is required with {settings.kafka_security_protocol}"
            )
    require(len(settings.kyc_tiers) == len(KYC_TIERS), "KYC_TIERS must say what tier_1, tier_2 and tier_3 ask for")
    if settings.production and not reader.complained_about("USERCORE_ENV"):
        require(
            not settings.pii_encryption_key_id.startswith("local://"),
            "PII_ENCRYPTION_KEY_ID must not be local:// in production",
        )
        require(
            "tls=off" not in settings.pii_encryption_key_id,
            "PII_ENCRYPTION_KEY_ID must not say tls=off in production",
        )
        require(settings.clickhouse_url is not None, "CLICKHOUSE_URL is required in production")
        require(settings.public_url is not None, "PUBLIC_URL is required in production")
        require(bool(reader.values.get("ARTIFACT_STORE_URL")), "ARTIFACT_STORE_URL is required in production")
        require(
            settings.postgres_owner_url is None
            or urlsplit(settings.postgres_owner_url.reveal()).username
            != urlsplit(settings.postgres_url.reveal()).username,
            "POSTGRES_OWNER_URL must name another role than POSTGRES_URL in production",
        )
    return problems


class _Reader:
    """Reads variables one by one and remembers what is wrong with them. Empty means unset."""

    def __init__(self, environ: Mapping[str, str], dotenv: Path | None) -> None:
        self.problems: list[str] = []
        values: dict[str, str] = {}
        if dotenv is not None and environ.get("USERCORE_ENV") != "production" and dotenv.is_file():
            values = self._dotenv(dotenv)
        # The environment wins, but an empty variable does not hide one from the file.
        values.update({name: value for name, value in environ.items() if value.strip()})
        self.values = {name: value.strip() for name, value in values.items()}

    def _dotenv(self, file: Path) -> dict[str, str]:
        values: dict[str, str] = {}
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            found = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", text)
            if found is None:
                self.problems.append(f"{file.name} line {number} is not NAME=value")
                continue
            value = found[2]
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            values[found[1]] = value
        return values

    def has(self, name: str) -> bool:
        return bool(self.values.get(name))

    def complained_about(self, name: str) -> bool:
        return any(problem.split()[0] == name for problem in self.problems)

    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self.values.get(name) or None
        if value is None and required:
            self.problems.append(f"{name} is required")
        return value

    def choice(self, name: str, options: object, default: T) -> T:
        """One of the strings of a Literal."""
        value = self.text(name)
        if value is None:
            return default
        allowed: Sequence[str] = get_args(options)
        if value not in allowed:
            self.problems.append(f"{name} must be one of {', '.join(allowed)}")
            return default
        return cast(T, value)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        # int() takes 1_000, Devanagari digits and spaces.
        if not re.fullmatch("[0-9]{1,9}", value) or not low <= int(value) <= high:
            self.problems.append(f"{name} must be a number from {low} to {high}")
            return default
        return int(value)

    def switch(self, name: str, *, default: bool) -> bool:
        value = (self.text(name) or "").lower()
        if value and value not in ("on", "off", "true", "false", "1", "0", "yes", "no"):
            self.problems.append(f"{name} must be on or off")
        return value in ("on", "true", "1", "yes") if value else default

    def url(self, name: str, schemes: Sequence[str], *, required: bool = False) -> str | None:
        value = self.text(name, required=required)
        if value is None:
            return None
        scheme, separator, rest = value.partition("://")
        try:
            urlsplit(value)
        except ValueError:
            rest = ""
        if not separator or scheme not in schemes or not rest or re.search(r"\s", value):
            self.problems.append(f"{name} must be a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return value

    def path(self, name: str) -> Path | None:
        value = self.text(name)
        if value is None:
            return None
        if not Path(value).is_file():
            self.problems.append(f"{name} must name a file that can be read")
        return Path(value)

    def each(self, name: str, parse: Callable[[str], T], what: str, *, required: bool = False) -> tuple[T, ...]:
        """A comma-separated list."""
        try:
            return tuple(parse(item.strip()) for item in (self.text(name, required=required) or "").split(",") if item)
        except ValueError:
            self.problems.append(f"{name} must be {what}, separated by commas")
            return ()

    def retention(self) -> dict[str, timedelta]:
        """RETENTION_<CLASS>, each `<n>d` or `<n>y` (365 days)."""
        periods: dict[str, timedelta] = {}
        for name in sorted(name for name in self.values if name.startswith("RETENTION_")):
            retention_class = name.removeprefix("RETENTION_").lower()
            found = re.fullmatch("([0-9]{1,5})([dy])", self.text(name) or "")
            if retention_class not in RETENTION_CLASSES:
                self.problems.append(f"{name} names no retention class ({', '.join(RETENTION_CLASSES)})")
            elif found is None:
                self.problems.append(f"{name} must be a period such as 90d or 8y")
            else:
                periods[retention_class] = timedelta(days=int(found[1]) * (365 if found[2] == "y" else 1))
        return periods


def _secret(value: str | None) -> Secret | None:
    return None if value is None else Secret(value)


def _match(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(pattern)
    return text


def _tier(text: str) -> tuple[str, frozenset[str]]:
    tier, _, checks = text.partition("=")
    asked = frozenset(check.strip() for check in checks.split("+"))
    if not asked <= KYC_CHECKS:
        raise ValueError
    return _match("tier_[1-3]", tier.strip()), asked


def _slug(text: str) -> str:
    return _match("[a-z][a-z0-9_]{0,62}", text)


def _host(text: str) -> str:
    return _match(r"(?=.{1,253})[a-z0-9-]+(\.[a-z0-9-]+)*", text.lower())


def _broker(text: str) -> str:
    return _match(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", text)


def _hold_source(text: str) -> tuple[str, str]:
    client_id, _, source = text.partition("=")
    return _match(r"[\x21-\x7e]{1,128}", client_id.strip()), _slug(source.strip())


def printable(value: object) -> str:
    """A value as text, without what is secret in it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in cast("tuple[object, ...]", value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in cast("Mapping[object, object]", value).items())
    text = value.reveal() if isinstance(value, Secret) else str(value)
    if "://" in text:
        return _masked_url(text)
    return MASK if isinstance(value, Secret) else text


def _masked_url(url: str) -> str:
    """The URL without its password, query and fragment (drivers take passwords in queries too)."""
    try:
        parts: SplitResult = urlsplit(url)
    except ValueError:
        return MASK
    userinfo, at, host = parts.netloc.rpartition("@")
    if at:
        # A lone userinfo is as often a token as a name.
        user, colon, _ = userinfo.partition(":")
        host = f"{user}:{MASK}@{host}" if colon else f"{MASK}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, MASK if parts.query else "", ""))
