"""`labelrank ...`: data on stdout, progress and messages on stderr; exit 0 done, 1 an error, 2 wrong usage."""

from __future__ import annotations

import sys
from typing import Any

import click

from labelrank import __version__
from labelrank.cli import (
    classes,
    compare,
    doctor,
    encoders,
    extract,
    finetune,
    hub_jobs,
    patches,
    pretrain,
    push,
    rank,
    report,
    samples,
)
from labelrank.cli.progress import say
from labelrank.errors import LabelRankError


class _OneLineErrors(click.Group):
    """Tells a LabelRankError in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelRankError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            sys.exit(1)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labelrank")
def main() -> None:
    """Rank the labels of a dataset along one axis of a masked autoencoder's features."""


@main.command()
def worker() -> None:
    """Run background jobs, one at a time, until stopped. Start one for each GPU; each runs one job."""
    from labelrank import logs
    from labelrank.jobs.queue import run_consumer
    from labelrank.settings import Settings

    settings = Settings.from_env()
    logs.start(settings.workspace, shared=settings.shared)
    say(f"Running the jobs of {settings.workspace}. Stop with Ctrl-C.")
    run_consumer(settings)


for command in (
    rank.demo,
    extract.extract,
    extract.merge,
    rank.rank,
    classes.classes,
    rank.export,
    push.push,
    report.report,
    samples.samples,
    compare.compare,
    encoders.encoders,
    finetune.finetune,
    pretrain.pretrain,
    patches.patches,
    doctor.doctor,
    hub_jobs.work_on,
):
    main.add_command(command)
