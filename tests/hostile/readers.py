"""What labelrank does with a file of each kind when a user gives it: the whole of it is read."""

import itertools
from dataclasses import replace

from labelrank.class_costs import read_costs
from labelrank.class_groups import read_groups
from labelrank.data import describe_source, open_dataset
from labelrank.data.dataset import ClipSampling
from labelrank.data.image import decode_image
from labelrank.data.video import read_clips
from labelrank.errors import MediaError
from labelrank.features.joining import read_features
from labelrank.label_map import read_label_map
from labelrank.models.checkpoint import describe_checkpoint, open_checkpoint
from labelrank.patches.ranker import open_ranker
from labelrank.settings import Settings

ANIMALS = ("cat", "dog", "owl")
_MAX_SAMPLES = 12


def dataset(path, settings: Settings) -> None:
    """Look at a dataset as a page does, open it, and read its first samples; a sample may fail alone."""
    describe_source(str(path), settings=settings)
    data = open_dataset(str(path), settings=settings)
    failed = []
    for sample in itertools.islice(data.samples, _MAX_SAMPLES):
        try:
            data.load(sample)
        except MediaError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def image(path, settings: Settings) -> None:
    """Decode an image."""
    decode_image(path.read_bytes(), name=path.name, settings=settings)


def video(path, settings: Settings) -> None:
    """Decode clips of a video."""
    read_clips(path, ClipSampling(frames=4, stride=2, clips=3), name=path.name, settings=settings)


def checkpoint(path, settings: Settings) -> None:
    """Describe the checkpoint that a file belongs to, and read each of its tensors."""
    describe_checkpoint(str(path.parent), settings=settings)
    tensors = open_checkpoint(str(path.parent), settings=settings).tensors()
    for name in tensors:
        tensors[name]


def ranker(path, settings: Settings) -> None:
    """Open the ranker of patches that a file belongs to."""
    open_ranker(str(path.parent), replace(settings, shared=False))  # a shared server opens none of a path


def features(path, settings: Settings) -> None:
    """Read features, ours and those of others."""
    read_features(path)


def label_map(path, settings: Settings) -> None:
    """Read a label map."""
    read_label_map(path)


def groups(path, settings: Settings) -> None:
    """Read groups of classes."""
    read_groups(path, ANIMALS)


def costs(path, settings: Settings) -> None:
    """Read what mistakes cost."""
    read_costs(path, ANIMALS)
