"""Settings that lead to the sandbox, and a fence around it: the kit calls no vendor."""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from usercore.plugins import variables
from usercore.plugins.vendor import Http, Response, VendorSettings, VendorSpec
from usercore.testing.verdicts import Failed

SECRET = "kit-webhook-secret-5d1c"  # noqa: S105 - it protects nothing
KEY = "kit-api-key-91ac"


class Fenced:
    """`Http` of the host that lets nothing out of this machine: settings with a real address are a mistake."""

    def __init__(self, inner: Http) -> None:
        self._inner = inner

    async def post(
        self, operation: str, url: str, *, json: object, headers: Mapping[str, str], safe: bool = False
    ) -> Response:
        _check_fence(operation, url)
        return await self._inner.post(operation, url, json=json, headers=headers, safe=safe)

    async def get(self, operation: str, url: str, *, headers: Mapping[str, str]) -> Response:
        _check_fence(operation, url)
        return await self._inner.get(operation, url, headers=headers)


def made_settings(spec: VendorSpec[Any], given: Mapping[str, object], url: str) -> VendorSettings:
    """Settings with which the plugin speaks to the sandbox: addresses are its, and texts that are empty are made up."""
    environ: dict[str, str] = {}
    for field in msgspec.structs.fields(spec.settings):
        name = variables.variable(spec.name, field.name)
        if field.name.endswith("_url"):
            environ[name] = url
        elif field.name == "api_key":
            environ[name] = KEY
        elif field.type is str and (field.required or field.default == ""):
            environ[name] = "kit-" + field.name.replace("_", "-")
    environ[variables.variable(spec.name, "webhook_secrets")] = SECRET
    found, problems = variables.read(spec, environ)
    if found is None:
        if not given:
            raise Failed("; ".join(problems))
        found = spec.settings(**{"api_key": KEY, "base_url": url, **given})
    return cast("VendorSettings", msgspec.structs.replace(found, **given)) if given else found


def _check_fence(operation: str, url: str) -> None:
    if urlsplit(url).hostname != "127.0.0.1":
        raise Failed(
            f"the operation {operation} goes to an address that is not the sandbox's: build addresses from base_url, "
            "or from another setting whose name ends in _url"
        )
