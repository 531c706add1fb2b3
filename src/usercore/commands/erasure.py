"""`usercore user-erase`, and `usercore erasure verify` for whoever has a certificate in hand."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.table import Table

from usercore import app
from usercore.commands.accounts import OPERATOR
from usercore.commands.audit_files import ROWS, keys_in, verify_files
from usercore.commands.options import JSON
from usercore.commands.settings import current
from usercore.commands.signatures import FILE, KEYS
from usercore.erased.actions import Certificate, DestroyedKey, SignedCertificate
from usercore.erasure.actions import Erase, Erased, EraseReason, erase
from usercore.errors import SignatureRefused
from usercore.pii.validators import INDIA
from usercore.signatures import read_keys, verify
from usercore.trail.actions import SealedRow


@click.command(epilog="Example: usercore user-erase 6f0c1f2e-… --reason user_request --execute > certificate.json")
@click.argument("user_id", type=click.UUID)
@click.option("--reason", required=True, type=click.Choice(get_args(EraseReason)))
@click.option("--note", help="Why, in words. Required with the reason `other`.")
@click.option("--execute", is_flag=True, help="Do it; without, only the plan is shown. It cannot be undone.")
@JSON
def user_erase(user_id: UUID, reason: EraseReason, note: str | None, execute: bool, as_json: bool) -> None:
    """Erase the person USER_ID: shows what would become of what; with --execute prints the signed certificate."""

    async def work() -> Erased:
        async with app.opened(current()) as parts:
            return await erase(parts.erasing, user_id, Erase(reason, note, dry_run=not execute), OPERATOR, None)

    done = asyncio.run(work())
    if as_json or done.certificate is not None:
        shown = done if done.certificate is None or as_json else done.certificate
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    elif done.plan is None:
        click.echo("erased; a store or vendor is outstanding, the workers go on: run it again for the certificate")
    else:
        table = Table("store", "what", "class", "becomes", "until", "rule")
        for item in done.plan:
            until = "" if item.until is None else _day(item.until)
            becomes = "erased" if item.action == "erase" else "kept"
            table.add_row(item.store, item.column, item.retention_class or "", becomes, until, item.rule)
        Console(width=170).print(table)
        click.echo("add --execute to do it; it cannot be undone")


@click.group()
def erasure() -> None:
    """Certificates of erasure."""


@erasure.command("verify", epilog="Example: usercore erasure verify certificate.json --keys keys.json --trail export/")
@FILE
@KEYS
@click.option(
    "--trail",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that audit-export wrote: the certificate's row has to be in it, and all of it as it was sealed.",
)
@JSON
def erasure_verify(file: Path, keys: Path, trail: Path | None, as_json: bool) -> None:
    """Verify the certificate of erasure in FILE, offline: its signature, and against an export of the audit trail."""
    certificate = _signed(file, keys)
    if trail is not None:
        _is_in(trail, certificate)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(certificate), indent=2).decode())
        return
    kept = ", ".join(f"{each.retention_class} until {_day(each.until)}" for each in certificate.kept) or "nothing"
    erased_at = f"{certificate.erased_at:%Y-%m-%d %H:%M} UTC"
    click.echo(f"good: {certificate.user_id} was erased {erased_at}; kept by law: {kept}")
    click.echo("its row is in the trail" if trail else "not held against the audit trail: name an export with --trail")


def _day(at: datetime) -> str:
    """As people in India read it."""
    return f"{at.astimezone(INDIA):%Y-%m-%d}"


def _signed(file: Path, keys: Path) -> Certificate:
    """Of what the API or user-erase gave. Raises SignatureRefused."""
    content = file.read_bytes()
    try:
        try:
            shown = msgspec.json.decode(content, type=SignedCertificate)
        except msgspec.ValidationError:
            answer = msgspec.json.decode(content, type=Erased)
            if answer.certificate is None:
                raise
            shown = answer.certificate
    except msgspec.MsgspecError:
        raise SignatureRefused("This is no certificate of erasure.") from None
    signed = verify(shown.jws, "erasure-certificate", read_keys(keys.read_bytes()), Certificate)
    if signed != shown.certificate:
        raise SignatureRefused("What the certificate shows is not what was signed.")
    return signed


class _Said(msgspec.Struct):
    keys_destroyed: list[DestroyedKey]


def _is_in(trail: Path, certificate: Certificate) -> None:
    """Raises SignatureRefused when the trail is not whole or says something else."""
    try:
        found = verify_files(trail, keys_in(trail), [])
        if found.finding is not None:
            raise SignatureRefused("The trail is not as it was sealed: see audit-verify --offline.")
        said: list[DestroyedKey] = []
        erased = False
        decoder = msgspec.json.Decoder(SealedRow)
        with (trail / ROWS).open("rb") as rows:
            for line in rows:
                if str(certificate.user_id).encode() not in line:
                    continue
                row = decoder.decode(line)
                if row.user_id == certificate.user_id and row.action == "user.erased":
                    erased = erased or row.event_id == certificate.audit_event_id
                    said += msgspec.json.decode(row.new_value or "{}", type=_Said).keys_destroyed
    except (OSError, ValueError, msgspec.MsgspecError):
        raise SignatureRefused("This is no export of the trail.") from None
    if not erased:
        raise SignatureRefused("The trail has no row of this erasure.")
    if not all(key in said for key in certificate.keys_destroyed):
        raise SignatureRefused("The trail names other keys than the certificate.")
