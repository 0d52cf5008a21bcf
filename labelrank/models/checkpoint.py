"""A checkpoint's name -> its files, on this computer or on the Hub, checked before the weights are downloaded.

Safetensors only. This module does not import Keras, so that a page can describe a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from labelrank import hub
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, HubError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer, local_path
from labelrank.models import timm
from labelrank.models.checkpoint_files import CONFIG, INDEX, WEIGHTS, Files, Folder, HubFolder
from labelrank.models.config import EncoderConfig
from labelrank.models.curated import CURATED, EMBEDDED
from labelrank.models.families import FAMILIES, masked_pretraining, read_config
from labelrank.models.names import check_names, check_shape, encoder_tensors, head_tensors
from labelrank.models.not_checkpoints import TRAINER_STATE, check_kind
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings, assets_dir

PREPROCESSOR, VIDEO_PREPROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"
# Where the preprocessing of each media is, first one first, as transformers 5 looks for it: file, and key within it.
_PREPROCESSINGS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "image": ((PROCESSOR, "image_processor"), (PREPROCESSOR, None)),
    "clip": (
        (PROCESSOR, "video_processor"),
        (VIDEO_PREPROCESSOR, None),
        (PROCESSOR, "image_processor"),
        (PREPROCESSOR, None),
    ),
}
_PREPROCESSING_FILES = (PREPROCESSOR, VIDEO_PREPROCESSOR, PROCESSOR)
# Formats that run code when they are opened, or that only one framework reads.
_OTHER_WEIGHTS = (
    *(".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl", ".pickle"),
    *(".keras", ".onnx", ".gguf", ".pb", ".tflite"),
)
_MAX_JSON_BYTES = 32 << 20
_MAX_HEADER_BYTES = 100 << 20
_HEAD_BYTES = 64
# safetensors' name of a type -> ours; each is read as float32.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Wider than what quantisation leaves of a weight, except where it packs several into one.
_WHOLE_NUMBERS = ("I64", "U64", "I32", "U32", "I16", "U16", "BOOL")
_PACKED = ("qweight", "qzeros", "g_idx", "packed")
# Counters and tables of indices that some versions of PyTorch and transformers store beside the weights. A model makes
# them anew.
_BUFFERS = ("position_ids", "num_batches_tracked", "relative_position_index")
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


@dataclass(frozen=True)
class _Tensor:
    """The entry of one tensor in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    name: str
    """Its name in the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A model in the Hugging Face format, whose configs and tensor names have been read and checked."""

    id: str
    """Embedded name, folder name or Hub id. Results must not show the path of a folder."""
    revision: str | None
    """The commit of a Hub repository; None otherwise."""
    config: EncoderConfig
    _stated: Preprocessing | CheckpointError
    """The preprocessing in the files, or why there is none that can be used."""
    _prepared_by: str | None
    """The file with the preprocessing; None if there is none."""
    _masked: str | None
    """What the files say of masked pre-training."""
    _files: Files
    _weights: tuple[str, ...]
    """The weights file, or the index and then the weights files."""
    _tensors: Mapping[str, _Tensor]
    notices: tuple[str, ...] = ()
    """What a user should know of how the files were read."""

    @property
    def folder(self) -> Path | None:
        """The folder of the files, absolute; None for an embedded checkpoint and for one of the Hub."""
        files = self._files
        return files.folder.resolve() if isinstance(files, Folder) and self.id not in EMBEDDED else None

    @property
    def source(self) -> str:
        """The name of the weights in messages."""
        return f"{self._files.source}/{self._weights[0]}"

    def preprocessing(self, kind: str = "checkpoint", image_size: int | None = None) -> Preprocessing:
        """Return how images become this encoder's input.

        Args:
            kind: `checkpoint`: as its files say; `reference`: as the published notebook does, whatever the files say.
            image_size: Height and width in pixels to use instead of the checkpoint's own.

        Raises:
            CheckpointError: The files do not say it, or say a size that the encoder does not take; or the size asked
                for is no multiple of the patches.
        """
        size = self.config.image_size if image_size is None else (image_size, image_size)
        self.config.resized(*size)  # refuses what is no multiple of the patches
        if kind == "reference":
            return Preprocessing.reference(size)
        if isinstance(self._stated, CheckpointError):
            raise self._stated
        if image_size is not None:
            return self._stated.resized(*size)
        if self._stated.output_size != size:
            made = self._stated.output_size
            ways = " or ".join(str(edges[0]) for edges in (made, size) if self._takes(*edges))
            choose = f"Choose with --image-size {ways}, or make" if ways else "Make"
            raise CheckpointError(
                f"{self._files.source}: {self._prepared_by or CONFIG} makes images of {_by(made)} px, {CONFIG} asks "
                f"for {_by(size)} px. {choose} size and image_size agree."
            )
        return self._stated

    def _takes(self, height: int, width: int) -> bool:
        """Return whether --image-size can be this height and width."""
        with suppress(CheckpointError):
            return height == width and self.config.resized(height, width).image_size == (height, width)
        return False

    @property
    def from_cache(self) -> bool:
        """Whether the Hub could not be reached and `revision` comes from the cache."""
        return self._files.from_cache

    @property
    def masked_pretraining(self) -> str | None:
        """Whether it was pre-trained on masked images or clips: yes, in part, no; None if that is not known."""
        curated = next((one.masked for one in CURATED if one.name == self.id), None)
        return curated or self._masked

    @property
    def licence(self) -> str | None:
        """The licence in the model card; else, for a curated checkpoint, the one in our list."""
        curated = next((one.licence for one in CURATED if one.name == self.id), None)
        return self._files.licence or curated

    @property
    def size_bytes(self) -> int:
        """Size of the weights."""
        return sum(self._files.size_bytes(name) for name in self._weights)

    @property
    def num_parameters(self) -> int:
        """Number of parameters in the weights, with decoder and head."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    @property
    def dtype(self) -> str:
        """Most frequent type of the parameters: float32, float16, bfloat16 or float64."""
        counts: Counter[str] = Counter()
        for tensor in self._tensors.values():
            counts[_FLOATS[tensor.dtype]] += math.prod(tensor.shape)
        return counts.most_common(1)[0][0]

    @cached_property
    def digest(self) -> str:
        """Hex digest of everything that determines the features: both configs and the weights.

        It is known before the weights are downloaded. A copy of the files in a folder has the same digest.
        """
        digest = hashlib.sha256()
        for name in (CONFIG, *([self._prepared_by] if self._prepared_by else []), *self._weights):
            digest.update(bytes.fromhex(self._files.sha256(name)))
        return digest.hexdigest()

    def fetch(self, on_progress: Progress | None = None, should_stop: ShouldStop | None = None) -> None:
        """Download the weights if they are missing or damaged on this computer.

        Raises:
            HubError: The weights cannot be downloaded.
            Cancelled: `should_stop` returned true; the downloaded part is kept.
        """
        self._files.fetch(self._weights, on_progress, should_stop)

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Return name -> array; each array is read on access.

        Raises:
            CheckpointError: A file is not a readable safetensors file.
            HubError: The weights cannot be downloaded.
        """
        paths = self._files.fetch(self._weights, None, None)
        return StoredTensors({name: (paths[tensor.file], tensor.name) for name, tensor in self._tensors.items()})


class StoredTensors(Mapping[str, np.ndarray]):
    """Name -> array, read on access from its file and name there."""

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        from safetensors import SafetensorError, safe_open

        self._places = places
        self._opened: dict[Path, Any] = {}
        for path in dict.fromkeys(path for path, _ in places.values()):
            try:
                self._opened[path] = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise _unreadable(str(path), error) from error

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import SafetensorError

        path, stored = self._places[name]
        try:
            result: np.ndarray = self._opened[path].get_tensor(stored)
            return result
        except (SafetensorError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Tensor {name} of {path} cannot be read ({error}); expected {', '.join(_FLOATS.values())}."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_checkpoint(name: str, *, revision: str | None = None, settings: Settings | None = None) -> Checkpoint:
    """Return the checkpoint with this embedded name, in this folder, or with this id on the Hub.

    From the Hub, only the configs and the header of the weights are downloaded, so that an unusable checkpoint is
    refused early. `Checkpoint.fetch` downloads the weights.

    Args:
        revision: Branch, tag, commit or refs/pr/N of a checkpoint on the Hub; None for main.
        settings: The workspace and the limits of downloads; by default those of the environment.

    Raises:
        CheckpointError: No checkpoint has this name, a file is missing, the weights are not safetensors, or the files
            do not belong together.
        HubError: The Hub does not have the checkpoint, refuses access, or cannot be reached.
    """
    settings = settings or Settings.from_env()
    folder = _local_folder(name, revision, settings)
    if folder is not None:
        return _read(Folder(folder), name if name in EMBEDDED else folder.resolve().name, None)
    repo = hub.resolve("model", name, revision, settings=settings)
    files = HubFolder(repo, settings)
    try:
        return _read(files, repo.id, repo.revision)
    except CheckpointError:
        # The copy on this computer may be damaged.
        if not hub.remove_damaged(repo, [n for n in files.names() if n.endswith((".json", ".safetensors"))]):
            raise
        return _read(files, repo.id, repo.revision)


def _local_folder(name: str, revision: str | None, settings: Settings) -> Path | None:
    """Return the folder of a checkpoint's name; None for the id of a repository on the Hub."""
    choices = f"an embedded name ({', '.join(EMBEDDED)}), a folder, or an id on the Hub such as facebook/vit-mae-base"
    folder: Path | None = None
    if name in EMBEDDED:
        folder = assets_dir() / "checkpoints" / name
        if not folder.is_dir():
            raise CheckpointError(f"The files of {name} are missing from {folder}. Install labelrank again.")
    elif not (settings.shared and _is_id(name)):
        try:
            path = local_path(name)
        except ValueError as error:
            raise CheckpointError(f"{error}; give {choices}.") from None
        if path.is_file():
            raise CheckpointError(f"Checkpoint {name} is a file; give the folder that holds {CONFIG} and {WEIGHTS}.")
        folder = path if path.is_dir() else None
    if folder is None:
        if _is_meant_for_hub(name):
            return None
        raise CheckpointError(
            f"Checkpoint {name!r} is neither an embedded one ({', '.join(EMBEDDED)}) nor a folder here, nor an id on "
            "the Hub such as facebook/vit-mae-base. Check the name; a folder must hold "
            f"{CONFIG}, {PREPROCESSOR} and {WEIGHTS}."
        )
    if revision is not None:
        raise CheckpointError(
            f"Revision {revision!r} was given, but {name} is no repository on the Hub. Leave the revision out."
        )
    return folder


def _is_id(name: str) -> bool:
    try:
        return "/" in hub.check_repo_id(name, "model")
    except HubError:
        return False


def _is_meant_for_hub(name: str) -> bool:
    """Return whether a name is probably meant as an id on the Hub, correct or not, and not as a missing folder."""
    is_address = "://" in name or name.lower().startswith(("huggingface.co/", "hf.co/"))
    return _is_id(name) or is_address or bool(re.fullmatch(r"[\w.-]+\s*/\s*[\w. -]+", name.strip()) and " " in name)


def _read(files: Files, id_: str, revision: str | None) -> Checkpoint:
    names = set(files.names())
    check_kind(files, names, lambda name: read_json(files, name, names))
    content = read_json(files, CONFIG, names)
    # An unknown family is refused before anything else is looked at.
    from_timm = timm.is_timm(content)
    if from_timm:
        timm.check_architecture(content)
    else:
        read_config(content)
    weights = _find_weights(files, names)
    tensors = _read_headers(files, weights, names)
    if timm.has_its_names(tensors):
        tensors = timm.renamed(tensors)
    notices: tuple[str, ...] = ()
    if from_timm:
        found = timm.read(content, {name: tensor.shape for name, tensor in tensors.items()})
        config, notices, plain = found.encoder(read_config(found.config)), found.notices, found.config
    else:
        config, plain = read_config(content, tensors), content
    stated, prepared_by = _read_preprocessing(files, names, config)
    if from_timm and prepared_by is None:
        stated = _of_timm(content, files)
    config = _of_any_size(config, stated)
    masked = masked_pretraining(plain, tensors)
    checkpoint = Checkpoint(id_, revision, config, stated, prepared_by, masked, files, weights, tensors, notices)
    # Checked before a model is built: a config with a billion layers would fill the memory.
    described, stored = _least_parameters(config), checkpoint.num_parameters
    if described > stored:
        raise CheckpointError(
            f"{files.source}: {CONFIG} describes an encoder of {described:,} parameters or more, {weights[0]} has "
            f"{stored:,}. Check that they belong together."
        )
    _check_tensors(checkpoint)
    return checkpoint


def _of_any_size(config: EncoderConfig, stated: Preprocessing | CheckpointError) -> EncoderConfig:
    """Return the encoder for the images that its preprocessing makes, where the published code takes any size.

    DINOv2 was trained on 518 px and its files make images of 224 px: that is how it is used.
    """
    if isinstance(stated, CheckpointError) or not FAMILIES[config.model_type].any_size:
        return config
    height, width = stated.output_size
    fits = height % config.patch_size[0] == width % config.patch_size[1] == 0
    return config.resized(height, width) if fits else config


def _read_preprocessing(
    files: Files, names: Collection[str], config: EncoderConfig
) -> tuple[Preprocessing | CheckpointError, str | None]:
    """Return the preprocessing that the files say, or why none can be used; and the file that says it.

    Raises:
        CheckpointError: A file cannot be read as JSON. What it says matters only if it is asked for, so that is no
            error here.
    """
    for name, key in _PREPROCESSINGS[config.media]:
        if name not in names:
            continue
        content: Any = read_json(files, name, names)
        if key is not None and key not in content:
            continue  # older files of this name hold no preprocessing
        where = f"{files.source}/{name}" + (f", {key}" if key else "")
        try:
            return Preprocessing.from_config(
                content[key] if key else content,
                default_type=FAMILIES[config.model_type].processor,
                image_size=config.image_size,
                where=where,
            ), name
        except CheckpointError as error:
            return error, name
    return CheckpointError(
        f"{_lacks(files, PREPROCESSOR)} Or choose preprocessing reference (--preprocessing reference), which "
        "needs no such file."
    ), None


def _of_timm(content: Mapping[str, Any], files: Files) -> Preprocessing | CheckpointError:
    try:
        return Preprocessing.from_config(timm.preprocessor_config(content), where=f"{files.source}/{CONFIG}")
    except CheckpointError as error:
        return error


def _least_parameters(config: EncoderConfig) -> int:
    size = config.transformer
    return size.num_layers * (4 * size.hidden_dim**2 + 2 * size.hidden_dim * size.mlp_dim)


def _find_weights(files: Files, names: Collection[str]) -> tuple[str, ...]:
    """Return the weights file, or the index and then the weights files in order."""
    found: tuple[str, ...]
    if WEIGHTS in names:
        found = (WEIGHTS,)
    elif INDEX in names:
        parts = read_json(files, INDEX, names).get("weight_map")
        if not isinstance(parts, dict) or not parts or not all(_is_part(part) for part in parts.values()):
            raise CheckpointError(
                f"{files.source}/{INDEX} has no weight_map of tensor names to .safetensors files beside it; copy or "
                "download it again."
            )
        found = (INDEX, *sorted(set(parts.values())))
        if missing := [part for part in found if part not in names]:
            raise CheckpointError(
                f"{files.source} has no {', '.join(missing[:3])}, which {INDEX} names; copy or download it."
            )
    else:
        raise _no_weights(files, names)
    if unsafe := sorted({CONFIG, *_PREPROCESSING_FILES, *found} & {*files.unsafe}):
        raise CheckpointError(
            f"The Hub's security scan flags {', '.join(unsafe)} of {files.source}, so it is not downloaded. Choose "
            f"another checkpoint, or see its files on the Hub for the scan's report."
        )
    return found


def _is_part(name: Any) -> bool:
    return isinstance(name, str) and PurePosixPath(name).name == name and name.endswith(".safetensors")


def _no_weights(files: Files, names: Collection[str]) -> CheckpointError:
    others = sorted(n for n in names if n.endswith(_OTHER_WEIGHTS) and not TRAINER_STATE.fullmatch(n))
    if not others and (named := sorted(n for n in names if n.endswith(".safetensors"))):
        return CheckpointError(
            f"{files.source} has no {WEIGHTS}, but {', '.join(named[:3])}. If that is the whole model, rename it so."
        )
    if not others:
        return CheckpointError(
            f"{files.source} has no {WEIGHTS}; expected the weights in the safetensors format under that name."
        )
    refused = (
        f"{files.source} has {', '.join(others)} but no {WEIGHTS}. Pickle-based weights are refused because opening "
        "them runs code of whoever made them, and other formats are read by one framework alone."
    )
    if isinstance(files, HubFolder):
        converted = None
        # If this search fails, the user must still see the first error.
        with suppress(HubError):
            converted = hub.find_in_pull_requests(files.repo, {WEIGHTS, INDEX}, settings=files.settings)
        if converted:
            return CheckpointError(
                f"{refused} A pull request there by {converted.author or 'an unknown account'} holds them as "
                f"safetensors; the owner has not taken it over, so look at {converted.url} first. To use it, give the "
                f"revision {converted.revision} (--checkpoint-revision {converted.revision})."
            )
        return CheckpointError(
            f"{refused} Ask for a conversion at https://huggingface.co/spaces/safetensors/convert, which opens a pull "
            "request there, or choose another checkpoint."
        )
    return CheckpointError(
        f"{refused} Save the model again with transformers' save_pretrained(safe_serialization=True)."
    )


def read_json(files: Files, name: str, names: Collection[str]) -> dict[str, Any]:
    """Return the content of a JSON file among `names`.

    Raises:
        CheckpointError: It is missing, far too large, or holds no JSON object.
    """
    where = f"{files.source}/{name}"
    if name not in names:
        raise CheckpointError(_lacks(files, name))
    if (size := files.size_bytes(name)) > _MAX_JSON_BYTES:
        raise CheckpointError(
            f"{where} has {size:,} bytes; expected a JSON file of a few kB. Choose another checkpoint."
        )
    try:
        content = files.small(name)
        if is_lfs_pointer(content):
            raise CheckpointError(f"{where} {LFS_POINTER_TEXT}")
        value = json.loads(content.decode("utf-8-sig"))
    except (CheckpointError, HubError):
        raise
    # ValueError: not UTF-8, not JSON, or a number of thousands of digits; RecursionError: nested too deep.
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} cannot be read as JSON ({error}); copy or download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} holds a {type(value).__name__}; expected a JSON object.")
    return value


def _lacks(files: Files, name: str) -> str:
    if isinstance(files, Folder):
        return f"{files.source} has no {name}; copy it from the model that the checkpoint was made from."
    return (
        f"{files.source} has no {name}, which transformers writes beside its weights. Choose another checkpoint, or "
        "download this one and add the file of the model that it was made from."
    )


def _unreadable(where: str, reason: object) -> CheckpointError:
    return CheckpointError(f"{where} is not a readable safetensors file ({reason}); copy or download it again.")


def _read_headers(files: Files, weights: tuple[str, ...], names: Collection[str]) -> dict[str, _Tensor]:
    """Return tensor name -> header entry, from the first bytes of the weights files."""
    tensors: dict[str, _Tensor] = {}
    for part in (name for name in weights if name != INDEX):
        for name, tensor in read_header(files, part).items():
            if name in tensors:
                raise CheckpointError(
                    f"Tensor {name} is in {tensors[name].file} and in {part} of {files.source}; expected it once. Save "
                    "the model again."
                )
            tensors[name] = tensor
    if weights[0] == INDEX:
        listed = read_json(files, INDEX, names)["weight_map"]
        wrong = sorted(n for n, part in listed.items() if n not in tensors or tensors[n].file != part)
        if wrong:
            raise CheckpointError(
                f"{files.source}/{INDEX} says that {listed[wrong[0]]} holds the tensor {wrong[0]}, which it does not. "
                "Copy or download the files again, all from the same revision."
            )
    return tensors


def read_header(files: Files, name: str) -> dict[str, _Tensor]:
    """Return the tensors of one safetensors file.

    Source: the format's description, https://huggingface.co/docs/safetensors.
    """
    where, size = f"{files.source}/{name}", files.size_bytes(name)
    try:
        with files.opened(name) as file:
            head = file.read(_HEAD_BYTES)
            if is_lfs_pointer(head):
                raise CheckpointError(f"{where} {LFS_POINTER_TEXT}")
            length = int.from_bytes(head[:8], "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            text = head[8:] + file.read(max(0, length + 8 - len(head)))
            header = json.loads(text[:length])
        header.pop("__metadata__", None)
        tensors, end = {}, 0
        for tensor, facts in header.items():
            dtype, shape = str(facts["dtype"]), tuple(int(n) for n in facts["shape"])
            start, stop = map(int, facts["data_offsets"])
            end = max(end, stop)
            if tensor.rpartition(".")[2] in _BUFFERS:
                continue
            if dtype not in _FLOATS:
                raise CheckpointError(_not_floats(tensor, where, dtype))
            if min(shape, default=0) < 0 or 8 * (stop - start) != math.prod(shape) * _BITS[dtype]:
                raise ValueError(f"tensor {tensor} of shape {shape} in bytes {start:,} to {stop:,}")
            tensors[tensor] = _Tensor(dtype, shape, name, tensor)
        if not tensors or 8 + length + end != size:
            raise ValueError(f"the file has {size:,} bytes, its header speaks of {8 + length + end:,}")
    except (CheckpointError, HubError):
        raise
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise _unreadable(where, error) from error
    return tensors


def _not_floats(tensor: str, where: str, dtype: str) -> str:
    text = f"Tensor {tensor} of {where} holds {dtype}; expected {', '.join(_FLOATS)}."
    if dtype in _WHOLE_NUMBERS and not tensor.endswith(_PACKED):
        return (
            f"{text} These are whole numbers or flags, such as indices and counts, and no weights that are known here. "
            "Save the model again without this tensor, or choose another checkpoint."
        )
    return f"{text} Quantised weights are not read: use the checkpoint they were made from."


def _check_tensors(checkpoint: Checkpoint) -> None:
    """Check names and shapes of the tensors against the config, before the weights are downloaded.

    Raises:
        CheckpointError: A tensor is missing, left over, or of another shape.
    """
    config, tensors, source = checkpoint.config, checkpoint._tensors, checkpoint.source
    check_names(config, tensors, decoder=False, source=source)
    for wanted in (*encoder_tensors(config, tensors), *head_tensors(config, tensors)):
        found = tensors.get(wanted.name)
        check_shape(wanted.name, found.shape if found else None, wanted.shape, source=source)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a page shows about a checkpoint before anything runs."""

    name: str
    revision: str | None
    """The commit of a checkpoint on the Hub; None otherwise."""
    model_type: str
    media: str
    """The input of the encoder: image or clip."""
    num_parameters: int
    dtype: str
    hidden_dim: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_frames: int | None
    tubelet_size: int | None
    poolings: tuple[str, ...]
    size_bytes: int
    """Size of the weights."""
    is_local: bool
    """Whether the weights need no download."""
    licence: str | None
    gated: bool
    unsafe: tuple[str, ...]
    """Files of the repository that the Hub's security scan flags; none of them is used."""
    good_for: str | None
    pretrained_on: str | None
    masked: str | None
    """Whether it was pre-trained on masked images or clips: yes, in part, no; None if that is not known."""
    notices: tuple[str, ...]
    """What a user should know of how its files were read."""
    drops_patches: bool
    """Whether it can encode some of its patches alone."""


def describe_checkpoint(name: str, revision: str | None = None, *, settings: Settings | None = None) -> CheckpointInfo:
    """Describe a checkpoint from its header and card, without its weights.

    Raises:
        CheckpointError, HubError: As for `open_checkpoint`.
    """
    from labelrank.models.pooling import poolings_of

    checkpoint = open_checkpoint(name, revision=revision, settings=settings)
    config, files = checkpoint.config, checkpoint._files
    curated = next((one for one in CURATED if one.name == checkpoint.id), None)
    datasets = files.card.get("datasets")
    stated = ", ".join(map(str, datasets)) if isinstance(datasets, list) else None
    return CheckpointInfo(
        name=name,
        revision=checkpoint.revision,
        model_type=config.model_type,
        media=config.media,
        num_parameters=checkpoint.num_parameters,
        dtype=checkpoint.dtype,
        hidden_dim=config.transformer.hidden_dim,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=config.num_frames,
        tubelet_size=config.tubelet_size,
        poolings=poolings_of(has_cls=config.use_cls_token, has_fc_norm=config.fc_norm),
        size_bytes=checkpoint.size_bytes,
        is_local=files.is_here(checkpoint._weights),
        licence=checkpoint.licence,
        gated=files.gated,
        unsafe=files.unsafe,
        good_for=curated.good_for if curated else None,
        pretrained_on=curated.pretrained_on if curated else stated,
        masked=checkpoint.masked_pretraining,
        notices=checkpoint.notices,
        drops_patches=config.drops_patches,
    )
