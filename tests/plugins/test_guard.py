"""What a plugin raises or gives that it may not becomes a VendorBug, counted and logged without its text."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from usercore import db, telemetry
from usercore.errors import NetworkInTransaction
from usercore.plugins import (
    Artifact,
    Attempt,
    Evidence,
    Identity,
    KycVendor,
    Person,
    Standing,
    Started,
    StartRequest,
    VendorAuthError,
    VendorBug,
    VendorError,
    VendorPending,
    VendorProtocolError,
    VendorRejected,
    VendorUnavailable,
    WebhookEvent,
)
from usercore.plugins.guard import Guarded
from usercore.telemetry import Metrics

SECRET = "ABCPS1234K"
ATTEMPT = Attempt(attempt_id=UUID(int=1), vendor_case_id="v-1", checks=frozenset(("pan",)))
REQUEST = StartRequest(
    attempt_id=UUID(int=1), checks=frozenset(("pan",)), person=Person(), callback_url="https://us.test/hook"
)
EVIDENCE = Evidence(
    standing=Standing.APPROVED,
    vendor_status="auto_approved",
    checks={"pan": "passed", "selfie": "review"},
    identity=Identity(name="Asha", date_of_birth=date(1990, 1, 2), aadhaar_last4="1234"),
    artifacts=[Artifact(type="selfie", url="https://vendor.test/1")],
    occurred_at=datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC),
)
METHODS = ("start", "fetch", "read_webhook", "erase")
every_method = pytest.mark.parametrize("method", METHODS)


def vendor(result: Callable[[], object]) -> KycVendor:
    """One of which every method does the same."""

    async def answer(_: object) -> object:
        return result()

    def read(_: object, __: object) -> object:
        return result()

    made = SimpleNamespace(start=answer, fetch=answer, erase=answer, read_webhook=read)
    return cast(KycVendor, made)


async def call(guarded: Guarded, method: str) -> object:
    if method == "start":
        return await guarded.start(REQUEST)
    if method == "fetch":
        return await guarded.fetch(ATTEMPT)
    if method == "erase":
        return await guarded.erase(ATTEMPT)
    return guarded.read_webhook({}, b"{}")


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def bugs(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("usercore_vendor_bugs_total", {"vendor": "acme"}) or 0


@every_method
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        TimeoutError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        RecursionError(),
        VendorBug(),
        VendorRejected(cast(Any, f"sorry, {SECRET}")),
        StopIteration(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_plugin_may_raise(method: str, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    with pytest.raises(VendorBug) as caught:
        await call(Guarded("acme", vendor(raising(error)), metrics), method)
    assert bugs(metrics) == 1
    assert str(caught.value) == ""
    telemetry.logger("tests").error("it_failed", caught.value)
    out, err = capsys.readouterr()
    assert '"event":"vendor_bug"' in out + err
    assert f'"action":"{method}"' in out + err
    assert "test_guard.py" in out + err, "the frames are there"
    assert SECRET not in out + err


@every_method
@pytest.mark.parametrize(
    "error",
    [
        VendorUnavailable(retry_after_s=3.0, reached=False),
        VendorPending(),
        VendorAuthError(),
        VendorRejected("pan_invalid"),
        VendorProtocolError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_a_plugin_may_raise_passes_as_it_is(method: str, error: VendorError) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)) as caught:
        await call(Guarded("acme", vendor(raising(error)), metrics), method)
    assert caught.value is error
    assert bugs(metrics) == 0


@pytest.mark.parametrize("method", ["start", "fetch", "erase"])
async def test_cancelling_passes(method: str) -> None:
    metrics = Metrics()
    begun = asyncio.Event()

    async def hang(_: object) -> object:
        begun.set()
        await asyncio.Event().wait()
        return None

    hanging = cast(KycVendor, SimpleNamespace(start=hang, fetch=hang, erase=hang))
    task = asyncio.create_task(cast(Any, call(Guarded("acme", hanging, metrics), method)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bugs(metrics) == 0


async def test_a_bug_of_the_host_is_not_the_plugins() -> None:
    metrics = Metrics()

    def ask() -> object:
        db.outside_transaction()
        return EVIDENCE

    token = db._transaction.set(db._Open(open=True))
    try:
        with pytest.raises(NetworkInTransaction):
            await Guarded("acme", vendor(ask), metrics).fetch(ATTEMPT)
    finally:
        db._transaction.reset(token)
    assert bugs(metrics) == 0


async def test_good_results_come_through_whole() -> None:
    started = Started(vendor_case_id="v-1", expires_at=datetime(2026, 1, 1, tzinfo=UTC), evidence=EVIDENCE)
    for method, result in (
        ("start", started),
        ("fetch", EVIDENCE),
        ("read_webhook", WebhookEvent(event_id="e", attempt_id="a", evidence=EVIDENCE)),
        ("erase", None),
    ):
        found = await call(Guarded("acme", vendor(lambda result=result: result), Metrics()), method)
        if method == "fetch":
            assert cast(Evidence, found).artifacts[0].url == "https://vendor.test/1"
            assert cast(Evidence, found).standing is Standing.APPROVED
        # Sequences come back as lists, whatever they were.
        assert repr(found) == repr(result)


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("start", None),
        ("start", EVIDENCE),
        ("start", {"vendor_case_id": "v-1"}),
        ("start", Started(vendor_case_id="")),
        ("start", Started(vendor_case_id=cast(Any, 17))),
        ("start", Started(vendor_case_id="v", expires_at=datetime(2026, 1, 1))),  # noqa: DTZ001
        ("fetch", None),
        ("fetch", Evidence(standing=cast(Any, 99), vendor_status="x")),
        ("fetch", Evidence(standing=cast(Any, "approved"), vendor_status="x")),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status=cast(Any, None))),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status="x", checks=cast(Any, {"dna": "passed"}))),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status="x", checks=cast(Any, {"pan": "ok"}))),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status="x", rejection_code=cast(Any, SECRET))),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status="x", identity=cast(Any, {"name": 1}))),
        ("fetch", Evidence(standing=Standing.REVIEW, vendor_status="x", occurred_at=datetime(2026, 1, 1))),  # noqa: DTZ001
        ("read_webhook", None),
        ("read_webhook", WebhookEvent(event_id="e")),
        ("read_webhook", WebhookEvent(event_id="e", vendor_case_id="", attempt_id="")),
        ("read_webhook", WebhookEvent(vendor_case_id=cast(Any, 5))),
    ],
)
async def test_results_that_no_plugin_may_give(method: str, result: object) -> None:
    metrics = Metrics()
    with pytest.raises(VendorBug):
        await call(Guarded("acme", vendor(lambda: result), metrics), method)
    assert bugs(metrics) == 1


async def test_methods_that_are_not_as_declared() -> None:
    metrics = Metrics()

    def plain(*_: object) -> object:
        return EVIDENCE

    synchronous = Guarded("acme", cast(KycVendor, SimpleNamespace(start=plain, fetch=plain)), metrics)
    for method in ("start", "fetch", "read_webhook", "erase"):
        with pytest.raises(VendorBug):
            await call(synchronous, method)
    assert bugs(metrics) == 4
