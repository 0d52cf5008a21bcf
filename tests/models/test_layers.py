"""One conformance check for all layers, and the parts of the masked autoencoder."""

import numpy as np
import pytest

from labelrank.models.config import EncoderConfig, TransformerConfig

SMALL = EncoderConfig(
    model_type="vit_mae",
    transformer=TransformerConfig(hidden_dim=16, mlp_dim=32, num_layers=2, num_heads=2, layer_norm_epsilon=1e-6),
    image_size=(8, 12),
    patch_size=(4, 2),
    decoder=TransformerConfig(hidden_dim=8, mlp_dim=16, num_layers=1, num_heads=2, layer_norm_epsilon=1e-6),
)


def layer_cases():
    from labelrank.models.mae import MAEDecoder
    from labelrank.models.vit import SelfAttention, TransformerBlock, ViTEncoder

    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, 5, 16)).astype(np.float32)
    images = rng.normal(size=(3, 8, 12, 3)).astype(np.float32)
    restore = np.stack([rng.permutation(12) for _ in range(3)])
    return {
        "SelfAttention": (SelfAttention(16, 2), (tokens,), (3, 5, 16)),
        "SelfAttention without bias": (SelfAttention(16, 2, use_qkv_bias=False), (tokens,), (3, 5, 16)),
        "TransformerBlock": (TransformerBlock(SMALL.transformer), (tokens,), (3, 5, 16)),
        "ViTEncoder": (ViTEncoder(SMALL), (images,), (3, 13, 16)),
        "ViTEncoder, visible": (ViTEncoder(SMALL), (images, restore[:, :4]), (3, 5, 16)),
        "MAEDecoder": (MAEDecoder(SMALL), (tokens[:, :4], restore), (3, 12, 24)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "SelfAttention",
        "SelfAttention without bias",
        "TransformerBlock",
        "ViTEncoder",
        "ViTEncoder, visible",
        "MAEDecoder",
    ],
)
def test_layer_keeps_shape_dtype_and_config(keras, name):
    layer, inputs, shape = layer_cases()[name]
    output = layer(*inputs)
    assert tuple(output.shape) == shape
    assert tuple(layer.compute_output_shape(*(i.shape for i in inputs))) == shape
    assert keras.backend.standardize_dtype(output.dtype) == "float32"

    again = type(layer).from_config(layer.get_config())
    again(*inputs)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(*inputs)), keras.ops.convert_to_numpy(output))


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(keras):
    from labelrank.models.vit import ViTEncoder

    encoder = ViTEncoder(SMALL, dtype="mixed_bfloat16")
    output = encoder(np.zeros((1, 8, 12, 3), np.float32))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(w.dtype) for w in encoder.weights} == {"float32"}


def test_saved_model_loads_with_the_same_output(keras, tmp_path):
    from labelrank.models.mae import MaskedAutoencoder

    model = MaskedAutoencoder(SMALL)
    model.build()
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.normal(size=(2, 8, 12, 3)).astype(np.float32),
        "noise": rng.random((2, 12), dtype=np.float32),
    }
    before = model(inputs)
    model.save_weights(tmp_path / "model.weights.h5")
    again = MaskedAutoencoder.from_config(model.get_config())
    again.build()
    again.load_weights(tmp_path / "model.weights.h5")
    for name, value in again(inputs).items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(before[name]))


def test_mask_keeps_the_patches_with_the_smallest_noise(keras):
    from labelrank.models.mae import mask_from_noise

    noise = np.array([[0.9, 0.1, 0.5, 0.3]], np.float32)
    visible, restore, mask = (keras.ops.convert_to_numpy(v) for v in mask_from_noise(noise, 2))
    assert visible.tolist() == [[1, 3]]
    assert mask.tolist() == [[1, 0, 1, 0]]
    # Patch i stands at place restore[i] of the shuffled sequence 1, 3, 2, 0.
    assert restore.tolist() == [[3, 0, 2, 1]]


def test_loss_counts_removed_patches_only(keras):
    from labelrank.models.mae import reconstruction_loss
    from labelrank.models.vit import patchify

    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    target = keras.ops.convert_to_numpy(patchify(images, SMALL.patch_size))
    mask = np.zeros((2, 12), np.float32)
    mask[0, 3] = mask[1, 7] = 1
    wrong_where_kept = np.where(mask[:, :, None] == 0, 99, target)
    assert float(reconstruction_loss(images, wrong_where_kept, mask, SMALL)) == pytest.approx(0)
    off_by_two = target + 2 * mask[:, :, None]
    assert float(reconstruction_loss(images, off_by_two, mask, SMALL)) == pytest.approx(4)


def test_patches_are_cut_row_by_row(keras):
    from labelrank.models.vit import patchify

    rows, columns = np.mgrid[0:4, 0:4]
    image = np.stack([rows, columns, rows * 10 + columns], axis=-1)[None].astype(np.float32)
    patches = keras.ops.convert_to_numpy(patchify(image, (2, 2)))
    assert patches.shape == (1, 4, 12)
    assert patches[0, 1].tolist() == [0, 2, 2, 0, 3, 3, 1, 2, 12, 1, 3, 13]


def test_position_table_matches_the_published_layout():
    from labelrank.models.vit import sincos_position_embedding

    table = sincos_position_embedding(8, (2, 3))
    assert table.shape == (1, 7, 8)
    assert not table[0, 0].any()
    # Patch (row 1, column 2): sines and cosines of the column, then of the row, at frequencies 1 and 1/100.
    expected = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02), np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    np.testing.assert_allclose(table[0, 6], expected, atol=1e-7)
