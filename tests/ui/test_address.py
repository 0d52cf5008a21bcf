"""Choices in the address of a page: what is written, what is read, what is refused."""

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from labelrank.errors import JobError
from labelrank.features.examples import CIFAR100
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.rank import RankRequest
from labelrank.ui.address import from_address, to_address
from labelrank.ui.choices import Choices, choices_of_example
from tests.ui.conftest import PARAMS, address, choices_of, run, title


def test_an_unknown_job_is_told_and_the_page_still_opens(app):
    run(app, job="0" * 32)
    assert title(app) == "Dataset"
    assert "There is no job" in app.warning[0].value
    assert "job" not in address(app)


def test_values_of_the_address_that_cannot_work_are_told_one_by_one(app):
    run(app, dataset="digits", split="train", seed="many", pooling="max")
    assert len(app.warning) == 2
    assert "seed\\=many" in app.warning[1].value or "seed\\=many" in app.warning[0].value
    assert app.session_state["choices"].extraction.seed == 0


def test_the_address_survives_a_change_of_page(app):
    run(app, "about", dataset="digits", split="val", per_class="all")
    assert address(app)["per_class"] == "all"
    assert address(app)["split"] == "val"


def no_job(job_id: str):
    raise JobError(f"There is no job {job_id!r}.")


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        choices_of_example(CIFAR100),
        replace(choices_of_example(CIFAR100), ranking=RankRequest(), tab="orders"),
        choices_of(dataset="digits", split="val", max_per_class=None, seed=3, pooling="cls", precision="float32"),
        choices_of(
            dataset="upload:" + "a" * 64, checkpoint="/models/é x", ranking=RankRequest("reference", shrinkage=0.25)
        ),
        choices_of(
            dataset="uoft-cs/cifar100",
            config="cifar100",
            split="train",
            media_column="img",
            label_column="coarse_label",
            revision="a" * 40,
            checkpoint="facebook/vit-mae-base",
            checkpoint_revision="b" * 40,
            preprocessing="reference",
        ),
        choices_of(dataset="moving-digits", stride=2, clips=4),
        choices_of(dataset="digits", keep=0.5, patches="gradient"),
        choices_of(dataset="digits", keep=1 / 3, patches="ltrp-tiny-digits:top-and-clusters"),
        choices_of(dataset="me/pets", archive_encoding="shift_jis"),
        choices_of(dataset="digits", design=Design.starting("all", "geometry")),
        # As many encoders as heads are usual: the address has to say so.
        choices_of(dataset="digits", design=Design(depth="all", target="geometry")),
        choices_of(dataset="digits", design=Design(orders="original", seeds=1, control=False, depth="2")),
    ],
)
def test_choices_survive_the_address(choices):
    query = to_address(choices, no_job)
    assert from_address(query, no_job, Settings()) == (choices, [])


def test_a_share_of_the_patches_is_never_without_what_chooses_them():
    for query, keep, patches, said in (
        ({"keep": "0.5"}, 0.5, "gradient", 0),
        ({"kept_by": "grid"}, None, None, 0),
        ({"keep": "all", "kept_by": "grid"}, None, None, 0),
        ({"keep": "2", "kept_by": "grid"}, None, None, 1),
        ({"keep": "0.5", "kept_by": "../secret"}, 0.5, "gradient", 1),
    ):
        chosen, notices = from_address(query, no_job, Settings())
        assert (chosen.extraction.keep, chosen.extraction.patches, len(notices)) == (keep, patches, said)


def test_the_address_of_an_example_is_short():
    assert to_address(choices_of_example(CIFAR100), no_job) == {"features": "example:cifar100"}


@pytest.mark.parametrize("more", [{"features": "example:pets"}, {"features": "example:cifar100", "dataset": "digits"}])
def test_an_example_of_features_that_cannot_be_is_told(more):
    chosen, (notice,) = from_address(more, no_job, Settings())
    assert f"features={more['features']}; expected example:cifar100 without a dataset" in notice
    assert (chosen.features, chosen.extraction.dataset) == (None, more.get("dataset", ""))


def test_choices_with_a_job_survive_the_address(store):
    job = store.create("extract", {**PARAMS, "seed": 5}, "local", "digits")
    choices = replace(choices_of(dataset="digits", split="train", seed=0, max_per_class=64), job=job.id)
    assert from_address(to_address(choices, store.get), store.get, Settings()) == (choices, [])


@pytest.mark.parametrize(
    ("query", "design"),
    [
        ({"depth": "all", "target": "geometry"}, Design.starting("all", "geometry")),
        ({"depth": "2"}, Design.starting("2")),
        ({"depth": "all", "target": "geometry", "seeds": "5"}, replace(Design.starting("all", "geometry"), seeds=5)),
        ({"depth": "heads", "target": "geometry"}, Design(target="geometry")),
    ],
)
def test_an_address_that_trains_encoders_has_few_runs_unless_it_says_how_many(query, design):
    assert from_address(query, no_job, Settings())[0].design == design


OLD_ADDRESS = (
    "dataset=uoft-cs%2Fcifar100&config=cifar100&split=train&media_column=img&label_column=coarse_label&revision=main"
    "&checkpoint=facebook%2Fvit-mae-base&checkpoint_revision=v1&pooling=cls&per_class=all&until_stable=0.85"
    "&either_direction=true&seed=7&precision=float32&stride=2&clips=4&preprocessing=reference&method=reference"
    "&solver=eigen&shrinkage=0.25&test_split=val&orders=ranked%2Crandom%3A3&seeds=3&depth=2&head=reference"
    "&meaning=gaussian&bandwidth=2.5&unit=centroids&recipe=mae&epochs=9&batch_size=16&learning_rate=0.01"
    "&weight_decay=0.1&dropout=0.2&label_smoothing=0.3&flip=false"
)


def test_an_address_of_version_0_1_with_every_parameter_means_what_it_meant():
    query = dict(parse_qsl(OLD_ADDRESS))
    chosen, notices = from_address(query, no_job, Settings())
    assert notices == []
    assert chosen == Choices(
        extraction=Request(
            "uoft-cs/cifar100",
            "facebook/vit-mae-base",
            config="cifar100",
            split="train",
            media_column="img",
            label_column="coarse_label",
            revision="main",
            checkpoint_revision="v1",
            pooling="cls",
            max_per_class=None,
            until_stable=0.85,
            either_direction=True,
            seed=7,
            precision="float32",
            stride=2,
            clips=4,
            preprocessing="reference",
        ),
        ranking=RankRequest("reference", "eigen", 0.25),
        design=Design(
            orders="ranked,random:3",
            seeds=3,
            depth="2",
            head="reference",
            meaning="gaussian",
            bandwidth=2.5,
            unit="centroids",
            recipe="mae",
            epochs=9,
            batch_size=16,
            learning_rate=0.01,
            weight_decay=0.1,
            dropout=0.2,
            label_smoothing=0.3,
            flip=False,
        ),
        test_split="val",
    )
    assert to_address(chosen, no_job) == query


def test_what_is_left_to_the_app_is_written_as_it_was(store):
    job = store.create("finetune", {**PARAMS, "design": {"epochs": 5, "head": "reference"}}, "local", "digits")
    words = {"per_class": "all", "shrinkage": "none", "head": "auto", "epochs": "auto", "test_split": "auto"}
    chosen, notices = from_address({"finetune": job.id, **words}, store.get, Settings())
    assert notices == []
    assert (chosen.extraction.max_per_class, chosen.ranking.shrinkage, chosen.test_split) == (None, None, None)
    assert (chosen.design.head, chosen.design.epochs) == (None, None)
