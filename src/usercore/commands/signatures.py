"""`usercore public-keys` and `receipt-verify`: what others verify our signatures with, and doing so."""

import asyncio
import json
from pathlib import Path

import click
import msgspec

from usercore import app
from usercore.commands.options import JSON
from usercore.commands.settings import current
from usercore.consents.actions import SignedReceipt
from usercore.consents.receipts import Receipt
from usercore.errors import KeysUnavailable, SignatureRefused
from usercore.signatures import public_keys as keys_of
from usercore.signatures import read_keys, verify

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
KEYS = click.option(
    "--keys",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Our public keys: a JWK set, as public-keys prints it.",
)


@click.command(epilog="Example: usercore public-keys > usercore-keys.json")
def public_keys() -> None:
    """Print the public keys of receipts and certificates as a JWK set (RFC 7517), to be published."""

    async def work() -> str:
        async with app.opened(current()) as parts:
            if not parts.keyring.available:
                raise KeysUnavailable
            return json.dumps(keys_of(parts.keyring), indent=2)

    click.echo(asyncio.run(work()))


@click.command(epilog="Example: usercore receipt-verify receipt.json --keys usercore-keys.json")
@FILE
@KEYS
@JSON
def receipt_verify(file: Path, keys: Path, as_json: bool) -> None:
    """Verify the consent receipt in FILE, as GET /v1/me/consents/{id}/receipt gave it; touches no server."""
    try:
        shown = msgspec.json.decode(file.read_bytes(), type=SignedReceipt)
    except msgspec.MsgspecError:
        raise SignatureRefused("This is no consent receipt.") from None
    signed = verify(shown.jws, "consent-receipt", read_keys(keys.read_bytes()), Receipt)
    if signed != shown.receipt:
        raise SignatureRefused("What the receipt shows is not what was signed.")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(signed), indent=2).decode())
        return
    last = signed.events[-1]
    click.echo(
        f"good: {signed.processing.consent_type} {signed.processing.privacy_notice} of {signed.pii_principal_id}, "
        f"{last.event_state} {last.event_time:%Y-%m-%d %H:%M} UTC"
    )
