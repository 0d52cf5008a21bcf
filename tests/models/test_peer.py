"""What we write, the peer library reads. Runs where transformers and torch are installed; our suite needs neither."""

import json
from pathlib import Path

import numpy as np
import pytest

from labelrank.data.preprocess import Preprocessing
from tests.finetune.test_export import CASES, expected, inputs, log_softmax, write

CHECKPOINTS = sorted((Path(__file__).parents[2] / "assets" / "checkpoints").iterdir())


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda p: p.name)
def test_embedded_checkpoint_loads_in_transformers_without_a_missing_or_unexpected_tensor(folder):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]

    # Its output is finite and depends on the weights just read.
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    inputs = {}
    if model.config.model_type == "videomae":
        pixels = processor([[frame] * model.config.num_frames], return_tensors="pt")
        patches = (model.config.image_size // model.config.patch_size) ** 2
        places = torch.arange(patches) % 4 != 0
        slices = model.config.num_frames // model.config.tubelet_size
        inputs["bool_masked_pos"] = places.repeat(slices)[None]
    else:
        pixels = processor(images=frame, return_tensors="pt")
    with torch.no_grad():
        output = model(**pixels, **inputs)
    assert torch.isfinite(output.logits).all()
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_exported_classifier_gives_the_same_probabilities_in_transformers_or_is_refused(tmp_path, case):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config, meaning, pooling, head, fc_norm, architecture = case
    write(tmp_path, config, meaning, pooling, head=head, fc_norm=fc_norm)
    if architecture is None:
        with pytest.raises(ValueError, match="labelrank_classifier"):
            transformers.AutoConfig.from_pretrained(tmp_path)
        return
    auto = transformers.AutoModelForVideoClassification
    if config.media == "image":
        auto = transformers.AutoModelForImageClassification
    model, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == architecture
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert model.config.id2label == {0: "café, noir", 1: "ant", 2: "bee"}
    pixels = np.moveaxis(inputs(config), -1, -3).copy()
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels)).logits.numpy()
    assert log_softmax(logits) == pytest.approx(expected(config, meaning, pooling, head, fc_norm), abs=1e-4)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.size == {"height": 8, "width": 8}


VIT, VIDEO = "ViTImageProcessor", "VideoMAEImageProcessor"


@pytest.mark.parametrize(
    ("kind", "config", "shapes"),
    [
        (VIT, {"size": 32, "resample": "bicubic"}, [(50, 70), (33, 20)]),
        (VIT, {"size": {"height": 32, "width": 24}, "resample": "PIL.Image.LANCZOS"}, [(50, 70), (7, 9)]),
        (VIT, {"size": {"shortest_edge": 32}}, [(50, 50), (7, 7)]),
        (VIDEO, {"size": 32, "do_center_crop": False}, [(50, 50), (7, 7)]),
        (VIT, {"do_resize": False, "size": 32}, [(32, 32)]),
        (VIDEO, {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}, [(50, 70), (33, 20)]),
    ],
)
def test_pixel_values_are_those_of_the_peer(kind, config, shapes):
    transformers = pytest.importorskip("transformers")
    ours = Preprocessing.from_config({"image_processor_type": kind, **config})
    # The peer knows filters by number: it takes a name for bilinear where torchvision is missing, else it fails.
    theirs = getattr(transformers, f"{kind}Pil")(**{**config, "resample": ours.resample})
    for i, shape in enumerate(shapes):
        image = np.random.default_rng(i).integers(0, 256, (*shape, 3), np.uint8)
        given = [image] if kind == VIDEO else image
        pixels = theirs(given, return_tensors="np", input_data_format="channels_last")["pixel_values"]
        np.testing.assert_allclose(ours(image), np.moveaxis(pixels.reshape(pixels.shape[-3:]), 0, -1), atol=1e-5)
