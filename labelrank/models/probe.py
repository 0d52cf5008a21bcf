"""What a linear model reads off an encoder's features, beside two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.dataset import Dataset
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import MediaError
from labelrank.features.extract import POOLINGS, pool_tokens

if TYPE_CHECKING:
    from labelrank.models.mae import MaskedAutoencoder

RANDOM_SEEDS = (1, 2, 3)
FOLDS = 3


def probe_report(
    model: MaskedAutoencoder, preprocessing: Preprocessing, train: Dataset, held_out: Sequence[Dataset]
) -> str:
    """Return Markdown comparing the trained encoder, the same encoder untrained, and raw pixels.

    Each row is a logistic regression on standardised features, fitted on `train` (its strength chosen there by
    3-fold cross-validation) and scored once on `held_out`. Random encoders are averaged over three seeds.
    """
    import keras

    from labelrank.models.vit import ViTEncoder

    fit_images, fit_labels = _read([train], preprocessing)
    test_images, test_labels = _read(held_out, preprocessing)
    rarest = int(np.unique(fit_labels, return_counts=True)[1].min()) if len(fit_labels) else 0
    if not len(test_labels) or rarest < FOLDS:
        return (
            f"No probe: it needs held-out pictures (there are {len(test_labels)}) and at least {FOLDS} of each class "
            f"to fit on (the rarest has {rarest})."
        )

    def score(fit_features: np.ndarray, test_features: np.ndarray) -> float:
        search = _classifier().fit(fit_features, fit_labels)
        return float(search.score(test_features, test_labels))

    def scores(encoder: Any) -> dict[str, float]:
        fit_tokens, test_tokens = _encode(encoder, fit_images), _encode(encoder, test_images)
        return {p: score(pool_tokens(fit_tokens, p), pool_tokens(test_tokens, p)) for p in POOLINGS}

    trained = scores(model.encoder)
    untrained = []
    for seed in RANDOM_SEEDS:
        keras.utils.set_random_seed(seed)
        encoder = ViTEncoder(model.config)
        encoder.build((None, *model.config.image_size, model.config.num_channels))
        untrained.append(scores(encoder))
    raw = score(fit_images.reshape(len(fit_images), -1), test_images.reshape(len(test_images), -1))

    n = len(test_labels)
    half_width = 1.96 * np.sqrt(max(trained.values()) * (1 - max(trained.values())) / n)

    splits = " and ".join(str(d.split) for d in held_out)

    def random_row(pooling: str) -> str:
        values = [s[pooling] for s in untrained]
        return f"{np.mean(values):.1%} (from {min(values):.1%} to {max(values):.1%} over {len(values)} seeds)"

    return f"""## What a linear model reads off the features

Accuracy of a logistic regression on {n:,} held-out pictures ({splits}), fitted on {len(fit_labels):,}. One
such figure is uncertain by about {half_width:.1%} either way (95 %).

| features | accuracy |
|---|---|
| this encoder, mean of the patch tokens | {trained["mean"]:.1%} |
| this encoder, CLS token | {trained["cls"]:.1%} |
| the same encoder at random initialisation, mean | {random_row("mean")} |
| the same encoder at random initialisation, CLS | {random_row("cls")} |
| raw pixels | {raw:.1%} |"""


def _read(datasets: Sequence[Dataset], preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of all pictures that can be read."""
    images, labels = [], []
    for dataset in datasets:
        for sample in dataset.samples:
            try:
                images.append(preprocessing(dataset.load(sample)))
            except MediaError:
                continue
            labels.append(sample.label)
    return (np.stack(images) if images else np.empty((0,), np.float32)), np.array(labels)


def _encode(encoder: Any, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    from keras import ops

    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([ops.convert_to_numpy(encoder(batch)) for batch in batches])


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return GridSearchCV(classifier, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=FOLDS)
