"""Checks of what a plugin says of itself, before anybody is verified."""

import asyncio
import importlib.util
import inspect
import os
import sys
from typing import Any, cast

import msgspec

from usercore.plugins import variables
from usercore.plugins.distributions import wrong_field
from usercore.plugins.vendor import API_VERSION
from usercore.testing.fence import KEY, SECRET
from usercore.testing.stand import Stand
from usercore.testing.verdicts import Failed, Skipped

IMPORTING = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system"):
        print(event, file=sys.stderr)
        sys.stderr.flush()
        import os
        os._exit(3)
sys.addaudithook(refuse)
__import__(sys.argv[1])
"""
"""Ends with 3 when importing a module reaches out; nothing that catches exceptions hides it."""
IMPORT_S = 30.0


async def spec_is_valid(stand: Stand) -> None:
    """The VendorSpec has a name, the API's version, a title, settings, checks and schemes of the declared types."""
    spec = stand.spec
    if spec.api_version != API_VERSION:
        raise Failed(f"api_version is not {API_VERSION}: set it to usercore.plugins.API_VERSION")
    if field := wrong_field(spec):
        raise Failed(f"the spec has a {field} that it cannot have: see usercore.plugins.VendorSpec")
    if spec.sandbox is None:
        raise Failed("the spec names no sandbox: name the module that runs it, so that developers have one")
    if importlib.util.find_spec(spec.sandbox) is None:
        raise Failed("the spec names a sandbox that is no module: write its whole name, with the package")


async def settings_come_from_the_environment(stand: Stand) -> None:
    """Each field of the settings has a type that is read from a variable, and no variable is somebody else's."""
    spec = stand.spec
    texts = {variables.variable(spec.name, field.name): "1" for field in msgspec.structs.fields(spec.settings)}
    _, problems = variables.read(spec, texts)
    problems = [problem for problem in problems if "not read from the environment" in problem]
    problems += variables.clashes([spec])
    if problems:
        raise Failed("; ".join(problems))


async def secrets_are_never_shown(stand: Stand) -> None:
    """Neither the settings nor the vendor show a key or a secret in their repr, nor does `usercore vendors`."""
    shown = {
        "the settings": repr(stand.settings) + str(stand.settings),
        "the vendor": repr(stand.vendor) + str(stand.vendor),
        "`usercore vendors`": repr(variables.masked(stand.spec, stand.settings)),
    }
    for what, text in shown.items():
        if KEY in text or SECRET in text:
            raise Failed(f"a secret is shown by {what}: write a __repr__ without values, and name secret fields so")


async def vendor_has_its_methods(stand: Stand) -> None:
    """`start`, `fetch` and declared operations are coroutine functions, and `read_webhook` is a plain one."""
    vendor = cast("Any", stand.vendor)
    for name in ("start", "fetch", *sorted(stand.spec.operations)):
        if not inspect.iscoroutinefunction(getattr(vendor, name, None)):
            raise Failed(f"the vendor has no `async def {name}`: write it")
    if not callable(getattr(vendor, "read_webhook", None)) or inspect.iscoroutinefunction(vendor.read_webhook):
        raise Failed("the vendor has no `def read_webhook`: write it, without async")


async def import_reaches_nothing(stand: Stand) -> None:
    """Importing the plugin makes no connection, opens no port and starts no process."""
    module = getattr(stand.spec.factory, "__module__", None)
    main = sys.modules.get("__main__")
    if module is None or module == getattr(main, "__name__", None) or importlib.util.find_spec(module) is None:
        raise Skipped("the factory is in no module that can be imported by itself")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IMPORTING, module, env={**os.environ, "PYTHONPATH": path}, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(IMPORT_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Failed(f"importing {module} takes over {IMPORT_S:g} s") from None
    if process.returncode == 3:
        raise Failed(f"importing {module} does {said.decode(errors='replace').split()[-1]}: do it in a method")
    if process.returncode != 0:
        raise Failed(f"{module} cannot be imported by itself: `python -c 'import {module}'` shows why")


CHECKS = (
    spec_is_valid,
    settings_come_from_the_environment,
    secrets_are_never_shown,
    vendor_has_its_methods,
    import_reaches_nothing,
)
