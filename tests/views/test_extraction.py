"""The sentences on an extraction that page and command line share."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelrank.data.dataset import Problem
from labelrank.features.store import FeatureSet
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.steps.extract.estimate import Prospect
from labelrank.steps.extract.report import ExtractionReport, ExtractionResult, StabilityOutcome
from labelrank.steps.extract.request import Request
from labelrank.views import extraction
from labelrank.views.extraction import End
from labelrank.words import per_class_text
from tests.steps.extract.test_report import MADE_ON, OWN, REPORT

from .test_charts import stability


def prospect(classes, per_class, **request):
    request = Request("pets", "mae-tiny-digits", **request)
    samples = round(classes * per_class)
    encoder = EncoderConfig("vit_mae", TransformerConfig(8, 8, 1, 1), (8, 8), (4, 4))
    return Prospect(request, Path("x"), samples, classes, per_class, 1, "image", encoder, 1e9, "float32")


@pytest.mark.parametrize(
    "enough",
    [prospect(9, 3), prospect(10, 25), prospect(50, 25), prospect(1000, 64.5), prospect(60, 2, shard=(1, 2))],
)
def test_enough_samples_need_no_word(enough):
    assert extraction.few_samples_text(enough) is None


def test_an_order_that_decides_itself_how_many_it_takes_needs_no_word():
    assert extraction.few_samples_text(prospect(60, 2, until_stable=0.8)) is None


@pytest.mark.parametrize(("classes", "per_class", "told"), [(50, 24, "24 "), (1000, 3, "3 "), (101, 9.5, "9.5 ")])
def test_too_few_samples_of_many_classes_are_told_with_the_number_to_take(classes, per_class, told):
    text = extraction.few_samples_text(prospect(classes, per_class))
    assert text.startswith(f"{told}samples of each class say little of the order of {classes:,} classes: other samples")
    assert text.endswith("Take at least 25 of each.")


@pytest.mark.parametrize(
    ("per_class", "told"), [(1, "One sample of each class says"), (2, "2 samples of each class say")]
)
def test_one_or_two_samples_are_too_few_whatever_the_number_of_classes(per_class, told):
    assert extraction.few_samples_text(prospect(3, per_class)) == (
        f"{told} little of the order of 3 classes: other samples would give quite another answer. Take at least 25 of "
        "each."
    )


def test_too_few_samples_of_some_classes_are_told_for_their_distances_alone():
    text = extraction.few_samples_text(prospect(12, 8))
    assert text.startswith("8 samples of each class say little of which of the 12 classes are near each other")
    assert text.endswith("Take at least 25 of each.")


@pytest.mark.parametrize(
    ("values", "most", "finding"),
    [
        (stability(), None, "Too few samples yet to tell how steady the order is"),
        (stability(0.3, 0.5), None, "Steadiness 0.50 at 8 per class"),
        (
            stability(0.3, 0.784, target=0.85, needed=61.2),
            64,
            "Steadiness 0.78 at 8 per class; 0.85 is expected at about 61",
        ),
        (
            stability(0.3, 0.7, target=0.85, needed=1234.5),
            64,
            "Steadiness 0.70 at 8 per class; 0.85 would take about 1,200, more than the 64 here",
        ),
        (
            stability(0.3, target=0.85),
            64,
            "Steadiness 0.30 at 4 per class; it is too early to say when 0.85 is reached",
        ),
        (stability(0.3, 0.86, target=0.85, needed=8), 64, "Steadiness 0.86 at 8 per class: 0.85 is reached"),
        (
            stability(0.3, 0.62, target=0.85, needed=61.2, gap=0.18),
            64,
            "Steadiness 0.62 at 8 per class (0.80 in either direction); 0.85 is expected at about 61",
        ),
        (
            stability(0.3, 0.68, target=0.85, needed=8, gap=0.18, either=True),
            64,
            "Steadiness 0.86 in either direction at 8 per class: 0.85 is reached",
        ),
        (replace(stability(0.3, 0.62, gap=0.38), classes=2), None, "Steadiness 0.62 at 8 per class"),
    ],
)
def test_stability_finding_says_how_steady_and_what_the_target_takes(values, most, finding):
    assert extraction.stability_finding(values, most) == finding


@pytest.mark.parametrize(("count", "text"), [(8.0, "8"), (8.53, "8.5"), (46.3, "46"), (1234.0, "1,200")])
def test_counts_per_class_have_sensible_digits(count, text):
    assert per_class_text(count) == text


def test_the_interval_is_told_where_no_chart_shows_it():
    told = extraction.stability_finding(stability(0.5, either=True, gap=0.2), interval=True)
    assert told == "Steadiness 0.70 in either direction (0.60 to 0.70) at 4 per class"


def test_what_it_runs_on_what_is_reused_and_waiting_are_told():
    report = ExtractionReport.from_json(REPORT)
    told = ["CPU (AMD EPYC)", "bfloat16", "OpenVINO", "160 of 640 images from finished parts"]
    assert extraction.circumstances(report, "images") == told
    report = replace(report, reused_samples=0, encoder_reused=True, waited=0.25)
    told = [*told[:3], "encoder from the cache", "the encoder waits 25\u00a0% of the time for images"]
    assert extraction.circumstances(report, "images") == told


def test_parts_of_which_not_all_was_used_are_not_told_as_more_than_was():
    report = ExtractionReport.from_json(REPORT)
    assert extraction.circumstances(report, "images", rows=100)[-1] == "100 of 100 images from finished parts"


def test_reasons_that_are_rare_are_counted_together():
    report = replace(ExtractionReport.from_json(REPORT), failed=5)
    told = ["2 × Image is truncated.", "1 × It has 0 pixels.", "2 for other reasons"]
    assert extraction.reasons(report) == told
    assert extraction.reasons(replace(report, failed=3)) == told[:2]


def test_the_share_that_was_left_out_is_of_what_is_done():
    assert extraction.left_out_text(16, 320, ("image", "images")) == "16 images left out so far (5.0\u00a0%)"
    assert extraction.left_out_text(1, 0, ("image", "images")) == "1 image left out so far"


def test_remarks_are_not_counted_as_left_out():
    features = FeatureSet(np.zeros((4, 2), np.float32), np.arange(4, dtype=np.int32), tuple("abcd"), tuple("wxyz"))
    assert extraction.failures_text(features) == ""
    left_out, remark = Problem("a/1.png", "It is empty."), Problem("train", "The folder is read as a class.", "note")
    assert extraction.failures_text(replace(features, failures=(remark,))) == "1 remark on how the data were read."
    assert extraction.failures_text(replace(features, failures=(left_out, remark))) == (
        "1 sample left out (20\u00a0%). 1 remark on how the data were read."
    )


def test_a_class_without_samples_is_not_counted_as_a_sample():
    features = FeatureSet(np.zeros((3, 2), np.float32), np.arange(3, dtype=np.int32), tuple("abc"), tuple("wxyz"))
    problems = (Problem("z/1.png", "It is empty."), Problem("z", "None of its samples could be used."))
    assert extraction.failures_text(replace(features, failures=problems)) == (
        "1 sample left out (25\u00a0%). 1 class has no sample left and cannot be ranked."
    )


def test_the_caption_of_the_chart_names_only_what_is_drawn():
    one = extraction.how_to_read(replace(stability(0.5), projection=()), "images")[0]
    assert "The bar is" in one and "dashed" not in one
    several = extraction.how_to_read(replace(stability(0.3, 0.5), projection=((16.0, 0.6),)), "images")[0]
    assert "The band is" in several and "dashed" in several


def test_doubtful_samples_are_told_by_kind():
    features = FeatureSet(np.zeros((4, 2), np.float32), np.arange(4, dtype=np.int32), tuple("abcd"), tuple("wxyz"))
    assert extraction.doubts(features) == []
    notices = (Problem("a", "9 of 10", "cut_short"), Problem("b", "later", "new"), Problem("c", "8 of 9", "cut_short"))
    (cut, samples), (other, _) = extraction.doubts(replace(features, notices=notices))
    assert cut == "2 of 4 videos are cut short or damaged. Their features come from the frames that are there."
    assert samples == [notices[0], notices[2]]
    assert other == "1 of 4 samples is doubtful."
    twice = (notices[0], Problem("a", "1 of the 9 frames taken is damaged", "cut_short"))
    assert extraction.doubts(replace(features, notices=twice))[0][0].startswith("1 of 4 videos is cut short")


def test_a_result_says_where_it_stopped():
    result = ExtractionResult.from_json({**REPORT, **OWN, **MADE_ON})
    assert extraction.result_text(result) == ("200 samples, 64 numbers each · stopped at 8 per class")
    again = replace(result, report=None, reused=True)
    assert extraction.result_text(again) == "200 samples, 64 numbers each · from the cache"


def made(*, taken: int = 640, classes: int = 3, **of_tau) -> FeatureSet:
    """Return features of an extraction that was to stop at tau 0.85, and had 640 samples."""
    estimate = replace(stability(0.5).points[0], **of_tau) if of_tau else None
    reached = estimate is not None and estimate.tau >= 0.85
    outcome = StabilityOutcome(0.85, False, reached, estimate, taken, 640)
    names = tuple(map(str, range(classes)))
    y = np.arange(classes, dtype=np.int32)
    return FeatureSet(np.zeros((classes, 2), np.float32), y, names, names, {"stability": outcome.to_json()})


@pytest.mark.parametrize(
    ("features", "all_used", "end", "text"),
    [
        (made(tau=0.9, taken=200), False, End.EARLY, "Stopped early: .* with 3 of 640 images."),
        (made(tau=0.9), False, End.LAST, "became steady enough with the last of the images."),
        (made(tau=0.5, aligned=0.6), False, End.UNSTABLE, "less steady than asked for. Allow more samples per class"),
        (made(tau=0.5, aligned=0.6), True, End.UNSTABLE, "The dataset has no more of them."),
        (made(tau=0.5, aligned=0.9), True, End.DIRECTION, "count as the same.$"),
        (made(tau=0.5, aligned=0.9), False, End.DIRECTION, "Else allow more samples per class.$"),
        (made(tau=0.5, aligned=1.0, classes=2), True, End.UNSTABLE, "no more of them"),
        (made(), False, End.UNKNOWN, "All 640 images were used, and these are too few to tell how steady it is."),
    ],
)
def test_how_an_extraction_stopped_is_told(features, all_used, end, text):
    told = extraction.how_it_stopped(features, "images", all_used=all_used)
    assert told is not None
    assert told[0] == end
    assert re.search(text, told[1])


def test_an_extraction_of_all_samples_says_nothing_on_how_it_stopped():
    features = replace(made(), provenance={})
    assert extraction.how_it_stopped(features, "images", all_used=True) is None
    assert extraction.outcome_finding(features) == ""


def test_how_steady_the_order_was_is_told_with_what_was_asked_for():
    told = extraction.outcome_finding(made(tau=0.9, low=0.8, high=0.95))
    assert told == "Steadiness 0.90 (0.80 to 0.95) at 4 per class; 0.85 was asked for."
