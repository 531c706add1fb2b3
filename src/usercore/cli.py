"""The `usercore` command: a table of subcommands, each imported when it is asked for."""

import importlib
import sys
from typing import Any

import click

from usercore.errors import ApiError, SettingsError, UsercoreError

COMMANDS = {
    "serve": "service",
    "work": "service",
    "config": "service",
    "migrate": "database",
    "migrate-plan": "database",
    "rollback": "database",
    "migration-new": "database",
    "token": "tokens",
    "emit": "messages",
    "tail": "messages",
    "outbox-status": "messages",
    "dlq-list": "messages",
    "dlq-replay": "messages",
    "webhook-replay": "upkeep",
    "kyc-reconcile": "upkeep",
    "audit-verify": "audit",
    "audit-export": "audit",
    "audit-reconcile": "audit",
    "audit-prove": "audit",
    "user-freeze": "accounts",
    "user-unfreeze": "accounts",
    "user-close": "accounts",
    "user-erase": "erasure",
    "erasure": "erasure",
    "user-export": "exports",
    "keys-list": "keys",
    "keys-rotate": "keys",
    "keys-rewrap": "keys",
    "keys-retire": "keys",
    "keys-reseal": "keys",
    "public-keys": "signatures",
    "receipt-verify": "signatures",
    "vendors": "vendors",
    "vendor-check": "vendors",
    "new-vendor": "vendors",
    "demo": "demo",
    "up": "usercore.devstack.commands",
    "down": "usercore.devstack.commands",
    "dev": "usercore.devstack.commands",
    "doctor": "usercore.devstack.commands",
}
"""Subcommand → module that defines it as a function of the same name."""


class Commands(click.Group):
    """Imports one module a call: `usercore token` does not wait for Litestar."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        path = module if "." in module else f"usercore.commands.{module}"
        return getattr(importlib.import_module(path), cmd_name.replace("-", "_"))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for problem in error.problems:
                click.echo(f"usercore: {problem}", err=True)
            sys.exit(2)
        except ApiError as error:
            said = [error.detail or "", *(f"{each.pointer}: {each.detail}" for each in error.errors)]
            raise click.ClickException(f"{error.title}. {' '.join(said)}".strip()) from error
        except UsercoreError as error:
            raise click.ClickException(str(error)) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="usercore")
def main() -> None:
    """The user service: profiles, consents, lifecycle, audit and events.

    Settings come from the environment, and in dev from .dev/env (written by `usercore up`) or .env.
    """
