"""Whose features an extraction makes and finds on a shared server."""

import pytest

from labelrank.data.uploads import save_upload
from labelrank.errors import CheckpointError, DatasetError, SettingsError
from labelrank.jobs.store import JobStore
from labelrank.jobs.supervisor import _child_env
from labelrank.patches.ranker import kept_rankers, open_ranker
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request, is_public
from labelrank.steps.extract.run import run_job
from tests.helpers.datasets import png, write_zip

EMBEDDED = {"dataset": "digits", "checkpoint": "mae-tiny-digits"}
UPLOAD = f"upload:{'0' * 64}"


@pytest.fixture
def server(tmp_path):
    return Settings(workspace=tmp_path / "workspace", shared=True)


@pytest.fixture
def pets(tmp_path):
    """A zip of images in two classes."""
    files = {f"{name}/{n}.png": png(10 * n + len(name)) for name in ("cat", "horse") for n in range(3)}
    return write_zip(tmp_path / "pets.zip", files)


def keep(pets, settings):
    with pets.open("rb") as stream:
        return save_upload(stream, settings=settings)


@pytest.mark.parametrize(
    ("changed", "public"),
    [
        ({}, True),
        ({"dataset": "owner/name", "checkpoint": "facebook/vit-mae-base"}, True),
        ({"patches": "grid"}, True),
        ({"patches": "ltrp-tiny-digits:top-and-clusters"}, True),
        ({"gallery": {"ranker": "auto"}}, True),
        ({"dataset": UPLOAD}, False),
        ({"dataset": "/data/pets"}, None),
        ({"checkpoint": "labelrank/ui"}, False),  # a folder of the server where the tests run
        ({"dataset": "\0"}, False),
        ({"patches": "ltrp-mine"}, False),
        ({"patches": "ltrp-mine:top-and-clusters"}, False),
        ({"gallery": {"ranker": "ltrp-mine"}}, False),
    ],
)
def test_only_what_anyone_can_read_is_public(changed, public, tmp_path):
    if public is None:
        changed, public = {"dataset": str(tmp_path)}, False
    assert is_public({**EMBEDDED, **changed}) is public


def test_a_job_keeps_what_is_public_for_all_and_the_rest_for_its_owner(server):
    store = JobStore.for_settings(server)
    jobs = [store.create("extract", {**EMBEDDED, **more}, "ada", "") for more in ({}, {"dataset": UPLOAD})]
    public, private = (Settings.from_env(_child_env(server, job)) for job in jobs)
    assert public.cache == public.workspace == private.workspace
    assert private.cache == private.own == public.own == server.of("ada").own
    assert private.own.parent == server.workspace / "owners" and "ada" not in private.own.name
    assert public.encoders == private.encoders == server.workspace / "encoders"


def test_on_a_machine_of_ones_own_everything_lies_where_it_did(tmp_path):
    settings = Settings(workspace=tmp_path)
    job = JobStore.for_settings(settings).create("extract", {**EMBEDDED, "dataset": UPLOAD}, "local", "")
    here = Settings.from_env(_child_env(settings, job) | {"LABELRANK_OWNER": "ada"})
    assert here.own == here.cache == tmp_path
    assert settings.of("local") is settings


def test_with_an_access_token_results_and_encoders_are_the_owners(server):
    mine = Settings(workspace=server.workspace, shared=True, owner="ada", public=True, hub_token="hf_x")
    assert mine.cache == mine.encoders.parent == mine.own == server.of("ada").own


def test_a_wrong_value_is_refused():
    with pytest.raises(SettingsError, match="LABELRANK_PUBLIC is 'yes'; expected 0 or 1"):
        Settings.from_env({"LABELRANK_PUBLIC": "yes"})


def test_two_owners_of_one_zip_share_nothing(server, pets):
    ada, bob = server.of("ada"), server.of("bob")
    name = keep(pets, ada)
    request = Request(name, "mae-tiny-digits")
    never = f"upload:{'1' * 64}"
    words = []
    for asked in (name, never):
        with pytest.raises(DatasetError) as refused:
            plan(Request(asked, "mae-tiny-digits"), bob)
        words.append(str(refused.value).replace(asked, ""))
    assert words[0] == words[1], "what another has uploaded is as what nobody has"
    assert keep(pets, bob) == name
    ours, theirs = (plan(request, settings) for settings in (ada, bob))
    assert ours.digest == theirs.digest
    assert ours.cached_path(ada) != theirs.cached_path(bob)
    params = {**EMBEDDED, "dataset": name}
    for settings, reused in ((ada, False), (bob, False), (bob, True)):
        made = run_job(params, settings=settings, on_progress=lambda *_: None, should_stop=lambda: False)
        assert made["reused"] is reused, "nobody finds what another has computed"
        assert str(settings.own) in made["features"]
    assert not (server.workspace / "features").exists()


def test_a_ranker_is_found_by_its_owner_alone(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (kept_rankers(server.of("ada")), kept_rankers(server), tmp_path):
        (folder / "ltrp-mine").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"ltrp-mine/config.json|config.json"):
        open_ranker("ltrp-mine", server.of("ada"))
    words = []
    for name in ("ltrp-mine", "ltrp-none"):
        with pytest.raises(CheckpointError) as refused:
            open_ranker(name, server.of("bob"))
        words.append(str(refused.value).replace(name, ""))
    assert words[0] == words[1]
    assert words[0].startswith("There is no ranker")
