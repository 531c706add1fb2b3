"""What can go wrong with a vendor. A plugin raises these and no others."""

from typing import Literal

from usercore.errors import UsercoreError

RejectionCode = Literal[
    "document_unreadable",
    "document_expired",
    "face_mismatch",
    "liveness_failed",
    "pan_invalid",
    "aadhaar_invalid",
    "address_mismatch",
    "bank_invalid",
    "identity_mismatch",
    "fraud",
    "manual",
    "account_closed",
    "vendor_declined",
]


class VendorError(UsercoreError):
    """The vendor could not do what it was asked.

    VendorError
    ├── VendorUnavailable    it cannot be had now: the host tries again, or another vendor
    ├── VendorPending        it has no result yet
    ├── VendorAuthError      it does not accept our credentials
    ├── VendorRejected       it will not have this person or these inputs
    ├── VendorProtocolError  it said something that is not in its documents
    └── VendorBug            the plugin raised something else
    """


class VendorUnavailable(VendorError):
    """The vendor cannot be had now."""

    def __init__(self, *, retry_after_s: float | None = None, reached: bool = True) -> None:
        """`reached` is false only when the vendor certainly knows nothing of the call: no connection was made."""
        self.retry_after_s = retry_after_s
        self.reached = reached
        super().__init__()


class VendorPending(VendorError):
    """The vendor has no result yet."""


class VendorAuthError(VendorError):
    """The vendor does not accept our credentials."""


class VendorRejected(VendorError):
    """The vendor will not have this person or these inputs."""

    def __init__(self, code: RejectionCode = "vendor_declined") -> None:
        self.code: RejectionCode = code
        super().__init__()


class VendorProtocolError(VendorError):
    """The vendor said something that is not in its documents."""


class VendorBug(VendorError):
    """A plugin raised what no plugin may raise."""
