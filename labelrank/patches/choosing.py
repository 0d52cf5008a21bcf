"""The patches that an encoder keeps, by the name of what chooses them: a ranker, or a selector without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import encoder_flops
from labelrank.models.runtime import CompiledLayer, build_encoder, check_droppable, compile_layer
from labelrank.patches.ranker import EMBEDDED, Ranker, compile_ranker, open_ranker
from labelrank.patches.selection import SELECTORS, Samples, check_ratio, num_kept, select
from labelrank.settings import Settings

if TYPE_CHECKING:
    from labelrank.data.preprocess import Preprocessing
    from labelrank.models.checkpoint import Checkpoint

TOP, TOP_AND_CLUSTERS = BY_SCORES = ("top", "top-and-clusters")
"""The selectors that need a ranker."""
FREE = tuple(name for name in SELECTORS if name not in BY_SCORES)
"""The selectors that need nothing but the sample, or the encoder itself."""
CLUSTERS = f":{TOP_AND_CLUSTERS}"
"""What follows a ranker's name where its best scores are 70 % of what is kept, and the rest stands for clusters."""
CHOICES = (
    f"{', '.join(FREE)}; or a ranker: {', '.join(EMBEDDED)}, or a folder of `labelrank patches train`, which may be "
    f"followed by {CLUSTERS}"
)
"""What can be given as `--patches`."""
WORDS = {
    TOP: "the scores of {}",
    TOP_AND_CLUSTERS: "the scores of {} and clusters of pixels",
    "random": "chance",
    "grid": "an even grid",
    "centre": "nearness to the centre",
    "variance": "variance",
    "gradient": "gradient energy",
    "median": "distance from the median patch",
    "density-peaks": "density peaks",
    "attention": "the attention of CLS",
}
"""Selector -> what it chooses by, with a place for the ranker."""


@dataclass(frozen=True)
class Choosing:
    """How many patches of each input are encoded, and what chooses them. Nothing has run yet."""

    selector: str
    ratio: float
    config: EncoderConfig
    """Of the encoder at the size of its inputs."""
    seed: int = 0
    ranker: Ranker | None = None

    @property
    def keep(self) -> int:
        """How many patches are encoded."""
        return num_kept(self.ratio, self.config.num_patches)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is left out, so that nothing has to be chosen."""
        return self.keep == self.config.num_patches

    @property
    def provenance(self) -> dict[str, Any]:
        """What features say of it; `name_of` and `kept_text` read it."""
        kept = {"ratio": float(self.ratio), "count": self.keep, "of": self.config.num_patches, "by": self.selector}
        if self.ranker is not None:
            return {**kept, "ranker": {"id": self.ranker.id, "digest": self.ranker.digest}}
        return {**kept, "seed": self.seed} if self.selector == "random" else kept

    @property
    def runs_model(self) -> bool:
        """Whether a model is run to choose, which is fastest in batches."""
        return self.ranker is not None or self.selector == "attention"

    @property
    def flops(self) -> float:
        """Operations of such a model for one input; see `models.cost.encoder_flops`."""
        if self.keeps_all or not self.runs_model:
            return 0.0
        return encoder_flops(self.ranker.config.encoder if self.ranker else self.config)

    def chooser(
        self,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        precision: str = "float32",
        cache: Path | None = None,
        training: bool = False,
    ) -> Callable[[Sequence[str], np.ndarray], np.ndarray]:
        """Return what takes keys and normalised inputs, (B, [T,] H, W, C), and returns the kept patches, int32 (B, K).

        Args:
            checkpoint: The encoder.
            preprocessing: What normalised the inputs.
            batch_size: Inputs that a model takes at once.
            precision, cache, training: As for `models.runtime.compile_layer`.
        """
        rank = attend = None
        how: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "cache": cache, "training": training}
        if self.ranker is not None:
            rank = compile_ranker(self.ranker, preprocessing=preprocessing, **how)
        elif self.selector == "attention":
            attend = _attention_of(checkpoint, self.config, **how)

        def choose(keys: Sequence[str], inputs: np.ndarray) -> np.ndarray:
            samples = Samples(
                inputs,
                keys,
                self.config,
                scores=_in_batches(rank, inputs) if rank else None,
                attention=_in_batches(attend, inputs) if attend else None,
                seed=self.seed,
            )
            return select(self.selector, samples, self.keep)

        return choose


def choosing_of(
    name: str, ratio: float, checkpoint: Checkpoint, config: EncoderConfig, *, seed: int = 0, settings: Settings
) -> Choosing:
    """Return how patches are chosen for an encoder.

    Args:
        name: One of `FREE`; or the name or folder of a ranker, whose best scores are kept; or that and `CLUSTERS`.
        ratio: Share of the patches that are encoded, above 0 and at most 1.
        checkpoint, config: The encoder, and its sizes with those of its inputs.
        seed: Of the random selector.

    Raises:
        CheckpointError: The encoder takes all patches, or has no attention of CLS; or the ranker is not there, cannot
            be used, or is of other patches.
        SettingsError: A ratio that leaves no patch, or scores of no ranker.
    """
    num_kept(ratio, config.num_patches)
    check_droppable(config)
    if name in FREE:
        if name == "attention" and not config.use_cls_token:
            raise CheckpointError(
                f"{checkpoint.id} has no CLS whose attention could choose patches; choose another selector: "
                f"{', '.join(other for other in FREE if other != name)}."
            )
        return Choosing(name, ratio, config, seed)
    named, selector = (name.removesuffix(CLUSTERS), TOP_AND_CLUSTERS) if name.endswith(CLUSTERS) else (name, TOP)
    if named in ("", *BY_SCORES):
        raise SettingsError(f"--patches {name} needs the scores of a ranker; give one. What can choose is: {CHOICES}.")
    try:
        ranker = open_ranker(named, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Without a ranker, patches can be chosen by {', '.join(FREE)}.") from error
    ranker.check_fits(config, checkpoint.id)
    return Choosing(selector, ratio, config, seed, ranker)


def check_asked(ratio: float | None, name: str | None) -> None:
    """Raise SettingsError unless a ratio and what chooses are both given, and the ratio can be, or neither is."""
    if ratio is None and name is not None:
        raise SettingsError(f"{name} is to choose patches, but not how many. Give --keep too, such as --keep 0.5.")
    if ratio is None:
        return
    check_ratio(ratio)
    if name is None:
        raise SettingsError(
            f"A share of {ratio:g} of the patches is to be kept, but nothing chooses them. Give --patches: {CHOICES}."
        )


def name_of(kept: Mapping[str, Any], ranker: str | None = None) -> str:
    """Return the name of what has chosen patches, from what features say of it.

    Args:
        kept: As `Choosing.provenance`.
        ranker: The folder of the ranker, if it is not known by its name.
    """
    if "ranker" not in kept:
        return str(kept["by"])
    return f"{ranker or kept['ranker']['id']}{CLUSTERS if kept['by'] == TOP_AND_CLUSTERS else ''}"


def kept_text(kept: Mapping[str, Any]) -> str:
    """Return how many patches were kept and what has chosen them, in a few words; `kept` as for `name_of`."""
    by = WORDS.get(kept["by"], kept["by"]).format(kept.get("ranker", {}).get("id"))
    return f"{kept['count']:,} of {kept['of']:,} patches ({100 * kept['ratio']:.3g}\u00a0%), chosen by {by}"


def _in_batches(model: CompiledLayer, inputs: np.ndarray) -> np.ndarray:
    starts = range(0, len(inputs), model.batch_size)
    return np.concatenate([model(inputs[start : start + model.batch_size]) for start in starts])


def _attention_of(checkpoint: Checkpoint, config: EncoderConfig, **how: Any) -> CompiledLayer:
    def build(dtype: str) -> Any:
        from labelrank.patches.attention import ClsAttention

        return ClsAttention(build_encoder(checkpoint, dtype=dtype, image_size=config.image_size), dtype=dtype)

    return compile_layer(
        build,
        config.input_shape,
        identity={"attention": checkpoint.digest, "image_size": list(config.image_size)},
        what=f"attention of {checkpoint.id}",
        **how,
    )
