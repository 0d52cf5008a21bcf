"""Fine-tune the embedded checkpoints end to end on their own datasets, against a head on the frozen encoder.

    python benchmarks/fine_tune.py [--data digits moving-digits] [--recipe quick] [--seeds 3] [--quick]

Both sides see the same splits and classes, in their original order; accuracies are those of the test split, which each
run looks at once. The frozen side is what the validation split chooses among the heads on pooled features, each with
its default settings, and a converged logistic regression. Times are whole: reading, extraction and training; start-up
of the frameworks is apart.
"""

from __future__ import annotations

import functools
import platform
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import sides
from common import parser_of, print_header

from labelrank.models.backend import select_backend
from labelrank.models.runtime import build_encoder, compile_encoder

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from labelrank.finetune.head_math import Table

CHECKPOINTS = {"digits": "mae-tiny-digits", "moving-digits": "videomae-tiny-moving-digits"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", nargs="+", choices=CHECKPOINTS, default=list(CHECKPOINTS))
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, 10 samples per class")
    args = parser.parse_args()

    began = time.perf_counter()
    select_backend(training=True)
    import keras
    import numpy as np

    from labelrank.data import SourceOptions, open_dataset
    from labelrank.data.dataset import ClipSampling
    from labelrank.finetune.design import Arm
    from labelrank.finetune.end_to_end import fine_tune
    from labelrank.finetune.head_math import Table
    from labelrank.finetune.head_sizes import recipe_for
    from labelrank.finetune.heads import train_heads
    from labelrank.finetune.recipe import HEADS, named_recipe
    from labelrank.finetune.samples import TrainingSamples
    from labelrank.models.checkpoint import open_checkpoint
    from labelrank.settings import Settings

    recipe, seeds = named_recipe(args.recipe), range(args.seeds)
    if args.quick:
        recipe, seeds = replace(recipe, epochs=2), range(1)
    print(f"keras {keras.__version__} on {keras.backend.backend()}, Python {platform.python_version()}")
    print(f"frameworks ready in {time.perf_counter() - began:.1f} s; recipe {recipe.name}, {recipe.epochs} epochs,")
    print(f"updates of {recipe.batch_size}, learning rate {recipe.rate_in_words()}; {len(seeds)} seeds\n")

    def said(accuracies: list[float]) -> str:
        spread = f" ({min(accuracies):.1%} to {max(accuracies):.1%})" if len(accuracies) > 1 else ""
        return f"{np.mean(accuracies):.1%}{spread}"

    print_header("| dataset | what learns | test accuracy | seconds a run |")
    for name in args.data:
        checkpoint = open_checkpoint(CHECKPOINTS[name])
        datasets = {
            s: open_dataset(name, SourceOptions(s), settings=Settings.from_env()) for s in ("train", "val", "test")
        }
        if args.quick:
            datasets = {split: dataset.select(10) for split, dataset in datasets.items()}
        stride, is_clip = datasets["train"].stride, datasets["train"].media == "clip"
        sampling = ClipSampling(checkpoint.config.num_frames, stride) if is_clip else None
        n_classes = len(datasets["train"].class_names)
        arm = Arm("original", "original", tuple(range(n_classes)), tuple(range(n_classes)))

        began = time.perf_counter()
        encoder = compile_encoder(checkpoint, batch_size=32, precision="float32")
        tables = {}
        for split, dataset in datasets.items():
            found = sides.encode_all(dataset, encoder, checkpoint.preprocessing(), sampling=sampling)
            tables[split] = Table(found.X, found.y)
        extraction_s = time.perf_counter() - began
        by_head = {}
        for head in HEADS:
            settings = recipe_for(len(tables["train"].y), tables["train"].X.shape[1], n_classes, head=head)
            began = time.perf_counter()
            runs = train_heads(*tables.values(), [arm], list(seeds), settings, n_classes=n_classes)
            seconds = (time.perf_counter() - began + extraction_s) / len(seeds)
            val = float(np.mean([run.epochs[-1].val_accuracy for run in runs]))
            by_head[head] = val, [float((r.predicted[:, 0] == tables["test"].y).mean()) for r in runs], seconds
        began = time.perf_counter()
        by_head["logistic"] = (*logistic(*tables.values()), time.perf_counter() - began + extraction_s)
        head = max(by_head, key=lambda key: by_head[key][0])
        for key, (val, accuracies, seconds) in by_head.items():
            chosen = ", the best on validation" if key == head else ""
            print(
                f"| {name} | {key} head, frozen{chosen} (validation {val:.1%}) | {said(accuracies)} | {seconds:.1f} |"
            )

        pictures = [TrainingSamples(d, checkpoint.preprocessing(), sampling) for d in datasets.values()]
        tuned_accuracies, tuned_s = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                build = functools.partial(build_encoder, checkpoint)
                tuned = fine_tune(build, *pictures, arm, seed, recipe, n_classes=n_classes, folder=Path(folder))
            tuned_accuracies.append(float((tuned.run.predicted[:, 0] == tuned.y).mean()))
            tuned_s.append(tuned.run.seconds)
            print(f"  seed {seed}: {tuned_accuracies[-1]:.1%} in {tuned_s[-1]:.0f} s", file=sys.stderr, flush=True)
        print(f"| {name} | everything, end to end | {said(tuned_accuracies)} | {np.mean(tuned_s):.0f} |", flush=True)
    print(f"\nPeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def logistic(train: Table, val: Table, test: Table) -> tuple[float, list[float]]:
    """Return validation and test accuracy of a logistic regression whose penalty the validation rows choose."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(penalty: float) -> Pipeline:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2_000))
        return model.fit(train.X, train.y)

    best = max((fitted(10.0**power) for power in range(-3, 3)), key=lambda model: model.score(val.X, val.y))
    return best.score(val.X, val.y), [best.score(test.X, test.y)]


if __name__ == "__main__":
    main()
