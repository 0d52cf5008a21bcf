import numpy as np
import pytest

from labelrank.errors import FinetuneError
from labelrank.finetune.metrics import (
    METRICS,
    TARGET_METRICS,
    Scores,
    calibration_error,
    confusion,
    score,
    worst_confusions,
)
from labelrank.finetune.runs import Run

POSITION_OF = (2, 0, 1, 3, 5, 4, 6)
CENTROIDS = (0.5, -3.0, -1.0, 1.5, 4.0, 2.0, 9.0)
Y = np.array([0, 0, 0, 1, 1, 2], dtype=np.int32)
PREDICTED = np.array(
    [[0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [4, 5, 0, 3, 1], [1, 0, 2, 3, 4], [2, 3, 4, 5, 6], [1, 3, 4, 5, 2]],
    dtype=np.int32,
)


def run(**changes):
    facts = {"arm": "ranked", "seed": 0, "predicted": PREDICTED, "nll": np.arange(6, dtype=np.float32), "epochs": ()}
    return Run(**(facts | changes))


def scores(**changes):
    return score(run(**changes), Y, position_of_ranked=POSITION_OF, centroids_by_label=CENTROIDS)


def test_scores_of_known_predictions():
    found = scores()
    assert found.accuracy == pytest.approx(3 / 6)
    assert found.uar == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.top5 == pytest.approx(5 / 6)
    assert found.loss == pytest.approx(2.5)
    assert found.mistakes == 3
    # mistakes: 0 -> 4, 1 -> 2, 2 -> 1
    assert found.rank_distance == pytest.approx((3 + 1 + 1) / 3)
    assert found.centroid_distance == pytest.approx((3.5 + 2 + 2) / 3)


def test_mistakes_are_measured_by_distances_and_groups():
    distances = np.abs(np.arange(7)[:, None] - np.arange(7)) / 10
    distances[2, 1] = np.nan
    groups = np.array([0, 1, 1, 2, 0, 3, 3])
    found = score(
        run(), Y, position_of_ranked=POSITION_OF, centroids_by_label=CENTROIDS, distances=distances, groups=groups
    )
    assert found.class_distance == pytest.approx((0.4 + 0.1) / 2)  # 0 -> 4 and 1 -> 2; that of 2 -> 1 is not known
    assert found.within_group == 1.0
    assert scores().class_distance is None


def test_calibration_error_is_that_of_equally_full_bins():
    confidence = np.array([0.9, 0.2, 0.8, 0.3], dtype=np.float32)
    right = np.array([True, False, False, True])
    # bins {.2, .3} and {.8, .9}: accuracy .5 each
    assert calibration_error(confidence, right, bins=2) == pytest.approx((0.25 + 0.35) / 2, rel=1e-6)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0.0
    assert scores(confidence=np.full(6, 0.5, np.float32)).calibration == pytest.approx(0.5)


def test_recall_is_unknown_of_classes_without_test_rows():
    assert scores().recall == (pytest.approx(2 / 3), 0.5, 0.0, None, None, None, None)


def test_a_run_without_mistakes_has_no_distances():
    found = scores(predicted=np.repeat(Y[:, None], 5, axis=1))
    assert (found.accuracy, found.mistakes, found.rank_distance, found.centroid_distance) == (1.0, 0, None, None)


def test_the_loss_of_many_rows_is_not_rounded_away():
    n = 200_000
    many = run(predicted=np.zeros((n, 1), np.int32), nll=np.full(n, 0.1, np.float32))
    found = score(many, np.zeros(n, int), position_of_ranked=(0, 1), centroids_by_label=(0, 1))
    assert found.loss == pytest.approx(np.float32(0.1), rel=1e-9)


def test_a_run_that_came_to_nothing_has_no_scores():
    with pytest.raises(FinetuneError, match="learning rate"):
        scores(predicted=np.empty((0, 5), np.int32), nll=np.empty(0, np.float32), problem="Lower the learning rate.")


def test_a_run_is_scored_on_the_rows_it_predicted():
    with pytest.raises(FinetuneError, match=r"shape \(4, 5\).*6 test rows"):
        scores(predicted=PREDICTED[:4])
    with pytest.raises(FinetuneError, match="0 test rows"):
        score(run(), Y[:0], position_of_ranked=POSITION_OF, centroids_by_label=CENTROIDS)


def test_metrics_are_those_of_the_scores():
    both = {**METRICS, **TARGET_METRICS}
    assert list(both) == [name for name in Scores.__dataclass_fields__ if name not in ("recall", "mistakes")]
    assert {better for _, better, _ in both.values()} == {"higher", "lower"}


def test_confusion_has_true_labels_as_rows():
    found = confusion(PREDICTED[:, 0], Y, 7)
    assert found.dtype == np.int64
    assert found.shape == (7, 7)
    assert {(i, j): int(found[i, j]) for i, j in np.argwhere(found)} == {
        (0, 0): 2,
        (0, 4): 1,
        (1, 1): 1,
        (1, 2): 1,
        (2, 1): 1,
    }


def test_labels_of_few_bits_are_counted_right():
    assert confusion(np.array([200], np.uint8), np.array([201], np.uint8), 300)[201, 200] == 1


def test_worst_confusions_come_first_and_ties_go_to_the_larger_share():
    table = np.array([[90, 5, 5], [0, 1, 5], [7, 0, 0]])
    assert worst_confusions(table, 3) == [(2, 0, 7, 1.0), (1, 2, 5, 5 / 6), (0, 1, 5, 0.05)]
    assert len(worst_confusions(table, 99)) == 4
    assert worst_confusions(np.eye(3, dtype=int), 5) == []
