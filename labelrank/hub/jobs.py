"""Jobs of the Hub: a container on its own hardware, its state, its end and its log; every refusal is a sentence.

Source: https://huggingface.co/docs/huggingface_hub/guides/jobs; the client makes the requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelrank.errors import HubError, Refused, Unreachable
from labelrank.hub.asking import access_token, explained, has_token
from labelrank.hub.names import endpoint
from labelrank.hub.push import Account, client, said, who
from labelrank.hub.waiting import wait_asked_for

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub._jobs_api import JobInfo

    from labelrank.settings import Settings

_HOURS = {"second": 3600, "minute": 60, "hour": 1}
"""Unit of a price -> how many of them an hour has."""
_TAIL = 20
_LABEL = "labelrank"


@dataclass(frozen=True)
class Flavor:
    """Hardware that a job can run on."""

    name: str
    """What the Hub calls it, such as t4-small."""
    title: str
    """What people call it."""
    cpus: int | None
    gpu: str | None
    """Model of its GPUs, such as T4; None without."""
    gpus: int
    usd_an_hour: float | None
    """None if the Hub does not say it in a unit that is known."""


@dataclass(frozen=True)
class Job:
    """A job as it was when the Hub was asked."""

    id: str
    url: str
    """Its page, with its log."""
    stage: str
    message: str
    """What the Hub says of the stage; empty where that is nothing."""

    @property
    def is_queued(self) -> bool:
        """Whether it waits for a machine."""
        return self.stage == "SCHEDULING"

    @property
    def has_ended(self) -> bool:
        """Whether it will not run any more, for whatever reason."""
        return self.stage in ("COMPLETED", "CANCELED", "ERROR", "DELETED")

    @property
    def was_stopped(self) -> bool:
        """Whether somebody has ended it."""
        return self.stage in ("CANCELED", "DELETED")


def starter(settings: Settings) -> Account:
    """Return the account of the access token, which may start jobs as far as is known.

    Raises:
        HubError: There is no token, the Hub refuses it, it may only read, or the Hub cannot be asked.
    """
    if not has_token(settings):
        raise HubError(f"Jobs of the Hub need an access token. {_new_token()}")
    account = who(settings)
    if account.reads_only:
        raise HubError(f"The access token of {account.name} may only read. {_new_token()}")
    return account


def flavor(name: str, account: Account, settings: Settings) -> Flavor:
    """Return the hardware of this name.

    Raises:
        HubError: There is none, or the Hub cannot be asked.
    """
    with _explained("the hardware for jobs", account, settings) as api:
        known = {
            one.name: Flavor(
                one.name,
                one.pretty_name,
                int(found[0]) if (found := re.match(r"\d+", one.cpu)) else None,
                one.accelerator.model if one.accelerator else None,
                int(one.accelerator.quantity) if one.accelerator else 0,
                _per_hour(one.unit_cost_usd, one.unit_label),
            )
            for one in api.list_jobs_hardware()
        }
    if name not in known:
        raise HubError(f"The Hub has no hardware {name!r} for jobs; choose one of {', '.join(known)}.")
    return known[name]


def start(
    account: Account,
    image: str,
    command: Sequence[str],
    flavor: str,
    *,
    env: Mapping[str, str],
    label: str,
    timeout_s: int,
    tries: int,
    settings: Settings,
) -> Job:
    """Start a job of an account, which has the access token as its secret HF_TOKEN.

    Args:
        image: A Docker image, or hf.co/spaces/OWNER/NAME for that of a Space.
        command, env: Anybody who may see the account's jobs sees them.
        label: `listed` finds it by this.
        timeout_s: It is ended after so many seconds.
        tries: How often it is started if it fails.

    Raises:
        Refused: The Hub does not take it.
        HubError: The Hub cannot be asked, or answers in an unknown form; the job may have been started.
    """
    with _explained(f"a job on {flavor} with the image {image}", account, settings, starts=True) as api:
        return _job(
            api.run_job(
                image=image,
                command=list(command),
                env=dict(env),
                secrets={"HF_TOKEN": access_token(settings)},
                flavor=flavor,
                timeout=timeout_s,
                attempts=tries,
                labels={_LABEL: label},
                namespace=account.name,
            )
        )


def state(job: Job, account: Account, settings: Settings) -> Job:
    """Return a job as it is now.

    Raises:
        HubError: The Hub does not know it, or cannot be asked.
    """
    with _explained(f"the job {job.url}", account, settings) as api:
        return _job(api.inspect_job(job_id=job.id, namespace=account.name))


def listed(label: str, account: Account, settings: Settings) -> list[Job]:
    """Return the account's jobs with this label.

    Raises:
        HubError: The Hub does not tell, or cannot be asked.
    """
    with _explained(f"the jobs of {account.name}", account, settings) as api:
        return [_job(info) for info in api.list_jobs(labels={_LABEL: label}, namespace=account.name)]


def cancel(job: Job, account: Account, settings: Settings) -> None:
    """End a job.

    Raises:
        HubError: The Hub does not do it, or cannot be asked.
    """
    with _explained(f"the job {job.url}", account, settings) as api:
        api.cancel_job(job_id=job.id, namespace=account.name)


def last_lines(job: Job, account: Account, settings: Settings) -> list[str]:
    """Return the end of a job's log, by lines.

    Raises:
        HubError: The Hub does not give it, or cannot be asked.
    """
    with _explained(f"the log of the job {job.url}", account, settings) as api:
        text = "\n".join(api.fetch_job_logs(job_id=job.id, namespace=account.name, tail=_TAIL))
    return [line.strip() for line in text.splitlines() if line.strip()]


def page() -> str:
    """Return the address at which people see all their jobs."""
    return f"{endpoint()}/settings/jobs"


def _per_hour(usd: float | None, unit: str | None) -> float | None:
    return None if usd is None or unit not in _HOURS else usd * _HOURS[unit]


def _job(info: JobInfo) -> Job:
    return Job(info.id, info.url, str(info.status.stage), info.status.message or "")


@contextmanager
def _explained(subject: str, account: Account, settings: Settings, *, starts: bool = False) -> Iterator[HfApi]:
    """Yield the client; turn what it raises into a HubError that tells in one sentence what to do."""
    from huggingface_hub.errors import HfHubHTTPError

    with explained(subject):
        try:
            yield client(settings)
        except HfHubHTTPError as error:
            raise _refusal(error.response, subject, account, starts=starts) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HubError(
                f"{endpoint()} answers in an unknown form ({type(error).__name__}), asked for {subject}. Check "
                "HF_ENDPOINT, or update labelrank."
            ) from error


def _refusal(answer: httpx2.Response, subject: str, account: Account, *, starts: bool) -> HubError:
    """Return the error for a refusal by the Hub, when a job is started or otherwise."""
    status, told = answer.status_code, said(answer)
    reason = f" ({status}: {told})" if told else f" ({status})"
    billing = f"{endpoint()}/settings/billing"
    if status == 401:
        return Refused(f"The Hub refuses the access token{reason}. {_new_token()}")
    if status == 402:
        return Refused(f"{account.name} has no credit for jobs of the Hub{reason}. Add some at {billing}.")
    if status == 403:
        return Refused(
            f"{account.name} may not ask for {subject} with this access token{reason}. {_new_token()} Jobs need "
            f"credit, too: see {billing}."
        )
    unknown = f"The Hub does not know {subject}{reason}, or {account.name} may not see it."
    if status == 404 and starts:
        return Refused(
            f"{unknown} For an image, duplicate the Space of labelrank to your account, or name another (--image)."
        )
    if status == 404:
        return Refused(f"{unknown} Check HF_ENDPOINT and {page()}; the same command goes on from finished parts.")
    if status == 429:
        wait_s = wait_asked_for(answer.headers)
        pause = f"{wait_s:.0f} seconds" if wait_s else "a few minutes"
        return Unreachable(
            f"The Hub accepts no more requests from here for now{reason}, asked for {subject}. Try again in {pause}.",
            wait_s=wait_s,
        )
    if status >= 500:
        return Unreachable(
            f"The Hub has a problem{reason}, asked for {subject}. Try again later; see https://status.huggingface.co "
            "for its state.",
            wait_s=wait_asked_for(answer.headers),
        )
    options = "Check --flavor, --image and --job-timeout, or update labelrank" if starts else "Update labelrank"
    return Refused(f"The Hub does not take {subject}{reason}. {options}.")


def _new_token() -> str:
    return (
        f"Make one with the rights to write to repositories and to start jobs at {endpoint()}/settings/tokens, then "
        "log in with `hf auth login` or set HF_TOKEN."
    )
