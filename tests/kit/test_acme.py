"""The sample vendor, from which `usercore new-vendor` makes others, keeps the promises of a vendor."""

from usercore.testing.acme import SPEC
from usercore.testing.acme.sandbox import AcmeSandbox
from usercore.testing.kit import VendorKit


class TestAcme(VendorKit):
    spec = SPEC
    sandbox = AcmeSandbox
