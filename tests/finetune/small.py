"""A tiny encoder and images that it can learn, for tests of whole fine-tunes; also run as a child process."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import MediaError
from labelrank.finetune.design import Arm
from labelrank.finetune.recipe import TuneRecipe
from labelrank.models.config import EncoderConfig, TransformerConfig

SIZE = TransformerConfig(hidden_dim=16, mlp_dim=32, num_layers=2, num_heads=2, layer_norm_epsilon=1e-6)
IMAGES = EncoderConfig(model_type="vit_mae", transformer=SIZE, image_size=(8, 8), patch_size=(4, 4))
CLIPS = EncoderConfig(
    model_type="videomae",
    transformer=TransformerConfig(16, 32, 2, 2, layer_norm_epsilon=1e-6, use_key_bias=False),
    image_size=(8, 8),
    patch_size=(4, 4),
    num_frames=4,
    tubelet_size=2,
    use_cls_token=False,
)
PREPROCESSING = Preprocessing.from_config(
    {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 8},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
)
RECIPE = TuneRecipe(epochs=3, batch_size=8, learning_rate=1e-2, warmup_epochs=1.0, layer_decay=0.8, head_init_std=0.02)
EVERYTHING = replace(
    RECIPE, mixup=0.8, cutmix=1.0, drop_path=0.3, dropout=0.2, random_erasing=0.3, min_crop_scale=0.6, patience=9
)
SOFT = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.15, 0.75]], np.float32)
"""Targets by label."""
SAMPLING = ClipSampling(frames=4, stride=1)


def encoder(dtype="float32", config=IMAGES, seed=0):
    """Return a built encoder with weights of a seed."""
    from labelrank.models.vit import ViTEncoder

    layer = ViTEncoder(config, name="encoder", dtype=dtype)
    layer.build((None, *config.input_shape))
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        scale = 0.2 if len(variable.shape) > 1 else 0.1
        offset = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(offset + scale * rng.normal(size=variable.shape))
    return layer


def dataset(split, n=20, n_classes=3, *, clip=False, without=(), broken=(), seed=0):
    """Return n images 8 x 8 whose colour is their class, or videos of them."""
    rng = np.random.default_rng([seed, *split.encode()])
    labels = [label for i in range(n) if (label := i % n_classes) not in without]
    samples = tuple(Sample(f"{split}/{i}", label) for i, label in enumerate(labels))
    colours = 60 + 140 * np.eye(n_classes, 3)
    noise = rng.normal(0, 25, (len(samples), 8, 8, 3))

    def load(sample):
        number = int(sample.key.split("/")[1])
        if number in broken:
            raise MediaError(f"{sample.key} cannot be decoded.")
        return np.clip(colours[sample.label] + noise[number], 0, 255).astype(np.uint8)

    def load_clips(sample, sampling):
        frames = np.stack([load(sample) // (1 + t % 2) for t in range(12)])
        return frames[sampling.indices(len(frames))]

    names = tuple(f"class {i}" for i in range(n_classes))
    found = Dataset("colours", names, samples, load, "digest", split=split, splits=("train", "val", "test"))
    return replace(found, load_clips=load_clips) if clip else found


def pictures(split, n=20, *, clip=False, sampling=SAMPLING, **options):
    from labelrank.finetune.samples import TrainingSamples

    return TrainingSamples(dataset(split, n, clip=clip, **options), PREPROCESSING, sampling if clip else None)


def arm(order=(0, 1, 2), head_rows=None, name="ranked"):
    return Arm(name, name, tuple(order), tuple(head_rows or range(len(order))))


def in_full(epoch):
    """Return an epoch's losses, every bit of them."""
    return f"{epoch.epoch} {epoch.train_loss.hex()} {epoch.val_loss.hex()}"


def tune(folder, recipe=RECIPE, *, train=None, val=None, test=None, which=None, seed=0, config=IMAGES, **options):
    """Return what a fine-tune of the small encoder gives."""
    from labelrank.finetune.end_to_end import fine_tune

    clip = config.media == "clip"
    return fine_tune(
        lambda dtype: encoder(dtype, config),
        train or pictures("train", 26, clip=clip),
        val or pictures("val", 12, clip=clip),
        test or pictures("test", 15, clip=clip),
        which or arm(),
        seed,
        recipe,
        n_classes=3,
        folder=Path(folder),
        **options,
    )


if __name__ == "__main__":
    # Writes each epoch's losses in full; ends itself by SIGKILL in the epoch after the one given.
    import os
    import signal

    from labelrank.models.backend import select_backend

    select_backend(training=True)
    folder, kill_in = sys.argv[1], int(sys.argv[2])

    def progress(done, total, stage):
        if kill_in and done == kill_in * 4 - 2:  # 4 updates an epoch
            os.kill(os.getpid(), signal.SIGKILL)

    def say(epoch):
        print(in_full(epoch), flush=True)

    tuned = tune(folder, EVERYTHING, targets=SOFT, on_epoch=say, on_progress=progress)
    print(tuned.run.nll.tobytes().hex(), flush=True)
