"""What a sandbox is told through its control interface, and what it knows of a case."""

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from usercore.plugins.vendor import Address

T = TypeVar("T", bound=Struct)

Outcome = Literal["approve", "decline", "review", "cancel", "timeout", "error"]
"""`cancel` is the person who leaves. `timeout` and `error` are of the vendor: its calls hang, or end in its errors."""
WebhookMode = Literal["normal", "duplicate", "reordered", "forged", "drop"]
"""`reordered` has the end before the progress. `forged` is one message that claims approval under a wrong secret, from
somebody else: the case itself stays as it is."""

LONGEST_DELAY_MS = 600_000
"""Longer than any test waits."""


class Reading(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vendor reads off documents; null is something that it cannot read."""

    name: str | UnsetType | None = UNSET
    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    """The two are put together when there is no `name`."""
    date_of_birth: date | UnsetType | None = UNSET
    pan_number: str | UnsetType | None = UNSET
    aadhaar_number: str | UnsetType | None = UNSET
    aadhaar_last4: str | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return "Reading(…)"

    def whole_name(self) -> str | UnsetType | None:
        """The name as it is written; UNSET when nothing is said of it."""
        if self.name is not UNSET:
            return self.name
        parts = [part for part in (self.first_name, self.last_name) if part is not UNSET]
        return " ".join(part for part in parts if part) or None if parts else UNSET


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a case does. With an outcome it does it by itself after `delay_ms`; without one a person finishes it.

    With `timeout` and `error` the delay is how long the vendor stays so; 0 is until the case is completed.
    """

    outcome: Outcome | None = None
    delay_ms: int = 0
    webhook: WebhookMode = "normal"
    identity: Reading | None = None
    code: str | None = None
    """The vendor's own reason, with a decline or a review."""

    def __post_init__(self) -> None:
        if not 0 <= self.delay_ms <= LONGEST_DELAY_MS:
            raise ValueError(f"delay_ms is from 0 to {LONGEST_DELAY_MS}")


class Completion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The person, or somebody at the vendor, finishes a case. What it leaves open is as the case's plan has it."""

    reference: str
    outcome: Outcome | None = None
    delay_ms: int = 0
    webhook: WebhookMode | None = None
    identity: Reading | None = None
    code: str | None = None

    def of(self, plan: Plan) -> Plan:
        """The plan that it makes of a case's own. Raises ValueError with a sentence when there is none."""
        webhook = self.webhook or plan.webhook
        if self.outcome is None and webhook != "forged":
            raise ValueError("outcome is missing")
        return Plan(
            outcome=self.outcome,
            delay_ms=self.delay_ms,
            webhook=webhook,
            identity=self.identity,
            code=self.code or plan.code,
        )


class Case:
    """What a sandbox knows of one verification."""

    def __init__(
        self,
        reference: str,
        attempt_id: str | None,
        identity: Reading,
        plan: Plan,
        *,
        link: str,
        redirect_url: str | None,
        callback_url: str | None,
        also: frozenset[str] = frozenset(),
    ) -> None:
        """`reference` is the vendor's id of the case; `also` are other ids by which it may be completed."""
        self.reference = reference
        self.attempt_id = attempt_id
        self.identity = merged(identity, plan.identity)
        self.plan = plan
        self.link = link
        """The unguessable part of the hosted page's address."""
        self.redirect_url = redirect_url
        self.callback_url = callback_url
        self.also = also
        self.outcome: Outcome | None = None
        """None while nobody has finished it. Never `timeout` or `error`, which are of the vendor's calls."""
        self.manual = False
        """Somebody at the vendor decided, after a review."""
        self.code: str | None = None
        self.trouble: Literal["timeout", "error"] | None = None
        self.events = 0
        """Webhooks that were made."""
        self.deliveries: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        """What else the vendor remembers."""
        self.recovered = asyncio.Event()
        """Set when the vendor's calls do not hang any more."""

    def has(self, reference: str) -> bool:
        return reference in (self.reference, self.attempt_id) or reference in self.also

    def shown(self) -> Mapping[str, Any]:
        """For `GET /_control/cases`."""
        return {
            "reference": self.reference,
            "attempt_id": self.attempt_id,
            "link": self.link,
            "outcome": self.outcome,
            "manual": self.manual,
            "code": self.code,
            "trouble": self.trouble,
            "webhook": self.plan.webhook,
            "deliveries": self.deliveries,
        }


def merged(sent: Reading, other: Reading | None) -> Reading:
    """What was sent, with what `other` says instead."""
    if other is None:
        return sent
    changes = {
        name: value
        for name in ("date_of_birth", "pan_number", "aadhaar_number", "aadhaar_last4", "address")
        if (value := getattr(other, name)) is not UNSET
    }
    if "aadhaar_last4" in changes and "aadhaar_number" not in changes:
        changes["aadhaar_number"] = UNSET
    if (name := other.whole_name()) is not UNSET:
        changes |= {"name": name, "first_name": UNSET, "last_name": UNSET}
    return msgspec.structs.replace(sent, **changes)
