"""The vendors that KYC_VENDORS enables: found, checked, given their settings and made."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

from msgspec import Struct

from usercore.errors import SettingsError
from usercore.logs import logger
from usercore.plugins import distributions, variables, webhooks
from usercore.plugins.distributions import Installed
from usercore.plugins.guard import Guarded
from usercore.plugins.vendor import Http, VendorSettings
from usercore.plugins.webhooks import WebhookConfig
from usercore.settings import Settings
from usercore.telemetry import Metrics

log = logger(__name__)

HttpFor = Callable[[str], Http]
"""The way to the vendor with this name."""


class VendorsRefused(SettingsError):
    """What KYC_VENDORS asks for cannot be had; every problem is a sentence that says what to do, without a value."""


class Enabled(Struct, frozen=True, kw_only=True):
    """A vendor that is installed, with settings that it can start with."""

    installed: Installed
    settings: VendorSettings
    webhook: WebhookConfig | None
    """None refuses its webhooks: outside production, when there is nothing to authenticate them with."""

    @property
    def name(self) -> str:
        return self.installed.spec.name

    def masked(self) -> dict[str, str]:
        """Its variables as `usercore config` shows them."""
        return variables.masked(self.installed.spec, self.settings)


class Vendor(Struct, frozen=True, kw_only=True):
    """An enabled vendor at work."""

    enabled: Enabled
    kyc: Guarded

    @property
    def name(self) -> str:
        return self.enabled.name


def load(settings: Settings, environ: Mapping[str, str], http_for: HttpFor, metrics: Metrics) -> dict[str, Vendor]:
    """The enabled vendors by name, in order of preference; `environ` is what `settings.environment` gives.

    Raises VendorsRefused with everything that is wrong.
    """
    vendors: dict[str, Vendor] = {}
    problems: list[str] = []
    for enabled in enable(settings, environ):
        try:
            made = enabled.installed.spec.factory(enabled.settings, http_for(enabled.name))
        except Exception as error:
            log.error("plugin_broken", error, vendor=enabled.name)
            problems.append(
                f"KYC_VENDORS names {enabled.name}, whose plugin fails with {type(error).__name__} when it is made: "
                f"mend it, or take {enabled.name} out of KYC_VENDORS"
            )
            continue
        problems += _missing_methods(enabled, made)
        vendors[enabled.name] = Vendor(enabled=enabled, kyc=Guarded(enabled.name, made, metrics))
    if problems:
        raise VendorsRefused(problems)
    for vendor in vendors.values():
        if vendor.enabled.webhook is None:
            log.warning("webhooks_refused", vendor=vendor.name, reason="no_webhook_secret")
    return vendors


def enable(settings: Settings, environ: Mapping[str, str]) -> list[Enabled]:
    """As `load`, without making the vendors: for what only looks at them. Raises VendorsRefused."""
    installed, problems = distributions.find(settings.kyc_vendors)
    problems += variables.clashes([each.spec for each in installed])
    enabled: list[Enabled] = []
    for each in installed:
        found, wrong = variables.read(each.spec, environ)
        if found is not None:
            webhook, wrong = _webhook(each, found, production=settings.production)
            wrong += _production_problems(each, found) if settings.production else _dev_problems(each, found)
            enabled.append(Enabled(installed=each, settings=found, webhook=webhook))
        problems += wrong
    problems += _shared_secrets(enabled)
    if problems:
        raise VendorsRefused(problems)
    return enabled


def _production_problems(installed: Installed, settings: VendorSettings) -> list[str]:
    name = installed.spec.name
    problems: list[str] = []
    if not settings.api_key:
        problems.append(
            f"{variables.variable(name, 'api_key')} is required in production while KYC_VENDORS names {name}"
        )
    if not variables.is_address(settings.base_url, production=True):
        problems.append(f"{variables.variable(name, 'base_url')} must be a URL that starts with https:// in production")
    return problems


def _dev_problems(installed: Installed, settings: VendorSettings) -> list[str]:
    if not settings.base_url or variables.is_address(settings.base_url, production=False):
        return []
    name = variables.variable(installed.spec.name, "base_url")
    return [f"{name} must be a URL that starts with https:// or http://"]


def _webhook(
    installed: Installed, settings: VendorSettings, *, production: bool
) -> tuple[WebhookConfig | None, list[str]]:
    """How the vendor's webhooks are authenticated; production has no default, dev has what the sandboxes do."""
    spec = installed.spec
    can = sorted(spec.webhook_schemes)
    auth, secrets = (variables.variable(spec.name, field) for field in ("webhook_auth", "webhook_secrets"))
    scheme = settings.webhook_auth
    if scheme is None:
        if production:
            return None, [f"{auth} is required in production: set it to {' or '.join(can)}"]
        if "hmac" not in can:
            return None, []
        scheme = "hmac"
    if scheme not in can:
        return None, [f"{auth} is a scheme that {spec.name} does not have: set it to {' or '.join(can)}"]
    live = tuple(secret for secret in settings.webhook_secrets if webhooks.keys([secret]))
    config = WebhookConfig(scheme=scheme, secrets=live, header=spec.webhook_header)
    if scheme == "url_token":
        return config, []
    broken = [secret for secret in live if secret.startswith(webhooks.PREFIX) and webhooks.decoded(secret) is None]
    if broken and scheme == "hmac":
        return None, [f"{secrets} has a secret that starts with whsec_ and is not base64: copy it again, whole"]
    if scheme == "static_header" and not all(secret.isascii() for secret in live):
        return None, [f"{secrets} has a secret that is not ASCII, which no header carries: choose another"]
    if not live:
        wrong = f"{secrets} is required in production when {auth} is {scheme}"
        return None, [wrong] if production else []
    return config, []


def _shared_secrets(enabled: Sequence[Enabled]) -> list[str]:
    """A message that two vendors could have sent is nobody's."""
    problems: list[str] = []
    for one, other in combinations(enabled, 2):
        mine, theirs = (webhooks.keys(each.settings.webhook_secrets) for each in (one, other))
        if any(hmac.compare_digest(key, another) for key in mine for another in theirs):
            names = (variables.variable(each.name, "webhook_secrets") for each in (one, other))
            problems.append(f"{' and '.join(names)} have a secret in common: give each vendor its own")
    return problems


def _missing_methods(enabled: Enabled, made: object) -> list[str]:
    wanted = ["start", "fetch", "read_webhook", *sorted(cast("frozenset[str]", enabled.installed.spec.operations))]
    missing = [method for method in wanted if not callable(cast("Any", getattr(made, method, None)))]
    return [
        f"KYC_VENDORS names {enabled.name}, whose plugin {enabled.installed.distribution} has no method {method}: "
        f"write it{', or do not declare the operation' if method in enabled.installed.spec.operations else ''}"
        for method in missing
    ]
