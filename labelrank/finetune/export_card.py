"""The model card of an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelrank.finetune.export_forms import Form
from labelrank.label_map import LabelMap
from labelrank.models.families import FAMILIES
from labelrank.words import with_article

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier


@dataclass(frozen=True)
class CardFacts:
    """Facts for a model card that the model itself does not contain."""

    title: str = "A fine-tuned classifier"
    dataset: str | None = None
    base_model: str | None = None
    """The checkpoint that was fine-tuned, as a user names it."""
    licence: str | None = None
    """Licence of the base model, which also binds the new model. None: unknown, and the card says so."""
    masked_pretraining: str | None = None
    """Whether the base model was pre-trained on masked images or clips, as `Checkpoint.masked_pretraining` says."""
    lines: tuple[str, ...] = ()
    """Further facts, one sentence or figure each: how it was trained, how well it does."""


def model_card(
    model: Classifier, form: Form, names: Sequence[str], facts: CardFacts, label_map: LabelMap | None
) -> str:
    import yaml

    config = model.encoder_config
    clips = config.media == "clip"
    metadata: dict[str, Any] = {}
    if facts.licence:
        metadata["license"] = facts.licence
    if form.architecture:
        metadata["library_name"] = "transformers"
    metadata["pipeline_tag"] = "video-classification" if clips else "image-classification"
    metadata["tags"] = ["labelrank"]
    if facts.dataset:
        metadata["datasets"] = [facts.dataset]
    if facts.base_model:
        metadata["base_model"] = facts.base_model
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    height, width = config.image_size
    source = f"{config.num_frames} frames of {height}x{width} px" if clips else f"{height}x{width} px images"
    what = f"A {config.model_type} encoder of {source} with a head for {len(names)} classes"
    what += f", fine-tuned from {facts.base_model}" if facts.base_model else ""
    what += f" on {facts.dataset}." if facts.dataset else "."
    positions = "Output `i` stands for the class at position `i` of the label order: `id2label` in `config.json`" + (
        ", and `label_map.json`, which says how the order was found." if label_map else "."
    )
    sections = [f"# {facts.title}", what, positions]
    if facts.masked_pretraining:
        pretraining = FAMILIES[config.model_type].pretraining
        sections.append(f"Masked pre-training of the encoder: {facts.masked_pretraining} ({pretraining}).")
    if facts.lines:
        sections.append("\n".join(f"- {line}" for line in facts.lines))
    sections.append(f"## Loading\n\n{_loading(form, model)}")
    if not facts.licence:
        sections.append(
            "The licence of the checkpoint, and of the data it was trained on, is not known here; it binds this model."
        )
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _loading(form: Form, model: Classifier) -> str:
    keras_way = (
        "The file `model.keras` that labelrank writes beside this folder is the same model for Keras:\n\n"
        "```python\nimport keras, labelrank.finetune.classifier  # which registers its layers\n\n"
        'model = keras.saving.load_model("model.keras")\n```'
    )
    if form.architecture:
        config = model.encoder_config
        why = f"{form.caution}\n\n" if form.caution else ""
        family = FAMILIES[config.model_type]
        if family.classifies is None or form.architecture != family.classifies.name:
            head = "classifies by the CLS token" if model.pooling == "cls" else "averages the patch tokens"
            why += (
                f"transformers has no class that {head} of {with_article(family.title)}; {form.architecture} computes "
                "the same with these files.\n\n"
            )
        processor = "VideoMAEImageProcessor" if config.media == "clip" else "AutoImageProcessor"
        return (
            f"{why}```python\nfrom transformers import {processor}, {form.architecture}\n\n"
            f"processor = {processor}.from_pretrained(folder)\n"
            f"model = {form.architecture}.from_pretrained(folder)\n```\n\n{keras_way}"
        )
    return (
        "No class of transformers computes this model, so it is none of theirs to load:\n\n"
        "```python\nfrom pathlib import Path\n\nfrom labelrank.finetune.export import read_model\n\n"
        "model = read_model(Path(folder))  # the softmax of its outputs is the probability of each position\n```\n\n"
        f"{keras_way}"
    )
