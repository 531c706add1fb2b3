"""The plugin as the host finds it: its spec, its settings, and what it shows of them."""

from typing import Any

import pytest
from kyc_signzy import SPEC
from kyc_signzy.settings import BASE_URL, SignzySettings

from usercore.plugins import distributions, variables


def read(**environ: str) -> tuple[SignzySettings | None, list[str]]:
    found, problems = variables.read(SPEC, {f"SIGNZY_{name}": value for name, value in environ.items()})
    assert found is None or isinstance(found, SignzySettings)
    return found, problems


def test_host_finds_it_by_name() -> None:
    installed, problems = distributions.find(("signzy",))
    assert problems == []
    assert [(each.spec, each.distribution, each.source) for each in installed] == [
        (SPEC, "usercore-kyc-signzy", "kyc_signzy")
    ]


def test_settings_have_their_defaults() -> None:
    found, problems = read()
    assert problems == []
    assert found is not None
    assert found == SignzySettings()
    assert (found.base_url, found.digilocker_version, found.client_id) == (BASE_URL, "v2", "")


def test_settings_are_read_from_the_environment() -> None:
    found, problems = read(
        API_KEY="token",
        CLIENT_ID="ops@example.in",
        BASE_URL="https://api-preproduction.signzy.app",
        DIGILOCKER_VERSION="v1",
        WEBHOOK_AUTH="url_token",
        WEBHOOK_SECRETS="one,two",
    )
    assert problems == []
    assert found == SignzySettings(
        api_key="token",
        client_id="ops@example.in",
        base_url="https://api-preproduction.signzy.app",
        digilocker_version="v1",
        webhook_auth="url_token",
        webhook_secrets=("one", "two"),
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"API_KEY": "Bearer sesame"},
        {"API_KEY": "bearer sesame"},
        {"DIGILOCKER_VERSION": "v3"},
        {"WEBHOOK_AUTH": "basic"},
    ],
)
def test_settings_that_cannot_be_are_refused_without_their_values(environ: dict[str, Any]) -> None:
    _, problems = read(**environ)
    assert len(problems) == 1
    assert "SIGNZY_" in problems[0]
    assert "sesame" not in problems[0]


def test_settings_do_not_show_themselves() -> None:
    shown = repr(SignzySettings(api_key="sesame", client_id="ops@example.in", webhook_secrets=("open",)))
    assert shown == "SignzySettings(…)"


@pytest.mark.parametrize(
    ("url", "sandbox"),
    [(BASE_URL, False), ("https://127.0.0.1:9", False), ("http://127.0.0.1:9", True)],
)
def test_only_plain_http_is_a_sandbox(url: str, sandbox: bool) -> None:
    assert SignzySettings(base_url=url).is_sandbox() is sandbox
