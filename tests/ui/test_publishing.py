"""Publishing on the Ranking page: shown before it is written, with an access token that stays in the session."""

from dataclasses import replace

import pytest

from labelrank.settings import Settings
from tests.ui.conftest import address, button, labels, run, texts, unfold

pytest_plugins = ["tests.helpers.hub_server"]


@pytest.fixture
def page(app, hub, pixel_features, finished_job, monkeypatch):
    """The Ranking page with the place to publish unfolded and a repository named."""
    monkeypatch.setattr("labelrank.views.card.png", lambda chart, title: b"\x89PNG of a chart")
    run(app, job=finished_job(pixel_features()).id)
    unfold(app, "publish")
    app.text_input(key="publish_repo").set_value("me/order")
    return app


def give_token(page, token):
    page.text_input(key="publish_token").set_value(token)


def test_what_changes_is_shown_before_it_is_written(page, hub):
    give_token(page, hub.token)
    page.checkbox(key="publish_create").check()
    assert "Publish" not in labels(page)
    button(page, "Show what changes").click().run()
    assert any('+  "id2label": {' in code.value for code in page.code)
    assert hub.commits == []
    button(page, "Publish").click().run()
    assert "Written to the model me\\/order: [see it there]" in texts(page)
    assert hub.commits[0]["files"] == [".labelrank/label_map.png", "README.md", "config.json", "label_map.json"]
    assert hub.facts(hub.root / "models/me/order")["private"] is True
    button(page, "Show what changes").click().run()
    assert "has all of this already" in texts(page)


def test_a_failed_look_leaves_nothing_to_publish(page, hub):
    give_token(page, hub.token)
    page.checkbox(key="publish_create").check()
    button(page, "Show what changes").click().run()
    page.text_input(key="publish_repo").set_value("me/other")
    hub.stop()
    button(page, "Show what changes").click().run()
    assert "Publish" not in labels(page)


def test_a_pull_request_is_offered_where_one_may_not_write(page, hub):
    hub.add("model", "theirs/order", {"README.md": "# Theirs\n"})
    give_token(page, hub.token)
    page.text_input(key="publish_repo").set_value("theirs/order")
    button(page, "Show what changes").click().run()
    button(page, "Open a pull request").click().run()
    assert hub.commits[0]["revision"] == "refs/pr/1"


@pytest.mark.parametrize(("token", "said"), [("", "needs an access token"), ("hf_bad", "refuses the access token")])
def test_an_error_is_shown_with_the_way_out(page, hub, token, said):
    give_token(page, token)
    button(page, "Show what changes").click().run()
    assert said in texts(page)
    assert token == "" or token not in texts(page)


def test_a_token_is_in_the_session_alone(page, hub, settings, tmp_path):
    give_token(page, hub.token)
    page.checkbox(key="publish_create").check()
    button(page, "Show what changes").click().run()
    button(page, "Publish").click().run()
    assert hub.commits
    assert hub.token not in str(address(page)) + texts(page)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if hub.token.encode() in path.read_bytes()] == []
    page.switch_page("pages/dataset.py").run()
    page.switch_page("pages/ranking.py").run()
    assert "publish_token" not in page.session_state


def test_the_token_of_this_computer_is_used_without_being_asked_for(page, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    page.run()
    assert [one.key for one in page.text_input if one.key == "publish_token"] == []
    assert "The access token of this computer is used." in texts(page)


def test_a_shared_server_takes_the_token_of_its_visitor(page, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("labelrank.ui.publishing.session.settings", lambda: replace(Settings.from_env(), shared=True))
    page.run()
    assert [one.key for one in page.text_input if one.key == "publish_token"] == ["publish_token"]
