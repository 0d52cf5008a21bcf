"""The first page: a result on real data that opens with one click, and two other ways to begin."""

import re
import time

import pytest

from labelrank.features.examples import CIFAR100
from labelrank.jobs.store import JobStore
from labelrank.ui import first_page
from tests.ui.conftest import address, button, chips, downloads, labels, run, texts, title


def plain(app) -> str:
    return texts(app).replace("\\", "")


def test_the_result_of_the_first_page_opens_with_one_click_and_nothing_to_extract(app, store):
    button(run(app), "Open this result").click().run()
    assert (title(app), store.list()) == ("Ranking", ())
    assert address(app) == {"features": "example:cifar100"}
    assert [chip.replace("\\", "") for chip in chips(app)] == [
        "CIFAR-100 / test / 100 classes / 20 images of each",
        "DINOv2-small",
        "features: 2,000 samples, example",
        "order: optimal-leaf",
    ]
    assert "test split" in app.warning[0].value
    assert "This example has features alone, without images." in plain(app)
    # Its order has no intervals of positions; the distances that it follows have an agreement.
    for _ in range(60):
        if len(app.metric) == 2:
            break
        time.sleep(0.5)
        app.run()
    assert [(one.label, one.value) for one in app.metric][1:] == [("Agreement of distances", "0.77")]
    # There is nothing to train on, so the way to a fine-tune is not offered.
    assert "Does the order matter here?" not in labels(app)
    assert downloads(app)[0] == "Download"


def test_the_example_comes_back_from_its_address_with_the_order_that_was_chosen(app):
    run(app, "ranking", features="example:cifar100", method="centroid")
    assert (title(app), app.selectbox(key="method").value) == ("Ranking", "centroid")
    assert address(app) == {"features": "example:cifar100", "method": "centroid"}


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("features", "There is nothing to extract"),
        ("finetune", "without the dataset"),
        ("patches", "without the images"),
    ],
)
def test_what_the_example_does_not_have_is_said_where_it_is_missing(app, page, says):
    run(app, page, features="example:cifar100")
    assert says in plain(app)
    assert any(label.startswith("Choose a") for label in labels(app))


def test_a_dataset_takes_the_place_of_the_example(app):
    run(app, features="example:cifar100")
    button(app, "Use digits").click().run()
    assert title(app) == "Features"
    assert address(app) == {"dataset": "digits", "split": "train", "checkpoint": "mae-tiny-digits"}


def test_the_whole_path_runs_on_the_digits_and_leads_to_their_ranking(app, store, pixel_features):
    button(run(app), "Run it on digits").click().run()
    (job,) = store.list()
    assert (title(app), job.params["dataset"], job.params["max_per_class"]) == ("Features", "digits", 64)
    assert "features: waiting" in [chip.replace("\\", "") for chip in chips(app)]
    finish(store, job, pixel_features())
    app.run()
    assert (title(app), address(app)["job"]) == ("Ranking", job.id)
    # Once: whoever comes back to look at the features stays there.
    app.switch_page("pages/features.py").run()
    assert title(app) == "Features"


def test_whoever_leaves_the_work_is_not_led_on_by_its_end(app, store, pixel_features):
    button(run(app), "Run it on digits").click().run()
    app.switch_page("pages/jobs.py").run()
    finish(store, store.list()[0], pixel_features())
    app.switch_page("pages/features.py").run()
    assert (title(app), "Rank labels" in labels(app)) == ("Features", True)


def finish(store: JobStore, job, path) -> None:
    claimed = store.claim("a worker")
    result = {
        "features": str(path), "media": "image", "rows": 200, "dim": 64, "failures": 0, "seconds": 1.5, "reused": False,
        "digest": "0" * 64, "stopped_early": False, "device": "CPU", "precision": "float32", "runtime": "openvino",
    }  # fmt: skip
    store.succeed(job.id, claimed.attempt, result)


def test_other_tabs_show_no_example(app):
    button(run(app), "Use my own data").click().run()
    assert not {"Use digits", "Open this result"} & set(labels(app))
    assert "1,297 images" not in plain(app)


def test_what_the_first_page_says_is_what_the_features_say(app):
    from labelrank.class_groups import read_groups
    from labelrank.features.joining import read_features
    from labelrank.ranking.criteria import expected_share, group_shares
    from labelrank.steps.label_space import LabelSpace

    space = LabelSpace(read_features(CIFAR100.path))
    order = space.order(CIFAR100.order)
    names = [space.names[row].replace("_", " ") for row in order]
    written = re.findall(r">([^<]+)</li>", CIFAR100.picture.read_text(encoding="utf-8"))
    assert ", ".join(written).split(", ") == names
    assert f"{len(names)} classes in order, from {names[0]}s to {names[-1]}s" == first_page.FINDING
    groups = read_groups(CIFAR100.path.with_name("cifar100-superclasses.csv"), space.names).groups
    share, chance = group_shares(groups, order[None])[0], expected_share(groups)
    assert f"{100 * share:.0f}\u00a0% of the neighbours" in first_page.TEXT
    assert f"{len(set(groups))} superclasses; by chance it would be {100 * chance:.0f}\u00a0%" in first_page.TEXT
