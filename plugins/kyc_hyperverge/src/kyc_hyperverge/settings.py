"""The settings of HyperVerge, read from HYPERVERGE_*."""

from usercore.plugins import VendorSettings

BASE_URL = "https://ind.idv.hyperverge.co"
"""India; other regions have their code in place of `ind`."""
TOKEN_URL = "https://ind-state.idv.hyperverge.co"  # noqa: S105 - an address


class HyperVergeSettings(VendorSettings, frozen=True, kw_only=True):
    """`api_key` is what HyperVerge calls appKey."""

    app_id: str = ""
    workflow_id: str = ""
    """The workflow in HyperVerge's dashboard. It has to have the PAN and the selfie modules."""
    base_url: str = BASE_URL
    token_url: str = ""
    """Where SDK tokens are made; empty is HyperVerge's own host for it, or `base_url` when that is another."""

    def __post_init__(self) -> None:
        # A key without its other half is a mistake that each call would make again. A sandbox minds neither.
        if self.api_key and self.base_url.startswith("https:") and not (self.app_id and self.workflow_id):
            raise ValueError("an api_key goes with an app_id and a workflow_id")

    def __repr__(self) -> str:
        return "HyperVergeSettings(…)"

    def token_host(self) -> str:
        """Without a slash at its end."""
        default = TOKEN_URL if self.base_url == BASE_URL else self.base_url
        return (self.token_url or default).rstrip("/")
