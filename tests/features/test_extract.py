"""Extraction with a plain NumPy encoder: order, padding, failures, stopping. And the cache around it."""

import zipfile
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelrank import extraction
from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.errors import Cancelled, CheckpointError, DatasetError, FeaturesError, MediaError, SettingsError
from labelrank.features.extract import extract_features, pool_tokens
from labelrank.features.store import read_features
from tests.conftest import GOLDEN


@dataclass
class MeanColour:
    """Tokens (B, 3, 3): CLS is the batch's first pixel, both patches the mean colour. Fails on a wrong batch size."""

    batch_size: int = 4
    calls: int = 0
    has_cls: bool = True
    fc_norm: None = None

    def __call__(self, images):
        assert 0 < len(images) <= self.batch_size
        self.calls += 1
        mean = images.mean(axis=(1, 2))
        return np.stack([images[:, 0, 0], mean, mean], axis=1)


def dataset_of(n, bad=()):
    def load(sample):
        i = int(sample.key)
        if i in bad:
            raise MediaError(f"{sample.key} is truncated.")
        return np.full((2, 2, 3), i, np.uint8)

    return Dataset("made", ("a", "b"), tuple(Sample(str(i), i % 2) for i in range(n)), load, digest="0")


@dataclass
class MeanFrame:
    """Tokens (B, 2, 1) of clips (B, T, H, W, 3): the mean frame number, twice, without CLS."""

    batch_size: int = 4
    sizes: tuple = ()
    has_cls: bool = False
    fc_norm: None = None

    def __call__(self, clips):
        self.sizes += (len(clips),)
        mean = clips.mean(axis=(1, 2, 3, 4))
        return np.stack([mean, mean], axis=1)[:, :, None]


def videos_of(n, frames=40, bad=()):
    """Videos whose every pixel is the number of its frame."""

    def load_clips(sample, sampling):
        if int(sample.key) in bad:
            raise MediaError(f"{sample.key} is cut short.")
        numbers = sampling.indices(frames).astype(np.uint8)
        return np.broadcast_to(numbers[:, :, None, None, None], (*numbers.shape, 2, 2, 3))

    samples = tuple(Sample(str(i), i % 2) for i in range(n))
    load = lambda sample: load_clips(sample, ClipSampling(1))[0, 0]  # noqa: E731
    return Dataset("made", ("a", "b"), samples, load, digest="0", load_clips=load_clips)


def as_floats(image):
    return image.astype(np.float32)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_features_come_in_dataset_order_whatever_the_batches(n):
    result = extract_features(dataset_of(n), MeanColour(), as_floats)
    assert result.X[:, 0].tolist() == list(range(n))
    assert result.y.tolist() == [i % 2 for i in range(n)]
    assert result.keys == tuple(str(i) for i in range(n))


def test_unreadable_pictures_are_listed_and_the_rest_kept():
    progress = []
    result = extract_features(
        dataset_of(10, bad={0, 4, 5, 6, 7}), MeanColour(), as_floats, on_progress=lambda *a: progress.append(a)
    )
    assert result.keys == ("1", "2", "3", "8", "9")
    assert [f.subject for f in result.failures] == ["0", "4", "5", "6", "7"]
    assert "truncated" in result.failures[0].reason
    assert [p[:2] for p in progress] == [(4, 10), (8, 10), (10, 10)]


def test_not_finite_features_are_listed():
    class Overflow(MeanColour):
        def __call__(self, images):
            tokens = super().__call__(images)
            return np.where(tokens == 2, np.nan, tokens)

    result = extract_features(dataset_of(4), Overflow(), as_floats)
    assert result.keys == ("0", "1", "3")
    assert "not finite" in result.failures[0].reason


@pytest.mark.parametrize("clips", [1, 3, 5])
def test_the_clips_of_a_video_are_averaged(clips):
    encoder, sampling = MeanFrame(), ClipSampling(frames=4, stride=2, clips=clips)
    result = extract_features(videos_of(5, bad={2}), encoder, as_floats, sampling=sampling)
    assert result.keys == ("0", "1", "3", "4")
    assert result.failures[0].reason == "2 is cut short."
    # Clips of 7 frames start evenly between 0 and 33; the mean frame of a clip is its start and 3.
    assert result.X[:, 0] == pytest.approx(3.0 if clips == 1 else 33 / 2 + 3, abs=0.5)
    assert max(encoder.sizes) <= encoder.batch_size
    assert sum(encoder.sizes) == 4 * clips


def test_frames_of_a_clip_follow_the_published_notebook():
    assert ClipSampling().indices(100).tolist() == [list(range(0, 61, 4))]
    assert ClipSampling().indices(30).tolist() == [[0, 4, 8, 12, 16, 20, 24, 28, *[29] * 8]]
    assert ClipSampling(frames=2, stride=3, clips=3).indices(14).tolist() == [[0, 3], [5, 8], [10, 13]]
    assert ClipSampling(frames=3, stride=1, clips=2).indices(1).tolist() == [[0, 0, 0]] * 2
    for wrong in ({"stride": 0}, {"clips": 50_000_000}):
        with pytest.raises(SettingsError, match=r"(stride is 0|clips is 50000000); expected a whole number from 1 to"):
            ClipSampling(**wrong)


def test_nothing_readable_is_an_error_that_says_why():
    with pytest.raises(
        DatasetError, match="None of the 3 pictures of made could be used. The first, 0: 0 is truncated"
    ):
        extract_features(dataset_of(3, bad={0, 1, 2}), MeanColour(), as_floats)


def test_stops_when_asked():
    encoder = MeanColour()
    with pytest.raises(Cancelled):
        extract_features(dataset_of(9), encoder, as_floats, should_stop=lambda: encoder.calls == 1)
    assert encoder.calls == 1


def test_pooling():
    tokens = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    assert pool_tokens(tokens, "cls").tolist() == [[0, 1, 2]]
    assert pool_tokens(tokens, "mean").tolist() == [[6, 7, 8]]
    assert pool_tokens(tokens, "mean", has_cls=False).tolist() == [[4.5, 5.5, 6.5]]
    assert pool_tokens(tokens, "fc_norm", has_cls=False, fc_norm=lambda x: -x).tolist() == [[-4.5, -5.5, -6.5]]
    with pytest.raises(FeaturesError, match="Pooling is 'max'; this encoder has mean, cls"):
        pool_tokens(tokens, "max")
    with pytest.raises(FeaturesError, match="Pooling is 'cls'; this encoder has mean"):
        pool_tokens(tokens, "cls", has_cls=False)


@pytest.fixture
def counted_encoder(monkeypatch):
    """Stands where the compiled encoder would be, and counts how often one is made."""
    made = []

    @dataclass
    class Counted(MeanColour):
        device: str = "CPU"

    def compile_encoder(checkpoint, *, precision, batch_size, image_size):
        made.append(precision)
        return Counted(batch_size=batch_size)

    monkeypatch.setattr(extraction, "compile_encoder", compile_encoder)
    return made


PARAMS = {"dataset": "digits", "split": "val", "checkpoint": "mae-tiny-digits", "max_per_class": 3, "seed": 0}
PARAMS |= {"pooling": "mean", "precision": "auto"}


def run(params, settings):
    return extraction.run(params, settings=settings, on_progress=lambda *a: None, should_stop=lambda: False)


def cached(params, settings):
    path = extraction.plan(extraction.Request.from_params(params), settings).cached_path(settings)
    return path if path.is_file() else None


def test_the_same_request_is_computed_once(settings, counted_encoder):
    assert cached(PARAMS, settings) is None
    first = run(PARAMS, settings)
    assert (first["reused"], first["rows"], first["dim"]) == (False, 30, 3)
    again = run(PARAMS, settings)
    assert again["reused"] is True
    assert again["features"] == first["features"] == str(cached(PARAMS, settings))
    assert len(counted_encoder) == 1
    assert read_features(cached(PARAMS, settings)).digest == first["digest"]


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"max_per_class": 4},
        {"seed": 1},
        {"pooling": "cls"},
        {"precision": "bfloat16"},
        {"preprocessing": "reference"},
        {"image_size": 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_request_changes_the_cache_key(settings, counted_encoder, change):
    run(PARAMS, settings)
    assert cached({**PARAMS, **change}, settings) is None
    run({**PARAMS, **change}, settings)
    assert len(counted_encoder) == 2


def zip_of_pictures(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name in files:
            data = BytesIO()
            Image.new("RGB", (4, 4), "red").save(data, "PNG")
            file.writestr(name, data.getvalue()[:40] if "broken" in name else data.getvalue())
    return str(path)


def test_a_class_that_the_split_lacks_is_refused_before_anything_runs(settings, tmp_path, counted_encoder):
    data = zip_of_pictures(tmp_path / "d.zip", ["train/a/1.png", "train/b/1.png", "val/c/1.png"])
    with pytest.raises(DatasetError, match="no picture of class 'c' in split train, only in others"):
        run({"dataset": data, "checkpoint": "mae-tiny-digits"}, settings)
    assert not counted_encoder


def test_a_named_class_that_no_row_has_is_refused_with_the_way_out(settings, counted_encoder):
    dataset = replace(dataset_of(4), class_names=("a", "b", "c"), split="train", columns=("image", "label"))
    request = extraction.Request("made", "mae-tiny-digits")
    with pytest.raises(DatasetError, match=r"column 'label' names 'c', but no row of the split train has it"):
        extraction.plan(request, settings, dataset=dataset)


def test_a_class_of_which_nothing_can_be_read_is_listed(settings, tmp_path, counted_encoder):
    data = zip_of_pictures(tmp_path / "d.zip", ["a/1.png", "b/1.png", "c/broken.png"])
    result = run({"dataset": data, "checkpoint": "mae-tiny-digits"}, settings)
    failures = {f.subject: f.reason for f in read_features(Path(result["features"])).failures}
    assert set(failures) == {"c/broken.png", "c"}
    assert "cannot be ranked" in failures["c"]


def test_batch_size_does_not_change_the_cache_key(settings, counted_encoder):
    run(PARAMS, settings)
    assert run({**PARAMS, "batch_size": 2}, settings)["reused"] is True


def test_another_checkpoint_or_dataset_content_changes_the_cache_key(settings, tmp_path):
    def archive(name, colour):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for label in "ab":
                data = BytesIO()
                Image.new("RGB", (4, 4), colour).save(data, "PNG")
                file.writestr(f"{label}/0.png", data.getvalue())
        return str(tmp_path / name)

    request = extraction.Request(dataset=archive("one.zip", "red"), checkpoint="mae-tiny-digits")
    path = extraction.plan(request, settings).cached_path(settings)
    archive("one.zip", "blue")
    assert extraction.plan(request, settings).cached_path(settings) != path


def test_recompute_and_a_damaged_cache_entry_run_again(settings, counted_encoder, capsys):
    path = run(PARAMS, settings)["features"]
    assert run({**PARAMS, "recompute": True}, settings)["reused"] is False
    Path(path).write_bytes(b"damaged")
    assert run(PARAMS, settings)["reused"] is False
    assert "made again" in capsys.readouterr().out
    other = run({**PARAMS, "seed": 5}, settings)["features"]
    Path(path).write_bytes(Path(other).read_bytes())
    assert run(PARAMS, settings)["reused"] is False
    assert "features of other work" in capsys.readouterr().out
    assert len(counted_encoder) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "Pooling is 'max'"),
        ({"precision": "int4"}, "Precision is 'int4'"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"image_size": 0}, "image size is 0"),
        ({"preprocessing": "mine"}, "Preprocessing is 'mine'; choose one of checkpoint, reference"),
    ],
)
def test_bad_request_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        extraction.Request.from_params({**PARAMS, **change})


VIDEOMAE = str(GOLDEN / "videomae_finetuned")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "moving-digits"}, DatasetError, "encodes pictures, but moving-digits holds videos"),
        ({"checkpoint": VIDEOMAE}, DatasetError, "encodes videos, but digits holds pictures. Choose a ViT-MAE"),
        ({"stride": 2, "clips": 3}, SettingsError, "stride, clips was given, but digits holds pictures"),
        ({"pooling": "fc_norm"}, SettingsError, "mae-tiny-digits does not have; choose mean or cls"),
        ({"image_size": 33}, CheckpointError, "33"),
        ({"image_size": 800_000}, CheckpointError, "800,?000"),
        ({"dataset": "moving-digits", "checkpoint": VIDEOMAE, "pooling": "cls"}, SettingsError, "mean or fc_norm"),
        ({"dataset": "moving-digits", "checkpoint": VIDEOMAE, "frames": 16}, SettingsError, "clips of 8 frames"),
    ],
)
def test_what_does_not_fit_the_encoder_is_refused_before_anything_runs(
    settings, counted_encoder, change, error, message
):
    with pytest.raises(error, match=message):
        run({**PARAMS, **change}, settings)
    assert not counted_encoder


def test_clip_settings_are_part_of_the_cache_key(settings):
    paths = {
        extraction.plan(extraction.Request("moving-digits", VIDEOMAE, max_per_class=2, **change), settings).cached_path(
            settings
        )
        for change in ({}, {"stride": 2}, {"clips": 2}, {"pooling": "fc_norm"})
    }
    assert len(paths) == 4
