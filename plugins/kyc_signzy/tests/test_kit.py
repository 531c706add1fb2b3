"""Signzy keeps the promises of a vendor."""

from kyc_signzy import SPEC
from kyc_signzy.sandbox import SignzySandbox

from usercore.testing.kit import VendorKit


class TestKit(VendorKit):
    spec = SPEC
    sandbox = SignzySandbox
