"""`usercore user-export`: what there is of a person, for whoever asks on their behalf."""

import asyncio
import os
from pathlib import Path
from typing import get_args
from uuid import UUID

import click
from msgspec.structs import replace

from usercore import app
from usercore.commands.accounts import OPERATOR
from usercore.commands.settings import current
from usercore.errors import UserNotFound
from usercore.exports.actions import open_export
from usercore.outbox import AccessPurpose
from usercore.users.actions import UnknownUser


@click.command(epilog="Example: usercore user-export 6f0c1f2e-… --output asha.html --purpose legal_request")
@click.argument("user_id", type=click.UUID)
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file; .json for programs, .html to be read. Only you may read it.",
)
@click.option("--purpose", required=True, type=click.Choice(get_args(AccessPurpose)), help="What for; recorded.")
def user_export(user_id: UUID, output: Path, purpose: AccessPurpose) -> None:
    """Write all that there is of the person USER_ID into a file. The person sees it in their access log."""
    if output.suffix not in (".json", ".html"):
        raise click.UsageError("--output has to end in .json or .html")

    async def work() -> None:
        settings = current()
        async with app.opened(settings) as parts:
            actor = replace(OPERATOR, purpose=purpose)
            try:
                export = await open_export(parts.kyc, parts.archive, settings.controller_name, user_id, actor)
            except UnknownUser:
                raise UserNotFound from None
            chunks = export.json() if output.suffix == ".json" else export.html()
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    file.write(chunk)

    if output.exists():
        raise click.ClickException(f"{output} is there already: name a file that is new.")
    asyncio.run(work())
    click.echo(f"written to {output}")
