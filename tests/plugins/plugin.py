"""Plugins as they are installed: a *.dist-info with an entry point, and a module, in a folder on the path."""

import importlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

MODULE = """
from usercore.plugins import *
from usercore.plugins import hookimpl
from typing import Literal

class Settings(VendorSettings, frozen=True, kw_only=True):
    app_id: str = ""
{fields}

class Vendor:
    def __init__(self, settings, http):
        self.settings, self.http = settings, http

    async def start(self, request):
        return Started(vendor_case_id=self.settings.app_id)

    async def fetch(self, attempt):
        raise VendorPending

    def read_webhook(self, headers, body):
        raise VendorProtocolError
{methods}

def spec(**more):
    return VendorSpec(**dict(
        name="{name}", api_version=1, title="Acme", settings=Settings, checks=frozenset(("pan",)),
        discloses=frozenset(("first_name",)), webhook_schemes=frozenset(("hmac", "url_token")), factory=Vendor,
    ) | more)

{hook}
"""
HOOK = """
@hookimpl
def usercore_kyc_vendors():
    {body}
"""

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Install]:
    """Installs a plugin and returns the name of its distribution."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made: set[str] = set()

    def install(
        name: str = "acme",
        *,
        body: str = "return [spec()]",
        hook: str | None = None,
        fields: str = "",
        methods: str = "",
        source: str | None = None,
        entry_points: str | None = None,
        distribution: str | None = None,
        module: str | None = None,
    ) -> str:
        distribution = distribution or f"usercore-kyc-{name}"
        module = module or f"{distribution.replace('-', '_')}_module"
        made.add(module)
        text = MODULE.format(name=name, fields=fields, methods=methods, hook=hook or HOOK.format(body=body))
        (folder / f"{module}.py").write_text(text if source is None else source)
        info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        if entry_points is None:
            entry_points = f"[usercore.kyc_vendors]\n{name} = {module}\n"
        (info / "entry_points.txt").write_text(entry_points)
        importlib.invalidate_caches()
        return distribution

    yield install
    for module in made:
        sys.modules.pop(module, None)
