"""The settings of Signzy, read from SIGNZY_*, and the addresses that follow from them."""

from typing import Literal

from usercore.plugins import VendorSettings

BASE_URL = "https://api.signzy.app"
"""Production; https://api-preproduction.signzy.app is the other."""
BANK = "/api/v3/bankaccountverification/bankaccountverifications"

DigiLocker = Literal["v2", "v1"]
CREATE_URL: dict[DigiLocker, str] = {
    "v2": "/api/v3/digilocker-v2/createUrl",
    "v1": "/api/v3/digilocker/createUrl",
}
GET_AADHAAR: dict[DigiLocker, str] = {
    # The capital A is theirs, in v2 alone.
    "v2": "/api/v3/digilocker-v2/geteAadhaar",
    "v1": "/api/v3/digilocker/geteaadhaar",
}


class SignzySettings(VendorSettings, frozen=True, kw_only=True):
    """`api_key` is the opaque token that Signzy issues; it is sent as it is, without `Bearer`."""

    client_id: str = ""
    """The account, for instance an e-mail address: most of their endpoints are said to want it, and some not."""
    base_url: str = BASE_URL
    digilocker_version: DigiLocker = "v2"
    """Accounts of 2026 are entitled to v2 only."""

    def __post_init__(self) -> None:
        if self.api_key != self.api_key.strip() or self.api_key.lower().startswith("bearer "):
            raise ValueError("an api_key goes without Bearer and without spaces around it")

    def __repr__(self) -> str:
        return "SignzySettings(…)"

    def is_sandbox(self) -> bool:
        """Signzy itself has https only."""
        return self.base_url.startswith("http:")
