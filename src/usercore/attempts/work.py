"""What the verbs of KYC work with, and the part of a profile that a vendor is sent: no I/O."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import date
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict, replace

from usercore import telemetry
from usercore.attempts.queries import AttemptRow
from usercore.db import Db
from usercore.kyc.actions import Rules
from usercore.pii.keyring import Keyring
from usercore.plugins import Address, Check, Person, ProfileField, StartRequest
from usercore.plugins.loading import Vendor
from usercore.profiles.actions import Profile

log = telemetry.logger(__name__)

CALL_S = 15
"""A call to a vendor is over by then, or its process is dead: somebody else may make it."""


class Hosted(Struct, frozen=True):
    """What lets a person go on with an attempt: secrets of it, and so sealed."""

    redirect_url: str | None = None
    sdk_token: str | None = None


class Kyc(Struct, frozen=True):
    """What the verbs of KYC work with. `vendors` are in order of preference."""

    db: Db
    keyring: Keyring
    vendors: Mapping[str, Vendor]
    rules: Rules
    public_url: str
    redirect_hosts: tuple[str, ...]
    most_failures: int
    four_eyes: bool
    calls: set[asyncio.Task[None]]
    """Starts that go on although their requests were answered."""

    def able(self, checks: frozenset[Check]) -> list[Vendor]:
        """The vendors that can do all of these, the preferred one first."""
        return [vendor for vendor in self.vendors.values() if checks <= vendor.enabled.installed.spec.checks]

    def keep(self, call: asyncio.Task[None]) -> None:
        """Hold on to a call until it is over. One that broke is taken up by the sweeper."""
        self.calls.add(call)
        call.add_done_callback(self._over)

    def _over(self, call: asyncio.Task[None]) -> None:
        self.calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            log.warning("kyc_start_broke", error)

    async def finish_calls(self) -> None:
        """Wait for the calls that outlived their requests; what is cut off the sweeper takes up."""
        if self.calls:
            await asyncio.wait(self.calls, timeout=CALL_S)


class Work(Struct, frozen=True):
    """A call that is about to be made; the disclosure in it is recorded already."""

    attempt: AttemptRow
    case_id: UUID
    user_id: UUID
    vendor: Vendor
    request: StartRequest


def disclosed(profile: Profile, fields: Collection[ProfileField]) -> Person:
    """What the vendor's spec asks for, and nothing else."""
    born, address = profile.date_of_birth, profile.address
    everything = Person(
        first_name=profile.first_name,
        last_name=profile.last_name,
        date_of_birth=None if born is None else date.fromisoformat(born),
        pan_number=profile.pan_number,
        address=None if address is None else Address(**asdict(address)),
        phone=profile.phone,
        email=profile.email,
    )
    return replace(everything, **{name: None for name in Person.__struct_fields__ if name not in fields})
