"""The settings of Acme, read from ACME_*."""

from usercore.plugins import VendorSettings


class AcmeSettings(VendorSettings, frozen=True, kw_only=True):
    """`api_key`, `webhook_auth` and `webhook_secrets` are there already: add what else the vendor's accounts have.

    A field `workflow_id: str = ""` is read from ACME_WORKFLOW_ID. Fields whose names end in `_key`, `_secret` or
    `_token` are never shown; those that end in `_url` are the sandbox's address in the kit.
    """

    base_url: str = "https://api.acme.example"
    """The vendor's production. Replace it by the address that its documents have."""

    def __repr__(self) -> str:
        return "AcmeSettings(…)"
