"""Acme as a KYC vendor: PAN and selfie."""

from usercore.plugins import API_VERSION, VendorSpec, hookimpl
from usercore.testing.acme.client import Acme
from usercore.testing.acme.settings import AcmeSettings

SPEC = VendorSpec(
    name="acme",
    api_version=API_VERSION,
    title="Acme",
    settings=AcmeSettings,
    # What one attempt with this vendor verifies: replace it by what yours can.
    checks=frozenset(("pan", "selfie")),
    # What client.py sends of a person. No other field reaches the plugin, and each call is recorded with these.
    discloses=frozenset(("first_name", "last_name", "date_of_birth", "pan_number")),
    # How webhooks can be authenticated: keep what your vendor's documents have.
    webhook_schemes=frozenset(("hmac", "static_header", "url_token")),
    factory=Acme,
    sandbox="usercore.testing.acme.sandbox",
)


@hookimpl
def usercore_kyc_vendors() -> list[VendorSpec[AcmeSettings]]:
    """Acme."""
    return [SPEC]
