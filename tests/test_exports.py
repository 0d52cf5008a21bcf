"""Every export read back by its consumer, or by a reader that follows the consumer's rules."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from labelrank.errors import LabelMapError
from labelrank.exports import FORMATS, export, write_export
from labelrank.label_map import LabelMap, read_label_map
from tests.helpers.label_maps import make_map, three_cycle

HOSTILE = [
    'he said "hi"',
    "it's",
    "a, b; c",
    "a\nb",
    "a\r\nb",
    "a\rb",
    "a\n---\nb",
    "<script>alert(1)</script>",
    "🐈‍⬛",
    "=1+1",
    "'=1+1",
    "''=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    "'quoted",
    " padded ",
    "a\u2028b",
    "a\x85b",
    "a\x0bb",
    "\ufeffbom",
    "\x00",
    "\x7f",
    "yes",
    "null",
    "1e3",
    "~",
    "0",
    "# no comment",
    "- item",
    "a: b",
    "{x}",
    "\\n",
    "\\x1b",
    "\\\\x1b",
    "\x1b[31mred",
    "\\\x1b",
    "\\\\\x1b",
    "right \u202e left",
    "\\u202e",
    "a" * 300 + " " + "b" * 300,
]
CARRY_ANYTHING = ["hf", "card", "csv", "torchvision", "keras", "parquet"]


# Readers: each returns the names in the order of their positions


def read_hf(data: bytes) -> list[str]:
    config = json.loads(data)
    # PretrainedConfig turns the keys into integers when it reads config.json.
    id2label = {int(key): name for key, name in config["id2label"].items()}
    assert {name: position for position, name in id2label.items()} == config["label2id"]
    return [id2label[position] for position in range(len(id2label))]


def read_card(data: bytes) -> list[str]:
    (feature,) = yaml.safe_load(data)["dataset_info"]["features"]
    assert feature["name"] == "label"
    names = feature["dtype"]["class_label"]["names"]
    return [names[str(position)] for position in range(len(names))]


def read_labels_txt(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode().splitlines()]


def read_classind(data: bytes) -> list[str]:
    rows = [line.strip().split(" ", 1) for line in data.decode().splitlines()]
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    return [name for _, name in rows]


def read_csv(data: bytes) -> list[str]:
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    assert header == ["new_id", "old_id", "name", "centroid"]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    names = [name[1:] if re.match("'+[=+\\-@＝＋－＠]", name) else name for _, _, name, _ in rows]
    return [re.sub(r"(\\+)(x[0-9a-f]{2}|u[0-9a-f]{4})", unescaped, name) for name in names]


def unescaped(match: re.Match[str]) -> str:
    slashes, code = match.groups()
    kept = "\\" * (len(slashes) // 2)
    return kept + (chr(int(code[1:], 16)) if len(slashes) % 2 else code)


def read_torchvision(data: bytes) -> list[str]:
    # DatasetFolder.find_classes: "class_to_idx" holds every class, values are the targets 0..K-1.
    class_to_idx = json.loads(data)
    assert sorted(class_to_idx.values()) == list(range(len(class_to_idx)))
    return sorted(class_to_idx, key=class_to_idx.__getitem__)


def read_timm(data: bytes) -> list[str]:
    # timm.data.readers.class_map.load_class_map: iterates the opened text file and strips each line.
    class_to_idx = {line.strip(): idx for idx, line in enumerate(io.TextIOWrapper(io.BytesIO(data), "utf-8"))}
    return sorted(class_to_idx, key=class_to_idx.__getitem__)


def read_keras(data: bytes) -> list[str]:
    names = json.loads(data)
    assert ast.literal_eval(data.decode()) == names
    return names


def read_parquet(data: bytes) -> list[str]:
    table = pq.read_table(io.BytesIO(data)).to_pydict()
    return [name for _, name in sorted(zip(table["y"], table["label"], strict=True))]


READERS = {
    "hf": read_hf,
    "card": read_card,
    "labels-txt": read_labels_txt,
    "classind": read_classind,
    "csv": read_csv,
    "torchvision": read_torchvision,
    "timm": read_timm,
    "keras": read_keras,
    "parquet": read_parquet,
}

# Label 0 ant -> position 1, label 1 bee -> position 2, label 2 cat -> position 0.
LITERAL = {
    "hf": """{
  "_labelrank": "Paste it only where no weights lie yet, or beside a head that was trained in this order: with weights \
of another order every prediction would get a wrong name.",
  "id2label": {
    "0": "cat",
    "1": "ant",
    "2": "bee"
  },
  "label2id": {
    "cat": 0,
    "ant": 1,
    "bee": 2
  }
}
""",
    "card": """# This is a fragment of a card. Use it only for a new column whose integers are these positions; never \
rename the class_label names of a dataset in place: its rows keep their integers, so that they would get wrong names.
dataset_info:
  features:
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': ant
          '2': bee
""",
    "labels-txt": "cat\nant\nbee\n",
    "classind": "1 cat\n2 ant\n3 bee\n",
    "csv": "new_id,old_id,name,centroid\r\n0,2,cat,-1.0\r\n1,0,ant,-0.5\r\n2,1,bee,0.0\r\n",
    "torchvision": '{\n  "cat": 0,\n  "ant": 1,\n  "bee": 2\n}\n',
    "timm": "cat\nant\nbee\n",
    "keras": '[\n  "cat",\n  "ant",\n  "bee"\n]\n',
}


def test_every_format_is_covered_here():
    assert set(READERS) == set(FORMATS) == {*LITERAL, "parquet"}


@pytest.mark.parametrize("format", LITERAL)
def test_a_three_cycle_is_written_as_by_hand(format):
    assert export(three_cycle(), format).decode() == LITERAL[format]


def test_parquet_has_a_row_per_class_without_samples():
    table = pq.read_table(io.BytesIO(export(three_cycle(), "parquet"))).to_pydict()

    assert table == {"x": [-1.0, -0.5, 0.0], "y": [0, 1, 2], "label": ["cat", "ant", "bee"]}


SAMPLES = {
    "key": ["c/1", "a/1", "c/2"],
    "x": np.array([-1.5, -0.5, -0.5]),
    "y": [0, 1, 0],
    "label": ["cat", "ant", "cat"],
}


def test_parquet_has_a_row_per_sample_with_samples():
    table = pq.read_table(io.BytesIO(export(three_cycle(), "parquet", samples=SAMPLES)))

    assert table.to_pydict() == {**SAMPLES, "x": [-1.5, -0.5, -0.5]}
    assert [str(field.type) for field in table.schema] == ["string", "double", "int32", "string"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [2, 0, 2]}, "Sample 'c/1' is at y 2, but the label map has 'cat' at position 0"),
        ({"label": ["cat", "dog", "cat"]}, "Sample 'a/1' is at y 1, but the label map has 'dog' at position None"),
        ({"x": [1.0]}, "different lengths, .*'x': 1"),
    ],
    ids=["labels as positions", "unknown class", "short column"],
)
def test_samples_of_another_ranking_are_refused(changes, message):
    with pytest.raises(LabelMapError, match=message):
        export(three_cycle(), "parquet", samples={**SAMPLES, **changes})


def test_samples_without_a_column_are_refused():
    with pytest.raises(LabelMapError, match="Samples lack the column key, y;"):
        export(three_cycle(), "parquet", samples={"x": [0.0], "label": ["cat"]})


# Round trips

names_of_any_kind = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.text("'=+-@\t\r\n \"a,", min_size=1),
        st.text("\\x1bu202e\x1b\u202e'=", min_size=1),
    ),
    min_size=1,
    max_size=6,
)


def map_of(names: list[str]) -> LabelMap | None:
    try:
        return make_map(names, [*range(1, len(names)), 0])
    except LabelMapError:
        return None  # two names differ only in case


@pytest.mark.parametrize("format", CARRY_ANYTHING)
def test_hostile_names_are_carried_exactly(format):
    label_map = make_map(HOSTILE, [*range(1, len(HOSTILE)), 0])

    assert READERS[format](export(label_map, format)) == [*HOSTILE[1:], HOSTILE[0]]


@pytest.mark.parametrize("format", READERS)
@given(names=names_of_any_kind)
@example(names=["a\x1cb"])
@example(names=["\xa0a"])
@example(names=["a b", "c"])
def test_a_format_carries_names_exactly_or_refuses_them(format, names):
    label_map = map_of(names)
    if label_map is None:
        return
    try:
        data = export(label_map, format)
    except LabelMapError:
        assert format not in CARRY_ANYTHING
        assert any(name.strip() != name or len(name.splitlines()) > 1 for name in names)
        return

    assert READERS[format](data) == list(label_map.names)
    if format != "parquet":
        assert data.endswith(b"\n")


@pytest.mark.parametrize("format", ["labels-txt", "timm", "classind"])
@pytest.mark.parametrize(
    ("name", "problem"),
    [("a\nb", "has a line break in it"), ("a\rb", "has a line break in it"), (" a", "starts or ends with white space")],
    ids=ascii,
)
def test_a_line_format_that_cannot_carry_a_name_says_which_can(format, name, problem):
    with pytest.raises(LabelMapError) as caught:
        export(make_map(["cat", name, "dog"], [0, 2, 1]), format)

    message = str(caught.value)
    assert f"Class name {name!r} (position 2) {problem}" in message
    assert FORMATS[format].title in message
    assert message.endswith("formats that can: hf, card, csv, torchvision, keras, parquet.")


def test_only_readers_that_break_lines_there_refuse_a_vertical_tab():
    label_map = make_map(["a\x0bb"], [0])

    assert read_timm(export(label_map, "timm")) == ["a\x0bb"]
    with pytest.raises(LabelMapError, match="can: hf, card, csv, torchvision, timm, keras, parquet"):
        export(label_map, "labels-txt")


def test_no_csv_cell_starts_a_formula():
    rows = csv.DictReader(io.StringIO(export(make_map(HOSTILE, range(len(HOSTILE))), "csv").decode(), newline=""))
    cells = [row["name"] for row in rows]

    assert not [cell for cell in cells if re.match("[=+\\-@\t\r\n＝＋－＠]", cell)]
    assert not [cell for cell in cells if re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", cell)]
    assert cells[HOSTILE.index("=1+1")] == "'=1+1"
    assert cells[HOSTILE.index("'=1+1")] == "''=1+1"
    assert cells[HOSTILE.index("'quoted")] == "'quoted"
    assert len(set(cells)) == len(HOSTILE)


@pytest.mark.parametrize("name", ["map.json", "map", "class_map.csv", "txt"])
def test_a_class_map_that_timm_would_not_read_is_not_written(tmp_path, name):
    with pytest.raises(LabelMapError, match=r"does not end in \.txt, .*timm class map.* such as .*\.txt\."):
        write_export(three_cycle(), "timm", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_class_map_in_capitals_is_written_as_timm_reads_it(tmp_path):
    write_export(three_cycle(), "timm", tmp_path / "MAP.TXT")
    assert read_timm((tmp_path / "MAP.TXT").read_bytes()) == ["cat", "ant", "bee"]


def test_downloads_have_an_ending_that_their_readers_take():
    assert all(form.filename.endswith(form.ending) for form in FORMATS.values())


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(LabelMapError, match="Export format is 'yaml'; expected one of hf, card, labels-txt"):
        export(three_cycle(), "yaml")


def test_formats_are_told_apart_by_title_and_file_name():
    assert len({f.title for f in FORMATS.values()}) == len({f.filename for f in FORMATS.values()}) == len(FORMATS)
    assert all(f.describe.endswith(".") and "/" in f.mime for f in FORMATS.values())


# Consumers

KERAS = """
import ast, json, sys
import keras
folder, names_file = sys.argv[1:]
names = ast.literal_eval(open(names_file, encoding="utf-8").read())
dataset = keras.utils.image_dataset_from_directory(
    folder, class_names=names, image_size=(4, 4), batch_size=2, shuffle=True, seed=1, verbose=False
)
rows = [[int(x[0, 0, 0]), int(y)] for xs, ys in dataset for x, y in zip(xs.numpy(), ys.numpy())]
print(json.dumps({"names": dataset.class_names, "rows": rows}))
"""


@pytest.mark.slow
def test_keras_gives_each_picture_the_position_of_its_class(tmp_path):
    class_names = ["ant", "bee", 'it\'s a "cat"', "🐕, dog"]
    label_map = make_map(class_names, [2, 0, 3, 1])
    for label, name in enumerate(class_names):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):  # the grey level tells the label, so that an image names its class itself
            Image.new("RGB", (4, 4), (label * 50,) * 3).save(tmp_path / "data" / name / f"{i}.png")
    write_export(label_map, "keras", tmp_path / "class_names.json")

    done = subprocess.run(
        [sys.executable, "-c", KERAS, tmp_path / "data", tmp_path / "class_names.json"],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["names"] == list(label_map.names)
    assert sorted(seen["rows"]) == sorted(
        [label * 50, label_map.position_of[label]] for label in range(4) for _ in "12"
    )


def test_hugging_face_reads_the_card_from_the_top_of_a_readme():
    repocard = pytest.importorskip("huggingface_hub").DatasetCard
    label_map = make_map(HOSTILE, [*range(1, len(HOSTILE)), 0])

    card = repocard(f"---\n{export(label_map, 'card').decode()}---\n\n# A dataset\n")

    assert card.text.strip() == "# A dataset"
    (feature,) = card.data.to_dict()["dataset_info"]["features"]
    assert list(feature["dtype"]["class_label"]["names"].values()) == list(label_map.names)
    assert list(feature["dtype"]["class_label"]["names"]) == [str(p) for p in range(len(HOSTILE))]


def test_torchvision_folders_get_the_position_of_their_class(tmp_path):
    class_names = ["ant", "bee", "cat"]
    for name in class_names:
        (tmp_path / name).mkdir()
    class_to_idx = json.loads(export(three_cycle(), "torchvision"))

    # DatasetFolder.make_dataset: one target per folder that class_to_idx names; a class without one is an error.
    targets = {p.name: class_to_idx[p.name] for p in sorted(tmp_path.iterdir())}

    assert set(class_to_idx) == set(targets)
    assert [targets[name] for name in class_names] == list(three_cycle().position_of)


# Writing


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_holds_exactly_what_export_gives(tmp_path, format):
    path = tmp_path / FORMATS[format].filename
    path.write_text("an older file")

    write_export(three_cycle(), format, path)

    assert path.read_bytes() == export(three_cycle(), format)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_permissions_of_any_new_file_and_a_link_stays_one(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")

    three_cycle().save(tmp_path / "link.json")

    assert (tmp_path / "link.json").is_symlink()
    assert read_label_map(tmp_path / "target.json") == three_cycle()
    assert (tmp_path / "target.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def write(path: Path) -> None:
    write_export(three_cycle(), "csv", path)


@pytest.mark.parametrize("save", [write, three_cycle().save], ids=["write_export", "save"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path, save):
    (tmp_path / "file").write_text("x")

    with pytest.raises(
        LabelMapError, match=r"Cannot write '.*/gone/map': the folder '.*/gone' does not exist\. Create"
    ):
        save(tmp_path / "gone" / "map")
    with pytest.raises(LabelMapError, match="Not a directory"):
        save(tmp_path / "file" / "map")
    with pytest.raises(LabelMapError, match="exists and is not a file"):
        save(tmp_path)
    with pytest.raises(LabelMapError, match="File name too long"):
        save(tmp_path / ("n" * 300))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(LabelMapError, match="'/dev/null': it exists and is not a file"):
        write(Path("/dev/null"))

    assert Path("/dev/null").is_char_device()


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")

    with pytest.raises(LabelMapError, match="it exists and is not a file"):
        write(tmp_path / "link")
    assert (tmp_path / "pipe").is_fifo()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "map.csv"
    path.write_text("old")

    def fail(self, data):
        self.touch()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(LabelMapError, match=r"Permission denied\. Give a path in a folder that you can write to"):
        write(path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
