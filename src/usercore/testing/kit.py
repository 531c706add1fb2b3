"""The conformance kit: proves that a vendor's plugin keeps its promises, as pytest tests or from a command.

In a plugin's tests:

    class TestAcme(VendorKit):
        spec = SPEC
        sandbox = AcmeSandbox
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Literal

import aiohttp
from msgspec import Struct

from usercore.plugins.vendor import VendorSpec, WebhookScheme
from usercore.testing.checks import CHECKS, Check
from usercore.testing.sandbox import Options, Sandbox
from usercore.testing.server import running
from usercore.testing.stand import Subject, ground, standing
from usercore.testing.verdicts import Failed, Skipped

__all__ = ["CHECKS", "Report", "Subject", "VendorKit", "examine", "in_process", "of_module"]

Verdict = Literal["passed", "failed", "skipped"]
START_S = 20.0
"""How long a sandbox may take to listen."""


class Report(Struct, frozen=True, kw_only=True):
    """What came of one check."""

    check: str
    promise: str
    """What the check is about, in a line."""
    verdict: Verdict
    why: str = ""


class VendorKit:
    """All checks as pytest tests, each with a sandbox of its own: derive from it, and say which vendor.

    Needs nothing but pytest, and no settings: addresses are the sandbox's, and texts are made up.
    """

    spec: ClassVar[VendorSpec[Any]]
    sandbox: ClassVar[type[Sandbox]]
    settings: ClassVar[Mapping[str, object]] = {}
    """Settings that cannot be made up, by the name of the field."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """A test for each check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", list(CHECKS))

    def test_vendor(self, check: str) -> None:
        import pytest

        subject = Subject(spec=self.spec, launch=in_process(self.sandbox), settings=self.settings)
        # A loop of its own, so that no plugin for asynchronous tests is needed, nor in the way.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            (report,) = runner.run(examine(subject, [check]))
        if report.verdict == "skipped":
            pytest.skip(report.why)
        if report.verdict == "failed":
            pytest.fail(f"{report.why}\n\n{check}: {report.promise}", pytrace=False)


async def examine(
    subject: Subject, names: Sequence[str] = (), *, told: Callable[[Report], None] | None = None
) -> list[Report]:
    """Run the checks with these names, or all, on one sandbox; `told` hears of each when it is over."""
    reports: list[Report] = []
    try:
        async with ground(subject, _scheme(subject)) as (inbox, sandbox):
            for name in names or CHECKS:
                check = CHECKS[name]
                verdict, why = "passed", ""
                try:
                    async with standing(subject, inbox, sandbox) as stand:
                        await check(stand)
                except Skipped as skipped:
                    verdict, why = "skipped", str(skipped)
                except Failed as failed:
                    verdict, why = "failed", str(failed)
                except Exception as error:
                    # A VendorError where none was to be expected, or a sandbox that breaks.
                    verdict, why = "failed", f"{type(error).__name__} where everything is in order"
                reports.append(Report(check=name, promise=promise(check), verdict=verdict, why=why))
                if told is not None:
                    told(reports[-1])
    except Failed as failed:
        done = {report.check for report in reports}
        missing = [name for name in names or CHECKS if name not in done]
        reports += [
            Report(check=name, promise=promise(CHECKS[name]), verdict="failed", why=str(failed)) for name in missing
        ]
    return reports


def promise(check: Check) -> str:
    return (check.__doc__ or "").strip().splitlines()[0]


def in_process(sandbox: type[Sandbox]) -> Callable[[Options], AbstractAsyncContextManager[str]]:
    """Runs a sandbox in this process."""
    return lambda options: running(sandbox(options))


def of_module(module: str) -> Callable[[Options], AbstractAsyncContextManager[str]]:
    """Runs a sandbox as developers do: `python -m MODULE --port N …`."""

    @asynccontextmanager
    async def launch(options: Options) -> AsyncGenerator[str]:
        port = _free_port()
        arguments = ["--port", str(port), "--webhook-auth", options.webhook_auth]
        arguments += ["--webhook-secret", options.webhook_secret]
        if options.webhook_url is not None:
            arguments += ["--webhook-url", options.webhook_url]
        # What this process can import, that one can, too.
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, env=environ, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await _until_it_listens(process, f"http://127.0.0.1:{port}", module)
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    return launch


async def _until_it_listens(process: asyncio.subprocess.Process, url: str, module: str) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + START_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/_control/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if process.returncode is not None or clock() > deadline:
                raise Failed(f"`python -m {module} --port N` does not listen: end the module with `main(ItsSandbox)`")
            await asyncio.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _scheme(subject: Subject) -> WebhookScheme:
    """What the sandboxes do by default, or else what the vendor can."""
    schemes = subject.spec.webhook_schemes
    return "hmac" if "hmac" in schemes or not schemes else min(schemes)
