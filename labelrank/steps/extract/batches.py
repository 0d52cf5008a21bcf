"""An encoder for a pipeline of your own: batches of images in, their features out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.data.image import decode_image
from labelrank.data.reading import one_sample
from labelrank.errors import FeaturesError, MediaError, SettingsError
from labelrank.features.encode import encode_inputs
from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.pooling import poolings_of
from labelrank.models.runtime import compile_encoder
from labelrank.settings import Settings
from labelrank.steps.extract.plan import fitting_batch


class BatchEncoder:
    """Adds features to batches of images, as `ray.data.Dataset.map_batches` passes them to a class.

    The features are those of `labelrank extract` with the same settings, up to the rounding of a batch's size::

        import ray
        from labelrank.steps.extract.batches import BatchEncoder

        images = ray.data.read_images("s3://bucket/images", include_paths=True)
        features = images.map_batches(
            BatchEncoder,
            fn_constructor_kwargs={"checkpoint": "facebook/vit-mae-base"},
            batch_size=256,
            num_gpus=1,
            compute=ray.data.ActorPoolStrategy(size=8),
        )
        features.select_columns(["path", "features"]).write_parquet("s3://bucket/features")

    Each actor opens the checkpoint and builds the encoder once. `labelrank rank` reads such a table if it has a column
    of labels.

    Args:
        checkpoint: Embedded name, folder, or model id of the Hub.
        checkpoint_revision: Branch, tag or commit of a checkpoint on the Hub.
        column: Of the images: RGB uint8 arrays (H, W, 3), of one size or of several, or files of images as bytes, also
            as datasets of the Hub have them ({"bytes": ..., "path": ...}). For a checkpoint that takes clips, RGB uint8
            arrays (T, H, W, 3) with its number of frames.
        to: Column that is added, float32 (n, D).
        pooling: mean or cls.
        precision: auto, float32, bfloat16 or int8.
        preprocessing: checkpoint or reference.
        image_size: Height and width in pixels; the checkpoint's own by default.
        settings: The workspace, where a built encoder is kept, and the limits of an image; those of the environment by
            default.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        HubError: A download failed.
        SettingsError: A setting does not fit it.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        checkpoint_revision: str | None = None,
        column: str = "image",
        to: str = "features",
        pooling: str = "mean",
        precision: str = "auto",
        preprocessing: str = "checkpoint",
        image_size: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or Settings.from_env()
        found = open_checkpoint(checkpoint, revision=checkpoint_revision, settings=self._settings)
        config = found.config
        known = poolings_of(has_cls=config.use_cls_token, has_fc_norm=config.fc_norm)
        if pooling not in known:
            raise SettingsError(f"Pooling is {pooling!r}, which {found.id} does not have; choose {' or '.join(known)}.")
        self._frames, self._column, self._to, self._pooling = config.num_frames, column, to, pooling
        self._prepare = found.preprocessing(preprocessing, image_size)
        found.fetch()
        self._encoder = compile_encoder(
            found,
            precision=precision,
            batch_size=fitting_batch(config.num_patches),
            image_size=self._prepare.output_size,
            pooling=pooling,
            cache=self._settings.encoders,
        )
        self._readers = ThreadPoolExecutor(max(2, cpu_cores()), thread_name_prefix="reader")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with its features.

        Raises:
            FeaturesError: It has no column of images, or is no mapping from names to columns.
            MediaError: An image cannot be read; the message has its row in the batch.
        """
        if not hasattr(batch, "keys"):
            raise FeaturesError(
                f"The batch is a {type(batch).__name__}; expected columns by name. Call map_batches with "
                "batch_format='numpy'."
            )
        if self._column not in batch:
            raise FeaturesError(
                f"The batch has no column {self._column!r} (it has {', '.join(map(str, batch))}); name the column of "
                "the images with column=."
            )
        images = batch[self._column]
        inputs = list(self._readers.map(self._input, range(len(images)), images))
        if not inputs:
            return {**batch, self._to: np.empty((0, self._encoder.hidden_dim), np.float32)}
        return {**batch, self._to: encode_inputs(np.stack(inputs), self._encoder, self._pooling)}

    def _input(self, row: int, image: Any) -> np.ndarray:
        try:
            with one_sample():
                if isinstance(image, Mapping):
                    image = image.get("bytes")
                if isinstance(image, bytes):
                    image = decode_image(image, name=f"row {row}", settings=self._settings)
                if not isinstance(image, np.ndarray):
                    raise MediaError(f"It is {type(image).__name__}; expected an array or the bytes of a file.")
                expected = 3 if self._frames is None else 4
                if (
                    not image.size
                    or image.ndim != expected
                    or (self._frames is not None and len(image) != self._frames)
                ):
                    shape = "(height, width, 3)" if self._frames is None else f"({self._frames}, height, width, 3)"
                    raise MediaError(f"It is {image.dtype} {image.shape}; expected RGB uint8 {shape}.")
                return self._prepare(image)
        except MediaError as error:
            raise MediaError(f"Row {row} of the batch: {error}") from None
