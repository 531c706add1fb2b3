"""HyperVerge as a KYC vendor: PAN and selfie through its hosted workflow."""

from kyc_hyperverge.client import HyperVerge
from kyc_hyperverge.settings import HyperVergeSettings
from usercore.plugins import API_VERSION, VendorSpec, hookimpl

SPEC = VendorSpec(
    name="hyperverge",
    api_version=API_VERSION,
    title="HyperVerge",
    settings=HyperVergeSettings,
    checks=frozenset(("pan", "selfie")),
    discloses=frozenset(("first_name", "last_name", "date_of_birth", "pan_number")),
    # It documents static headers only. `hmac` is for a relay of ours that signs, and for the sandbox.
    webhook_schemes=frozenset(("hmac", "static_header")),
    factory=HyperVerge,
    sandbox="kyc_hyperverge.sandbox",
)


@hookimpl
def usercore_kyc_vendors() -> list[VendorSpec[HyperVergeSettings]]:
    """HyperVerge."""
    return [SPEC]
