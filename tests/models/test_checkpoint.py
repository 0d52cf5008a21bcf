"""What a checkpoint folder must hold, and what is said when it does not."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labelrank.errors import CheckpointError
from labelrank.models.checkpoint import EMBEDDED, describe_checkpoint, open_checkpoint
from labelrank.models.config import FAMILIES, read_config, write_config
from tests.conftest import GOLDEN


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "vit_mae", target)
    return target


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewrite_tensors(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder, *, decoder=False):
    from labelrank.models.convert import load_tensors
    from labelrank.models.mae import MaskedAutoencoder

    checkpoint = open_checkpoint(str(folder))
    model = MaskedAutoencoder(checkpoint.config)
    model.build()
    load_tensors(checkpoint.tensors(), "vit_mae", model.encoder, model.decoder if decoder else None, source=str(folder))
    return model


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5", "model.ckpt", "weights.pth"])
def test_weights_that_run_code_are_refused_with_the_reason(folder, other):
    (folder / "model.safetensors").rename(folder / other)
    with pytest.raises(CheckpointError, match=rf"{other}.*runs code.*safe_serialization"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        open_checkpoint(str(folder))


def test_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match="'facebook/none' is neither.*mae-tiny-digits.*nor a folder"):
        open_checkpoint("facebook/none")


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 300])
def test_what_cannot_be_a_path_is_said(name):
    with pytest.raises(CheckpointError, match="cannot be a path here"):
        open_checkpoint(name)


def test_weights_in_several_files_get_a_way_out(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="in several files.*max_shard_size"):
        open_checkpoint(str(folder))


def test_a_file_instead_of_a_folder_is_explained(folder):
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        open_checkpoint(str(folder / "model.safetensors"))


@pytest.mark.parametrize(
    "text", ["{", "[" * 200_000, '{"hidden_size": ' + "9" * 5_000 + "}"], ids=["cut", "deep", "long"]
)
def test_config_that_is_not_json(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json cannot be read as JSON"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "bert", "model_type in config.json is 'bert'; this version reads vit_mae"),
        ("hidden_size", "32", "hidden_size in config.json is '32'"),
        ("hidden_size", 30, "30 is not a multiple of the 4 attention heads"),
        ("decoder_hidden_size", 6, "6 is not a multiple of 4"),
        ("num_hidden_layers", 10_000_000, "describes an encoder of .* parameters or more, model.safetensors has"),
        ("model_type", ["vit_mae"], r"model_type in config.json is \['vit_mae'\]"),
        ("hidden_act", {}, "hidden_act in config.json is {}"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps in config.json is nan"),
        ("patch_size", 7, "not a multiple of the patch size"),
        ("num_channels", 1, "num_channels in config.json is 1"),
        ("hidden_act", "tanh", "hidden_act in config.json is 'tanh'; known are gelu"),
        ("mask_ratio", 1.5, "mask_ratio is 1.5"),
        ("image_size", [32], r"image_size in config.json is \[32\]"),
        ("image_size", 64, "makes pictures of 32 x 32 px, config.json asks for 64 x 64 px"),
    ],
)
def test_bad_config_value_is_named(folder, key, value, message):
    change(folder / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def test_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        open_checkpoint(str(folder)).tensors()


def test_every_tensor_is_used_ignored_or_an_error(keras, folder):
    load(folder, decoder=True)
    rewrite_tensors(folder, lambda t: t.pop("vit.layernorm.bias"))
    with pytest.raises(CheckpointError, match="misses tensor vit.layernorm.bias"):
        load(folder)
    shutil.copy(GOLDEN / "vit_mae" / "model.safetensors", folder)
    rewrite_tensors(folder, lambda t: t.update(extra=np.zeros(1, np.float32)))
    with pytest.raises(CheckpointError, match="has the unknown tensor extra"):
        load(folder)


def test_missing_decoder_tensor_matters_only_with_the_decoder(keras, folder):
    rewrite_tensors(folder, lambda t: t.pop("decoder.mask_token"))
    load(folder)
    with pytest.raises(CheckpointError, match="misses tensor decoder.mask_token"):
        load(folder, decoder=True)


def test_wrong_shape_and_not_finite_are_named(keras, folder):
    rewrite_tensors(folder, lambda t: t.update({"vit.layernorm.bias": np.zeros(31, np.float32)}))
    with pytest.raises(CheckpointError, match=r"vit.layernorm.bias .*\(31,\); config.json asks for \(32,\)"):
        load(folder)
    rewrite_tensors(folder, lambda t: t.update({"vit.layernorm.bias": np.full(32, np.nan, np.float32)}))
    with pytest.raises(CheckpointError, match="vit.layernorm.bias .* holds NaN"):
        load(folder)


@pytest.mark.parametrize(
    "respell",
    [
        lambda name: name,
        lambda name: name.replace("decoder_encoder.layer.", "decoder_layers."),
        lambda name: name.removeprefix("vit."),
    ],
    ids=["as transformers 5 writes", "as the Hub's files", "bare encoder"],
)
def test_spellings_give_the_same_model(keras, folder, respell):
    wanted = load(folder).encoder.get_weights()
    tensors = {respell(name): value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    for one, other in zip(load(folder, decoder=True).encoder.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_precision_file_is_read_as_float32(keras, folder):
    wanted = load(folder).encoder.get_weights()
    rewrite_tensors(folder, lambda t: t.update({n: v.astype(np.float16) for n, v in t.items()}))
    for one, other in zip(load(folder).encoder.get_weights(), wanted, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_digest_changes_with_each_file(folder, name):
    before = open_checkpoint(str(folder)).digest
    if name == "model.safetensors":
        rewrite_tensors(folder, lambda t: t["vit.layernorm.bias"].__setitem__(0, 7))
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    assert open_checkpoint(str(folder)).digest != before


def test_config_round_trip_and_defaults():
    config = read_config(json.loads((GOLDEN / "vit_mae" / "config.json").read_text()))
    assert read_config(write_config(config)) == config
    base = read_config({"model_type": "vit_mae"})
    assert (base.transformer.hidden_dim, base.transformer.num_layers, base.num_patches) == (768, 12, 196)
    assert (base.decoder.hidden_dim, base.decoder.num_layers, base.num_visible) == (512, 8, 49)
    assert set(FAMILIES) == {"vit_mae"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_checkpoint_is_described_and_small(name):
    info = describe_checkpoint(name)
    assert info.size_bytes <= 3_000_000
    assert info.licence == "apache-2.0"
    assert info.good_for
    assert info.pretrained_on == "digits"
    assert 100_000 < info.num_parameters < 900_000


def test_the_web_process_can_describe_a_checkpoint_without_keras(run_python):
    loaded = run_python(
        "import sys; from labelrank.models.checkpoint import describe_checkpoint; "
        "describe_checkpoint('mae-tiny-digits'); print('keras' in sys.modules)"
    )
    assert loaded == "False"
