"""Publishing on the Ranking page: shown before it is written, with an access token that stays in the session."""

import pytest

from tests.helpers.hub_writing import Token
from tests.ui.conftest import address, button, labels, run, texts, unfold

pytest_plugins = ["tests.helpers.hub_server"]


@pytest.fixture
def page(app, hub, pixel_features, finished_job, monkeypatch):
    """The Ranking page with the place to publish unfolded and a repository named."""
    monkeypatch.setattr("labelrank.views.card.png", lambda chart, title: b"\x89PNG of a chart")
    run(app, job=finished_job(pixel_features()).id)
    unfold(app, "publish")
    return app


def sign_in(page, token, place="publish"):
    page.text_input(key=f"token_{place}").set_value(token)
    button(page, "Sign in").click().run()


@pytest.fixture
def form(page, hub):
    """The page once its user has signed in, with a repository named."""
    sign_in(page, hub.token)
    page.text_input(key="publish_repo").set_value("me/order")
    return page


def test_what_changes_is_shown_before_it_is_written(form, hub):
    form.checkbox(key="publish_create").check()
    assert "Publish" not in labels(form)
    button(form, "Show what changes").click().run()
    assert any('+  "id2label": {' in code.value for code in form.code)
    assert hub.commits == []
    button(form, "Publish").click().run()
    assert "Written to the model me\\/order: [see it there]" in texts(form)
    assert hub.commits[0]["files"] == [".labelrank/label_map.png", "README.md", "config.json", "label_map.json"]
    assert hub.facts(hub.root / "models/me/order")["private"] is True
    button(form, "Show what changes").click().run()
    assert "has all of this already" in texts(form)


def test_a_failed_look_leaves_nothing_to_publish(form, hub):
    form.checkbox(key="publish_create").check()
    button(form, "Show what changes").click().run()
    form.text_input(key="publish_repo").set_value("me/other")
    hub.stop()
    button(form, "Show what changes").click().run()
    assert "Publish" not in labels(form)


def test_a_pull_request_is_offered_where_one_may_not_write(form, hub):
    hub.add("model", "theirs/order", {"README.md": "# Theirs\n"})
    form.text_input(key="publish_repo").set_value("theirs/order")
    button(form, "Show what changes").click().run()
    button(form, "Open a pull request").click().run()
    assert hub.commits[0]["revision"] == "refs/pr/1"


def test_a_pull_request_is_opened_where_it_is_asked_for(form, hub):
    hub.add("model", "me/order", {"README.md": "# Mine\n"})
    form.checkbox(key="publish_pr").check()
    button(form, "Show what changes").click().run()
    assert "Publish" not in labels(form)
    button(form, "Open a pull request").click().run()
    assert hub.commits[0]["revision"] == "refs/pr/1"


def test_a_token_that_the_hub_refuses_signs_nobody_in(page, hub):
    sign_in(page, "hf_bad")
    assert "The Hub refuses the access token" in texts(page)
    assert "hf_bad" not in texts(page)
    assert "Show what changes" not in labels(page)


def test_a_token_that_may_only_read_signs_in_and_cannot_publish(page, hub):
    hub.tokens["hf_reads"] = Token("reader", role="read")
    sign_in(page, "hf_reads")
    assert "Signed in as reader" in texts(page)
    page.text_input(key="publish_repo").set_value("me/order")
    button(page, "Show what changes").click().run()
    assert "The access token of reader may only read" in texts(page)


def test_a_token_is_in_the_session_alone(form, hub, tmp_path):
    form.checkbox(key="publish_create").check()
    button(form, "Show what changes").click().run()
    button(form, "Publish").click().run()
    assert hub.commits
    assert hub.token not in str(address(form)) + texts(form)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if hub.token.encode() in path.read_bytes()] == []
    assert "token_publish" not in form.session_state, "no field holds it any more"


def test_the_token_of_this_computer_is_used_without_being_asked_for(page, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    page.run()
    assert [one.key for one in page.text_input if one.key == "token_publish"] == []
    assert "The access token of this computer is used." in texts(page)


def test_a_shared_server_takes_the_token_of_its_visitor(page, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    page.run()
    assert "The access token of this computer is used." not in texts(page)
    sign_in(page, hub.token)
    assert "As me." in texts(page)
