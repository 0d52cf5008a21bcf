"""Signing in by a code: RFC 8628 against a Hub that is as strict."""

from dataclasses import replace

import pytest

from labelrank.errors import HubError
from labelrank.hub import signing_in
from labelrank.hub.signing_in import App, begin

pytest_plugins = ["tests.helpers.hub_server"]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(hub):
    hub.signing_in.clock = Clock()
    return hub.signing_in.clock


@pytest.fixture
def app(hub):
    hub.signing_in.secrets["space"] = "s3cret"
    return App(hub.endpoint, "space", "s3cret", "read-repos gated-repos")


def ask(app, code, clock, after):
    clock.now += after
    return signing_in.ask(app, code, now=clock.now)


def test_the_variables_of_a_space_say_how_to_sign_in(hub):
    assert App.from_env({}) is None
    env = {"OAUTH_CLIENT_ID": "a", "OAUTH_CLIENT_SECRET": "b", "OAUTH_SCOPES": " openid\nprofile "}
    assert App.from_env(env) == App(hub.endpoint, "a", "b", "openid profile")
    elsewhere = App.from_env({**env, "OPENID_PROVIDER_URL": "https://hub.example/", "OAUTH_CLIENT_SECRET": ""})
    assert elsewhere == App("https://hub.example", "a", None, "openid profile")
    assert "b" not in repr(App.from_env(env)).replace("b'", "").partition("client_id")[2].partition("scopes")[0]


def test_a_token_comes_once_its_user_has_agreed(hub, app, clock):
    code = begin(app, now=clock.now)
    assert code.page == f"{hub.endpoint}/oauth/device?user_code={code.text}"
    assert code.secret not in repr(code)
    assert hub.signing_in.codes[code.text].scopes == "read-repos gated-repos"
    assert ask(app, code, clock, 0.5) is code, "it is not time yet"
    assert hub.signing_in.log == []
    code = ask(app, code, clock, 1)
    hub.signing_in.agree(code.text, "hf_theirs")
    assert ask(app, code, clock, 1) == "hf_theirs"
    assert hub.signing_in.log == ["authorization_pending", "token"]


def test_a_hub_that_wants_slower_questions_gets_them(hub, app, clock):
    code = begin(app, now=clock.now)
    hasty = replace(code, next_at=clock.now, interval_s=1.0)
    slower = ask(app, hasty, clock, 0.1)
    assert (slower.interval_s, slower.next_at) == (6.0, clock.now + 6)
    hub.signing_in.agree(code.text, "hf_theirs")
    assert ask(app, slower, clock, 6) == "hf_theirs"


def test_a_network_that_is_away_is_asked_less_often(hub, app, clock):
    code = begin(app, now=clock.now)
    hub.fail("/oauth/token", 503)
    code = ask(app, code, clock, 1)
    assert code.interval_s == 2
    hub.stop()
    code = ask(app, code, clock, 2)
    assert code.interval_s == 4
    hub.start()
    hub.signing_in.agree(code.text, "hf_theirs")
    assert ask(app, code, clock, 4) == "hf_theirs"


def test_who_does_not_agree_or_waits_too_long_is_told(hub, app, clock):
    code = begin(app, now=clock.now)
    hub.signing_in.deny(code.text)
    with pytest.raises(HubError, match="You have not agreed on the page of the Hub.*Press Sign in to get a new one"):
        ask(app, code, clock, 1)
    hub.signing_in.lasts_s = 10
    code = begin(app, now=clock.now)
    with pytest.raises(HubError, match=f"The code {code.text} has expired"):
        ask(app, code, clock, 10)
    assert hub.signing_in.log == ["access_denied"], "that it has expired is known here"
    with pytest.raises(HubError, match="has expired"):
        ask(app, replace(code, ends_at=1e9), clock, 1)


@pytest.mark.parametrize("change", [{"client_secret": "guessed"}, {"client_secret": None}, {"client_id": "other"}])
def test_an_app_that_the_hub_does_not_know_is_told_to_who_runs_it(hub, app, clock, change):
    with pytest.raises(
        HubError, match="does not sign people in to this app .*invalid_client.*OAUTH_CLIENT_ID"
    ) as error:
        begin(replace(app, **change))
    assert "guessed" not in str(error.value)
    code = begin(app, now=clock.now)
    with pytest.raises(HubError, match="invalid_client"):
        ask(replace(app, **change), code, clock, 1)


@pytest.mark.parametrize("page", [b"<html>log in</html>", b"{}", b'{"device_code": 1}', b"[]"])
def test_an_answer_that_is_no_code_is_told(hub, app, page):
    hub.intercept("/oauth/device", page)
    with pytest.raises(HubError, match="gives no code to sign in. Check OPENID_PROVIDER_URL"):
        begin(app)


@pytest.mark.parametrize("page", ["javascript:alert(1)", "https://x\n[", "data:text/html,x", "//x"])
def test_a_page_that_is_no_address_of_the_web_is_not_shown(hub, app, page):
    import json

    answer = {"device_code": "a", "user_code": "b", "verification_uri": page}
    hub.intercept("/oauth/device", json.dumps(answer).encode())
    with pytest.raises(HubError, match="gives no code"):
        begin(app)


def test_the_secret_goes_nowhere_else(hub, app, clock):
    hub.fail("/oauth/device", 302, Location=f"{hub.storage}/oauth/device")
    with pytest.raises(HubError, match="gives no code"):
        begin(app)
    assert [request.status for request in hub.requests] == [302]
