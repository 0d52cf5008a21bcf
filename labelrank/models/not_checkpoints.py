"""Folders and repositories that are no checkpoint but often taken for one: what they are, and the way out.

Only names and small configs are looked at, so that the user is told before anything is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from labelrank.errors import CheckpointError
from labelrank.models.checkpoint_files import CONFIG, INDEX, WEIGHTS, Files, Folder
from labelrank.models.config import AVERAGING

_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_KERAS = "model.weights.h5"
# What transformers' Trainer leaves beside the weights, to go on from there.
TRAINER_STATE = re.compile(
    r"(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|training_args\.bin|trainer_state\.json"
)
_OTHERS = {
    "model_index.json": "a diffusers pipeline, which makes images and encodes none",
    "open_clip_config.json": "an OpenCLIP model, whose weights have other names",
    "modules.json": "a Sentence Transformers model, whose encoder lies in a subfolder",
}
_OTHER_WAY = "Choose a checkpoint in the format of transformers, with config.json and model.safetensors."


def check_kind(files: Files, names: Collection[str], read_json: Callable[[str], Mapping[str, Any]]) -> None:
    """Refuse what has no weights in the format of transformers but can be told for something else.

    Args:
        names: Files at the top of the folder or repository.
        read_json: Returns the content of one of them.

    Raises:
        CheckpointError: It is an adapter, the output folder of a Trainer, a Keras Hub preset or the like.
    """
    config = read_json(CONFIG) if CONFIG in names else {}
    if config.get(AVERAGING):
        raise CheckpointError(
            f"{files.source} is a classifier that labelrank wrote: its last block averages tokens for the head, "
            "so it has no features to extract. Give the checkpoint that it was made from, which its README.md names."
        )
    if {WEIGHTS, INDEX} & {*names}:
        return
    if found := sorted({_ADAPTER, *_ADAPTER_WEIGHTS} & {*names}):
        raise CheckpointError(_about_adapter(files, found[0], read_json(_ADAPTER) if _ADAPTER in names else {}))
    if _KERAS in names or _is_keras_hub(config):
        raise CheckpointError(
            f"{files.source} is a Keras Hub preset ({_KERAS}), whose weights are named and laid out in another way. "
            f"{_OTHER_WAY} Most presets were converted from one that has the same name on the Hub."
        )
    for name, what in _OTHERS.items():
        if name in names:
            raise CheckpointError(f"{files.source} is {what} ({name}). {_OTHER_WAY}")
    if inside := _with_checkpoints(files):
        raise CheckpointError(_about_subfolders(files, inside))
    if state := sorted(name for name in names if TRAINER_STATE.fullmatch(name)):
        if any(name.endswith((".bin", ".pt", ".pth")) and name not in state for name in names):
            return  # there are weights, which are refused for their format
        raise CheckpointError(
            f"{files.source} holds what a Trainer needs to go on ({', '.join(state[:3])}), but no weights. Give the "
            "folder that Trainer.save_model wrote, or one of its checkpoint-N subfolders."
        )


def _about_adapter(files: Files, found: str, config: Mapping[str, Any]) -> str:
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    what = f"an adapter ({kind if isinstance(kind, str) else 'LoRA or another of PEFT'})"
    of = f" of {base}" if isinstance(base, str) and base else ""
    return (
        f"{files.source} is {what}{of} ({found}), not a whole model: it holds only what differs. Join the two: "
        "load the model, then PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder), "
        "and save its image processor there too; give that folder."
    )


def _with_checkpoints(files: Files) -> list[str]:
    """Return the subfolders with a checkpoint, the latest last."""
    holding = {str(PurePosixPath(path).parent) for path in files.paths_below() if PurePosixPath(path).name == CONFIG}
    weighted = {
        str(PurePosixPath(path).parent)
        for path in files.paths_below()
        if PurePosixPath(path).name.endswith(("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"))
    }
    return sorted(holding & weighted, key=lambda name: [int(n) for n in re.findall(r"\d+", name)[-1:]] or [-1])


def _about_subfolders(files: Files, inside: list[str]) -> str:
    listed = ", ".join(inside[-3:]) + (f" and {len(inside) - 3:,} more" if len(inside) > 3 else "")
    one = inside[-1]
    way = (
        f"Give one of them, such as {files.source}/{one}."
        if isinstance(files, Folder)
        else f"Only the top of a repository is read: download {one} and give that folder."
    )
    are = "is a checkpoint" if len(inside) == 1 else "are checkpoints"
    return f"{files.source} has no {WEIGHTS} itself; in it {are}: {listed}. {way}"


def _is_keras_hub(config: Mapping[str, Any]) -> bool:
    module = config.get("module")
    return isinstance(module, str) and module.startswith(("keras_hub", "keras_nlp", "keras_cv"))
