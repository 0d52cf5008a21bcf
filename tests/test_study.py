"""benchmarks/study.py: statistics as SciPy has them, runs as the protocol says, tables that see a fault."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from labelrank.finetune.runs import Epoch, Run

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
study = pytest.importorskip("study", reason="benchmarks/ is not here")
statistics = pytest.importorskip("study_statistics")


@pytest.fixture
def here(tmp_path):
    return study.Study(tmp_path, None, None, "none", 0, False, time.monotonic() + 60, lambda text: None)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_statistics_are_those_of_scipy():
    one, many = normal(0, 60), normal(1, 20, 3)
    found = statistics.compare(one, many, draws=999)
    peer = stats.ks_2samp(one, many.ravel())
    assert found.ks == pytest.approx(peer.statistic)
    assert found.ks_p == pytest.approx(peer.pvalue, abs=0.05)
    f = stats.f_oneway(*many)
    assert found.spread.statistic == pytest.approx(f.statistic)
    assert found.spread.p == pytest.approx(f.pvalue, abs=0.05)
    welch = stats.ttest_ind(many.ravel(), one, equal_var=False).confidence_interval(0.9)
    assert (found.shift.low, found.shift.high) == pytest.approx((welch.low, welch.high))
    # Of normal values, the interval of the ratio is near that of the F distribution.
    normal_low = found.ratio.value / np.sqrt(stats.f.ppf(0.95, 59, 59))
    assert found.ratio.low == pytest.approx(normal_low, rel=0.1)


def test_findings_follow_what_is_there():
    draws = 199
    findings = [statistics.compare(normal(s, 60), normal(1000 + s, 20, 3), draws=draws).finding for s in range(40)]
    assert findings.count("different") <= 6
    assert findings.count("the same") >= 20
    orders = 1.5 * normal(3, 20, 1)
    assert statistics.compare(normal(1, 60), normal(2, 20, 3) + orders, draws=draws).finding == "different"
    assert statistics.compare(normal(1, 60), normal(2, 20, 3) + 1.5, draws=draws).finding == "different"
    assert statistics.compare(normal(1, 12), normal(2, 4, 3), draws=draws).finding == "open"


def test_runs_are_those_of_the_protocol(here):
    parts = [part for part in study.PARTS.values() if isinstance(part, study.EncoderPart)]
    for part in parts:
        cells = part.cells(here, 10)
        files = [(cell.group, cell.arm.name, cell.seed) for cell in cells]
        assert len(set(files)) == len(files)
    cells = study.PARTS["order-digits"].cells(here, 10)
    assert sorted(cell.seed for cell in cells) == list(range(120))
    random = {cell.arm.order for cell in cells if cell.arm.kind == "random"}
    assert len(random) == 20
    assert {cell.recipe.epochs for cell in cells} == {2}
    clips = study.PARTS["augment-moving-digits"].cells(here, 10)
    everything = next(cell.recipe for cell in clips if cell.group == "all")
    assert everything.mixup and everything.drop_path and everything.temporal_jitter


def test_tables_are_of_finished_parts_and_see_a_run_that_differs(here):
    part = study.PARTS["zero-digits"]
    stored = part.stored(here)
    n = len(stored.y)

    def write(cell, nll):
        predicted = np.repeat(stored.y[:, None], 5, axis=1).astype(np.int32)
        run = Run(cell.arm.name, cell.seed, predicted, np.full(n, nll, np.float32), (Epoch(1, 1.0, 1.0, 0.5),))
        stored.kept(cell).write([run])

    for cell in stored.cells[:-1]:
        write(cell, 0.5 + cell.seed)
    lines = list(study.tables(here, [part]))
    assert any("unfinished: 14 of 15 runs" in line for line in lines)
    assert not any("5 x 3" in line for line in lines)
    write(stored.cells[-1], 0.5 + stored.cells[-1].seed)
    assert any("| 0 of 250 | 0 | yes |" in line for line in study.tables(here, [part]))
    write(stored.cells[-1], 0.8 + stored.cells[-1].seed)
    assert any("| 0 of 250 | 0.1 | NO |" in line for line in study.tables(here, [part]))
    # Another study, with other seeds, has other runs.
    assert part.stored(replace(here, first_seed=500)).path != stored.path
