"""`usercore migrate`, `migrate-plan`, `rollback` and `migration-new`."""

import asyncio

import click
import msgspec

from usercore import app
from usercore import migrate as migrations
from usercore.commands.options import EXECUTE, JSON
from usercore.commands.settings import current


def _owner_url() -> str:
    settings = current()
    return (settings.postgres_owner_url or settings.postgres_url).reveal()


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command(epilog="Example: usercore migrate")
@click.option("--write-manifest", is_flag=True, help="Only write migrations/manifest.json from the files.")
def migrate(write_manifest: bool) -> None:
    """Apply the migrations that are pending, and make the tables of the audit archive. A second runner waits."""
    if write_manifest:
        click.echo(migrations.write_manifest())
        return
    applied = migrations.apply(_owner_url(), _say)
    click.echo(f"{len(applied)} migrations applied" if applied else "Nothing to apply")
    archive = app.open_archive(current())
    if archive is not None:
        _say(f"The audit archive is as it should be ({asyncio.run(archive.migrate())} statements).")


@click.command(epilog="Example: usercore migrate-plan --json")
@JSON
def migrate_plan(as_json: bool) -> None:
    """Show what `migrate` would run and which locks it would take; changes nothing."""
    _show(migrations.plan(_owner_url()), as_json, "Nothing to apply")


@click.command(epilog="Example: usercore rollback 1 --execute")
@click.argument("count", type=click.IntRange(1), default=1)
@EXECUTE
@JSON
def rollback(count: int, execute: bool, as_json: bool) -> None:
    """Undo the newest COUNT migrations, newest first."""
    _show(migrations.rollback(_owner_url(), count, execute, _say), as_json, "Nothing to undo")
    if not execute:
        _say("Nothing was changed: add --execute to do it.")


@click.command(epilog="Example: usercore migration-new add_user_locale")
@click.argument("name")
@click.option(
    "--post", is_flag=True, help="Runs after the new code is live everywhere (contract), not before (expand)."
)
def migration_new(name: str, post: bool) -> None:
    """Make the next migration and its rollback."""
    for path in migrations.new(name, "post" if post else "pre"):
        click.echo(path)


def _show(plans: list[migrations.PlannedMigration], as_json: bool, nothing: str) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(plans)).decode())
        return
    if not plans:
        click.echo(nothing)
    for plan in plans:
        click.echo(f"{plan.id}: {len(plan.statements)} statements" + (f" ({plan.note})" if plan.note else ""))
        for statement in plan.statements:
            click.echo(f"    {' '.join(statement.split())[:110]}")
        for lock in plan.locks:
            click.echo(f"  lock {lock}")
