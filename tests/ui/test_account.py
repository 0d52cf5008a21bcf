"""Signing in on pages: who a session is then, what it finds, and that signing out leaves nothing behind."""

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from labelrank.data.uploads import kept_uploads, save_upload, upload_name, upload_path
from labelrank.errors import DatasetError
from labelrank.patches.ranker import kept_rankers
from labelrank.ui import session, uploads
from labelrank.ui.datasets import search
from labelrank.ui.lookups import lookups
from tests.helpers.datasets import png, write_zip
from tests.helpers.hub_writing import Token
from tests.ui.conftest import PARAMS, ROOT, address, button, labels, listed, run, texts, unfold

pytest_plugins = ["tests.helpers.hub_server"]


@pytest.fixture
def server(workspace, hub, monkeypatch):
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    hub.tokens["hf_other"] = Token("other")
    return hub


@pytest.fixture
def browser(server):
    """Return a function that opens the app in a browser of its own, as a visitor of this name."""

    def start(visitor, page="jobs", **query):
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        app.session_state["visitor"] = visitor
        return run(app, page, **query)

    return start


def sign_in(app, token):
    unfold(app, "sign_in")
    app.text_input(key="token_foot").set_value(token)
    return button(app, "Sign in").click().run()


def subjects(app):
    return [title.partition("**: ")[2] for title in listed(app)]


def cancelled(store, owner, subject):
    store.request_cancel(store.create("extract", PARAMS, owner, subject).id)


def test_who_signs_in_elsewhere_finds_the_own_jobs_and_nobody_elses(browser, store, server):
    for owner, subject in (("hub:me", "mine"), ("hub:other", "others"), ("hub:m", "no"), ("me", "no")):
        cancelled(store, owner, subject)
    app = browser("a new browser")
    assert "No job has been started yet." in texts(app)
    sign_in(app, server.token)
    assert "Signed in as me" in texts(app)
    assert subjects(app) == ["mine"]
    assert "Resume" in labels(app)
    assert subjects(sign_in(browser("another"), "hf_other")) == ["others"]


def test_what_was_made_before_signing_in_stays_with_the_browser(browser, store, server):
    cancelled(store, "this browser", "before")
    cancelled(store, "hub:me", "elsewhere")
    app = browser("this browser")
    assert subjects(app) == ["before"]
    sign_in(app, server.token)
    assert subjects(app) == ["elsewhere", "before"]
    assert labels(app).count("Resume") == 2
    button(app, "Sign out").click().run()
    assert subjects(app) == ["before"]


def test_signing_out_leaves_nothing_of_the_account_on_the_page(browser, store, server):
    app = sign_in(browser("this browser"), server.token)
    cancelled(store, "hub:me", "secret pets")
    run(app, "features", job=store.list("hub:me")[0].id)
    app.switch_page("pages/jobs.py").run()
    assert subjects(app) == ["secret pets"]
    button(app, "Sign out").click().run()
    assert "secret" not in texts(app)
    assert "job" not in address(app)
    assert "account" not in app.session_state
    assert app.session_state["visitor"] == "this browser"


def test_a_job_is_the_accounts_once_one_is_signed_in(monkeypatch, server):
    state = {"visitor": "this browser"}
    monkeypatch.setattr("streamlit.session_state", state)
    assert (session.owner(), session.owners()) == ("this browser", ("this browser",))
    session.account.sign_in(server.token, session.settings())
    assert (session.owner(), session.owners()) == ("hub:me", ("hub:me", "this browser"))
    assert session.settings().hub_token == server.token
    assert server.token not in repr(state) + repr(session.settings())
    monkeypatch.setenv("LABELRANK_SHARED", "0")
    assert session.owners() == ("local",), "a machine of one's own has one user"


def test_an_upload_from_before_is_there_after_signing_in(monkeypatch, server, tmp_path):
    state = {"visitor": "this browser"}
    monkeypatch.setattr("streamlit.session_state", state)
    with write_zip(tmp_path / "pets.zip", {f"{name}/0.png": png() for name in "ab"}).open("rb") as stream:
        name = save_upload(stream, settings=session.settings())
    for _ in range(2):  # also when some of it is there
        session.account.sign_in(server.token, session.settings())
        assert upload_path(name, session.settings()).is_file()
        assert upload_name(name, settings=session.settings()) == "pets.zip"
        del state["account"]
    session.account.sign_in("hf_other", replace(session.settings(), owner="another browser"))
    with pytest.raises(DatasetError, match="not in this workspace"):
        upload_path(name, session.settings())


def test_what_is_deleted_after_signing_in_is_gone_from_the_browser_too(monkeypatch, server, store, tmp_path):
    state = {"visitor": "this browser"}
    monkeypatch.setattr("streamlit.session_state", state)
    before = session.settings()
    with write_zip(tmp_path / "pets.zip", {f"{name}/0.png": png() for name in "ab"}).open("rb") as stream:
        name = save_upload(stream, settings=before)
    made, job = kept_rankers(before) / "ltrp-1", store.create("train-patches", PARAMS, "this browser", "digits")
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    store.succeed(job.id, store.claim("w").attempt, {"ranker": "ltrp-1"})
    session.account.sign_in(server.token, before)
    assert (kept_rankers(session.settings()) / "ltrp-1" / "config.json").is_file()
    uploads.delete(kept_uploads(session.settings())[0])
    session.delete_job(store.get(job.id))
    for one in (session.settings(), before):
        assert [*kept_uploads(one), *kept_rankers(one).glob("*")] == [], "nobody could delete it later"
        with pytest.raises(DatasetError, match="not in this workspace"):
            upload_path(name, one)


def test_a_search_finds_private_repositories_for_those_who_see_them_alone(monkeypatch, server):
    server.add("dataset", "me/pets", {"README.md": ""}, private=True)
    state = {"visitor": "one"}
    monkeypatch.setattr("streamlit.session_state", state)
    session.account.sign_in(server.token, session.settings())
    assert [one.id for one in search("dataset", "pets", None)] == ["me/pets"]
    session.account.sign_in("hf_other", session.settings())
    assert search("dataset", "pets", None) == ()
    del state["account"]
    assert search("dataset", "pets", None) == ()


def test_what_is_kept_for_all_sessions_holds_no_token(monkeypatch, server):
    state = {"visitor": "one"}
    monkeypatch.setattr("streamlit.session_state", state)
    session.account.sign_in(server.token, session.settings())
    search("dataset", "pets", None)
    kept = list(lookups()._kept)
    assert len(kept) == 1
    assert server.token not in str([getattr(part, "hub_token", part) for part in kept[0]])


@pytest.fixture
def by_code(browser, server, monkeypatch):
    server.signing_in.secrets["space"] = "s3cret"
    server.signing_in.interval_s = 0
    monkeypatch.setenv("OAUTH_CLIENT_ID", "space")
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("OAUTH_SCOPES", "read-repos")
    app = browser("this browser")
    unfold(app, "sign_in")
    assert [one.key for one in app.text_input if (one.key or "").startswith("token_")] == []
    return app


def shown_code(app, server):
    button(app, "Sign in with Hugging Face").click().run()
    (code,) = server.signing_in.codes
    assert code in [one.value for one in app.code]
    page = app.get("link_button")[0].proto.url
    assert page == f"{server.endpoint}/oauth/device?user_code={code}"
    return code


def test_a_server_that_the_hub_knows_signs_in_by_a_code(by_code, server):
    code = shown_code(by_code, server)
    by_code.run()
    assert "Signed in" not in texts(by_code)
    server.signing_in.agree(code, server.token)
    by_code.run()
    assert "Signed in as me" in texts(by_code)
    assert code not in str(by_code.code)


def test_who_does_not_agree_is_told_and_may_try_again(by_code, server):
    code = shown_code(by_code, server)
    server.signing_in.deny(code)
    by_code.run()
    assert "You have not agreed on the page of the Hub" in texts(by_code)
    assert "Sign in with Hugging Face" in labels(by_code)
    server.signing_in.codes.clear()
    shown_code(by_code, server)
    assert "You have not agreed" not in texts(by_code)


def test_a_code_that_is_not_wanted_any_more_is_forgotten(by_code, server):
    code = shown_code(by_code, server)
    button(by_code, "Cancel").click().run()
    assert "Sign in with Hugging Face" in labels(by_code)
    server.signing_in.agree(code, server.token)
    by_code.run()
    assert "Signed in as" not in texts(by_code)


def test_a_computer_with_a_token_has_no_need_to_sign_in(workspace, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    app = run(AppTest.from_file(str(ROOT / "app.py"), default_timeout=60), "jobs")
    unfold(app, "sign_in")
    assert "This computer has an access token already" in texts(app)
    assert not app.text_input


def test_an_app_that_the_hub_does_not_know_is_told(by_code, server):
    server.signing_in.secrets["space"] = "another"
    button(by_code, "Sign in with Hugging Face").click().run()
    assert "does not sign people in to this app" in texts(by_code)
    assert "s3cret" not in texts(by_code)


def test_a_link_to_a_job_on_private_data_shows_its_result_without_images(
    browser, server, store, finished_job, pixel_features
):
    server.add("dataset", "me/pets", {"README.md": ""}, private=True)
    path = pixel_features(dataset={"id": "me/pets", "split": "train"})
    job = finished_job(path, dataset="me/pets")
    app = browser("another", "ranking", job=job.id)
    assert "Order" in [box.label for box in app.selectbox]
    assert "so they have no images" in texts(app)
    assert not app.get("imgs")
