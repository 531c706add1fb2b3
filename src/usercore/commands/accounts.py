"""`usercore user-freeze`, `user-unfreeze` and `user-close`: for operators, when the API is not the way."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, get_args
from uuid import UUID

import click

from usercore import app
from usercore.accounts import actions
from usercore.accounts.actions import Account, Close, CloseReason, Freeze, FreezeReason, Unfreeze, UnfreezeReason
from usercore.commands.options import EXECUTE, JSON
from usercore.commands.settings import current
from usercore.outbox import Actor
from usercore.worker import Parts

OPERATOR = Actor(kind="admin", client="usercore-cli", scope="admin")
"""Who it is in the trail: the command, since whoever runs it has no token."""

USER = click.argument("user_id", type=click.UUID)
NOTE = click.option("--note", help="Why, in words; sealed. Required with the reason `other`.")
SOURCE = click.option("--source", default="admin", show_default=True, help="Whose hold it is.")

Deed = Callable[[Parts], Awaitable[object]]


def _reason(of: Any) -> Callable[[Any], Any]:
    return click.option("--reason", required=True, type=click.Choice(get_args(of)))


@click.command(epilog="Example: usercore user-freeze 6f0c1f2e-… --reason court_order --execute")
@USER
@_reason(FreezeReason)
@NOTE
@SOURCE
@EXECUTE
@JSON
def user_freeze(
    user_id: UUID, reason: FreezeReason, note: str | None, source: str, execute: bool, as_json: bool
) -> None:
    """Place a hold that freezes the account of USER_ID; it stays until its source lifts it."""
    asked = Freeze(reason, note)
    _run(
        user_id,
        f"freeze for {source}, {reason}",
        lambda parts: actions.freeze(parts.db, parts.keyring, user_id, asked, source, OPERATOR, None),
        execute=execute,
        as_json=as_json,
    )


@click.command(epilog="Example: usercore user-unfreeze 6f0c1f2e-… --reason cleared --source risk --execute")
@USER
@_reason(UnfreezeReason)
@NOTE
@SOURCE
@EXECUTE
@JSON
def user_unfreeze(
    user_id: UUID, reason: UnfreezeReason, note: str | None, source: str, execute: bool, as_json: bool
) -> None:
    """Lift all holds that a source has on USER_ID; those of others stay."""
    asked = Unfreeze(reason, note)
    _run(
        user_id,
        f"lift the holds of {source}, {reason}",
        lambda parts: actions.unfreeze(parts.db, parts.keyring, user_id, asked, source, OPERATOR, None),
        execute=execute,
        as_json=as_json,
    )


@click.command(epilog="Example: usercore user-close 6f0c1f2e-… --reason user_request --execute")
@USER
@_reason(CloseReason)
@NOTE
@EXECUTE
@JSON
def user_close(user_id: UUID, reason: CloseReason, note: str | None, execute: bool, as_json: bool) -> None:
    """Close the account of USER_ID for good, and end its open verification."""
    asked = Close(reason, note)
    _run(
        user_id,
        f"close for good, {reason}",
        lambda parts: actions.close(parts.db, parts.keyring, parts.kyc.rules, user_id, asked, OPERATOR, None),
        execute=execute,
        as_json=as_json,
    )


def _run(user_id: UUID, plan: str, deed: Deed, *, execute: bool, as_json: bool) -> None:
    async def work() -> tuple[Account, Account]:
        async with app.opened(current()) as parts:
            before = await actions.get_account(parts.db, user_id)
            if execute:
                await deed(parts)
            return before, await actions.get_account(parts.db, user_id)

    before, after = asyncio.run(work())
    if as_json:
        shown = {
            "user_id": str(user_id),
            "plan": plan,
            "executed": execute,
            "before": _shown(before),
            "after": _shown(after),
        }
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(f"{user_id}  {before.status}")
    for hold in before.holds:
        click.echo(f"  {hold.effect} by {hold.source}, {hold.reason}, since {hold.placed_at:%Y-%m-%d %H:%M} UTC")
    click.echo(f"done: {plan}; now {after.status}" if execute else f"would {plan}: add --execute to do it")


def _shown(account: Account) -> dict[str, object]:
    holds = [{"source": hold.source, "effect": hold.effect, "reason": hold.reason} for hold in account.holds]
    return {"status": account.status, "holds": holds}
