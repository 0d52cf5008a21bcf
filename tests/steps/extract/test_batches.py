"""The encoder for pipelines of others gives the features of an extraction."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from labelrank.errors import FeaturesError, MediaError, SettingsError
from labelrank.settings import Settings
from labelrank.steps.extract.batches import BatchEncoder
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain

pytest_plugins = ["tests.helpers.own_process"]
pytestmark = pytest.mark.usefixtures("own_process")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    settings = Settings(workspace=tmp_path_factory.mktemp("batches"))
    return BatchEncoder("mae-tiny-digits", precision="float32", settings=settings)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Return keys, images and features of some digits, as an extraction has them."""
    settings = Settings(workspace=tmp_path_factory.mktemp("extracted"))
    work = plan(Request("digits", "mae-tiny-digits", max_per_class=3, precision="float32"), settings)
    features = obtain(work, settings).features
    by_key = {sample.key: sample for sample in work.dataset.samples}
    return features, [work.dataset.load(by_key[key]) for key in features.keys]


def as_png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", ["array", "list of arrays", "files", "files of the Hub"])
def test_the_features_are_those_of_an_extraction(encoder, extracted, form):
    features, images = extracted
    files = [as_png(image) for image in images]
    column = {
        "array": np.stack(images),
        "list of arrays": images,
        "files": files,
        "files of the Hub": [{"bytes": file, "path": None} for file in files],
    }[form]
    found = encoder({"path": list(features.keys), "image": column})
    assert found["path"] == list(features.keys)
    assert found["features"].dtype == np.float32
    np.testing.assert_allclose(found["features"], features.X, atol=2e-6)


def test_a_batch_without_rows_has_features_of_the_same_length(encoder, extracted):
    assert encoder({"image": np.empty((0, 8, 8, 3), np.uint8)})["features"].shape == (0, extracted[0].X.shape[1])


def test_what_is_no_image_is_told_with_its_row(encoder, extracted):
    images = [as_png(image) for image in extracted[1]]
    images[4] = images[4][:40]
    with pytest.raises(MediaError, match="Row 4 of the batch"):
        encoder({"image": images})
    with pytest.raises(MediaError, match=r"Row 0 of the batch: It is uint8 \(8, 8\); expected RGB uint8"):
        encoder({"image": np.zeros((2, 8, 8), np.uint8)})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "It is NoneType; expected an array or the bytes of a file"),
        ({"bytes": None, "path": "a.png"}, "It is NoneType"),
        ("a.png", "It is str"),
        ([[0, 0, 0]], "It is list"),
        (np.zeros((0, 8, 3), np.uint8), r"It is uint8 \(0, 8, 3\); expected RGB uint8"),
        (np.zeros((8, 8, 3)), r"Image is float64 \(8, 8, 3\); expected RGB uint8"),
        (b"", "is empty"),
    ],
    ids=["missing", "path alone", "path", "list", "no pixels", "float", "empty file"],
)
def test_a_value_of_another_kind_is_told_with_its_row(encoder, extracted, image, said):
    with pytest.raises(MediaError, match=f"Row 1 of the batch: .*{said}"):
        encoder({"image": [extracted[1][0], image]})


def test_a_batch_in_another_format_is_told(encoder):
    with pytest.raises(FeaturesError, match=r"The batch is a Table; .* batch_format='numpy'"):
        encoder(pa.table({"image": [b""]}))


def test_a_column_that_is_not_there_is_told(encoder):
    with pytest.raises(FeaturesError, match=r"no column 'image' \(it has picture\)"):
        encoder({"picture": []})


def test_a_pooling_that_the_checkpoint_lacks_is_refused(settings):
    with pytest.raises(SettingsError, match="Pooling is 'max'"):
        BatchEncoder("mae-tiny-digits", pooling="max", settings=settings)


def test_clips_need_the_frames_that_the_encoder_takes(settings):
    encoder = BatchEncoder("videomae-tiny-moving-digits", column="clip", precision="float32", settings=settings)
    clip = np.zeros((1, 16, 32, 32, 3), np.uint8)
    assert np.isfinite(encoder({"clip": clip})["features"]).all()
    with pytest.raises(MediaError, match=r"expected RGB uint8 \(16, height, width, 3\)"):
        encoder({"clip": clip[:, :8]})


@pytest.mark.slow
def test_ray_data_takes_it_as_it_is(extracted, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path))
    features, images = extracted
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        rows = [{"key": key, "image": image} for key, image in zip(features.keys, images, strict=True)]
        found = data.from_items(rows).map_batches(
            BatchEncoder,
            fn_constructor_kwargs={"checkpoint": "mae-tiny-digits", "precision": "float32"},
            batch_size=10,
            compute=data.ActorPoolStrategy(size=1),
        )
        by_key = {row["key"]: row["features"] for row in found.take_all()}
    finally:
        ray.shutdown()
    np.testing.assert_allclose(np.stack([by_key[key] for key in features.keys]), features.X, atol=2e-6)
