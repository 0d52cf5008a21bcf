"""The gallery of a few samples: what is in its folder, what is kept of a stopped one, what is refused."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from labelrank.errors import Cancelled, CheckpointError, FeaturesError, SettingsError
from labelrank.json_values import typed
from labelrank.patches.selection import Samples, num_kept, select
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_gallery import run
from labelrank.steps.patch_gallery.folder import GalleryResult, read_gallery, read_pictures, read_scores
from labelrank.steps.patch_gallery.request import GalleryRequest
from labelrank.steps.patch_gallery.run import make, plan, run_job
from labelrank.times import Work
from tests.conftest import GOLDEN

ASKED = GalleryRequest(per_class=2, rounds=1, visible=5)


@pytest.fixture
def request_of(tmp_path, keras, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    rng = np.random.default_rng(0)
    for n in range(8):
        folder = tmp_path / "data" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{n:02}.png")
    return lambda checkpoint="vit_mae", **options: Request(str(tmp_path / "data"), str(GOLDEN / checkpoint), **options)


def test_a_gallery_holds_what_a_page_shows(request_of, settings):
    made = plan(request_of(max_per_class=99, pooling="cls"), ASKED, settings)
    result = make(made, settings)
    assert (result.samples, result.classes, result.reused) == (4, 2, False)
    gallery, scores = read_gallery(result.folder), read_scores(result.folder)
    assert gallery.grid == (1, 4, 4) and gallery.reliability is None
    assert set(gallery.shown) == set(scores.keys) and len(scores.keys) == 4
    assert [key.split("/")[-2] for key in gallery.shown] == ["a", "b", "a", "b"]
    key = gallery.shown[1]
    shown = read_pictures(result.folder, gallery, key)
    work = made.work
    sample = next(s for s in work.dataset.samples if s.key == key)
    np.testing.assert_array_equal(shown.picture, work.dataset.load(sample))
    x = work.preprocessing(shown.picture)
    seen = Samples(x[None], [key], work.checkpoint.config, scores=scores.X[list(scores.keys).index(key)][None])
    for place, ratio in enumerate(gallery.ratios):
        for row, name in enumerate(gallery.selectors):
            kept = shown.kept[place, row]
            assert kept.sum() == num_kept(ratio, 16)
            if name != "attention":
                np.testing.assert_array_equal(np.flatnonzero(kept), select(name, seen, kept.sum())[0])
            # Kept patches are the image's own, hidden ones are not.
            same = (shown.rebuilt[place, row] == shown.picture).reshape(4, 8, 4, 8, 3).all(axis=(1, 3, 4)).ravel()
            np.testing.assert_array_equal(same, kept)
        if ratio in gallery.taken_away:
            assert len(shown.without[ratio]) == len(shown.moved[ratio]) == num_kept(ratio, 16)
            assert (shown.moved[ratio] > 0).all()
    assert gallery.taken_away


def test_what_is_taken_away_moves_as_the_scorer_says(request_of, settings):
    """Without a patch, the reconstruction of what is hidden anyway moves by its exact score in that set."""
    from labelrank.patches.scorer import PatchScorer

    made = plan(request_of(), ASKED, settings)
    folder = make(made, settings).folder
    gallery = read_gallery(folder)
    shown = read_pictures(folder, gallery, gallery.shown[0])
    ratio = gallery.taken_away[0]
    kept = np.flatnonzero(shown.kept[gallery.ratios.index(ratio), 0])
    scorer = PatchScorer(made.work.checkpoint, visible=len(kept), rounds=1)
    wanted = scorer.of_sets(made.work.preprocessing(shown.picture), kept[None].astype(np.int32))[0]
    np.testing.assert_allclose(shown.moved[ratio], wanted, atol=1e-5)


def test_a_stopped_gallery_goes_on_and_a_whole_one_is_found_again(request_of, settings):
    made = plan(request_of(), ASKED, settings)
    done = []

    def progress(count, total, stage):
        if stage.text.startswith("Reconstructing"):
            done.append(count)

    with pytest.raises(Cancelled):
        make(made, settings, on_progress=progress, should_stop=lambda: len(done) == 2)
    folder = made.folder(settings)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(kept) == 2
    with pytest.raises(FeaturesError, match="gone or cannot be read"):
        read_gallery(folder)
    make(made, settings)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert make(made, settings).reused
    assert not make(made, settings, recompute=True).reused
    assert {path: path.stat().st_mtime_ns for path in kept} != kept


def test_a_job_gives_its_result_as_json(request_of, settings):
    request = request_of()
    params = {**vars(request), "gallery": vars(ASKED)}
    result = run_job(params, settings=settings, on_progress=lambda *_: None, should_stop=lambda: False)
    assert set(json.loads(json.dumps(result))) == {*GalleryResult.__dataclass_fields__, "work"}
    assert typed(result["work"], Work).amount == result["flops"]
    assert result["folder"] == str(plan(request, ASKED, settings).folder(settings))


def test_pictures_keep_to_their_limit_and_give_each_class_its_turn(request_of, settings, monkeypatch):
    monkeypatch.setattr(run, "MAX_PICTURE_BYTES", 300_000)
    made = plan(request_of(), ASKED, settings)
    assert 0 < len(made.shown) < 4
    gallery = read_gallery(make(made, settings).folder)
    assert len(gallery.shown) == len(made.shown)
    assert read_pictures(made.folder(settings), gallery, "another") is None


def test_another_setting_is_another_gallery(request_of, settings):
    folders = {
        plan(request_of(**options), asked, settings).folder(settings)
        for options, asked in (
            ({}, ASKED),
            ({"seed": 1}, ASKED),
            ({}, GalleryRequest(per_class=3, rounds=1, visible=5)),
            ({}, GalleryRequest(per_class=2, rounds=2, visible=5)),
            ({}, GalleryRequest(per_class=2, rounds=1, visible=4)),
            ({}, GalleryRequest(per_class=2, rounds=1, visible=5, variant="fast")),
        )
    }
    assert len(folders) == 6


def test_what_does_not_fit_is_said_before_anything_runs(request_of, settings, tmp_path):
    with pytest.raises(CheckpointError, match="vit has no decoder"):
        plan(request_of("vit"), ASKED, settings)
    with pytest.raises(CheckpointError, match="There is no ranker 'nobody'"):
        plan(request_of(), GalleryRequest(ranker="nobody"), settings)
    with pytest.raises(SettingsError, match="samples per class is 0"):
        GalleryRequest(per_class=0)
    with pytest.raises(SettingsError, match=re.escape("choose one of exact, fast")):
        plan(request_of(), GalleryRequest(variant="leaky"), settings)
    config = json.loads((GOLDEN / "vit_mae" / "config.json").read_text())
    for name, change, text in (
        ("odd", {"patch_size": 12}, "(32, 32) is not a multiple of the patch size (12, 12)"),
        ("small", {"patch_size": 64}, "(32, 32) is not a multiple of the patch size (64, 64)"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for file in (GOLDEN / "vit_mae").glob("*.*"):
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=re.escape(text)):
            plan(Request(request_of().dataset, str(folder)), ASKED, Settings(workspace=tmp_path / "w"))
