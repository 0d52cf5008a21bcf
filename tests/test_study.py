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
study_page = pytest.importorskip("study_page")


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


def row(part, text="1"):
    return f"| {part} | {text} |"


def test_a_page_keeps_the_rows_of_parts_from_another_folder():
    sequence = ["zero-digits", "order-digits", "pretrain", "geometry-vit", "order-clips"]
    orders, zero = "| part | orders |", "| part | zero |"
    rule = "|---|---|"

    def tables(cpu, order_rows, zero_rows, unfinished):
        left = [row(part, "not run yet") for part in unfinished]
        yield from (f"CPU: {cpu}.", "", orders, rule, *order_rows, "", zero, rule, *zero_rows)
        yield from ("", study_page.UNFINISHED, "|---|---|---|---|", *left)

    first = study_page.joined(
        "", tables("old", [row("order-digits"), row("order-digits", "2")], [], sequence[:1] + sequence[2:]), sequence
    )
    assert zero not in first
    assert first.splitlines()[0] == "CPU: old."
    other = list(tables("new", [row("order-clips"), row("geometry-vit")], [row("zero-digits")], sequence[1:3]))
    both = study_page.joined(first, other, sequence).splitlines()
    assert both[:2] == ["CPU: old.", "CPU: new."]
    # In the sequence of the parts; nothing is unfinished any more: pre-training is behind what needs it.
    rows = ["order-digits | 1", "order-digits | 2", "geometry-vit | 1", "order-clips | 1"]
    assert both[2:] == ["", orders, rule, *(f"| {one} |" for one in rows), "", zero, rule, row("zero-digits")]
    # A part that is in the folder replaces the page's rows, all of them, and its computer is named once.
    again = list(tables("old", [row("order-digits", "3")], [], [sequence[0], *sequence[2:]]))
    assert study_page.joined(first, again, sequence).splitlines()[:4] == ["CPU: old.", "", orders, rule]
    assert study_page.joined(first, again, sequence).count("order-digits") == 1
    # An empty folder changes nothing, the computer that it is on included.
    assert study_page.joined("\n".join(both), tables("third", [], [], sequence), sequence) == "\n".join(both)
    with pytest.raises(ValueError, match="written no more: | part | old |"):
        study_page.joined("| part | old |\n|---|---|\n| order-digits | 1 |", other, sequence)


def test_scores_keep_the_rows_of_parts_from_another_folder():
    old = [["a", "0.1"], ["b", "0.2"], ["b", "0.3"]]
    assert study_page.joined_scores(old, [("c", "0.5"), ("a", "0.4")], ["b", "a", "c"]) == [
        ["b", "0.2"],
        ["b", "0.3"],
        ("a", "0.4"),
        ("c", "0.5"),
    ]


def test_the_committed_page_and_scores_stay_as_they_are_in_an_empty_folder(here, tmp_path, monkeypatch):
    docs = Path(__file__).parent.parent / "docs"
    page, runs = tmp_path / "study.md", tmp_path / "study-runs.csv"
    for copy in (page, runs):
        copy.write_bytes((docs / copy.name).read_bytes())
    options = ["--folder", str(tmp_path / "none"), "--write", str(page), "--runs", str(runs)]
    monkeypatch.setattr(sys, "argv", ["study.py", *options])
    study.main()
    assert runs.read_bytes() == (docs / runs.name).read_bytes()

    def rows(text):
        return [line for line in text.splitlines() if line.startswith(("|", "CPU")) and "--part" not in line]

    assert rows(page.read_text()) == rows((docs / page.name).read_text())
    monkeypatch.setattr(sys, "argv", ["study.py", *options, "--first-seed", "500"])
    with pytest.raises(SystemExit, match="another study"):
        study.main()
