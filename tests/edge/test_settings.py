"""Settings: every problem at once, no secret anywhere, and docs that name each variable."""

import pickle
import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from usercore.errors import SettingsError
from usercore.settings import RETENTION_CLASSES, Secret, Settings, load, masked

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key.pem"
    key.write_text("-")
    return {
        "USERCORE_ENV": "dev",
        "POSTGRES_URL": "postgresql://app:hunter2@db:5432/usercore?sslpassword=hunter3",
        "REDIS_URL": "redis://:hunter4@cache:6379/0",
        "KAFKA_BROKERS": "one:9092,two:9092",
        "PII_ENCRYPTION_KEY_ID": "local://kms.json",
        "JWT_PUBLIC_KEY_FILE": str(key),
        "JWT_ISSUER": "https://auth.test",
        "JWT_AUDIENCE": "usercore",
    }


@pytest.fixture
def production(good: dict[str, str]) -> dict[str, str]:
    return {
        **good,
        "USERCORE_ENV": "production",
        "ARTIFACT_STORE_URL": "s3://documents",
        "CLICKHOUSE_URL": "clickhouse://u:hunter5@ch:9000/audit",
        "PII_ENCRYPTION_KEY_ID": "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "POSTGRES_OWNER_URL": "postgresql://owner:hunter6@db:5432/usercore",
        "PUBLIC_URL": "https://usercore.test",
    }


def problems(environ: dict[str, str], dotenv: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, dotenv)
    return caught.value.problems


def test_defaults_in_dev(good: dict[str, str]) -> None:
    settings = load(good)
    assert (settings.port, settings.ops_port, settings.listen_host) == (8080, 9090, "127.0.0.1")
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.postgres_owner_url == settings.postgres_url
    assert settings.kafka_brokers == ("one:9092", "two:9092")
    assert settings.kyc_vendors == ("hyperverge", "signzy")
    assert (settings.profile_patch_limit_per_minute, settings.db_pool_size) == (10, 10)
    assert (settings.kyc_max_attempts, settings.kyc_validity_days, settings.kyc_initiate_limit_per_hour) == (5, 730, 5)
    assert (settings.kyc_four_eyes, settings.kyc_redirect_hosts, settings.artifact_hosts) == (False, (), ())
    assert settings.artifact_store_url.startswith("file://")
    assert not settings.production


def test_defaults_in_production(production: dict[str, str]) -> None:
    del production["USERCORE_ENV"], production["POSTGRES_OWNER_URL"]
    settings = load(production)
    assert settings.production
    assert (settings.listen_host, settings.postgres_owner_url) == ("0.0.0.0", None)


def test_everything_that_is_missing_is_named_at_once() -> None:
    named = {problem.split()[0] for problem in problems({})}
    assert named == {
        "POSTGRES_URL",
        "REDIS_URL",
        "KAFKA_BROKERS",
        "PII_ENCRYPTION_KEY_ID",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "JWT_JWKS_URL",
        "CLICKHOUSE_URL",
        "PUBLIC_URL",
        "ARTIFACT_STORE_URL",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USERCORE_ENV", "prod"),
        ("PORT", "80_80"),
        ("PORT", "٨٠"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("DB_POOL_SIZE", "0"),
        ("OPS_PORT", "8080"),
        ("POSTGRES_URL", "mysql://hunter7@db/x"),
        ("POSTGRES_URL", "postgresql://"),
        ("POSTGRES_URL", "postgresql://[hunter7/x"),
        ("REDIS_URL", "hunter7"),
        ("KAFKA_BROKERS", "hunter7"),
        ("KAFKA_BROKERS", "a:1,b"),
        ("KAFKA_SECURITY_PROTOCOL", "ssl"),
        ("PII_ENCRYPTION_KEY_ID", "hunter7://x"),
        ("PII_CIPHER", "rot13"),
        ("JWT_PUBLIC_KEY_FILE", "/hunter7/absent.pem"),
        ("JWT_JWKS_URL", "https://both.test/jwks.json"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "hunter7"),
        ("HOLD_SOURCES", "risk-engine"),
        ("HOLD_SOURCES", "risk-engine=Risk Team"),
        ("KYC_FOUR_EYES", "maybe"),
        ("KYC_VENDORS", "hyperverge,Signzy"),
        ("KYC_INITIATE_LIMIT_PER_HOUR", "0"),
        ("KYC_REDIRECT_HOSTS", "https://app.test"),
        ("EVENT_FORMAT", "xml"),
        ("RETENTION_IDENTITY", "8 years"),
        ("RETENTION_EVERYTHING", "8y"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(good: dict[str, str], name: str, value: str) -> None:
    found = problems({**good, name: value})
    assert [problem.split()[0] for problem in found] == [name]
    assert "hunter" not in "".join(found)


def test_what_contradicts(good: dict[str, str], production: dict[str, str]) -> None:
    assert problems({**good, "EVENT_FORMAT": "avro"}) == ["SCHEMA_REGISTRY_URL is required when EVENT_FORMAT is avro"]
    sasl = problems({**good, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    assert [problem.split()[0] for problem in sasl] == [
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
    ]
    same_role = {**production, "POSTGRES_OWNER_URL": production["POSTGRES_URL"]}
    assert [problem.split()[0] for problem in problems(same_role)] == ["POSTGRES_OWNER_URL"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PII_ENCRYPTION_KEY_ID", "local://kms.json"),
        ("PII_ENCRYPTION_KEY_ID", "hcvault://vault:8200/transit/k?token_file=t&tls=off"),
        ("CLICKHOUSE_URL", ""),
        ("PUBLIC_URL", "http://usercore.test"),
        ("PUBLIC_URL", ""),
    ],
)
def test_what_production_refuses(production: dict[str, str], name: str, value: str) -> None:
    load(production)
    assert [problem.split()[0] for problem in problems({**production, name: value})] == [name]


def test_production_wants_its_key_set_over_https(production: dict[str, str]) -> None:
    del production["JWT_PUBLIC_KEY_FILE"]
    assert load({**production, "JWT_JWKS_URL": "https://auth.test/jwks.json"}).jwt_public_key_file is None
    assert problems({**production, "JWT_JWKS_URL": "http://auth.test/jwks.json"})


def test_values_are_parsed(good: dict[str, str]) -> None:
    settings = load(
        {
            **good,
            "TRUSTED_PROXIES": "10.0.0.0/8, ::1/128",
            "HOLD_SOURCES": "risk-engine=risk,wallet-api=wallet",
            "RETENTION_KYC_EVIDENCE": "8y",
            "RETENTION_CONTACT": "90d",
            "KYC_FOUR_EYES": "on",
        }
    )
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert settings.hold_sources == {"risk-engine": "risk", "wallet-api": "wallet"}
    assert settings.retention == {"kyc_evidence": timedelta(days=2920), "contact": timedelta(days=90)}
    assert settings.kyc_four_eyes


def test_a_dotenv_fills_in_and_loses(good: dict[str, str], tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    lines = [
        "# local",
        "",
        "export PORT=9001",
        "LOG_LEVEL='debug'",
        *(f'{name}="{value}"' for name, value in good.items()),
    ]
    dotenv.write_text("\n".join(lines))
    assert load({}, dotenv).port == 9001
    assert load({"PORT": "9002", "LOG_LEVEL": ""}, dotenv).port == 9002
    assert load({"LOG_LEVEL": ""}, dotenv).log_level == "debug"
    assert load(good, tmp_path / "absent").port == 8080
    # A file that lies about must not change production.
    assert "POSTGRES_URL is required" in problems({"USERCORE_ENV": "production"}, dotenv)
    dotenv.write_text("PORT=1\nhunter2 lies here\n")
    assert problems(good, dotenv) == [".env line 2 is not NAME=value"]


def test_plugins_see_the_same_variables(good: dict[str, str], tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("ACME_API_KEY=one\nACME_BASE_URL=two\n")
    seen = load({**good, "ACME_API_KEY": " three ", "ACME_APP_ID": " "}, dotenv).variables
    assert (seen["ACME_API_KEY"], seen["ACME_BASE_URL"]) == ("three", "two")
    assert "ACME_APP_ID" not in seen
    assert "three" not in repr(seen)


def test_tiers_are_a_setting(good: dict[str, str]) -> None:
    tiers = "tier_1=pan,tier_2=aadhaar+address,tier_3=bank+selfie"
    assert load({**good, "KYC_TIERS": tiers}).kyc_tiers["tier_3"] == {"bank", "selfie"}
    for wrong in ("tier_1=pan", "tier_4=pan", "tier_1=passport"):
        assert any("KYC_TIERS" in problem for problem in problems({**good, "KYC_TIERS": wrong}))


def test_no_secret_is_printed(production: dict[str, str]) -> None:
    settings = load(
        {**production, "KAFKA_SASL_PASSWORD": "hunter8", "SCHEMA_REGISTRY_URL": "https://hunter9@registry.test"}
    )
    shown = masked(settings)
    for text in (repr(settings), str(settings), str(shown), f"{settings.postgres_url}"):
        assert "hunter" not in text
    assert shown["POSTGRES_URL"] == "postgresql://app:***@db:5432/usercore?***"
    assert shown["REDIS_URL"] == "redis://:***@cache:6379/0"
    assert shown["KAFKA_SASL_PASSWORD"] == "***"
    assert settings.redis_url.reveal() == production["REDIS_URL"]
    with pytest.raises(TypeError):
        pickle.dumps(settings.redis_url)
    with pytest.raises(TypeError):
        msgspec.json.encode(settings.redis_url)


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1


def test_the_docs_name_every_variable_and_no_other() -> None:
    documented = re.findall(r"^\| `([A-Z0-9_]+)` \|", DOCS.read_text(), re.MULTILINE)
    fields = {field.name.upper() for field in msgspec.structs.fields(Settings)} - {"RETENTION", "VARIABLES"}
    periods = {f"RETENTION_{name.upper()}" for name in RETENTION_CLASSES}
    assert sorted(documented) == sorted(fields | periods)


def test_the_docs_name_the_defaults(good: dict[str, str]) -> None:
    shown = masked(load(good))
    for name, default in re.findall(r"^\| `([A-Z0-9_]+)` \|.*\| `([^`]*)` \|$", DOCS.read_text(), re.MULTILINE):
        assert name == "USERCORE_ENV" or default in (shown[name], "POSTGRES_URL"), name
