"""The inputs of a comparison: rows for training, validation and test, and the ranked order.

They come from the features files of a command line, or from the names in a job's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.class_groups import check_telling, numbered_groups
from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, FinetuneError, HubError
from labelrank.features.joining import read_features
from labelrank.features.store import KEPT, LOCAL, FeatureSet, provenance_digest
from labelrank.features.streamed import StreamedRows
from labelrank.finetune.design import split_rows
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import Checkpoint, open_checkpoint
from labelrank.notices import Notice
from labelrank.patches.choosing import Choosing, choosing_of, kept_text
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan, plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.features import obtain_elsewhere
from labelrank.steps.finetune.request import Design, Inputs, evaluation_splits
from labelrank.steps.rank import RankRequest, rank

FILE, SPLIT, TRAIN = "file", "split", "train"
"""Where validation and test rows come from: a file of their own, a split of their own, the training rows."""
NO_MODEL = "no_model"
"""Kind of the notice that says why there is no model of the best run."""
_NAMED_IN_MESSAGE = 5
UNKNOWN_ENCODER = (
    "the features are of an unknown encoder, so nothing says how to compute them again. Make them with `labelrank "
    "extract`."
)
_NOT_OF_INPUTS = ("precision", "runtime")
"""Entries of a provenance on how features were computed; the others are on what went into the encoder."""


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
        material = _learning_from(material, by_role, design, settings)
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
        return _with_samples(material, inputs, design, settings, data, checkpoint)
    return _with_encoder(material, settings, checkpoint) if with_model else material


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


def _with_encoder(material: Material, settings: Settings, checkpoint: str | None) -> Material:
    """Look up the encoder of the features, for the model of the best run; add a notice if it is not found."""
    if material.train.of_unknown_encoder:
        notice = Notice(NO_MODEL, f"No model can be written: {UNKNOWN_ENCODER}")
        return replace(material, notices=(*material.notices, notice))
    place = None
    try:
        place = None if checkpoint else _place(material.train, "checkpoint", "--checkpoint")
        name = checkpoint or place
        found = open_checkpoint(
            name or _said(material.train, "checkpoint", "id", "--checkpoint"),
            revision=None if name else _said(material.train, "checkpoint", "revision"),
            settings=settings,
        )
        _check_digest(material.train, "checkpoint", found.digest, "--checkpoint")
    except (FinetuneError, CheckpointError, HubError) as error:
        # The report, which is for others too, must not show paths that the user did not give.
        text = str(error).replace(place, Path(place).name) if place else str(error)
        way = "" if "--checkpoint" in text else " Give the checkpoint of the features with --checkpoint."
        notice = Notice(NO_MODEL, f"No model can be written: {text}{way}")
        return replace(material, notices=(*material.notices, notice))
    prepared = _prepared(material.train) or found.preprocessing()
    return replace(material, encoder=EncoderUsed(found, prepared, None, _said(material.train, "dataset", "id")))


def _with_samples(
    material: Material,
    inputs: Inputs,
    design: Design,
    settings: Settings,
    data: str | None,
    checkpoint: str | None,
) -> Material:
    """Look up the data and encoder of the features, for an end-to-end fine-tune."""
    own = design.keep is not None
    plans = {"train": _plan_of(inputs.train, settings, data, checkpoint, all_patches=own)}
    for role, features in (("val", inputs.val), ("test", inputs.test)):
        plans[role] = _plan_of(features, settings, data, checkpoint, all_patches=own) if features else plans["train"]
    return _learning_from(material, plans, design, settings)


def _learning_from(material: Material, plans: Mapping[str, Plan], design: Design, settings: Settings) -> Material:
    """Return what an end-to-end fine-tune works on: the encoder, the patches that it takes, and each role's samples."""
    used, notices = plans["train"], material.notices
    encoder = EncoderUsed.of(used)
    if design.keep is not None and design.patches is not None:
        choosing = choosing_of(
            design.patches, design.keep, used.checkpoint, used.encoder, seed=design.seed, settings=settings
        )
        encoder = replace(encoder, choosing=choosing)
    if encoder.choosing is not None:
        text = f"Encoders learn from, and are tested on, {kept_text(encoder.choosing.provenance)}."
        notices = (*notices, Notice("kept_patches", text))
    where = {role: SamplesFrom(one.request, one.provenance["dataset"]["digest"]) for role, one in plans.items()}
    datasets = _samples(material, plans)
    return replace(material, encoder=encoder, datasets=datasets, samples_from=where, notices=notices)


def looked_up(material: Material, design: Design, settings: Settings) -> Material:
    """Return material that came from elsewhere (`Material.without_data`) with its encoder and samples as they are here.

    Raises:
        FinetuneError: A dataset is another one here.
        DatasetError, CheckpointError, HubError: Data or checkpoint cannot be opened here.
    """
    if material.samples_from is None:
        return material
    by_request = {one.request: plan(one.request, settings) for one in material.samples_from.values()}
    plans = {role: by_request[one.request] for role, one in material.samples_from.items()}
    for role, one in material.samples_from.items():
        if plans[role].provenance["dataset"]["digest"] != one.digest:
            raise FinetuneError(
                f"{one.request.dataset} has changed while encoders learned from it, or differs from one machine to the "
                "next; finished runs are kept. Start the fine-tune again."
            )
    return _learning_from(material, plans, design, settings)


def _plan_of(
    features: FeatureSet, settings: Settings, data: str | None, checkpoint: str | None, *, all_patches: bool
) -> Plan:
    """Return the plan of the extraction that made the features, from their provenance.

    Args:
        all_patches: Leave out what chose patches.

    Raises:
        FinetuneError: The provenance has no names, or the data or checkpoint has changed since.
        DatasetError, CheckpointError, HubError: Data or checkpoint cannot be opened.
    """
    data = data or _place(features, "dataset", "--data")
    checkpoint = checkpoint or _place(features, "checkpoint", "--checkpoint")
    for name, given, option in (("dataset", data, "--data"), ("checkpoint", checkpoint, "--checkpoint")):
        if not given:
            _said(features, name, "id", option)
    ranker = None if all_patches else _place(features, "ranker", "--keep and --patches")
    request = Request.of_provenance(features.provenance, dataset=data, checkpoint=checkpoint, ranker=ranker)
    if all_patches:
        request = replace(request, keep=None, patches=None)
    # An encoder learns in the precision of its recipe; this machine may not support that of the features.
    found = plan(replace(request, precision="auto", allow_empty_classes=True), settings)
    for name, option in (("dataset", "--data"), ("checkpoint", "--checkpoint")):
        _check_digest(features, name, found.provenance[name]["digest"], option)
    for name in found.provenance.keys() - {"dataset", "checkpoint", *_NOT_OF_INPUTS}:
        said, now = features.provenance.get(name), found.provenance[name]
        if said is not None and said != now:
            raise FinetuneError(
                f"The features were made with another {name} ({_differences(said, now)}) than {found.checkpoint.id} "
                "has now. Extract again, so that the encoder learns from the inputs that the features are of."
            )
    return found


def _differences(said: Any, now: Any) -> str:
    """Return the settings that differ, as name=value of what was said."""
    if not (isinstance(said, dict) and isinstance(now, dict)):
        return repr(said)
    return ", ".join(f"{name}={value!r}" for name, value in said.items() if now.get(name) != value) or "settings"


def _said(features: FeatureSet, part: str, name: str, option: str | None = None) -> Any:
    """Return an entry of the features' provenance; None if it is missing and no option is named.

    Raises:
        FinetuneError: The entry is missing; the message names `option` as the way to give it.
    """
    value = (features.provenance.get(part) or {}).get(name)
    if value is None and option is not None:
        raise FinetuneError(f"The features do not say which {part} they are of. Give {option}.")
    return value


def _place(features: FeatureSet, part: str, option: str) -> str | None:
    """Return where the dataset or checkpoint of the features was on the computer that made them; None if not known.

    Raises:
        FinetuneError: Nothing is there now; the message names `option` as the way to say where it is.
    """
    places = features.provenance.get(LOCAL)
    place = places.get(part) if isinstance(places, Mapping) else None
    if not isinstance(place, str):
        return None
    if not Path(place).exists():
        raise FinetuneError(
            f"The {part} {Path(place).name} is not where it was when the features were made. Give it with {option}."
        )
    return place


def _check_digest(features: FeatureSet, name: str, now: str, option: str) -> None:
    """Raise FinetuneError if a dataset or checkpoint is not the one that the features are from."""
    before = _said(features, name, "digest")
    if before and before != now:
        raise FinetuneError(
            f"The {name} {_said(features, name, 'id')} is not what it was when the features were made (digest "
            f"{now[:12]}, then {before[:12]}). Give that one with {option}, or extract again."
        )


def _prepared(features: FeatureSet) -> Preprocessing | None:
    """Return the preprocessing of the features; None if the provenance does not tell."""
    said = features.provenance.get("preprocessing")
    return Preprocessing.from_config(said) if said else None


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


def _samples(material: Material, plans: Mapping[str, Plan]) -> dict[str, Dataset]:
    """Return datasets of exactly the samples of the rows, in their order.

    Raises:
        FinetuneError: A sample is not in its dataset.
    """
    datasets = {}
    for role, found in plans.items():
        features: FeatureSet = getattr(material, role)
        by_key: dict[str, Sample] = {sample.key: sample for sample in found.dataset.samples}
        if lost := [key for key in features.keys if key not in by_key]:
            raise FinetuneError(
                f"{len(lost):,} samples of the features, such as {lost[0]!r}, are not in {found.dataset.id}. Give the "
                "data that they are of with --data, or extract again."
            )
        datasets[role] = replace(found.dataset, samples=tuple(by_key[key] for key in features.keys))
    return datasets


def sizes_of(material: Material) -> dict[str, int]:
    """Return how many rows train, validate and test."""
    return {role: len(getattr(material, role).y) for role in ("train", "val", "test")}
