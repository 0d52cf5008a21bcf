"""The encoder and the samples of features, looked up by what their provenance says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelrank.data.dataset import Dataset, Sample
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, FinetuneError, HubError
from labelrank.features.store import LOCAL, FeatureSet
from labelrank.models.checkpoint import open_checkpoint
from labelrank.notices import Notice
from labelrank.patches.choosing import choosing_of, kept_text
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan, plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.material import EncoderUsed, Material, SamplesFrom
from labelrank.steps.finetune.request import Design, Inputs

NO_MODEL = "no_model"
"""Kind of the notice that says why there is no model of the best run."""
UNKNOWN_ENCODER = (
    "the features are of an unknown encoder, so nothing says how to compute them again. Make them with `labelrank "
    "extract`."
)
_NOT_OF_INPUTS = ("precision", "runtime")
"""Entries of a provenance on how features were computed; the others are on what went into the encoder."""


def with_encoder(material: Material, settings: Settings, checkpoint: str | None) -> Material:
    """Return material with the encoder of its features, for the model of the best run, or with a notice why not.

    Args:
        checkpoint: Name to use instead of that in the features' provenance.
    """
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


def with_samples(
    material: Material,
    inputs: Inputs,
    design: Design,
    settings: Settings,
    data: str | None,
    checkpoint: str | None,
) -> Material:
    """Return material with the encoder and the samples of its features, for an end-to-end fine-tune.

    Args:
        data, checkpoint: Names to use instead of those in the features' provenance.

    Raises:
        FinetuneError: The provenance has no names, or data or checkpoint are not those of the features.
        DatasetError, CheckpointError, HubError: Data or checkpoint cannot be opened.
    """
    own = design.keep is not None
    plans = {"train": _plan_of(inputs.train, settings, data, checkpoint, all_patches=own)}
    for role, features in (("val", inputs.val), ("test", inputs.test)):
        plans[role] = _plan_of(features, settings, data, checkpoint, all_patches=own) if features else plans["train"]
    return learning_from(material, plans, design, settings)


def learning_from(material: Material, plans: Mapping[str, Plan], design: Design, settings: Settings) -> Material:
    """Return material with the encoder of these plans, the patches that it takes, and the samples of each role.

    Args:
        plans: For train, val and test, the extraction of their features.

    Raises:
        CheckpointError: What is to choose patches does not fit the encoder.
        FinetuneError: A row is of a sample that is not in its dataset.
    """
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
    return learning_from(material, plans, design, settings)


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
