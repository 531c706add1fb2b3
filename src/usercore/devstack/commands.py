"""`usercore up`, `down`, `dev` and `doctor`."""

import json

import click
from rich.console import Console
from rich.markup import escape

from usercore.devstack import terminal
from usercore.devstack.doctor import examine
from usercore.devstack.environment import checkout
from usercore.devstack.processes import quiet
from usercore.devstack.stack import Stack

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.command(epilog="Example: usercore up && . .dev/env && curl $USERCORE_URL/health/ready")
@JSON_OPTION
def up(as_json: bool) -> None:
    """Start the embedded stack in the background and return when it is ready.

    Starts only what does not run, so it also mends a stack of which a part was killed. Settings for a shell are
    in .dev/env, logs in .dev/*/log.
    """
    stack = Stack(checkout())
    stack.up()
    _show(stack, as_json)


@click.command(epilog="Example: usercore down")
def down() -> None:
    """Stop the embedded stack; its data stays."""
    Stack(checkout()).down()


@click.command(epilog="Example: usercore dev")
def dev() -> None:
    """Run the embedded stack in this terminal with everybody's logs; Ctrl-C stops it."""
    terminal.dev(Stack(checkout()), Console())


@click.command(epilog="Example: usercore doctor --json")
@JSON_OPTION
def doctor(as_json: bool) -> None:
    """Look at the machine and the stack, and say what to do about what is wrong; exit code 1 if anything is."""
    findings = list(examine(Stack(checkout(), say=quiet)))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        console = Console()
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
            console.print(f"{mark} {finding.name:<10} {escape(finding.text)}", highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)


def _show(stack: Stack, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([part._asdict() for part in stack.status()], indent=2))
    else:
        terminal.show(stack, Console())
