"""A plugin's settings from the environment: each type, its bad values, and what is shown of it."""

from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest

from usercore.plugins import VendorSettings, VendorSpec
from usercore.plugins.variables import is_address, masked, read


class Everything(VendorSettings, frozen=True, kw_only=True):
    region: Literal["in", "us"] = "in"
    retries: int = 3
    threshold: float = 0.5
    strict: bool = False
    flows: tuple[str, ...] = ()
    client_id: str
    callback: str | None = None
    ttl: Optional[int] = None  # noqa: UP045 - plugins may write it so
    share: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50
    client_secret: str = ""
    access_token: str = ""
    keyboard: str = ""


class Unreadable(VendorSettings, frozen=True, kw_only=True):
    limits: dict[str, int] = msgspec.field(default_factory=dict[str, int])


def spec(settings: type[VendorSettings] = Everything) -> VendorSpec[Any]:
    return VendorSpec(
        name="acme",
        api_version=1,
        title="Acme",
        settings=settings,
        checks=frozenset(("pan",)),
        discloses=frozenset(),
        webhook_schemes=frozenset(("hmac",)),
        factory=lambda _, __: (_ for _ in ()).throw(AssertionError),
    )


def environ(**values: str) -> dict[str, str]:
    return {f"ACME_{name}": value for name, value in {"CLIENT_ID": "c", **values}.items()}


def test_each_type() -> None:
    found, problems = read(
        spec(),
        environ(
            API_KEY=" key ",
            WEBHOOK_SECRETS="one, two,,",
            WEBHOOK_AUTH="static_header",
            REGION="us",
            RETRIES="-7",
            THRESHOLD="0.75",
            STRICT="on",
            FLOWS="a,b",
            CALLBACK="x",
            TTL="9",
            SHARE="100",
        ),
    )
    assert problems == []
    assert found == Everything(
        api_key="key",
        webhook_secrets=("one", "two"),
        webhook_auth="static_header",
        region="us",
        retries=-7,
        threshold=0.75,
        strict=True,
        flows=("a", "b"),
        client_id="c",
        callback="x",
        ttl=9,
        share=100,
    )


def test_defaults_and_empty_ones() -> None:
    assert read(spec(), environ(RETRIES="", TTL=" "))[0] == Everything(client_id="c")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RETRIES", "1_0", "a whole number"),
        ("RETRIES", "٣", "a whole number"),
        ("RETRIES", "3.0", "a whole number"),
        ("THRESHOLD", "nan", "a number"),
        ("THRESHOLD", "1e400", "a number"),
        ("STRICT", "maybe", "on or off"),
        ("REGION", "hunter2", "one of in, us"),
        ("WEBHOOK_AUTH", "hunter2", "one of hmac, static_header, url_token"),
        ("TTL", "hunter2", "a whole number"),
        ("SHARE", "101", "a whole number as the plugin's README says"),
    ],
)
def test_bad_values_are_named_and_not_shown(name: str, value: str, expected: str) -> None:
    found, problems = read(spec(), environ(**{name: value}))
    assert found is None
    assert problems == [f"ACME_{name} must be {expected}"]


def test_all_of_them_at_once() -> None:
    _, problems = read(spec(), {"ACME_RETRIES": "x", "ACME_STRICT": "x"})
    assert [problem.split()[0] for problem in problems] == ["ACME_RETRIES", "ACME_STRICT", "ACME_CLIENT_ID"]
    assert problems[2] == "ACME_CLIENT_ID is required while KYC_VENDORS names acme"


def test_a_type_without_a_text_form_is_the_plugins_mistake() -> None:
    assert read(spec(Unreadable), environ())[1] == []
    _, problems = read(spec(Unreadable), environ(LIMITS="x"))
    assert problems == ["ACME_LIMITS has a type that is not read from the environment: mend the plugin of acme"]


def test_masked() -> None:
    values = environ(
        API_KEY="hunter1", WEBHOOK_SECRETS="hunter2,hunter3", CLIENT_SECRET="hunter4", ACCESS_TOKEN="hunter5",
        KEYBOARD="qwerty", CALLBACK="https://u:hunter6@cb.test/?key=hunter7", FLOWS="a,b", STRICT="on",
    )  # fmt: skip
    found, _ = read(spec(), values)
    assert found is not None
    shown = masked(spec(), found)
    assert "hunter" not in str(shown) + repr(found) + str(found)
    assert (shown["ACME_API_KEY"], shown["ACME_CLIENT_SECRET"], shown["ACME_ACCESS_TOKEN"]) == ("***", "***", "***")
    assert (shown["ACME_KEYBOARD"], shown["ACME_FLOWS"], shown["ACME_STRICT"]) == ("qwerty", "a,b", "on")
    assert shown["ACME_TTL"] == ""
    assert masked(spec(), Everything(client_id="c"))["ACME_API_KEY"] == ""


def test_addresses() -> None:
    assert is_address("https://api.vendor.test/v1", production=True)
    assert is_address("http://127.0.0.1:8000", production=False)
    for text in ("", "http://x", "https://", "https://a b", "https://u@x", "https://[", "ftp://x"):
        assert not is_address(text, production=True)
