"""Signzy as a KYC vendor: Aadhaar and address through DigiLocker, and bank accounts."""

from kyc_signzy.client import Signzy
from kyc_signzy.settings import SignzySettings
from usercore.plugins import API_VERSION, VendorSpec, hookimpl

SPEC = VendorSpec(
    name="signzy",
    api_version=API_VERSION,
    title="Signzy",
    settings=SignzySettings,
    checks=frozenset(("aadhaar", "address", "bank")),
    # The name goes with a bank account. For DigiLocker Signzy is sent nothing of the person.
    discloses=frozenset(("first_name", "last_name")),
    # DigiLocker's callbacks carry nothing that could authenticate them, so that url_token is what Signzy itself can do.
    # The others are for a relay of ours that signs or adds a header, and for the sandbox.
    webhook_schemes=frozenset(("hmac", "static_header", "url_token")),
    factory=Signzy,
    sandbox="kyc_signzy.sandbox",
)


@hookimpl
def usercore_kyc_vendors() -> list[VendorSpec[SignzySettings]]:
    """Signzy."""
    return [SPEC]
