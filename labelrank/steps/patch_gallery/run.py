"""Make the folder of a gallery: scores, what each selector keeps, and what the decoder makes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank import cache, hub
from labelrank.data.dataset import NOUNS, Dataset, Sample
from labelrank.errors import Cancelled, CheckpointError, FeaturesError
from labelrank.features.store import PATCHES, FeatureSet, write_features
from labelrank.files import replacing
from labelrank.json_values import plain
from labelrank.models.backend import devices
from labelrank.models.checkpoint import Checkpoint
from labelrank.models.cost import reconstruction_flops
from labelrank.patches.pictures import decoded, joined, pixels
from labelrank.patches.ranker import EMBEDDED, Ranker, compile_ranker, open_ranker
from labelrank.patches.reconstructor import Reconstructor
from labelrank.patches.selection import Samples, num_kept, select
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_gallery.folder import (
    CARD,
    SCORES,
    VERSION,
    Gallery,
    GalleryResult,
    is_there,
    read_errors,
    read_gallery,
    read_scores,
)
from labelrank.steps.patch_gallery.request import AUTO, GalleryProspect, GalleryRequest, of_samples
from labelrank.steps.patches import ScorePlan, Scoring, reliability_of, score
from labelrank.steps.patches import plan as plan_scores
from labelrank.times import Work, kind_of

RATIOS = (0.25, 0.33, 0.5, 0.75)
"""Shares of the patches that are kept."""
BY_SCORES = "top"
"""The selector by the scores themselves; what is taken away from its patches is shown one by one."""
RANKER = "ranker"
"""The selector by what a ranker gives, at its own cost."""
FREE = ("grid", "centre", "variance", "gradient", "median", "density-peaks", "random")
"""Selectors that need nothing but the sample."""
ATTENTION = "attention"
MAX_PICTURE_BYTES = 256 << 20
"""Pictures of one gallery before they are packed; of more samples there are scores alone."""


@dataclass(frozen=True)
class GalleryPlan:
    """A gallery whose dataset and checkpoint fit. Nothing has run yet."""

    work: ScorePlan
    ranker: Ranker | None = None

    @property
    def digest(self) -> str:
        """Hex digest of what determines the gallery."""
        made = [VERSION, self.work.digest, RATIOS, self.selectors, self.ranker and self.ranker.digest]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()

    def folder(self, settings: Settings) -> Path:
        """Return where the gallery is kept."""
        return settings.cache / "patches" / self.digest

    @property
    def selectors(self) -> tuple[str, ...]:
        """What is compared: the scores first."""
        config = self.work.checkpoint.config
        has_attention = config.use_cls_token and not config.rotary and not config.relative_bias
        learned = (RANKER,) if self.ranker else ()
        return (BY_SCORES, *learned, *FREE, *((ATTENTION,) if has_attention else ()))

    @property
    def taken_away(self) -> tuple[float, ...]:
        """The keep ratios at which each kept patch is taken away by itself: as many as at most double the work."""
        config, left = self.work.checkpoint.config, self.work.flops
        found: list[float] = []
        for ratio in RATIOS:
            kept = num_kept(ratio, config.num_patches)
            left -= kept * reconstruction_flops(config, kept - 1)
            if kept > 1 and (left >= 0 or not found):
                found.append(ratio)
        return tuple(found)

    @property
    def shown(self) -> tuple[Sample, ...]:
        """The samples with pictures, one of each class after the other."""
        config, request = self.work.checkpoint.config, self.work.request
        taken_away = sum(num_kept(ratio, config.num_patches) for ratio in self.taken_away)
        pixels = config.num_slices * int(np.prod(config.input_shape[-3:]))
        each = (1 + len(RATIOS) * len(self.selectors) + taken_away) * pixels
        samples = [sample for drawn in self.work.dataset.rounds(request.seed) for sample in drawn]
        return tuple(samples[: max(1, MAX_PICTURE_BYTES // each)])


def prospect(found: GalleryPlan, settings: Settings) -> GalleryProspect:
    """Return what a plan would be."""
    work, folder = found.work, found.folder(settings)
    return GalleryProspect(
        samples=len(work.dataset.samples),
        classes=int((work.dataset.class_counts > 0).sum()),
        media=work.dataset.media,
        flops=_flops(found),
        work=_kind_of_work(found),
        visible=work.visible,
        places=work.checkpoint.config.noise_shape[0],
        ranker=found.ranker.id if found.ranker else None,
        folder=folder,
        is_here=is_there(folder),
    )


def _kind_of_work(found: GalleryPlan) -> str:
    work = found.work
    size = reconstruction_flops(work.checkpoint.config, work.visible)
    return kind_of("score patches", devices()[0].name, size=size, more=work.dataset.media)


def _flops(found: GalleryPlan) -> float:
    # The reconstructions take as much again.
    return 2 * found.work.flops * len(found.work.dataset.samples)


def plan(request: Request, asked: GalleryRequest, settings: Settings, *, dataset: Dataset | None = None) -> GalleryPlan:
    """Return the plan of a gallery of what a request names, of its own number of samples. It does not load Keras.

    Raises:
        As `steps.patches.plan`.
        CheckpointError: There is no such ranker, or it ranks the patches of another grid.
    """
    request = of_samples(request, max_per_class=asked.per_class)
    work = plan_scores(request, Scoring(asked.visible, asked.rounds, asked.variant), settings, dataset=dataset)
    if asked.ranker == AUTO:
        return GalleryPlan(work, _embedded_ranker(work.checkpoint))
    if asked.ranker is None:
        return GalleryPlan(work)
    ranker = open_ranker(asked.ranker, settings)
    ranker.check_fits(work.checkpoint.config, work.checkpoint.id)
    return GalleryPlan(work, ranker)


def _embedded_ranker(checkpoint: Checkpoint) -> Ranker | None:
    """Return the embedded ranker that was trained with a checkpoint; None if there is none."""
    for name in EMBEDDED:
        with contextlib.suppress(CheckpointError):
            ranker = open_ranker(name)
            ranker.check_fits(checkpoint.config)
            if (ranker.made_with.get("teacher") or {}).get("digest") == checkpoint.digest:
                return ranker
    return None


def run_job(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Do the job of a gallery and return its `GalleryResult` as JSON values, and as `work` what it has scored."""
    on_progress(0, None, Stage(Kind.READ, "Reading the dataset"))
    with hub.telling(lambda text: on_progress(0, None, Stage(Kind.READ, text)), should_stop):
        made = plan(Request.from_params(params), GalleryRequest.from_params(params), settings)
        result = make(
            made,
            settings,
            recompute=bool(params.get("recompute")),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    done = None if result.reused else Work(_kind_of_work(made), result.flops, stages=(Kind.ENCODE,))
    return {**plain(result), "work": plain(done)}


def make(
    made: GalleryPlan,
    settings: Settings,
    *,
    recompute: bool = False,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> GalleryResult:
    """Make a gallery, unless it is there already. Finished scores and pictures are used, whatever stopped it.

    Raises:
        As `steps.patches.score`.
    """
    began, folder = time.monotonic(), made.folder(settings)
    reused = not recompute and _is_whole(folder)
    if not reused:
        (folder / CARD).unlink(missing_ok=True)
        scores = score(made.work, settings, recompute=recompute, on_progress=on_progress, should_stop=should_stop)
        _write(
            made,
            scores,
            folder,
            recompute=recompute,
            encoders=settings.encoders,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        cache.evict(settings, spare=[folder])
    scores = read_scores(folder)
    return GalleryResult(
        folder=folder,
        samples=len(scores.keys),
        classes=len(np.unique(scores.y)),
        failures=len(scores.failures),
        seconds=round(time.monotonic() - began, 3),
        flops=_flops(made),
        reused=reused,
        device=scores.provenance["device"],
    )


def _is_whole(folder: Path) -> bool:
    try:
        read_gallery(folder)
    except FeaturesError:
        return False
    return True


def _write(
    made: GalleryPlan,
    scores: FeatureSet,
    folder: Path,
    *,
    recompute: bool,
    encoders: Path,
    on_progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    work, config = made.work, made.work.checkpoint.config
    row_of = {key: row for row, key in enumerate(scores.keys)}
    shown = [sample for sample in made.shown if sample.key in row_of]
    stage = Stage(Kind.ENCODE, "Reconstructing from a few patches", NOUNS[work.dataset.media][1])
    if on_progress:
        on_progress(0, len(shown), Stage(Kind.LOAD, "Loading the autoencoder", stage.unit))
    rebuild, rank = Reconstructor(work.checkpoint), None
    if made.ranker:
        rank = compile_ranker(made.ranker, batch_size=1, preprocessing=work.preprocessing, cache=encoders)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with cache.using(folder):
            for number, sample in enumerate(shown):
                if should_stop and should_stop():
                    raise Cancelled("Reconstructing was cancelled; what is finished is kept.")
                path = folder / f"{number}.npz"
                if recompute or not _holds(path, sample.key):
                    arrays = _pictures(made, rebuild, rank, sample, np.asarray(scores.X)[row_of[sample.key]])
                    arrays["key"] = np.array(sample.key)
                    with replacing(path) as partial, partial.open("wb") as file:
                        np.savez_compressed(file, allow_pickle=False, **arrays)
                if on_progress:
                    on_progress(number + 1, len(shown), stage)
            write_features(scores, folder / SCORES)
            grid = scores.provenance[PATCHES]["grid"]
            card = Gallery(
                version=VERSION,
                media=work.dataset.media,
                grid=(grid[0], grid[1], grid[2]),
                selectors=made.selectors,
                ratios=RATIOS,
                ranker=made.ranker.id if made.ranker else None,
                taken_away=made.taken_away,
                shown=tuple(sample.key for sample in shown),
                standardised=config.norm_pix_loss,
                reliability=reliability_of(scores),
                error=tuple(map(tuple, read_errors(folder, len(shown)).mean(axis=0).round(2).tolist())),
            )
            with replacing(folder / CARD) as partial:
                partial.write_text(json.dumps(plain(card), indent=1), encoding="utf-8")
    except OSError as error:
        raise FeaturesError(
            f"The pictures cannot be written to {folder} ({error.strerror or error}). Free some space there, and start "
            "the same work again: it goes on from what is finished."
        ) from error


def _holds(path: Path, key: str) -> bool:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays["key"]) == key
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def _pictures(
    made: GalleryPlan,
    rebuild: Reconstructor,
    rank: Callable[[np.ndarray], np.ndarray] | None,
    sample: Sample,
    scores: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the arrays of one sample's file."""
    work, config = made.work, made.work.checkpoint.config
    if work.sampling is None:
        x = work.preprocessing(work.dataset.load(sample))
    else:
        assert work.dataset.load_clips is not None
        x = work.preprocessing(work.dataset.load_clips(sample, work.sampling)[0])
    seen = Samples(
        x[None],
        [sample.key],
        config,
        scores=scores[None],
        attention=rebuild.attention(x)[None] if ATTENTION in made.selectors else None,
        seed=work.request.seed,
    )
    ranked = None if rank is None else replace(seen, scores=rank(x[None]))

    def keep(selector: str, count: int) -> np.ndarray:
        return select(BY_SCORES, ranked, count) if ranked and selector == RANKER else select(selector, seen, count)

    original = seen.patches()[0]  # (N, patch_dim)
    flat = pixels(original.reshape(-1, config.num_channels), work.preprocessing).reshape(original.shape)

    def pictures_of(visible: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return uint8 (S, ...), the errors (S,), and what the decoder gives (S, M, patch_dim) of sets (S, V)."""
        found, hidden = rebuild(x, visible)
        whole = np.repeat(flat[None], len(visible), axis=0)
        given = pixels(
            decoded(found, original[hidden], config).reshape(-1, config.num_channels), work.preprocessing
        ).reshape(found.shape)
        np.put_along_axis(whole, hidden[:, :, None], given, axis=1)
        error = np.abs(whole.astype(np.float32) - flat).mean(axis=(1, 2))
        return np.stack([look(one) for one in whole]), error, found

    def look(patches: np.ndarray) -> np.ndarray:
        """Return the image of patches (N, patch_dim); of a clip the first frame of each slice."""
        whole = joined(patches, config)
        return whole if config.tubelet_size is None else whole[:: config.tubelet_size]

    arrays: dict[str, np.ndarray] = {"picture": look(flat)}
    kept, rebuilt, errors = [], [], []
    for ratio in RATIOS:
        count = num_kept(ratio, config.num_patches)
        chosen = np.concatenate([keep(name, count) for name in made.selectors])  # (selectors, K)
        images, error, given = pictures_of(chosen)
        mask = np.zeros((len(chosen), config.num_patches), bool)
        np.put_along_axis(mask, chosen, True, axis=1)
        kept.append(mask)
        rebuilt.append(images)
        errors.append(error)
        if ratio in made.taken_away:
            best = chosen[0]
            rest = np.stack([np.delete(best, place) for place in range(len(best))])
            images, _, fewer = pictures_of(rest)
            # Of the patches that are hidden in both, as the scores.
            gone = np.searchsorted(np.flatnonzero(~mask[0]), best)
            moved = [
                np.abs(np.delete(one, place, axis=0) - given[0]).mean() for one, place in zip(fewer, gone, strict=True)
            ]
            arrays |= {f"without_{ratio}": images, f"moved_{ratio}": np.array(moved, np.float32)}
    return arrays | {
        "kept": np.stack(kept),
        "rebuilt": np.stack(rebuilt),
        "error": np.stack(errors).astype(np.float32),
    }
