"""What a checkpoint folder must hold, and what is said when it does not."""

import json
import shutil
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labelrank import hub as hub_client
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, HubError
from labelrank.models.checkpoint import describe_checkpoint, open_checkpoint
from labelrank.models.curated import CURATED, EMBEDDED, suggested
from labelrank.models.families import FAMILIES, read_config, write_config
from labelrank.progress import Kind, Stage
from tests.conftest import GOLDEN

pytest_plugins = ["tests.helpers.hub_server"]


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
    load_tensors(checkpoint.tensors(), model.encoder, model.decoder if decoder else None, source=str(folder))
    return model


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5", "model.ckpt", "weights.pth"])
def test_weights_that_run_code_are_refused_with_the_reason(folder, other):
    (folder / "model.safetensors").rename(folder / other)
    with pytest.raises(CheckpointError, match=rf"{other}.*runs code.*safe_serialization"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        open_checkpoint(str(folder))


def test_without_a_preprocessor_file_there_is_the_reference(folder):
    digest = open_checkpoint(str(folder)).digest
    (folder / "preprocessor_config.json").unlink()
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(
        CheckpointError, match=r"has no preprocessor_config.json; copy it .* \(--preprocessing reference\)"
    ):
        checkpoint.preprocessing()
    assert checkpoint.preprocessing("reference") == Preprocessing.reference((32, 32))
    assert checkpoint.preprocessing("reference", 64) == Preprocessing.reference((64, 64))
    assert checkpoint.digest != digest


def test_a_preprocessor_file_that_cannot_be_used_matters_only_where_it_is_asked_for(folder):
    change(folder / "preprocessor_config.json", image_processor_type="SamImageProcessor")
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(
        CheckpointError, match=r"checkpoint/preprocessor_config.json: image_processor_type is 'SamImage"
    ):
        checkpoint.preprocessing()
    assert checkpoint.preprocessing("reference").output_size == (32, 32)


def test_an_image_size_decides_where_config_and_preprocessor_disagree(folder):
    change(folder / "preprocessor_config.json", size=64)
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match=r"64 x 64 px, config.json asks for 32 x 32 px. .* --image-size 64 or 32"):
        checkpoint.preprocessing()
    for size in (32, 64, 96):
        assert checkpoint.preprocessing(image_size=size).output_size == (size, size)
    assert checkpoint.preprocessing("reference").output_size == (32, 32)
    with pytest.raises(CheckpointError, match=r"50 x 50 is not a multiple .* another --image-size"):
        checkpoint.preprocessing(image_size=50)
    change(folder / "preprocessor_config.json", size=50)
    with pytest.raises(CheckpointError, match=r"makes images of 50 x 50 px, .* --image-size 32, or make"):
        open_checkpoint(str(folder)).preprocessing()


def nested(folder, **parts):
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "SomeProcessor", **parts}))


def test_the_newer_files_of_preprocessing_come_first(tmp_path):
    clips, images = tmp_path / "clips", tmp_path / "images"
    shutil.copytree(GOLDEN / "videomae", clips)
    shutil.copytree(GOLDEN / "vit", images)
    size = open_checkpoint(str(clips)).config.image_size[0]
    crop = {"crop_size": {"height": size, "width": size}}
    # Each step adds the file that is looked at before the others; the mean says which one was read.
    mean = 0.0
    for name, key in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
        ("video_preprocessor_config.json", None),
        ("processor_config.json", "video_processor"),
    ):
        mean += 0.125
        values = {"video_processor_type": "VideoMAEVideoProcessor", "image_mean": [mean] * 3, **crop}
        nested(clips, **({key: values} if key else {}))
        if key is None:
            (clips / name).write_text(json.dumps(values))
        assert open_checkpoint(str(clips)).preprocessing().image_mean == (mean, mean, mean), name
    size = open_checkpoint(str(images)).config.image_size[0]
    nested(images, video_processor={"size": 8}, image_processor={"size": size, "image_std": 0.25})
    assert open_checkpoint(str(images)).preprocessing().image_std == (0.25, 0.25, 0.25)
    (images / "preprocessor_config.json").unlink()
    assert open_checkpoint(str(images)).preprocessing().image_std == (0.25, 0.25, 0.25)
    nested(images, image_processor={"resample": "cubic"})
    with pytest.raises(CheckpointError, match="images/processor_config.json, image_processor: resample is 'cubic'"):
        open_checkpoint(str(images)).preprocessing()


def test_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match="'nothing' is neither.*mae-tiny-digits.*nor a folder here, nor an id"):
        open_checkpoint("nothing")
    with pytest.raises(CheckpointError, match="'./facebook/none' is neither"):
        open_checkpoint("./facebook/none")


def test_a_revision_of_a_folder_is_refused(folder):
    with pytest.raises(CheckpointError, match="Revision 'main' was given, but .* is no repository on the Hub"):
        open_checkpoint(str(folder), revision="main")


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 300])
def test_what_cannot_be_a_path_is_said(name):
    with pytest.raises(CheckpointError, match="cannot be a path here"):
        open_checkpoint(name)


def shard(folder, parts=3):
    """Split the weights as save_pretrained(max_shard_size=...) does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for i in range(parts):
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        mine = names[i::parts]
        save_file({name: tensors[name] for name in mine}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files_are_the_same_model(keras, folder):
    whole = open_checkpoint(str(folder))
    digest, size_bytes = whole.digest, whole.size_bytes
    wanted = load(folder).encoder.get_weights()
    shard(folder)
    parts = open_checkpoint(str(folder))
    for one, other in zip(load(folder).encoder.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert parts.num_parameters == whole.num_parameters
    assert parts.size_bytes > size_bytes  # the index, and three headers
    assert parts.digest != digest


def spoil_index(folder, **changes):
    path = folder / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    path.write_text(json.dumps({"weight_map": {**weight_map, **changes}}))


def test_an_index_that_is_wrong_is_named(folder):
    shard(folder)
    whole = (folder / "model.safetensors.index.json").read_text()
    spoil_index(folder, extra="model-00001-of-00003.safetensors")
    with pytest.raises(
        CheckpointError, match="model-00001-of-00003.safetensors holds the tensor extra, which it does not"
    ):
        open_checkpoint(str(folder))
    for outside in ("../../etc/x.safetensors", "/x.safetensors", "weights.bin", 7):
        spoil_index(folder, extra=outside)
        with pytest.raises(CheckpointError, match="has no weight_map of tensor names to .safetensors files"):
            open_checkpoint(str(folder))
    (folder / "model.safetensors.index.json").write_text(whole)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="has no model-00002-of-00003.safetensors, which model.safetensors.index.js"
    ):
        open_checkpoint(str(folder))


def test_a_tensor_in_two_files_is_named(folder):
    shard(folder)
    first = load_file(folder / "model-00001-of-00003.safetensors")
    second = load_file(folder / "model-00002-of-00003.safetensors")
    name = sorted(first)[0]
    save_file({**second, name: first[name]}, folder / "model-00002-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=f"Tensor {name} is in model-00001.* and in model-00002"):
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
        ("image_size", 800_000, "image size 800,000 x 800,000 is more than the 8,192 pixels a side that are read"),
        ("image_size", 8_192, "8,192 x 8,192 pixels has 1,048,576 patches, more than the 20,000 that are read"),
    ],
)
def test_bad_config_value_is_named(folder, key, value, message):
    change(folder / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def header_of(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_header(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    header, data = header_of(weights)
    name = "vit.layernorm.bias"
    damaged = {
        "zeros": b"\x00" * 100,
        "empty": b"",
        "cut": whole[:-1],
        "longer": whole + b"\x00",
        "header longer than the file": (1 << 40).to_bytes(8, "little") + whole[8:],
    }
    for content in damaged.values():
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="model.safetensors is not a readable safetensors file"):
            open_checkpoint(str(folder))
    for wrong in (
        b"[]",
        b"[" * 100_000,
        b"{]",
        {**header, name: 7},
        {**header, name: {"dtype": "F32", "shape": [-32], "data_offsets": [0, 128]}},
        {**header, name: {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 128]}},
        {"__metadata__": {}},
    ):
        write_header(weights, wrong, data)
        with pytest.raises(CheckpointError, match="model.safetensors is not a readable safetensors file"):
            open_checkpoint(str(folder))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "7" * 64 + "\nsize 447\n"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_git_lfs_pointer_is_told_from_the_file_it_stands_for(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer, not the file itself. Run `git lfs pull`"):
        open_checkpoint(str(folder))


def test_an_index_that_is_a_git_lfs_pointer(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").write_text(POINTER)
    with pytest.raises(CheckpointError, match="model-00002-of-00003.safetensors is a Git LFS pointer"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["vit.embeddings.position_ids", "bn.num_batches_tracked"])
def test_stored_indices_and_counters_are_ignored_by_name(keras, folder, name):
    wanted = load(folder).encoder.get_weights()
    count = open_checkpoint(str(folder)).num_parameters
    rewrite_tensors(folder, lambda t: t.__setitem__(name, np.arange(17)[None]))
    assert open_checkpoint(str(folder)).num_parameters == count
    for one, other in zip(load(folder).encoder.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_whole_numbers_are_not_called_quantised(folder):
    rewrite_tensors(folder, lambda t: t.__setitem__("vit.steps", np.arange(3)))
    with pytest.raises(
        CheckpointError, match=r"Tensor vit.steps of .* holds I64; .* whole numbers .* without this"
    ) as e:
        open_checkpoint(str(folder))
    assert "uantised" not in str(e.value)


def test_weights_packed_into_whole_numbers_are_quantised(folder):
    rewrite_tensors(folder, lambda t: t.__setitem__("vit.dense.qweight", np.arange(3, dtype=np.int32)))
    with pytest.raises(CheckpointError, match="holds I32; .* Quantised weights are not read"):
        open_checkpoint(str(folder))


ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/vit-base"})
KERAS_CONFIG = json.dumps({"module": "keras_hub.src.models.vit.vit_backbone", "class_name": "ViTBackbone"})
CONFIG = json.dumps({"model_type": "vit"})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"adapter_config.json": ADAPTER},
            r"an adapter .LORA. of someone/vit-base .*merge_and_unload\(\).save_pretrained",
        ),
        (
            {"adapter_model.safetensors": "", "config.json": CONFIG},
            r"an adapter \(LoRA.* \(adapter_model.safetensors\)",
        ),
        ({"adapter_config.json": "{}", "adapter_model.bin": ""}, r"is an adapter \(LoRA .*merge_and_unload"),
        (
            {f"checkpoint-{n}/{name}": CONFIG for n in (1000, 500) for name in ("config.json", "model.safetensors")},
            r"no model.safetensors itself; in it are .*: checkpoint-500, checkpoint-1000. .*/checkpoint-1000.$",
        ),
        (
            {"config.json": CONFIG, "snapshots/a1/config.json": CONFIG, "snapshots/a1/pytorch_model.bin": ""},
            r"in it is a checkpoint: snapshots/a1. Give one of them, such as .*/snapshots/a1.$",
        ),
        (
            {"config.json": CONFIG, "optimizer.pt": "", "training_args.bin": "", "trainer_state.json": "{}"},
            r"what a Trainer needs to go on \(optimizer.pt, trainer_state.json, training_args.bin\), but no weights",
        ),
        (
            {"config.json": CONFIG, "optimizer.pt": "", "training_args.bin": "", "pytorch_model.bin": ""},
            r"has pytorch_model.bin but no model.safetensors",
        ),
        ({"config.json": KERAS_CONFIG, "model.weights.h5": "", "task.json": "{}"}, "is a Keras Hub preset .*same name"),
        ({"config.json": KERAS_CONFIG, "task.json": "{}"}, "is a Keras Hub preset"),
        ({"model_index.json": "{}", "vae/config.json": "{}", "vae/model.safetensors": ""}, "is a diffusers pipeline"),
        ({"config.json": CONFIG, "model.onnx": ""}, "has model.onnx but no model.safetensors"),
        (
            {"config.json": CONFIG, "vit.safetensors": ""},
            "no model.safetensors, but vit.safetensors. If .* rename it so",
        ),
    ],
)
def test_what_is_no_checkpoint_is_told_for_what_it_is(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(tmp_path))


def test_what_is_no_checkpoint_on_the_hub_is_told_as_well(hub, folder, settings):
    hub.add("model", "me/lora", {"adapter_config.json": ADAPTER, "adapter_model.safetensors": "x"})
    with pytest.raises(CheckpointError, match="me/lora is an adapter .LORA. of someone/vit-base"):
        open_checkpoint("me/lora", settings=settings)
    hub.add("model", "me/run", {f"checkpoint-5/{name}": "{}" for name in ("config.json", "model.safetensors")})
    with pytest.raises(CheckpointError, match="Only the top of a repository is read: download checkpoint-5 and give"):
        open_checkpoint("me/run", settings=settings)


def test_a_whole_model_beside_leftovers_of_its_training_is_read(folder):
    (folder / "adapter_config.json").write_text(ADAPTER)
    (folder / "optimizer.pt").write_text("")
    shutil.copytree(folder, folder / "checkpoint-5")
    assert open_checkpoint(str(folder)).config.model_type == "vit_mae"


def test_quantised_weights_are_refused(folder):
    header, data = header_of(folder / "model.safetensors")
    tensor = header["vit.layernorm.bias"]
    header["vit.layernorm.bias"] = {**tensor, "dtype": "F8_E4M3", "shape": [128]}
    write_header(folder / "model.safetensors", header, data)
    with pytest.raises(
        CheckpointError, match="vit.layernorm.bias .* holds F8_E4M3; expected F64, F32, F16, BF16.*Quant"
    ):
        open_checkpoint(str(folder))


def test_what_cannot_fit_is_refused_from_the_header_alone(folder):
    change(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"has the unknown tensors vit.encoder.layer.1\..* and \d+ more"):
        open_checkpoint(str(folder))
    shutil.copy(GOLDEN / "vit_mae" / "config.json", folder)
    rewrite_tensors(folder, lambda t: t.update({"bert.embeddings.word": np.zeros((500, 500), np.float32)}))
    with pytest.raises(CheckpointError, match="has the unknown tensor bert.embeddings.word"):
        open_checkpoint(str(folder))
    change(folder / "config.json", patch_size=4)
    shutil.copy(GOLDEN / "vit_mae" / "model.safetensors", folder)
    with pytest.raises(
        CheckpointError, match=r"projection.weight .*\(32, 3, 8, 8\); config.json asks for \(32, 3, 4, 4\)"
    ):
        open_checkpoint(str(folder))


LAYER = "vit.encoder.layer.0."
ATTENTION = f"{LAYER}attention.attention."


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(f"{ATTENTION}query.weight"), f"misses tensor {ATTENTION}query.weight"),
        (lambda t: t.pop(f"{ATTENTION}value.bias"), f"misses tensor {ATTENTION}value.bias"),
        (lambda t: t.pop(f"{LAYER}layernorm_after.bias"), f"misses tensor {LAYER}layernorm_after.bias"),
        (lambda t: t.pop("vit.layernorm.bias"), "misses tensor vit.layernorm.bias"),
        (
            lambda t: t.update({f"{ATTENTION}query.lora_A.weight": np.zeros((4, 32), np.float32)}),
            f"has the unknown tensor {ATTENTION}query.lora_A.weight",
        ),
        (
            lambda t: t.update({f"{LAYER}lambda_1": np.zeros(32, np.float32)}),
            f"has the unknown tensor {LAYER}lambda_1",
        ),
        (
            lambda t: t.update({"vit.embeddings.distillation_token": np.zeros((1, 1, 32), np.float32)}),
            "has the unknown tensor vit.embeddings.distillation_token",
        ),
        (
            lambda t: t.update({f"{ATTENTION}qkv.weight": np.zeros((96, 32), np.float32)}),
            f"has the unknown tensors {ATTENTION}key.weight, {ATTENTION}query.weight, {ATTENTION}value.weight",
        ),
        (
            lambda t: t.update({f"{LAYER}output.dense.bias": np.zeros(31, np.float32)}),
            rf"Tensor {LAYER}output.dense.bias of .*\(31,\); config.json asks for \(32,\)",
        ),
    ],
    ids=["query", "bias", "norm", "last norm", "adapter", "layer scale", "distillation", "fused and not", "shape"],
)
def test_what_cannot_load_is_refused_before_the_weights_are_downloaded(hub, published, folder, settings, edit, message):
    rewrite_tensors(folder, edit)
    hub.add_folder("model", published, folder)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(published, settings=settings)
    assert hub.bytes_sent() < 400_000


def test_a_head_of_which_half_is_missing_is_refused_at_the_look(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "videomae_finetuned", folder)
    rewrite_tensors(folder, lambda t: t.pop("fc_norm.bias"))
    with pytest.raises(CheckpointError, match=r"misses tensor fc_norm.bias, which its config.json asks for"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("family", ["vit_mae", "vit", "videomae", "videomae_finetuned"])
def test_the_look_asks_for_what_the_weights_are_loaded_into(keras, family):
    from labelrank.models.convert import tensor_pairs
    from labelrank.models.mae import MaskedAutoencoder
    from labelrank.models.vit import ViTEncoder

    checkpoint = open_checkpoint(str(GOLDEN / family))
    tensors = checkpoint.tensors()
    if checkpoint.config.decoder is None:
        encoder, decoder = ViTEncoder(checkpoint.config), None
        encoder.build((None, *checkpoint.config.input_shape))
    else:
        model = MaskedAutoencoder(checkpoint.config)
        model.build()
        encoder, decoder = model.encoder, model.decoder
    pairs = tensor_pairs(encoder, decoder, tensors)
    for pair in pairs:
        assert pair.tensor.shape == tensors[pair.tensor.name].shape
        assert pair.to_keras(tensors[pair.tensor.name]).shape == tuple(pair.variable.shape), pair.tensor
    weights = [w for layer in (encoder, decoder) if layer is not None for w in layer.weights]
    assert {id(pair.variable) for pair in pairs} == {id(weight) for weight in weights}


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


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [("float16", np.float16, 2e-3), ("bfloat16", ml_dtypes.bfloat16, 2e-2)]
)
def test_half_precision_file_is_read_as_float32(keras, folder, name, dtype, tolerance):
    wanted = load(folder).encoder.get_weights()
    rewrite_tensors(folder, lambda t: t.update({n: v.astype(dtype) for n, v in t.items()}))
    assert open_checkpoint(str(folder)).dtype == name
    for one, other in zip(load(folder).encoder.get_weights(), wanted, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=tolerance)


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


def test_sizes_that_would_fill_the_memory_are_refused(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "videomae", folder)
    config = open_checkpoint(str(folder)).config
    with pytest.raises(CheckpointError, match="800,000 x 800,000 is more than the 8,192 .* a smaller --image-size"):
        config.resized(800_000, 800_000)
    with pytest.raises(CheckpointError, match=r"8 frames of 8,000 x 8,000 pixels has \S+ patches, more than"):
        config.resized(8_000, 8_000)
    # The table of the places is computed: nothing in the file would contradict.
    change(folder / "config.json", num_frames=1_000_000)
    with pytest.raises(CheckpointError, match="1,000,000 frames of .* patches, more than the 20,000 that are read"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("one", [one for one in CURATED if one.name in EMBEDDED], ids=lambda one: one.name)
def test_embedded_checkpoint_is_small_and_as_the_list_says(one):
    info = describe_checkpoint(one.name)
    assert info.size_bytes <= 3_000_000
    listed = (
        "media",
        "model_type",
        "num_parameters",
        "hidden_dim",
        "size_bytes",
        "licence",
        "good_for",
        "pretrained_on",
    )
    assert {n: getattr(info, n) for n in listed} == {n: getattr(one, n) for n in listed}
    assert (info.revision, info.is_local, info.dtype) == (None, True, "float32")


@pytest.mark.parametrize(
    ("media", "samples", "gpu", "name"),
    [
        ("image", 640, False, "facebook/vit-mae-base"),
        ("image", 50_000, False, "facebook/dinov2-small"),
        ("image", 50_000, True, "facebook/vit-mae-base"),
        ("clip", 100, False, "MCG-NJU/videomae-small-finetuned-kinetics"),
        ("clip", 100, True, "MCG-NJU/videomae-base"),
    ],
)
def test_a_checkpoint_to_begin_with_suits_medium_size_and_device(media, samples, gpu, name):
    found = suggested(media, samples, gpu=gpu)
    assert (found.name, found.media) == (name, media)


def test_the_curated_list_has_each_name_once_and_each_family():
    assert len({one.name for one in CURATED}) == len({one.title for one in CURATED}) == len(CURATED)
    assert {one.model_type for one in CURATED} == set(FAMILIES)
    assert {one.media for one in CURATED if one.name in EMBEDDED} == {"image", "clip"}
    for one in CURATED:
        assert one.size_bytes == pytest.approx(4 * one.num_parameters, rel=0.05)


# --- on the Hub

CARD = "---\nlicense: cc-by-nc-4.0\ndatasets:\n- kinetics-400\n---\n"


@pytest.fixture
def published(hub, folder):
    """A checkpoint on the Hub; its weights made large enough that their header is a small part."""
    rewrite_tensors(folder, lambda t: t.update({"classifier.weight": np.ones((2_000, 500), np.float32)}))
    hub.add_folder("model", "me/model", folder)
    hub.add("model", "me/model", {"README.md": CARD})
    return "me/model"


def test_a_hub_checkpoint_is_looked_at_before_it_is_downloaded(hub, published, folder, settings):
    info = describe_checkpoint(published, settings=settings)
    assert (info.name, info.model_type, info.media, info.dtype) == (published, "vit_mae", "image", "float32")
    assert (info.image_size, info.patch_size, info.num_frames, info.poolings) == (
        (32, 32),
        (8, 8),
        None,
        ("mean", "cls"),
    )
    assert (info.licence, info.pretrained_on, info.gated, info.unsafe) == ("cc-by-nc-4.0", "kinetics-400", False, ())
    assert info.size_bytes == (folder / "model.safetensors").stat().st_size > 4_000_000
    assert info.num_parameters == sum(v.size for v in load_file(folder / "model.safetensors").values())
    assert len(info.revision) == 40
    assert not info.is_local
    assert hub.bytes_sent() < 400_000
    open_checkpoint(published, settings=settings).fetch()
    assert describe_checkpoint(published, settings=settings).is_local


def test_a_hub_checkpoint_is_that_of_a_folder(keras, hub, published, folder, settings):
    from labelrank.models.runtime import build_encoder

    there, here = open_checkpoint(published, settings=settings), open_checkpoint(str(folder))
    before = hub.bytes_sent()
    assert there.digest == here.digest
    assert hub.bytes_sent() == before  # from what the Hub states
    assert (there.id, there.licence) == ("me/model", "cc-by-nc-4.0")
    assert (there.config, there.preprocessing()) == (here.config, here.preprocessing())
    calls = []
    there.fetch(on_progress=lambda *a: calls.append(a))
    stage = Stage(Kind.DOWNLOAD, "Downloading model.safetensors of me/model", "bytes")
    assert calls[-1] == (there.size_bytes, there.size_bytes, stage)
    hub.forget()
    for one, other in zip(build_encoder(there).get_weights(), build_encoder(here).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert hub.requests == []


def test_weights_that_are_not_here_are_fetched_when_they_are_read(published, settings):
    checkpoint = open_checkpoint(published, settings=settings)
    assert checkpoint.tensors()["classifier.weight"].shape == (2_000, 500)


def test_a_sharded_hub_checkpoint(hub, folder, settings):
    shard(folder)
    hub.add_folder("model", "me/sharded", folder)
    there, here = open_checkpoint("me/sharded", settings=settings), open_checkpoint(str(folder))
    assert there.digest == here.digest
    assert there.size_bytes == here.size_bytes
    there.fetch()
    for name, tensor in here.tensors().items():
        np.testing.assert_array_equal(there.tensors()[name], tensor)


def test_a_hub_checkpoint_works_without_the_hub_once_it_is_here(hub, published, settings):
    online = open_checkpoint(published, settings=settings)
    online.fetch()
    hub.stop()
    offline = open_checkpoint(published, settings=settings)
    assert (offline.digest, offline.revision, offline.licence) == (online.digest, online.revision, online.licence)
    assert set(offline.tensors()) == set(online.tensors())
    assert describe_checkpoint(published, online.revision, settings=settings).is_local


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_that_went_bad_in_the_cache_are_fetched_again(hub, published, folder, settings, sharded):
    if sharded:
        shard(folder)
        published = "me/sharded"
        hub.add_folder("model", published, folder)
    open_checkpoint(published, settings=settings).fetch()
    repo = open_checkpoint(published, settings=settings)._files.repo
    name = "model-00002-of-00003.safetensors" if sharded else "model.safetensors"
    weights = hub_client.cached_path(repo, name)
    content = weights.read_bytes()
    weights.resolve().write_bytes(content[:-1_000] + bytes(100) + content[-900:])
    assert weights.read_bytes() != content
    hub.forget()
    checkpoint = open_checkpoint(published, settings=settings)
    checkpoint.fetch()
    assert weights.read_bytes() == content
    assert hub.bytes_sent("storage") == len(content)  # this file and no other
    hub.forget()
    for tensor, value in open_checkpoint(str(folder)).tensors().items():
        np.testing.assert_array_equal(checkpoint.tensors()[tensor], value)
    assert hub.requests == []


def test_weights_that_went_bad_are_told_where_the_hub_cannot_be_asked(hub, published, settings):
    checkpoint = open_checkpoint(published, settings=settings)
    checkpoint.fetch()
    weights = hub_client.cached_path(checkpoint._files.repo, "model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1_000:-900] = bytes(100)
    weights.resolve().write_bytes(content)
    hub.stop()
    message = "copy of model.safetensors of me/model on this computer was damaged, so it was removed.*cannot be reached"
    with pytest.raises(HubError, match=message):
        open_checkpoint(published, settings=settings).tensors()
    hub.start()
    open_checkpoint(published, settings=settings).fetch()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_copy_that_went_bad_does_not_keep_a_checkpoint_from_opening(hub, published, settings, name):
    checkpoint = open_checkpoint(published, settings=settings)
    checkpoint.fetch()
    copy = hub_client.cached_path(checkpoint._files.repo, name)
    copy.resolve().write_bytes(bytes(copy.stat().st_size))
    assert open_checkpoint(published, settings=settings).digest == checkpoint.digest
    hub.add("model", published, {name: bytes(1_000)})
    with pytest.raises(CheckpointError, match="cannot be read as JSON|is not a readable safetensors file"):
        open_checkpoint(published, settings=settings)


def test_weights_are_hashed_once(published, settings, monkeypatch):
    open_checkpoint(published, settings=settings).fetch()
    hashed = []

    def remove_damaged(repo, paths, **options):
        hashed.extend(paths)
        return []

    monkeypatch.setattr(hub_client, "remove_damaged", remove_damaged)
    checkpoint = open_checkpoint(published, settings=settings)
    checkpoint.fetch()
    checkpoint.tensors()
    assert hashed == ["model.safetensors"]


def test_a_checkpoint_says_when_the_hub_could_not_be_asked(hub, published, folder, settings):
    online = open_checkpoint(published, settings=settings)
    online.fetch()
    assert not online.from_cache
    assert not open_checkpoint(str(folder)).from_cache
    hub.stop()
    offline = open_checkpoint(published, settings=settings)
    assert offline.from_cache
    assert offline.revision == online.revision


def test_a_hub_checkpoint_at_another_revision(hub, published, folder, settings):
    change(folder / "config.json", mask_ratio=0.5)
    hub.add_folder("model", published, folder, revision="half")
    half = open_checkpoint(published, revision="half", settings=settings)
    assert half.config.mask_ratio == 0.5
    assert half.source == "me/model at half/model.safetensors"
    assert half.digest != open_checkpoint(published, settings=settings).digest


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5"])
def test_a_hub_checkpoint_without_safetensors_is_refused_with_the_way_out(hub, folder, settings, other):
    weights = (folder / "model.safetensors").rename(folder / other)
    hub.add_folder("model", "me/old", folder)
    hub.forget()
    with pytest.raises(
        CheckpointError, match=f"me/old has {other} but no model.safeten.*runs code.*spaces/safetensors"
    ):
        open_checkpoint("me/old", settings=settings)
    assert hub.bytes_sent(other) == 0
    hub.add("model", "me/old", {"config.json": "{}"}, revision="refs/pr/2")
    weights.rename(folder / "model.safetensors")
    hub.add_folder("model", "me/old", folder, revision="refs/pr/7")
    with pytest.raises(CheckpointError, match="A pull request .*--checkpoint-revision refs/pr/7"):
        open_checkpoint("me/old", settings=settings)
    assert open_checkpoint("me/old", revision="refs/pr/7", settings=settings).num_parameters > 10_000


def test_a_pull_request_is_told_with_who_made_it(hub, folder, settings):
    weights = folder / "model.safetensors"
    hub.add_folder("model", "me/old", folder, revision="refs/pr/3")
    hub.add_folder("model", "me/old", folder, revision="refs/pr/20")
    weights.rename(folder / "pytorch_model.bin")
    hub.add_folder("model", "me/old", folder)

    def refusal():
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint("me/old", settings=settings)
        return str(caught.value)

    assert "by an unknown account holds them" in refusal()
    hub.add("model", "me/old", {}, authors={3: "mallory"})
    said = refusal()
    assert "by mallory holds them as safetensors; the owner has not taken it over" in said
    assert f"look at {hub.endpoint}/me/old/discussions/3 first" in said
    hub.add("model", "me/old", {}, authors={3: "mallory", 20: "SFconvertbot"})
    said = refusal()
    assert "by SFconvertbot" in said
    assert "(--checkpoint-revision refs/pr/20)" in said
    hub.fail("/discussions", 500, times=99)
    assert "by an unknown account holds them" in refusal()


def test_a_pull_request_of_weights_in_several_files_is_found(hub, folder, settings):
    weights = (folder / "model.safetensors").read_bytes()
    shard(folder)
    hub.add_folder("model", "me/old", folder, revision="refs/pr/4")
    hub.add("model", "me/old", {"config.json": folder / "config.json", "pytorch_model.bin": weights})
    with pytest.raises(CheckpointError, match="--checkpoint-revision refs/pr/4"):
        open_checkpoint("me/old", settings=settings)
    assert open_checkpoint("me/old", revision="refs/pr/4", settings=settings).num_parameters > 10_000


def test_the_refusal_does_not_need_the_pull_requests(hub, folder, settings):
    (folder / "model.safetensors").rename(folder / "model.ckpt")
    hub.add_folder("model", "me/old", folder)
    hub.fail("/refs", 500, times=99)
    with pytest.raises(CheckpointError, match="me/old has model.ckpt but no model.safetensors"):
        open_checkpoint("me/old", settings=settings)


def test_flagged_weights_are_refused_and_a_flag_on_other_files_is_shown(hub, published, settings):
    hub.add("model", published, {"pytorch_model.bin": b"x"}, filesWithIssues=[{"path": "pytorch_model.bin"}])
    assert describe_checkpoint(published, settings=settings).unsafe == ("pytorch_model.bin",)
    hub.add("model", published, {}, filesWithIssues=[{"path": "model.safetensors", "level": "unsafe"}])
    hub.forget()
    with pytest.raises(
        CheckpointError, match="security scan flags model.safetensors of me/model, so it is not downloaded"
    ):
        open_checkpoint(published, settings=settings)
    assert hub.bytes_sent("model.safetensors") == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "bert"}', "model_type in config.json is 'bert'; this version reads vit_mae"),
        ("config.json", "{", "me/model/config.json cannot be read as JSON"),
        ("preprocessor_config.json", "[]", "me/model/preprocessor_config.json holds a list"),
        ("model.safetensors", "x" * 5_000_000, "me/model/model.safetensors is not a readable safetensors file"),
    ],
)
def test_what_cannot_work_is_refused_before_the_weights_are_downloaded(
    hub, published, settings, name, content, message
):
    hub.add("model", published, {name: content})
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(published, settings=settings)
    assert hub.bytes_sent() < 400_000


def test_weights_of_another_size_are_refused_before_they_are_downloaded(hub, published, folder, settings):
    change(folder / "config.json", intermediate_size=96)
    hub.add_folder("model", published, folder)
    with pytest.raises(CheckpointError, match=r"Tensor vit\S+ of me/model/model.safetensors has the shape \(64, 32\)"):
        open_checkpoint(published, settings=settings)
    assert hub.bytes_sent() < 400_000


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_file_that_a_repository_lacks_is_named(hub, published, settings, name):
    (hub.root / "models/me/model/main" / name).unlink()
    with pytest.raises(CheckpointError, match=f"me/model has no {name}"):
        open_checkpoint(published, settings=settings).preprocessing()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me/none", "The Hub has no model me/none"),
        ("https://huggingface.co/me/model", "give the id me/model instead"),
        ("huggingface.co/me/model", "give the id me/model instead"),
        ("me / model", "has a space in it.*Did you mean me/model"),
        ("https://huggingface.co/datasets/me/data", "is the address of a dataset"),
    ],
)
def test_a_mistaken_id_is_explained(hub, settings, name, message):
    with pytest.raises(HubError, match=message):
        open_checkpoint(name, settings=settings)


def test_gated_weights_say_where_the_terms_are(hub, published, settings):
    hub.add("model", published, {}, gated="auto")
    with pytest.raises(HubError, match=r"me/model is gated: .*Accept them at http\S+/me/model"):
        open_checkpoint(published, settings=settings)


def test_a_folder_of_the_same_name_wins_except_on_a_shared_server(
    hub, published, folder, settings, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path / published)
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint(published, settings=settings).revision is None
    shared = replace(settings, shared=True)
    assert open_checkpoint(published, settings=shared).revision is not None


@pytest.mark.parametrize("family", ["vit", "videomae", "videomae_finetuned"])
def test_each_family_opens(family):
    info = describe_checkpoint(str(GOLDEN / family))
    assert info.media == ("image" if family == "vit" else "clip")
    assert info.num_frames == (None if family == "vit" else 8)


def test_the_web_process_can_describe_a_checkpoint_without_keras(run_python):
    loaded = run_python(
        "import sys; from labelrank.models.checkpoint import describe_checkpoint; "
        "describe_checkpoint('mae-tiny-digits'); print('keras' in sys.modules)"
    )
    assert loaded == "False"
