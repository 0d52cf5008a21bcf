"""The engine for jobs of the Hub, on the Hub of a test; nothing waits for long, and parts are fetched one by one."""

from dataclasses import replace

import pytest

from labelrank.hub import Account, Target
from labelrank.hub.jobs import Flavor
from labelrank.steps.extract.engines import hub_fleet, hub_jobs, hub_store


@pytest.fixture
def hub_engine(hub, monkeypatch):
    """Return a function that makes an engine for jobs of the Hub, with fields changed."""
    monkeypatch.setattr(hub_jobs, "_POLL_S", 0.1)
    monkeypatch.setattr(hub_store, "_AT_ONCE", 1)
    monkeypatch.setattr(hub_fleet, "_COMMITS_AN_HOUR", 1e9)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    engine = hub_jobs.HubJobs(
        account=Account("me", "write"),
        flavor=Flavor("cpu-basic", "CPU Basic", 2, None, 0, 0.012),
        repo=Target("dataset", "me/labelrank-work"),
        image="hf.co/spaces/me/labelrank",
        jobs=2,
        timeout_s=600,
    )
    yield lambda **changes: replace(engine, **changes)
    hub.jobs.stop()
