"""The inputs of a comparison: rows for training, validation and test, and the ranked order.

They come from the features files of a command line, or from the names in a job's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from labelrank.class_groups import numbered_groups
from labelrank.errors import FinetuneError
from labelrank.features.joining import read_features
from labelrank.features.store import KEPT, FeatureSet, provenance_digest
from labelrank.features.streamed import StreamedRows
from labelrank.finetune.design import split_rows
from labelrank.label_map import LabelMap
from labelrank.notices import Notice
from labelrank.patches.choosing import kept_text
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.features import obtain_elsewhere
from labelrank.steps.finetune.material import EncoderUsed, Material
from labelrank.steps.finetune.origins import UNKNOWN_ENCODER, learning_from, with_encoder, with_samples
from labelrank.steps.finetune.request import Design, Inputs, evaluation_splits
from labelrank.steps.rank import RankRequest, rank

FILE, SPLIT, TRAIN = "file", "split", "train"
"""Where validation and test rows come from: a file of their own, a split of their own, the training rows."""
_NAMED_IN_MESSAGE = 5


# --- from names, for a job


def gather(
    params: Mapping[str, Any],
    design: Design,
    settings: Settings,
    *,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Material:
    """Find the data and checkpoint of a job, extract missing features, and rank.

    Test rows come from the split `test_split`. If it is None, they come from the split test, else from val, else they
    are held out. The ranking never sees them. The limit of samples per class is the same as for training.

    Raises:
        DatasetError, CheckpointError, HubError, FeaturesError, SettingsError: As for an extraction.
        RankingError, LabelMapError: The features cannot be ranked.
        FinetuneError: There are too few rows, or the splits have different classes.
        GroupsError: A class has no group, or the groups tell nothing.
        Cancelled: `should_stop` returned true.
    """
    if on_progress:
        on_progress(0, None, Stage(Kind.READ, "Reading the dataset"))
    request = Request.from_params({**params, "shard": None})
    plans = {"train": plan(request, settings)}
    dataset = plans["train"].dataset
    test_split, val_split = evaluation_splits(dataset, params.get("test_split"))
    for role, split in (("test", test_split), ("val", val_split)):
        if split is not None:
            plans[role] = plan(_of_split(request, split), settings)
            if plans[role].dataset.class_names != dataset.class_names:
                raise FinetuneError(
                    f"The splits {dataset.split} and {split} of {dataset.id} name different classes; expected the same "
                    "ones in the same order. Choose another split to test on."
                )
    found = obtain_elsewhere(
        [one.request for one in plans.values()], settings, on_progress=on_progress, should_stop=should_stop
    )
    features = dict(zip(plans, map(read_features, found), strict=True))
    whole = features["train"]
    notices: list[Notice] = []
    rows = whole
    test = features.get("test")
    if test is None:
        rows, test = held_out_for_test(whole, design)
        held = f"{len(test.y):,} samples held out of {dataset.split or 'the data'}"
        text = f"Tested on {held}; the ranking saw none of them."
        notices.append(Notice("held_out", text))
    ranked = rank(rows, RankRequest.from_params(params))
    notices += ranked.notices
    label_map = ranked.label_map
    train, val = _with_val(rows, features.get("val"), design)
    material = Material(
        train,
        val,
        test,
        label_map,
        SPLIT if "val" in features else TRAIN,
        SPLIT if "test" in features else TRAIN,
        encoder=EncoderUsed.of(plans["train"]),
        notices=(*notices, *_about_classes(train, val, test)),
        groups=numbered_groups(params["groups"], dataset.class_names) if params.get("groups") else None,
    )
    if design.end_to_end:
        by_role = {"train": plans["train"], "val": plans.get("val", plans["train"])}
        by_role["test"] = plans.get("test", plans["train"])
        material = learning_from(material, by_role, design, settings)
    return material


def _of_split(request: Request, split: str) -> Request:
    """Return a request for the same kind of features from another split, which is not ranked."""
    return replace(
        request,
        split=split,
        until_stable=None,
        either_direction=False,
        allow_empty_classes=True,
    )


# --- from files, for the command line


def gather_files(
    inputs: Inputs,
    design: Design,
    settings: Settings,
    *,
    ranking: RankRequest | None = None,
    data: str | None = None,
    checkpoint: str | None = None,
    with_model: bool = False,
) -> Material:
    """Check features files against each other and the label map; hold out missing rows, and rank if no map is given.

    Args:
        ranking: How to rank if no label map is given.
        data, checkpoint: Names to use instead of those in the features' provenance, for an end-to-end fine-tune and for
            the model of the best run.
        with_model: Look up the checkpoint, so that the model of the best run can be written.

    Raises:
        FinetuneError: The files do not match, or there are too few rows; or, end to end, the data or the checkpoint is
            not the one that the features are from.
        GroupsError: The groups tell nothing.
        DatasetError, CheckpointError, HubError: Data or checkpoint are needed and cannot be opened.
    """
    whole = inputs.train
    notices: list[Notice] = []
    if design.end_to_end and any(one and one.of_unknown_encoder for one in (whole, inputs.val, inputs.test)):
        raise FinetuneError(f"No encoder can be trained: {UNKNOWN_ENCODER} Or leave --depth out.")
    _check_classes(inputs)
    for one, what, other, option in (
        (whole, "in the features", inputs.test, "--test"),
        (whole, "in the features", inputs.val, "--val"),
        (inputs.test, "in those of --test", inputs.val, "--val"),
    ):
        _check_apart(one, what, other, option)
    rows, test = (whole, inputs.test) if inputs.test else held_out_for_test(whole, design)
    label_map = inputs.label_map or rank(rows, ranking).label_map
    notices += label_map.notices
    if inputs.test:
        if _made_from(label_map, test):
            text = (
                "The label map was made from the test samples: its order has seen their labels, which favours it. Rank "
                "the training samples, or leave the label map out."
            )
            notices.append(Notice("seen_labels", text))
    elif _made_from(label_map, rows):
        text = f"Tested on {len(test.y):,} samples held out of the features; the ranking saw none of them."
        notices.append(Notice("held_out", text))
    else:
        text = (
            f"Tested on {len(test.y):,} samples held out of the features. The label map may have been made from them "
            "too: its order has then seen their labels, which favours it. Give --test, or leave --label-map out."
        )
        notices.append(Notice("seen_labels", text))
    train, val = _with_val(rows, inputs.val, design)
    material = Material(
        train,
        val,
        test,
        label_map,
        FILE if inputs.val is not None else TRAIN,
        FILE if inputs.test is not None else TRAIN,
        notices=(*notices, *_about_classes(train, val, test)),
        groups=inputs.groups,
        costs=inputs.costs,
    )
    if design.end_to_end:
        return with_samples(material, inputs, design, settings, data, checkpoint)
    return with_encoder(material, settings, checkpoint) if with_model else material


def held_out_for_test(features: FeatureSet, design: Design) -> tuple[FeatureSet, FeatureSet]:
    """Split one features file into rows for ranking and training, and rows held out for the test."""
    return _held_out(features, design.test_share, design.seed, "test")


def _check_classes(inputs: Inputs) -> None:
    names = inputs.train.class_names
    by_label = sorted(inputs.label_map.classes, key=lambda ranked: ranked.label) if inputs.label_map else ()
    for what, other in (
        ("label map", tuple(ranked.name for ranked in by_label) or names),
        ("test features", inputs.test.class_names if inputs.test else names),
        ("validation features", inputs.val.class_names if inputs.val else names),
    ):
        if len(other) != len(names):
            raise FinetuneError(
                f"The features name {len(names):,} classes and the {what} {len(other):,}; expected the same ones. Make "
                "both from the same data."
            )
        for label, (mine, theirs) in enumerate(zip(names, other, strict=True)):
            if mine != theirs:
                raise FinetuneError(
                    f"Class {label} is {mine!r} in the features and {theirs!r} in the {what}; expected the same names "
                    "in the same order. Make both from the same data."
                )
    for what, features in (("test", inputs.test), ("validation", inputs.val)):
        kept = [one.provenance.get(KEPT) for one in (inputs.train, features) if one is not None]
        if features is not None and kept[0] != kept[1] and not features.of_unknown_encoder:
            texts = [kept_text(one) if one else "all patches" for one in kept]
            raise FinetuneError(
                f"The features are of {texts[0]}, and the {what} features of {texts[1]}; expected the same. Extract "
                "both with the same --keep and --patches."
            )
        if features is not None and features.X.shape[1] != inputs.train.X.shape[1]:
            raise FinetuneError(
                f"The features have {inputs.train.X.shape[1]:,} dimensions and the {what} features "
                f"{features.X.shape[1]:,}; expected vectors of one encoder. Extract both with the same checkpoint."
            )


def _check_apart(one: FeatureSet | None, what: str, other: FeatureSet | None, option: str) -> None:
    """Raise FinetuneError if the same samples are on both sides."""
    if one is None or other is None:
        return
    mine, theirs = (
        {k: features.provenance.get("dataset", {}).get(k) for k in ("id", "digest", "split", "revision")}
        for features in (one, other)
    )
    both = set(one.keys) & set(other.keys)
    # Different splits may use the same row numbers as keys.
    if both and mine == theirs:
        raise FinetuneError(
            f"{len(both):,} samples, such as {min(both)!r}, are {what} and in those of {option} too; expected none. "
            f"Extract another split, or leave {option} out: samples are then held out."
        )


def _made_from(label_map: LabelMap, features: FeatureSet) -> bool:
    """Return whether a label map was made from exactly these rows, judged by their origin and number."""
    counts = np.bincount(features.y, minlength=len(features.class_names))
    same_rows = all(ranked.count == counts[ranked.label] for ranked in label_map.classes)
    return same_rows and provenance_digest(features.class_names, label_map.features) == features.digest


# --- both


def _held_out(features: FeatureSet, share: float, seed: int, name: str) -> tuple[FeatureSet, FeatureSet]:
    held_out = split_rows(features.keys, features.y, share=share, seed=seed)
    if not held_out.any():
        raise FinetuneError(
            f"No sample can be held out to {name}: no class has two of the {len(features.y):,}. Take more samples."
        )
    return _taking(features, ~held_out), _taking(features, held_out)


def _with_val(rows: FeatureSet, val: FeatureSet | None, design: Design) -> tuple[FeatureSet, FeatureSet]:
    if val is not None:
        return rows, val
    return _held_out(rows, design.val_share, design.seed, "validate")


def _taking(features: FeatureSet, mask: np.ndarray) -> FeatureSet:
    keys = tuple(key for key, taken in zip(features.keys, mask, strict=True) if taken)
    rows = None if features.rows is None else features.rows[mask]
    X = features.X.taken(np.flatnonzero(mask)) if isinstance(features.X, StreamedRows) else features.X[mask]
    return replace(features, X=X, y=features.y[mask], keys=keys, rows=rows)


def _about_classes(train: FeatureSet, val: FeatureSet, test: FeatureSet) -> list[Notice]:
    """Return notices about classes without rows, and about classes with too few."""
    said = []
    for what, features, then in (
        ("training", train, "nothing can be learned of it"),
        ("validation", val, "nothing there speaks of it"),
        ("test", test, "it has no recall, and the mean over classes is without it"),
    ):
        counts = np.bincount(features.y, minlength=len(features.class_names))
        if missing := [name for name, n in zip(features.class_names, counts, strict=True) if not n]:
            more = len(missing) - _NAMED_IN_MESSAGE
            listed = ", ".join(map(repr, missing[:_NAMED_IN_MESSAGE])) + (f" and {more:,} more" if more > 0 else "")
            said.append(Notice("missing_class", f"No {what} sample is of class {listed}: {then}."))
    return said
