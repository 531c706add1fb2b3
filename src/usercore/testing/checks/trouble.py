"""Checks of a vendor in trouble: whatever it answers, a VendorError comes out, and nobody is rejected for it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from aiohttp import web

from usercore.plugins.errors import VendorAuthError, VendorError, VendorPending, VendorRejected, VendorUnavailable
from usercore.plugins.http import Limits
from usercore.plugins.vendor import ErasingVendor, Evidence, Standing, Started
from usercore.testing.changes import WRONG, parsed, places, replaced
from usercore.testing.middle import Exchange, Fault
from usercore.testing.stand import QUICK, Run, Stand
from usercore.testing.verdicts import Failed, Skipped

IMPATIENT = msgspec.structs.replace(QUICK, total_s=0.25, attempts=1)
"""With a vendor that never answers."""
MOST_CHANGES = 600
"""Changed answers a method; an answer with more places is looked at in places that are spread over it."""


def answering(status: int, body: bytes, kind: str = "application/json", **headers: str) -> Fault:
    async def fault(*_: object) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=kind, headers=headers)

    return fault


async def hanging(*_: object) -> web.StreamResponse | None:
    await asyncio.Event().wait()
    return None


async def cutting(request: web.Request, _: bytes) -> web.StreamResponse | None:
    """The connection ends where the answer should be."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def truncating(request: web.Request, _: bytes) -> web.StreamResponse | None:
    """The connection ends in the middle of the answer."""
    answer = web.StreamResponse(headers={"content-length": "4096", "content-type": "application/json"})
    await answer.prepare(request)
    await answer.write(b'{"status": "success", "result": {"sta')
    assert request.transport is not None
    request.transport.close()
    return answer


DOWN: dict[str, Fault] = {
    "status 429": answering(429, b'{"message": "slow down"}', **{"retry-after": "0"}),
    "status 500": answering(500, b'{"message": "Internal Server Error"}'),
    "status 502 with HTML": answering(502, b"<html>Bad Gateway</html>", "text/html"),
    "status 503": answering(503, b""),
    "a connection that ends": cutting,
    "half of an answer": truncating,
}
STRANGE: dict[str, Fault] = {
    "no body": answering(200, b""),
    "HTML": answering(200, b"<html>Maintenance</html>", "text/html"),
    "half of JSON": answering(200, b'{"status": "success", "result": {"sta'),
    "null": answering(200, b"null"),
    "a number": answering(200, b"7"),
    "a text": answering(200, b'"ok"'),
    "a list": answering(200, b"[]"),
    "an empty object": answering(200, b"{}"),
    "bytes that are no UTF-8": answering(200, b'{"status": "\xff\xfe"}'),
    "deeply nested lists": answering(200, b"[" * 50_000 + b"]" * 50_000),
    "a huge body": answering(200, b'{"status": "' + b"A" * (2 * 1024 * 1024) + b'"}'),
    "a redirect": answering(302, b"", location="http://127.0.0.1:9/elsewhere"),
    "status 204": answering(204, b""),
}
"""Answers that no vendor's documents have."""
REFUSALS: dict[str, Fault] = {
    f"status {status}": answering(status, b'{"message": "no"}') for status in (400, 402, 404, 405, 409, 410, 415, 422)
}


async def refused_credentials_are_auth_errors(stand: Stand) -> None:
    """A vendor that answers 401 does not accept our credentials: start raises VendorAuthError, as does fetch.

    A vendor whose 401 means that there is no result yet raises VendorPending in fetch.
    """
    run = await _open(stand)
    body = b'{"message": "Unauthorized"}'
    async with _fault(stand, answering(401, body)):
        for step in stand.steps():
            error = await _error(stand.start(stand.request(step)))
            if not isinstance(error, VendorAuthError):
                raise Failed(f"start gave {_named(error)} for status 401: raise VendorAuthError")
        error = await _error(stand.fetch(run.attempt))
        if not isinstance(error, VendorAuthError | VendorPending):
            raise Failed(f"fetch gave {_named(error)} for status 401: raise VendorAuthError")


async def outages_are_vendor_errors(stand: Stand) -> None:
    """A vendor that is down rejects nobody: start and fetch raise VendorUnavailable, as the host's Http does."""
    run = await _open(stand)
    for what, fault in DOWN.items():
        async with _fault(stand, fault):
            for name, call in _calls(stand, run):
                error = await _error(call(), with_=f"with {what}")
                if not isinstance(error, VendorError):
                    raise Failed(f"{name} gave a result with {what}: let VendorUnavailable pass")
                _check_nobody_rejected(name, error, f"with {what}")
                if not isinstance(error, VendorUnavailable | VendorPending):
                    raise Failed(f"{name} raised {_named(error)} with {what}: let VendorUnavailable pass")


async def slow_vendors_are_vendor_errors(stand: Stand) -> None:
    """A vendor that does not answer in time is VendorUnavailable, and not an approval or a rejection."""
    run = await _open(stand)
    async with _fault(stand, hanging):
        for name, call in _calls(stand, run, limits=IMPATIENT):
            error = await _error(call(), with_="with a vendor that hangs")
            if not isinstance(error, VendorUnavailable | VendorPending):
                raise Failed(f"{name} gave {_named(error)} with a vendor that hangs: let VendorUnavailable pass")


async def strange_answers_are_vendor_errors(stand: Stand) -> None:
    """What is in no document of the vendor, in one call or in all, is a VendorError, and rejects nobody."""
    run = await _open(stand, outcome="approve")
    for what, fault in {**STRANGE, **REFUSALS}.items():
        async with _fault(stand, fault):
            for name, call in _calls(stand, run):
                error = await _error(call(), with_=f"with {what}")
                evidence = error.evidence if isinstance(error, Started) else error
                if isinstance(evidence, Evidence) and evidence.standing <= Standing.REVIEW:
                    # Somebody will look.
                    continue
                if not isinstance(error, VendorError):
                    raise Failed(f"{name} gave a result with {what}: raise VendorProtocolError")
                if what in STRANGE:
                    _check_nobody_rejected(name, error, f"with {what}")
    # One call of several: the first went well, and the second does not.
    paths = {exchange.path for exchange in await _exchanges(stand, run)}
    for what, fault in {**STRANGE, **DOWN}.items():
        for path in paths if len(paths) > 1 else ():
            async with _fault(stand, _only(path, fault)):
                error = await _error(stand.fetch(run.attempt), with_=f"with {what} from one of its calls")
                _check_nobody_rejected("fetch", error, f"with {what}")


async def wrong_types_are_vendor_errors(stand: Stand) -> None:
    """An answer with another type in any place gives a result or a VendorError: vendors write numbers as texts."""
    for step in stand.steps():
        stand.middle.exchanges.clear()
        run = await stand.run(step, outcome="approve")
        starts = list(stand.middle.exchanges)
        await _changed(stand, starts, lambda step=step: stand.start(stand.request(step)), "start", run)
        if not run.is_done:
            fetches = await _exchanges(stand, run)
            await _changed(stand, fetches, lambda run=run: stand.fetch(run.attempt), "fetch", run)


async def erasing_can_be_repeated(stand: Stand) -> None:
    """`erase` of an attempt that is over works, and again, and raises only VendorErrors when the vendor is down."""
    if "erase" not in stand.spec.operations:
        raise Skipped("erase is no operation of this vendor")
    run = await stand.run(outcome="approve")
    vendor = cast(ErasingVendor, stand.vendor)
    for _ in range(2):
        try:
            await vendor.erase(run.attempt)
        except Exception as error:
            raise Failed(f"erase raised {type(error).__name__}: repeating it changes nothing") from None
    async with _fault(stand, answering(500, b"")):
        try:
            await vendor.erase(run.attempt)
        except VendorError:
            return
        except Exception as error:
            raise Failed(f"erase raised {type(error).__name__} with status 500: raise a VendorError") from None


async def _open(stand: Stand, outcome: str | None = None) -> Run:
    """An attempt whose result has to be fetched, or the first when there is none such."""
    runs = [await (stand.run(step, outcome=outcome) if outcome else stand.run(step)) for step in stand.steps()]
    return next((run for run in runs if not run.is_done), runs[0])


async def _exchanges(stand: Stand, run: Run) -> list[Exchange]:
    """The calls of one fetch."""
    stand.middle.exchanges.clear()
    await _error(stand.fetch(run.attempt))
    return list(stand.middle.exchanges)


def _calls(
    stand: Stand, run: Run, *, limits: Limits = QUICK
) -> list[tuple[str, Callable[[], Awaitable[Started | Evidence]]]]:
    vendor = stand.new_vendor(limits)
    calls: list[tuple[str, Callable[[], Awaitable[Started | Evidence]]]] = [
        ("start", lambda step=step: stand.start(stand.request(step), vendor=vendor)) for step in stand.steps()
    ]
    return [*calls, ("fetch", lambda: stand.fetch(run.attempt, vendor=vendor))]


async def _error(work: Awaitable[Any], *, with_: str = "") -> Any:
    """The VendorError that came, or else the result."""
    try:
        return await work
    except VendorError as error:
        return error
    except Failed as failed:
        raise Failed(f"{with_} {failed}".strip()) from None


async def _changed(
    stand: Stand,
    exchanges: list[Exchange],
    call: Callable[[], Awaitable[Started | Evidence]],
    name: str,
    run: Run,
) -> None:
    places_of = [
        (exchange.path, place) for exchange in exchanges if exchange.got for place, _ in places(parsed(exchange.got))
    ]
    chosen = places_of[:: max(1, len(places_of) * len(WRONG) // MOST_CHANGES)]
    for path, place in chosen:
        for value in WRONG:

            def change(exchange: Exchange, path: str = path, place: Any = place, value: object = value) -> bytes:
                if exchange.path != path:
                    return exchange.got
                return msgspec.json.encode(replaced(parsed(exchange.got), {place: value}))

            stand.middle.change = change
            where = "/" + "/".join(str(key) for key in place)
            try:
                error = await _error(call(), with_=f"with another type at {where} of an answer")
            finally:
                stand.middle.change = None
            _check_nobody_rejected(name, error, "with a wrong type in an answer")


def _only(path: str, fault: Fault) -> Fault:
    async def one(request: web.Request, body: bytes) -> web.StreamResponse | None:
        return await fault(request, body) if request.path_qs == path else None

    return one


@asynccontextmanager
async def _fault(stand: Stand, fault: Fault) -> AsyncGenerator[None]:
    stand.middle.fault = fault
    try:
        yield
    finally:
        stand.middle.fault = None


def _check_nobody_rejected(name: str, error: object, with_: str) -> None:
    if isinstance(error, VendorRejected):
        raise Failed(f"{name} raised VendorRejected {with_}: nobody is rejected for what the vendor got wrong")


def _named(error: object) -> str:
    return type(error).__name__


CHECKS = (
    refused_credentials_are_auth_errors,
    outages_are_vendor_errors,
    slow_vendors_are_vendor_errors,
    strange_answers_are_vendor_errors,
    wrong_types_are_vendor_errors,
    erasing_can_be_repeated,
)
