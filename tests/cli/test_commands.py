"""The command line's contract: what goes to stdout, what to stderr, and which exit code."""

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from labelrank.cli import main
from labelrank.errors import FeaturesError
from labelrank.exports import FORMATS
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet, write_features
from labelrank.label_map import read_label_map
from labelrank.ranking import METHODS
from tests.conftest import GOLDEN
from tests.helpers.datasets import numbered_frames, video, write_tree


@pytest.fixture
def features(tmp_path):
    """The golden ranking features as a features file."""
    golden = np.load(GOLDEN / "ranking" / "features.npz")
    path = tmp_path / "features.parquet"
    write_features(
        FeatureSet(
            X=golden["X"],
            y=golden["y"].astype(np.int32),
            keys=tuple(str(i) for i in range(len(golden["y"]))),
            class_names=tuple(map(str, golden["class_names"])),
        ),
        path,
    )
    return path


def in_process(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def run_here(keras, tmp_path, monkeypatch):
    """Run a command in this process, where Keras is there already, and in a workspace of its own."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    return in_process


def picture(colour):
    data = BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    return data.getvalue()


def class_zip(path, names=("cat", "dog")):
    with zipfile.ZipFile(path, "w") as file:
        for i, name in enumerate(names):
            for j in range(3):
                file.writestr(f"{name}/{j}.png", picture((40 * i, 80 * j, 10)))
    return path


def test_demo_prints_the_label_map_and_nothing_else_on_stdout(run_cli):
    done = run_cli("demo")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["position", "class", "label", "centroid", "samples"]
    assert sorted(line.split()[1] for line in lines[1:]) == sorted(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )
    assert sum(int(line.split()[4]) for line in lines[1:]) == 1297
    assert "Content hash" in done.stderr


def test_the_demo_loads_only_what_it_computes_with(run_python, monkeypatch, tmp_path):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)  # other tests may have chosen one for this process
    slow = ("keras", "tensorflow", "sklearn", "scipy.stats", "pandas", "pyarrow.dataset")
    program = f"""
import sys
from click.testing import CliRunner
from labelrank.cli import main
assert CliRunner().invoke(main, ["demo"]).exit_code == 0
print([name for name in {slow} if name in sys.modules])"""
    assert run_python(program) == "[]"


@pytest.mark.slow
def test_same_commands_twice_give_the_same_content_hash(run_cli, tmp_path):
    hashes = []
    for run in ("one", "two"):
        out, label_map = tmp_path / f"{run}.parquet", tmp_path / f"{run}.json"
        done = run_cli(
            *("extract", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", 20, "--seed", 3, "--out", out)
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        done = run_cli("rank", out, "--out", label_map)
        assert done.returncode == 0, done.stderr
        hashes.append(json.loads(label_map.read_text())["content_hash"])
    assert hashes[0] == hashes[1]


def test_folder_and_zip_of_it_give_the_same_features(run_here, tmp_path):
    archive = class_zip(tmp_path / "pets.zip")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "pets")
    found = []
    for data in (archive, tmp_path / "pets"):
        out = tmp_path / "f.parquet"
        done = run_here("extract", data, "--checkpoint", "mae-tiny-digits", "--out", out)
        assert done.exit_code == 0, done.stderr
        found.append(read_features(out))
    assert found[0].keys == found[1].keys
    assert found[0].provenance["dataset"]["digest"] == found[1].provenance["dataset"]["digest"]
    np.testing.assert_array_equal(found[0].X, found[1].X)


def test_bad_pictures_are_reported_and_the_good_ones_kept(run_here, tmp_path):
    archive = class_zip(tmp_path / "pets.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("cat/broken.png", picture("red")[:45])
        file.writestr("dog/notes.txt", "hello")
    out = tmp_path / "f.parquet"
    done = run_here("extract", archive, "--checkpoint", "mae-tiny-digits", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "Left out: cat/broken.png" in done.stderr
    features = read_features(out)
    assert len(features.keys) == 6
    assert {"cat/broken.png", "dog/notes.txt"} <= {f.subject for f in features.failures}


def test_a_class_of_which_nothing_can_be_used_is_an_error_after_the_rest_is_written(run_here, tmp_path):
    archive = class_zip(tmp_path / "pets.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("owl/broken.png", picture("red")[:45])
    done = run_here("extract", archive, "--checkpoint", "mae-tiny-digits", "--out", "f.parquet")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("Error: f.parquet has no sample of class 'owl': none could be used")
    assert len(read_features(tmp_path / "f.parquet").keys) == 6


def test_features_know_where_their_folders_were_and_a_label_map_does_not(run_here, tmp_path, monkeypatch):
    archive = class_zip(tmp_path / "pets.zip")
    shutil.copytree(GOLDEN / "vit_mae", tmp_path / "mine")
    done = run_here("extract", "pets.zip", "--checkpoint", "mine", "--out", "f.parquet")
    assert done.exit_code == 0, done.stderr
    places = {"dataset": str(archive), "checkpoint": str(tmp_path / "mine")}
    assert read_features(tmp_path / "f.parquet").provenance["local"] == places
    run_here("rank", "f.parquet", "--out", "map.json")
    assert str(tmp_path) not in (tmp_path / "map.json").read_text()
    # On a server of several people a file is for whoever asked for it.
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    run_here("extract", "pets.zip", "--checkpoint", "mine", "--out", "f.parquet")
    assert "local" not in read_features(tmp_path / "f.parquet").provenance


def test_videos_cut_short_are_told_and_kept_in_the_file(run_here, tmp_path):
    frames = numbered_frames(20, size=(32, 32))
    whole = {name: video(frames, "avi", "mpeg4", options={"g": "1"}) for name in ("run/1.avi", "sit/1.avi")}
    data = video(frames, "flv", "flv", options={"g": "1"})
    write_tree(tmp_path / "v", {**whole, "run/2.flv": data[: len(data) * 3 // 4], "sit/2.flv": data[: len(data) // 4]})
    outs = [tmp_path / name for name in ("f.parquet", "0.parquet", "1.parquet", "merged.parquet")]
    extract = ("extract", tmp_path / "v", "--checkpoint", "videomae-tiny-moving-digits", "--out")
    done = run_here(*extract, outs[0])
    assert done.exit_code == 0, done.stderr
    assert "Left out: sit/2.flv: 'sit/2.flv' is cut short or damaged: " in done.stderr
    assert "Warning: 1 of 3 videos is cut short or damaged. Its features come from the frames that" in done.stderr
    assert re.search(r"^  run/2\.flv: \d+ of about 20 frames found$", done.stderr, re.M)
    again = run_here(*extract, outs[0])  # from the cache
    assert "Warning: 1 of 3 videos is cut short" in again.stderr
    for number in (1, 2):
        assert run_here(*extract, outs[number], "--shard", f"{number}/2").exit_code == 0
    assert run_here("merge", outs[1], outs[2], "--out", outs[3]).exit_code == 0
    for out in (outs[0], outs[3]):
        (notice,) = read_features(out).notices
        assert (notice.subject, notice.kind) == ("run/2.flv", "cut_short")


@pytest.mark.slow
def test_pretrain_writes_a_checkpoint_that_extract_reads(run_here, tmp_path):
    tiny = "--epochs 1 --warmup-epochs 0 --hidden-dim 8 --num-layers 1 --num-heads 2 --decoder-dim 8 --decoder-heads 2"
    done = run_here("pretrain", class_zip(tmp_path / "pets.zip"), "--out", "made", "--batch-size", 4, *tiny.split())
    assert done.exit_code == 0, done.stderr
    assert "Pre-training, epoch 1 of 1: 4 of 4 images" in done.stderr
    assert "samples/s" not in done.stderr  # of one step, which compiles, there is no rate
    assert done.stdout == ""
    done = run_here("extract", tmp_path / "pets.zip", "--checkpoint", "made", "--out", "f.parquet", "--pooling", "cls")
    assert done.exit_code == 0, done.stderr
    assert read_features(tmp_path / "f.parquet").X.shape == (6, 8)


@pytest.mark.parametrize("method", METHODS)
def test_rank_reproduces_the_golden_orders(features, tmp_path, method):
    golden = json.loads((GOLDEN / "ranking" / "golden.json").read_text())
    asked = ("--method", method, "--format", "json", *(("--shrinkage", "none") if method == "centroid" else ()))
    result = in_process("rank", features, "--out", tmp_path / "map.json", *asked)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads((tmp_path / "map.json").read_text())
    names = [c["name"] for c in printed["classes"]]
    if method == "centroid":
        assert names == golden["centroid_order"]
    else:
        assert names in (golden["reference_order"], golden["reference_order_if_axis_flipped"])


@pytest.mark.parametrize("shrinkage", ["none", "auto", "0.3"])
def test_shrinkage_is_recorded(features, tmp_path, shrinkage):
    result = in_process("rank", features, "--out", tmp_path / "map.json", "--shrinkage", shrinkage)
    assert result.exit_code == 0, result.output
    recorded = read_label_map(tmp_path / "map.json").parameters["shrinkage"]
    assert str(recorded).lower() == shrinkage


@pytest.mark.parametrize(
    ("options", "shrinkage"),
    [((), "auto"), (("--method", "reference"), None), (("--solver", "svd"), None), (("--solver", "eigen"), "auto")],
)
def test_a_label_map_says_what_shrank_where_nothing_was_asked_for(features, tmp_path, options, shrinkage):
    result = in_process("rank", features, "--out", tmp_path / "map.json", *options)
    assert result.exit_code == 0, result.output
    recorded = read_label_map(tmp_path / "map.json").parameters
    assert recorded["shrinkage"] == shrinkage
    assert (0 < recorded.get("shrinkage_found", 0) <= 1) is (shrinkage == "auto")
    rows = ("--format", "parquet", "--out", tmp_path / "rows.parquet", "--features", features)
    exported = in_process("export", tmp_path / "map.json", *rows)
    assert exported.exit_code == 0, exported.output


@pytest.mark.parametrize("per_class", [3, 14])
def test_few_rows_get_a_warning_without_shrinkage_and_none_by_default(tmp_path, per_class):
    X = np.random.default_rng(0).normal(size=(3 * per_class, 20)).astype(np.float32)
    y = np.repeat(np.arange(3, dtype=np.int32), per_class)
    write_features(FeatureSet(X, y, tuple(map(str, range(len(y)))), ("a", "b", "c")), tmp_path / "f.parquet")
    for asked in (("--shrinkage", "none"), ("--shrinkage", "0"), ("--method", "reference"), ("--solver", "svd")):
        said = in_process("rank", tmp_path / "f.parquet", *asked).stderr
        assert f"{3 * per_class} samples are too few for 20 dimensions without shrinkage" in said
        assert "Rank with shrinkage auto, or take at least 15 samples of each class." in said
    assert re.fullmatch(
        "Expected agreement: [01]\\.\\d\\d\\. .*\nFrom and to: .*\n", in_process("rank", tmp_path / "f.parquet").stderr
    )


@pytest.mark.slow
def test_an_extraction_says_what_it_runs_on_and_when_it_is_stable_enough(run_cli, tmp_path):
    asked = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", tmp_path / "f.parquet"]
    asked += ["--shrinkage", "none"]
    first = run_cli(*asked, "--until-stable", "0.4", "--either-direction")
    assert first.returncode == 0
    assert "Estimated time: at most " in first.stderr
    assert "CPU (" in first.stderr
    assert "10 per class: no estimate" in first.stderr
    assert "Steadiness 0." in first.stderr
    assert " in either direction (0." in first.stderr
    assert "Stopped early: the order is steady enough with " in first.stderr
    features = read_features(tmp_path / "f.parquet")
    assert len(features.y) < 1297
    again = run_cli(*asked, "--until-stable", "0.4", "--either-direction")
    assert "These features were here already" in again.stderr
    assert "Estimated time" not in again.stderr
    strict = run_cli(*asked, "--until-stable", "0.99", "--max-per-class", "40")
    assert "Warning: All 400 images were used, and the order is less steady than asked for." in strict.stderr
    assert "0.99 was asked for. --shrinkage auto here and in rank may help, too." in strict.stderr
    assert "images from finished parts" in strict.stderr


def test_an_extraction_says_how_long_it_takes_where_that_is_known(monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.setattr("labelrank.steps.extract.run.obtain", stop)
    asked = ("extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", tmp_path / "f.parquet")
    for rate, said in ((10.0, "\nEstimated time: 2 minutes.\n"), (None, "")):
        monkeypatch.setattr("labelrank.steps.extract.estimate.estimated_rate", lambda *_, rate=rate: rate)
        stderr = in_process(*asked).stderr
        assert said in stderr
        assert ("Estimated" in stderr) is bool(said)


def test_ranking_the_test_split_gets_a_warning_and_extracting_it_none(run_here):
    asked = ("extract", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", 12, "--out", "f.parquet")
    for split, warned in (("test", True), ("train", False)):
        done = run_here(*asked, "--split", split)
        assert done.exit_code == 0, done.stderr
        assert "Warning" not in done.stderr
        done = run_here("rank", "f.parquet", "--shrinkage", "auto")
        assert ("Warning: This is the test split: its labels decide the order" in done.stderr) is warned


@pytest.mark.parametrize(("per_class", "kinds"), [(24, ["few_samples"]), (25, [])])
def test_too_few_samples_for_the_order_of_many_classes_go_into_the_label_map(tmp_path, per_class, kinds):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(50), per_class)
    names = np.array([f"class {label}" for label in range(50)])
    np.savez(tmp_path / "f.npz", X=rng.normal(size=(50, 8))[y] + rng.normal(size=(len(y), 8)), y=y, class_names=names)
    done = in_process("rank", tmp_path / "f.npz", "--out", tmp_path / "map.json", "--resamples", 0)
    assert done.exit_code == 0, done.output
    notices = read_label_map(tmp_path / "map.json").notices
    assert [notice.kind for notice in notices] == kinds
    assert all(f"Warning: {notice.text}" in done.stderr for notice in notices)


def test_a_stopped_extraction_says_how_to_go_on_and_nothing_after_that(monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.setattr("labelrank.steps.extract.run.obtain", stop)
    out = tmp_path / "f.parquet"
    done = in_process("extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", out)
    assert done.exit_code == 1
    assert done.stderr.endswith("\nStopped. Finished parts are kept: the same command goes on from them.\n")


def test_a_shard_alone_gets_a_warning_and_is_not_overwritten_by_merging(features, tmp_path):
    whole = read_features(features)
    half = tmp_path / "half.parquet"
    shard = {"shard": {"index": 1, "count": 2}}
    rows = np.arange(len(whole.y))
    write_features(FeatureSet(whole.X, whole.y, whole.keys, whole.class_names, shard, (), rows), half)
    for command in ("rank", "classes", "samples", "encoders"):
        assert "shard 1 of 2 alone. Join all shards with `labelrank merge`" in in_process(command, half).stderr, command
        assert "shard" not in in_process(command, features).stderr, command
    before = half.read_bytes()
    merged = in_process("merge", half, "--out", half)
    assert merged.exit_code == 1
    assert "is one of the shards and would be overwritten" in merged.stderr
    assert half.read_bytes() == before


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_exported(features, tmp_path, format_):
    in_process("rank", features, "--out", tmp_path / "map.json")
    out = tmp_path / f"exported{FORMATS[format_].ending}"
    result = in_process("export", tmp_path / "map.json", "--format", format_, "--out", out)
    assert result.exit_code == 0, result.output
    assert FORMATS[format_].caution in result.stderr
    assert result.stdout == ""
    content = out.read_bytes()
    if format_ != "parquet":
        assert b"class_00" in content
    if format_ == "csv":
        rows = list(csv.DictReader(content.decode().splitlines()))
        label_map = read_label_map(tmp_path / "map.json")
        assert [int(row["old_id"]) for row in rows] == list(label_map.order)


@pytest.mark.parametrize("out", ["/dev/stdout", "/dev/null", "/dev/fd/1"])
def test_a_stream_as_out_is_refused_and_what_it_leads_to_is_kept(features, tmp_path, out):
    in_process("rank", features, "--out", tmp_path / "map.json")
    kept = tmp_path / "log.txt"
    kept.write_text("written before\n")
    for arguments in (
        ("export", tmp_path / "map.json", "--format", "hf", "--out", out),
        ("rank", features, "--out", out),
    ):
        with kept.open("a") as stdout:
            command = [sys.executable, "-m", "labelrank", *map(str, arguments)]
            done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert "is not a file" in done.stderr
    assert kept.read_text() == "written before\n"
    with pytest.raises(FeaturesError, match="cannot be written"):
        write_features(read_features(features), Path(out))
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/stdout").is_symlink()


def test_parquet_with_features_has_a_row_per_sample(features, tmp_path):
    import pyarrow.parquet as pq

    in_process("rank", features, "--out", tmp_path / "map.json")
    arguments = ("export", tmp_path / "map.json", "--format", "parquet", "--out", tmp_path / "points.parquet")
    assert in_process(*arguments, "--features", features).exit_code == 0
    table = pq.read_table(tmp_path / "points.parquet").to_pandas()
    assert len(table) == 120
    # On the same axis as the map: the mean of a class's points is its centroid.
    label_map = read_label_map(tmp_path / "map.json")
    means = table.groupby("label")["x"].mean()
    for ranked in label_map.classes:
        assert means[ranked.name] == pytest.approx(ranked.centroid, abs=1e-6)


def test_table_survives_hostile_class_names(tmp_path):
    names = ("two\nlines", "=cmd()", "<script>", "caf\u00e9 \U0001f600")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4, dtype=np.int32), 5)
    X = (rng.normal(size=(20, 3)) + y[:, None]).astype(np.float32)
    write_features(FeatureSet(X, y, tuple(map(str, range(20))), names), tmp_path / "f.parquet")
    result = in_process("rank", tmp_path / "f.parquet")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 5
    assert "two\\nlines" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "none.zip", "--checkpoint", "mae-tiny-digits", "--out", "f.parquet"), "none.zip"),
        (("extract", "digits", "--checkpoint", "nowhere", "--out", "f.parquet"), "Checkpoint 'nowhere' is neither"),
        (("extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", "no/f.parquet"), "does not exist"),
        (
            ("extract", "digits", "--checkpoint", "mae-tiny-digits", "--split", "x", "--out", "f.parquet"),
            "no split 'x'",
        ),
        (("rank", "none.parquet"), "none.parquet does not exist"),
        (("export", "none.json", "--format", "hf", "--out", "x"), "none.json"),
        (("pretrain", "digits", "--out", "x", "--patch-size", "5"), "not a multiple of the patch size"),
        (("extract", "~nobody-here/x", "--checkpoint", "mae-tiny-digits", "--out", "f.parquet"), "cannot be a path"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_errors_are_one_line_and_exit_1(run_cli, arguments, message):
    done = run_cli(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "backend"), [("extract", "torch9"), ("pretrain", "openvino")])
def test_a_keras_backend_that_cannot_do_it_is_named(run_cli, command, backend):
    more = ("--checkpoint", "mae-tiny-digits") if command == "extract" else ()
    done = run_cli(command, "digits", "--out", "x", *more, env={"KERAS_BACKEND": backend})
    assert done.returncode == 1
    assert f"KERAS_BACKEND is '{backend}'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "digits"),
        ("extract", "digits", "--checkpoint", "c", "--out", "o", "--pooling", "max"),
        ("extract", "digits", "--checkpoint", "c", "--out", "o", "--max-per-class", "0"),
        *(
            ("extract", "digits", "--checkpoint", "c", "--out", "o", "--shard", shard)
            for shard in ("0/4", "5/4", "x", "1/")
        ),
        ("extract", "digits", "--checkpoint", "c", "--out", "o", "--until-stable", "1"),
        ("extract", "digits", "--checkpoint", "c", "--out", "o", "--either-direction"),
        ("extract", "digits", "--checkpoint", "c", "--out", "o", "--shrinkage", "auto"),
        ("merge", "--out", "o"),
        ("rank", "f.parquet", "--method", "colour"),
        ("rank", "f.parquet", "--shrinkage", "much"),
        ("rank", "f.parquet", "--shrinkage", "2"),
        ("export", "m.json", "--format", "xml", "--out", "x"),
        ("export", "m.json", "--format", "csv", "--out", "x", "--features", "f.parquet"),
        ("dance",),
    ],
)
def test_wrong_usage_exits_2(arguments):
    assert in_process(*arguments).exit_code == 2


def test_one_class_and_a_class_without_rows_are_explained(tmp_path):
    def rank(y, names):
        X = np.random.default_rng(0).normal(size=(len(y), 3)).astype(np.float32)
        keys = tuple(map(str, range(len(y))))
        write_features(FeatureSet(X, np.array(y, np.int32), keys, names), tmp_path / "f.parquet")
        return in_process("rank", tmp_path / "f.parquet")

    alone = rank([0, 0, 0], ("only",))
    assert alone.exit_code == 1
    assert "Error: " in alone.stderr
    rowless = rank([0, 0, 2, 2], ("a", "unseen", "b"))
    assert rowless.exit_code == 1
    assert "'unseen'" in rowless.stderr


def test_pickle_checkpoint_is_refused_before_anything_is_read(run_cli, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(GOLDEN / "vit_mae", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    done = run_cli("extract", "digits", "--checkpoint", folder, "--out", "f.parquet")
    assert done.returncode == 1
    assert "runs code" in done.stderr
    assert not (tmp_path / "f.parquet").exists()


@pytest.mark.slow
def test_pretraining_reads_the_columns_it_is_told(run_here, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": picture((10 * i, 99, 200)), "path": None} for i in range(8)]
    columns = {"image": pictures, "fine": list("abcdabcd"), "coarse": list("aabbaabb")}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    sizes = ("--epochs", 1, "--batch-size", 4, "--hidden-dim", 8, "--num-layers", 1, "--image-size", 8)
    arguments = ("pretrain", tmp_path / "train.parquet", "--out", tmp_path / "out", *sizes, "--warmup-epochs", 0)
    refused = run_here(*arguments)
    assert refused.exit_code == 1
    assert "'fine', 'coarse'" in refused.stderr
    done = run_here(*arguments, "--label-column", "coarse")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_compare_prints_the_agreement_and_the_classes_that_moved(features, tmp_path):
    maps = tmp_path / "a.json", tmp_path / "b.json"
    for path, shrinkage in zip(maps, ("none", "0.9"), strict=True):
        assert in_process("rank", features, "--shrinkage", shrinkage, "--out", path).exit_code == 0
    table = in_process("compare", *maps, "--top", 2)
    plain = in_process("compare", *maps, "--format", "json")

    assert (table.exit_code, plain.exit_code) == (0, 0), table.output + plain.output
    first, header, *rows = table.stdout.splitlines()
    found = json.loads(plain.stdout)
    assert first.startswith("Kendall tau is ")
    assert (header.split()[0], len(rows)) == ("class", 2)
    assert rows[0].split()[0] == max(found["classes"], key=lambda one: abs(one["moved"]))["name"]
    assert found["tau_reversed"] == -found["tau"]


def test_compare_names_the_file_that_is_no_label_map(features, tmp_path):
    done = in_process("compare", features, features)
    assert done.exit_code == 1
    assert f"Label map is not JSON in UTF-8: '{features}'" in done.output


def test_encoders_prints_a_row_for_each_file_and_how_far_their_orders_agree(features, tmp_path):
    shutil.copy(features, tmp_path / "other.parquet")
    table = in_process("encoders", features, tmp_path / "other.parquet")
    plain = in_process("encoders", features, tmp_path / "other.parquet", "--format", "json")

    assert (table.exit_code, plain.exit_code) == (0, 0), table.output + plain.output
    lines = table.stdout.splitlines()
    both = ["features", "other"]
    assert [line.split()[0] for line in lines if line] == ["Encoder", *both, "Kendall", "features", *both]
    assert "\\" not in table.stdout and re.search(r"[0-9]\s%", lines[1].rpartition(")")[2])
    assert "features and other hold the same features." in table.stderr
    assert "fine-tuning" in table.stderr
    assert [one["name"] for one in json.loads(plain.stdout)["encoders"]] == ["features", "other"]


def test_encoders_refuses_a_file_given_twice(features):
    assert in_process("encoders", features, features).exit_code == 2


def test_classes_shows_groups_and_orders_and_writes_them(features, tmp_path):
    groups, tree = tmp_path / "groups.csv", tmp_path / "tree.nwk"
    found = in_process("classes", features, "--clusters", 4, "--groups-out", groups, "--tree-out", tree, "--orders")
    assert found.exit_code == 0, found.output
    assert "Groups\n" in found.stdout and "  3: " in found.stdout and "  4: " not in found.stdout
    assert ("Below are 4 groups, as asked." in found.stdout) == ("Suggested are 4 groups" not in found.stdout)
    assert "Misplaced triples" in found.stdout and "random" in found.stdout and "Same group" not in found.stdout
    assert groups.read_text().startswith("name,group,label\n")
    assert tree.read_text().endswith(");\n")
    found = in_process("classes", features, "--clusters", 4, "--groups", groups, "--orders", "--format", "json")
    printed = json.loads(found.stdout)["groups"]
    assert printed["agreement"] == {"adjusted_rand": 1, "v_measure": 1}
    assert len(printed["groups"]) == 4
    assert printed["orders"]["of"]["optimal-leaf"]["group_share"]["value"] == pytest.approx(8 / 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clusters", "none"), "'none' is no number of groups"),
        (("--clusters", "99"), "99 groups were asked for; 12 classes make 1 to 12"),
        (("--groups-out", "groups.txt"), "ends neither in .csv nor in .json"),
        (("--groups", "nowhere.csv"), "Cannot read nowhere.csv"),
    ],
)
def test_classes_refuses_groups_that_there_are_not(features, options, message):
    found = in_process("classes", features, *options)
    assert found.exit_code != 0
    assert message in " ".join(found.stderr.split())


def test_rank_says_how_many_neighbours_share_a_group(features, tmp_path):
    groups = tmp_path / "mine.csv"
    groups.write_text("name,group\n" + "".join(f"class_{k:02},{k // 6}\n" for k in range(12)) + "ten,2\n")
    found = in_process("rank", features, "--order", "original", "--groups", groups, "--format", "json")
    assert json.loads(found.stdout)["order"] == list(range(12))
    assert "91\u00a0% of neighbours share a group (random order: 45\u00a0%)." in found.stderr
    assert "1 name in the groups file is no class here and left out: ten." in " ".join(found.stderr.split())

    groups.write_text("name,group\nclass_00,1\n")
    found = in_process("rank", features, "--groups", groups, "--out", tmp_path / "map.json")
    assert found.exit_code == 1 and "lacks 11 classes of 12" in found.stderr
    assert not found.stdout and not (tmp_path / "map.json").exists()
