"""HyperVerge keeps the promises of a vendor."""

from kyc_hyperverge import SPEC
from kyc_hyperverge.sandbox import HyperVergeSandbox

from usercore.testing.kit import VendorKit


class TestKit(VendorKit):
    spec = SPEC
    sandbox = HyperVergeSandbox
