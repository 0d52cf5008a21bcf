"""The name of an uploaded file stands beside its digest, and changes nothing else."""

import zipfile
from io import BytesIO

import numpy as np
import pytest

from labelrank.data.uploads import save_upload
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet, dataset_name, write_features
from labelrank.label_map import read_label_map
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.rank import rank
from tests.helpers.datasets import png


def upload(settings, name):
    stream = BytesIO()
    stream.name = name
    with zipfile.ZipFile(stream, "w") as archive:
        for kind in ("cat", "dog"):
            for number in range(4):
                # A fixed time, so that the same files are the same upload.
                archive.writestr(zipfile.ZipInfo(f"{kind}/{number}.png"), png(number))
    return save_upload(stream, settings=settings)


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=tmp_path)


def test_features_and_label_map_of_an_upload_have_the_files_name(settings, tmp_path):
    work = plan(Request(upload(settings, "my pets.zip"), "mae-tiny-digits"), settings)
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    names = work.dataset.class_names
    made = FeatureSet(rows, work.dataset.labels, tuple("abcdefgh"), names, work.provenance)
    write_features(made, tmp_path / "features.parquet")
    features = read_features(tmp_path / "features.parquet")
    rank(features).label_map.save(tmp_path / "label_map.json")
    told = read_label_map(tmp_path / "label_map.json").features["dataset"]
    assert (told["id"], told["name"]) == (work.dataset.id, "my pets.zip")
    assert dataset_name(features.provenance) == "my pets.zip"


def test_the_same_content_under_another_name_or_none_is_the_same_work(settings):
    request = Request(upload(settings, "one.zip"), "mae-tiny-digits")
    first = plan(request, settings)
    assert upload(settings, "other.zip") == request.dataset
    second = plan(request, settings)
    (settings.workspace / "uploads" / f"{request.dataset.removeprefix('upload:')}.name").unlink()
    nameless = plan(request, settings)
    assert [one.provenance["dataset"].get("name") for one in (first, second, nameless)] == [
        "one.zip",
        "other.zip",
        None,
    ]
    assert len({(one.digest, one.part_digest) for one in (first, second, nameless)}) == 1
    assert first.part_provenance == nameless.part_provenance


def test_a_dataset_that_was_not_uploaded_has_its_id_for_a_name(settings):
    provenance = plan(Request("digits", "mae-tiny-digits"), settings).provenance
    assert "name" not in provenance["dataset"]
    assert dataset_name(provenance) == "digits"
    assert dataset_name({}) is None
