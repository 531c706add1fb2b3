"""The sandboxes of KYC vendors as services of the embedded stack, and the settings that point at them."""

import os
import sys
from collections.abc import Mapping

from usercore.devstack.service import Service
from usercore.plugins import distributions

REDIRECT_HOSTS = "app.example.in"


def installed() -> dict[str, str]:
    """Vendor → module of its sandbox, for those that KYC_VENDORS names (else our own) and that have one."""
    wanted = [name.strip() for name in os.environ.get("KYC_VENDORS", "hyperverge,signzy").split(",")]
    found, _ = distributions.find(tuple(name for name in wanted if name))
    return {each.spec.name: each.spec.sandbox for each in found if each.spec.sandbox is not None}


def port_of(vendor: str) -> str:
    """The setting that carries its port."""
    return f"{vendor.upper()}_SANDBOX_PORT"


def services(modules: Mapping[str, str]) -> tuple[Service, ...]:
    return tuple(
        Service(
            f"{vendor}-sandbox",
            f"what {vendor} would say",
            (
                *(sys.executable, "-P", "-m", module, "--port", f"{{{port_of(vendor)}}}"),
                *("--webhook-secret", f"{{{vendor.upper()}_WEBHOOK_SECRETS}}"),
                *("--webhook-url", f"{{PUBLIC_URL}}/v1/kyc/webhook/{vendor}"),
            ),
            ports={port_of(vendor): None},
            probe=(port_of(vendor), "/_control/health"),
        )
        for vendor, module in modules.items()
    )


def settings(modules: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Each vendor has a secret of its own: two that share one are refused."""
    if not modules:
        return {}
    values = {"KYC_VENDORS": ",".join(modules), "KYC_REDIRECT_HOSTS": REDIRECT_HOSTS}
    for number, vendor in enumerate(modules):
        url = f"http://127.0.0.1:{ports[port_of(vendor)]}"
        name = vendor.upper()
        values |= {
            f"{name}_SANDBOX_URL": url,
            f"{name}_BASE_URL": url,
            f"{name}_API_KEY": "sandbox",
            f"{name}_APP_ID": "sandbox",
            f"{name}_WORKFLOW_ID": "sandbox",
            f"{name}_WEBHOOK_SECRETS": f"sandbox-secret-{number}-of-this-stack",
        }
    return values
