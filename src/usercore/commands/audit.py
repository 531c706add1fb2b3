"""`usercore audit-verify`, `audit-export`, `audit-reconcile` and `audit-prove`."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from usercore import app
from usercore.archive.actions import Reconciled, list_archived, reconcile
from usercore.commands.audit_files import export, keys_in, verify_files
from usercore.commands.audit_parts import Part, verify_parts
from usercore.commands.options import JSON
from usercore.commands.settings import current
from usercore.server import settle
from usercore.trail.actions import Checkpoint, Finding, Verified, prove
from usercore.trail.merkle import Proof, is_proven

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
SAID = {
    "changed": "the row {event_id} was changed",
    "removed": "the row {event_id} was removed",
    "inserted": "the row {event_id} was inserted",
    "reordered": "the row {event_id} is not where it was",
    "segment": "the segment was changed",
    "chain": "the segment does not follow the one before, or is not the one of the checkpoint",
    "signature": "the segment is not signed with our key",
    "cut": "the trail ends before this segment, of which there is a checkpoint",
}


@click.command(epilog="Example: usercore audit-verify --against checkpoints.json --keep checkpoints.json")
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoints that were kept, one JSON object a line: without any, a tail that was cut off does not show.",
)
@click.option(
    "--keep", type=click.Path(dir_okay=False, path_type=Path), help="Add the checkpoint to this file when all is well."
)
@click.option(
    "--offline",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Verify a folder that audit-export wrote, without any server.",
)
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    metavar="VERSION=HEX",
    help="With --offline: a key that you know to be ours. Without any, those of the export are taken, and shown.",
)
@click.option("--from", "first", type=click.IntRange(1), default=1, help="Begin with this segment.")
@click.option("--to", "upto", type=click.IntRange(1), help="End with this segment; rows not sealed yet are left out.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes; one a core by default.")
@JSON
def audit_verify(
    against: Path | None,
    keep: Path | None,
    offline: Path | None,
    public_keys: tuple[str, ...],
    first: int,
    upto: int | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Hold the whole audit trail against its signed segments; exit code 1 names the first thing that is wrong.

    What it rests on: the signing key, which only the KMS opens, and the checkpoints that are kept elsewhere: by
    --keep, or on the topic usercore.audit.checkpoints.v1, as `usercore tail` prints it. When it is interrupted it says
    how to go on.
    """
    settle()
    kept = [] if against is None else [_checkpoint(line) for line in against.read_bytes().splitlines() if line.strip()]
    reached = first - 1

    def work() -> Verified:
        with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("verifying", total=None)
            return verify_parts(first, upto, jobs, kept, partial(step, progress, task))

    def step(progress: Progress, task: TaskID, part: Part, count: int) -> None:
        nonlocal reached
        reached = part.last or reached
        progress.update(task, advance=1, total=count)

    try:
        found = work() if offline is None else _offline(offline, public_keys, kept)
    except KeyboardInterrupt:
        raise click.ClickException(f"Interrupted; go on with --from {reached + 1}") from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _say(found, checkpoints=len(kept))
    if found.finding is not None:
        sys.exit(1)
    if keep is not None and found.checkpoint is not None:
        with keep.open("ab") as file:
            file.write(msgspec.json.encode(found.checkpoint) + b"\n")


@click.command(epilog="Example: usercore audit-export trail-2026 && usercore audit-verify --offline trail-2026")
@click.argument("folder", type=click.Path(exists=False, path_type=Path))
def audit_export(folder: Path) -> None:
    """Write the sealed trail into FOLDER, for somebody who verifies it without us: rows, segments and public keys."""

    async def work() -> int:
        with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("exporting", total=None)
            async with app.opened(current()) as parts:
                archived = partial(list_archived, parts.db, parts.archive)
                return await export(
                    parts.db, parts.keyring, folder, archived, lambda done: progress.update(task, completed=done)
                )

    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be made ({error.strerror}): name a folder that is new.") from error
    click.echo(f"{asyncio.run(work())} rows in {folder}")


def _offline(folder: Path, public_keys: tuple[str, ...], kept: list[Checkpoint]) -> Verified:
    try:
        keys = {int(version): key for version, _, key in (text.partition("=") for text in public_keys)}
        if not keys:
            keys = keys_in(folder)
            for version, key in sorted(keys.items()):
                click.echo(f"key {version} of the export, which you have to know to be ours: {key}", err=True)
        return verify_files(folder, keys, kept)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise click.ClickException(f"This is no export of the trail, or no key ({type(error).__name__}).") from error


@click.command(epilog="Example: usercore audit-reconcile --json")
@click.option("--execute", is_flag=True, help="Send again what the archive lacks; without, it is only said.")
@JSON
def audit_reconcile(execute: bool, as_json: bool) -> None:
    """Compare the trail in Postgres and in the archive, segment by segment; exit code 1 when they differ.

    For each segment and store the first row that is not what was sealed. With --execute, segments that are whole in
    Postgres are sent to the archive again: what is missing there comes back, and nothing is taken away.
    """

    async def work() -> Reconciled:
        with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("comparing", total=None)
            async with app.opened(current()) as parts:
                if parts.archive is None:
                    raise click.UsageError("CLICKHOUSE_URL is not set: the trail is in Postgres alone.")
                return await reconcile(
                    parts.db,
                    parts.archive,
                    mend=execute,
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )

    found = asyncio.run(work())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        click.echo(f"{found.rows} rows in {found.segments} shipped segments, {found.waiting} segments not shipped yet")
        for each in found.differences:
            click.echo(f"segment {each.segment} in {each.side}: {SAID[each.kind].format(event_id=each.event_id)}")
        click.echo(f"{len(found.differences)} differences" if found.differences else "both are as it was sealed")
        if not execute and any(each.side == "archive" for each in found.differences):
            click.echo("add --execute to send again what the archive lacks")
    if found.differences:
        sys.exit(1)


@click.command(epilog="Example: usercore audit-prove 01978c5e-5a0b-7d52-9d0e-3f6f2a1c9b11 > proof.json")
@click.argument("event_id", type=click.UUID)
@click.option("--check", is_flag=True, help="Only say whether the proof holds.")
def audit_prove(event_id: UUID, check: bool) -> None:
    """Print the proof that the row EVENT_ID is in the sealed trail: its audit path (RFC 9162) and the signature."""

    async def work() -> Proof:
        async with app.opened(current()) as parts:
            return await prove(parts.db, parts.keyring, event_id)

    proof = asyncio.run(work())
    if not check:
        click.echo(msgspec.json.format(msgspec.json.encode(proof)).decode())
        return
    good = is_proven(proof)
    click.echo(
        f"{event_id} is row {proof.index + 1} of {proof.count} of segment {proof.number}" if good else "no proof"
    )
    if not good:
        sys.exit(1)


def _say(found: Verified, *, checkpoints: int) -> None:
    click.echo(f"{found.rows} rows in {found.segments} sealed segments, {found.unsealed} younger rows")
    if found.finding is not None:
        click.echo(f"segment {found.finding.segment}: {_words(found.finding)}")
        return
    against = f"{checkpoints} checkpoints" if checkpoints else "no checkpoint: a tail that was cut off would not show"
    click.echo(f"all is as it was sealed; held against {against}")


def _words(finding: Finding) -> str:
    return SAID[finding.kind].format(event_id=finding.event_id)


def _checkpoint(line: bytes) -> Checkpoint:
    try:
        found = msgspec.json.decode(line)
        # `usercore tail` shows what lies on the topic as the value of a record.
        return msgspec.convert(found.get("value", found), type=Checkpoint)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise click.BadParameter("a line is no checkpoint", param_hint="--against") from error
