"""What the density scores of patches cost: exact against fast, and against a loop over removals in torch.

    python benchmarks/patch_scores.py --peer-python PEER/bin/python
    python benchmarks/patch_scores.py                                  labelrank alone

PEER is an environment with torch and transformers. One list of an image is scored: the 19 of 196 patches of a ViT-MAE-B
with random weights, and the 6 of 64 of mae-tiny-digits, that are visible. labelrank: `PatchScorer`, which removes each
of them in one call. The peer: transformers' `ViTMAEForPreTraining` in inference mode, sdpa, once with all visible
patches and once without each of them; so it computes the exact scores. All in float32; sides take turns on the same
images, the first of which does not count. A ratio is the median of the images' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sides
from common import parser_of, print_header
from extract_images import CONFIG as VIT_B
from extract_images import PREPROCESSOR

ROOT = Path(__file__).parent.parent
TINY = ROOT / "assets" / "checkpoints" / "mae-tiny-digits"
MODELS = (TINY.name, "ViT-MAE-B")
CONFIG = {
    **VIT_B,
    "architectures": ["ViTMAEForPreTraining"],
    "model_type": "vit_mae",
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 2048,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "mask_ratio": 0.75,
    "norm_pix_loss": False,
}


class Ours:
    """labelrank, one variant."""

    def __init__(self, checkpoint: str, variant: str, visible: int) -> None:
        from labelrank.models.checkpoint import open_checkpoint
        from labelrank.patches.scorer import PatchScorer

        self.scorer = PatchScorer(open_checkpoint(checkpoint), visible=visible, variant=variant, lists=1)

    def score(self, image: np.ndarray, visible: np.ndarray) -> np.ndarray:
        return self.scorer.of_sets(image, visible[None])[0]


class Torch:
    """transformers, one removal after the other."""

    def __init__(self, checkpoint: str) -> None:
        import torch
        from transformers import ViTMAEForPreTraining

        torch.set_num_threads(sides.cores())
        self.torch = torch
        self.model = ViTMAEForPreTraining.from_pretrained(checkpoint, attn_implementation="sdpa").eval()

    def score(self, image: np.ndarray, visible: np.ndarray) -> np.ndarray:
        pixels = self.torch.from_numpy(np.moveaxis(image, -1, 0)[None].copy())
        anchor, hidden = self._reconstruct(pixels, visible)
        moved = (self._reconstruct(pixels, np.delete(visible, i))[0] for i in range(len(visible)))
        return np.array([float((one - anchor)[0, hidden].abs().mean()) for one in moved])

    def _reconstruct(self, pixels: Any, visible: np.ndarray) -> tuple[Any, Any]:
        config = self.model.config
        places = (config.image_size // config.patch_size) ** 2
        # Those with the least noise stay, and half a patch more is rounded down to them.
        config.mask_ratio = 1 - (len(visible) + 0.5) / places
        noise = self.torch.ones(1, places)
        noise[0, visible] = 0
        with self.torch.inference_mode():
            found = self.model(pixels, noise=noise)
        return found.logits, found.mask[0].bool()


def serve(kind: str, checkpoint: str, visible: int) -> None:
    """Answer each line on standard input, an image and its visible patches, with seconds and scores."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    worker = Torch(checkpoint) if kind == "torch" else Ours(checkpoint, kind, visible)
    for line in sys.stdin:
        with np.load(json.loads(line)["of"]) as given:
            image, places = given["image"], given["visible"]
        began = time.perf_counter(), time.process_time()
        scores = worker.score(image, places)
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        print(json.dumps({"spent": spent, "scores": np.asarray(scores).tolist()}), file=answers, flush=True)


def write_autoencoder(folder: Path) -> str:
    """Write a ViT-MAE-B with random weights, and return its folder."""
    from safetensors.numpy import save_file

    from labelrank.models.families import read_config
    from labelrank.models.names import decoder_tensors, encoder_tensors

    random = np.random.default_rng(0)
    config = read_config(CONFIG)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    shapes = {one.name: one.shape for one in (*encoder_tensors(config), *decoder_tensors(config))}
    tensors = {name: 0.02 * random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    for name in tensors:
        if "norm" in name and name.endswith("weight"):
            tensors[name] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def compare(title: str, checkpoint: str, visible: int, images: int, peer: str | None, folder: Path) -> None:
    from labelrank.models.checkpoint import open_checkpoint

    config = open_checkpoint(checkpoint).config
    workers = {"exact": sys.executable, "fast": sys.executable, **({"torch": peer} if peer else {})}
    processes = {
        kind: sides.Side(kind, python, ("--serve", kind, checkpoint, str(visible))).start()
        for kind, python in workers.items()
    }
    random = np.random.default_rng(0)
    spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in processes}
    apart = 0.0
    for number in range(images + 1):
        path = folder / f"{config.num_patches}-{number}.npz"
        chosen = np.sort(random.permutation(config.num_patches)[:visible])
        image = random.standard_normal(config.input_shape, dtype=np.float32)
        np.savez(path, image=image, visible=chosen)
        answers = {}
        for kind, process in processes.items():
            answers[kind] = process.ask(of=str(path))
            if number:
                spent[kind].append(answers[kind]["spent"])
        if peer:
            exact, theirs = (np.array(answers[kind]["scores"]) for kind in ("exact", "torch"))
            apart = max(apart, float(np.abs(exact - theirs).max() / np.abs(theirs).max()))
    for process in processes.values():
        process.close()
    for kind, of in spent.items():
        clock, processor = (
            statistics.median(one[i] / exact[i] for one, exact in zip(of, spent["exact"], strict=True)) for i in (0, 1)
        )
        seconds = [statistics.median(one[i] for one in of) for i in (0, 1)]
        print(f"| {title} | {kind} | {seconds[0]:.3f} | {seconds[1]:.3f} | {clock:.2f} | {processor:.2f} |", flush=True)
    if peer:
        print(f"\nLargest difference between exact and torch: {apart:.1e} of the largest score of an image.\n")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--peer-python", help="Python of an environment with torch and transformers")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve[:2], int(options.serve[2]))
        return
    print(f"{sides.machine()}.\n")
    header = "| model | side | s a list | s of processor | times exact, by the clock | times exact, by the processor |"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for title in options.models:
            is_tiny = title == TINY.name
            checkpoint, visible = (str(TINY), 6) if is_tiny else (write_autoencoder(folder / "mae-base"), 19)
            print_header(header, flush=True)
            compare(title, checkpoint, visible, options.images, options.peer_python, folder)


if __name__ == "__main__":
    main()
