"""What a comparison works on: rows, their ranked order, and the encoder and samples they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from labelrank.class_groups import check_telling
from labelrank.data.dataset import ClipSampling, Dataset
from labelrank.data.preprocess import Preprocessing
from labelrank.features.store import FeatureSet
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import Checkpoint
from labelrank.notices import Notice
from labelrank.patches.choosing import Choosing
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.request import Request


@dataclass(frozen=True)
class EncoderUsed:
    """The encoder that made the features."""

    checkpoint: Checkpoint
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """None for images."""
    dataset_id: str | None
    """The dataset of the training rows."""
    choosing: Choosing | None = None
    """Which patches it takes while it learns; None: all."""

    @classmethod
    def of(cls, plan: Plan) -> EncoderUsed:
        """Return the encoder of an extraction."""
        return cls(plan.checkpoint, plan.preprocessing, plan.sampling, plan.dataset.id, plan.choosing)


@dataclass(frozen=True)
class SamplesFrom:
    """Where the samples of some rows are, by name."""

    request: Request
    digest: str
    """Of the dataset."""


@dataclass(frozen=True)
class Material:
    """Everything that a comparison works on."""

    train: FeatureSet
    val: FeatureSet
    test: FeatureSet
    label_map: LabelMap
    val_from: str
    test_from: str
    datasets: Mapping[str, Dataset] | None = None
    """For train, val and test: exactly the samples of the rows, in their order; None if only heads learn."""
    encoder: EncoderUsed | None = None
    """The encoder that made the features; None if it was not looked up, or not found."""
    notices: tuple[Notice, ...] = ()
    """What a user should know of this comparison."""
    groups: np.ndarray | None = None
    """Group of each label, int (K,); None if not known."""
    costs: np.ndarray | None = None
    """`costs[y, j]` of predicting label j where y is true, float (K, K); None if not known."""
    samples_from: Mapping[str, SamplesFrom] | None = None
    """For train, val and test, where `datasets` are from."""

    def __post_init__(self) -> None:
        if self.groups is not None:
            check_telling(self.groups)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of label 0, 1, .., K - 1."""
        return self.train.class_names

    def without_data(self) -> Material:
        """Return what of it is given to another machine, which finds the rest by name; see `looked_up`."""
        return replace(self, encoder=None, datasets=None)


def sizes_of(material: Material) -> dict[str, int]:
    """Return how many rows train, validate and test."""
    return {role: len(getattr(material, role).y) for role in ("train", "val", "test")}
