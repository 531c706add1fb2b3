"""`usercore serve`, `work` and `config`."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import click
import msgspec
import uvloop

from usercore.commands.options import JSON
from usercore.commands.settings import current
from usercore.settings import Settings, masked
from usercore.telemetry import configure_logging, configure_tracing


@click.command(epilog="Example: usercore serve")
def serve() -> None:
    """Serve the HTTP API on PORT; in production /metrics and /schema on OPS_PORT."""
    from usercore import app

    settings = current()
    _run(settings, app.serve(settings))


@click.command(epilog="Example: usercore work relay")
@click.argument("loops", nargs=-1)
def work(loops: tuple[str, ...]) -> None:
    """Run the background LOOPS, all of them when none is named; /metrics and /health on OPS_PORT."""
    from usercore import app
    from usercore.worker import LOOPS

    unknown = set(loops) - LOOPS.keys()
    if unknown:
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(LOOPS)}")
    settings = current()
    _run(settings, app.work(settings, loops or tuple(LOOPS)))


@click.command(epilog="Example: usercore config --json")
@JSON
def config(as_json: bool) -> None:
    """Show the effective settings, secrets masked."""
    shown = masked(current())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())
        return
    for name, value in shown.items():
        click.echo(f"{name}={value}")


def _run(settings: Settings, main: Coroutine[Any, Any, None]) -> None:
    configure_logging(settings.log_level)
    stop_tracing = configure_tracing(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    finally:
        stop_tracing()
