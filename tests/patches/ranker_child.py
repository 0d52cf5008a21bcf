"""Run on one Keras backend (KERAS_BACKEND): write the scores of a ranker for given inputs, say what ran them."""

import json
import sys
from pathlib import Path

import numpy as np

from labelrank.patches.ranker import compile_ranker, open_ranker

if __name__ == "__main__":
    ranker, inputs, outputs, cache = sys.argv[1:]
    compiled = compile_ranker(open_ranker(ranker), batch_size=4, cache=Path(cache))
    np.save(outputs, compiled(np.load(inputs)))
    print(json.dumps({"runtime": compiled.runtime, "reused": compiled.reused, "keras": "keras" in sys.modules}))
