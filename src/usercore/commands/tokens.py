"""`usercore token`: plays the Auth Service in dev."""

import os
import time
from pathlib import Path
from uuid import UUID

import click
import jwt

from usercore.commands.settings import current
from usercore.devstack.environment import checkout
from usercore.settings import Settings


@click.command(epilog='Example: usercore token "$(uuidgen)" --email asha@example.in')
@click.argument("sub", type=click.UUID)
@click.option("--scope", default="", help='Space-separated, such as "internal admin". None is an end user.')
@click.option("--client-id", help="The calling service.")
@click.option("--email", help="The e-mail claim.")
@click.option("--ttl", default=3600, show_default=True, help="Seconds; negative makes an expired token.")
def token(sub: UUID, scope: str, client_id: str | None, email: str | None, ttl: int) -> None:
    """Print a JWT for SUB, signed with the key that `usercore up` made."""
    click.echo(sign(current(), sub, scope=scope, client_id=client_id, email=email, ttl=ttl))


def sign(
    settings: Settings,
    sub: UUID,
    *,
    scope: str = "",
    client_id: str | None = None,
    email: str | None = None,
    ttl: int = 3600,
) -> str:
    """A token of the dev key. Raises ClickException where there is none."""
    key_file = Path(os.environ.get("JWT_PRIVATE_KEY_FILE") or checkout() / ".dev" / "jwt-private.pem")
    if settings.production or not key_file.exists():
        raise click.ClickException("There is no dev signing key: run `./justw up`. Production tokens come from Auth.")
    now = int(time.time())
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": str(sub),
        "iat": min(now, now + ttl),
        "exp": now + ttl,
        "scope": scope,
        "client_id": client_id,
        "email": email,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key_file.read_text(), "ES256")
