"""`python -m tests.steps.finetune.child WORKSPACE PAUSE_S`: one comparison, seed by seed, with pauses between."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from labelrank.finetune import head_sizes, heads
from labelrank.settings import Settings
from labelrank.steps.finetune.run import compare
from tests.steps.finetune.test_compare import DESIGN, material_of


def main(workspace, pause_s):
    train_heads = heads.train_heads

    def slowly(*arguments, **options):
        runs = train_heads(*arguments, **options)
        time.sleep(pause_s)
        return runs

    heads.train_heads, head_sizes.runs_at_once = slowly, lambda *_, **__: (9, 1)
    settings, design = Settings(workspace=Path(workspace)), replace(DESIGN, seeds=8)
    outcome = compare(material_of(settings, design), design, settings)
    report = outcome.report.to_json()
    said = {name: report[name] for name in ("arms", "statistics", "verdict", "control")}
    print(json.dumps({**said, "reused": outcome.reused_runs}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
