"""Checks of starting: references, repetition, what is sent of the person, many at once."""

import asyncio
import inspect
from typing import get_args

from usercore.plugins.errors import VendorError, VendorPending
from usercore.plugins.vendor import Evidence, ProfileField
from usercore.testing import people
from usercore.testing.stand import Run, Stand
from usercore.testing.verdicts import Failed, Skipped

LONGEST_REFERENCE = 200
AT_ONCE = 12
"""People who start at the same moment."""
SPREAD_S = 0.02
"""By how much their calls overtake each other."""
CANCEL_S = 2.0


async def start_gives_a_reference(stand: Stand) -> None:
    """A start gives the vendor's id of the case, and a way for the person to go on or the result."""
    for step in stand.steps():
        started = (await stand.run(step)).started
        if not 0 < len(started.vendor_case_id) <= LONGEST_REFERENCE:
            raise Failed(f"vendor_case_id has to have from 1 to {LONGEST_REFERENCE} characters")
        if started.redirect_url is None and started.sdk_token is None and started.evidence is None:
            raise Failed("start gave neither redirect_url nor sdk_token nor evidence: the person cannot go on")
        if started.redirect_url is not None and not started.redirect_url.startswith(("https://", "http://")):
            raise Failed("redirect_url is no web address")


async def start_can_be_repeated(stand: Stand) -> None:
    """A second start with the same attempt id works, and what it gives can be fetched: the host repeats lost ones."""
    for step in stand.steps():
        first = await stand.run(step, outcome="approve")
        try:
            second = await stand.run(request=first.request)
        except VendorError as error:
            raise Failed(f"a second start with the same attempt id raised {type(error).__name__}") from None
        for run in (first, second):
            try:
                await stand.result(run)
            except VendorPending:
                # Of two cases only one was finished.
                continue
            except VendorError as error:
                raise Failed(f"after two starts with one attempt id fetch raised {type(error).__name__}") from None


async def attempt_id_is_passed_on(stand: Stand) -> None:
    """The vendor is given our attempt id, each time the same: it is what links its case to ours."""
    for step in stand.steps():
        run = await stand.run(step)
        if run.is_done:
            # Nothing comes later that would have to be linked.
            continue
        attempt_id = str(run.request.attempt_id)
        for _ in range(2):
            sent = "\n".join(exchange.text() for exchange in stand.middle.exchanges)
            if attempt_id not in sent and run.request.attempt_id.hex not in sent:
                raise Failed("no call of start holds the attempt id: send it as the vendor's correlation id")
            stand.middle.exchanges.clear()
            await stand.run(request=run.request)


async def callback_url_is_passed_on(stand: Stand) -> None:
    """With the scheme `url_token` webhooks come to the very address that the request has."""
    if "url_token" not in stand.spec.webhook_schemes:
        raise Skipped("url_token is no scheme of this vendor")
    run = await _open_run(stand)
    await stand.complete(run, outcome="approve")
    wanted = run.request.callback_url.rpartition("/")[2]
    if not any(hook.path.endswith(wanted) for hook in await stand.hooks(run)):
        raise Failed("the webhook came to another address than callback_url: pass it to the vendor as it is")


async def undisclosed_fields_are_not_sent(stand: Stand) -> None:
    """Nothing of the profile but what `discloses` names is sent, even if it were there."""
    for step in stand.steps():
        await stand.run(request=stand.request(step, person=people.person()))
    fields = people.seen("\n".join(exchange.text() for exchange in stand.middle.exchanges))
    undisclosed = fields & set(get_args(ProfileField)) - stand.spec.discloses
    if undisclosed:
        raise Failed(f"start sends {', '.join(sorted(undisclosed))}: add it to `discloses`, or do not send it")


async def disclosed_fields_are_sent(stand: Stand) -> None:
    """What `discloses` names is sent by some start: what a vendor is not sent is not to be recorded as disclosed."""
    for step in stand.steps():
        await stand.run(step)
    fields = people.seen("\n".join(exchange.text() for exchange in stand.middle.exchanges))
    unsent = stand.spec.discloses - fields
    if unsent:
        raise Failed(f"no start sends {', '.join(sorted(unsent))}: take it out of `discloses`")


async def missing_fields_do_no_harm(stand: Stand) -> None:
    """A person without a field, or without any, can be started or is refused with a VendorError."""
    everything = people.only(people.person(), stand.spec.discloses)
    someone = [people.without(everything, field) for field in sorted(stand.spec.discloses)]
    for step in stand.steps():
        for person in (*someone, people.only(everything, frozenset())):
            try:
                await stand.run(request=stand.request(step, person=person))
            except VendorError:
                continue


async def starts_at_once_do_not_mix(stand: Stand) -> None:
    """People who start and finish at the same moment each get their own case and their own data."""
    stand.middle.delay_s = SPREAD_S
    for step in stand.steps():
        runs = await asyncio.gather(*(stand.run(step, number) for number in range(AT_ONCE)))
        if len({run.started.vendor_case_id for run in runs}) < AT_ONCE:
            raise Failed("two people who started at once got the same vendor_case_id: keep nothing of a call in self")
        for run in runs:
            if not run.is_done:
                await stand.complete(run, outcome="approve")
        for run, evidence in zip(runs, await asyncio.gather(*(_result(stand, run) for run in runs)), strict=True):
            others = set[str]().union(*(_told(evidence, other) for other in range(AT_ONCE) if other != run.number))
            if others:
                raise Failed(
                    f"of people who started at once one got another's {', '.join(sorted(others))}: keep nothing of a "
                    "call in self"
                )


async def vendor_keeps_no_state(stand: Stand) -> None:
    """What one vendor object has started another one fetches and reads, as after a restart of the service."""
    run = await stand.run(outcome="approve")
    mine, others = await _result(stand, run), await stand.result(run, vendor=stand.new_vendor())
    if mine.standing != others.standing:
        raise Failed("a new vendor object fetches another standing than the one that started: keep no state")
    if not run.is_done:
        for hook in await stand.hooks(run):
            stand.read(hook.headers, hook.body, vendor=stand.new_vendor())


async def start_can_be_cancelled(stand: Stand) -> None:
    """A start whose vendor hangs ends when it is cancelled, with CancelledError and nothing left running."""
    hanging = asyncio.Event()

    async def hang(*_: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    stand.middle.fault = hang
    before = asyncio.all_tasks()
    task = asyncio.create_task(stand.start(stand.request(stand.steps()[0])))
    async with asyncio.timeout(CANCEL_S):
        await hanging.wait()
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=CANCEL_S)
    swallowed = not done or not task.cancelled()
    left = [other for other in asyncio.all_tasks() - before - {task} if _is_of(stand, other)]
    for other in (task, *left):
        other.cancel()
    await asyncio.gather(task, *left, return_exceptions=True)
    if swallowed:
        raise Failed("start goes on when it is cancelled: let CancelledError pass, also through `except`")
    if left:
        raise Failed("start leaves a task running when it is cancelled: cancel it in a `finally`")


async def _open_run(stand: Stand) -> Run:
    """An attempt that somebody has to finish."""
    for step in stand.steps():
        run = await stand.run(step)
        if not run.is_done:
            return run
    raise Skipped("everything that this vendor verifies is done when start returns")


async def _result(stand: Stand, run: Run) -> Evidence:
    try:
        return await stand.result(run)
    except VendorError as error:
        raise Failed(f"fetch of an approved case raised {type(error).__name__}") from None


def _told(evidence: Evidence, number: int) -> set[str]:
    """Which values of a person the evidence has, looked for where it has them, for its repr shows none."""
    identity = evidence.identity
    if identity is None:
        return set()
    someone = people.person(number)
    found = people.seen(f"{identity.name} {identity.pan_number} {identity.date_of_birth}", number)
    if identity.address is not None and identity.address == someone.address:
        found.add("address")
    return found


def _is_of(stand: Stand, task: asyncio.Task[object]) -> bool:
    """Whether a task runs the plugin's own code; the servers of the stand have tasks too."""
    module = getattr(stand.spec.factory, "__module__", None) or ""
    package = module.rpartition(".")[0] or module
    coroutine = task.get_coro()
    frame = coroutine.cr_frame if inspect.iscoroutine(coroutine) else None
    name = frame.f_globals.get("__name__", "") if frame is not None else ""
    return not task.done() and (name == module or name.startswith(f"{package}."))


CHECKS = (
    start_gives_a_reference,
    start_can_be_repeated,
    attempt_id_is_passed_on,
    callback_url_is_passed_on,
    undisclosed_fields_are_not_sent,
    disclosed_fields_are_sent,
    missing_fields_do_no_harm,
    starts_at_once_do_not_mix,
    vendor_keeps_no_state,
    start_can_be_cancelled,
)
