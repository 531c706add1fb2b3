"""What a KYC vendor is to the service: everything that a plugin author implements and is given.

A plugin translates between a vendor's wire format and these types, and does nothing else. The host owns time-outs,
retries, circuit breakers, webhook verification, deduplication and all state, so a plugin keeps none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import IntEnum
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import msgspec
import pluggy
from msgspec import Struct

from usercore.plugins.errors import RejectionCode, VendorProtocolError

T = TypeVar("T")

API_VERSION = 1
"""Of everything in this module. A plugin names the one that it was written for."""
ENTRY_POINTS = "usercore.kyc_vendors"
"""The entry point group in which a distribution names its plugin module."""
PROJECT = "usercore"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Check = Literal["pan", "selfie", "aadhaar", "address", "bank"]
"""What a vendor can verify. `selfie` is a live person whose face matches the document."""
CheckResult = Literal["passed", "failed", "review"]
ArtifactType = Literal["selfie", "pan_card", "aadhaar_front", "aadhaar_back", "address_proof", "liveness_video"]
ProfileField = Literal["first_name", "last_name", "date_of_birth", "pan_number", "address", "phone", "email"]
WebhookScheme = Literal["hmac", "static_header", "url_token"]
Operation = Literal["erase"]
"""What a vendor may do besides: a capability, with a protocol of its own below."""


class Standing(IntEnum):
    """What a vendor said of an attempt, by rank: of all that was said, the highest counts, whatever order it came in.

    Rejected comes after approved at the same rank.
    """

    STARTED = 0
    """The person has not finished; also for what they gave up or the vendor could not do."""
    SUBMITTED = 10
    """The person is done and the vendor works on it."""
    REVIEW = 20
    """Somebody at the vendor has to look, or the vendor said something that the plugin does not know."""
    APPROVED = 30
    REJECTED = 31
    MANUALLY_APPROVED = 40
    """By a person at the vendor."""
    MANUALLY_REJECTED = 41
    FRAUD = 50
    """Beats everything that a vendor said."""


# ----------------------------------------------------------------------------------------------- what a plugin is given


class Address(Struct, frozen=True, kw_only=True):
    """A postal address; `country` is ISO 3166-1 alpha-2."""

    line1: str
    line2: str | None = None
    city: str
    state: str
    pin_code: str
    country: str = "IN"

    def __repr__(self) -> str:
        return "Address(…)"


class BankAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Indian bank account. `ifsc` is the branch's code."""

    account_number: str
    ifsc: str

    def __repr__(self) -> str:
        return "BankAccount(…)"


class Person(Struct, frozen=True, kw_only=True):
    """Those fields of the profile that the vendor's spec asks for; all others are None."""

    first_name: str | None = None
    last_name: str | None = None
    date_of_birth: date | None = None
    pan_number: str | None = None
    address: Address | None = None
    phone: str | None = None
    """E.164."""
    email: str | None = None

    def __repr__(self) -> str:
        return "Person(…)"


class StartRequest(Struct, frozen=True, kw_only=True):
    """Start a verification. It may come again with the same `attempt_id`, and then means the same attempt."""

    attempt_id: UUID
    """Give it to the vendor as its correlation id and idempotency key."""
    checks: frozenset[Check]
    person: Person
    callback_url: str
    """Where webhooks go. Pass it on as it is: with the scheme `url_token` its last segment is the attempt's secret."""
    redirect_url: str | None = None
    """Where the person's browser goes at the end."""
    bank_account: BankAccount | None = None

    def __repr__(self) -> str:
        return f"StartRequest(attempt_id={self.attempt_id}, …)"


class Attempt(Struct, frozen=True, kw_only=True):
    """An attempt that was started, to fetch its result or to have it erased."""

    attempt_id: UUID
    vendor_case_id: str
    checks: frozenset[Check]


class Response(Struct, frozen=True, kw_only=True):
    """An answer of the vendor with whatever status but 429 and 5xx, which the host takes care of."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self, type: type[T]) -> T:
        """The body as this type. Raises VendorProtocolError when it is something else; never with a value in it."""
        try:
            return msgspec.json.decode(self.body, type=type, strict=False)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise VendorProtocolError from None


class Http(Protocol):
    """The way to the vendor: time-outs, retries of what is safe, breaker, size caps, metrics. No redirects."""

    async def post(
        self,
        operation: str,
        url: str,
        *,
        json: object,
        headers: Mapping[str, str],
        safe: bool = False,
    ) -> Response:
        """Send JSON. `operation` names it in metrics; what is `safe` to repeat is repeated after a lost answer.

        An operation is one of at most 16 constants of the plugin, of lower-case letters and underscores.
        Raises VendorUnavailable, and VendorProtocolError for an answer that is too large.
        """
        ...

    async def get(self, operation: str, url: str, *, headers: Mapping[str, str]) -> Response:
        """As `post`, and always safe."""
        ...


# ------------------------------------------------------------------------------------------------ what a plugin gives


class Identity(Struct, frozen=True, kw_only=True):
    """What the vendor read off documents. The host compares it with the profile."""

    name: str | None = None
    """The whole name as it is written."""
    date_of_birth: date | None = None
    pan_number: str | None = None
    aadhaar_last4: str | None = None
    """Four digits. Never more: a plugin cuts the rest off before it gives it on."""
    address: Address | None = None

    def __repr__(self) -> str:
        return "Identity(…)"


class Artifact(Struct, frozen=True, kw_only=True):
    """A document or picture that the vendor keeps for a while."""

    type: ArtifactType
    url: str

    def __repr__(self) -> str:
        return f"Artifact({self.type!r}, …)"


class Evidence(Struct, frozen=True, kw_only=True):
    """What the vendor says of an attempt now."""

    standing: Standing
    vendor_status: str
    """The vendor's own word, for operators: a status, never data about a person."""
    rejection_code: RejectionCode | None = None
    """With a rejection or fraud."""
    checks: Mapping[Check, CheckResult] = {}
    """Those that the vendor has finished."""
    identity: Identity | None = None
    artifacts: Sequence[Artifact] = ()
    occurred_at: datetime | None = None
    """When the vendor says that it came to be so, with a time zone."""


class Started(Struct, frozen=True, kw_only=True):
    """The vendor has taken the attempt."""

    vendor_case_id: str
    redirect_url: str | None = None
    """A page of the vendor's on which the person goes on."""
    sdk_token: str | None = None
    expires_at: datetime | None = None
    evidence: Evidence | None = None
    """For checks that are done when the call returns."""


class WebhookEvent(Struct, frozen=True, kw_only=True):
    """What a webhook is about. One of the two references is there."""

    event_id: str | None = None
    """The vendor's id of this message, if it has one: the same id again changes nothing."""
    vendor_case_id: str | None = None
    attempt_id: str | None = None
    evidence: Evidence | None = None
    """None when the message only says that there is something to fetch."""


class KycVendor(Protocol):
    """One vendor with its settings. It may be called for many attempts at once, and keeps no state between calls.

    Every method raises the errors of `usercore.plugins.errors`, and no others: what else comes out of one is a bug of
    the plugin, which is counted and logged without its text.
    """

    async def start(self, request: StartRequest) -> Started:
        """Start a verification. Raises VendorRejected when the vendor will not have this person or these inputs."""
        ...

    async def fetch(self, attempt: Attempt) -> Evidence:
        """The result as it stands. Raises VendorPending while the vendor has none."""
        ...

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        """What a message that the host has verified says; pure. `headers` have names in lower case.

        Raises VendorProtocolError for anything that is not a message of this vendor.
        """
        ...


class ErasingVendor(KycVendor, Protocol):
    """A vendor with the operation `erase`."""

    async def erase(self, attempt: Attempt) -> None:
        """Have the vendor delete what it keeps of an attempt; repeating it changes nothing."""
        ...


class VendorSettings(Struct, frozen=True, kw_only=True):
    """The settings that every vendor has; a plugin extends it with its own.

    Each is read from the environment as <NAME OF THE VENDOR>_<NAME OF THE FIELD>, in capitals: str, int, bool, float,
    tuple[str, ...], a Literal of strings, or one of these or None. A field whose name ends in `_key`, `_secret`,
    `_secrets`, `_password` or `_token` is never shown.
    """

    api_key: str = ""
    base_url: str = ""
    webhook_auth: WebhookScheme | None = None
    webhook_secrets: tuple[str, ...] = ()
    """Separated by commas in the environment. All of them are accepted, so that one can follow another."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


S = TypeVar("S", bound=VendorSettings)


class VendorSpec(Struct, Generic[S], frozen=True, kw_only=True):
    """A vendor as its plugin registers it."""

    name: str
    """Lower-case letters, digits and underscores; it stands in URLs, settings, metrics and rows."""
    api_version: int
    title: str
    """As people write it."""
    settings: type[S]
    checks: frozenset[Check]
    """What it can verify. One case goes to one vendor that has all the checks of a step."""
    discloses: frozenset[ProfileField]
    """The fields of the profile that it is sent; no others reach the plugin, and each call is recorded with them."""
    webhook_schemes: frozenset[WebhookScheme]
    """How its webhooks can be authenticated. Only `hmac` authenticates the body."""
    webhook_header: str = "x-webhook-secret"
    """The header that `static_header` looks at."""
    operations: frozenset[Operation] = frozenset()
    factory: Callable[[S, Http], KycVendor]
    sandbox: str | None = None
    """A module that runs as `python -m MODULE --port N …` and speaks the vendor's wire format, for development."""


class Hooks:
    """The one hook."""

    @hookspec
    def usercore_kyc_vendors(self) -> Iterable[VendorSpec[Any]]:
        """The vendors of a plugin."""
        return ()
