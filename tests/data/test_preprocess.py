"""Preprocessing follows preprocessor_config.json as transformers does."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelrank.data.image import decode_image
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, MediaError
from tests.helpers.datasets import SETTINGS

GOLDEN = Path(__file__).parent / "golden" / "vit_mae"


def ramp(height, width):
    """Return an image in which every pixel differs from its neighbours."""
    return (np.arange(height * width * 3) % 251).astype(np.uint8).reshape(height, width, 3)


def test_pixel_values_match_the_golden_of_the_peer():
    preprocess = Preprocessing.from_config(json.loads((GOLDEN / "preprocessor_config.json").read_text()))
    golden = np.load(GOLDEN / "golden.npz")["pixel_values"]  # (N, 3, H, W)
    paths = sorted((GOLDEN / "images").glob("*.png"))
    assert len(paths) == len(golden)
    for path, expected in zip(paths, golden, strict=True):
        image = decode_image(path.read_bytes(), name=path.name, settings=SETTINGS)
        result = preprocess(image)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected.transpose(1, 2, 0), atol=1e-4)


PLAIN = {"do_resize": False, "do_rescale": False, "do_normalize": False}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, (224, 224)),
        ({"size": 32}, (32, 32)),
        ({"size": [40, 30]}, (40, 30)),
        ({"size": {"height": 16, "width": 48}}, (16, 48)),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 32}, (32, 32)),
        ({"image_processor_type": "ViTImageProcessorFast", "size": 32}, (32, 32)),
        ({"image_processor_type": "ViTImageProcessorPil", "size": 32}, (32, 32)),
        ({"image_processor_type": "VideoMAEImageProcessor"}, (224, 224)),
        ({"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 50, "crop_size": 40}, (40, 40)),
        ({"size": {"shortest_edge": 50}, "do_center_crop": True, "crop_size": [44, 100]}, (44, 100)),
        ({"size": 32, "do_center_crop": None, "crop_size": None, "data_format": "channels_first"}, (32, 32)),
    ],
)
def test_output_size_is_that_of_the_result(config, shape):
    preprocess = Preprocessing.from_config(config)
    assert preprocess.output_size == shape
    for image in (ramp(57, 40), ramp(31, 90), ramp(1, 1)):
        result = preprocess(image)
        assert result.shape == (*shape, 3)
        assert result.flags.c_contiguous


@pytest.mark.parametrize(
    "config",
    [
        {"size": 8},
        {"image_processor_type": "VideoMAEImageProcessor", "size": 9, "crop_size": [8, 6]},
        {**PLAIN, "do_center_crop": True, "crop_size": 50},
    ],
)
def test_frames_are_treated_as_pictures_one_by_one(config):
    preprocess = Preprocessing.from_config(config)
    clips = np.stack([ramp(24, 40), ramp(24, 40)[::-1], ramp(24, 40) // 2, 255 - ramp(24, 40)]).reshape(2, 2, 24, 40, 3)
    result = preprocess(clips)
    assert result.shape == (2, 2, *preprocess.output_size, 3)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(result[i, j], preprocess(clips[i, j]))
    assert preprocess(clips[:0]).shape == (0, 2, *preprocess.output_size, 3)


@pytest.mark.parametrize("crop", [{}, {"do_center_crop": True, "crop_size": 40}])
def test_the_result_can_be_put_where_the_caller_wants_it(crop):
    preprocessing = Preprocessing.from_config({"size": 32, **crop})
    clip = np.random.default_rng(0).integers(0, 256, (3, 20, 50, 3), dtype=np.uint8)
    batch = np.full((2, 3, *preprocessing.output_size, 3), np.nan, np.float32)
    assert preprocessing(clip, out=batch[1]) is not None
    np.testing.assert_array_equal(batch[1], preprocessing(clip))
    assert np.isnan(batch[0]).all()
    for wrong in (batch, batch[0].astype(np.float64), batch[0][:, ::-1]):
        with pytest.raises(ValueError, match="expected contiguous float32"):
            preprocessing(clip, out=wrong)


@pytest.mark.parametrize(
    ("kind", "size", "shortest_edge", "crop_size", "resample", "mean"),
    [
        # Source: the processors of transformers 5.24 without arguments.
        ("BitImageProcessor", None, 224, (224, 224), 3, 0.48145466),
        ("CLIPFeatureExtractor", None, 224, (224, 224), 3, 0.48145466),
        ("DeiTImageProcessor", (256, 256), None, (224, 224), 3, 0.5),
        ("SiglipImageProcessor", (224, 224), None, None, 3, 0.5),
        ("BeitFeatureExtractor", (224, 224), None, None, 3, 0.5),
        ("DINOv3ViTImageProcessorFast", (224, 224), None, None, 2, 0.485),
        ("VJEPA2VideoProcessor", None, 292, (256, 256), 2, 0.485),
    ],
)
def test_the_processors_of_other_families_have_their_own_defaults(kind, size, shortest_edge, crop_size, resample, mean):
    found = Preprocessing.from_config({"image_processor_type": kind})
    assert (found.size, found.shortest_edge, found.crop_size, found.resample) == (
        size,
        shortest_edge,
        crop_size,
        resample,
    )
    assert found.image_mean[0] == pytest.approx(mean)
    assert Preprocessing.from_config(found.to_config()) == found


def test_a_file_without_a_type_is_read_as_the_models_own():
    config = {"size": 40, "crop_size": 32}
    assert Preprocessing.from_config(config, default_type="VideoMAEImageProcessor") == Preprocessing.from_config(
        {"image_processor_type": "VideoMAEImageProcessor", **config}
    )
    for default_type in ("ViTImageProcessor", None):
        preprocess = Preprocessing.from_config(config, default_type=default_type)
        assert (preprocess.image_processor_type, preprocess.size) == ("ViTImageProcessor", (40, 40))
    named = Preprocessing.from_config(
        {"image_processor_type": "ViTImageProcessor", **config}, default_type="VideoMAEImageProcessor"
    )
    assert named.image_processor_type == "ViTImageProcessor"


def test_the_reference_resizes_without_aspect_and_divides_by_one_deviation():
    preprocess = Preprocessing.reference((6, 4))
    image = ramp(9, 20)
    resized = np.asarray(Image.fromarray(image).resize((4, 6), Image.Resampling.BILINEAR))
    expected = (resized / 255 - [0.485, 0.456, 0.406]) / 0.225
    np.testing.assert_allclose(preprocess(image), expected, atol=1e-6)


def test_the_reference_is_marked_in_its_config():
    reference = Preprocessing.reference((6, 4))
    same_values = Preprocessing.from_config({**reference.to_config(), "labelrank_preprocessing": None})
    assert reference.kind == "reference"
    assert same_values.kind == "checkpoint"
    assert reference.to_config() != same_values.to_config()
    assert Preprocessing.from_config(json.loads(json.dumps(reference.to_config()))) == reference
    assert reference.resized(8, 8) == Preprocessing.reference((8, 8))


@pytest.mark.parametrize(
    ("config", "size", "shortest_edge", "crop_size"),
    [
        ({"size": 32}, (48, 80), None, None),
        ({"size": 40, "do_center_crop": True, "crop_size": 32}, (60, 100), None, (48, 80)),
        ({"image_processor_type": "VideoMAEImageProcessor", "size": 40, "crop_size": 32}, None, 100, (48, 80)),
        ({**PLAIN, "do_center_crop": True, "crop_size": 32}, None, None, (48, 80)),
    ],
)
def test_resized_keeps_the_share_that_is_cropped(config, size, shortest_edge, crop_size):
    preprocess = Preprocessing.from_config(config)
    larger = preprocess.resized(48, 80)
    assert (larger.size, larger.shortest_edge, larger.crop_size) == (size, shortest_edge, crop_size)
    assert larger.output_size == (48, 80)
    assert larger(ramp(30, 30)).shape == (48, 80, 3)
    assert (larger.image_mean, larger.resample) == (preprocess.image_mean, preprocess.resample)
    assert preprocess.resized(32, 32) is preprocess


def test_defaults_are_those_of_the_vit_processor():
    result = Preprocessing.from_config({"do_resize": True, "size": 2})(np.full((5, 7, 3), (0, 51, 255), np.uint8))
    np.testing.assert_allclose(result[0, 0], [-1, -0.6, 1], atol=1e-6)


def test_mean_and_std_apply_to_their_channel():
    config = {"size": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 2.0]}
    result = Preprocessing.from_config(config)(np.full((2, 2, 3), 255, np.uint8))
    np.testing.assert_allclose(result[1, 1], [1.8, 3.2, 0.35], atol=1e-6)


def test_steps_that_are_off_leave_the_pixels_alone():
    image = ramp(6, 8)
    config = {**PLAIN, "do_center_crop": True, "crop_size": {"height": 6, "width": 8}}
    np.testing.assert_array_equal(Preprocessing.from_config(config)(image), image)


@pytest.mark.parametrize(
    ("height", "width"),
    [(4, 4), (5, 5), (6, 8), (3, 3), (2, 9), (9, 1)],
)
def test_centre_crop_cuts_or_pads_with_black(height, width):
    image = ramp(6, 8)
    config = {**PLAIN, "do_center_crop": True, "crop_size": {"height": height, "width": width}}
    result = Preprocessing.from_config(config)(image)
    top, left = (6 - height) // 2, (8 - width) // 2
    for row in range(height):
        for column in range(width):
            inside = 0 <= row + top < 6 and 0 <= column + left < 8
            expected = image[row + top, column + left] if inside else (0, 0, 0)
            np.testing.assert_array_equal(result[row, column], expected)


@pytest.mark.parametrize(
    ("shape", "resized"),
    [((10, 25), (4, 10)), ((25, 10), (10, 4)), ((10, 14), (4, 5)), ((7, 7), (4, 4))],  # 4 * 14 / 10 = 5.6 gives 5
)
def test_shortest_edge_keeps_the_aspect_and_cuts_the_longest_to_whole(shape, resized):
    image = ramp(*shape)
    config = {**PLAIN, "do_resize": True, "size": {"shortest_edge": 4}, "do_center_crop": True, "crop_size": [4, 4]}
    whole = np.asarray(Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR))
    top, left = (resized[0] - 4) // 2, (resized[1] - 4) // 2
    np.testing.assert_array_equal(Preprocessing.from_config(config)(image), whole[top : top + 4, left : left + 4])


def test_resample_chooses_the_filter_of_pillow():
    image = ramp(9, 9)
    for resample in range(6):
        config = {**PLAIN, "do_resize": True, "size": 5, "resample": resample}
        expected = np.asarray(Image.fromarray(image).resize((5, 5), Image.Resampling(resample)))
        np.testing.assert_array_equal(Preprocessing.from_config(config)(image), expected)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"size": 32, "resample": 3},
        {"image_processor_type": "VideoMAEImageProcessor", "size": 50, "crop_size": [40, 31]},
        {**PLAIN, "do_center_crop": True, "crop_size": 8},
        {"do_rescale": False, "image_mean": [123.0, 116, 103], "image_std": 57},
        {"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1},
        {"size": {"shortest_edge": 32}},
        {"do_resize": False, "size": [40, 31]},
    ],
)
def test_config_round_trips_through_json(config):
    preprocess = Preprocessing.from_config(config)
    assert Preprocessing.from_config(json.loads(json.dumps(preprocess.to_config()))) == preprocess


@pytest.mark.parametrize(
    ("config", "key", "value", "expected"),
    [
        ({"size": "224"}, "size", "'224'", "whole number"),
        ({"size": 0}, "size", "0", "whole numbers from 1 to 8192"),
        ({"size": 100_000}, "size", "100000", "whole numbers from 1 to 8192"),
        ({"size": True}, "size", "True", "whole number"),
        ({"size": None}, "size", "None", "whole number"),
        ({"size": {"height": 32}}, "size", "{'height': 32}", "shortest_edge"),
        ({"size": {"height": 32, "width": "32"}}, "size", "{'height': 32, 'width': '32'}", "whole numbers"),
        ({"size": {"longest_edge": 32}}, "size", "{'longest_edge': 32}", "shortest_edge"),
        ({"size": [1, 2, 3]}, "size", "[1, 2, 3]", "whole number"),
        ({"size": 8.5}, "size", "8.5", "whole number"),
        ({"resample": 6}, "resample", "6", "2 (bilinear)"),
        ({"resample": "cubic"}, "resample", "'cubic'", "2 (bilinear)"),
        ({"resample": [2]}, "resample", "[2]", "2 (bilinear)"),
        ({"do_resize": "yes"}, "do_resize", "'yes'", "true or false"),
        ({"do_resize": False, "size": {"shortest_edge": 32}}, "do_resize", "False", "how large images are"),
        ({"do_center_crop": True}, "crop_size", "None", "whole number"),
        ({"do_center_crop": True, "crop_size": -1}, "crop_size", "-1", "whole numbers from 1"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 3}}, "crop_size", "'shortest_edge'", "height"),
        ({"rescale_factor": "1/255"}, "rescale_factor", "'1/255'", "finite number"),
        ({"rescale_factor": float("nan")}, "rescale_factor", "nan", "finite number"),
        ({"image_mean": [0.5, 0.5]}, "image_mean", "[0.5, 0.5]", "list of three"),
        ({"image_mean": [0.5, 0.5, None]}, "image_mean", "[0.5, 0.5, None]", "list of three"),
        ({"image_mean": float("inf")}, "image_mean", "inf", "finite number"),
        ({"image_std": [1, 1, 0]}, "image_std", "[1, 1, 0]", "above 0"),
        ({"image_std": 10**400}, "image_std", "1000", "finite number"),
        ({"do_pad": True}, "do_pad", "True", "false"),
        ({"image_processor_type": "SamImageProcessor"}, "image_processor_type", "'SamImageProcessor'", "ViTImage"),
        ({"feature_extractor_type": 3}, "feature_extractor_type", "3", "ViTImageProcessor"),
        ([], "the content", "[]", "JSON object"),
    ],
)
def test_wrong_values_name_key_value_and_way_out(config, key, value, expected):
    with pytest.raises(CheckpointError) as error:
        Preprocessing.from_config(config)
    message = str(error.value)
    assert message.startswith(f"preprocessor_config.json: {key} is ")
    assert value in message
    assert expected in message
    assert "choose another checkpoint" in message


def test_values_of_steps_that_are_off_are_not_read():
    config = {"size": 8, "do_normalize": False, "image_std": 0, "do_rescale": False, "rescale_factor": None}
    assert Preprocessing.from_config(config).image_std is None


@pytest.mark.parametrize(
    "text", ["bicubic", "BICUBIC", "PIL.Image.BICUBIC", "Resampling.BICUBIC", "PILImageResampling.BICUBIC"]
)
def test_a_filter_can_be_given_by_name(text):
    assert Preprocessing.from_config({"resample": text}) == Preprocessing.from_config({"resample": 3})
    assert Preprocessing.from_config({"resample": "nearest"}).resample == 0
    assert Preprocessing.from_config({"resample": None}).resample == 2


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"size": {"shortest_edge": 30}}, "to a shortest edge of 30 px without a crop"),
        (
            {"image_processor_type": "VideoMAEImageProcessor", "size": 30, "do_center_crop": False},
            "shortest edge of 30",
        ),
        ({"do_resize": False}, "not at all"),
    ],
)
def test_without_a_crop_images_of_the_right_shape_are_taken_and_others_refused_with_the_reason(config, says):
    preprocess = Preprocessing.from_config(config, image_size=(30, 30))
    assert preprocess.output_size == (30, 30)
    assert preprocess(ramp(30, 30)).shape == (30, 30, 3)
    with pytest.raises(MediaError, match=rf"is 4\d x 30 px where the encoder takes 30 x 30: .* {says}.* reference"):
        preprocess(ramp(30, 45))
    # Another size is a matter of whoever asks for it.
    assert preprocess.resized(40, 40)(ramp(30, 45)).shape == (40, 40, 3)


def test_a_video_processor_is_that_of_its_family():
    config = {
        "video_processor_type": "VideoMAEVideoProcessor",
        "size": {"shortest_edge": 40},
        "do_sample_frames": False,
    }
    preprocess = Preprocessing.from_config(config)
    assert preprocess.image_processor_type == "VideoMAEImageProcessor"
    assert (preprocess.shortest_edge, preprocess.crop_size) == (40, (224, 224))


def test_extreme_shape_is_refused_before_it_is_resized():
    preprocess = Preprocessing.from_config({"image_processor_type": "VideoMAEImageProcessor"})
    with pytest.raises(MediaError, match=r"20,000 x 1 pixels.*would be 4,480,000.*leave it out"):
        preprocess(np.zeros((1, 20_000, 3), np.uint8))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)])
def test_other_arrays_than_rgb_bytes_are_refused(image):
    with pytest.raises(MediaError, match="expected RGB uint8"):
        Preprocessing.from_config({})(image)
