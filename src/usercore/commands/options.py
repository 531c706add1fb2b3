"""Options that many commands share."""

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
EXECUTE = click.option("--execute", is_flag=True, help="Do it; without, only the plan is shown.")
