"""Checks of what is said aside: no value of a person and no secret in exceptions, reprs, logs and prints."""

from collections.abc import Iterator

from aiohttp import web

from usercore.plugins.errors import VendorError
from usercore.testing import people
from usercore.testing.checks.messages import garbage
from usercore.testing.checks.trouble import DOWN, STRANGE
from usercore.testing.fence import KEY, SECRET
from usercore.testing.middle import Fault
from usercore.testing.overheard import overheard
from usercore.testing.stand import Stand
from usercore.testing.verdicts import Failed


def echoing(status: int, kind: str = "application/json") -> Fault:
    """The vendor answers with what it was sent, as some do in their errors."""

    async def fault(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=kind)

    return fault


ECHOES = {
    "an error that repeats what was sent": echoing(400),
    "an answer that repeats what was sent": echoing(200),
    "an unreadable answer that repeats what was sent": echoing(200, "text/html"),
    "a refusal that repeats what was sent": echoing(422),
    "a conflict that repeats what was sent": echoing(409),
}


async def errors_carry_no_values(stand: Stand) -> None:
    """No exception has a value of the person, a secret or a text of the vendor: it ends in a log or an answer."""
    for error in await _errors(stand):
        text = "\n".join(_texts(error))
        _check(text, f"a {type(error).__name__}")


async def logs_carry_no_values(stand: Stand) -> None:
    """Nothing that the plugin logs or prints, at whatever level, has a value of the person or a secret."""
    with overheard() as ear:
        await _errors(stand)
        for step in stand.steps():
            for outcome in ("approve", "decline", "review"):
                try:
                    run = await stand.run(step, outcome=outcome)
                    await stand.result(run)
                except VendorError:
                    continue
                if not run.is_done:
                    for hook in await stand.hooks(run, at_least=0):
                        stand.read(hook.headers, hook.body)
    _check(ear.text(), "a log line or a print")


async def _errors(stand: Stand) -> list[VendorError]:
    """All kinds of errors that a vendor and somebody who sends webhooks can cause."""
    found: list[VendorError] = []
    runs = [await stand.run(step) for step in stand.steps()]
    for fault in (*ECHOES.values(), *STRANGE.values(), DOWN["status 500"]):
        stand.middle.fault = fault
        for step in stand.steps():
            try:
                await stand.start(stand.request(step))
            except VendorError as error:
                found.append(error)
        for run in runs:
            try:
                await stand.fetch(run.attempt)
            except VendorError as error:
                found.append(error)
    stand.middle.fault = None
    someone = people.person()
    personal = f'{{"name": "{someone.first_name} {someone.last_name}", "pan": "{someone.pan_number}"'.encode()
    for body in (personal, personal + b"}", *(body for _, body in garbage())):
        try:
            stand.read({}, body)
        except VendorError as error:
            found.append(error)
    return found


def _texts(error: BaseException) -> Iterator[str]:
    """What an exception shows: itself, its notes, what it has besides, and what it was made from."""
    yield f"{error!r} {error} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', ())!r}"
    if error.__cause__ is not None:
        yield from _texts(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _texts(error.__context__)


def _check(text: str, what: str) -> None:
    if fields := people.seen(text):
        raise Failed(f"{what} holds {', '.join(sorted(fields))} of the person: say what is wrong without values")
    if KEY in text or SECRET in text:
        raise Failed(f"{what} holds a key or a secret: say what is wrong without values")


CHECKS = (errors_carry_no_values, logs_carry_no_values)
