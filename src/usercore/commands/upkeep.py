"""`usercore webhook-replay` and `usercore kyc-reconcile`."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from usercore import app
from usercore.commands.options import EXECUTE, JSON
from usercore.commands.settings import current
from usercore.db import Db
from usercore.upkeep.actions import Message, OpenCase, list_messages, list_open_cases, reconcile, replay

MOST = 1000

VENDOR_OPTION = click.option("--vendor", help="Of this vendor only.")


@click.command(epilog="Example: usercore webhook-replay --vendor hyperverge --execute")
@VENDOR_OPTION
@EXECUTE
@JSON
def webhook_replay(vendor: str | None, execute: bool, as_json: bool) -> None:
    """Let webhooks be applied now that were not: those that wait, that no plugin could read, that nobody claimed.

    A message is kept for a week. What it says counts once, however often it is applied; the workers apply it.
    """

    async def work() -> tuple[list[Message], int]:
        async with _database() as db:
            messages = await list_messages(db, vendor, MOST)
            done = await replay(db, [message.id for message in messages]) if execute and messages else []
        return messages, len(done)

    messages, done = asyncio.run(work())
    if as_json:
        shown = [
            {
                "id": str(message.id),
                "vendor": message.vendor,
                "state": message.state,
                "tries": message.tries,
                "received_at": message.received_at.isoformat(),
            }
            for message in messages
        ]
        click.echo(json.dumps({"messages": shown, "replayed": done, "executed": execute}, indent=2))
        return
    for message in messages:
        click.echo(
            f"{message.id}  {message.vendor}  {message.state}  {message.tries} tries  {_age(message.received_at)}"
        )
    click.echo(f"{done} replayed" if execute else f"{len(messages)} would be replayed: add --execute to do it")


@click.command(epilog="Example: usercore kyc-reconcile --older-than 60 --execute")
@VENDOR_OPTION
@click.option("--older-than", type=click.IntRange(0), default=60, show_default=True, help="Minutes since it began.")
@EXECUTE
@JSON
def kyc_reconcile(vendor: str | None, older_than: int, execute: bool, as_json: bool) -> None:
    """Ask the vendors now about cases that are open for long, and let the cases follow what they say.

    A case whose vendor never took it is started again; one that is past its time expires. One after the other, so that
    no vendor gets a burst.
    """

    async def plan() -> list[OpenCase]:
        async with _database() as db:
            return await list_open_cases(db, vendor, timedelta(minutes=older_than), MOST)

    async def work(cases: list[OpenCase]) -> dict[str, str]:
        found: dict[str, str] = {}
        columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("asking", total=len(cases))
            async with app.opened(current()) as parts:
                for case in cases:
                    found[str(case.id)] = await reconcile(parts.kyc, case.id) or "busy"
                    progress.advance(task)
        return found

    cases = asyncio.run(plan())
    after = asyncio.run(work(cases)) if execute and cases else {}
    if as_json:
        shown = [
            {
                "case_id": str(case.id),
                "vendor": case.vendor,
                "target_tier": case.target_tier,
                "status": case.status,
                "attempt": case.attempt,
                "initiated_at": case.initiated_at.isoformat(),
                "looks": case.looks,
                "status_after": after.get(str(case.id)),
            }
            for case in cases
        ]
        click.echo(json.dumps({"cases": shown, "executed": execute}, indent=2))
        return
    for case in cases:
        now = after.get(str(case.id))
        click.echo(
            f"{case.id}  {case.vendor}  {case.target_tier}  {case.status}  attempt {case.attempt}  "
            f"{_age(case.initiated_at)}  {case.looks} looks" + ("" if now is None else f"  → {now}")
        )
    if execute:
        changed = sum(after[str(case.id)] not in (case.status, "busy") for case in cases)
        click.echo(f"{len(cases)} asked about, {changed} changed")
    else:
        click.echo(f"{len(cases)} would be asked about: add --execute to do it")


@asynccontextmanager
async def _database() -> AsyncGenerator[Db]:
    db = await Db.connect(current().postgres_url.reveal(), min_size=1, max_size=1, name="usercore-cli")
    try:
        yield db
    finally:
        await db.close()


def _age(since: datetime) -> str:
    """How long ago, in the unit that reads best."""
    seconds = (datetime.now(UTC) - since).total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s old"
    return f"{seconds / 60:.0f} min old" if seconds < 7200 else f"{seconds / 3600:.0f} h old"
