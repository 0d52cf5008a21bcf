"""`labelrank push`: what is written to a repository of the Hub, what is refused, and that it is shown first."""

import json
import re

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.label_map import read_label_map
from tests.helpers.hub_writing import Token
from tests.helpers.label_maps import make_map

pytest_plugins = ["tests.helpers.hub_server"]

NAMES, ORDER = ["ant", "bee", "cat"], [2, 0, 1]
ID2LABEL = {"0": "cat", "1": "ant", "2": "bee"}
LABEL2ID = {"cat": 0, "ant": 1, "bee": 2}
CHART = ".labelrank/label_map.png"
CARD = "---\nlicense: mit\n---\n\n# Mine\n\nText of my own.\n"


@pytest.fixture
def label_map(tmp_path):
    path = tmp_path / "label_map.json"
    make_map(NAMES, ORDER).save(path)
    return path


@pytest.fixture
def push(hub, label_map, tmp_path, monkeypatch):
    """Run `labelrank push label_map.json ...` with an access token that may write."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    # To draw it takes a second; a test of the card does.
    monkeypatch.setattr("labelrank.views.card.png", lambda chart, title: b"\x89PNG of a chart")

    def run(*arguments, answer=None, path=label_map):
        if answer is not None:
            monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
        done = CliRunner().invoke(main, ["push", str(path), *arguments], input=answer)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert hub.token not in done.output
        return done

    return run


def refused(done, *words):
    """Check that a command failed in one line that has these words."""
    last = done.stderr.strip().splitlines()[-1]
    assert done.exit_code == 1
    assert last.startswith("Error: ")
    for word in words:
        assert word in last
    return last


def there(hub, repo_id, kind="model", revision="main"):
    folder = hub.root / f"{kind}s" / repo_id / revision
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def section_of(card):
    begin, rest = card.split("<!-- labelrank: begin -->")
    section, end = rest.split("<!-- labelrank: end -->")
    return begin, section, end


def test_a_new_model_repository_is_private_and_has_all_in_one_commit(push, hub, label_map):
    done = push("me/order", "--create", "--yes")
    assert done.exit_code == 0
    assert f"Wrote it: {hub.endpoint}/me/order/commit/" in done.stderr
    files = there(hub, "me/order")
    assert set(files) == {".gitattributes", "label_map.json", "config.json", "README.md", CHART}
    assert files["label_map.json"] == label_map.read_bytes()
    assert json.loads(files["config.json"]) == {"id2label": ID2LABEL, "label2id": LABEL2ID}
    assert files[CHART].startswith(b"\x89PNG")
    assert hub.facts(hub.root / "models/me/order")["private"] is True
    assert [c["summary"] for c in hub.commits] == ["Add label map"]


def test_a_second_time_nothing_is_written(push, hub):
    push("me/order", "--create", "--yes")
    done = push("me/order", "--create", "--yes")
    assert done.exit_code == 0
    assert "nothing was written" in done.stderr
    assert done.stdout == ""
    assert len(hub.commits) == 1


def test_a_public_repository_is_made_where_asked(push, hub):
    assert push("me/order", "--create", "--public", "--yes").exit_code == 0
    assert hub.facts(hub.root / "models/me/order")["private"] is False


def test_the_difference_is_shown_and_nothing_written_where_nobody_can_be_asked(push, hub):
    hub.add("model", "me/order", {"README.md": CARD, "config.json": '{\n  "model_type": "vit"\n}\n'})
    done = push("me/order")
    refused(done, "Nothing was written", "--yes")
    assert '+  "id2label": {' in done.stdout.splitlines()
    assert " Text of my own." in done.stdout.splitlines()
    assert "+<!-- labelrank: begin -->" in done.stdout.splitlines()
    assert '-  "model_type": "vit"' in done.stdout.splitlines()  # which gets a comma
    assert re.search(rf"^{re.escape(CHART)}: \d+ bytes \(new\)$", done.stderr, re.MULTILINE)
    assert hub.commits == []


@pytest.mark.parametrize("answer", ["y\n", "n\n"])
def test_a_terminal_is_asked(push, hub, answer):
    hub.add("model", "me/order", {"README.md": CARD})
    done = push("me/order", answer=answer)
    assert "Write this to the model me/order?" in done.stderr
    assert len(hub.commits) == (answer == "y\n")
    assert done.exit_code == (answer != "y\n")


def test_other_entries_of_the_config_and_the_card_stay(push, hub):
    config = {"model_type": "vit", "hidden_size": 16, "id2label": {"0": "ant", "1": "bee", "2": "cat"}, "z": [1e-12]}
    hub.add("model", "me/order", {"README.md": CARD, "config.json": json.dumps(config, indent=4)})
    assert push("me/order", "--yes").exit_code == 0
    files = there(hub, "me/order")
    merged = json.loads(files["config.json"])
    assert merged == {**config, "id2label": ID2LABEL, "label2id": LABEL2ID}
    assert list(merged)[:4] == list(config)
    assert '\n    "model_type"' in files["config.json"].decode()  # as it was indented
    begin, section, end = section_of(files["README.md"].decode())
    assert begin == f"{CARD}\n"
    assert "cat" in section
    assert end == "\n"


def test_a_section_is_replaced_between_its_markers(push, hub):
    old = "# Mine\r\n\r\n<!-- labelrank: begin -->\r\nold\r\n<!-- labelrank: end -->\r\n\r\nBelow.  "
    hub.add("model", "me/order", {"README.md": old.encode()})
    assert push("me/order", "--yes").exit_code == 0
    begin, section, end = section_of(there(hub, "me/order")["README.md"].decode())
    assert (begin, end) == ("# Mine\r\n\r\n", "\r\n\r\nBelow.  ")
    assert "old" not in section.split()
    assert "\n" not in section.replace("\r\n", "")


@pytest.mark.parametrize(
    "card",
    ["<!-- labelrank: begin -->", "<!-- labelrank: end --><!-- labelrank: begin -->", "<!-- labelrank: end -->\n" * 2],
)
def test_broken_markers_are_refused(push, hub, card):
    hub.add("model", "me/order", {"README.md": card})
    refused(push("me/order", "--yes"), "README.md of the model me/order", "Repair or remove them.")
    assert hub.commits == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"id2label": {"0": "ant", "1": "bee"}}, "is for 2 classes, the label map has 3"),
        ({"num_labels": 4}, "is for 4 classes"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "is for 2 classes"),
        ({"label2id": {"ant": 0, "bee": 1, "dog": 2}}, "names other classes than the label map; only one of them has"),
        ({"id2label": {"1": "ant", "2": "bee", "3": "cat"}}, "does not number its classes from 0"),
        ([1], "is not a JSON object"),
    ],
)
def test_a_config_for_other_classes_is_refused(push, hub, config, said):
    hub.add("model", "me/order", {"config.json": json.dumps(config)})
    refused(push("me/order", "--yes"), said)
    assert hub.commits == []


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}'])
def test_a_config_that_would_be_changed_beyond_the_names_is_refused(push, hub, text):
    hub.add("model", "me/order", {"config.json": text})
    refused(push("me/order", "--yes"), "is not JSON")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "tf_model.h5"])
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"id2label": {"0": "ant", "1": "bee", "2": "cat"}}, "is another than that of the label map"),
        ({"model_type": "vit_mae"}, "is not known"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, "is not known"),
    ],
)
def test_weights_of_another_order_are_never_renamed(push, hub, weights, config, said):
    hub.add("model", "me/order", {"config.json": json.dumps(config), weights: b"w"})
    for more in ([], ["--pr"]):
        refused(push("me/order", "--yes", *more), weights, said, "every prediction would be wrong", "--model")
    assert hub.commits == []


def test_weights_of_this_order_and_states_of_a_training_are_no_obstacle(push, hub):
    hub.add("model", "me/order", {"config.json": json.dumps({"id2label": ID2LABEL}), "model.safetensors": b"w"})
    assert push("me/order", "--yes").exit_code == 0
    hub.add("model", "me/other", {"training_args.bin": b"w", "optimizer.pt": b"w"})
    assert push("me/other", "--yes").exit_code == 0


def class_label(*names):
    feature = {"name": "label", "dtype": {"class_label": {"names": {str(n): name for n, name in enumerate(names)}}}}
    return f"---\n{yaml.safe_dump({'dataset_info': {'features': [feature]}})}---\n\n# Data\n"


def test_the_names_of_a_dataset_are_never_changed(push, hub):
    card = class_label(*NAMES)
    hub.add("dataset", "me/data", {"README.md": card, "data/train.parquet": b"p"})
    assert push("me/data", "--type", "dataset", "--yes").exit_code == 0
    files = there(hub, "me/data", "dataset")
    assert set(files) == {"README.md", "data/train.parquet", "label_map.json", CHART}
    begin, section, _ = section_of(files["README.md"].decode())
    assert begin == f"{card}\n"
    assert "keep their integers" in section


def test_a_dataset_with_other_classes_is_refused(push, hub):
    hub.add("dataset", "me/data", {"README.md": class_label("bee", "ant", "cat")})
    refused(push("me/data", "--type", "dataset", "--yes"), "'label' with 3", "under the same integers")
    assert hub.commits == []


def test_a_change_by_someone_else_meanwhile_is_not_overwritten(push, hub, monkeypatch):
    hub.add("model", "me/order", {"README.md": CARD})
    monkeypatch.setattr(
        "labelrank.cli.push._confirmed", lambda *_, **__: hub.add("model", "me/order", {"README.md": "theirs"})
    )
    refused(push("me/order"), "was changed by someone else meanwhile, so nothing was written", "Run it again")
    assert there(hub, "me/order") == {"README.md": b"theirs"}


def test_a_pull_request_leaves_the_main_branch(push, hub):
    hub.add("model", "theirs/order", {"README.md": CARD})
    done = push("theirs/order", "--pr", "--yes")
    assert done.exit_code == 0
    assert f"Opened a pull request: {hub.endpoint}/theirs/order/discussions/1" in done.stderr
    assert there(hub, "theirs/order") == {"README.md": CARD.encode()}
    assert "config.json" in there(hub, "theirs/order", revision="refs%2Fpr%2F1")


def test_a_pull_request_is_offered_where_one_may_not_write(push, hub):
    hub.add("model", "theirs/order", {"README.md": CARD})
    refused(push("theirs/order", "--yes"), "me may not write to theirs/order", "--pr")
    assert hub.commits == []
    assert push("theirs/order", "--yes", answer="y\n").exit_code == 0
    assert hub.commits[0]["revision"] == "refs/pr/1"


def test_an_organization_is_written_to_by_role(push, hub):
    assert push("team/order", "--create", "--yes").exit_code == 0
    refused(push("readers/order", "--create", "--yes"), "me may not make repositories of readers")


CASES = {
    "no such repository": (lambda hub, env: None, "me/none", "The Hub has no model me/none", "--create"),
    "no owner": (lambda hub, env: None, "order", "names no owner", "OWNER/NAME"),
    "no token": (lambda hub, env: env.delenv("HF_TOKEN"), "me/order", "needs an access token", "hf auth login"),
    "bad token": (
        lambda hub, env: env.setenv("HF_TOKEN", "hf_bad"),
        "me/order",
        "refuses the access token",
        "/settings",
    ),
    "garbled token": (lambda hub, env: env.setenv("HF_TOKEN", "hf_é"), "me/order", "holds characters", "/settings/tok"),
    "read token": (
        lambda hub, env: hub.tokens.update({hub.token: Token("me", "read")}),
        *("me/order", "The access token of me may only read", "/settings/tokens"),
    ),
    "missing scope": (
        lambda hub, env: hub.tokens.update({hub.token: Token("me", "fineGrained", frozenset())}),
        *("me/order", "me may not write to the model me/order with this access token (403: You don't", "--pr"),
    ),
    "gated": (
        lambda hub, env: hub.add("model", "me/order", {}, gated="manual"),
        *("me/order", "me/order is gated", "Accept them at"),
    ),
    "offline": (lambda hub, env: hub.stop(), "me/order", "cannot be reached", "Check the network"),
    "offline mode": (
        lambda hub, env: env.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True),
        *("me/order", "HF_HUB_OFFLINE", "Unset the variable"),
    ),
    "rate limit": (
        lambda hub, env: hub.fail("/commit/main", 429, RateLimit='"api";r=0;t=200'),
        *("me/order", "accepts no more requests", "Try again in 200 seconds"),
    ),
    "rate limit before files are sent": (
        lambda hub, env: hub.fail("/preupload/main", 429, RateLimit='"api";r=0;t=200'),
        *("me/order", "accepts no more requests", "Try again in 200 seconds"),
    ),
    "rate limit of large files": (
        lambda hub, env: hub.fail("/objects/batch", 429, RateLimit='"api";r=0;t=200'),
        *("me/order", "accepts no more requests", "Try again in 200 seconds"),
    ),
    "login page": (lambda hub, env: hub.intercept("/commit/", b"<html>"), "me/order", "in an unknown form", "log in"),
    "trouble": (
        lambda hub, env: hub.fail("/commit/", 500),
        "me/order",
        "The Hub has a problem (500",
        "Try again later",
    ),
    "cut off": (lambda hub, env: hub.cut("/commit/", 3), "me/order", "it is not known whether", "Run it again"),
    "bad card": (
        lambda hub, env: hub.add("model", "me/order", {"README.md": "---\na: [\n---\n"}),
        *("me/order", "Invalid metadata in README.md", "bad YAML"),
    ),
    "no text": (
        lambda hub, env: hub.add("model", "me/order", {"README.md": b"\xff\xfe"}),
        *("me/order", "no text in UTF-8", "publish"),
    ),
    "shared server": (lambda hub, env: env.setenv("LABELRANK_SHARED", "1"), "me/order", "shared server", "of your own"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failure_is_one_sentence_with_the_way_out(push, hub, monkeypatch, case):
    hub.add("model", "me/order", {"README.md": CARD})
    prepare, repo_id, said, way_out = CASES[case]
    prepare(hub, monkeypatch)
    refused(push(repo_id, "--yes"), said, way_out)
    if case != "cut off":
        assert hub.commits == []


def test_a_name_that_is_taken_unseen_is_told(push, hub, monkeypatch):
    hub.add("model", "me/order", {"README.md": CARD})
    hub.fail("/api/models/me/order", 404, X_Error_Code="RepoNotFound")
    refused(push("me/order", "--create", "--yes"), "The name me/order is taken", "Choose another name")


def test_a_token_that_may_not_create_is_told(push, hub):
    hub.tokens[hub.token] = Token("me", "fineGrained", frozenset({"write"}))
    refused(push("me/order", "--create", "--yes"), "me may not create the model me/order", "Choose another owner")
    assert not (hub.root / "models").exists()


@pytest.mark.parametrize(
    "arguments", [["--public"], ["--pr", "--create"], ["--type", "dataset", "--model", "."], ["--type", "space"]]
)
def test_options_without_effect_are_refused(push, arguments):
    assert push("me/order", *arguments).exit_code == 2


def test_names_are_data_in_the_card(push, hub, tmp_path):
    names = [
        "<!-- labelrank: end -->",
        "a | b",
        "[x](javascript:alert(1))",
        "line\nbreak\n---\n# title",
        "<img src=x onerror=alert(1)>",
        "`code` *bold* __init__ $x$ :smile: @me https://example.org",
        "\u202eright to left",
        "é, ü: {y: 1}",
    ]
    path = tmp_path / "hostile.json"
    make_map(names, list(range(len(names)))).save(path)
    assert push("me/hostile", "--create", "--yes", path=path).exit_code == 0
    files = there(hub, "me/hostile")
    begin, section, _ = section_of(files["README.md"].decode())  # which finds each marker once
    assert yaml.safe_load(begin.split("---\n")[1])["tags"] == ["labelrank"]
    rows = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(names)
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)
    assert "<" not in section.replace("\\<", "")
    assert "](javascript" not in section
    assert "\u202e" not in section
    assert json.loads(files["config.json"])["id2label"] == {str(n): name for n, name in enumerate(names)}


def test_control_codes_of_a_card_do_not_reach_the_terminal(push, hub):
    hub.add("model", "me/order", {"README.md": "# \x1b[31mred\x1b[0m\n"})
    assert "\x1b" not in push("me/order").output


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("apache-2.0, mit", {"license": ["apache-2.0", "mit"]}),
        ("dinov3-license", {"license": "other", "license_name": "dinov3-license"}),
        (None, {}),
    ],
)
def test_the_licence_of_the_checkpoint_goes_along(push, hub, tmp_path, licence, expected):
    from dataclasses import replace

    whole = make_map(NAMES, ORDER)
    checkpoint = {"id": "MCG-NJU/videomae-base", "revision": "0" * 40}
    features = {**whole.features, "checkpoint": checkpoint, "checkpoint_facts": {"licence": licence}}
    path = tmp_path / "licensed.json"
    replace(whole, features=features).save(path)
    assert push("me/order", "--create", "--yes", path=path).exit_code == 0
    begin, section, _ = section_of(there(hub, "me/order")["README.md"].decode())
    front = yaml.safe_load(begin.split("---\n")[1])
    assert front == {**expected, "tags": ["labelrank"], "base_model": "MCG-NJU/videomae-base"}
    assert "Licence of the checkpoint: " + ("not known" if licence is None else "") in section


def test_the_hub_is_asked_nothing_else_and_told_nothing_of_the_computer(push, hub, monkeypatch):
    from huggingface_hub import get_session

    agents = []
    session = get_session()
    monkeypatch.setitem(session.event_hooks, "request", [lambda r: agents.append(r.headers["user-agent"])])
    push("me/order", "--create", "--yes")
    paths = {re.sub(r"[0-9a-f]{40,}.*", "...", r.path.split("?")[0]) for r in hub.requests}
    assert paths <= {
        *("/api/whoami-v2", "/api/repos/create", "/api/validate-yaml", "/api/models/me/order/revision/main"),
        *("/api/models/me/order/preupload/main", "/api/models/me/order/commit/main", "/large/..."),
        *("/me/order.git/info/lfs/objects/batch", "/me/order.git/info/lfs/objects/verify"),
    }
    # The address in the storage was signed for whoever has it.
    assert {agent.split("/")[0] for agent in agents} == {"labelrank", "python-httpx2"}


# --- A fine-tuned model


@pytest.fixture(scope="module")
def model_folder(keras, tmp_path_factory):
    """A small classifier on the embedded encoder, trained in the order of its label map, which lies beside it."""
    from labelrank.finetune.export import write_head_model
    from labelrank.finetune.export_card import CardFacts
    from labelrank.models.checkpoint import open_checkpoint
    from labelrank.models.runtime import build_encoder

    checkpoint = open_checkpoint("mae-tiny-digits")
    encoder = build_encoder(checkpoint)
    head = {
        "kernel": np.ones((encoder.config.transformer.hidden_dim, 3), np.float32),
        "bias": np.arange(3, dtype=np.float32),
    }
    folder = tmp_path_factory.mktemp("finetune") / "model"
    write_head_model(
        folder,
        encoder,
        head,
        ORDER,
        NAMES,
        pooling="cls",
        preprocessing=checkpoint.preprocessing(),
        label_map=make_map(NAMES, ORDER),
        facts=CardFacts(title="Digits", licence="apache-2.0"),
    )
    return folder


def test_a_pushed_model_is_a_checkpoint_of_the_same_order(push, hub, model_folder, settings, tmp_path):
    from labelrank.models.checkpoint import open_checkpoint

    done = push("me/model", "--create", "--model", str(model_folder), "--yes")
    assert done.exit_code == 0, done.output
    assert re.search(r"^model\.safetensors: [\d.]+ [kM]B \(new\)$", done.stderr, re.MULTILINE)
    files = there(hub, "me/model")
    assert files["model.safetensors"] == (model_folder / "model.safetensors").read_bytes()
    assert files["config.json"] == (model_folder / "config.json").read_bytes()
    begin, section, _ = section_of(files["README.md"].decode())
    assert begin == (model_folder / "README.md").read_text() + "\n"
    assert "Output `i` of this model" in section

    checkpoint = open_checkpoint("me/model", settings=settings)
    checkpoint.fetch(on_progress=None, should_stop=None)
    names = json.loads(files["config.json"])["id2label"]
    assert [names[str(n)] for n in range(3)] == ["cat", "ant", "bee"]
    out = tmp_path / "features.parquet"
    options = ["--checkpoint", "me/model", "--max-per-class", "2", "--out", str(out)]
    extracted = CliRunner().invoke(main, ["extract", "digits", *options])
    assert extracted.exit_code == 0, extracted.output
    assert read_label_map(hub.root / "models/me/model/main/label_map.json").names == ("cat", "ant", "bee")


def test_a_pushed_model_opens_in_transformers(push, hub, model_folder):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    push("me/model", "--create", "--model", str(model_folder), "--yes")
    model = transformers.AutoModelForImageClassification.from_pretrained(hub.root / "models/me/model/main")
    assert model.config.id2label == {0: "cat", 1: "ant", 2: "bee"}


def test_a_model_replaces_weights_of_another_order(push, hub, model_folder):
    other = json.dumps({"id2label": {"0": "ant", "1": "bee", "2": "cat"}, "mine": 1})
    hub.add("model", "me/model", {"model.safetensors": b"old", "config.json": other})
    assert push("me/model", "--model", str(model_folder), "--yes").exit_code == 0
    assert there(hub, "me/model")["config.json"] == (model_folder / "config.json").read_bytes()


def test_weights_that_a_model_would_leave_in_another_order_are_refused(push, hub, model_folder):
    other = json.dumps({"id2label": {"0": "ant", "1": "bee", "2": "cat"}})
    hub.add("model", "me/model", {"model.safetensors": b"old", "pytorch_model.bin": b"old", "config.json": other})
    done = push("me/model", "--model", str(model_folder), "--yes")
    assert "model.safetensors" not in refused(done, "(pytorch_model.bin)", "Remove them there first.")


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_a_model_of_another_order_is_refused(push, hub, model_folder, tmp_path, order):
    path = tmp_path / "other.json"
    make_map(NAMES, order).save(path)
    refused(
        push("me/model", "--create", "--model", str(model_folder), "--yes", path=path), "was not trained in the order"
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [({}, "holds no config.json"), ({"config.json": "{}"}, "holds no weights"), ({"config.json": "é"}, "holds no wei")],
)
def test_a_folder_that_is_no_model_is_refused(push, hub, tmp_path, files, said):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    refused(push("me/model", "--create", "--model", str(folder), "--yes"), said, "finetune --files")


def test_a_large_file_that_does_not_arrive_is_told(push, hub):
    hub.fail("/large/", 403, times=9)
    hub.add("model", "me/order", {"README.md": CARD})
    refused(push("me/order", "--yes"), "the model me/order")
    assert hub.commits == []
