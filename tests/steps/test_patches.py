"""Scores of patches by name: the same in one go, stopped and in shards; what does not fit is said first."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelrank.errors import Cancelled, CheckpointError, FeaturesError, SettingsError
from labelrank.features.joining import merge_features, read_features
from labelrank.features.store import read_part, write_features
from labelrank.patches.scorer import PatchScorer
from labelrank.settings import Settings
from labelrank.steps.extract import plan as extraction
from labelrank.steps.extract.request import Request
from labelrank.steps.patches import Scoring, plan, reliability_of, score
from tests.conftest import GOLDEN

SCORING = Scoring(visible=5, rounds=2, variant="fast")


@pytest.fixture
def request_of(tmp_path, keras, monkeypatch):
    """A request for 13 images, two of which cannot be read, in parts of about two."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(extraction, "_FLOPS_PER_PART", {"CPU": 1.0, "GPU": 1.0})
    rng = np.random.default_rng(0)
    for n in range(13):
        folder = tmp_path / "data" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{n:02}.png")
    for name in ("a/04.png", "b/07.png"):
        (tmp_path / "data" / name).write_bytes(b"no image")
    return lambda **options: Request(str(tmp_path / "data"), str(GOLDEN / "vit_mae"), precision="float32", **options)


def test_scores_are_the_same_in_one_go_stopped_and_in_shards(request_of, settings, tmp_path):
    work = plan(request_of(), SCORING, settings)
    assert len(work.parts) > 3
    whole = score(work, settings)
    assert whole.X.shape == (11, 16) and len(whole.failures) == 2
    assert whole.provenance["patches"] == {
        "visible": 5,
        "rounds": 2,
        "variant": "fast",
        "seed": 0,
        "distance": "l1",
        "grid": [1, 4, 4],
    }
    half = whole.provenance["split_half"]
    assert half["samples"] == 11 and -1 < half["mean"] < 1

    # One sample by hand.
    scorer = PatchScorer(work.checkpoint, visible=5, rounds=2, variant="fast")
    image = work.preprocessing(np.asarray(Image.open(tmp_path / "data" / "b" / "09.png")))
    row = next(i for i, key in enumerate(whole.keys) if key.endswith("09.png"))
    np.testing.assert_array_equal(whole.X[row], scorer(image, whole.keys[row]).mean(axis=0))

    elsewhere, asked = Settings(workspace=tmp_path / "elsewhere"), []
    with pytest.raises(Cancelled):
        score(work, elsewhere, should_stop=lambda: asked.append(0) or len(asked) > 6)
    finished = list((elsewhere.workspace / "parts").glob("*/*.parquet"))
    assert 0 < len(finished) < len(work.parts)
    times = [path.stat().st_mtime_ns for path in finished]
    resumed = score(work, elsewhere)
    assert [path.stat().st_mtime_ns for path in finished] == times
    shards = []
    for index in (1, 2):
        path = tmp_path / f"{index}.parquet"
        shard = Settings(workspace=tmp_path / f"shard {index}")
        write_features(score(plan(request_of(shard=(index, 2)), SCORING, shard), shard), path)
        shards.append(path)
    for again in (resumed, merge_features(shards)):
        np.testing.assert_array_equal(again.X, whole.X)
        assert (again.keys, again.digest) == (whole.keys, whole.digest)
        assert again.provenance["split_half"]["mean"] == pytest.approx(half["mean"], abs=1e-12)
        assert again.provenance["split_half"]["samples"] == 11


def test_a_file_of_scores_says_so(request_of, settings, tmp_path):
    scores = score(plan(request_of(max_per_class=1), Scoring(rounds=1), settings), settings)
    path = tmp_path / "scores.parquet"
    write_features(scores, path)
    schema = pq.read_schema(path)
    assert schema.field("scores").type.list_size == 16 and "features" not in schema.names
    np.testing.assert_array_equal(read_part(path).X, scores.X)
    assert read_part(path).digest == scores.digest
    assert reliability_of(scores) is None
    with pytest.raises(FeaturesError, match="holds scores of patches, not features"):
        read_features(path)


def test_what_does_not_fit_is_said_before_anything_runs(request_of, settings):
    def refused(kind, text, request, scoring=SCORING):
        with pytest.raises(kind, match=re.escape(text)):
            plan(request, scoring, settings)

    for visible in (0, 2, 16):
        refused(SettingsError, f"{visible} visible patches of 16 (4 x 4)", request_of(), Scoring(visible=visible))
    for values, text in (({"variant": "leaky"}, "choose one of exact, fast"), ({"rounds": 0}, "expected at least 1")):
        with pytest.raises(SettingsError, match=text):
            Scoring(**values)
    encoder = Request(request_of().dataset, str(GOLDEN / "vit"))
    refused(CheckpointError, "vit has no decoder, and patches are scored by", encoder)
    refused(CheckpointError, "reconstructs 32 x 32 pixels, not the 64 x 64 that were", request_of(image_size=64))
