"""A visitor of a shared server signs in and works on private data: the token and the data are for nobody else."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.test_walk import JOB_TIMEOUT_MS, heading, press, settled
from tests.conftest import GOLDEN
from tests.helpers.hub_server import running
from tests.helpers.hub_writing import Token
from tests.helpers.processes import wait_for
from tests.helpers.tables import content, pets

pytestmark = pytest.mark.browser

TOKEN, SERVERS, OTHER = "hf_PlantedByTheVisitor1", "hf_OfTheServer2", "hf_OfAnotherVisitor3"
SECRET = "okapi"
ASKED = "dataset=me/pets&checkpoint=me/mae&per_class=4"


@pytest.fixture
def hub(tmp_path):
    with running(tmp_path / "hub") as hub:
        hub.tokens = {TOKEN: Token("me"), SERVERS: Token("server"), OTHER: Token("other")}
        table = content(tmp_path / "train.parquet", content=pets(30, names=["cat", "dog", SECRET]))
        hub.add("dataset", "me/pets", {"README.md": "# Pets\n", "train.parquet": table}, private=True)
        hub.add_folder("model", "me/mae", GOLDEN / "vit_mae", gated="manual", granted=["me"])
        yield hub


@pytest.fixture
def server(new_server, hub, tmp_path):
    network = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "no_proxy": "*"}
    return new_server(tmp_path / "workspace", HF_TOKEN=SERVERS, LABELRANK_SHARED="1", **network)


@pytest.fixture
def tmp_path(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path


def sign_in(page, token):
    settled(page)
    page.get_by_test_id("stSidebar").get_by_role("button", name="Sign in").click()
    field = page.get_by_label("Access token of the Hub", exact=True)
    field.fill(token)
    field.press("Enter")
    expect(page.get_by_text("Signed in as")).to_be_visible()
    settled(page)


def family(pid):
    """Return the process ids of a process and all that it has started, those of these too."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def told(pid, what):
    try:
        return (Path("/proc") / str(pid) / what).read_bytes()
    except OSError:
        return b""


def holding(folder, *words):
    """Return the files that hold one of these words."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(word.encode() in path.read_bytes() for word in words)]


def test_a_token_and_what_it_opens_are_for_the_visitor_who_gave_it_alone(server, hub, open_page, tmp_path):
    page, received = open_page("about:blank"), []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(frame)))
    page.goto(server.url)
    heading(page, "Dataset")
    sign_in(page, TOKEN)
    # A reload would forget who is signed in, so the page is reached as people reach it.
    page.get_by_role("tab", name="Hugging Face").click()
    page.get_by_label("Or the id of a dataset", exact=True).fill("me/pets")
    press(page, "Look at it")
    expect(page.get_by_text("30 images in 3 classes, split train.")).to_be_visible()
    press(page, "Use pets")
    heading(page, "Features")
    settled(page)
    page.get_by_role("tab", name="Any id of the Hub").click()
    page.get_by_label("Or the id of a model", exact=True).fill("me/mae")
    press(page, "Look at it")
    expect(page.get_by_test_id("stMain").get_by_text("me/mae").first).to_be_visible()
    settled(page)
    gate = hub.hold("model.safetensors")
    press(page, "Extract features")
    job = wait_for(lambda: next((job for job in server.store.list("hub:me") if job.pid), None), 60)
    wait_for(lambda: any("model.safetensors" in request.path for request in hub.requests) or hub.faults[-1].times < 99)
    processes = family(server.process.pid)
    assert job.pid in processes and len(processes) > 1
    for pid in processes:
        assert TOKEN.encode() not in told(pid, "environ") + told(pid, "cmdline"), pid
        assert pid == server.process.pid or SERVERS.encode() not in told(pid, "environ") + told(pid, "cmdline"), pid
    assert holding(server.workspace, TOKEN, SERVERS) == []
    gate.set()
    expect(page.get_by_role("button", name="Rank labels", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)
    done = server.store.get(job.id)
    assert done.state == "succeeded"
    assert "/owners/" in done.result["features"], "with the owner"
    press(page, "Rank labels")
    heading(page, "Ranking")
    expect(page.get_by_text(SECRET).first).to_be_attached()
    assert TOKEN not in page.content() + page.url
    frames = b"".join(frame if isinstance(frame, bytes) else frame.encode() for frame in received)
    assert len(frames) > 10_000
    assert TOKEN.encode() not in frames
    assert holding(tmp_path, TOKEN, SERVERS) == []
    assert {request.authorization for request in hub.requests} <= {None, f"Bearer {TOKEN}"}, "never that of the server"

    for token, said in ((None, "or it is private: then sign in"), (OTHER, "your account may not see it")):
        other = open_page(f"{server.url}/?{ASKED}")
        if token:
            sign_in(other, token)
        expect(other.get_by_text(re.compile(said)).first).to_be_visible()
        other.get_by_test_id("stSidebarNav").get_by_role("link", name="Ranking").click()
        heading(other, "Ranking")
        settled(other)
        assert SECRET not in other.content()
        other.get_by_test_id("stSidebarNav").get_by_role("link", name="Jobs").click()
        expect(other.get_by_text("No job has been started yet.")).to_be_visible()
    press(page, "Sign out")
    settled(page)
    expect(page.get_by_text(SECRET)).to_have_count(0)


def test_a_server_that_was_started_again_asks_for_the_token_of_its_job(new_server, server, hub, open_page, tmp_path):
    params = {"dataset": "me/pets", "checkpoint": "mae-tiny-digits", "max_per_class": 2, "with_token": True}
    job = server.store.create("extract", params, "hub:me", "pets")
    page = open_page(f"{server.url}/jobs?job={job.id}")
    wait_for(lambda: server.store.get(job.id).state == "interrupted", 30)
    expect(page.get_by_text("Sign in again, then resume the job")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    sign_in(page, TOKEN)
    press(page, "Resume")
    wait_for(lambda: server.store.get(job.id).state == "succeeded", JOB_TIMEOUT_MS / 1000)
    assert "/owners/" in server.store.get(job.id).result["features"]


def test_who_has_agreed_on_the_hub_is_signed_in_without_a_click_here(new_server, hub, open_page, tmp_path):
    hub.signing_in.secrets["space"] = "s3cret"
    app = {"OAUTH_CLIENT_ID": "space", "OAUTH_CLIENT_SECRET": "s3cret", "OPENID_PROVIDER_URL": hub.endpoint}
    network = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "no_proxy": "*"}
    server = new_server(tmp_path / "workspace", LABELRANK_SHARED="1", **app, **network)
    page = open_page(f"{server.url}/jobs")
    settled(page)
    page.get_by_test_id("stSidebar").get_by_role("button", name="Sign in").click()
    press(page, "Sign in with Hugging Face")
    link = page.get_by_role("link", name="Open the page of the Hub")
    expect(link).to_be_visible()
    (code,) = hub.signing_in.codes
    assert link.get_attribute("href") == f"{hub.endpoint}/oauth/device?user_code={code}"
    hub.signing_in.agree(code, TOKEN)
    expect(page.get_by_text("Signed in as me")).to_be_visible()
    assert "slow_down" not in hub.signing_in.log
    assert holding(tmp_path, TOKEN, "s3cret") == []
    for pid in family(server.process.pid) - {server.process.pid}:
        assert b"s3cret" not in told(pid, "environ"), pid
