"""The loader: plugins as they are installed, and a sentence for each reason to refuse one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from click.testing import CliRunner

from tests.edge.web import settings as dev_settings
from tests.plugins.plugin import HOOK, Install, install
from usercore.cli import main
from usercore.errors import SettingsError
from usercore.plugins import Attempt, Http, Person, StartRequest, VendorBug, VendorPending
from usercore.plugins.loading import Vendor, VendorsRefused, enable, load
from usercore.settings import Settings
from usercore.telemetry import Metrics

__all__ = ["install"]

SECRET = "hunter2-of-acme"
PRODUCTION: dict[str, str] = {
    "USERCORE_ENV": "production",
    "ARTIFACT_STORE_URL": "s3://documents",
    "CLICKHOUSE_URL": "clickhouse://ch/audit",
    "PII_ENCRYPTION_KEY_ID": "gcp-kms://projects/p",
    "PUBLIC_URL": "https://us.test",
}


def variables(name: str = "ACME", **more: str) -> dict[str, str]:
    """What lets a vendor start in production."""
    found = {
        "API_KEY": f"key-{SECRET}",
        "BASE_URL": "https://api.vendor.test",
        "WEBHOOK_AUTH": "hmac",
        "WEBHOOK_SECRETS": f"{SECRET}-{name}",
        **more,
    }
    return {f"{name}_{field}": value for field, value in found.items()}


class Start:
    """What a start does, with an environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def settings(self, names: str = "acme", *, production: bool = False) -> Settings:
        return dev_settings(self._folder, KYC_VENDORS=names, **(PRODUCTION if production else {}))

    def load(
        self, names: str = "acme", environ: Mapping[str, str] | None = None, *, production: bool = False
    ) -> dict[str, Vendor]:
        given = variables() if environ is None else environ
        asked: list[str] = []

        def http_for(name: str) -> Http:
            asked.append(name)
            return cast(Http, None)

        vendors = load(self.settings(names, production=production), given, http_for, Metrics())
        assert asked == list(vendors)
        return vendors

    def problems(
        self, names: str = "acme", environ: Mapping[str, str] | None = None, *, production: bool = False
    ) -> list[str]:
        with pytest.raises(VendorsRefused) as caught:
            self.load(names, environ, production=production)
        assert isinstance(caught.value, SettingsError), "the start prints these"
        for problem in caught.value.problems:
            assert SECRET not in problem
            assert "\n" not in problem
            assert ": " in problem or " is required" in problem or " must " in problem, "it says what to do"
        return caught.value.problems


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return Start(tmp_path)


async def test_a_vendor_is_loaded(install: Install, start: Start) -> None:
    install()
    vendors = start.load(environ={**variables(), "ACME_APP_ID": "app-7"}, production=True)
    vendor = vendors["acme"]
    request = StartRequest(attempt_id=UUID(int=1), checks=frozenset(), person=Person(), callback_url="https://us.test")
    assert (await vendor.kyc.start(request)).vendor_case_id == "app-7"
    with pytest.raises(VendorPending):
        await vendor.kyc.fetch(Attempt(attempt_id=UUID(int=1), vendor_case_id="v", checks=frozenset()))
    installed = vendor.enabled.installed
    assert (installed.distribution, installed.version) == ("usercore-kyc-acme", "1.2")
    assert installed.source == "usercore_kyc_acme_module"
    assert vendor.enabled.webhook is not None
    assert (vendor.enabled.webhook.scheme, vendor.enabled.webhook.secrets) == ("hmac", (f"{SECRET}-ACME",))
    for text in (repr(vendor.enabled), repr(vendor), repr(vendor.enabled.settings), str(vendor.enabled.masked())):
        assert SECRET not in text


def test_the_order_is_that_of_the_setting(install: Install, start: Start) -> None:
    install("acme")
    install("zeta")
    environ = {**variables(), **variables("ZETA")}
    assert list(start.load("zeta,acme", environ)) == ["zeta", "acme"]
    assert list(start.load("acme,zeta", environ)) == ["acme", "zeta"]
    assert list(start.load("zeta", environ)) == ["zeta"]


def test_one_plugin_with_two_vendors(install: Install, start: Start) -> None:
    points = "[usercore.kyc_vendors]\nacme = acme_both\nzeta = acme_both\n"
    install(body='return [spec(), spec(name="zeta")]', entry_points=points, module="acme_both")
    assert list(start.load("zeta,acme", {**variables(), **variables("ZETA")})) == ["zeta", "acme"]


def test_an_entry_point_may_name_an_object(install: Install, start: Start) -> None:
    hook = "class Plugin:\n    @hookimpl\n    def usercore_kyc_vendors(self):\n        yield spec()\nplugin = Plugin()"
    install(hook=hook, module="acme_object", entry_points="[usercore.kyc_vendors]\nacme = acme_object:plugin\n")
    assert list(start.load()) == ["acme"]


# What is not enabled --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"source": "raise RuntimeError('must not be imported')"},
        {"source": "this is no Python"},
        {"entry_points": "[usercore.kyc_vendors]\nno equals sign\n"},
        {"entry_points": "[usercore.kyc_vendors]\nzeta = \n"},
        {"entry_points": "no section = x\n"},
    ],
)
def test_what_is_installed_and_not_listed_harms_nobody(install: Install, start: Start, broken: dict[str, Any]) -> None:
    install("zeta", module="zeta_broken", **broken)
    install()
    assert list(start.load()) == ["acme"]
    assert "zeta_broken" not in sys.modules


# Plugins that are refused ---------------------------------------------------------------------------------------------


def test_not_installed(start: Start) -> None:
    (problem,) = start.problems("acme")
    assert problem == (
        "KYC_VENDORS names acme, which is not installed: install the distribution that has the entry point acme in the "
        "group usercore.kyc_vendors, or take acme out of KYC_VENDORS"
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (f"raise RuntimeError('{SECRET}')", "RuntimeError at"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError at"),
        (f"this is no Python {SECRET}", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
    ],
)
def test_broken_at_import(install: Install, start: Start, source: str, error: str) -> None:
    install(source=source)
    (problem,) = start.problems()
    assert f"KYC_VENDORS names acme, whose plugin usercore-kyc-acme cannot be imported, {error}" in problem
    if " at" in error:
        assert "usercore_kyc_acme_module.py:1" in problem


def test_an_entry_point_to_nothing(install: Install, start: Start) -> None:
    install(entry_points="[usercore.kyc_vendors]\nacme = usercore_kyc_acme_module:absent\n")
    assert "cannot be imported, AttributeError" in start.problems()[0]


def test_installed_twice(install: Install, start: Start) -> None:
    install(distribution="one-acme")
    install(distribution="two-acme")
    (problem,) = start.problems()
    assert problem == (
        "KYC_VENDORS names acme, which is installed twice, by one-acme and two-acme: uninstall all but one"
    )


def test_given_by_two_plugins(install: Install, start: Start) -> None:
    install("acme")
    install("zeta", body='return [spec(), spec(name="acme")]')
    (problem,) = start.problems("acme,zeta", {**variables(), **variables("ZETA")})
    assert "several give acme, usercore-kyc-acme" in problem
    assert "usercore-kyc-zeta" in problem


def test_given_twice_by_one_plugin(install: Install, start: Start) -> None:
    install(body="return [spec(), spec()]")
    assert "gives twice" in start.problems()[0]


def test_listed_twice(install: Install, start: Start) -> None:
    install()
    assert start.problems("acme,acme") == ["KYC_VENDORS names acme twice: take one of them out"]


def test_another_name_than_the_entry_points(install: Install, start: Start) -> None:
    install(body='return [spec(name="zeta")]')
    assert start.problems()[0].endswith("does not give: its vendors are zeta")


def test_a_misspelled_hook(install: Install, start: Start) -> None:
    install(hook="@hookimpl\ndef usercore_kyc_vendor():\n    return [spec()]\n")
    (problem,) = start.problems()
    assert problem == (
        "KYC_VENDORS names acme, whose plugin usercore-kyc-acme has a hook usercore_kyc_vendor, which does not exist: "
        "call it usercore_kyc_vendors"
    )


def test_a_misspelled_hook_beside_the_good_one(install: Install, start: Start) -> None:
    install(hook=HOOK.format(body="return [spec()]") + "\n@hookimpl\ndef usercore_kyc_vendros():\n    return []\n")
    assert "has a hook usercore_kyc_vendros, which does not exist" in start.problems()[0]


def test_no_hook(install: Install, start: Start) -> None:
    install(hook="def usercore_kyc_vendors():\n    return [spec()]\n")
    assert "has no hook: mark its function usercore_kyc_vendors with @hookimpl" in start.problems()[0]


def test_a_hook_with_arguments(install: Install, start: Start) -> None:
    install(hook="@hookimpl\ndef usercore_kyc_vendors(settings):\n    return [spec()]\n")
    assert "with arguments: it takes none" in start.problems()[0]


@pytest.mark.parametrize("body", [f"raise KeyError('{SECRET}')", f"yield spec(); raise KeyError('{SECRET}')"])
def test_a_hook_that_raises(install: Install, start: Start, body: str, capfd: pytest.CaptureFixture[str]) -> None:
    install(body=body)
    assert "fails in its hook with KeyError at" in start.problems()[0]
    out, err = capfd.readouterr()
    assert "plugin_broken" in out + err
    assert SECRET not in out + err


@pytest.mark.parametrize("body", ["return", "return []", "return spec()", "return [spec(), 'acme']", "return 7"])
def test_a_hook_that_gives_something_else(install: Install, start: Start, body: str) -> None:
    install(body=body)
    assert "gives something else than VendorSpecs" in start.problems()[0]


def test_an_asynchronous_hook(install: Install, start: Start) -> None:
    install(hook="@hookimpl\nasync def usercore_kyc_vendors():\n    return [spec()]\n")
    assert "gives something else than VendorSpecs" in start.problems()[0]


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("2", "for version 2 of the plugin API, and this is version 1: upgrade usercore"),
        ("0", "for version 0 of the plugin API, and this is version 1: upgrade the plugin"),
        ("'1'", "for no version of the plugin API, and this is version 1: upgrade the plugin"),
    ],
)
def test_a_wrong_api_version(install: Install, start: Start, version: str, sentence: str) -> None:
    install(body=f"return [spec(api_version={version})]")
    assert start.problems()[0].endswith(sentence)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "'Acme'"),
        ("name", "'acme/../x'"),
        ("name", "None"),
        ("title", "''"),
        ("checks", "frozenset()"),
        ("checks", "frozenset(('dna',))"),
        ("checks", "'pan'"),
        ("discloses", "frozenset(('aadhaar_number',))"),
        ("webhook_schemes", "frozenset()"),
        ("webhook_schemes", "frozenset(('none',))"),
        ("webhook_header", "'x y'"),
        ("operations", "frozenset(('delete',))"),
        ("settings", "dict"),
        ("settings", "type('S', (), {})"),
        ("factory", "None"),
        ("sandbox", "7"),
    ],
)
def test_a_spec_with_a_field_that_it_cannot_have(install: Install, start: Start, field: str, value: str) -> None:
    install(body=f"return [spec({field}={value})]")
    (problem,) = start.problems()
    assert f"gives a VendorSpec with {field} that it cannot have" in problem


def test_settings_whose_annotations_name_nothing(install: Install, start: Start) -> None:
    install(fields='    region: "Absent" = ""')
    assert "with settings that it cannot have" in start.problems()[0]


def test_a_factory_that_fails(install: Install, start: Start) -> None:
    install(body=f"return [spec(factory=lambda settings, http: {{}}['{SECRET}'])]")
    assert "fails with KeyError when it is made" in start.problems()[0]


def test_methods_that_are_not_there(install: Install, start: Start) -> None:
    install(body="return [spec(factory=lambda settings, http: object(), operations=frozenset(('erase',)))]")
    problems = start.problems()
    assert [problem.split("method ")[1].split(":")[0] for problem in problems] == [
        "start",
        "fetch",
        "read_webhook",
        "erase",
    ]


async def test_erase_declared_and_not_written(install: Install, start: Start) -> None:
    install("acme", body="return [spec(operations=frozenset(('erase',)))]")
    erase = "\n    async def erase(self, attempt):\n        self.erased = attempt\n"
    install("zeta", body="return [spec(operations=frozenset(('erase',)))]", methods=erase)
    environ = {**variables(), **variables("ZETA")}
    (problem,) = start.problems("acme,zeta", environ)
    assert problem == (
        "KYC_VENDORS names acme, whose plugin usercore-kyc-acme has no method erase: write it, or do not declare the "
        "operation"
    )
    attempt = Attempt(attempt_id=UUID(int=1), vendor_case_id="v", checks=frozenset())
    await start.load("zeta", environ)["zeta"].kyc.erase(attempt)
    install("nova")
    with pytest.raises(VendorBug):
        await start.load("nova", variables("NOVA"))["nova"].kyc.erase(attempt)


# Settings that are refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("API_KEY", "ACME_API_KEY is required in production while KYC_VENDORS names acme"),
        ("BASE_URL", "ACME_BASE_URL must be a URL that starts with https:// in production"),
        ("WEBHOOK_AUTH", "ACME_WEBHOOK_AUTH is required in production: set it to hmac or url_token"),
        ("WEBHOOK_SECRETS", "ACME_WEBHOOK_SECRETS is required in production when ACME_WEBHOOK_AUTH is hmac"),
    ],
)
@pytest.mark.parametrize("value", ["", " ", None])
def test_what_production_requires(
    install: Install, start: Start, missing: str, sentence: str, value: str | None
) -> None:
    install()
    environ = variables()
    if value is None:
        del environ[f"ACME_{missing}"]
    else:
        environ[f"ACME_{missing}"] = value
    assert start.problems(environ=environ, production=True) == [sentence]
    assert list(start.load(environ=environ)) == ["acme"]


@pytest.mark.parametrize(
    "url", ["http://api.vendor.test", "api.vendor.test", "https://", "https://u:p@vendor.test", "https://[x", "ftp://x"]
)
def test_production_reaches_vendors_over_https(install: Install, start: Start, url: str) -> None:
    install()
    (problem,) = start.problems(environ=variables(BASE_URL=url), production=True)
    assert problem.startswith("ACME_BASE_URL must be a URL that starts with https://")
    if url == "http://api.vendor.test":
        start.load(environ=variables(BASE_URL=url))
    else:
        assert start.problems(environ=variables(BASE_URL=url))[0].startswith("ACME_BASE_URL must be")


def test_a_scheme_that_the_vendor_does_not_have(install: Install, start: Start) -> None:
    install()
    for production in (True, False):
        assert start.problems(environ=variables(WEBHOOK_AUTH="static_header"), production=production) == [
            "ACME_WEBHOOK_AUTH is a scheme that acme does not have: set it to hmac or url_token"
        ]
    (problem,) = start.problems(environ=variables(WEBHOOK_AUTH="none"))
    assert problem == "ACME_WEBHOOK_AUTH must be one of hmac, static_header, url_token"


@pytest.mark.parametrize("secrets", ["", ",", " , ", "whsec_"])
@pytest.mark.parametrize("scheme", ["hmac", "static_header"])
def test_an_empty_secret(
    install: Install, start: Start, secrets: str, scheme: str, capfd: pytest.CaptureFixture[str]
) -> None:
    install(body="return [spec(webhook_schemes=frozenset(('hmac', 'static_header')))]")
    environ = variables(WEBHOOK_AUTH=scheme, WEBHOOK_SECRETS=secrets)
    (problem,) = start.problems(environ=environ, production=True)
    assert problem == f"ACME_WEBHOOK_SECRETS is required in production when ACME_WEBHOOK_AUTH is {scheme}"
    assert start.load(environ=environ)["acme"].enabled.webhook is None, "in dev nothing is accepted"
    out, err = capfd.readouterr()
    assert '"event":"webhooks_refused"' in out + err


def test_a_token_needs_no_secret(install: Install, start: Start) -> None:
    install()
    environ = variables(WEBHOOK_AUTH="url_token", WEBHOOK_SECRETS="")
    webhook = start.load(environ=environ, production=True)["acme"].enabled.webhook
    assert webhook is not None
    assert webhook.scheme == "url_token"


def test_dev_has_the_scheme_of_the_sandboxes(install: Install, start: Start) -> None:
    install("acme")
    install("zeta", body="return [spec(webhook_schemes=frozenset(('url_token',)))]")
    environ = {"ACME_WEBHOOK_SECRETS": SECRET, "ZETA_WEBHOOK_SECRETS": SECRET + "z"}
    vendors = start.load("acme,zeta", environ)
    assert vendors["acme"].enabled.webhook is not None
    assert vendors["acme"].enabled.webhook.scheme == "hmac"
    assert vendors["zeta"].enabled.webhook is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SECRET, SECRET),
        (f"a,{SECRET}", f" {SECRET} ,b"),
        ("whsec_" + "aHVudGVyMg==", "hunter2"),
        ("hunter2", "whsec_" + "aHVudGVyMg=="),
    ],
)
def test_two_vendors_share_no_secret(install: Install, start: Start, one: str, other: str) -> None:
    install("acme")
    install("zeta")
    environ = {**variables(WEBHOOK_SECRETS=one), **variables("ZETA", WEBHOOK_SECRETS=other)}
    for production in (True, False):
        assert start.problems("acme,zeta", environ, production=production) == [
            "ACME_WEBHOOK_SECRETS and ZETA_WEBHOOK_SECRETS have a secret in common: give each vendor its own"
        ]


def test_secrets_that_cannot_be_right(install: Install, start: Start) -> None:
    install(body="return [spec(webhook_schemes=frozenset(('hmac', 'static_header')))]")
    (problem,) = start.problems(environ=variables(WEBHOOK_SECRETS=f"whsec_{SECRET}!"))
    assert "starts with whsec_ and is not base64" in problem
    (problem,) = start.problems(environ=variables(WEBHOOK_AUTH="static_header", WEBHOOK_SECRETS=f"{SECRET}-é"))
    assert "is not ASCII" in problem


def test_settings_that_the_plugin_refuses(install: Install, start: Start) -> None:
    install(fields="    def __post_init__(self):\n        raise ValueError(self.api_key)\n")
    (problem,) = start.problems()
    assert problem == "ACME_* is refused by the plugin of acme, ValueError: see its README"


def test_variables_that_two_would_read(install: Install, start: Start) -> None:
    install("acme", fields='    in_api_key: str = ""')
    install("acme_in")
    (problem,) = start.problems("acme,acme_in", {**variables(), **variables("ACME_IN")})
    assert problem == "ACME_IN_API_KEY would be read by acme_in and by acme: rename a field in the plugin"
    install("postgres", fields='    url: str = ""')
    assert start.problems("postgres", variables("POSTGRES"))[0].startswith("POSTGRES_URL would be read by postgres")


def test_everything_that_is_wrong_is_named_at_once(install: Install, start: Start) -> None:
    install("acme", fields="    threshold: int = 1")
    install("broken", source="raise RuntimeError")
    install("zeta")
    environ = {
        **variables(API_KEY="", BASE_URL="http://x", WEBHOOK_SECRETS=""),
        **variables("ZETA", WEBHOOK_AUTH="", BASE_URL=""),
    }
    problems = start.problems("acme,absent,broken,zeta", environ, production=True)
    assert len(problems) == 7
    problems = start.problems("acme,broken", {**environ, "ACME_THRESHOLD": SECRET}, production=True)
    assert [problem.split()[0] for problem in problems] == ["KYC_VENDORS", "ACME_THRESHOLD"]


def test_looking_does_not_make_the_vendors(install: Install, start: Start) -> None:
    install(body="return [spec(factory=lambda settings, http: 1 / 0)]")
    (enabled,) = enable(start.settings(), variables(APP_ID="app"))
    shown = enabled.masked()
    assert shown == {
        "ACME_API_KEY": "***",
        "ACME_BASE_URL": "https://api.vendor.test",
        "ACME_WEBHOOK_AUTH": "hmac",
        "ACME_WEBHOOK_SECRETS": "***",
        "ACME_APP_ID": "app",
    }


def test_the_command_prints_each_problem(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it prints problems of settings: one line each, exit status 2."""
    found = start.problems("one,two")

    def refuse(*_: object) -> None:
        raise VendorsRefused(found)

    monkeypatch.setattr("usercore.commands.service.current", refuse)
    result = CliRunner().invoke(main, ["config"])
    assert result.exit_code == 2
    assert result.output.splitlines() == [f"usercore: {problem}" for problem in found]
