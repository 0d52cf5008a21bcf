"""How fast masked pre-training is, against the rate that its matrix products alone would have.

    python benchmarks/pretrain.py [--rounds 3] [--size default small] [--quick]

Each round pre-trains a ViT-MAE of each size on digits (32 px, patches of 4 px, batches of 64) by the product's own
`pretrain`, for one epoch, whose first step, which compiles, does not count; before and after it, the roof is measured:
one large float32 matrix product in NumPy. So a busy machine slows both. `small` is the model of docs/study.md.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from common import cpu_model, notes, parser_of, print_header

from labelrank.cores import cpu_cores
from labelrank.data import SourceOptions, open_dataset
from labelrank.models.backend import select_backend
from labelrank.models.device import matmul_rate
from labelrank.models.pretrain_recipe import recipe_for
from labelrank.settings import Settings

SIZES = {
    "default": {},
    "small": {"hidden_dim": 192, "num_layers": 7, "num_heads": 3, "decoder_dim": 96, "norm_pix_loss": True},
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--quick", action="store_true", help="one round of a quarter of the images")
    options = parser.parse_args()
    backend = select_backend(training=True)
    from labelrank.models.pretrain import pretrain

    dataset = open_dataset("digits", SourceOptions("train"), settings=Settings.from_env())
    if options.quick:
        options.rounds, dataset = 1, dataset.select(32)
    note = notes()
    print(
        f"CPU: {cpu_model()}, {cpu_cores()} cores; {backend}. {len(dataset.samples):,} images, {options.rounds} rounds."
    )
    print_header(
        "| model | parameters | MFLOP an image and step | images/s, median (slowest to fastest) | roof, GFLOP/s "
        "| images/s at the roof | of the roof |"
    )
    for name in options.size:
        recipe = replace(recipe_for(dataset), epochs=1, warmup_epochs=0, **SIZES[name])
        rates, roofs, shares = [], [], []
        for _ in range(options.rounds):
            before = _roof()
            with tempfile.TemporaryDirectory() as folder:
                result = pretrain(dataset, Path(folder), recipe, command="")
            assert result.rate is not None
            roof = (before + _roof()) / 2
            rates.append(result.rate)
            roofs.append(roof)
            shares.append(result.rate * result.flops / roof)
            note(f"{name}: {result.rate:.0f} images/s")
        roof = statistics.median(roofs)
        print(
            f"| {name} | {result.num_parameters:,} | {result.flops / 1e6:.0f} | {statistics.median(rates):.0f} "
            f"({min(rates):.0f} to {max(rates):.0f}) | {roof / 1e9:.0f} | {roof / result.flops:,.0f} "
            f"| {statistics.median(shares):.0%} |",
            flush=True,
        )


def _roof() -> float:
    matmul_rate.cache_clear()
    return matmul_rate()


if __name__ == "__main__":
    main()
