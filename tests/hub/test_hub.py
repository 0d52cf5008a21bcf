"""What the Hub client brings, what it costs, and what is said when the Hub cannot or will not; over real HTTP."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelrank import hub as client
from labelrank.cache import evict
from labelrank.errors import Cancelled, HubError
from labelrank.hub import storage as storage_module
from labelrank.hub import waiting
from labelrank.hub.storage import disk_explained, storage
from labelrank.hub.waiting import Meter
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from tests.helpers.hub_server import Revision, _Handler
from tests.helpers.hub_writing import Token

pytest_plugins = ["tests.helpers.hub_server"]

BIG = bytes(range(256)) * 12_000  # 3 MB, each part of it different from its neighbours
README = "---\nlicense: cc-by-nc-4.0\ndatasets:\n- kinetics\n---\n# A model\n"


@pytest.fixture
def model(hub):
    hub.add("model", "me/model", {"README.md": README, "config.json": "{}\n", "sub/big.safetensors": BIG}, downloads=7)
    return "me/model"


@pytest.fixture
def repo(model, settings):
    return client.resolve("model", model, settings=settings)


# --- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me / model", "'me / model' has a space in it; .*facebook/vit-mae-base. Did you mean me/model?"),
        ("my model", "has a space in it"),
        ("../secret", "is a path"),
        ("/etc/passwd", "is a path"),
        ("~/model", "is a path"),
        ("a/../b", "is a path"),
        ("a/b/c", "has more than one slash"),
        ("", "is no id"),
        ("me/m?x=1", "is no id"),
        ("me/-model", "is no id"),
        ("me/model.git", "is no id"),
        ("me/mo--del", "is no id"),
        ("me/" + "x" * 97, "is no id"),
        ("https://huggingface.co/facebook/vit-mae-base", "is an address; give the id facebook/vit-mae-base instead"),
        ("huggingface.co/facebook/vit-mae-base/", "is an address; give the id facebook/vit-mae-base instead"),
        ("https://hf.co/me/model/tree/v2", "give the id me/model and the revision v2 instead"),
        ("https://huggingface.co/me/model/blob/main/config.json", "give the id me/model instead"),
        ("https://huggingface.co/datasets/uoft-cs/cifar100", "is the address of a dataset; expected the id of a model"),
        ("hf://datasets/uoft-cs/cifar100", "is the address of a dataset"),
        ("https://example.com/me/model", "is an address; expected the id of a model"),
        ("https://huggingface.co/docs", "is an address; expected the id of a model"),
        ("https://[", "is an address; expected the id of a model"),
    ],
)
def test_what_cannot_be_an_id_is_named_with_what_was_meant(name, message):
    with pytest.raises(HubError, match=message):
        client.check_repo_id(name, "model")


@pytest.mark.parametrize("name", ["facebook/vit-mae-base", "mnist", "MCG-NJU/videomae-base", "a/b", "_x/y_.z"])
def test_ids_pass(name):
    assert client.check_repo_id(name, "dataset") == name


# --- what a repository holds


def test_a_repository_is_known_before_anything_is_downloaded(hub, model, settings):
    hub.add("model", model, {"pytorch_model.bin": b"x"}, gated="auto", private=False)
    issues = [
        {"path": "pytorch_model.bin", "level": "unsafe"},
        {"path": "config.json", "level": "caution"},
        {"path": "sub/big.safetensors", "level": "suspicious"},
    ]
    hub.add("model", model, {}, filesWithIssues=issues)
    repo = client.resolve("model", model, settings=settings)
    assert (repo.id, repo.kind, repo.requested_revision) == ("me/model", "model", "main")
    assert len(repo.revision) == 40
    assert (repo.licence, repo.gated, repo.private, repo.downloads) == ("cc-by-nc-4.0", True, False, 7)
    assert repo.card["datasets"] == ["kinetics"]
    assert repo.unsafe == ("pytorch_model.bin", "sub/big.safetensors")
    assert not repo.from_cache
    sha256 = hashlib.sha256(BIG).hexdigest()
    assert repo.file("sub/big.safetensors") == client.HubFile("sub/big.safetensors", len(BIG), sha256, sha256)
    small = repo.file("config.json")
    assert (small.size_bytes, small.sha256) == (3, None)
    assert small.blob_id == hashlib.sha1(b"blob 3\0{}\n").hexdigest()
    assert repo.file("none") is None
    assert len(hub.requests) == 2
    assert hub.bytes_sent("resolve") == 0
    assert client.resolve("model", model, settings=settings) == repo
    assert len(hub.requests) == 3  # a commit stays what it is; only whether it is still the branch's is asked


def test_a_branch_a_commit_and_a_pull_request_are_resolved(hub, model, settings):
    hub.add("model", model, {"other.json": "{}"}, revision="refs/pr/3")
    hub.add("model", model, {"other.json": "[]"}, revision="v1.0")
    main = client.resolve("model", model, settings=settings)
    for revision in ("refs/pr/3", "v1.0"):
        other = client.resolve("model", model, revision, settings=settings)
        assert [f.path for f in other.files] == ["other.json"]
        assert other.requested_revision == revision
        assert other.revision != main.revision
    again = client.resolve("model", model, main.revision, settings=settings)
    assert again.files == main.files


def test_a_moved_repository_is_found_under_its_new_name(hub, model, settings):
    hub.add("model", "old/name", {"x": ""}, renamed=model)
    assert client.resolve("model", "old/name", settings=settings).id == model


def test_a_dataset_with_one_word_for_a_name(hub, settings):
    hub.add("dataset", "mnist", {"a.parquet": b"1"})
    repo = client.resolve("dataset", "mnist", settings=settings)
    assert client.download(repo, "a.parquet", settings=settings).read_bytes() == b"1"


def test_long_listings_come_in_pages(hub, settings):
    hub.add("dataset", "me/many", {f"{i:03}/x.txt": str(i) for i in range(25)})
    hub.page_size = 10  # fewer than were asked for
    repo = client.resolve("dataset", "me/many", settings=settings)
    assert [f.path for f in repo.files] == [f"{i:03}/x.txt" for i in range(25)]
    assert len(hub.requests) == 1 + 3


@pytest.mark.parametrize(
    "address", ["http://127.0.0.2:9/page", "{endpoint}/api/datasets/me/data/tree/{commit}?recursive=true"]
)
def test_a_next_page_elsewhere_or_without_end_is_not_followed(hub, settings, address, monkeypatch):
    hub.add("dataset", "me/data", {f"{i}.txt": "" for i in range(9)})
    page = _Handler.send_page

    def send(self, entries):
        place = address.format(endpoint=hub.endpoint, commit=self.path.split("/")[-1].split("?")[0])
        reply = self.reply
        self.reply = lambda status, headers, body: reply(status, {**headers, "Link": f'<{place}>; rel="next"'}, body)
        page(self, entries)

    monkeypatch.setattr(_Handler, "send_page", send)
    with pytest.raises(
        HubError, match="as the next page of the files of the dataset me/data; expected another page of"
    ):
        client.resolve("dataset", "me/data", settings=settings)
    assert len(hub.requests) <= 3


def test_a_pull_request_is_found_by_a_file_of_a_later_page(hub, settings):
    hub.add("model", "me/model", {"README.md": README})
    others = {f"{i}.txt": str(i) for i in range(7)}
    for number in range(1, 9):
        hub.add("model", "me/model", {**others, "z.safetensors": b"z"}, revision=f"refs/pr/{number}")
    hub.add("model", "me/model", {}, authors={number: f"a{number}" for number in range(1, 8)} | {8: "SFconvertbot"})
    repo = client.resolve("model", "me/model", settings=settings)
    found = client.find_in_pull_requests(repo, {"z.safetensors"}, settings=settings)
    assert (found.revision, found.author) == ("refs/pr/8", "SFconvertbot")


@pytest.mark.parametrize(
    ("card", "tags", "licence"),
    [
        ({"license": "mit"}, [], "mit"),
        ({"license": "other", "license_name": "terms of the lab"}, [], "terms of the lab"),
        ({"license": ["mit", "apache-2.0"]}, [], "mit, apache-2.0"),
        ({}, ["x", "license:afl-3.0"], "afl-3.0"),
        ({}, [], None),
    ],
)
def test_licence_from_card_or_tags(hub, settings, card, tags, licence):
    hub.add("dataset", "me/data", {"README.md": f"---\n{json.dumps(card)}\n---\n"}, tags=tags)
    assert client.resolve("dataset", "me/data", settings=settings).licence == licence


@pytest.mark.parametrize(
    "revision", ["../main", "a b", "/main", "a\\b", ".", "a/./b", "a//b", "a/", "v\0", "v\x1b[31m", "v\u200b", "\udcff"]
)
def test_a_revision_that_cannot_exist(hub, model, settings, revision):
    with pytest.raises(HubError, match="cannot exist; expected a branch, tag, commit"):
        client.resolve("model", model, revision, settings=settings)
    assert hub.requests == []


@pytest.mark.parametrize("text", ["", "no card", "---\n: [\n---\n", "---\n- a\n---\n", "---\na: b\n"])
def test_a_broken_card_is_an_empty_one(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert client.read_card(tmp_path / "README.md") == {}
    assert client.read_card(tmp_path / "none") == {}


def test_a_file_that_would_be_written_elsewhere_is_refused(hub, model, settings, monkeypatch):
    entry = {"type": "file", "path": "../../.ssh/authorized_keys", "oid": "0" * 40, "size": 1}
    monkeypatch.setattr(hub, "files", lambda folder: [entry])
    with pytest.raises(HubError, match="has a file called '../../.ssh/authorized_keys', which may not be written here"):
        client.resolve("model", model, settings=settings)


# --- refusals, each with its own sentence


def test_no_such_repository(hub, settings):
    with pytest.raises(
        HubError, match="The Hub has no model me/none, or it is private: then log in with `hf auth login`"
    ):
        client.resolve("model", "me/none", settings=settings)
    with pytest.raises(HubError, match="The Hub has no dataset me/none"):
        client.resolve("dataset", "me/none", settings=settings)


def test_no_such_repository_with_an_account(hub, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(HubError, match="has no model me/none, or the account logged in here may not see it"):
        client.resolve("model", "me/none", settings=settings)


def test_no_such_revision(model, settings):
    with pytest.raises(HubError, match="me/model has no such branch, tag or commit: the model me/model at v9"):
        client.resolve("model", model, "v9", settings=settings)


def test_no_such_file(repo, settings, hub):
    with pytest.raises(HubError, match="There is no weights.bin in the model me/model at main"):
        client.download(repo, "weights.bin", settings=settings)
    with pytest.raises(HubError, match="There is no weights.bin in the model me/model at main"):
        client.open_range(repo, "weights.bin", settings=settings)


def test_a_file_that_went_away(repo, settings, hub):
    (hub.root / "models/me/model/main/config.json").unlink()
    with pytest.raises(HubError, match="There is no config.json of the model me/model. See http.*/me/model/tree/main"):
        client.download(repo, "config.json", settings=settings)


def test_gated_without_an_account(hub, model, settings):
    hub.add("model", model, {}, gated="manual")
    repo = client.resolve("model", model, settings=settings)
    assert repo.gated
    with pytest.raises(HubError, match=r"me/model is gated: .*Accept them at http\S+/me/model with.*then log in with"):
        client.download(repo, "config.json", settings=settings)


def test_gated_with_an_account_that_has_not_accepted_and_one_that_has(hub, model, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add("model", model, {}, gated="auto")
    repo = client.resolve("model", model, settings=settings)
    with pytest.raises(HubError, match=r"is gated: .*Accept them at http\S+/me/model with your account\.$"):
        client.download(repo, "config.json", settings=settings)
    hub.add("model", model, {}, granted=True)
    assert client.download(repo, "config.json", settings=settings).read_text() == "{}\n"


def test_a_wrong_token(hub, model, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(HubError, match=r"refuses the access token of this computer \(401\).*settings/tokens"):
        client.resolve("model", model, settings=settings)


def test_private_with_the_right_token(hub, model, settings, monkeypatch):
    hub.add("model", model, {}, private=True)
    with pytest.raises(HubError, match="has no model me/model, or it is private"):
        client.resolve("model", model, settings=settings)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repo = client.resolve("model", model, settings=settings)
    assert repo.private
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG
    asked = [r for r in hub.requests if r.path.startswith("/me/")]
    stored = [r for r in hub.requests if r.path.startswith("/storage/")]
    assert asked[0].authorization == f"Bearer {hub.token}"
    assert stored[0].authorization is None  # the token is for the Hub, not for where it keeps its files


def test_a_shared_server_sends_no_token(hub, model, tmp_path, monkeypatch):
    shared = Settings(workspace=tmp_path / "workspace", shared=True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repo = client.resolve("model", model, settings=shared)
    client.download(repo, "config.json", settings=shared)
    with client.open_range(repo, "sub/big.safetensors", settings=shared) as file:
        file.read(1)
    client.search("model", "me", settings=shared)
    assert {r.authorization for r in hub.requests} == {None}
    hub.add("model", model, {}, private=True)
    with pytest.raises(HubError, match="or it is private: then sign in with an account that may read it"):
        client.resolve("model", model, settings=shared)
    hub.add("model", model, {}, private=False, gated="auto")
    with pytest.raises(HubError, match=r"is gated: .*Accept them at http\S+/me/model, then sign in with that account"):
        client.resolve("model", model, settings=shared)


@pytest.mark.parametrize("facts", [{"private": True}, {"gated": "auto", "granted": ["me"]}])
def test_what_one_visitor_has_fetched_is_not_there_for_another(hub, model, tmp_path, facts):
    """The files lie in one cache: that they are there must not open them to who may not read them."""
    hub.add("model", model, {}, **facts)
    hub.tokens["hf_other"] = Token("other")
    shared = Settings(workspace=tmp_path / "workspace", shared=True)
    mine, theirs = (replace(shared, hub_token=token) for token in (hub.token, "hf_other"))
    path = client.download(client.resolve("model", model, settings=mine), "config.json", settings=mine)
    assert path.is_file()
    for settings, said in ((theirs, "your account may not see it|Accept them at"), (shared, "then sign in with")):
        with pytest.raises(HubError, match=said):
            client.resolve("model", model, settings=settings)
    assert client.resolve("model", model, settings=mine).file("config.json")
    hub.stop()
    for settings in (mine, theirs, shared):
        with pytest.raises(HubError, match="cannot be reached"):
            client.resolve("model", model, settings=settings)


@pytest.mark.parametrize("token", ["hf_ä", "hf_a b", "hf_\x01"])
def test_a_token_that_cannot_be_one_is_told_and_not_shown(hub, model, settings, token):
    with pytest.raises(HubError, match="holds characters that none has") as error:
        client.resolve("model", model, settings=replace(settings, hub_token=token))
    assert token not in str(error.value)
    assert hub.requests == []


def test_a_token_that_has_ended_is_told_with_the_way_back(hub, model, tmp_path):
    ended = Settings(workspace=tmp_path / "workspace", shared=True, hub_token="hf_ended")
    with pytest.raises(HubError, match="refuses your access token.*sign out and sign in again") as error:
        client.resolve("model", model, settings=ended)
    assert "hf_ended" not in str(error.value)


def test_what_was_private_is_not_shown_on_a_shared_server_without_network(hub, model, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add("model", model, {}, private=True)
    client.download(client.resolve("model", model, settings=settings), "config.json", settings=settings)
    hub.stop()
    assert client.resolve("model", model, settings=settings).from_cache
    for workspace in (settings.workspace, tmp_path / "another"):
        with pytest.raises(HubError, match="cannot be reached"):
            client.resolve("model", model, settings=Settings(workspace=workspace, shared=True))


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (
            403,
            {"X_Error_Message": "Forbidden region."},
            r"forbids access to the model me/model \(403\) \(Forbidden region\)",
        ),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, "me/model is disabled on the Hub"),
        (400, {}, r"does not understand the request \(HTTP 400\), asked for the model me/model. Update labelrank"),
        (402, {}, r"wants to be paid for this \(HTTP 402\)"),
        (405, {}, r"does not take requests of this kind \(HTTP 405\).*HF_ENDPOINT"),
        (407, {}, r"The proxy between here and the Hub wants a login \(407\).*HTTPS_PROXY"),
        (410, {}, r"had it once and has removed it \(HTTP 410\)"),
        (413, {}, r"finds the request too long \(HTTP 413\).*HF_TOKEN"),
        (416, {}, r"has no such part.*\(HTTP 416\).*Start again"),
        (418, {}, r"gives an answer that labelrank does not know \(HTTP 418\)"),
        (431, {}, r"finds the request too long \(HTTP 431\)"),
        (
            451,
            {"X_Error_Message": "DMCA \x1b[31m"},
            r"for legal reasons \(HTTP 451\) \(DMCA \[31m\), asked for the model me/model",
        ),
    ],
)
def test_other_refusals_are_told_for_what_they_are_and_not_tried_again(hub, model, settings, status, headers, message):
    hub.fail("/api/", status, times=9, **headers)
    with pytest.raises(HubError, match=message) as caught:
        client.resolve("model", model, settings=settings)
    assert "spelling" not in str(caught.value)
    assert "name" not in str(caught.value).replace("name:password", "").replace("Write name and password", "")
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (408, "waited too long for the request, which came in too slowly"),
        (425, "does not want to take the request yet"),
        (500, "has an internal problem"),
        (502, "cannot be reached by its own front"),
        (503, "is overloaded or under repair"),
        (504, "did not answer its own front in time"),
        (520, "has an internal problem"),
    ],
)
def test_what_may_pass_is_told_for_what_it_is_after_some_tries(hub, model, settings, status, message):
    hub.fail("/api/", status, times=9)
    with pytest.raises(
        HubError, match=rf"The Hub {message} \(HTTP {status}\), asked for the model me/model. Try again"
    ):
        client.resolve("model", model, settings=settings)
    assert len(hub.requests) == 3


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"<html>" + bytes(4_000_000)])
def test_a_page_of_the_network_is_told_for_what_it_is(hub, repo, settings, page):
    hub.intercept("", page)
    with pytest.raises(HubError, match=r"http://127.0.0.1:\d+ did not answer in JSON.*wants you to log in first"):
        client.resolve("model", repo.id, settings=settings)
    for path in ("config.json", "sub/big.safetensors"):
        with pytest.raises(HubError, match=rf"sent {len(page)} bytes \(text/html\); the Hub states .*you to log in"):
            client.download(repo, path, settings=settings)
    with (
        client.open_range(repo, "sub/big.safetensors", settings=settings) as file,
        pytest.raises(HubError, match=r"sent another \(HTTP 200, no range, text/html\).*you to log in"),
    ):
        file.read(10)
    hub.faults.clear()
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_answers_that_are_not_the_hubs(hub, model, settings, monkeypatch):
    monkeypatch.setattr(hub, "find", lambda repo, name: Revision(repo / "main", "no commit", {}))
    with pytest.raises(HubError, match="describes the model me/model in an unknown form.*'no commit'"):
        client.resolve("model", model, settings=settings)


def test_an_endpoint_that_is_no_address(model, settings, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "hub.example")
    with pytest.raises(HubError, match="The request for the model me/model to hub.example failed.*Check HF_ENDPOINT"):
        client.resolve("model", model, settings=settings)


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://me:secret@127.0.0.1:1", "The proxy in HTTP_PROXY cannot be used: SOCKS needs the package socksio"),
        ("ftp://me:secret@127.0.0.1:1", "it is no address of a proxy. Expected http://host:port"),
        ("http://me:sec/ret@127.0.0.1:1", "it is no address of a proxy"),
        ("http://me:secret@127.0.0.1:1", r"cannot be reached \(\[Errno 111\] Connection refused\)"),
        ("http://me:secret@{hub}", r"The proxy between here and the Hub wants a login \(407\)"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_trouble_with_a_proxy_is_told_without_its_password(hub, settings, monkeypatch, proxy, message, scheme):
    from huggingface_hub import close_session

    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("HTTP_PROXY", proxy.format(hub=hub.endpoint.removeprefix("http://")))
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(hub=hub.endpoint.removeprefix("http://")))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{scheme}://hub.example")
    hub.fail("", 407, times=9)
    close_session()
    try:
        with pytest.raises(HubError, match=message.replace("HTTP_PROXY", "HTTPS_PROXY or HTTP_PROXY")) as caught:
            client.search("model", "", settings=settings)
    finally:
        close_session()
    assert "sec" not in str(caught.value).replace("seconds", "")


# --- trouble that passes


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_trouble_is_tried_again(hub, model, settings, status):
    hub.fail("/api/", status, times=2)
    repo = client.resolve("model", model, settings=settings)
    hub.fail("big", status, times=3)
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_too_many_requests_that_do_not_end(hub, model, settings):
    hub.fail("/api/", 429, times=99, Retry_After="0")
    with pytest.raises(HubError, match=r"no more requests from here for now \(429\).*An account is allowed more"):
        client.resolve("model", model, settings=settings)


@pytest.mark.parametrize("headers", [{"Retry_After": "200"}, {"RateLimit": '"api";r=0;t=200'}])
@pytest.mark.parametrize("of", ["a list", "a download"])
def test_a_page_tells_a_long_pause_rather_than_wait(hub, repo, settings, headers, of):
    of_page = replace(settings, hub_wait_s=10)
    hub.forget()
    hub.fail("", 429, times=1, **headers)
    with pytest.raises(HubError, match="Try again in 200 seconds"):
        if of == "a list":
            client.resolve("model", "me/other", settings=of_page)
        else:
            client.download(repo, "config.json", settings=of_page)
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    "headers", [{"Retry_After": "101"}, {"RateLimit": '"api";r=0;t=101', "Retry_After": "5"}, {"date": 101}]
)
def test_a_pause_as_long_as_the_hubs_window_is_waited_for(hub, model, settings, headers, monkeypatch):
    pauses, clock = [], SimpleNamespace(now=time.monotonic(), monotonic=lambda: clock.now)

    def pause(self, seconds=0.0, asked=False):
        clock.now += seconds
        pauses.append(round(seconds))

    monkeypatch.setattr(waiting, "time", clock)
    monkeypatch.setattr(Meter, "pause", pause)
    if "date" in headers:
        headers = {"Retry_After": format_datetime(datetime.now(UTC) + timedelta(seconds=headers["date"]))}
    for match in ("/api/", "/resolve/"):
        hub.fail(match, 429, times=2, **headers)
    repo = client.resolve("model", model, settings=settings)
    assert client.download(repo, "config.json", settings=settings).read_text() == "{}\n"
    long = [pause for pause in pauses if pause > 5]
    assert len(long) == 4
    assert set(long) <= {100, 101}  # a date has whole seconds
    hub.fail("/api/", 429, times=1, Retry_After="301")
    with pytest.raises(HubError, match="Try again in 301 second"):
        client.search("model", model, settings=settings)


def test_a_pause_is_told_and_kept(hub, model, settings, capfd, monkeypatch):
    monkeypatch.setattr(waiting, "_WORTH_TELLING_S", 0.005)
    told = []
    hub.fail("/api/", 429, times=1, Retry_After="1")
    started = time.monotonic()
    with client.telling(told.append, lambda: False):
        repo = client.resolve("model", model, settings=settings)
    assert told == ["The Hub accepts no more requests for now; waiting 1 second, as it asks."]
    hub.fail("config.json", 429, times=1, RateLimit='"resolvers";r=0;t=1')
    stages = set()
    client.download(repo, "config.json", settings=settings, on_progress=lambda *a: stages.add(a[2].words))
    assert time.monotonic() - started >= 2
    assert "Downloading config.json of me/model, waiting 1 second, as it asks" in stages
    hub.fail("README.md", 429, times=1, RateLimit='"resolvers";r=0;t=1')
    hub.fail("README.md", 500, times=1)  # a pause that it did not ask for
    client.download(repo, "README.md", settings=settings)
    assert capfd.readouterr().err == "The Hub accepts no more requests for now; waiting 1 second, as it asks.\n"


def test_a_pause_is_stopped(hub, repo, settings):
    hub.fail("", 429, times=9, Retry_After="200")
    started = time.monotonic()

    def soon():
        return time.monotonic() > started + 0.3

    with client.telling(lambda text: None, soon), pytest.raises(Cancelled):
        client.resolve("model", repo.id, settings=settings)
    with pytest.raises(Cancelled):
        client.download(repo, "config.json", settings=settings, should_stop=soon)
    with client.telling(lambda text: None, soon), pytest.raises(Cancelled):
        client.download(repo, "config.json", settings=settings)
    assert time.monotonic() - started < 5


def test_loose_files_keep_to_the_limit_of_the_hub(hub, settings):
    """One request for each file, and a redirected one for each: they slow down instead of being refused."""
    hub.add("dataset", "me/many", {f"{i}.txt": str(i) for i in range(25)})
    hub.page_size = 100
    repo = client.resolve("dataset", "me/many", settings=settings)
    hub.limit, hub.window_s = 15, 1.0
    hub.windows.clear()
    hub.forget()
    started = time.monotonic()
    paths = client.download_all(repo, [file.path for file in repo.files], settings=settings)
    assert [path.read_text() for path in paths] == [path.stem for path in paths]
    assert {r.status for r in hub.requests} == {200, 307}
    assert 1 < time.monotonic() - started < 10


def test_few_files_are_not_slowed_down(hub, settings):
    hub.add("dataset", "me/few", {f"{i}.txt": str(i) for i in range(5)})
    repo = client.resolve("dataset", "me/few", settings=settings)
    hub.limit = 20
    hub.windows.clear()
    started = time.monotonic()
    client.download_all(repo, [file.path for file in repo.files], settings=settings)
    assert time.monotonic() - started < 2


def test_trouble_that_does_not_end(hub, repo, settings):
    hub.fail("config.json", 500, times=99)
    with pytest.raises(
        HubError, match=r"The Hub has an internal problem \(HTTP 500\), asked for config.json of the model"
    ):
        client.download(repo, "config.json", settings=settings)


def test_no_answer_in_time(hub, model, settings, monkeypatch):
    monkeypatch.setattr("labelrank.hub.asking.TIMEOUT_S", 0.1)
    hub.slow("/api/", 1.0, times=9)
    with pytest.raises(HubError, match="did not answer within 0.1 seconds, asked for the model me/model"):
        client.resolve("model", model, settings=settings)


# --- without a network


def test_no_network_and_nothing_known(hub, model, settings):
    hub.stop()
    started = time.monotonic()
    with pytest.raises(HubError, match="cannot be reached .*asked for the model me/model. Check the network"):
        client.resolve("model", model, settings=settings)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("trouble", ["stopped", "offline mode", "500"])
def test_what_was_fetched_opens_without_the_hub(hub, repo, settings, trouble, monkeypatch):
    path = client.download(repo, "sub/big.safetensors", settings=settings)
    if trouble == "stopped":
        hub.stop()
    elif trouble == "offline mode":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        hub.fail("", 500, times=99)
    for revision in (None, "main", repo.revision):
        again = client.resolve("model", repo.id, revision, settings=settings)
        assert again.from_cache
        assert (again.revision, again.files, again.licence) == (repo.revision, repo.files, repo.licence)
        assert client.download(again, "sub/big.safetensors", settings=settings) == path
        with client.open_range(again, "sub/big.safetensors", settings=settings) as file:
            assert file.read() == BIG
            assert file.bytes_read == 0
    with pytest.raises(HubError, match="cannot be reached|Offline mode is on|internal problem"):
        client.download(again, "config.json", settings=settings)


def test_what_another_program_fetched_opens_without_the_hub(hub, model, settings):
    from huggingface_hub import snapshot_download

    snapshot_download(model, ignore_patterns=["config.json"])
    hub.stop()
    repo = client.resolve("model", model, settings=settings)
    sha256 = hashlib.sha256(BIG).hexdigest()
    assert repo.from_cache
    assert repo.licence == "cc-by-nc-4.0"
    assert [(f.path, f.sha256) for f in repo.files] == [("README.md", None), ("sub/big.safetensors", sha256)]
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_a_record_that_cannot_be_read_is_made_again(hub, repo, settings):
    records = list((settings.workspace / "hub").glob("*.json"))
    for record in records:
        record.write_text('{"kind": 1')
    assert client.resolve("model", repo.id, settings=settings) == repo
    for record in records:
        record.write_text('{"kind": 1')
    hub.stop()
    with pytest.raises(HubError, match="cannot be reached"):
        client.resolve("model", repo.id, settings=settings)


def test_offline_mode_is_that_of_the_library(hub, model, run_python, monkeypatch, tmp_path):
    program = (
        "from labelrank import hub; from labelrank.settings import Settings; from pathlib import Path\n"
        f"s = Settings(workspace=Path({str(tmp_path / 'w')!r}))\n"
        "try:\n    r = hub.resolve('model', 'me/model', settings=s); hub.download(r, 'config.json', settings=s); "
        "print(r.from_cache)\nexcept Exception as e: print(e)"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "Offline mode is on (HF_HUB_OFFLINE), so the model me/model cannot be fetched" in run_python(program)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert run_python(program) == "False"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.forget()
    assert run_python(program) == "True"
    assert hub.requests == []


def test_without_a_network_what_opens_is_named(hub, repo, settings):
    hub.add("model", "mnist", {"config.json": "[]"})
    for one in (repo, client.resolve("model", "mnist", settings=settings)):
        client.download(one, "config.json", settings=settings)
    hub.stop()
    with pytest.raises(HubError, match=r"only what was fetched before opens. Those are: me/model, mnist\.$"):
        client.resolve("model", "me/other", settings=settings)
    with pytest.raises(HubError, match=r"only what was fetched before opens. That is no dataset\.$"):
        client.resolve("dataset", "me/other", settings=settings)
    with pytest.raises(HubError, match=r"only what was fetched before opens\.$"):
        client.resolve("model", "me/other", settings=replace(settings, shared=True))


# --- whole files


def test_a_download_is_where_other_programs_look_for_it(hub, repo, settings):
    from huggingface_hub import hf_hub_download, scan_cache_dir

    path = client.download(repo, "sub/big.safetensors", settings=settings)
    hub.stop()
    assert hf_hub_download(repo.id, "sub/big.safetensors", local_files_only=True) == str(path)
    report = scan_cache_dir()
    assert report.warnings == []
    assert [r.repo_id for r in report.repos] == [repo.id]


def test_what_was_fetched_is_held_and_fetched_anew_once_it_was_evicted(hub, repo, settings, monkeypatch):
    monkeypatch.setattr("labelrank.hub.storage._held", {})
    few = replace(settings, shared=True, max_hub_bytes=1)
    path = client.download(repo, "config.json", settings=settings)
    assert evict(few) == () and path.is_file(), "this process reads it"
    held = dict(storage_module._held)
    storage_module._held.clear()
    for descriptor in held.values():
        os.close(descriptor)
    assert evict(few) == tuple(held) and not path.exists()
    assert client.cached_path(repo, "config.json") is None
    assert client.download(repo, "config.json", settings=settings).read_text() == "{}\n"
    assert evict(few) == ()


def test_a_download_happens_once(hub, repo, settings):
    for _ in range(2):
        client.download_all(repo, ["config.json", "sub/big.safetensors", "config.json"], settings=settings)
    assert hub.bytes_sent("storage") == len(BIG)
    assert [r.path for r in hub.requests if "/resolve/" in r.path and "config.json" in r.path] == [
        f"/me/model/resolve/{repo.revision}/config.json"
    ]


def test_a_file_of_another_commit_is_not_fetched_again(hub, repo, settings):
    client.download(repo, "sub/big.safetensors", settings=settings)
    hub.add("model", repo.id, {"config.json": "[]"})
    moved = client.resolve("model", repo.id, settings=settings)
    assert moved.revision != repo.revision
    path = client.download(moved, "sub/big.safetensors", settings=settings)
    assert moved.revision in str(path)
    assert hub.bytes_sent("storage") == len(BIG)


def test_progress_counts_bytes_on_the_callers_thread(hub, repo, settings):
    calls = []

    def on_progress(done, total, stage):
        calls.append((done, total, stage, threading.current_thread()))

    client.download(repo, "sub/big.safetensors", settings=settings, on_progress=on_progress)
    done, totals, stages, threads = zip(*calls, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == len(BIG)
    assert set(totals) == {len(BIG)}
    assert set(stages) == {Stage(Kind.DOWNLOAD, "Downloading big.safetensors of me/model", "bytes")}
    assert set(threads) == {threading.main_thread()}


def test_a_cut_connection_goes_on_where_it_was(hub, repo, settings):
    hub.cut("storage", after=1_000_000, times=2)
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG
    ranges = [r.range for r in hub.requests if "storage" in r.path]
    assert ranges[0] is None
    assert all(r.startswith("bytes=") for r in ranges[1:])
    # What the system had buffered when the connection ended may be lost; most is not.
    assert hub.bytes_sent("storage") < 1.7 * len(BIG)


def test_a_connection_that_is_cut_again_and_again(hub, repo, settings):
    hub.cut("storage", after=0, times=99)
    with pytest.raises(HubError, match="The connection was cut again and again while reading sub/big.safetensors"):
        client.download(repo, "sub/big.safetensors", settings=settings)


def test_a_download_goes_on_in_another_process(hub, repo, settings):
    hub.cut("storage", after=2_000_000)
    hub.fail("storage", 500, times=4)
    with pytest.raises(HubError, match=r"The Hub's storage has a problem \(127.0.0.1 answered HTTP 500\)"):
        client.download(repo, "sub/big.safetensors", settings=settings)
    hub.faults.clear()
    hub.forget()
    program = (
        "from labelrank import hub; from labelrank.settings import Settings; from pathlib import Path\n"
        f"s = Settings(workspace=Path({str(settings.workspace)!r}))\n"
        "print(hub.download(hub.resolve('model', 'me/model', settings=s), 'sub/big.safetensors', settings=s))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == BIG
    assert 0 < hub.bytes_sent("storage") < 2_000_000


def test_a_stopped_download_goes_on_later(hub, repo, settings):
    hub.slow("storage", 0.3)
    with pytest.raises(Cancelled):
        client.download(repo, "sub/big.safetensors", settings=settings, should_stop=lambda: True)
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_two_programs_at_once_fetch_a_file_once(hub, repo, settings):
    hub.slow("storage", 0.5)
    paths = []

    def fetch():
        paths.append(client.download(repo, "sub/big.safetensors", settings=settings))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert paths[0].read_bytes() == BIG
    assert hub.bytes_sent("storage") == len(BIG)


@pytest.mark.parametrize("path", ["config.json", "sub/big.safetensors"])
def test_a_damaged_file_is_refused_and_nothing_is_kept(hub, repo, settings, path):
    hub.damage("storage" if "big" in path else "resolve-cache")
    with pytest.raises(HubError, match=f"{path} of the model me/model arrived damaged"):
        client.download(repo, path, settings=settings)
    assert client.cached_path(repo, path) is None
    assert client.download(repo, path, settings=settings).stat().st_size == repo.file(path).size_bytes


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("path", ["config.json", "sub/big.safetensors"])
def test_a_file_that_is_longer_than_was_stated_is_not_taken(hub, repo, settings, path, says_length):
    hub.lengthen("storage" if "big" in path else "resolve-cache", 50_000_000, says_length=says_length)
    stated = repo.file(path).size_bytes
    with pytest.raises(HubError, match=f"the Hub states {stated:,}|longer than the {stated:,} bytes the Hub states"):
        client.download(repo, path, settings=settings)
    assert client.cached_path(repo, path) is None
    kept = [file for file in storage("model", repo.id).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in kept) <= stated
    assert client.download(repo, path, settings=settings).stat().st_size == stated


def test_what_an_earlier_try_left_damaged_is_found(hub, repo, settings):
    blob = storage("model", repo.id) / "blobs" / repo.file("sub/big.safetensors").blob_id
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}.labelrank.incomplete").write_bytes(b"\0" * 100)
    with pytest.raises(HubError, match="arrived damaged"):
        client.download(repo, "sub/big.safetensors", settings=settings)
    blob.with_name(f"{blob.name}.labelrank.incomplete").write_bytes(BIG + b"more")
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_a_cached_file_of_another_length_is_fetched_again(hub, repo, settings):
    path = client.download(repo, "sub/big.safetensors", settings=settings)
    path.resolve().write_bytes(b"cut")
    assert client.cached_path(repo, "sub/big.safetensors") is None
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


@pytest.mark.parametrize("path", ["config.json", "sub/big.safetensors"])
def test_what_went_bad_in_the_cache_is_removed(hub, repo, settings, path):
    kept = client.download(repo, "README.md", settings=settings)
    place = client.download(repo, path, settings=settings)
    content = place.read_bytes()
    assert client.remove_damaged(repo, ["README.md", path]) == []
    place.resolve().write_bytes(bytes(len(content)))
    assert client.cached_path(repo, path) == place  # by its length
    assert client.remove_damaged(repo, ["README.md", path]) == [path]
    assert client.cached_path(repo, path) is None
    assert client.remove_damaged(repo, ["README.md", path]) == []
    assert kept.read_text() == README
    assert client.download(repo, path, settings=settings).read_bytes() == content
    with pytest.raises(Cancelled):
        client.remove_damaged(repo, [path], should_stop=lambda: True)


def test_an_empty_file(hub, settings):
    hub.add("dataset", "me/data", {"empty.txt": b"", "none.png": b""})
    repo = client.resolve("dataset", "me/data", settings=settings)
    for path in client.download_all(repo, ["empty.txt", "none.png"], settings=settings):
        assert path.read_bytes() == b""
    with client.open_range(repo, "none.png", settings=settings) as file:
        assert file.read() == b""


def test_a_limit_is_kept_before_anything_is_sent(hub, repo, tmp_path):
    small = Settings(workspace=tmp_path / "w", max_download_bytes=1_000_000)
    hub.forget()
    with pytest.raises(HubError, match="has 3,072,000 bytes to download, more than the 1,000,000.*MAX_DOWNLOAD_BYTES"):
        client.download(repo, "sub/big.safetensors", settings=small)
    with (
        client.open_range(repo, "sub/big.safetensors", settings=small) as file,
        pytest.raises(HubError, match="3,072,000 bytes to download"),
    ):
        file.fetch([(0, len(BIG))])
    assert hub.requests == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(hub, repo, settings, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    hub.forget()
    with pytest.raises(HubError, match="The disk has room for 1,000 bytes, sub/big.safetensors .* has 3,072,000"):
        client.download(repo, "sub/big.safetensors", settings=settings)
    assert hub.requests == []


def test_a_disk_that_fills_up(repo, settings):
    with (
        pytest.raises(HubError, match="The disk is full: it does not fit"),
        disk_explained("it", settings.workspace),
    ):
        raise OSError(28, "No space left on device")


def test_a_cache_that_is_a_file(hub, repo, settings, tmp_path):
    (tmp_path / "hf").write_text("")
    with pytest.raises(
        HubError, match="config.json of the model me/model cannot be kept in .* Make the folder writable"
    ):
        client.download(repo, "config.json", settings=settings)


# --- parts of files


@pytest.fixture
def part(hub, repo, settings):
    hub.forget()
    with client.open_range(repo, "sub/big.safetensors", settings=settings) as file:
        yield file


def test_parts_are_those_of_the_file(part):
    assert part.size == len(BIG)
    assert part.seek(-10, io.SEEK_END) == len(BIG) - 10
    assert part.read() == BIG[-10:]
    assert part.read(5) == b""
    part.seek(1_000_001)
    assert part.read(100_000) == BIG[1_000_001:1_100_001]
    assert part.tell() == 1_100_001
    part.seek(7, io.SEEK_CUR)
    buffer = bytearray(10)
    assert part.readinto(buffer) == 10
    assert bytes(buffer) == BIG[1_100_008:1_100_018]
    assert part.read_at(len(BIG) - 3, 100) == BIG[-3:]
    with pytest.raises(ValueError, match="seek to -1"):
        part.seek(-1)
    assert part.bytes_read < 1_000_000


def test_what_was_read_is_not_fetched_again(hub, part):
    part.fetch([(0, 100), (50, 300), (2_000_000, 2_500_000)])
    assert part.bytes_read == 300 + 500_000
    requests = len(hub.requests)
    part.fetch([(10, 200), (2_100_000, 2_200_000)])
    assert part.read_at(2_499_000, 1_000) == BIG[2_499_000:2_500_000]
    assert len(hub.requests) == requests
    assert part.bytes_read == hub.bytes_sent("storage")


def test_ranges_close_to_each_other_are_one_request(hub, part):
    part.fetch([(i * 1_000, i * 1_000 + 10) for i in range(100)])
    assert len([r for r in hub.requests if "storage" in r.path]) == 1
    assert part.read_at(99_000, 10) == BIG[99_000:99_010]


def test_many_ranges_in_any_order_and_beyond_the_end(part):
    wanted = [(2_900_000, 9_000_000), (500_000, 500_010), (-5, 10), (7, 7), (1_500_000, 1_400_000)]
    calls = []
    part.fetch(wanted, on_progress=lambda *a: calls.append(a))
    assert calls[-1][0] == calls[-1][1] == part.bytes_read == 172_000 + 10 + 10
    before = part.bytes_read
    for start, end in wanted:
        start, end = max(start, 0), min(end, len(BIG))
        assert part.read_at(start, end - start) == BIG[start : max(start, end)]
    assert part.bytes_read == before


def test_the_hub_is_asked_once_where_the_parts_are(hub, part, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    for start in (0, 1_000_000, 2_000_000):
        part.fetch([(start, start + 10)])
    assert len([r for r in hub.requests if "/resolve/" in r.path]) == 1
    assert not any(r.authorization for r in hub.requests if "storage" in r.path)
    hub.end_signatures()
    assert part.read_at(2_500_000, 10) == BIG[2_500_000:2_500_010]
    assert len([r for r in hub.requests if "/resolve/" in r.path]) == 2


def test_a_signature_that_ends_while_parts_are_read_is_renewed(hub, part):
    hub.cut("storage", after=300_000, times=2, ends_signatures=True)
    part.fetch([(100_000, 1_100_000)])
    assert part.read_at(100_000, 1_000_000) == BIG[100_000:1_100_000]
    assert part.bytes_read == 1_000_000
    assert 403 in {r.status for r in hub.requests if "storage" in r.path}


def test_an_address_that_has_expired_is_no_missing_right(hub, repo, settings):
    hub.signatures_last_s = -60  # as for one whose proxy keeps old answers
    expired = r"The address of sub/big.safetensors .* is not valid, or not any more \(127.0.0.1 answered HTTP 403\)"
    with pytest.raises(HubError, match=expired):
        client.download(repo, "sub/big.safetensors", settings=settings)
    with (
        client.open_range(repo, "sub/big.safetensors", settings=settings) as file,
        pytest.raises(HubError, match=expired),
    ):
        file.read(10)
    hub.signatures_last_s = 60
    assert client.download(repo, "sub/big.safetensors", settings=settings).read_bytes() == BIG


def test_reading_from_several_threads(part):
    wrong = []

    def read(start):
        for i in range(20):
            at = (start * 131_071 + i * 99_991) % (len(BIG) - 1000)
            if part.read_at(at, 1000) != BIG[at : at + 1000]:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_part_that_is_cut_goes_on(hub, part):
    hub.cut("storage", after=300_000)
    part.fetch([(100_000, 1_100_000)])
    assert part.read_at(100_000, 1_000_000) == BIG[100_000:1_100_000]
    assert part.bytes_read == 1_000_000


def test_a_fetch_is_stopped(hub, part):
    hub.slow("storage", 0.3)
    with pytest.raises(Cancelled):
        part.fetch([(0, 1_000_000)], should_stop=lambda: True)


def test_a_server_that_ignores_ranges_is_told(hub, repo, part, monkeypatch):
    def whole(self, path, headers):
        self.reply(200, headers, path.read_bytes())

    monkeypatch.setattr(_Handler, "send_file", whole)
    with pytest.raises(
        HubError, match=r"Asked for a part of sub/big.safetensors .* sent another \(HTTP 200, no range, no type\)"
    ):
        part.read(10)


def test_the_temporary_file_goes_away(part, settings):
    part.read(10)
    assert {p.suffix for p in (settings.workspace / "hub").iterdir()} == {".json"}
    part.close()
    assert part.closed
    part.close()


def test_a_zip_and_a_parquet_file_are_read_in_parts(hub, settings):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for i in range(40):
            archive.writestr(f"{i}.bin", bytes([i]) * 100_000)
    table = pa.table({"label": list(range(50_000)), "image": [bytes([i % 256]) * 100 for i in range(50_000)]})
    written = io.BytesIO()
    pq.write_table(table, written, row_group_size=5_000, compression="none", use_dictionary=False)
    hub.add("dataset", "me/data", {"a.zip": packed.getvalue(), "b.parquet": written.getvalue()})
    repo = client.resolve("dataset", "me/data", settings=settings)
    with client.open_range(repo, "a.zip", settings=settings) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("17.bin") == bytes([17]) * 100_000
        assert file.bytes_read < 0.3 * file.size
    with client.open_range(repo, "b.parquet", settings=settings) as file:
        labels = pq.ParquetFile(file).read(columns=["label"])
        assert labels["label"].to_pylist() == list(range(50_000))
        assert file.bytes_read < file.size


# --- search


def test_search_sorts_by_downloads_and_filters_by_task(hub, settings):
    weights = {"parameters": {"F32": 100, "F16": 10}, "total": 110}
    task = "image-feature-extraction"
    hub.add("model", "me/vit-mae-a", {"README.md": README}, downloads=5, safetensors=weights, pipeline_tag=task)
    hub.add("model", "me/vit-mae-b", {"x": ""}, downloads=50, gated="auto", pipeline_tag="video-classification")
    hub.add("model", "me/bert", {"x": ""}, downloads=500)
    found = client.search("model", "vit-mae", settings=settings)
    assert [f.id for f in found] == ["me/vit-mae-b", "me/vit-mae-a"]
    assert (found[0].gated, found[0].task, found[0].licence) == (True, "video-classification", None)
    a = found[1]
    assert (a.downloads, a.licence, a.gated) == (5, "cc-by-nc-4.0", False)
    assert (a.parameters, a.size_bytes) == (110, 420)
    only = client.search("model", "", task="image-feature-extraction", settings=settings)
    assert [f.id for f in only] == ["me/vit-mae-a"]
    assert [f.id for f in client.search("model", " ", limit=1, settings=settings)] == ["me/bert"]
    hub.page_size = 1  # shorter than asked for
    assert len(client.search("model", "", limit=2, settings=settings)) == 2
    assert len(client.search("model", "", settings=settings)) == 3


def test_search_for_datasets_shows_rows_and_size(hub, settings):
    tags = ["size_categories:10K<n<100K", "task_categories:image-classification"]
    hub.add("dataset", "uoft-cs/cifar100", {"README.md": README}, tags=tags, mainSize=142_000_000)
    hub.add("dataset", "me/cifar-text", {"x": ""}, tags=["task_categories:text-classification"])
    (found,) = client.search("dataset", "cifar", task="image-classification", settings=settings)
    assert (found.rows, found.size_bytes, found.task) == ("10K<n<100K", 142_000_000, "image-classification")


def test_search_without_a_network(hub, settings):
    hub.stop()
    with pytest.raises(HubError, match="cannot be reached .*asked for models called 'vit'"):
        client.search("model", "vit", settings=settings)


# --- what it costs to import


def test_only_the_client_knows_the_library():
    root = Path(client.__file__).parents[1]
    sources = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    users = {
        path.relative_to(root).parts[0]
        for path, text in sources.items()
        if re.search(r"import (hugg|httpx)|from (hugg|httpx)", text)
    }
    assert users == {"hub"}


def test_the_client_is_light_until_it_asks(run_python):
    assert (
        run_python(
            "import sys; from labelrank import hub; hub.check_repo_id('a/b', 'model'); "
            "print([m for m in ('huggingface_hub', 'httpx2', 'numpy') if m in sys.modules])"
        )
        == "[]"
    )
