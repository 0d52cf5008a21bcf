"""Comparisons of targets: from training rows alone, on the same terms as one-hot, and the same after a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelrank.errors import Cancelled, RankingError, SettingsError
from labelrank.features.store import FeatureSet
from labelrank.finetune import heads
from labelrank.settings import Settings
from labelrank.steps.finetune.estimate import describe
from labelrank.steps.finetune.inputs import gather_files
from labelrank.steps.finetune.request import Design, Inputs
from labelrank.steps.finetune.results import read_report
from labelrank.steps.finetune.run import compare
from labelrank.steps.finetune.targets import DEFAULT_SHARPNESS, ClassTargets, as_trained, check_room, choose
from tests.steps.finetune.made import made_features

CLUSTERS, EACH, DIM = 4, 3, 48
K = CLUSTERS * EACH
DESIGN = Design(
    target="geometry", targets="onehot,geometry,permuted:3,smoothing,groups", sharpness=3.0, seeds=2, epochs=3
)
GROUPS = np.arange(K) // EACH


def clustered(per_class, seed=0, split="train", spread=1.0, apart=1.0):
    """Classes in clusters of three: means of a cluster lie near each other; `apart` 0 puts all equally far."""
    means = np.random.default_rng(99)
    clusters = means.normal(size=(CLUSTERS, DIM))
    own = 0.5 * means.normal(size=(K, DIM)) if apart else 3 * np.eye(K, DIM)
    centres = apart * np.repeat(clusters, EACH, axis=0) + own
    random = np.random.default_rng([seed, len(split)])
    y = np.tile(np.arange(K, dtype=np.int32), per_class)
    X = (centres[y] + spread * random.normal(size=(len(y), DIM))).astype(np.float32)
    return FeatureSet(
        X=X,
        y=y,
        keys=tuple(f"{split}/{i}" for i in range(len(y))),
        class_names=("=one", *(f"class {i}" for i in range(1, K))),
        provenance={"dataset": {"id": "clustered", "split": split, "digest": "0" * 64}, "pooling": "mean"},
    )


def in_the_docs(X, y, sharpness):
    """Targets by the lines of docs/class-geometry.md."""
    page = (Path(__file__).parents[3] / "docs" / "class-geometry.md").read_text(encoding="utf-8")
    here = {"np": np, "X": X.astype(np.float64), "y": y, "sharpness": sharpness}
    exec(page.partition("```python\n")[2].partition("```")[0], here)
    return here["q"]


def material_of(settings, design=DESIGN, *, per_class=12, groups=GROUPS, **changed):
    given = {
        "train": clustered(per_class, 0),
        "val": clustered(10, 1, "val"),
        "test": clustered(20, 2, "test"),
        **changed,
    }
    return gather_files(Inputs(groups=groups, **given), design, settings)


def independent_targets(X, y, sharpness):
    """Targets as their definition says, by a generalised eigenproblem instead of the product's way."""
    from scipy.linalg import eigh

    n, d = X.shape
    means = np.array([X[y == c].astype(np.float64).mean(axis=0) for c in range(K)])
    within = X.astype(np.float64) - means[y]
    deviation = within.std(axis=0)
    within, means = within / deviation, means / deviation
    scatter = within.T @ within / n
    square, trace = np.sum(scatter**2), np.trace(scatter)
    share = min(1.0, (square + trace**2) / ((n - K + 1) * (square - trace**2 / d)))
    shrunk = (1 - share) * scatter + share * np.eye(d)
    centred = means - means.mean(axis=0)
    variance, axes = eigh(centred.T @ centred / K, shrunk)
    told = variance > 1e-9 * variance.max()
    signal = np.maximum(0, 1 - (1 / np.bincount(y)).mean() / variance[told])
    points = centred @ axes[:, told] * signal
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.exp(-sharpness * (1 - points @ points.T))
    return weights / weights.sum(axis=1, keepdims=True)


def test_targets_fall_off_with_the_cosine_of_the_geometry():
    features = clustered(12)
    found = ClassTargets(features)
    distances = found.distances
    q = found.geometry(2.0)
    for y in range(K):
        weights = np.array([np.exp(-2.0 * distances[y, j]) for j in range(K)])
        np.testing.assert_allclose(q[y], weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(q, independent_targets(features.X, features.y, 2.0), rtol=1e-4)
    np.testing.assert_allclose(q, in_the_docs(features.X, features.y, 2.0), rtol=1e-4)
    near = distances[GROUPS[:, None] == GROUPS][distances[GROUPS[:, None] == GROUPS] > 0]
    assert near.mean() < 0.7 * distances[GROUPS[:, None] != GROUPS].mean()


def test_no_validation_or_test_row_has_a_part_in_the_targets(settings):
    """Planted: validation and test rows whose classes lie elsewhere altogether."""
    plain = material_of(settings)
    moved = {"val": clustered(10, 1, "val"), "test": clustered(20, 2, "test")}
    moved = {name: replace(one, X=one.X[::-1].copy() * 5 + one.y[:, None]) for name, one in moved.items()}
    planted = material_of(settings, **moved)
    first, second = (compare(one, DESIGN, settings) for one in (plain, planted))
    assert (first.folder / "targets.csv").read_bytes() == (second.folder / "targets.csv").read_bytes()
    assert first.report.arms != second.report.arms
    held_out = gather_files(Inputs(train=clustered(24)), DESIGN, settings)
    rows = np.isin(clustered(24).keys, held_out.train.keys)
    np.testing.assert_array_equal(
        ClassTargets(held_out.train).distances,
        ClassTargets(
            replace(clustered(24), X=clustered(24).X[rows], y=clustered(24).y[rows], keys=held_out.train.keys)
        ).distances,
    )
    assert not set(held_out.train.keys) & {*held_out.val.keys, *held_out.test.keys}


def test_test_rows_have_no_part_in_the_choice_either(settings, monkeypatch):
    seen = []
    train_heads = heads.train_heads

    def watched(train, val, test, arms, *rest, **options):
        if any("@" in arm.name for arm in arms):
            seen.append(len(test.y))
        return train_heads(train, val, test, arms, *rest, **options)

    monkeypatch.setattr(heads, "train_heads", watched)
    design = replace(DESIGN, sharpness=None, targets="onehot,geometry,tuned-smoothing")
    chosen = compare(material_of(settings, design), design, settings).report.targets.chosen
    assert set(seen) == {0}
    assert chosen.how == "validation"
    best = max(one.geometry_accuracy for one in chosen.tried)
    assert chosen.sharpness == max(one.sharpness for one in chosen.tried if one.geometry_accuracy == best)


def test_the_onehot_arm_is_the_original_order_to_the_last_bit(settings):
    orders = replace(Design(orders="original", control=False, seeds=2, epochs=3))
    plain = compare(material_of(settings, orders), orders, settings)
    targets = compare(material_of(settings), DESIGN, settings)
    for name in ("accuracy", "loss", "top5"):
        assert plain.report.arms[0].metrics[name] == targets.report.arms[0].metrics[name]


def test_results_say_everything_and_can_be_read_again(settings):
    outcome = compare(material_of(settings), DESIGN, settings)
    report = read_report(outcome.folder)
    assert report.to_json() == outcome.report.to_json()
    assert [arm.name for arm in report.arms] == [
        *("onehot", "geometry", "permuted-1", "permuted-2", "permuted-3", "smoothing", "groups")
    ]
    assert report.targets.chosen.how == "given"
    pairs = {pair.arm: pair for pair in report.targets.pairs}
    assert list(pairs) == ["onehot", "permuted", "smoothing", "groups"]
    means = report.statistics["accuracy"].mean
    others = np.mean([means[f"permuted-{number}"] for number in (1, 2, 3)])
    assert pairs["permuted"].difference == pytest.approx(means["geometry"] - others)
    assert {"calibration", "class_distance", "within_group"} <= report.statistics.keys()
    assert report.verdict.finding in ("softer_better", "no_gain", "geometry_worse")
    table = np.loadtxt(outcome.folder / "targets.csv", delimiter=",", skiprows=1, dtype="float32")
    np.testing.assert_allclose(table, ClassTargets(material_of(settings).train).geometry(3.0), rtol=1e-6)
    assert (outcome.folder / "targets.csv").read_text().startswith("'=one,class 1,")


def test_a_stopped_comparison_goes_on_to_the_same_bytes(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("labelrank.finetune.head_sizes.runs_at_once", lambda *_, **__: (3, 1))
    design = replace(DESIGN, sharpness=None)
    calls = []
    train_heads = heads.train_heads
    monkeypatch.setattr(heads, "train_heads", lambda *a, **o: calls.append(1) or train_heads(*a, **o))
    with pytest.raises(Cancelled):
        compare(material_of(settings, design), design, settings, should_stop=lambda: len(calls) > 3)
    first = len(calls)
    resumed = compare(material_of(settings, design), design, settings)
    elsewhere = Settings(workspace=tmp_path / "other")
    whole = compare(material_of(elsewhere, design), design, elsewhere)
    assert len(calls) > first
    assert resumed.reused_runs > 0
    for name in ("curves.csv", "predictions.parquet", "targets.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert resumed.report.targets == whole.report.targets
    assert resumed.report.statistics == whole.report.statistics


def test_a_planted_geometry_leads_its_permutations_and_only_what_is_shown_is_claimed(settings):
    """Classes in clusters of three. These are clouds around their means, which softer targets do not suit."""
    design = replace(DESIGN, targets="onehot,geometry,permuted:19,smoothing", sharpness=2.0, epochs=30)
    rows = {"train": clustered(8, spread=1.5), "test": clustered(60, 2, "test", 1.5)}
    report = compare(material_of(settings, design, **rows), design, settings).report
    assert report.accuracy.ranked.rank == 1
    assert report.accuracy.p_any <= 0.05
    by_arm = {pair.arm: pair for pair in report.targets.pairs}
    assert (report.verdict.finding == "geometry_better") == (by_arm["onehot"].low > 0 and by_arm["smoothing"].low > 0)


def test_geometry_is_not_said_to_help_where_classes_are_equally_far(settings):
    design = replace(DESIGN, targets="onehot,geometry,permuted:19,smoothing")
    apart = {"spread": 2.0, "apart": 0.0}
    material = material_of(
        settings,
        design,
        train=clustered(5, **apart),
        val=clustered(5, 1, "val", **apart),
        test=clustered(60, 2, "test", **apart),
    )
    assert compare(material, design, settings).report.verdict.finding != "geometry_better"


def test_classes_that_differ_by_chance_have_no_geometry():
    features = clustered(12)
    noise = np.repeat(np.random.default_rng(1).normal(size=(12, DIM)).astype(np.float32), K, axis=0)
    with pytest.raises(RankingError, match=r"no targets by class geometry\. .* by chance"):
        ClassTargets(replace(features, X=noise))


def test_few_validation_rows_choose_nothing():
    targets = ClassTargets(clustered(12))
    design = Design(target="geometry")
    chosen = choose(
        targets, design, design.arms(tuple(range(K))), 99, lambda *_: pytest.fail("Nothing may be trained.")
    )
    assert (chosen.how, chosen.sharpness, chosen.tried) == ("default", DEFAULT_SHARPNESS, ())
    assert chosen.tuned_smoothing == chosen.smoothing


def test_smoothing_that_cannot_be_tuned_is_trained_once():
    design = Design(target="geometry", targets="onehot,geometry,permuted:2,smoothing,tuned-smoothing")
    few, notices = as_trained(design, 500, 99)
    assert few.targets == "onehot,geometry,permuted:2,smoothing"
    assert "99 samples validate, and 100 are needed" in notices[0].text
    assert as_trained(design, 500, 100) == (design, ())
    alone = replace(design, targets="geometry,tuned-smoothing")
    assert as_trained(alone, 500, 99) == (alone, ())
    # The usual permutations stay as many as a few classes have.
    usual, _ = as_trained(Design(target="geometry"), 500, 99)
    assert [arm.kind for arm in usual.arms((0, 1, 2))].count("permuted") < 19
    told = [describe(design, n_classes=K, n_train=500, n_val=n, n_test=50, flops_per_s=1.0).arms for n in (99, 100)]
    assert told == [5, 6]


@pytest.mark.parametrize(
    ("size", "batches"), [(1, "buffer:1"), (499, "buffer:499"), (500, "shuffled"), (501, "shuffled")]
)
def test_a_buffer_of_all_training_rows_shuffles_them_and_does_not_follow_positions(size, batches):
    found, notices = as_trained(Design(batches=f"buffer:{size}"), 500, 100)
    assert found.batches == batches
    assert [notice.kind for notice in notices] == ["whole_buffer"] * (batches == "shuffled")


def test_a_comparison_says_what_it_trains_once(settings):
    design = Design(target="geometry", targets="geometry,smoothing,tuned-smoothing,onehot", seeds=2, epochs=2)
    report = compare(material_of(settings, design, val=clustered(5, 1, "val")), design, settings).report
    assert "tuned-smoothing" not in report.kinds
    assert not report.compared.unfinished_arms
    assert any("Untuned, it is equal smoothing" in notice.text for notice in report.notices)


def test_a_class_without_rows_has_no_part():
    features = clustered(12)
    kept = features.y != 4
    keys = tuple(key for key, is_kept in zip(features.keys, kept, strict=True) if is_kept)
    found = ClassTargets(replace(features, X=features.X[kept], y=features.y[kept], keys=keys), GROUPS)
    design = Design(target="geometry", targets="geometry,permuted:2,groups,smoothing", sharpness=2.0)
    arms = design.arms(tuple(range(K)))
    chosen = choose(found, design, arms, 0, lambda *_: {})
    for arm in arms:
        q = found.of(arm, chosen)
        assert q[4, 4] == 1 and q[:, 4].sum() == 1
        np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"depth": "2", "label_smoothing": 0.1}, "which is one of its arms"),
        ({"meaning": "tree"}, "goes with meaning softmax"),
        ({"label_smoothing": 0.1}, "which is one of its arms"),
        ({"targets": "onehot,smoothing"}, "expected geometry among them"),
        ({"targets": "geometry,permuted"}, "how many permuted targets"),
        ({"targets": "geometry,geometry"}, "'geometry' twice"),
        ({"sharpness": -1.0}, "Sharpness is -1.0"),
        ({"target": "soft"}, "Target is 'soft'"),
        (
            {"target": "smoothing", "targets": "onehot,geometry,smoothing"},
            "compares onehot, smoothing, groups, not geom",
        ),
        ({"target": "smoothing", "targets": "onehot,groups"}, "expected smoothing among them, as in onehot,smoothing"),
        ({"target": "smoothing", "label_smoothing": 0.0}, "of 0 is one-hot targets"),
        ({"target": "smoothing", "meaning": "tree"}, "goes with meaning softmax, not tree"),
    ],
)
def test_designs_that_cannot_work_are_refused(changed, said):
    with pytest.raises(SettingsError, match=said):
        Design(**{"target": "geometry", **changed})


def test_groups_are_needed_for_targets_by_groups(settings):
    with pytest.raises(SettingsError, match="Give --groups"):
        compare(material_of(settings, groups=None), DESIGN, settings)


def test_permutations_are_as_many_as_there_are():
    arms = Design(target="geometry").arms((0, 1, 2))
    assert [arm.kind for arm in arms].count("permuted") == 5
    assert len({arm.permutation for arm in arms if arm.permutation}) == 5
    with pytest.raises(SettingsError, match="permuted:5"):
        Design(target="geometry", targets="geometry,permuted:9").arms((0, 1, 2))
    with pytest.raises(SettingsError, match="fewer permutations"):
        check_room(23, 5_000)


SMOOTHING = Design(target="smoothing", targets="onehot,smoothing,groups", seeds=2, epochs=3)


def test_label_smoothing_is_compared_by_itself_with_a_share_chosen_on_validation_rows(settings):
    outcome = compare(material_of(settings), SMOOTHING, settings)
    report = read_report(outcome.folder)
    chosen = report.targets.chosen
    assert (chosen.how, chosen.sharpness) == ("validation", None)
    assert [one.smoothing for one in chosen.tried] == [0.1, 0.2, 0.4, 0.6, 0.8, 0.9]
    best = max(one.smoothing_accuracy for one in chosen.tried)
    assert chosen.smoothing == min(one.smoothing for one in chosen.tried if one.smoothing_accuracy == best)
    assert [pair.arm for pair in report.targets.pairs] == ["onehot", "groups"]
    assert report.verdict.finding in ("smoothing_better", "smoothing_worse", "no_gain")
    assert "abel smoothing" in report.verdict.text
    assert not (outcome.folder / "targets.csv").exists()
    assert "--target smoothing" in (outcome.folder / "README.txt").read_text()
    assert report.statistics["class_distance"].mean["smoothing"] is not None


def test_a_given_share_is_that_of_the_recipe_s_label_smoothing(settings):
    """The same as a plain comparison of orders with this label smoothing, up to the rounding of another formula."""
    given = replace(SMOOTHING, label_smoothing=0.3, targets="onehot,smoothing")
    report = compare(material_of(settings), given, settings).report
    assert (report.targets.chosen.how, report.targets.chosen.smoothing) == ("given", 0.3)
    assert report.recipe["label_smoothing"] == 0
    orders = Design(orders="original", control=False, seeds=2, epochs=3, label_smoothing=0.3)
    plain = compare(material_of(settings), orders, settings).report.arms[0]
    own = next(arm for arm in report.arms if arm.name == "smoothing")
    assert own.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-4)


def test_label_smoothing_needs_no_geometry(settings):
    noise = np.repeat(np.random.default_rng(1).normal(size=(12, DIM)).astype(np.float32), K, axis=0)
    material = material_of(settings, SMOOTHING)
    report = compare(replace(material, train=replace(material.train, X=noise)), SMOOTHING, settings).report
    assert "class_distance" not in report.statistics
    assert "within_group" in report.statistics


def test_two_classes_have_no_geometry_to_learn_from():
    with pytest.raises(SettingsError, match="targets by it are label smoothing"):
        Design(target="geometry").arms((0, 1))
    assert [arm.name for arm in Design(target="smoothing").arms((0, 1))] == ["onehot", "smoothing"]


def test_designs_of_orders_are_what_they_were():
    """Runs of a version that knew no targets are found again."""
    assert not {"target", "targets", "sharpness"} & Design().identity.keys()
    assert {"target", "sharpness"} <= DESIGN.identity.keys()
    made = made_features()
    assert ClassTargets(made).geometry(2.0).shape == (5, 5)
