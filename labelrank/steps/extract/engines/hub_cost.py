"""Which jobs of the Hub an extraction orders, and what they are expected to take and to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelrank import hub
from labelrank.cores import cpu_cores
from labelrank.features.parts import Part
from labelrank.hub.jobs import Flavor
from labelrank.models.cost import estimated_rate
from labelrank.steps.extract.estimate import READ_SECONDS, START_SECONDS
from labelrank.steps.extract.plan import Plan


@dataclass(frozen=True)
class Order:
    """Which jobs to start, and how many."""

    account: hub.Account
    flavor: Flavor
    repo: hub.Target
    """The dataset repository that takes the parts."""
    image: str
    jobs: int
    """At a time."""
    timeout_s: int
    """Of one job."""


@dataclass(frozen=True)
class Cost:
    """Jobs, how long each runs, and what all cost. What is not known is None."""

    jobs: int
    samples: int
    """That are to be encoded."""
    seconds: float | None
    """Of each job, without the start of its machine."""
    is_least: bool
    """Whether it is the time of reading alone: how fast a GPU encodes is not known before it has."""
    usd: float | None
    """Of all jobs, if they take so long."""
    most_usd: float | None
    """Of one job that is ended when its time is over."""


def cost_of(order: Order, plan: Plan, parts: Sequence[Part]) -> Cost:
    """Return what it costs to compute parts of a plan, as if a core there were one of this machine."""
    samples, jobs = sum(len(part.samples) for part in parts), min(order.jobs, len(parts))
    flavor, seconds = order.flavor, None
    # Nothing is known of processors here on a machine whose device is a GPU.
    rate = None if flavor.gpu else estimated_rate(plan.input_flops, "float32")
    if flavor.cpus and (flavor.gpu or rate):
        inputs = samples * (plan.sampling.clips if plan.sampling else 1) / jobs
        seconds = START_SECONDS + inputs * ((cpu_cores() / rate if rate else 0.0) + READ_SECONDS) / flavor.cpus
    price = flavor.usd_an_hour
    return Cost(
        jobs,
        samples,
        seconds,
        flavor.gpu is not None,
        None if price is None or seconds is None else price * jobs * seconds / 3600,
        None if price is None else price * order.timeout_s / 3600,
    )
