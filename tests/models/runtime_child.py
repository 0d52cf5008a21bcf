"""Compile an encoder in a fresh process and print what came of it as JSON; its tokens go to a file.

python runtime_child.py CHECKPOINT CACHE PRECISION BATCH_SIZE INPUTS.npy TOKENS.npy
"""

import json
import sys
from pathlib import Path

import numpy as np

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.runtime import compile_encoder


def main(checkpoint: str, cache: str, precision: str, batch_size: str, inputs: str, outputs: str) -> None:
    images = np.load(inputs)
    encoder = compile_encoder(
        open_checkpoint(checkpoint), precision=precision, batch_size=int(batch_size), cache=Path(cache)
    )
    tokens = np.concatenate(
        [encoder(images[i : i + encoder.batch_size]) for i in range(0, len(images), encoder.batch_size)]
    )
    np.save(outputs, tokens)
    pooled = tokens[:, encoder.num_prefix :]
    print(
        json.dumps(
            {
                "loaded": sorted({"keras", "tensorflow"} & sys.modules.keys()),
                "reused": encoder.reused,
                "entry": str(encoder.entry),
                "precision": encoder.precision,
                "device": encoder.device,
                "runtime": encoder.runtime,
                "fc_norm": encoder.fc_norm(pooled.mean(axis=1)).tolist() if encoder.fc_norm else None,
            }
        )
    )


main(*sys.argv[1:])
