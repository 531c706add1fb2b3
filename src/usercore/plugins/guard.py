"""A plugin held to its contract: what comes out is of the promised types, and what goes wrong is a VendorError."""

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar, cast, get_args

import msgspec

from usercore.errors import NetworkInTransaction
from usercore.logs import logger
from usercore.plugins.errors import RejectionCode, VendorBug, VendorError, VendorRejected
from usercore.plugins.vendor import Attempt, ErasingVendor, Evidence, KycVendor, Started, StartRequest, WebhookEvent
from usercore.telemetry import Metrics

R = TypeVar("R", Started, Evidence, WebhookEvent)

log = logger(__name__)


class Guarded:
    """A vendor of which every method raises VendorErrors only. What else came out of the plugin is a VendorBug.

    A bug is counted, and logged by class and frames. Results are read again as the types that they are said to be, so
    that nothing that no type checker saw (a check that does not exist, a date without a zone) gets any further.
    """

    def __init__(self, name: str, vendor: KycVendor, metrics: Metrics) -> None:
        self.name = name
        self._vendor = vendor
        self._metrics = metrics

    async def start(self, request: StartRequest) -> Started:
        try:
            started = checked(await self._vendor.start(request), Started)
            if not started.vendor_case_id:
                raise ValueError("no case")
        except Exception as error:
            self._fail("start", error)
        return started

    async def fetch(self, attempt: Attempt) -> Evidence:
        try:
            return checked(await self._vendor.fetch(attempt), Evidence)
        except Exception as error:
            self._fail("fetch", error)

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
        try:
            event = checked(self._vendor.read_webhook(headers, body), WebhookEvent)
            if not event.vendor_case_id and not event.attempt_id:
                raise ValueError("no reference")
        except Exception as error:
            self._fail("read_webhook", error)
        return event

    async def erase(self, attempt: Attempt) -> None:
        """Only for a vendor whose spec has the operation `erase`."""
        try:
            erasing: Awaitable[None] = cast(ErasingVendor, self._vendor).erase(attempt)
            await erasing
        except Exception as error:
            self._fail("erase", error)

    def _fail(self, method: str, error: Exception) -> NoReturn:
        if isinstance(error, NetworkInTransaction):
            # The host's own bug.
            raise error
        if isinstance(error, VendorError) and not isinstance(error, VendorBug) and _is_whole(error):
            raise error
        self._metrics.vendor_bug(self.name)
        log.error("vendor_bug", error, vendor=self.name, action=method)
        # Without the cause: its text may hold what the vendor said.
        raise VendorBug from None


def _is_whole(error: VendorError) -> bool:
    """A rejection's code goes to the person: text of the vendor's does not pass for one."""
    return not isinstance(error, VendorRejected) or error.code in get_args(RejectionCode)


def checked(result: R, kind: type[R]) -> R:
    """The result, with everything in it of the types that are declared. Raises TypeError or ValueError."""
    if type(result) is not kind:
        raise TypeError("another type was promised")
    # Plain data keep their dates as they are, so that one without a zone is still seen.
    plain: Any = msgspec.to_builtins(result, builtin_types=(datetime,))
    _check_dates(plain)
    return msgspec.convert(plain, kind)


def _check_dates(value: object) -> None:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError("a time without a zone")
    if isinstance(value, dict):
        for item in cast("dict[str, object]", value).values():
            _check_dates(item)
