"""timm's ViTs, and files in the naming of the published MAE code, are those of Hugging Face under other names."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from labelrank.errors import CheckpointError
from labelrank.models import timm
from labelrank.models.checkpoint import describe_checkpoint, open_checkpoint
from tests.conftest import GOLDEN

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PRETRAINED = {"input_size": [3, 32, 32], "mean": MEAN, "std": STD, "crop_pct": 0.9, "interpolation": "bicubic"}
CONFIG = {
    "architecture": "vit_base_patch16_224",
    "model_args": {"num_heads": 2, "embed_dim": 24},
    "pretrained_cfg": {"tag": "augreg_in21k", **PRETRAINED},
}
IN_A_BLOCK = (
    ("norm1", "layernorm_before"),
    ("attn.proj", "attention.output.dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def timm_tensors(theirs, blocks="vit.encoder.layer.", ours="blocks."):
    """Return Hugging Face's blocks under timm's names, query, key and value in one tensor."""
    found = {}
    for i in range(1 + max(int(name.split(blocks)[1].split(".")[0]) for name in theirs if name.startswith(blocks))):
        for end in ("weight", "bias"):
            for new, old in IN_A_BLOCK:
                found[f"{ours}{i}.{new}.{end}"] = theirs[f"{blocks}{i}.{old}.{end}"]
            parts = [theirs[f"{blocks}{i}.attention.attention.{part}.{end}"] for part in ("query", "key", "value")]
            found[f"{ours}{i}.attn.qkv.{end}"] = np.concatenate(parts)
    return found


def outer_tensors(theirs):
    return {
        "cls_token": theirs["vit.embeddings.cls_token"],
        "pos_embed": theirs["vit.embeddings.position_embeddings"],
        "patch_embed.proj.weight": theirs["vit.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": theirs["vit.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": theirs["vit.layernorm.weight"],
        "norm.bias": theirs["vit.layernorm.bias"],
    }


def write(folder, tensors, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """A ViT as transformers writes it, with timm's epsilon; its folder and tensors."""
    folder = tmp_path_factory.mktemp("peer")
    config = json.loads((GOLDEN / "vit" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-6}))
    (folder / "model.safetensors").write_bytes((GOLDEN / "vit" / "model.safetensors").read_bytes())
    return folder, load_file(folder / "model.safetensors")


@pytest.fixture
def tensors(peer):
    return {**timm_tensors(peer[1]), **outer_tensors(peer[1]), "head.weight": np.zeros((3, 24), np.float32)}


def tokens_of(name):
    from labelrank.models.runtime import build_encoder

    encoder = build_encoder(open_checkpoint(str(name)))
    images = np.random.default_rng(0).normal(size=(3, *encoder.config.input_shape)).astype(np.float32)
    return np.asarray(encoder(images))


@pytest.mark.parametrize("prefix", ["", "timm_model."])
def test_a_timm_vit_computes_what_the_same_weights_do_in_transformers(keras, peer, tensors, tmp_path, prefix):
    config = {**CONFIG, "model_type": "timm_wrapper"} if prefix else CONFIG
    folder = write(tmp_path / "timm", {prefix + name: value for name, value in tensors.items()}, config)
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.config.model_type, checkpoint.config.decoder, checkpoint.notices) == ("vit", None, ())
    np.testing.assert_allclose(tokens_of(folder), tokens_of(peer[0]), atol=1e-5)


def test_a_mae_of_timm_is_a_mae(tensors, tmp_path):
    config = {**CONFIG, "architecture": "vit_base_patch16_224.mae"}
    assert open_checkpoint(write(tmp_path / "one", tensors, config)).config.model_type == "vit_mae"
    config = {**CONFIG, "pretrained_cfg": {**PRETRAINED, "tag": "mae"}}
    assert open_checkpoint(write(tmp_path / "two", tensors, config)).config.model_type == "vit_mae"


def test_the_naming_of_the_published_mae_is_read_with_its_decoder(keras, tmp_path):
    from labelrank.models.convert import load_tensors
    from labelrank.models.mae import MaskedAutoencoder

    theirs = load_file(GOLDEN / "vit_mae" / "model.safetensors")
    decoder = "decoder.decoder_encoder.layer."
    tensors = {
        **timm_tensors(theirs),
        **outer_tensors(theirs),
        **timm_tensors(theirs, decoder, "decoder_blocks."),
        "mask_token": theirs["decoder.mask_token"],
        "decoder_pos_embed": theirs["decoder.decoder_pos_embed"],
        **{
            f"{name}.{end}": theirs[f"decoder.{name}.{end}"]
            for name in ("decoder_embed", "decoder_norm", "decoder_pred")
            for end in ("weight", "bias")
        },
    }
    config = json.loads((GOLDEN / "vit_mae" / "config.json").read_text())
    weights = []
    for name in (GOLDEN / "vit_mae", write(tmp_path / "mae", tensors, config)):
        checkpoint = open_checkpoint(str(name))
        model = MaskedAutoencoder(checkpoint.config)
        model.build()
        load_tensors(checkpoint.tensors(), model.encoder, model.decoder, source=str(name))
        weights.append([*model.encoder.get_weights(), *model.decoder.get_weights()])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # With timm's config.json the decoder is left.
    assert open_checkpoint(write(tmp_path / "timm", tensors)).config.decoder is None


def test_a_head_that_norms_the_mean_has_no_norm_before_it(keras, peer, tensors, tmp_path):
    from labelrank.models.runtime import compile_encoder

    for end in ("weight", "bias"):
        tensors[f"fc_norm.{end}"] = tensors.pop(f"norm.{end}")
    folder = write(tmp_path / "timm", tensors, {**CONFIG, "global_pool": "avg"})
    assert describe_checkpoint(folder).poolings == ("mean", "cls", "fc_norm")
    tokens = tokens_of(folder)
    centred = tokens - tokens.mean(axis=2, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-6)
    normed = normed * peer[1]["vit.layernorm.weight"] + peer[1]["vit.layernorm.bias"]
    np.testing.assert_allclose(normed, tokens_of(peer[0]), atol=1e-5)
    pooled = tokens[:, 1:].mean(axis=1)
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    expected = expected * tensors["fc_norm.weight"] + tensors["fc_norm.bias"]
    found = compile_encoder(open_checkpoint(folder), batch_size=3).fc_norm(pooled)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_cls_the_patches_alone_are_encoded(keras, tensors, tmp_path):
    del tensors["cls_token"]
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    folder = write(tmp_path / "timm", tensors)
    assert describe_checkpoint(folder).poolings == ("mean",)
    assert tokens_of(folder).shape == (3, 16, 24)


def test_heads_are_those_of_the_architecture_and_where_nothing_says_them_this_is_told(tensors, tmp_path):
    config = {name: value for name, value in CONFIG.items() if name != "model_args"}
    for architecture, assumed, usual in (("base", 12, "12 for 768"), ("large", 4, "16 for 1024")):
        config["architecture"] = f"vit_{architecture}_patch16_224"
        checkpoint = open_checkpoint(write(tmp_path / architecture, tensors, config))
        assert checkpoint.config.transformer.num_heads == assumed
        (notice,) = describe_checkpoint(str(tmp_path / architecture)).notices
        assert f"has {usual} channels, not for 24: {assumed} are assumed" in notice
        assert '"model_args": {"num_heads": N}' in notice
    checkpoint = open_checkpoint(write(tmp_path / "stated", tensors, {**config, "model_args": {"num_heads": 3}}))
    assert (checkpoint.config.transformer.num_heads, checkpoint.notices) == (3, ())
    published = {
        "vit.embeddings.patch_embeddings.projection.weight": (384, 3, 16, 16),
        "vit.embeddings.position_embeddings": (1, 197, 384),
        "vit.embeddings.cls_token": (1, 1, 384),
        "vit.encoder.layer.0.intermediate.dense.weight": (1536, 384),
    }
    found = timm.read({"architecture": "vit_small_patch16_224.augreg"}, published)
    assert (found.config["num_attention_heads"], found.config["image_size"], found.notices) == (6, [224, 224], ())
    for wrong in (5, 0, "4", True):
        config["model_args"] = {"num_heads": wrong}
        with pytest.raises(CheckpointError, match="num_heads in model_args of config.json is"):
            open_checkpoint(write(tmp_path / "wrong", tensors, config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "resnet50.a1_in1k"},
            "architecture in config.json is 'resnet50.a1_in1k', a model of timm; .* V",
        ),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224.openai"}, "of these only plain ViTs are read"),
        (
            {"model_args": {"act_layer": "relu", "num_heads": 4}},
            "model_args in config.json has act_layer, which change",
        ),
        (
            {"pretrained_cfg": {"input_size": 32}},
            "input_size in config.json is 32; expected channels, height and width",
        ),
    ],
)
def test_other_models_of_timm_are_named(tensors, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path / "timm", tensors, {**CONFIG, **changes}))


def test_layers_of_other_vits_are_unknown_tensors(tensors, tmp_path):
    tensors["blocks.0.ls1.gamma"] = np.ones(24, np.float32)
    with pytest.raises(CheckpointError, match="has the unknown tensor blocks.0.ls1.gamma"):
        open_checkpoint(write(tmp_path / "timm", tensors))


def test_a_missing_tensor_is_named(tensors, tmp_path):
    del tensors["pos_embed"]
    with pytest.raises(CheckpointError, match="position_embeddings .in the names of transformers. is missing"):
        open_checkpoint(write(tmp_path / "timm", tensors))


def test_two_names_of_one_tensor_are_refused(tensors, tmp_path):
    tensors["timm_model.cls_token"] = tensors["cls_token"]
    with pytest.raises(CheckpointError, match="stands for vit.embeddings.cls_token of transformers, as another one"):
        open_checkpoint(write(tmp_path / "timm", tensors))


@pytest.mark.parametrize("shape", [(50, 70), (71, 40), (38, 35), (41, 200), (200, 43)])
def test_pixels_are_those_of_timms_evaluation(tensors, tmp_path, shape):
    """torchvision's Resize of the shorter edge to floor(32 / 0.9) and CenterCrop, written here with Pillow."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = shape
    size = (35, int(35 * width / height)) if height <= width else (int(35 * height / width), 35)
    resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    top, left = (int(round((side - 32) / 2.0)) for side in size)  # noqa: RUF046 (as torchvision writes it)
    expected = (resized[top : top + 32, left : left + 32] / 255 - MEAN) / STD
    preprocess = open_checkpoint(write(tmp_path / "timm", tensors)).preprocessing()
    np.testing.assert_allclose(preprocess(image), expected, atol=1e-5)
    assert type(preprocess).from_config(json.loads(json.dumps(preprocess.to_config()))) == preprocess


def test_what_timm_says_of_preprocessing_may_be_squashed_missing_or_unknown(tensors, tmp_path):
    def opened(**changes):
        config = {**CONFIG, "pretrained_cfg": {**PRETRAINED, **changes}}
        return open_checkpoint(write(tmp_path / "timm", tensors, config))

    squash = opened(crop_mode="squash", crop_pct=1.0).preprocessing()
    assert (squash.size, squash.crop_size) == ((32, 32), (32, 32))
    with pytest.raises(CheckpointError, match="crop_mode in config.json is 'border'"):
        opened(crop_mode="border").preprocessing()
    assert opened(crop_mode="border").preprocessing("reference").output_size == (32, 32)
    with pytest.raises(CheckpointError, match="crop_pct in config.json is 0"):
        opened(crop_pct=0).preprocessing()
    with pytest.raises(CheckpointError, match="timm/config.json: resample is 'random'"):
        opened(interpolation="random").preprocessing()
    # An older config.json has these entries beside the architecture.
    flat = {"architecture": "vit_base_patch16_224", "model_args": {"num_heads": 4}, **PRETRAINED}
    assert open_checkpoint(write(tmp_path / "flat", tensors, flat)).preprocessing().image_mean == tuple(MEAN)
    # The weights are of 32 px, whatever size the preprocessing makes: the option decides.
    large = opened(input_size=[3, 64, 64])
    assert large.config.image_size == (32, 32)
    with pytest.raises(CheckpointError, match="makes images of 64 x 64 px, .* --image-size 64 or 32"):
        large.preprocessing()
    assert large.preprocessing(image_size=64).output_size == (64, 64)
