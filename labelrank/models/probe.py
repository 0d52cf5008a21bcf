"""Accuracy of a linear model on an encoder's features, compared with two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.dataset import NOUNS, ClipSampling, Dataset
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import MediaError
from labelrank.models.pooling import pool_tokens, poolings_of
from labelrank.words import percent

if TYPE_CHECKING:
    from labelrank.models.mae import MaskedAutoencoder

RANDOM_SEEDS = (1, 2, 3)
FOLDS = 3


def probe_report(
    model: MaskedAutoencoder,
    preprocessing: Preprocessing,
    train: Dataset,
    held_out: Sequence[Dataset],
    sampling: ClipSampling | None = None,
) -> str:
    """Return Markdown comparing the trained encoder, the same encoder untrained, and raw pixels.

    Each row is a logistic regression on standardised features, fitted on `train` (its strength chosen there by
    3-fold cross-validation) and scored once on `held_out`. Random encoders are averaged over three seeds.
    """
    import keras

    from labelrank.models.vit import ViTEncoder

    fit_images, fit_labels = _read([train], preprocessing, sampling)
    test_images, test_labels = _read(held_out, preprocessing, sampling)
    nouns = NOUNS[train.media][1]
    rarest = int(np.unique(fit_labels, return_counts=True)[1].min()) if len(fit_labels) else 0
    if not len(test_labels) or rarest < FOLDS:
        return (
            f"No probe: it needs held-out {nouns} (there are {len(test_labels)}) and at least {FOLDS} of each class "
            f"to fit on (the rarest has {rarest})."
        )

    def score(fit_features: np.ndarray, test_features: np.ndarray) -> float:
        search = _classifier().fit(fit_features, fit_labels)
        return float(search.score(test_features, test_labels))

    config = model.config
    poolings = poolings_of(has_cls=config.use_cls_token, has_fc_norm=False)

    def scores(encoder: Any) -> dict[str, float]:
        fit_tokens, test_tokens = _encode(encoder, fit_images), _encode(encoder, test_images)
        prefix = config.num_prefix
        return {
            p: score(pool_tokens(fit_tokens, p, num_prefix=prefix), pool_tokens(test_tokens, p, num_prefix=prefix))
            for p in poolings
        }

    trained = scores(model.encoder)
    untrained = []
    for seed in RANDOM_SEEDS:
        keras.utils.set_random_seed(seed)
        encoder = ViTEncoder(config)
        encoder.build((None, *config.input_shape))
        untrained.append(scores(encoder))
    raw = score(_pixels(fit_images), _pixels(test_images))

    n = len(test_labels)
    half_width = 1.96 * np.sqrt(max(trained.values()) * (1 - max(trained.values())) / n)

    splits = " and ".join(str(d.split) for d in held_out)

    def random_row(pooling: str) -> str:
        values = [s[pooling] for s in untrained]
        least, mean, most = (percent(float(of(values))) for of in (min, np.mean, max))
        return f"{mean} (from {least} to {most} over {len(values)} seeds)"

    names = {"mean": "mean of the patch tokens", "cls": "CLS token"}
    short = {"mean": "mean", "cls": "CLS"}
    rows = [(f"this encoder, {names[p]}", percent(trained[p])) for p in poolings]
    rows += [(f"the same encoder at random initialisation, {short[p]}", random_row(p)) for p in poolings]
    rows += [("raw pixels" if sampling is None else "raw pixels (every 4th frame, grey, averaged 2 x 2)", percent(raw))]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""## What a linear model reads off the features

Accuracy of a logistic regression on {n:,} held-out {nouns} ({splits}), fitted on {len(fit_labels):,}. One
such figure is uncertain by about {percent(half_width)} either way (95 %).

| features | accuracy |
|---|---|
{table}"""


def _read(
    datasets: Sequence[Dataset], preprocessing: Preprocessing, sampling: ClipSampling | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and labels of all samples that can be read."""
    images, labels = [], []
    for dataset in datasets:
        for sample in dataset.samples:
            try:
                if sampling is None:
                    image = dataset.load(sample)
                else:
                    assert dataset.load_clips is not None
                    image = dataset.load_clips(sample, sampling)[0]
            except MediaError:
                continue
            images.append(preprocessing(image))
            labels.append(sample.label)
    return (np.stack(images) if images else np.empty((0,), np.float32)), np.array(labels)


def _pixels(images: np.ndarray) -> np.ndarray:
    """Return flat pixels (n, d) of images (n, H, W, 3) or, on a coarser grid, of clips (n, T, H, W, 3)."""
    if images.ndim == 5:
        grey = images[:, ::4].mean(axis=-1)  # (n, T / 4, H, W)
        n, frames, height, width = grey.shape
        images = grey[:, :, : height // 2 * 2, : width // 2 * 2]
        images = images.reshape(n, frames, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return images.reshape(len(images), -1)


def _encode(encoder: Any, images: np.ndarray) -> np.ndarray:
    from keras import ops

    batch_size = 256 if images.ndim == 4 else 32
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([ops.convert_to_numpy(encoder(batch)) for batch in batches])


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return GridSearchCV(classifier, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=FOLDS)
