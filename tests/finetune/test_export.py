"""What is written is what was trained: folders, `model.keras`, cards; refusals where nothing fits."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from labelrank.errors import CheckpointError
from labelrank.finetune.export import caution_of, read_model, write_head_model
from labelrank.finetune.export_card import CardFacts
from labelrank.finetune.export_forms import class_for
from tests.finetune.small import CLIPS, IMAGES, PREPROCESSING, encoder

NAMES = ["ant", "bee", "café, noir"]
ORDER = [2, 0, 1]
FC_NORM = {"fc_norm.weight": np.linspace(0.5, 1.5, 16, dtype=np.float32), "fc_norm.bias": np.full(16, 0.1, np.float32)}
NORM = {"norm_gamma": np.linspace(1, 2, 16, dtype=np.float32), "norm_beta": np.full(16, 0.2, np.float32)}


def head(meaning="softmax", n_classes=3, **more):
    rng = np.random.default_rng(1)
    columns = {"softmax": n_classes, "gaussian": n_classes, "ordinal": 1}.get(meaning, n_classes - 1)
    outputs = n_classes if meaning in ("softmax", "gaussian") else n_classes - 1
    shift = "thresholds" if meaning == "ordinal" else "bias"
    return {
        "kernel": rng.normal(size=(16, columns)).astype(np.float32),
        shift: np.sort(rng.normal(size=outputs)).astype(np.float32),
        **more,
    }


def write(folder, config=IMAGES, meaning="softmax", pooling="mean", **options):
    built = encoder(config=config)
    options = {"head": head(meaning), "preprocessing": PREPROCESSING, **options}
    given = options.pop("head")
    return write_head_model(folder, built, given, ORDER, NAMES, pooling=pooling, meaning=meaning, **options)


def inputs(config=IMAGES):
    return np.random.default_rng(2).normal(size=(4, *config.input_shape)).astype(np.float32)


def expected(config, meaning, pooling, given, fc_norm=None):
    """Return log probabilities by position, computed in NumPy from the encoder's tokens."""
    from keras import ops

    from labelrank.finetune.meanings import meaning_of

    tokens = ops.convert_to_numpy(encoder(config=config)(inputs(config)))
    pooled = tokens[:, 0] if pooling == "cls" else tokens[:, int(config.use_cls_token) :].mean(axis=1)

    def norm(x, gamma, beta, epsilon):
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + epsilon) * gamma + beta

    if pooling == "fc_norm":
        pooled = norm(pooled, *fc_norm.values(), 1e-5)
    if "norm_gamma" in given:
        pooled = norm(pooled, given["norm_gamma"], given["norm_beta"], given["norm_epsilon"])
    columns = pooled @ given["kernel"]
    outputs = columns - given["thresholds"] if meaning == "ordinal" else columns + given["bias"]
    return meaning_of(meaning, 3).log_probabilities(outputs.astype(np.float64))


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


NO_FINAL_NORM = replace(CLIPS, final_norm=False, fc_norm=True)
IMAGE_MEAN = replace(IMAGES, final_norm=False)
CASES = {
    "cls": (IMAGES, "softmax", "cls", head(), None, "ViTForImageClassification"),
    "mean": (IMAGES, "softmax", "mean", head(), None, "Dinov2ForImageClassification"),
    "mean, gaussian": (IMAGES, "gaussian", "mean", head("gaussian"), None, "Dinov2ForImageClassification"),
    "mean, normed": (
        IMAGE_MEAN,
        "softmax",
        "mean",
        head(**NORM, norm_epsilon=np.float32(1e-6)),
        None,
        "BeitForImageClassification",
    ),
    "clips, fc_norm": (NO_FINAL_NORM, "softmax", "fc_norm", head(), FC_NORM, "VideoMAEForVideoClassification"),
    "clips, normed": (
        NO_FINAL_NORM,
        "softmax",
        "mean",
        head(**NORM, norm_epsilon=1e-5),
        None,
        "VideoMAEForVideoClassification",
    ),
    "clips, mean": (CLIPS, "softmax", "mean", head(), None, "VideoMAEForVideoClassification"),
    "clips, gaussian": (CLIPS, "gaussian", "mean", head("gaussian"), None, "VideoMAEForVideoClassification"),
    "clips, normed twice": (CLIPS, "softmax", "mean", head(**NORM, norm_epsilon=1e-5), None, None),
    "clips, no norm": (replace(CLIPS, final_norm=False), "softmax", "mean", head(), None, None),
    "clips, reference head": (NO_FINAL_NORM, "softmax", "mean", head(**NORM, norm_epsilon=1e-6), None, None),
    "clips, two norms": (NO_FINAL_NORM, "softmax", "fc_norm", head(**NORM, norm_epsilon=1e-6), FC_NORM, None),
    "cls, ordinal": (IMAGES, "ordinal", "cls", head("ordinal"), None, None),
    "mean, cumulative": (IMAGES, "cumulative", "mean", head("cumulative"), None, None),
    "mean, tree": (IMAGES, "tree", "mean", head("tree"), None, None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_model_comes_back_and_computes_what_the_parts_do(tmp_path, case):
    import keras

    config, meaning, pooling, given, fc_norm, architecture = case
    found = write(
        tmp_path / "model",
        config,
        meaning,
        pooling,
        head=given,
        fc_norm=fc_norm,
        keras_file=tmp_path / "model.keras",
    )
    assert found == architecture
    truth = expected(config, meaning, pooling, given, fc_norm)
    scores = np.asarray(keras.saving.load_model(tmp_path / "model.keras")(inputs(config)))
    assert scores.shape == (4, 3)
    assert log_softmax(scores) == pytest.approx(truth, abs=1e-4)
    files = json.loads((tmp_path / "model" / "config.json").read_text())
    assert files["architectures"] == [architecture or "LabelRankClassifier"]
    if architecture is None:
        again = read_model(tmp_path / "model")
        assert np.asarray(again(inputs(config))) == pytest.approx(scores, abs=1e-6)
        assert files["model_type"] == "labelrank_classifier"
    else:
        with pytest.raises(CheckpointError, match="Load it with transformers"):
            read_model(tmp_path / "model")


def test_outputs_are_named_in_the_order_of_the_positions(tmp_path):
    write(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "café, noir", "1": "ant", "2": "bee"}
    assert config["label2id"] == {"café, noir": 0, "ant": 1, "bee": 2}
    assert json.loads((tmp_path / "model" / "preprocessor_config.json").read_text()) == PREPROCESSING.to_config()


@pytest.mark.slow
def test_model_keras_loads_in_a_fresh_process_by_one_import(tmp_path):
    write(tmp_path / "model", CLIPS, keras_file=tmp_path / "model.keras")
    code = (
        "import sys, keras, labelrank.finetune.classifier\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "print(model.name, model.count_params())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("classifier ")


def test_images_of_another_size_keep_their_positions(tmp_path):
    # The table was stretched: by the file of a ViT's folder as it is used; VideoMAE's is computed, so ours alone knows.
    larger = replace(IMAGES, model_type="vit").resized(12, 12)
    assert write(tmp_path / "vit", larger, pooling="cls") == "ViTForImageClassification"
    clips = replace(NO_FINAL_NORM, image_size=(12, 12), trained_image_size=(8, 8))
    given = {"pooling": "fc_norm", "fc_norm": FC_NORM}
    assert write(tmp_path / "clips", clips, **given) is None
    scores = np.asarray(read_model(tmp_path / "clips")(inputs(clips)))
    assert log_softmax(scores) == pytest.approx(expected(clips, "softmax", "fc_norm", head(), FC_NORM), abs=1e-4)


@pytest.mark.parametrize("scale", [1, 20])
@pytest.mark.parametrize("bias", [True, False])
def test_a_mean_of_normed_tokens_is_a_block_more_of_the_same_encoder(tmp_path, scale, bias):
    """As VideoMAEForVideoClassification computes it without mean pooling: final norm, first token, dense."""
    from labelrank.models.convert import load_tensors
    from labelrank.models.vit import ViTEncoder

    config = replace(CLIPS, transformer=replace(CLIPS.transformer, use_qkv_bias=bias))
    given = head()
    given["kernel"] *= scale
    write(tmp_path, config, head=given)
    files = json.loads((tmp_path / "config.json").read_text())
    assert (files["num_hidden_layers"], files["use_mean_pooling"]) == (3, False)
    longer = ViTEncoder(replace(config, transformer=replace(config.transformer, num_layers=3)), dtype="float32")
    longer.build((None, *config.input_shape))
    tensors = load_file(tmp_path / "model.safetensors")
    dense = {name: tensors.pop(f"classifier.{name}") for name in ("weight", "bias")}
    load_tensors(tensors, longer, source="the folder")
    scores = np.asarray(longer(inputs(config)))[:, 0] @ dense["weight"].T + dense["bias"]
    truth = expected(config, "softmax", "mean", given)
    assert log_softmax(scores.astype(np.float64)) == pytest.approx(truth, abs=1e-4, rel=1e-5)


def test_a_model_whose_last_block_is_a_head_is_told_and_not_taken_for_an_encoder(tmp_path):
    from labelrank.models.checkpoint import open_checkpoint

    write(tmp_path, CLIPS)
    assert "float16 cannot hold them" in caution_of(tmp_path)
    assert "float16 cannot hold them" in (tmp_path / "README.md").read_text()
    with pytest.raises(
        CheckpointError, match="is a classifier that labelrank wrote: .* Give the checkpoint that it was"
    ):
        open_checkpoint(str(tmp_path))


def test_it_is_known_which_models_transformers_does_not_load(tmp_path):
    write(tmp_path / "own", meaning="ordinal")
    assert caution_of(tmp_path / "own").startswith("transformers cannot load the model in Hugging Face format")
    write(tmp_path / "vit", pooling="cls")
    assert caution_of(tmp_path / "vit") is None
    facts = {"meaning": "softmax", "pooling": "mean", "norms": []}
    assert class_for(CLIPS, n_classes=13, **facts) == "VideoMAEForVideoClassification"
    assert class_for(CLIPS, n_classes=14, **facts) is None  # 16 dimensions, of which three hold constants


def test_folder_is_one_of_our_checkpoints_too_where_the_family_is_known(tmp_path):
    from labelrank.models.checkpoint import open_checkpoint
    from labelrank.models.runtime import build_encoder

    write(tmp_path / "cls", pooling="cls")
    write(tmp_path / "clips", NO_FINAL_NORM, pooling="fc_norm", fc_norm=FC_NORM)
    for name, config in (("cls", IMAGES), ("clips", NO_FINAL_NORM)):
        checkpoint = open_checkpoint(str(tmp_path / name))
        tokens = np.asarray(build_encoder(checkpoint)(inputs(config)))
        assert tokens == pytest.approx(np.asarray(encoder(config=config)(inputs(config))), abs=1e-5)
    assert open_checkpoint(str(tmp_path / "clips")).config.fc_norm


def test_folder_is_replaced_whole_and_left_alone_by_a_failure(tmp_path, monkeypatch):
    write(tmp_path / "model")
    (tmp_path / "model" / "old").write_text("x")
    write(tmp_path / "model")
    assert not (tmp_path / "model" / "old").exists()
    before = sorted(p.name for p in (tmp_path / "model").iterdir())
    assert before == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]

    import safetensors.numpy

    def fill(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save", fill)
    with pytest.raises(CheckpointError, match=r"cannot be written to .* \(No space left on device\)"):
        write(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_card_says_what_it_is_how_to_load_it_and_whose_it_is(tmp_path):
    facts = CardFacts(
        title="Digits",
        dataset="digits",
        base_model="mae-tiny-digits",
        licence="apache-2.0",
        lines=("Accuracy 97.0 %.",),
    )
    write(tmp_path / "a", facts=facts)
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "image-classification"
    assert (front["datasets"], front["base_model"]) == (["digits"], "mae-tiny-digits")
    assert "# Digits" in card
    assert "- Accuracy 97.0 %." in card
    assert "Dinov2ForImageClassification.from_pretrained(folder)" in card
    assert "keras.saving.load_model" in card
    assert "import keras, labelrank.finetune.classifier" in card
    why = "transformers has no class that averages the patch tokens of a ViT-MAE; Dinov2ForImageClassification computes"
    assert why in card
    write(tmp_path / "cls", pooling="cls")
    assert "no class that classifies by the CLS token of a ViT-MAE; ViTFor" in (tmp_path / "cls/README.md").read_text()
    write(tmp_path / "own", NO_FINAL_NORM, pooling="fc_norm", fc_norm=FC_NORM)
    assert "transformers has no class" not in (tmp_path / "own" / "README.md").read_text()
    write(tmp_path / "b", CLIPS, meaning="ordinal")
    card = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert "library_name" not in front
    assert "license" not in front
    assert "No class of transformers computes this model" in card
    assert "read_model" in card
    assert "# the softmax of its outputs is the probability of each position" in card
    assert "is not known here" in card


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": {**head(), "kernel": np.zeros((8, 3), np.float32)}}, r"kernel has the shape \(8, 3\)"),
        ({"head": {"kernel": np.zeros((16, 3), np.float32)}}, "The head has no bias"),
        ({"head": head("ordinal"), "meaning": "ordinal", "config": CLIPS, "pooling": "cls"}, "this encoder has mean"),
        ({"pooling": "fc_norm"}, "the checkpoint's norm was not given"),
        ({"pooling": "max"}, "Pooling is 'max'; this encoder has mean, cls"),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, options, said):
    with pytest.raises(CheckpointError, match=said):
        write(tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


def test_order_of_other_classes_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="The model has 3 classes; the order names 3 and 2 class names"):
        write_head_model(
            tmp_path / "m", encoder(), head(), ORDER, NAMES[:2], pooling="mean", preprocessing=PREPROCESSING
        )


def test_damaged_folder_is_refused(tmp_path):
    write(tmp_path / "m", CLIPS)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="holds no readable model"):
        read_model(tmp_path / "m")
    with pytest.raises(CheckpointError, match="holds no readable model"):
        read_model(tmp_path / "nothing")
