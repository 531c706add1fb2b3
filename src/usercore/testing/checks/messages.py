"""Checks of webhooks: real ones of the sandbox are read, and everything else is refused."""

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

from usercore.plugins import webhooks
from usercore.plugins.errors import VendorError, VendorProtocolError
from usercore.plugins.guard import checked
from usercore.plugins.vendor import WebhookEvent, WebhookScheme
from usercore.plugins.webhooks import WebhookConfig
from usercore.testing import people
from usercore.testing.changes import WRONG, leaves, parsed, places, replaced, verdicts
from usercore.testing.checks.results import APPROVED
from usercore.testing.fence import SECRET
from usercore.testing.inbox import Hook
from usercore.testing.stand import Run, Stand, ground, standing
from usercore.testing.verdicts import Failed, Skipped

QUICK_S = 0.05
"""The host reads a message while others wait: milliseconds, and this on a machine that is busy."""
HUGE = 1024 * 1024
"""Bytes; the host takes no larger message."""
HUGE_S = 1.0
DEEP = 100_000


def garbage() -> Iterator[tuple[str, bytes]]:
    """What no vendor sends, each with its name."""
    yield "nothing", b""
    yield "no JSON", b"<html><body>502 Bad Gateway</body></html>"
    yield "half of JSON", b'{"id": "1", "status": "appr'
    yield "null", b"null"
    yield "a number", b"0"
    yield "a text", b'"approved"'
    yield "a list", b"[]"
    yield "an object without anything", b"{}"
    yield "an object with a name that nobody knows", b'{"zzyzx": 1}'
    yield "bytes that are no UTF-8", b'{"id": "\xff\xfe\xfa"}'
    yield "UTF-16", '{"id": "1"}'.encode("utf-16")
    yield "NULs", b"\x00" * 64
    yield "half of a surrogate", rb'{"id": "\ud800"}'
    yield "a number without end", b'{"id": ' + b"9" * 5000 + b"}"
    yield "an infinite number", b'{"id": 1e999}'
    yield "deeply nested lists", b"[" * DEEP + b"]" * DEEP
    yield "deeply nested objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP
    yield "a huge text", b'"' + b"A" * HUGE + b'"'
    yield "a huge list", b"[" + b"0," * (HUGE // 2) + b"0]"


async def messages_are_read(stand: Stand) -> None:
    """Every webhook that the sandbox sends is read, and what comes out is of the declared types."""
    for outcome in ("approve", "decline", "review", "cancel"):
        run = await _run(stand, outcome)
        # Not every vendor has a word for each end; an approval it has to tell of.
        for hook in await stand.hooks(run, at_least=1 if outcome == "approve" else 0):
            event = _read(stand, hook)
            try:
                checked(event, WebhookEvent)
            except (TypeError, ValueError, msgspec.ValidationError):
                raise Failed("something in WebhookEvent has another type than declared: see its fields") from None


async def messages_name_their_case(stand: Stand) -> None:
    """A webhook's event names the case by vendor_case_id or by attempt_id: the right one."""
    run = await _run(stand, "approve")
    other = await _run(stand, "approve")
    for mine in (run, other):
        for hook in await stand.hooks(mine):
            event = _read(stand, hook)
            if event.vendor_case_id is None and event.attempt_id is None:
                raise Failed("an event has neither vendor_case_id nor attempt_id: nobody knows whom it is about")
            if event.vendor_case_id not in (None, mine.started.vendor_case_id) or event.attempt_id not in (
                None,
                str(mine.request.attempt_id),
            ):
                raise Failed("an event names a case that start did not give: vendor_case_id is what start has given")


async def reading_is_pure(stand: Stand) -> None:
    """Reading the same webhook twice gives equal events, changes nothing that it is given and calls nobody."""
    for hook in await stand.hooks(await _run(stand, "approve")):
        before = len(stand.middle.exchanges)
        headers = MappingProxyType(dict(hook.headers))
        first, second = (_read(stand, hook, headers=headers) for _ in range(2))
        third = stand.read(headers, hook.body, vendor=stand.new_vendor())
        if not first == second == third:
            raise Failed("reading one webhook several times gave different events: read only headers and body")
        if len(stand.middle.exchanges) != before:
            raise Failed("read_webhook calls the vendor: the host fetches when it has to")


async def reading_is_quick(stand: Stand) -> None:
    """Reading a webhook takes no more than milliseconds: others wait meanwhile."""
    for hook in await stand.hooks(await _run(stand, "approve")):
        times: list[float] = []
        for _ in range(3):
            began = time.perf_counter()
            _read(stand, hook)
            times.append(time.perf_counter() - began)
        # The quickest one: the machine may have had something else to do.
        if min(times) > QUICK_S:
            raise Failed(f"read_webhook takes over {QUICK_S * 1000:g} ms: it only reads")


async def garbage_is_refused(stand: Stand) -> None:
    """What is no message of the vendor raises VendorProtocolError, and nothing else, in less than a second."""
    hooks = await stand.hooks(await _run(stand, "approve"))
    for what, body in garbage():
        for headers in (dict[str, str](), hooks[0].headers):
            began = time.perf_counter()
            try:
                stand.read(headers, body)
            except VendorProtocolError:
                pass
            except VendorError as error:
                raise Failed(f"a webhook of {what} raised {type(error).__name__}: raise VendorProtocolError") from None
            except Failed as failed:
                raise Failed(f"with a webhook of {what} {failed}") from None
            else:
                raise Failed(f"a webhook of {what} was read as an event: raise VendorProtocolError")
            if time.perf_counter() - began > HUGE_S:
                raise Failed(f"a webhook of {what} takes over {HUGE_S:g} s to refuse")


async def changed_messages_are_refused_or_read(stand: Stand) -> None:
    """A webhook with another type in any place is read as an event with a reference, or is a VendorProtocolError."""
    for hook in await stand.hooks(await _run(stand, "approve")):
        document = parsed(hook.body)
        if document is None:
            raise Skipped("its messages are not JSON")
        for place, _ in list(places(document)):
            for value in WRONG:
                body = msgspec.json.encode(replaced(document, {place: value}))
                try:
                    event = stand.read(hook.headers, body)
                    checked(event, WebhookEvent)
                except VendorProtocolError:
                    continue
                except Failed as failed:
                    raise Failed(f"with another value at {_named(place)} {failed}") from None
                except (VendorError, TypeError, ValueError) as error:
                    raise Failed(
                        f"a webhook with another value at {_named(place)} gave {type(error).__name__}: raise "
                        "VendorProtocolError, and give only the declared types"
                    ) from None
                if not event.vendor_case_id and not event.attempt_id:
                    raise Failed(
                        f"a webhook with another value at {_named(place)} gave an event without a reference: raise "
                        "VendorProtocolError"
                    )


async def event_ids_tell_messages_apart(stand: Stand) -> None:
    """A webhook that comes twice has one event id, and different ones have different ids: one is taken, once."""
    run = await _run(stand, "approve", webhook="duplicate")
    ids: dict[bytes, set[str | None]] = {}
    for hook in await stand.hooks(run, at_least=2):
        ids.setdefault(hook.body, set()).add(_read(stand, hook).event_id)
    if any(len(found) > 1 for found in ids.values()):
        raise Failed("the same message read twice has two event ids: take the vendor's own id of the message, or None")
    found = [id for each in ids.values() for id in each if id is not None]
    if len(set(found)) < len(found):
        raise Failed("two different messages have one event id: the second would be dropped; take another, or None")


async def messages_authenticate(stand: Stand) -> None:
    """Under each scheme of the spec the sandbox's webhooks are authentic to the host, and forged ones are not."""
    for scheme in sorted(stand.spec.webhook_schemes):
        async with ground(stand.subject, scheme) as (inbox, sandbox), standing(stand.subject, inbox, sandbox) as other:
            run = await _run(other, "approve")
            if not all(_is_authentic(other, scheme, hook, run) for hook in await other.hooks(run)):
                raise Failed(
                    f"the sandbox's webhooks are not authentic under {scheme}: keep the base's way of sending, and "
                    "give spec and sandbox the same webhook_header"
                )


async def unknown_message_never_approves(stand: Stand) -> None:
    """A webhook of an approved case whose status is a word that nobody knows brings no evidence of an approval."""
    bodies: dict[str, list[tuple[Hook, object]]] = {}
    for outcome in ("approve", "approve again", "decline", "review"):
        run = await _run(stand, outcome.split()[0])
        bodies[outcome] = [(hook, parsed(hook.body)) for hook in await stand.hooks(run, at_least=0)]
    others = [document for outcome in ("decline", "review") for _, document in bodies[outcome]]
    again = [document for _, document in bodies["approve again"]]
    for index, (hook, document) in enumerate(bodies["approve"]):
        event = _read(stand, hook)
        if event.evidence is None or event.evidence.standing not in APPROVED or index >= len(again):
            continue
        found = verdicts(document, again[index], others)
        values = {place: people.person().first_name for place in leaves(document) if place in found}
        if not values:
            continue
        try:
            event = stand.read(hook.headers, msgspec.json.encode(replaced(document, values)))
        except VendorProtocolError:
            continue
        if event.evidence is not None and event.evidence.standing in APPROVED:
            raise Failed(
                "a webhook whose status is in no document was taken for an approval: what is unknown is REVIEW"
            )


async def _run(stand: Stand, outcome: str, **plan: object) -> Run:
    """An attempt of the first step that does not end with the start, finished with this outcome."""
    for step in stand.steps():
        run = await stand.run(step)
        if not run.is_done:
            await stand.complete(run, outcome=outcome, **plan)
            return run
    raise Skipped("everything that this vendor verifies is done when start returns, so that no webhook comes")


def _read(stand: Stand, hook: Hook, *, headers: Mapping[str, str] | None = None) -> WebhookEvent:
    """A webhook that has to be readable."""
    try:
        return stand.read(hook.headers if headers is None else headers, hook.body)
    except VendorError as error:
        raise Failed(f"read_webhook raised {type(error).__name__} for a webhook of the sandbox") from None


def _is_authentic(stand: Stand, scheme: WebhookScheme, hook: Hook, run: Run) -> bool:
    token = hook.path.rpartition("/")[2]
    if scheme == "url_token" and token != run.request.callback_url.rpartition("/")[2]:
        return False
    good = WebhookConfig(scheme=scheme, secrets=(SECRET,), header=stand.spec.webhook_header)
    bad = WebhookConfig(scheme=scheme, secrets=("another-secret",), header=stand.spec.webhook_header)
    now = time.time()
    if scheme != "url_token" and webhooks.verify(bad, hook.raw, hook.body, token, now):
        return False
    return webhooks.verify(good, hook.raw, hook.body, token, now)


def _named(place: tuple[str | int, ...]) -> str:
    return "/" + "/".join(str(key) for key in place)


CHECKS = (
    messages_are_read,
    messages_name_their_case,
    reading_is_pure,
    reading_is_quick,
    garbage_is_refused,
    changed_messages_are_refused_or_read,
    event_ids_tell_messages_apart,
    messages_authenticate,
    unknown_message_never_approves,
)
