"""What is lost when an encoder sees only some patches, and what is won: accuracy, order of the labels, speed.

    python benchmarks/keep_ratio.py                                 digits, digits in corners, clips, speed
    python benchmarks/keep_ratio.py --parts digits --quick          a first impression of one part
    python benchmarks/keep_ratio.py --parts cifar100 --cifar100 TRAIN.parquet TEST.parquet
    python benchmarks/keep_ratio.py --parts actions --actions VIDEOS.zip

Each part encodes the same samples with every selection of patches at 25, 33, 50 and 75 %, by `plan` and `extract`, as
`labelrank extract --keep --patches` calls them, in float32. The columns:

- accuracy: a logistic regression on the standardised mean of the encoded patches, fitted on 70 % of the training rows;
  mean over draws of these rows with its 95 % interval over the draws (Student's t), on the same held-out rows.
- less random: that accuracy less that of random patches (3 seeds), in points; in brackets the standard error over the
  held-out rows, paired.
- tau: Kendall's between the order of the labels from the kept patches and from all, of the same training rows, in the
  better direction. The ceiling is that of two halves of the rows, with all patches.
- ms: processor time of a sample from its file to its vector, with whatever chooses the patches, from the end of the
  first batch on. On a busy machine it says more than the clock.

The parts:

    digits    mae-tiny-digits and its embedded ranker
    corners   the same digits on a black canvas of twice the width and height, each in a corner drawn at random; the
              encoder resizes it, so a digit fills a quarter of its patches. The ranker is trained on these
    cifar100  20 superclasses with mae-tiny-digits, which has never seen a photo: a weak encoder. The ranker is trained
              on them
    clips     moving-digits, videomae-tiny-moving-digits and its embedded ranker
    actions   videos of 12 actions (a zip with the splits train, val and test) with the same, weak here. The ranker is
              trained on them
    speed     ViT-B/16 with random weights on JPEG files of 500 x 375: no accuracy. Rankers of our default size and of
              the published ones, all sides in turns, ratios to all patches of the same run
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import sides
from common import notes, parser_of, print_header
from extract_images import CONFIG, PREPROCESSOR, write_photos
from PIL import Image
from scipy.stats import kendalltau
from scipy.stats import t as student_t
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from labelrank.data import SourceOptions, open_dataset
from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Sample
from labelrank.features.store import FeatureSet
from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.names import encoder_tensors
from labelrank.patches.choosing import CLUSTERS, FREE
from labelrank.patches.ranker import EMBEDDED, open_ranker
from labelrank.patches.ranker_card import TITLES
from labelrank.patches.ranker_config import HEAD_BIAS, HEAD_WEIGHT, RankerConfig, default_size
from labelrank.progress import Kind, Stage
from labelrank.ranking import LabelRanker
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import extract

KEEPS = (0.25, 0.33, 0.5, 0.75)
RANDOM_SEEDS = (0, 1, 2)
TRAIN_SHARE = 0.7
DIGITS, CORNERS, CIFAR100, CLIPS, ACTIONS, SPEED = "digits", "corners", "cifar100", "clips", "actions", "speed"
Source = tuple[str, str | None]
"""What to open, and which split."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """Data, an encoder and a ranker."""

    title: str
    train: Source
    tests: tuple[Source, ...]
    checkpoint: str
    ranker: str | None = None
    """An embedded one; None: it is trained here."""
    training: tuple[str, ...] = ()
    """Options of `labelrank patches train`."""
    label_column: str | None = None
    per_class: tuple[int | None, int | None] = (None, None)
    """Most samples of a class to train on and to test."""


@dataclass(frozen=True)
class Cost:
    """Of one sample, from the end of the first batch on."""

    seconds: float
    processor_s: float


@dataclass(frozen=True)
class Vectors:
    """What one selection gives."""

    train: tuple[np.ndarray, np.ndarray]
    """X (n, D) and y (n,)."""
    held_out: tuple[np.ndarray, np.ndarray]
    cost: Cost


@dataclass
class Selection:
    """What is found of one selection at one keep ratio; of random patches, for each seed of theirs."""

    right: list[np.ndarray] = field(default_factory=list)
    """Whether each held-out row is told right after each draw of training rows, bool (draws, rows)."""
    taus: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    @property
    def of_draws(self) -> np.ndarray:
        return np.mean(self.right, axis=(0, 2))

    @property
    def of_rows(self) -> np.ndarray:
        return np.mean(self.right, axis=(0, 1))


# --- Vectors


def timed(work: Any, settings: Settings) -> tuple[FeatureSet, Cost]:
    """Return the features of a plan and what they cost."""
    marks: list[tuple[float, float, int]] = []

    def mark(done: int, total: int | None, stage: Stage) -> None:
        if stage.kind == Kind.ENCODE and done:
            marks.append((perf_counter(), process_time(), done))

    features = extract(work, settings, recompute=True, follow_stability=False, on_progress=mark)
    end, end_processor = perf_counter(), process_time()
    assert not features.failures, features.failures
    began, began_processor, first = marks[0]
    count = len(features.y) - first
    return features, Cost((end - began) / count, (end_processor - began_processor) / count)


def joined(subject: Subject, settings: Settings) -> Dataset:
    """Return the training samples and the held-out ones as one dataset, so that one pass encodes both."""
    owners: dict[str, tuple[Dataset, Sample]] = {}
    for number, (data, split) in enumerate((subject.train, *subject.tests)):
        options = SourceOptions(split, label_column=subject.label_column)
        opened = open_dataset(data, options, settings=settings).select(subject.per_class[min(number, 1)])
        owners |= {f"{number}/{sample.key}": (opened, sample) for sample in opened.samples}
    first = next(iter(owners.values()))[0]

    def load_clips(sample: Sample, sampling: ClipSampling) -> np.ndarray:
        dataset, own = owners[sample.key]
        assert dataset.load_clips is not None
        return dataset.load_clips(own, sampling)

    def load(sample: Sample) -> np.ndarray:
        dataset, own = owners[sample.key]
        return dataset.load(own)

    samples = tuple(Sample(key, own.label) for key, (_, own) in owners.items())
    clips = None if first.load_clips is None else load_clips
    return replace(first, samples=samples, load=load, load_clips=clips, digest=f"joined {first.digest}")


def vectors(
    subject: Subject, dataset: Dataset, settings: Settings, patches: str | None, keep: float, seed: int = 0
) -> Vectors:
    request = Request(
        subject.train[0],
        subject.checkpoint,
        precision="float32",
        seed=seed,
        **({} if patches is None else {"keep": keep, "patches": patches}),
    )
    features, cost = timed(plan(request, settings, dataset=dataset), settings)
    is_train = np.array([key.startswith("0/") for key in features.keys])
    X, y = features.X, features.y
    return Vectors((X[is_train], y[is_train]), (X[~is_train], y[~is_train]), cost)


# --- What they are worth


def right(found: Vectors, draws: int) -> np.ndarray:
    """Return which held-out rows a linear model tells right, bool (draws, rows), each fitted on other training rows."""
    (X, y), (test, wanted) = found.train, found.held_out
    rows = []
    for draw in range(draws):
        chosen = np.random.default_rng(draw).permutation(len(y))[: round(TRAIN_SHARE * len(y))]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(X[chosen], y[chosen])
        rows.append(model.predict(test) == wanted)
    return np.stack(rows)


def position_of(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(LabelRanker().fit(X, y).position_of_)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    return abs(float(kendalltau(first, second).statistic))


def ceiling(found: Vectors, draws: int) -> float:
    """Return the mean tau of two halves of the training rows, each of as many rows of every class."""
    X, y = found.train
    taus = []
    for draw in range(draws):
        shuffled = np.random.default_rng(draw).permutation(len(y))
        # Each class is dealt to both halves in turn.
        by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
        taus.append(agreement(*(position_of(X[rows], y[rows]) for rows in (by_class[::2], by_class[1::2]))))
    return float(np.mean(taus))


def accuracy_text(one: Selection) -> str:
    draws = one.of_draws
    half = student_t.ppf(0.975, len(draws) - 1) * draws.std(ddof=1) / len(draws) ** 0.5
    return f"{100 * draws.mean():.1f} \u00b1 {100 * half:.1f}"


def difference_text(one: Selection, random: Selection) -> str:
    paired = one.of_rows - random.of_rows
    error = paired.std(ddof=1) / len(paired) ** 0.5
    return f"{100 * paired.mean():+.1f} ({100 * error:.1f})"


def quality(subject: Subject, settings: Settings, folder: Path, asked: Any, note: Note) -> None:
    """Encode all samples with each selection, and print what the vectors are worth."""
    draws, keeps, only = asked.draws, asked.keeps, asked.only
    ranker = asked.ranker or subject.ranker or trained(subject, settings, folder / f"ranker-{subject.checkpoint}")
    dataset = joined(subject, settings)
    checkpoint = open_checkpoint(subject.checkpoint)
    free = [name for name in FREE if name != "attention" or checkpoint.config.use_cls_token]
    names = {**{name: name for name in free}, "ranker": ranker, "ranker and clusters": ranker + CLUSTERS}
    names = {name: patches for name, patches in names.items() if name in (only or names) or name == "random"}
    whole = vectors(subject, dataset, settings, None, 1.0)
    all_patches = Selection([right(whole, draws)], [1.0], [whole.cost.processor_s])
    order = position_of(*whole.train)
    note(f"{subject.title}: all patches, {all_patches.of_draws.mean():.3f}")

    found: dict[str, dict[float, Selection]] = {}
    for name, patches in names.items():
        found[name] = {keep: Selection() for keep in keeps}
        for keep, one in found[name].items():
            for seed in RANDOM_SEEDS if name == "random" else (0,):
                kept = vectors(subject, dataset, settings, patches, keep, seed)
                one.right.append(right(kept, draws))
                one.taus.append(agreement(position_of(*kept.train), order))
                one.processor_s.append(kept.cost.processor_s)
        note(f"{subject.title}: {name}, {', '.join(f'{one.of_draws.mean():.3f}' for one in found[name].values())}")

    rows, tests = (len(y) for _, y in (whole.train, whole.held_out))
    nouns = NOUNS[dataset.media][1]
    print(f"\n## {subject.title}\n")
    print(
        f"{rows:,} {nouns} of {len(dataset.class_names)} classes to fit on, {tests:,} held out; "
        f"{checkpoint.config.num_patches} patches; {draws} draws. All patches: {accuracy_text(all_patches)} %, "
        f"{1000 * whole.cost.processor_s:.2f} ms. Ceiling of tau: {ceiling(whole, draws):.2f}.\n"
    )
    shares = [f"{100 * keep:.0f} %" for keep in keeps]
    print_header(f"| patches kept by | {' | '.join(f'{share}: accuracy | less random' for share in shares)} |")
    for name, of in found.items():
        cells = [
            (accuracy_text(of[k]), "" if name == "random" else difference_text(of[k], found["random"][k]))
            for k in keeps
        ]
        print(f"| {name} | {' | '.join(cell for pair in cells for cell in pair)} |")
    columns = [f"{share}: {what}" for what in ("tau", "ms") for share in shares]
    print_header(f"\n| patches kept by | {' | '.join(columns)} |")
    for name, of in found.items():
        taus = " | ".join(f"{np.mean(of[keep].taus):.2f}" for keep in keeps)
        costs = " | ".join(f"{1000 * statistics.median(of[keep].processor_s):.2f}" for keep in keeps)
        print(f"| {name} | {taus} | {costs} |")
    learned(ranker, settings)
    sys.stdout.flush()


def trained(subject: Subject, settings: Settings, out: Path) -> str:
    """Train the subject's ranker by the command line, and return its folder."""
    (data, split), most = subject.train, subject.per_class[0]
    arguments = [data, "--checkpoint", subject.checkpoint, "--out", str(out), *subject.training]
    arguments += ["--split", split] if split else []
    arguments += ["--label-column", subject.label_column] if subject.label_column else []
    arguments += ["--max-per-class", str(most)] if most else []
    command = [sys.executable, "-m", "labelrank", "patches", "train", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "LABELRANK_HOME": str(settings.workspace)})
    shown = [Path(word).name if os.sep in word else word for word in arguments]
    print(f"\nThe ranker: labelrank patches train {shlex.join(shown)}")
    return str(out)


def learned(ranker: str, settings: Settings) -> None:
    """Print how far the ranker's scores, and others, agree with those of its teacher."""
    opened = open_ranker(ranker, settings)
    result = opened.training
    if result is None:
        return
    best = f", of about {result.ceiling:.2f} that are possible" if result.ceiling else ""
    agreements = "; ".join(
        f"{TITLES[name]} {one.spearman:.2f}"
        for name, one in sorted(result.agreement.items(), key=lambda item: -item[1].spearman)
    )
    print(
        f"\nSpearman with the teacher's scores of {result.held_out} held-out samples{best}: {agreements}. Trained in "
        f"{result.duration_s:.0f} s, {opened.num_parameters:,} parameters."
    )


# --- Data


def write_corners(folder: Path, settings: Settings) -> None:
    """Write the digits, each in a corner of a canvas of twice the size, drawn at random, as class folders of train and
    test; test holds those of val too."""
    for split in ("train", "val", "test"):
        dataset = open_dataset("digits", SourceOptions(split), settings=settings)
        for number, sample in enumerate(dataset.samples):
            digit = dataset.load(sample)
            size = len(digit)
            top, left = size * np.random.default_rng([number, ord(split[1])]).integers(0, 2, 2)
            canvas = np.zeros((2 * size, 2 * size, 3), np.uint8)
            canvas[top : top + size, left : left + size] = digit
            path = (
                folder
                / {"val": "test"}.get(split, split)
                / dataset.class_names[sample.label]
                / f"{split}-{number:05d}.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(canvas).save(path)


def subjects(options: Any, folder: Path, settings: Settings) -> Iterator[Subject]:
    quick, mae, videomae = options.quick, "mae-tiny-digits", "videomae-tiny-moving-digits"
    ranker, clip_ranker = EMBEDDED

    def most(train: int | None, test: int | None) -> tuple[int | None, int | None]:
        return (20, 10) if quick else (train, test)

    def training(*usual: str) -> tuple[str, ...]:
        return ("--epochs", "1", "--rounds", "2", "--held-out", "20") if quick else usual

    def splits(data: str, *tests: str) -> tuple[Source, tuple[Source, ...]]:
        return (data, "train"), tuple((data, test) for test in tests)

    if DIGITS in options.parts:
        yield Subject("Digits", *splits("digits", "val", "test"), mae, ranker, per_class=most(60, None))
    if CORNERS in options.parts:
        write_corners(folder / "corners", settings)
        few = ("--epochs", "2", "--warmup-epochs", "0", "--lists", "4", "--batch-size", "8", "--held-out", "40")
        how = (*training(*few, "--rounds", "4"), "--no-flip", "--min-crop-scale", "1")
        data = splits(str(folder / "corners"), "test")
        yield Subject("Digits in corners", *data, mae, training=how, per_class=most(60, None))
    if CIFAR100 in options.parts:
        train, test = ((str(path), None) for path in options.cifar100)
        yield Subject(
            "CIFAR-100, 20 superclasses, a weak encoder",
            train,
            (test,),
            mae,
            training=training(
                "--epochs", "1", "--lists", "4", "--batch-size", "8", "--held-out", "40", "--rounds", "4"
            ),
            label_column="coarse_label",
            per_class=most(100, 50),
        )
    if CLIPS in options.parts:
        data = splits("moving-digits", "val", "test")
        yield Subject("Moving digits", *data, videomae, clip_ranker, per_class=most(40, None))
    if ACTIONS in options.parts:
        how = training("--epochs", "20", "--rounds", "4", "--held-out", "24")
        data = splits(str(options.actions), "val", "test")
        yield Subject("Actions in videos, a weak encoder", *data, videomae, training=how, per_class=most(None, None))


# --- Speed


def write_ranker(folder: Path, size: str, checkpoint: Path) -> str:
    """Write a ranker with random weights for an encoder, and return its folder."""
    from safetensors.numpy import save_file

    config = RankerConfig.of_size(size, open_checkpoint(str(checkpoint)).config)
    random = np.random.default_rng(0)
    dim = config.encoder.transformer.hidden_dim
    shapes = {tensor.name: tensor.shape for tensor in encoder_tensors(config.encoder)}
    shapes |= {HEAD_WEIGHT: (config.head_dim, dim), HEAD_BIAS: (config.head_dim,)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tensors = {name: 0.02 * random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


def speed(folder: Path, settings: Settings, photos: int, runs: int, keeps: Sequence[float], note: Note) -> None:
    checkpoint = folder / "vit-base"
    sides.write_checkpoint(checkpoint, CONFIG, PREPROCESSOR)
    default = default_size(open_checkpoint(str(checkpoint)).config)
    sizes = {f"ranker, {default} (our default)": default, "ranker, vit-ti": "vit-ti", "ranker, vit-s": "vit-s"}
    choosers: dict[str, str] = {"grid": "grid", "gradient": "gradient"}
    choosers |= {name: write_ranker(folder / size, size, checkpoint) for name, size in sizes.items()}
    for run in range(runs):
        write_photos(folder / f"photos-{run}", photos, run)

    def cost(source: str, patches: str | None, keep: float) -> Cost:
        kept: Mapping[str, Any] = {} if patches is None else {"keep": keep, "patches": patches}
        request = Request(str(folder / source), str(checkpoint), **kept)
        return timed(plan(request, settings), settings)[1]

    asked: list[tuple[str, str | None, float]] = [("all patches", None, 1.0)]
    asked += [(name, patches, keep) for keep in keeps for name, patches in choosers.items()]
    costs: dict[tuple[str, float], list[Cost]] = {(name, keep): [] for name, _, keep in asked}
    for run in range(runs):
        for name, patches, keep in asked:
            costs[name, keep].append(cost(f"photos-{run}", patches, keep))
        note(f"speed: run {run + 1} of {runs}")
    whole = costs["all patches", 1.0]
    each = statistics.median(1 / one.seconds for one in whole)
    print(f"\n## Speed\n\nViT-B/16, {photos} JPEG files of 500 x 375 a run, {runs} runs in turns; precision auto.")
    print(
        f"All patches: {each:.1f} images/s, {statistics.median(one.processor_s for one in whole):.3f} s of processor.\n"
    )
    print_header(
        "| patches kept by | keep | images/s | times all patches, by the clock | times all patches, by the processor |"
    )
    for (name, keep), of in costs.items():
        if name == "all patches":
            continue
        rate = statistics.median(1 / one.seconds for one in of)
        clock = [full.seconds / one.seconds for full, one in zip(whole, of, strict=True)]
        processor = [full.processor_s / one.processor_s for full, one in zip(whole, of, strict=True)]
        print(f"| {name} | {100 * keep:.0f} % | {rate:.1f} | {spread_text(clock)} | {spread_text(processor)} |")


def spread_text(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = parser_of(__doc__)
    parts = (DIGITS, CORNERS, CIFAR100, CLIPS, ACTIONS, SPEED)
    parser.add_argument("--parts", nargs="+", choices=parts, default=[DIGITS, CORNERS, CLIPS, SPEED])
    parser.add_argument("--cifar100", nargs=2, type=Path, metavar=("TRAIN", "TEST"), help="Parquet files")
    parser.add_argument("--actions", type=Path, help="zip or folder of videos with the splits train, val and test")
    parser.add_argument("--keeps", nargs="+", type=float, default=KEEPS, help="keep ratios")
    parser.add_argument("--only", nargs="+", choices=("ranker", "ranker and clusters", *FREE), help="selections")
    parser.add_argument("--ranker", help="instead of the part's own; with one part")
    parser.add_argument("--draws", type=int, default=5, help="of the rows to fit on")
    parser.add_argument("--photos", type=int, default=64, help="of a run of the part speed")
    parser.add_argument("--runs", type=int, default=3, help="of the part speed")
    parser.add_argument("--quick", action="store_true", help="few samples, two keep ratios, rankers of one epoch")
    options = parser.parse_args()
    if options.quick:
        options.draws, options.keeps, options.photos, options.runs = 2, (0.25, 0.5), 24, 2
    for part, given in ((CIFAR100, options.cifar100), (ACTIONS, options.actions)):
        if part in options.parts and not given:
            parser.error(f"The part {part} needs its data: give --{part}.")
    if options.draws < 2:
        parser.error(f"--draws is {options.draws}; expected at least 2, for an interval.")

    note = notes()
    print(f"{sides.machine()}.\n{sides.versions('labelrank', 'openvino', 'numpy', 'scikit-learn')}.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = replace(Settings.from_env(), workspace=folder / "workspace")
        for subject in subjects(options, folder, settings):
            quality(subject, settings, folder, options, note)
        if SPEED in options.parts:
            speed(folder, settings, options.photos, options.runs, options.keeps, note)


if __name__ == "__main__":
    main()
