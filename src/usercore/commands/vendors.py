"""`usercore vendors`, `vendor-check` and `new-vendor`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from usercore.commands.options import JSON
from usercore.commands.settings import current
from usercore.devstack.environment import checkout
from usercore.plugins import distributions
from usercore.plugins.distributions import Installed
from usercore.plugins.loading import VendorsRefused, enable
from usercore.settings import Settings
from usercore.testing import kit, skeleton
from usercore.testing.kit import Report, Subject

MARKS = {"passed": "[green]passed [/green]", "failed": "[red]FAILED [/red]", "skipped": "skipped"}

WIDE = 200


class Row(Struct, frozen=True, kw_only=True):
    """One installed vendor."""

    name: str
    enabled: bool
    title: str
    distribution: str
    version: str
    api_version: int
    source: str
    checks: list[str]
    webhook_schemes: list[str]
    operations: list[str]
    webhook_url: str
    settings: dict[str, str]
    """Masked, by variable; empty for one that is not enabled."""


@click.command(epilog="Example: usercore vendors --json")
@JSON
def vendors(as_json: bool) -> None:
    """Show the vendors that are installed, which of them are enabled, and their settings, secrets masked.

    Exit code 1 if KYC_VENDORS names one that cannot be enabled.
    """
    settings = current()
    rows, problems = _rows(settings)
    if as_json:
        shown = {"vendors": rows, "problems": problems}
        click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())
    else:
        _show(rows)
        for problem in problems:
            click.echo(f"usercore: {problem}", err=True)
    if problems:
        raise click.exceptions.Exit(1)


@click.command(epilog="Example: usercore vendor-check hyperverge")
@click.argument("name")
@JSON
def vendor_check(name: str, as_json: bool) -> None:
    """Prove that the installed vendor NAME keeps a plugin's promises, with its own sandbox.

    Needs no settings: it makes them up. Exit code 1 if a check fails.
    """
    found, problems = distributions.find([name])
    if problems:
        raise VendorsRefused([problem.replace("KYC_VENDORS names", "You asked for") for problem in problems])
    spec = found[0].spec
    if spec.sandbox is None:
        raise click.ClickException(f"{name} names no sandbox in its VendorSpec, and the checks need one.")
    console = Console()
    width = max(map(len, kit.CHECKS))

    def told(report: Report) -> None:
        line = f"{MARKS[report.verdict]} {report.check:<{width}}  {escape(report.why)}".rstrip()
        console.print(line, highlight=False, soft_wrap=True)

    subject = Subject(spec=spec, launch=kit.of_module(spec.sandbox))
    reports = asyncio.run(kit.examine(subject, told=None if as_json else told))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(reports)).decode())
    else:
        console.print(_sum(name, reports), highlight=False)
    if any(report.verdict == "failed" for report in reports):
        raise click.exceptions.Exit(1)


@click.command(epilog="Example: usercore new-vendor acme")
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where it goes; plugins/kyc_NAME of the checkout by default."
)
def new_vendor(name: str, folder: Path | None) -> None:
    """Write a plugin for the vendor NAME that works, with a sandbox and the conformance kit; then change it."""
    target = folder or checkout() / "plugins" / f"kyc_{name}"
    try:
        for file in skeleton.write(name, target):
            click.echo(file)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    except FileExistsError:
        raise click.ClickException(f"{target} is there already: name another folder with --folder.") from None


def _rows(settings: Settings) -> tuple[list[Row], list[str]]:
    problems: list[str] = []
    masked: dict[str, dict[str, str]] = {}
    try:
        masked = {each.name: each.masked() for each in enable(settings, settings.variables)}
    except VendorsRefused as refused:
        problems = refused.problems
    installed: list[Installed] = []
    for name in sorted(distributions.entry_points()):
        # One that is broken harms none of the others; if it is enabled, it is among the problems.
        installed += distributions.find([name])[0]
    order = {name: number for number, name in enumerate(settings.kyc_vendors)}
    installed.sort(key=lambda each: (order.get(each.spec.name, len(order)), each.spec.name))
    public = (settings.public_url or "").rstrip("/")
    rows = [
        Row(
            name=each.spec.name,
            enabled=each.spec.name in masked,
            title=each.spec.title,
            distribution=each.distribution,
            version=each.version,
            api_version=each.spec.api_version,
            source=each.source,
            checks=sorted(each.spec.checks),
            webhook_schemes=sorted(each.spec.webhook_schemes),
            operations=sorted(each.spec.operations),
            webhook_url=f"{public}/v1/kyc/webhook/{each.spec.name}",
            settings=masked.get(each.spec.name, {}),
        )
        for each in installed
    ]
    return rows, problems


def _show(rows: Sequence[Row]) -> None:
    # A program that reads it has lines of any length.
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=None, pad_edge=False)
    for heading in ("vendor", "enabled", "distribution", "checks", "webhook schemes"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            "yes" if row.enabled else "no",
            escape(f"{row.distribution} {row.version}"),
            " ".join(row.checks),
            " ".join(row.webhook_schemes),
        )
    console.print(table)
    for row in rows:
        if row.enabled:
            click.echo(f"\n{row.name} takes webhooks at {row.webhook_url}")
        for name, value in row.settings.items():
            click.echo(f"  {name}={value}")


def _sum(name: str, reports: Sequence[Report]) -> str:
    counts = {verdict: sum(report.verdict == verdict for report in reports) for verdict in MARKS}
    return f"{name}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
