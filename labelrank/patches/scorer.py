"""Density scores of every patch of a sample, compiled for this device."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.errors import CheckpointError
from labelrank.models.backend import devices, select_backend
from labelrank.models.config import EncoderConfig
from labelrank.patches.visible_sets import check_visible, draw_visible, hidden_of, mean_of_rounds, num_places

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint

MAX_CALL_BYTES = 512 << 20
"""What the largest tensors of one call may hold, about."""


def check_decoder(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless a checkpoint can reconstruct what is hidden from it."""
    if checkpoint.config.decoder is None:
        raise CheckpointError(
            f"{checkpoint.id} has no decoder, and patches are scored by what a masked autoencoder reconstructs without "
            "them. Take a checkpoint of the pre-training itself (ViTMAEForPreTraining or VideoMAEForPreTraining, such "
            "as facebook/vit-mae-base), not one fine-tuned from it; `labelrank pretrain` writes one, too."
        )


class PatchScorer:
    """Maps a normalised sample, [T,] H, W, C, and its key to a score of each of its patches in each round.

    Every call has the same shapes, which follow from the checkpoint and the settings alone, so that a sample has the
    same scores whatever other samples there are.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, visible: int, rounds: int = 2, seed: int = 0, variant: str = "exact"
    ) -> None:
        check_decoder(checkpoint)
        check_visible(visible, checkpoint.config)
        self.config = config = checkpoint.config
        self.visible, self.rounds, self.seed = visible, rounds, seed
        sets = rounds * -(-num_places(config) // visible)
        self.sets, self.times = _call_sizes(config, sets, config.num_slices * visible)
        self.runtime, self.device = select_backend(), devices()[0].kind
        self.run = _compile(checkpoint, variant, self.runtime, self.sets, config.num_slices * visible, self.times)

    def __call__(self, sample: np.ndarray, key: str) -> np.ndarray:
        """Return float32 (rounds, N)."""
        drawn = draw_visible(self.config, key, visible=self.visible, rounds=self.rounds, seed=self.seed)
        scores = self.of_sets(sample, drawn.reshape(-1, drawn.shape[2])).reshape(drawn.shape)
        return mean_of_rounds(scores, drawn, self.config.num_patches).astype(np.float32)

    def of_sets(self, sample: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Return the scores of given visible patches int (S, V), float32 (S, V)."""
        hidden = hidden_of(visible, self.config.num_patches)
        scores = np.empty(visible.shape, np.float32)
        for first_set in range(0, len(visible), self.sets):
            # Short calls are filled up with what comes last, so that nothing is compiled twice.
            of = np.minimum(np.arange(first_set, first_set + self.sets), len(visible) - 1)
            for first in range(0, visible.shape[1], self.times):
                removed = np.minimum(np.arange(first, first + self.times), visible.shape[1] - 1)
                scores[of[:, None], removed] = self.run(
                    np.asarray(sample[None], np.float32),
                    visible[of].astype(np.int32),
                    hidden[of],
                    removed.astype(np.int32),
                )
        return scores


def _call_sizes(config: EncoderConfig, sets: int, count: int) -> tuple[int, int]:
    """Return how many sets, and how many removals of each, one call takes; calls are of about the same size."""
    assert config.decoder is not None
    tokens = config.num_prefix + config.num_patches
    decoder = config.decoder
    row = 4 * tokens * (decoder.num_heads * tokens + decoder.mlp_dim + 4 * decoder.hidden_dim + 2 * config.patch_dim)
    rows = max(1, MAX_CALL_BYTES // row)
    if rows < count:
        return 1, math.ceil(count / math.ceil(count / rows))
    return math.ceil(sets / math.ceil(sets / (rows // count))), count


def _compile(
    checkpoint: Checkpoint, variant: str, runtime: str, sets: int, count: int, times: int
) -> Callable[..., np.ndarray]:
    from labelrank.models.convert import load_tensors
    from labelrank.models.mae import MaskedAutoencoder
    from labelrank.patches.density import DensityScores

    config = checkpoint.config
    autoencoder = MaskedAutoencoder(config)
    autoencoder.build()
    load_tensors(checkpoint.tensors(), autoencoder.encoder, autoencoder.decoder, source=checkpoint.source)
    layer = DensityScores(autoencoder, variant=variant)
    shapes = ((1, *config.input_shape), (sets, count), (sets, config.num_patches - count), (times,))
    types = ("float32", "int32", "int32", "int32")
    if runtime == "openvino":
        return _compile_openvino(layer, shapes, types)
    if runtime == "tensorflow":
        return _compile_tensorflow(layer, shapes, types)

    def run(*inputs: np.ndarray) -> np.ndarray:
        from keras import ops

        return np.asarray(ops.convert_to_numpy(layer(*map(ops.convert_to_tensor, inputs))))

    return run


def _compile_tensorflow(layer: Any, shapes: Any, types: Any) -> Callable[..., np.ndarray]:
    import tensorflow as tf

    # A score is a small difference between two reconstructions.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    signature = [tf.TensorSpec(shape, type_) for shape, type_ in zip(shapes, types, strict=True)]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def score(*inputs: Any) -> Any:
        return layer(*inputs)

    score.get_concrete_function()  # traced now, so that errors come before the first sample
    return lambda *inputs: np.asarray(score(*map(tf.convert_to_tensor, inputs)))


def _compile_openvino(layer: Any, shapes: Any, types: Any) -> Callable[..., np.ndarray]:
    import keras
    import openvino

    # Keras exports several inputs only by name, in the order of their names.
    specs = {name: keras.InputSpec(*of) for name, *of in zip("abcd", types, shapes, strict=True)}
    inputs = {name: keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name) for name, spec in specs.items()}
    model = keras.Model(inputs, layer(*inputs.values()))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scores.xml"
        model.export(str(path), format="openvino", verbose=False, input_signature=specs)
        core = openvino.Core()
        request = core.compile_model(
            core.read_model(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": cpu_cores(),
                "ENABLE_CPU_PINNING": False,
            },
        ).create_infer_request()

    def run(*arrays: np.ndarray) -> np.ndarray:
        request.infer(list(arrays))
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run
