"""`usercore keys-list`, `keys-rotate`, `keys-rewrap`, `keys-retire` and `keys-reseal`: the keys, for operators.

Those of the keyring connect as the owner of the tables (POSTGRES_OWNER_URL) and with whatever rights the operator has
at the KMS.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from uuid import UUID

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from usercore import app
from usercore.commands.accounts import OPERATOR
from usercore.commands.options import EXECUTE, JSON
from usercore.commands.settings import current
from usercore.db import Db
from usercore.errors import UserNotFound
from usercore.keys import actions
from usercore.keys.actions import Epoch, Keys
from usercore.pii import keystore
from usercore.pii.cipher import cipher
from usercore.pii.keyring import PURPOSES, KeyPurpose, Keyring
from usercore.pii.kms import Kms, open_kms
from usercore.reseals.actions import Resealed, reseal
from usercore.rewraps.actions import Step, paced, reindex, rewrap
from usercore.users.actions import UnknownUser, get_version

WIDTH = 160
"""Columns: the names of AWS's keys are long."""


class Tools(Struct, frozen=True):
    owner: Db
    kms: Kms
    before: Kms | None


@asynccontextmanager
async def _tools(before_uri: str | None = None) -> AsyncGenerator[Tools]:
    settings = current()
    url = settings.postgres_owner_url or settings.postgres_url
    kms = open_kms(settings.pii_encryption_key_id)
    before = None if before_uri is None else open_kms(before_uri)
    owner = await Db.connect(url.reveal(), min_size=1, max_size=2, name="usercore-keys")
    try:
        yield Tools(owner, kms, before)
    finally:
        await owner.close()
        await kms.close()
        if before is not None:
            await before.close()


@click.command(epilog="Example: usercore keys-list")
@JSON
def keys_list(as_json: bool) -> None:
    """Show every key: the KMS key and its versions, the epochs of the keyring and what depends on each."""

    async def work() -> Keys:
        async with _tools() as tools:
            return await actions.list_keys(tools.owner, tools.kms)

    found = asyncio.run(work())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if found.kms is None:
        click.echo("The KMS does not answer: what it says of its versions is missing below.")
    else:
        versions = ", ".join(f"{name} {state}" for name, state in found.kms.versions.items())
        click.echo(f"{found.kms.uri}\n  primary version {found.kms.primary}; {versions}")
    table = Table("epoch", "purpose", "version", "state", "since", "KMS version", "depends on it")
    for epoch in found.epochs:
        kms_version = f"{epoch.kms_version} {epoch.kms_state or 'unknown'}"
        table.add_row(
            str(epoch.epoch), epoch.purpose, str(epoch.version), epoch.state, f"{epoch.state_since:%Y-%m-%d %H:%M}",
            kms_version, _depends(epoch),
        )  # fmt: skip
    Console(width=WIDTH).print(table)
    for row in found.quarantined:
        click.echo(
            f"quarantined: {row.user_id} {row.retention_class} version {row.version} of epoch {row.epoch}: "
            f"{row.reason}, found {row.found_at:%Y-%m-%d %H:%M}"
        )


def _depends(epoch: Epoch) -> str:
    if epoch.state in ("active", "arriving"):
        return "what is written now"
    if epoch.dependents:
        return ", ".join(f"{count} {what}" for what, count in epoch.dependents.items())
    if epoch.state == "retired":
        return ""
    if epoch.purpose in actions.STAY:
        return "the audit trail"
    if epoch.purpose == "tokens":
        return "cursors and idempotency keys of the last day"
    if epoch.unused_since is None:
        return "not known before keys-rewrap"
    return f"nothing since {epoch.unused_since:%Y-%m-%d %H:%M}; backups"


@click.command(epilog="Example: usercore keys-rotate --purpose user_keys --execute")
@click.option("--purpose", type=click.Choice(PURPOSES), multiple=True, help="Which keys; all of them if not said.")
@click.option("--same-kms-version", is_flag=True, help="Leave the KMS key as it is: somebody else rotates it.")
@EXECUTE
@JSON
def keys_rotate(purpose: Sequence[KeyPurpose], same_kms_version: bool, execute: bool, as_json: bool) -> None:
    """Make a new version of the KMS key and new epochs of the keyring, which every process writes under within 5 s.

    What was written before stays readable. It is safe to run twice, or again after it was cut off.
    """
    purposes = purpose or PURPOSES

    async def work() -> list[int]:
        async with _tools() as tools:
            return await actions.rotate(tools.owner, tools.kms, purposes, new_kms_version=not same_kms_version)

    made = asyncio.run(work()) if execute else []
    if as_json:
        click.echo(json.dumps({"purposes": list(purposes), "epochs": made, "executed": execute}, indent=2))
    elif execute:
        click.echo(f"written under from now on: epochs {', '.join(map(str, made))}; keys-rewrap moves what was before")
    else:
        kms = "" if same_kms_version else "a new version of the KMS key, and "
        click.echo(f"would make {kms}a new epoch of {', '.join(purposes)}: add --execute to do it")


@click.command(epilog="Example: usercore keys-rewrap --rate 5000")
@click.option("--rate", type=click.IntRange(1), help="Keys a second at most; as fast as it goes if not said.")
@click.option("--from", "before", metavar="URI", help="The KMS key that wrapped the keyring till now: moves it here.")
@JSON
def keys_rewrap(rate: int | None, before: str | None, as_json: bool) -> None:
    """Bring everything under the newest keys: epochs, the users' data keys, blind indexes and claims.

    The workers do so too, slowly. It can be stopped at any time; the next run goes on. A data key that does not open is
    put aside and reported.
    """

    async def work() -> dict[str, int]:
        async with _tools(before) as tools:
            epochs = await actions.rewrap_epochs(tools.owner, tools.kms, tools.before)
            keyring = Keyring(cipher(current().pii_cipher))
            await keystore.load(tools.owner, tools.kms, keyring)
            total = _outdated(await actions.list_keys(tools.owner, tools.kms))
            done = {"epochs": len(epochs), "user_keys": 0, "indexes": 0, "bad": 0, "waiting": 0}
            columns = (TextColumn("rewrapping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            shown = nullcontext(None) if as_json else Progress(*columns, console=Console(stderr=True), transient=True)
            with shown as progress:
                task = None if progress is None else progress.add_task("rewrapping", total=total)
                for kind, steps in (
                    ("user_keys", rewrap(tools.owner, keyring)),
                    ("indexes", reindex(tools.owner, keyring)),
                ):
                    async for step in paced(steps, rate):
                        _count(done, kind, step)
                        if progress is not None and task is not None:
                            progress.advance(task, step.moved)
            return done

    began = time.monotonic()
    done = asyncio.run(work())
    seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps({**done, "seconds": round(seconds, 1)}, indent=2))
    else:
        click.echo(
            f"moved {done['epochs']} epochs, {done['user_keys']} data keys and the indexes of {done['indexes']} "
            f"profiles in {seconds:.1f} s"
        )
    if done["bad"] or done["waiting"]:
        raise click.ClickException(
            f"{done['bad']} do not open (keys-list names data keys that were put aside); "
            f"{done['waiting']} wait for an epoch that the KMS does not open"
        )


def _outdated(keys: Keys) -> int:
    return sum(
        sum(epoch.dependents.values())
        for epoch in keys.epochs
        if epoch.state == "retiring" and epoch.purpose in ("user_keys", "blind_index")
    )


def _count(done: dict[str, int], kind: str, step: Step) -> None:
    done[kind] += step.moved
    done["bad"] += step.bad
    done["waiting"] += step.waiting


@click.command(epilog="Example: usercore keys-retire 6 --backups-days 35 --execute")
@click.argument("epoch", type=click.IntRange(1))
@click.option(
    "--backups-days", type=click.IntRange(0), default=35, show_default=True, help="For how long backups are kept."
)
@click.option("--without-quarantined", is_flag=True, help="In spite of data keys that do not open anyway.")
@EXECUTE
@JSON
def keys_retire(epoch: int, backups_days: int, without_quarantined: bool, execute: bool, as_json: bool) -> None:
    """Make what EPOCH wrapped unreadable for ever, also in backups: destroys the version of the KMS key with it.

    Refused while anything depends on the epoch. Cannot be undone.
    """

    async def work() -> dict[str, object]:
        async with _tools() as tools:
            backups = timedelta(days=backups_days)
            if not execute:
                await actions.check_retirable(
                    tools.owner, epoch, backups=backups, without_quarantined=without_quarantined
                )
                return {"epoch": epoch, "executed": False}
            retired = await actions.retire(
                tools.owner, tools.kms, epoch, backups=backups, without_quarantined=without_quarantined
            )
            return {**msgspec.structs.asdict(retired), "executed": True}

    done = asyncio.run(work())
    if as_json:
        click.echo(json.dumps(done, indent=2))
    elif execute:
        click.echo(f"epoch {epoch} is retired; {done['proof']}")
    else:
        click.echo(f"epoch {epoch} would be destroyed for ever: add --execute to do it")


@click.command(epilog="Example: usercore keys-reseal 6f0c1f2e-… --execute")
@click.argument("user_id", type=click.UUID)
@EXECUTE
@JSON
def keys_reseal(user_id: UUID, execute: bool, as_json: bool) -> None:
    """Give the person USER_ID new data keys, after the old ones may have leaked, and seal everything with them.

    The audit trail and documents stay under the old keys: they are sealed once.
    """

    async def work() -> Resealed | None:
        async with app.opened(current()) as parts:
            if not execute:
                await get_version(parts.db, user_id)
                return None
            return await reseal(parts.db, parts.keyring, user_id, OPERATOR)

    try:
        done = asyncio.run(work())
    except UnknownUser:
        raise UserNotFound from None
    if as_json:
        shown = {} if done is None else msgspec.structs.asdict(done)
        click.echo(json.dumps({"user_id": str(user_id), "executed": execute, **shown}, indent=2))
    elif done is None:
        click.echo(f"would give {user_id} new data keys and seal everything with them: add --execute to do it")
    else:
        click.echo(
            f"{done.resealed} values sealed anew" + (f", {done.unreadable} do not open" if done.unreadable else "")
        )
