"""One conformance check for all layers, and the parts of the masked autoencoders."""

from dataclasses import replace

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

CLIPS = EncoderConfig(
    model_type="videomae",
    transformer=TransformerConfig(hidden_dim=15, mlp_dim=32, num_layers=2, num_heads=3, use_key_bias=False),
    image_size=(8, 12),
    patch_size=(4, 2),
    decoder=TransformerConfig(hidden_dim=6, mlp_dim=16, num_layers=1, num_heads=2, use_key_bias=False),
    mask_ratio=0.5,
    norm_pix_loss=True,
    num_frames=6,
    tubelet_size=3,
    use_cls_token=False,
)

# Every part that other families have.
PARTS = replace(
    SMALL,
    model_type="dinov2_with_registers",
    transformer=replace(SMALL.transformer, layer_scale=True, gated_mlp=True, activation="quick_gelu"),
    decoder=None,
    use_distillation_token=True,
    num_registers=3,
    patch_bias=False,
    pre_norm=True,
)
ROTARY = replace(PARTS, learned_positions=False, rotary="image", rotary_base=100.0)
BIASED = replace(SMALL, model_type="beit", decoder=None, learned_positions=False, relative_bias="own")
SHARED = replace(BIASED, relative_bias="shared")
ROTARY_CLIPS = replace(CLIPS, model_type="vjepa2", decoder=None, learned_positions=False, rotary="clip")


def layer_case(name):
    """Return a layer, its inputs and the shape of its output."""
    from labelrank.models.mae import MAEDecoder, VideoMAEDecoder
    from labelrank.models.vit import SelfAttention, TransformerBlock, ViTEncoder

    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, 5, 16)).astype(np.float32)
    images = rng.normal(size=(3, 8, 12, 3)).astype(np.float32)
    clips = rng.normal(size=(3, 6, 8, 12, 3)).astype(np.float32)
    restore = np.stack([rng.permutation(12) for _ in range(3)])
    tubelets = np.stack([rng.permutation(24) for _ in range(3)])
    return {
        "SelfAttention": lambda: (SelfAttention(16, 2), (tokens,), (3, 5, 16)),
        "SelfAttention without bias": lambda: (SelfAttention(16, 2, use_qkv_bias=False), (tokens,), (3, 5, 16)),
        "SelfAttention without key bias": lambda: (SelfAttention(16, 2, use_key_bias=False), (tokens,), (3, 5, 16)),
        "TransformerBlock": lambda: (TransformerBlock(SMALL.transformer), (tokens,), (3, 5, 16)),
        "ViTEncoder": lambda: (ViTEncoder(SMALL), (images,), (3, 13, 16)),
        "ViTEncoder, visible": lambda: (ViTEncoder(SMALL), (images, restore[:, :4]), (3, 5, 16)),
        "ViTEncoder, learned positions": lambda: (ViTEncoder(replace(SMALL, model_type="vit")), (images,), (3, 13, 16)),
        "ViTEncoder, resized": lambda: (ViTEncoder(SMALL.resized(4, 8)), (images[:, :4, :8],), (3, 5, 16)),
        "ViTEncoder of clips": lambda: (ViTEncoder(CLIPS), (clips,), (3, 24, 15)),
        "ViTEncoder of clips, visible": lambda: (ViTEncoder(CLIPS), (clips, tubelets[:, :7]), (3, 7, 15)),
        "ViTEncoder of clips, resized": lambda: (ViTEncoder(CLIPS.resized(4, 8)), (clips[:, :, :4, :8],), (3, 8, 15)),
        "ViTEncoder without norm": lambda: (ViTEncoder(replace(CLIPS, final_norm=False)), (clips,), (3, 24, 15)),
        "ViTEncoder, parts": lambda: (ViTEncoder(PARTS), (images,), (3, 17, 16)),
        "ViTEncoder, rotary": lambda: (ViTEncoder(ROTARY), (images,), (3, 17, 16)),
        "ViTEncoder, own bias": lambda: (ViTEncoder(BIASED), (images,), (3, 13, 16)),
        "ViTEncoder, shared bias": lambda: (
            ViTEncoder(replace(BIASED, relative_bias="shared")),
            (images,),
            (3, 13, 16),
        ),
        "ViTEncoder of clips, rotary": lambda: (ViTEncoder(ROTARY_CLIPS), (clips,), (3, 24, 15)),
        "MAEDecoder": lambda: (MAEDecoder(SMALL), (tokens[:, :4], restore), (3, 12, 24)),
        "VideoMAEDecoder": lambda: (
            VideoMAEDecoder(CLIPS),
            (tokens[:, :, :15], tubelets[:, :5], tubelets[:, 5:]),
            (3, 19, 72),
        ),
    }[name]()


LAYERS = (
    *("SelfAttention", "SelfAttention without bias", "SelfAttention without key bias", "TransformerBlock"),
    *("ViTEncoder", "ViTEncoder, visible", "ViTEncoder, learned positions", "ViTEncoder, resized"),
    *("ViTEncoder of clips", "ViTEncoder of clips, visible", "ViTEncoder of clips, resized", "ViTEncoder without norm"),
    *("ViTEncoder, parts", "ViTEncoder, rotary", "ViTEncoder, own bias", "ViTEncoder, shared bias"),
    *("ViTEncoder of clips, rotary", "MAEDecoder", "VideoMAEDecoder"),
)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_keeps_shape_dtype_and_config(keras, name):
    layer, inputs, shape = layer_case(name)
    output = layer(*inputs)
    assert tuple(output.shape) == shape
    assert tuple(layer.compute_output_shape(*(i.shape for i in inputs))) == shape
    assert keras.backend.standardize_dtype(output.dtype) == "float32"

    again = type(layer).from_config(layer.get_config())
    again(*inputs)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(*inputs)), keras.ops.convert_to_numpy(output))


@pytest.mark.parametrize("config", [SMALL, CLIPS, PARTS, ROTARY, BIASED])
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(keras, config):
    from labelrank.models.vit import ViTEncoder

    encoder = ViTEncoder(config, dtype="mixed_bfloat16")
    output = encoder(np.zeros((1, *config.input_shape), np.float32))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(w.dtype) for w in encoder.weights} == {"float32"}


@pytest.mark.parametrize("config", [SMALL, CLIPS], ids=["images", "clips"])
def test_saved_model_loads_with_the_same_output(keras, tmp_path, config):
    from labelrank.models.mae import MaskedAutoencoder

    model = MaskedAutoencoder(config)
    model.build()
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.normal(size=(2, *config.input_shape)).astype(np.float32),
        "noise": rng.random((2, *config.noise_shape), dtype=np.float32),
    }
    before = model(inputs)
    model.save_weights(tmp_path / "model.weights.h5")
    again = MaskedAutoencoder.from_config(model.get_config())
    again.build()
    again.load_weights(tmp_path / "model.weights.h5")
    for name, value in again(inputs).items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(before[name]))


@pytest.mark.slow
def test_a_masked_autoencoder_of_clips_learns_and_has_no_tables_among_its_weights(keras):
    from labelrank.models.convert import save_tensors
    from labelrank.models.mae import MaskedAutoencoder

    keras.utils.set_random_seed(0)
    model = MaskedAutoencoder(CLIPS)
    model.build()
    rng = np.random.default_rng(0)
    inputs = {
        "images": np.tile(rng.normal(size=(1, 3, 4, 2, 3)), (8, 2, 2, 6, 1)).astype(np.float32),  # one tubelet, tiled
        "noise": rng.random((8, *CLIPS.noise_shape), dtype=np.float32),
    }
    before = float(model(inputs)["loss"])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(inputs, np.zeros(8), epochs=60, batch_size=8, verbose=0)
    # Standardised pixels: predicting zero everywhere has a loss of about 1.
    assert float(model(inputs)["loss"]) < 0.5 < before
    assert model.count_params() == sum(t.size for t in save_tensors(model.encoder, model.decoder).values())


def test_mask_keeps_the_patches_with_the_smallest_noise(keras):
    from labelrank.models.mae import mask_from_noise

    noise = np.array([[0.9, 0.1, 0.5, 0.3]], np.float32)
    visible, restore, mask = (keras.ops.convert_to_numpy(v) for v in mask_from_noise(noise, 2))
    assert visible.tolist() == [[1, 3]]
    assert mask.tolist() == [[1, 0, 1, 0]]
    # Patch i stands at place restore[i] of the shuffled sequence 1, 3, 2, 0.
    assert restore.tolist() == [[3, 0, 2, 1]]


def test_tubes_hide_the_same_places_in_every_slice(keras):
    from labelrank.models.mae import tubes_from_noise

    noise = np.random.default_rng(0).random((3, 12), dtype=np.float32)
    visible, hidden, mask = (keras.ops.convert_to_numpy(v) for v in tubes_from_noise(noise, CLIPS))
    assert visible.shape == hidden.shape == (3, 12)
    for i in range(3):
        kept = np.sort(np.argsort(noise[i])[:6])
        assert visible[i].tolist() == [*kept, *kept + 12]
        assert sorted([*visible[i], *hidden[i]]) == list(range(24))
        assert hidden[i].tolist() == np.flatnonzero(mask[i]).tolist()


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


def test_loss_of_clips_looks_at_standardised_pixels_of_hidden_tubelets(keras):
    from labelrank.models.mae import tubelet_loss
    from labelrank.models.vit import patchify

    clips = np.random.default_rng(0).normal(size=(2, *CLIPS.input_shape)).astype(np.float32)
    hidden = np.array([[3, 7], [0, 23]])
    raw = replace(CLIPS, norm_pix_loss=False)
    pixels = patchify(clips * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406], CLIPS.patch_size, CLIPS.tubelet_size)
    pixels = np.take_along_axis(keras.ops.convert_to_numpy(pixels), hidden[:, :, None], axis=1)
    assert float(tubelet_loss(clips, pixels.astype(np.float32), hidden, raw)) == pytest.approx(0, abs=1e-12)
    assert float(tubelet_loss(clips, pixels.astype(np.float32) + 2, hidden, raw)) == pytest.approx(4, rel=1e-5)

    channels = pixels.reshape(2, 2, 24, 3)
    target = (channels - channels.mean(axis=2, keepdims=True)) / channels.std(axis=2, ddof=1, keepdims=True)
    target = target.reshape(2, 2, 72).astype(np.float32)
    assert float(tubelet_loss(clips, target, hidden, CLIPS)) == pytest.approx(0, abs=1e-8)
    # So another normalisation of the same clips changes nothing.
    assert float(tubelet_loss(clips * 3 - 1, target, hidden, CLIPS)) == pytest.approx(0, abs=1e-8)


def test_tubelets_are_cut_slice_by_slice_and_hold_their_frames_one_after_the_other(keras):
    from labelrank.models.vit import patchify

    frames, rows, columns = np.mgrid[0:4, 0:4, 0:2]
    clip = np.stack([frames, rows, columns], axis=-1)[None].astype(np.float32)
    tubelets = keras.ops.convert_to_numpy(patchify(clip, (2, 2), 2)).reshape(4, 2, 2, 2, 3)
    # Tubelet 3: the second slice (frames 2 and 3), the lower patch (rows 2 and 3).
    np.testing.assert_array_equal(tubelets[3], clip[0, 2:4, 2:4, 0:2])
    np.testing.assert_array_equal(tubelets[1], clip[0, 0:2, 2:4, 0:2])


@pytest.mark.parametrize("config", [ROTARY, BIASED], ids=["rotary", "biased"])
def test_an_encoder_that_places_patches_by_their_number_takes_all_of_them(keras, config):
    from labelrank.models.vit import ViTEncoder

    images, visible = np.zeros((1, 8, 12, 3), np.float32), np.zeros((1, 4), np.int32)
    with pytest.raises(ValueError, match="encodes every patch"):
        ViTEncoder(config)(images, visible)


@pytest.mark.parametrize("config", [PARTS, SHARED], ids=["parts", "biased"])
def test_the_weights_before_the_blocks_are_all_weights_of_no_block_but_the_last_norm(keras, config):
    from labelrank.models.vit import ViTEncoder

    encoder = ViTEncoder(config)
    encoder.build((None, *config.input_shape))
    of_blocks = {id(v) for block in encoder.blocks for v in block.variables}
    rest = {id(v) for v in encoder.variables} - of_blocks - {id(v) for v in encoder.norm.variables}
    assert {id(v) for v in encoder.embedding_variables} == rest


def test_antialiased_table_is_that_of_the_peer():
    from labelrank.models.vit import interpolate_position_embedding

    squares = (np.arange(20, dtype=np.float32) ** 2).reshape(1, 20, 1)
    # torch 2.13: interpolate((arange(20.) ** 2).reshape(1, 1, 4, 5), (2, 7), mode="bicubic", align_corners=False,
    # antialias=True)
    expected = [
        [14.682582, 18.336006, 24.279984, 30.818182, 38.376789, 48.075985, 55.303303],
        [150.602112, 164.325211, 184.746323, 204.330582, 224.935226, 249.111572, 266.4086],
    ]
    found = interpolate_position_embedding(squares, (4, 5), (2, 7), antialias=True)
    np.testing.assert_allclose(found.reshape(2, 7), expected, rtol=1e-5)


def test_sinusoid_table_counts_tokens():
    from labelrank.models.vit import sinusoid_position_embedding

    table = sinusoid_position_embedding(5, 40)
    assert (table.shape, table.dtype) == ((1, 40, 5), np.float32)
    expected = [np.sin(7), np.cos(7), np.sin(7 / 10000**0.4), np.cos(7 / 10000**0.4), np.sin(7 / 10000**0.8)]
    np.testing.assert_allclose(table[0, 7], expected, atol=1e-7)


def test_interpolated_table_is_that_of_the_peer():
    from labelrank.models.vit import interpolate_position_embedding

    squares = (np.arange(12, dtype=np.float32) ** 2).reshape(1, 12, 1)
    # torch 2.13: interpolate((arange(12.) ** 2).reshape(1, 1, 3, 4), (2, 6), mode="bicubic", align_corners=False)
    expected = [
        [1.717769980430603, 2.778320074081421, 5.225399971008301, 7.8266801834106445, 12.6904296875, 16.09819984436035],
        [52.34474182128906, 59.7841796875, 72.66812133789062, 82.69647216796875, 97.9970703125, 107.78375244140625],
    ]
    found = interpolate_position_embedding(squares, (3, 4), (2, 6), prefix=0)
    np.testing.assert_allclose(found.reshape(2, 6), expected, rtol=1e-5)


def test_interpolation_leaves_cls_time_and_constants_alone():
    from labelrank.models.vit import interpolate_position_embedding

    table = np.random.default_rng(0).normal(size=(1, 1 + 3 * 4, 5)).astype(np.float32)
    assert interpolate_position_embedding(table, (3, 4), (3, 4), prefix=1) is table
    larger = interpolate_position_embedding(table, (3, 4), (6, 7), prefix=1)
    assert (larger.shape, larger.dtype) == ((1, 1 + 42, 5), np.float32)
    np.testing.assert_array_equal(larger[:, 0], table[:, 0])

    slices = np.repeat(np.arange(3, dtype=np.float32), 4).reshape(1, 12, 1)  # one number per slice of 2 x 2
    found = interpolate_position_embedding(slices, (2, 2), (3, 5), prefix=0).reshape(3, 15)
    np.testing.assert_allclose(found, np.repeat(np.arange(3), 15).reshape(3, 15), atol=1e-6)


def test_a_resized_encoder_of_clips_interpolates_the_trained_table(keras):
    from labelrank.models.vit import ViTEncoder, interpolate_position_embedding

    trained, resized = ViTEncoder(CLIPS), ViTEncoder(CLIPS.resized(16, 12))
    for encoder in (trained, resized):
        encoder.build((None, *encoder.config.input_shape))
    expected = interpolate_position_embedding(trained.position_embedding, (2, 6), (4, 6), prefix=0)
    np.testing.assert_array_equal(resized.position_embedding, expected)
    assert resized.position_embedding.shape == (1, 48, 15)


def test_position_table_matches_the_published_layout():
    from labelrank.models.vit import sincos_position_embedding

    table = sincos_position_embedding(8, (2, 3))
    assert table.shape == (1, 7, 8)
    assert not table[0, 0].any()
    # Patch (row 1, column 2): sines and cosines of the column, then of the row, at frequencies 1 and 1/100.
    expected = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02), np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    np.testing.assert_allclose(table[0, 6], expected, atol=1e-7)


def test_stochastic_depth_leaves_out_the_branches_that_are_zero():
    from keras import ops

    from labelrank.models.vit import ViTEncoder

    encoder = ViTEncoder(replace(SMALL, final_norm=False))
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    whole = ops.convert_to_numpy(encoder(images))
    branch_scale = np.ones((2, 2, 2), np.float32)
    assert ops.convert_to_numpy(encoder(images, branch_scale=branch_scale)) == pytest.approx(whole, abs=1e-6)
    # The first sample goes through nothing but the embedding.
    branch_scale[0] = 0
    kept = ops.convert_to_numpy(encoder(images, branch_scale=branch_scale))
    assert kept[1] == pytest.approx(whole[1], abs=1e-6)
    for block in encoder.blocks:
        block.attention.output_dense.kernel.assign(np.zeros((16, 16)))
        block.mlp_out.kernel.assign(np.zeros((32, 16)))
    assert kept[0] == pytest.approx(ops.convert_to_numpy(encoder(images))[0], abs=1e-6)
    assert kept[0] != pytest.approx(whole[0], abs=1e-3)
