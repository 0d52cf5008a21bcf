"""`labelrank doctor`."""

from __future__ import annotations

import json
import sys

import click

from labelrank.cli.progress import say
from labelrank.cli.tables import printable


@click.command()
@click.option(
    "--hub/--no-hub", "ask_hub", default=True, show_default=True, help="Whether to ask the Hub for an answer."
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(ask_hub: bool, style: str) -> None:
    """Look at this computer: versions, devices, memory, workspace, jobs and the Hub.

    Says what is wrong and what to do, and then ends with 1. Send the output along with a question.
    """
    from labelrank.doctor import checks, to_json
    from labelrank.settings import Settings

    found = []
    for check in checks(Settings.from_env(), ask_hub=ask_hub):
        found.append(check)
        if style == "table":
            click.echo(printable(f"{check.name + ':':<19}{check.found}"))
            if check.problem:
                click.echo(printable(f"{'':<19}{check.problem}"))
    if style == "json":
        click.echo(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    if problems := [check.name for check in found if check.problem]:
        say(f"Not in order: {', '.join(problems)}.")
        sys.exit(1)
    say("All in order.")
