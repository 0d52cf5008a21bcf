"""Which tensors of a file go where, in every spelling, and which configs say so."""

import functools
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labelrank.errors import CheckpointError
from labelrank.models.families import read_config, write_config
from tests.conftest import GOLDEN

FAMILIES = ("vit_mae", "vit", "videomae", "videomae_finetuned")
ATTENTION = "attention.attention."


def read(name):
    """Return a golden checkpoint's config and its tensors."""
    config = json.loads((GOLDEN / name / "config.json").read_text())
    return config, load_file(GOLDEN / name / "model.safetensors")


def load(values, tensors, *, decoder=True, size=None):
    """Return the encoder (and decoder) that a config describes, with the tensors in them."""
    from labelrank.models.convert import load_tensors
    from labelrank.models.mae import MaskedAutoencoder
    from labelrank.models.vit import ViTEncoder

    config = read_config(values, tensors)
    if size is not None:
        config = config.resized(*size)
    if config.decoder is not None and decoder:
        model = MaskedAutoencoder(config)
        model.build()
        parts = (model.encoder, model.decoder)
    else:
        encoder = ViTEncoder(config)
        encoder.build((None, *config.input_shape))
        parts = (encoder, None)
    load_tensors(tensors, *parts, source="the file")
    return parts


def weights(parts):
    return [value for part in parts if part is not None for value in part.get_weights()]


@functools.cache
def golden_weights(name):
    return weights(load(*read(name)))


def check_same_as_golden(name, tensors):
    for one, other in zip(weights(load(read(name)[0], tensors)), golden_weights(name), strict=True):
        np.testing.assert_array_equal(one, other)


def rename(tensors, *pairs):
    for old, new in pairs:
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    return tensors


def fuse(tensors, *, bias):
    """Join query, key and value, as timm and the original VideoMAE store them."""
    tensors = dict(tensors)
    for name in [n for n in tensors if n.endswith(f"{ATTENTION}query.weight")]:
        at = name.removesuffix("query.weight")
        tensors[f"{at}qkv.weight"] = np.concatenate([tensors.pop(f"{at}{p}.weight") for p in ("query", "key", "value")])
        if not bias:
            continue
        if f"{at}q_bias" in tensors:
            query, value = tensors.pop(f"{at}q_bias"), tensors.pop(f"{at}v_bias")
            parts = [query, np.zeros_like(query), value]
        else:
            parts = [tensors.pop(f"{at}{p}.bias") for p in ("query", "key", "value")]
        tensors[f"{at}qkv.bias"] = np.concatenate(parts)
    return tensors


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "respell",
    [
        lambda t: fuse(t, bias=True),
        lambda t: fuse(t, bias=False),
        lambda t: rename(t, *((f"{ATTENTION}{p[0]}_bias", f"{ATTENTION}{p}.bias") for p in ("query", "value"))),
        lambda t: rename(t, *((f"{ATTENTION}{p}.bias", f"{ATTENTION}{p[0]}_bias") for p in ("query", "value"))),
        lambda t: rename(t, ("decoder_encoder.layer.", "decoder_layers.")),
        lambda t: rename(t, ("videomae.", ""), ("vit.", "")),
    ],
    ids=["fused qkv", "fused qkv, biases apart", "query.bias", "q_bias", "decoder_layers", "bare encoder"],
)
def test_every_spelling_gives_the_same_model(keras, name, respell):
    check_same_as_golden(name, respell(read(name)[1]))


def test_a_fused_key_bias_that_the_softmax_takes_out_is_left(keras):
    values, tensors = read("videomae")
    fused = fuse(tensors, bias=True)
    dim = values["hidden_size"]
    fused[f"videomae.encoder.layer.0.{ATTENTION}qkv.bias"][dim : 2 * dim] = 7
    check_same_as_golden("videomae", fused)


@pytest.mark.parametrize("name", FAMILIES)
def test_models_without_attention_biases_load(keras, name):
    values, tensors = read(name)
    values["qv_bias" if "videomae" in name else "qkv_bias"] = False
    biases = ("query.bias", "key.bias", "value.bias", "q_bias", "v_bias")
    encoder, _ = load(values, {n: t for n, t in tensors.items() if not n.endswith(biases)})
    assert {layer.bias for layer in (encoder.blocks[0].attention.query, encoder.blocks[1].attention.key)} == {None}
    with pytest.raises(CheckpointError, match="has the unknown tensors .*bias"):
        load(values, tensors)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("vit_mae", ["classifier.weight", "fc_norm.weight"]),
        ("vit", ["vit.pooler.dense.weight", "pooler.dense.bias", "vit.embeddings.mask_token", "decoder.0.weight"]),
        ("videomae", ["position_embeddings", "decoder.decoder_pos_embed", "decoder.position_embeddings"]),
        ("videomae_finetuned", ["videomae.embeddings.position_embeddings", "embeddings.position_embeddings"]),
    ],
)
def test_heads_and_computed_tables_are_ignored_by_name(keras, name, extra):
    check_same_as_golden(name, {**read(name)[1], **{n: np.ones(3, np.float32) for n in extra}})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_other_tensor_is_needed(keras, name):
    values, tensors = read(name)
    for left_out in (f"{ATTENTION}value.weight", "layernorm_before.bias", "projection.weight"):
        kept = {n: t for n, t in tensors.items() if not n.endswith(left_out)}
        with pytest.raises(CheckpointError, match=f"misses tensors? .*{left_out}"):
            load(values, kept)
    for unknown in ("videomae.encoder.layer.0.gamma", "vit.embeddings.register_tokens", "layernorm"):
        with pytest.raises(CheckpointError, match=f"has the unknown tensor {unknown}"):
            load(values, {**tensors, unknown: np.ones(1, np.float32)})


def test_a_decoder_is_ignored_where_the_encoder_alone_is_read(keras):
    for name in ("vit_mae", "videomae"):
        values, tensors = read(name)
        encoder, none = load(values, tensors, decoder=False)
        assert none is None
        for one, other in zip(encoder.get_weights(), load(values, tensors)[0].get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_fused_tensor_of_another_shape_is_named_as_it_lies_in_the_file(keras):
    values, tensors = read("vit")
    name = f"vit.encoder.layer.1.{ATTENTION}qkv.weight"
    fused = {**fuse(tensors, bias=True), name: np.ones((48, 24), np.float32)}
    with pytest.raises(CheckpointError, match=rf"{name} of the file has the shape \(48, 24\).*asks for \(72, 24\)"):
        load(values, fused)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_files_are_read_as_float32(keras, tmp_path, name, dtype):
    values, tensors = read(name)
    save_file({n: t.astype(dtype) for n, t in tensors.items()}, tmp_path / "half.safetensors")
    found = weights(load(values, load_file(tmp_path / "half.safetensors")))
    wanted = weights(load(values, {n: t.astype(dtype).astype(np.float32) for n, t in tensors.items()}))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)


def test_a_resized_encoder_reads_the_trained_table_and_no_other(keras):
    values, tensors = read("vit")
    name = "vit.embeddings.position_embeddings"
    encoder, _ = load(values, tensors, size=(16, 48))
    assert tuple(encoder.position_embedding.shape) == (1, 1 + 2 * 6, 24)
    np.testing.assert_array_equal(np.asarray(encoder.position_embedding)[:, 0], tensors[name][:, 0])
    with pytest.raises(
        CheckpointError, match=r"position_embeddings .*\(1, 13, 24\); config.json asks for \(1, 17, 24\)"
    ):
        load(values, {**tensors, name: tensors[name][:, :13]}, size=(16, 48))


def test_config_says_what_a_checkpoint_holds():
    values, tensors = read("videomae_finetuned")
    config = read_config(values)
    # It lists the sizes of a decoder that fine-tuning took off.
    assert "decoder_hidden_size" in values
    assert config == read_config(values, tensors)
    assert config.decoder is None
    assert config.fc_norm
    assert not config.final_norm
    assert (config.media, config.input_shape, config.num_patches) == ("clip", (8, 32, 32, 3), 64)
    assert not read_config({**values, "use_mean_pooling": False}).fc_norm
    assert read_config({**values, "use_mean_pooling": False}).final_norm
    assert not read_config({**values, "architectures": ["VideoMAEModel"]}).fc_norm

    values, tensors = read("videomae")
    assert read_config(values).decoder == read_config(values, tensors).decoder
    assert read_config(values, [n for n in tensors if n.startswith("videomae.")]).decoder is None
    assert read_config(read("vit")[0]).decoder is None
    assert read_config({"model_type": "vit_mae", "architectures": ["ViTMAEModel"]}).decoder is None


def test_defaults_are_those_of_the_peer():
    video = read_config({"model_type": "videomae"})
    assert (video.num_frames, video.tubelet_size, video.num_patches, video.patch_dim) == (16, 2, 1568, 1536)
    assert (video.decoder.hidden_dim, video.decoder.num_layers, video.decoder.num_heads) == (384, 4, 6)
    assert not video.use_cls_token
    assert not video.final_norm  # use_mean_pooling
    assert video.norm_pix_loss
    # 0.9 of the 196 places of a frame, the same in all 8 slices.
    assert (video.noise_shape, video.num_visible) == ((196,), 8 * 19)
    image = read_config({"model_type": "vit"})
    assert (image.input_shape, image.num_patches, image.use_cls_token) == ((224, 224, 3), 196, True)
    assert read_config({"model_type": "videomae", "qkv_bias": False}).transformer.use_qkv_bias is False


@pytest.mark.parametrize("name", ["vit_mae", "videomae"])
def test_a_written_config_reads_as_the_same(name):
    config = read_config(read(name)[0])
    assert read_config(json.loads(json.dumps(write_config(config)))) == config
    values = {**read(name)[0], "image_size": [16, 32], "patch_size": [4, 8], "use_mean_pooling": True}
    config = read_config({**values, "qkv_bias": False, "mask_ratio": 0.6})
    assert read_config(write_config(config)) == config


def test_what_cannot_be_written_or_resized_is_said():
    config = read_config(read("videomae_finetuned")[0])
    with pytest.raises(CheckpointError, match="has none"):
        write_config(config)
    with pytest.raises(CheckpointError, match=r"40 x 30 is not a multiple of .* 8 x 8 pixels; .*--image-size"):
        config.resized(40, 30)
    with pytest.raises(CheckpointError, match="0 x 8"):
        config.resized(0, 8)
    assert config.resized(32, 32) is config
    assert config.resized(40, 24).resized(32, 32) == config
    assert read_config(read("vit_mae")[0]).resized(40, 40).decoder is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 7}, "7 frames of a clip are not a multiple of the tubelet size 2"),
        ({"tubelet_size": 0}, "tubelet_size in config.json is 0"),
        ({"num_frames": "16"}, "num_frames in config.json is '16'"),
        ({"num_attention_heads": 5}, "768 is not a multiple of the 5 attention heads"),
        ({"mask_ratio": 1}, "mask_ratio is 1"),
    ],
)
def test_bad_values_of_clips_are_named(values, message):
    with pytest.raises(CheckpointError, match=message):
        read_config({"model_type": "videomae", **values})


def test_sizes_without_a_table_over_rows_and_columns_need_no_multiple_of_four():
    sizes = {"hidden_size": 15, "num_attention_heads": 3, "decoder_hidden_size": 7, "decoder_num_attention_heads": 1}
    assert read_config({"model_type": "videomae", **sizes}).decoder.hidden_dim == 7
    assert read_config({"model_type": "vit", **sizes}).transformer.hidden_dim == 15
    with pytest.raises(CheckpointError, match="15 is not a multiple of 4"):
        read_config({"model_type": "vit_mae", **sizes})
