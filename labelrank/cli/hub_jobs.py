"""`labelrank extract --engine hub-jobs`: what it is asked with and what it costs; and the command that jobs run."""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.progress import say
from labelrank.errors import HubError, SettingsError
from labelrank.words import about, plural, rough_duration

if TYPE_CHECKING:
    from labelrank.settings import Settings
    from labelrank.steps.extract.engines.hub_cost import Cost
    from labelrank.steps.extract.engines.hub_jobs import HubJobs

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_REPO, _SPACE = "labelrank-work", "labelrank"


def engine_of(
    params: dict[str, Any],
    settings: Settings,
    *,
    flavor: str,
    jobs: int,
    image: str | None,
    repo: str | None,
    timeout_s: int,
    yes: bool,
    recompute: bool,
) -> HubJobs:
    """Return the engine, which says what the jobs will be and asks before it starts them, unless `yes`.

    Args:
        params: Of the request; its data and checkpoint must be where a job can read them.

    Raises:
        SettingsError: A job cannot read them, or the hardware does not suit.
        HubError: The account may not start jobs, the Hub has no such hardware, or it cannot be asked.
    """
    from labelrank import hub
    from labelrank.hub import jobs as hub_jobs
    from labelrank.steps.extract.engines.hub_jobs import HubJobs
    from labelrank.steps.extract.request import only_here

    if here := only_here(params):
        raise SettingsError(
            f"A job of the Hub cannot read {', '.join(here)}, which is on this computer alone. Push it to a repository "
            "of the Hub (private, if you like) and give its id, or take --engine ray on machines of your own."
        )
    account = hub_jobs.starter(settings)
    hardware = hub_jobs.flavor(flavor, account, settings)
    if hardware.gpus > 1:
        raise SettingsError(
            f"{flavor} has {hardware.gpus} GPUs, and a job uses one. Choose a flavor with one GPU, and more --jobs."
        )
    engine = HubJobs(
        account=account,
        flavor=hardware,
        repo=hub.check_target(repo or f"{account.name}/{_REPO}", "dataset"),
        image=image or f"hf.co/spaces/{account.name}/{_SPACE}",
        jobs=jobs,
        timeout_s=timeout_s,
        anew=recompute,
    )
    return replace(engine, agree=partial(_ask, engine, yes))


def _ask(engine: HubJobs, yes: bool, cost: Cost) -> None:
    """Say what the jobs will be, take and cost, and ask whether to start them.

    Raises:
        HubError: There is nobody to ask.
    """
    flavor, name = engine.flavor, engine.account.name
    say(
        f"{plural(cost.jobs, 'job')} of the Hub on {flavor.name} ({flavor.title}) in the name of {name}, with the "
        f"image {engine.image}, for {cost.samples:,} samples; parts go to the private dataset {engine.repo.repo_id}."
    )
    time, price = "unknown", "unknown"
    if cost.seconds is not None:
        how = f"at least {rough_duration(cost.seconds)}" if cost.is_least else about(cost.seconds)
        why = f"; how fast {flavor.title} encodes is not known" if cost.is_least else ""
        time = f"{how} of each job, without the start of its machine{why}"
    if flavor.usd_an_hour is not None:
        whole = "unknown in all"
        if cost.usd is not None:
            whole = f"{'at least' if cost.is_least else 'about'} {_dollars(cost.usd)} in all"
        price = (
            f"{whole}, at {_dollars(flavor.usd_an_hour)} an hour; a job is ended after {engine.timeout_s / 3600:,.3g} "
            f"h, when it has cost {_dollars(cost.most_usd or 0)}"
        )
    say(f"Estimated time: {time}. Cost: {price}.")
    if cost.seconds is not None and cost.seconds > engine.timeout_s:
        say("Note: a job takes longer than it may, so others go on from its parts. More --jobs or --job-timeout help.")
    if not yes:
        if not sys.stdin.isatty():
            raise HubError("No job was started, as there is no terminal to ask. Add --yes to start them.")
        if not click.confirm(f"Start {plural(cost.jobs, 'job')}?", err=True):
            say("No job was started.")
            sys.exit(1)
    # A command that is asked to end would else leave its jobs running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.1 else f"${usd:.3f}"


def seconds_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return a time such as 90m in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
    seconds = int(float(found[1]) * _SECONDS[found[2] or "s"]) if found else 0
    if seconds < 60:
        raise click.BadParameter(f"{value!r} is no time of at least a minute, such as 90m or 2h.")
    return seconds


@click.command("work-on", hidden=True)
@click.argument("task")
def work_on(task: str) -> None:
    """Compute the parts of TASK in a job of the Hub; `labelrank extract --engine hub-jobs` starts it."""
    from labelrank.settings import Settings
    from labelrank.steps.extract.engines import hub_work

    hub_work.work_on(hub_work.Task.of_text(task), Settings.from_env(), say)
