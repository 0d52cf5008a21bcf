"""The page Jobs: names, states, and what can be done with a job."""

import pytest

from tests.ui.conftest import PARAMS, button, labels, listed, open_more, run, texts
from tests.ui.test_extraction_page import report


def test_a_job_gets_a_name_that_lists_and_its_panel_show_and_loses_it_again(app, store):
    job = store.create("extract", PARAMS, "local", "digits")
    store.request_cancel(job.id)
    run(app, "jobs")
    open_more(app, job)
    app.text_input(key=f"called_{job.id}").input(" first  <try> ")
    button(app, "Rename").click().run()
    assert store.get(job.id).name == "first <try>"
    assert listed(app) == ["**extract**: first \\<try\\> · digits"]
    button(app, "Open").click().run()
    assert "**Cancelled**: first \\<try\\> · digits" in texts(app)
    app.switch_page("pages/jobs.py").run()
    open_more(app, job)
    app.text_input(key=f"called_{job.id}").input("")
    button(app, "Rename").click().run()
    assert listed(app) == ["**extract**: digits"]


def test_jobs_can_be_listed_by_how_they_stand(app, store, pixel_features, finished_job):
    finished_job(pixel_features())
    run(app, "jobs")
    # Where all stand alike there is nothing to choose.
    assert not any(one.key == "jobs_shown" for one in app.segmented_control)
    store.request_cancel(store.create("extract", PARAMS, "local", "first").id)
    app.run()
    groups = app.segmented_control(key="jobs_shown")
    assert list(groups.options) == ["All (2)", "Done (1)", "Stopped (1)"]
    groups.set_value("Stopped").run()
    assert listed(app) == ["**extract**: first"]
    # A choice stays while jobs come.
    store.request_cancel(store.create("extract", PARAMS, "local", "second").id)
    app.run()
    assert listed(app) == ["**extract**: second", "**extract**: first"]


@pytest.mark.parametrize(("failed", "can_help"), [(11, True), (12, False)])
@pytest.mark.parametrize("page", ["jobs", "features"])
def test_a_job_whose_samples_could_all_not_be_used_is_not_resumed(app, store, page, failed, can_help):
    job = store.create("extract", PARAMS, "local", "digits")
    claimed = store.claim("a worker")
    store.set_report(job.id, claimed.attempt, report(samples=12, failed=failed))
    store.fail(job.id, claimed.attempt, "It failed.")
    run(app, page, job=job.id)
    assert ("Resume" in labels(app)) is can_help
    assert ("Choose another dataset" in labels(app)) is (page == "features" and not can_help)
    # Where none could be used, the error says so; an ended job has left out nothing "so far".
    assert ("11 images left out" in texts(app)) is (page == "features" and can_help)
    assert "so far" not in texts(app)
