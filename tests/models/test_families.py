"""Each family of encoders: its row reads, names every tensor, and is written as a class of transformers reads it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labelrank.errors import CheckpointError
from labelrank.models.checkpoint import describe_checkpoint, open_checkpoint
from labelrank.models.curated import CURATED
from labelrank.models.families import ALIASES, FAMILIES, MASKED, read_config
from labelrank.models.names import check_names
from tests.conftest import GOLDEN
from tests.finetune.small import PREPROCESSING

ENCODERS = sorted(folder.name for folder in (GOLDEN / "encoders").iterdir())


def read(name):
    """Return a tiny checkpoint's config.json and its tensors."""
    folder = GOLDEN / "encoders" / name
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def test_every_family_has_a_tiny_checkpoint():
    plain = {"vit", "vit_mae", "videomae"}
    assert {read_config(read(name)[0]).model_type for name in ENCODERS} == set(FAMILIES) - plain


def test_the_docs_name_every_family():
    table = (GOLDEN.parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert [name for name in (*FAMILIES, *ALIASES) if f"`{name}`" not in table] == []


@pytest.mark.parametrize("name", ENCODERS)
def test_every_tensor_is_used_ignored_by_name_or_an_error(name):
    values, tensors = read(name)
    config = read_config(values, tensors)
    check_names(config, tensors, decoder=False, source="the file")
    used = [n for n in tensors if "mask_token" not in n]
    ignored = ("head.", "text_", "logit", "visual_projection", "classifier", "predictor", "pooler", "post_layernorm")
    for left_out in used:
        kept = set(tensors) - {left_out}
        if any(part in left_out for part in ignored) and "siglip" not in name:
            check_names(config, kept, decoder=False, source="the file")
        elif not any(part in left_out for part in ignored[:-1]):
            with pytest.raises(CheckpointError, match="misses tensor"):
                check_names(config, kept, decoder=False, source="the file")
    for unknown in ("encoder.layer.0.adapter", "embeddings.extra_token", "encoders.layer.0.norm1.weight"):
        with pytest.raises(CheckpointError, match=f"has the unknown tensor {unknown}"):
            check_names(config, {*tensors, unknown}, decoder=False, source="the file")


@pytest.mark.parametrize("name", ["beit", "data2vec-vision"])
def test_the_heads_of_segmentation_are_left_out(name):
    values, tensors = read(name)
    heads = {"decode_head.classifier.weight", "auxiliary_head.convs.0.bn.bias", "fpn1.0.weight"}
    check_names(read_config(values, tensors), {*tensors, *heads}, decoder=False, source="the file")


@pytest.mark.parametrize("name", ENCODERS)
def test_a_written_config_reads_as_the_same_encoder(name):
    values, tensors = read(name)
    config = read_config(values, tensors)
    write = FAMILIES[config.model_type].write
    if write is None:
        assert FAMILIES[config.model_type].classifies is None
        return
    assert read_config(json.loads(json.dumps(write(config))), tensors) == config


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_the_size_of_a_gated_mlp_survives_writing(ratio):
    for hidden in (8, 12, 33, 1536):
        values = {"model_type": "dinov2", "hidden_size": hidden, "num_attention_heads": 1, "image_size": 14}
        config = read_config({**values, "mlp_ratio": ratio, "use_swiglu_ffn": True})
        assert read_config(FAMILIES["dinov2"].write(config)) == config


def test_a_published_giant_has_the_published_size():
    giant = {"model_type": "dinov2", "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24}
    assert read_config({**giant, "use_swiglu_ffn": True, "image_size": 518}).transformer.mlp_dim == 4096


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "dinov3_vit", "mlp_bias": False}, "mlp_bias in config.json is False; only true is read"),
        ({"model_type": "dinov3_vit", "query_bias": False}, "query_bias in config.json is False, value_bias is True"),
        ({"model_type": "dinov3_vit", "num_register_tokens": -1}, "num_register_tokens in config.json is -1"),
        ({"model_type": "dinov3_vit", "num_attention_heads": 64}, "6 channels; rotary positions .* a multiple of 4"),
        ({"model_type": "beit", "use_mean_pooling": "yes"}, "use_mean_pooling in config.json is 'yes'; expected true"),
        (
            {"model_type": "beit", "use_relative_position_bias": True, "use_shared_relative_position_bias": True},
            "are both true; only one of them is read",
        ),
        ({"model_type": "clip", "vision_config": [768]}, r"vision_config in config.json is \[768\]; expected a JSON"),
        ({"model_type": "siglip", "vision_config": {"hidden_size": "768"}}, "hidden_size in config.json is '768'"),
        ({"model_type": "dinov2", "mlp_ratio": 0}, "mlp_ratio in config.json is 0"),
        ({"model_type": "vjepa2", "frames_per_clip": 7}, "7 frames of a clip are not a multiple of the tubelet size 2"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(CheckpointError, match=message):
        read_config(values)


def test_a_vision_tower_is_read_alone_and_in_a_whole_model():
    for whole, tower in ALIASES.items():
        sizes = {"hidden_size": 24, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
        inside = read_config({"model_type": whole, "vision_config": sizes})
        assert inside == read_config({"model_type": tower, **sizes})
        assert inside == read_config({"model_type": whole, "vision_config": {}, "vision_config_dict": sizes})


def copy(name, tmp_path, **changes):
    folder = tmp_path / name
    shutil.copytree(GOLDEN / "encoders" / name, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    return folder


def test_a_family_of_any_size_takes_the_size_that_its_preprocessing_makes(tmp_path):
    # As DINOv2's published files: trained on 518 px, used at 224 px.
    size = {"do_resize": True, "size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": 8}
    for name, taken in (("dinov2", (8, 8)), ("beit", (8, 8)), ("ijepa", (12, 8))):
        folder = copy(name, tmp_path)
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "BitImageProcessor", **size})
        )
        checkpoint = open_checkpoint(str(folder))
        assert checkpoint.config.image_size == taken
        if name == "ijepa":
            with pytest.raises(CheckpointError, match="--image-size"):
                checkpoint.preprocessing()
        else:
            assert checkpoint.preprocessing().output_size == (8, 8)
            assert checkpoint.config.trained_image_size == (12, 12)


def test_registers_that_the_config_does_not_have_are_an_error(tmp_path):
    folder = copy("dinov3_vit", tmp_path, num_register_tokens=0)
    with pytest.raises(CheckpointError, match=r"register_tokens .* has the shape \(1, 2, 12\); .* asks for \(1, 0, 12"):
        open_checkpoint(str(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.register_tokens"] = np.zeros((1, 0, 12), np.float32)
    save_file(tensors, folder / "model.safetensors")
    assert open_checkpoint(str(folder)).config.num_prefix == 1


def test_masked_pretraining_is_known_of_each_family_or_checkpoint(tmp_path):
    assert {family.masked for family in FAMILIES.values()} == {*MASKED, None}
    assert {one.masked for one in CURATED} == {*MASKED}
    found = {name: describe_checkpoint(str(GOLDEN / "encoders" / name)).masked for name in ENCODERS}
    expected = {
        **dict.fromkeys(("beit", "data2vec-vision", "ijepa", "vit_msn", "vjepa2"), "yes"),
        **dict.fromkeys(("dinov2", "dinov2_giant", "dinov2_with_registers", "dinov3_vit"), "in part"),
        "clip": "no",
        "deit": "no",
        "siglip": None,
    }
    assert found == expected
    # A ViT may be either; masked image modelling leaves its mask token, and we write what we know of ours.
    assert describe_checkpoint(str(GOLDEN / "vit")).masked is None
    folder = tmp_path / "vit"
    shutil.copytree(GOLDEN / "vit", folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "vit.embeddings.mask_token": np.zeros((1, 1, 24), np.float32)}, folder / "model.safetensors")
    assert open_checkpoint(str(folder)).masked_pretraining == "yes"
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "labelrank_masked_pretraining": "no"}))
    assert open_checkpoint(str(folder)).masked_pretraining == "no"


NORM = {"norm_gamma": np.linspace(1, 2, 12, dtype=np.float32), "norm_beta": np.full(12, 0.2, np.float32)}
# Folder, pooling, whether a norm follows it, the class that computes the same.
FORMS = [
    ("dinov2", "cls", False, "Dinov2ForImageClassification"),
    ("dinov2_giant", "mean", False, "Dinov2ForImageClassification"),
    ("dinov2_with_registers", "mean", False, "Dinov2WithRegistersForImageClassification"),
    ("deit", "cls", False, "DeiTForImageClassification"),
    ("deit", "mean", False, None),
    ("vit_msn", "cls", False, "ViTMSNForImageClassification"),
    ("clip", "mean", False, "CLIPForImageClassification"),
    ("clip", "fc_norm", False, None),
    ("siglip", "mean", False, "SiglipForImageClassification"),
    ("ijepa", "mean", False, "IJepaForImageClassification"),
    ("dinov3_vit", "cls", False, None),
    ("beit", "fc_norm", False, "BeitForImageClassification"),
    ("beit", "mean", True, "BeitForImageClassification"),
    ("data2vec-vision", "fc_norm", False, "Data2VecVisionForImageClassification"),
    ("data2vec-vision", "mean", False, None),
]


def exported(name, pooling, has_norm, folder):
    """Write a classifier with the encoder of a tiny checkpoint; return the class, the classifier and its input."""
    from labelrank.finetune.export import classifier_from_head, write_model
    from labelrank.models.convert import read_head_norm
    from labelrank.models.runtime import build_encoder

    checkpoint = open_checkpoint(str(GOLDEN / "encoders" / name))
    config = checkpoint.config
    rng = np.random.default_rng(0)
    head = {"kernel": rng.normal(size=(12, 3)).astype(np.float32), "bias": rng.normal(size=3).astype(np.float32)}
    if has_norm:
        head |= {**NORM, "norm_epsilon": np.float32(config.head_norm_epsilon)}
    norm = read_head_norm(checkpoint.tensors(), config, source="") if pooling == "fc_norm" else None
    model = classifier_from_head(build_encoder(checkpoint), head, n_classes=3, pooling=pooling, fc_norm=norm)
    preprocessing = replace(PREPROCESSING, size=config.image_size)
    order = [2, 0, 1]
    found = write_model(folder, model, order=order, class_names=["a", "b", "c"], preprocessing=preprocessing)
    return found, model, rng.normal(size=(2, *config.input_shape)).astype(np.float32)


@pytest.mark.parametrize(("name", "pooling", "has_norm", "wanted"), FORMS)
def test_a_classifier_is_written_for_the_class_that_computes_it(keras, tmp_path, name, pooling, has_norm, wanted):
    from labelrank.finetune.export import read_model
    from labelrank.models.runtime import build_encoder

    found, model, images = exported(name, pooling, has_norm, tmp_path / "model")
    assert found == wanted
    if wanted is None:
        assert np.asarray(read_model(tmp_path / "model")(images)) == pytest.approx(np.asarray(model(images)), abs=1e-6)
        return
    # Our own reader finds the same encoder and, where there is one, the same norm in these names.
    again = open_checkpoint(str(tmp_path / "model"))
    tokens = np.asarray(build_encoder(again)(images))
    assert tokens == pytest.approx(np.asarray(model.encoder(images)), abs=1e-6)
    assert again.config.fc_norm == (has_norm or pooling == "fc_norm" or name == "clip")
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{wanted}.from_pretrained(folder)" in card
    assert "transformers has no class" not in card


@pytest.mark.parametrize(("name", "pooling", "has_norm", "wanted"), [form for form in FORMS if form[3]])
def test_the_peer_computes_the_same_from_a_written_classifier(keras, tmp_path, name, pooling, has_norm, wanted):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    _, model, images = exported(name, pooling, has_norm, tmp_path / "model")
    auto = transformers.AutoModelForImageClassification
    peer, report = auto.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(peer).__name__ == wanted
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    with torch.no_grad():
        logits = peer.eval()(torch.from_numpy(np.moveaxis(images, -1, -3).copy())).logits.numpy()
    assert logits == pytest.approx(np.asarray(model(images)), abs=1e-4)
