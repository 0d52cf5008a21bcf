"""Labels come from a list beside the images or videos, in a folder and in a zip alike."""

import json
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from labelrank.data import SourceOptions, describe_source, open_dataset
from labelrank.data.list_files import read_class_names, read_list
from labelrank.errors import DatasetError, UnclearColumn
from tests.helpers.datasets import numbered_frames, png, video, write_tree, write_zip
from tests.helpers.tables import class_label, table, write

ANIMALS = ("cat", "dog", "owl")
IMAGES = {f"images/{n}.png": png(n) for n in range(9)}
VIDEO = None


def videos(*paths):
    global VIDEO
    VIDEO = VIDEO or video(numbered_frames(3))
    return dict.fromkeys(paths, VIDEO)


def lines(*rows):
    return "".join(f"{row}\n" for row in rows).encode()


def label(n):
    return ANIMALS[n % 3]


def rows_of(columns, numbers=range(9)):
    """Return a csv of `columns`, which make a cell from a number."""
    cells = [",".join(columns), *(",".join(str(make(n)) for make in columns.values()) for n in numbers)]
    return lines(*cells)


@pytest.fixture(params=["folder", "zip"])
def opened(request, tmp_path, settings):
    """Opens a tree of files, as a folder or as a zip."""

    def make(files, describe=False, **options):
        if request.param == "folder":
            place = write_tree(tmp_path / "pets", files)
        else:
            place = write_zip(tmp_path / "pets.zip", {f"pets/{name}": content for name, content in files.items()})
        look = describe_source if describe else open_dataset
        return look(str(place), SourceOptions(**options), settings=settings)

    return make


def labels_of(data):
    return {sample.key: data.class_names[sample.label] for sample in data.samples}


def parquet(tmp_path, names=True):
    columns = {"file_name": [f"images/{n}.png" for n in range(9)], "label": [n % 3 for n in range(9)]}
    features = {"label": class_label(ANIMALS)} if names else None
    return write(tmp_path / "made.parquet", table({k: pa.array(v) for k, v in columns.items()}, features)).read_bytes()


FORMS = {
    "metadata.csv": rows_of({"file_name": lambda n: f"images/{n}.png", "label": label}),
    "metadata.jsonl": lines(*(json.dumps({"file_name": f"images/{n}.png", "label": label(n)}) for n in range(9))),
    "images/metadata.csv": rows_of({"file_name": lambda n: f"{n}.png", "caption": lambda n: f"no {n}", "label": label}),
    "metadata.jsonl with more": None,
    "labels.csv": rows_of({"image": lambda n: f"{n}.png", "label": label}),
    "labels.tsv": rows_of({"image": lambda n: f"{n}.png", "label": label}).replace(b",", b"\t"),
    "semicolons.csv": rows_of({"image": lambda n: f"{n}.png", "breed": label}).replace(b",", b";"),
    "no ending.csv": rows_of({"id": str, "breed": label}),
    "windows.csv": b"\xef\xbb\xbf"
    + rows_of({"path": lambda n: f"images\\{n}.png", "species": label}).replace(b"\n", b"\r\n"),
    "utf16.csv": rows_of({"path": lambda n: f"images/{n}.png", "species": label}).decode().encode("utf-16"),
    "quoted.csv": rows_of({"path": lambda n: f'"images/{n}.png"', "species": lambda n: f'"{label(n)}"'}),
    "elsewhere.csv": rows_of({"path": lambda n: f"/home/me/data/images/{n}.png", "label": label}),
    "other folders.csv": rows_of({"path": lambda n: f"/home/me/photos/{n}.png", "label": label}),
    "no header.csv": rows_of({"images/0.png": lambda n: f"images/{n}.png", "cat": label}, range(1, 9)),
    "lines.txt": lines(*(f"images/{n}.png {label(n)}" for n in range(9))),
    "list.json": json.dumps([{"img": f"{n}.png", "class": label(n)} for n in range(9)]).encode(),
    "map.json": json.dumps({f"{n}.png": label(n) for n in range(9)}).encode(),
    "nested.json": json.dumps(
        {str(n): {"annotations": {"label": label(n), "segment": [1, 2]}} for n in range(9)}
    ).encode(),
}
del FORMS["metadata.jsonl with more"]


@pytest.mark.parametrize("name", FORMS)
def test_labels_are_read_from_the_list_beside_the_images(name, opened):
    data = opened(IMAGES | {name: FORMS[name]})
    assert data.class_names == ANIMALS
    assert labels_of(data) == {f"{n}.png": label(n) for n in range(9)}
    assert data.split is None
    assert data.problems == ()
    np.testing.assert_array_equal(data.load(data.samples[1]).shape, (3, 4, 3))


@pytest.mark.parametrize(("of_files", "of_list"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_with_accents_are_found_in_either_form(of_files, of_list, opened):
    names = [unicodedata.normalize(of_files, f"é{n}.png") for n in range(4)]
    text = rows_of({"file": lambda n: f"é{n}.png", "label": lambda n: "ÄÖ"[n % 2]}, range(4)).decode()
    data = opened(
        {f"images/{name}": png(n) for n, name in enumerate(names)}
        | {"list.csv": unicodedata.normalize(of_list, text).encode()}
    )
    assert data.class_names == ("Ä", "Ö")
    assert [s.key for s in data.samples] == [names[0], names[2], names[1], names[3]]


def test_captions_are_told_to_be_no_labels(opened):
    text = rows_of({"file_name": lambda n: f"images/{n}.png", "text": lambda n: f"a photo of animal {n}"})
    with pytest.raises(
        DatasetError, match=r"'.*metadata\.csv' names files, but no column of it can be the labels: 'text'"
    ):
        opened(IMAGES | {"metadata.csv": text})


@pytest.mark.parametrize("names", [True, False])
def test_metadata_in_parquet_is_read_with_its_class_names(names, opened, tmp_path):
    data = opened(IMAGES | {"metadata.parquet": parquet(tmp_path, names)})
    assert data.class_names == (ANIMALS if names else ("0", "1", "2"))
    assert data.columns == ("file_name", "label")


def test_a_list_and_a_folder_of_it_have_the_same_digest_and_another_with_other_labels(tmp_path, settings):
    first = IMAGES | {"labels.csv": FORMS["labels.csv"]}
    other = IMAGES | {"labels.csv": FORMS["labels.csv"].replace(b"0.png,cat", b"0.png,dog")}
    places = [
        write_tree(tmp_path / "a", first),
        write_zip(tmp_path / "a.zip", first),
        write_tree(tmp_path / "b", other),
    ]
    digests = [open_dataset(str(place), settings=settings).digest for place in places]
    assert digests[0] == digests[1] != digests[2]


def test_what_does_not_fit_is_counted_and_told(opened):
    text = FORMS["labels.csv"] + lines("99.png,cat", "98.png,dog", "7.png,cat", "only one cell") + b"6.png,\n"
    data = opened(
        {name: content for name, content in IMAGES.items() if "8" not in name}
        | {"labels.csv": text.replace(b"5.png,owl\n", b""), "clip.mp4": videos("x")["x"]}
    )
    reasons = [problem.reason for problem in data.problems]
    assert sorted(labels_of(data)) == ["0.png", "1.png", "2.png", "3.png", "4.png", "6.png"]
    assert reasons == [
        "3 of 12 rows name no file here, or one of several, such as '8.png'; left out. Add the files, or remove the "
        "rows.",
        "1 of 12 rows have no label; left out. Add it, or remove the rows.",
        "1 line with another number of columns than most; left out. Mend them.",
        "1 file with several labels in the list; left out. Keep one row of each.",
        f"1 image without a row in {data.problems[0].subject!r}; left out. Add rows, or remove the files.",
        "1 video left out, for most rows are of images. Keep one kind.",
    ]


SPLITS = {
    "names of lists": {
        "train.csv": rows_of({"id": lambda n: f"{n}.png", "label": label}, range(6)),
        "test.csv": rows_of({"id": lambda n: f"{n}.png", "label": label}, range(6, 9)),
        "sample_submission.csv": rows_of({"id": lambda n: f"{n}.png", "label": lambda n: 0}, range(6, 9)),
    },
    "a column": {"all.csv": rows_of({"id": str, "label": label, "split": lambda n: "train" if n < 6 else "TEST"})},
    "a column of Kinetics": {
        "k.csv": rows_of({"label": label, "youtube_id": str, "split": lambda n: "train" if n < 6 else "test"})
    },
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_are_told_by_the_list(case, opened):
    files = IMAGES | SPLITS[case]
    train, test = opened(files), opened(files, split="test")
    assert (train.split, train.splits) == ("train", ("train", "test"))
    assert labels_of(train) == {f"{n}.png": label(n) for n in range(6)}
    assert labels_of(test) == {f"{n}.png": label(n) for n in range(6, 9)}
    assert train.class_names == test.class_names == ANIMALS


@pytest.mark.parametrize("lists", ["a list of each", "one list"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("train_images", "test_images")])
def test_splits_are_told_by_the_folders_of_the_files(train, test, lists, opened):
    places = {**dict.fromkeys(range(6), train), **dict.fromkeys(range(6, 12), test)}
    files = {f"{folder}/{n % 6}.png": png(n) for n, folder in places.items()}
    if lists == "one list":
        made = {"labels.csv": rows_of({"file": lambda n: f"{places[n]}/{n % 6}.png", "label": label}, range(12))}
    else:
        # The same names in both folders: each list means the files beside it.
        made = {
            f"{folder}/metadata.csv": rows_of(
                {"file_name": lambda n: f"{n}.png", "label": lambda n, of=of: label(n + of)}, range(6)
            )
            for of, folder in enumerate((train, test))
        }
    data = opened(files | made, split="test")
    assert (data.splits, data.split) == (("train", "test"), "test")
    shift = lists != "one list"
    assert labels_of(data) == {f"{test}/{n}.png": label(n + shift) for n in range(6)}


def test_several_label_columns_are_offered_and_chosen(opened):
    text = rows_of({"file_name": lambda n: f"images/{n}.png", "animal": label, "size": lambda n: "SM"[n % 2]})
    files = IMAGES | {"list.csv": text}
    with pytest.raises(
        UnclearColumn, match=r"list\.csv' has 2 columns .*: 'animal', 'size'\. Choose one \(--label-col"
    ):
        opened(files)
    info = opened(files, describe=True)
    assert (info.label_columns, info.label_column) == (("animal", "size"), None)
    data = opened(files, label_column="size")
    assert (data.class_names, data.columns) == (("M", "S"), ("file_name", "size"))
    again = opened(files, media_column="file_name", label_column="size")
    assert (again.digest, again.samples) == (data.digest, data.samples)
    info = opened(files, describe=True, label_column="size")
    assert (info.label_columns, info.label_column, info.media_column) == (("animal", "size"), "size", "file_name")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "nope"}, r"list\.csv' has no column 'nope'; it has 'file', 'label', 'about', 'x'"),
        (
            {"label_column": "about"},
            r"column 'about' of '.*list\.csv' cannot be the label column: .* Columns that can: 'label'",
        ),
        ({"label_column": "x"}, r"column 'x' of '.*list\.csv' cannot be the label column: .* decimal numbers"),
        (
            {"media_column": "label"},
            r"no list has a column 'label' that names files here; the columns are 'file', 'label', 'about', 'x'",
        ),
    ],
)
def test_a_column_that_cannot_be_is_refused(options, message, opened):
    text = rows_of(
        {"file": lambda n: f"{n}.png", "label": label, "about": lambda n: f"number {n}", "x": lambda n: n / 8}
    )
    with pytest.raises(DatasetError, match=message):
        opened(IMAGES | {"list.csv": text}, **options)


def test_class_folders_name_the_classes_unless_the_list_is_metadata_with_labels(opened):
    files = {f"{label(n)}/{n}.png": png(n) for n in range(9)}
    other = rows_of({"file_name": lambda n: f"{label(n)}/{n}.png", "width": lambda n: n % 2})
    data = opened(files | {"list.csv": other, "same.csv": rows_of({"id": lambda n: f"{n}.png", "animal": label})})
    assert data.class_names == ANIMALS
    reasons = {p.subject.rpartition("/")[2]: p.reason for p in data.problems}
    assert reasons["list.csv"] == (
        "The folders name the classes. To read this list instead, choose its label column: 'width'."
    )
    assert reasons["same.csv"].startswith("Not an image")
    assert opened(files | {"metadata.csv": other}, label_column="width").class_names == ("0", "1")
    called = other.replace(b"width", b"label")
    assert opened(files | {"metadata.csv": called}).class_names == ("0", "1")


def test_files_beside_each_image_are_no_lists_and_notes_may_be_anything(opened):
    boxes = {f"images/{n}.txt": b"0 0.5 0.5 1 1\n" for n in range(60)} | {"notes.txt": b"caf\xe9", "b.json": b"{"}
    assert opened(IMAGES | boxes | {"labels.csv": FORMS["labels.csv"]}).class_names == ANIMALS
    with pytest.raises(DatasetError, match=r"only one class, 'images'.* or a metadata\.csv with the columns"):
        opened(IMAGES | boxes | {"labels.csv": b""})


def test_a_few_files_beside_images_are_no_lists_either(opened):
    boxes = {f"labels/{split}/{n}.txt": b"0 0.5 0.5 1 1\n" for split in ("train", "val") for n in range(3)}
    images = {f"images/{split}/{n}.png": png(n) for split in ("train", "val") for n in range(3)}
    with pytest.raises(DatasetError, match="has no class folders: images lie directly in 'train', 'val'"):
        opened(images | boxes)


def test_labels_may_be_numbers_that_files_are_called_too(opened):
    text = rows_of({"file_name": "{}.png".format, "label": lambda n: n % 3}, range(6))
    data = opened({f"{n}.png": png(n) for n in range(6)} | {"metadata.csv": text})
    assert (data.class_names, data.columns) == (("0", "1", "2"), ("file_name", "label"))


def test_two_lists_of_one_split_are_told(opened):
    files = IMAGES | {"a.csv": FORMS["labels.csv"], "b.csv": FORMS["labels.csv"]}
    with pytest.raises(
        DatasetError, match=r"has 2 lists of labels: '.*a\.csv', '.*b\.csv'\. Give the path of one of them"
    ):
        opened(files)


def test_rows_that_several_files_fit_are_left_out(opened):
    files = {f"{folder}/{n}.png": png(n) for folder in "xy" for n in range(4)} | {"z/9.png": png(9), "z/8.png": png(8)}
    text = rows_of({"id": str, "label": label}, [0, 1, 8, 9])
    data = opened(
        {f"images/{name}": content for name, content in files.items()} | {"labels.csv": text}, label_column="label"
    )
    assert labels_of(data) == {"8.png": "owl", "9.png": "cat"}
    assert "2 of 4 rows name no file here, or one of several, such as '0'" in data.problems[0].reason


def test_a_name_in_another_folder_is_not_taken_for_the_file(opened):
    files = {"all/train/1.png": png(1), "all/train/2.png": png(2), "all/train/3.png": png(3)}
    text = lines("path,label", "val/1.png,cat", "val/2.png,dog", "val/3.png,cat")
    with pytest.raises(DatasetError, match="images lie directly in 'train'"):
        opened(files | {"labels.csv": text})


# Videos


KINETICS = [f"videos/{'abc'[n % 3]}{n:010}_000010_000020.mp4" for n in range(9)]


def kinetics(n):
    return KINETICS[n].split("/")[1].split("_")[0]


VIDEO_LISTS = {
    "VideoMAE": {"train.csv": lines(*(f"{path} {n % 3}" for n, path in enumerate(KINETICS)))},
    "VideoMAE with full paths": {
        "train.csv": lines(*(f"/data/k400/{path} {n % 3}" for n, path in enumerate(KINETICS)))
    },
    "mmaction": {
        "kinetics_train_list.txt": lines(*(f"{path.split('/')[1]} {n % 3}" for n, path in enumerate(KINETICS)))
    },
    "frames": {"train.txt": lines(*(f"{path} {100 + n} {n % 3}" for n, path in enumerate(KINETICS)))},
    "old Mac": {"train.csv": b"\r".join(f"{path},{n % 3}".encode() for n, path in enumerate(KINETICS))},
    "commas": {"train.csv": lines(*(f"{path},{n % 3}" for n, path in enumerate(KINETICS)))},
    "Kinetics": {
        "train.csv": rows_of(
            {
                "label": lambda n: n % 3,
                "youtube_id": kinetics,
                "time_start": lambda n: 10,
                "time_end": lambda n: 20,
                "split": lambda n: "train",
                "is_cc": lambda n: n % 2,
            }
        )
    },
    "ids": {
        "train.json": json.dumps([{"id": kinetics(n) + "_000010_000020", "label": n % 3} for n in range(9)]).encode()
    },
}


@pytest.mark.parametrize("case", VIDEO_LISTS)
def test_lists_of_videos_are_read(case, opened):
    data = opened(videos(*KINETICS) | VIDEO_LISTS[case] | {"label_map.txt": lines("air drumming", "bowling", "yoga")})
    assert (data.media, data.split) == ("clip", "train")
    assert data.class_names == ("air drumming", "bowling", "yoga")
    assert [s.label for s in sorted(data.samples, key=lambda s: s.key[1:])] == [n % 3 for n in range(9)]
    assert data.load(data.samples[0]).shape == (64, 96, 3)


def test_paths_of_lines_may_hold_spaces(opened):
    paths = [f"{name}/{n} b.mp4" for name in ("air drumming", "yoga") for n in range(3)]
    data = opened(videos(*paths) | {"train.txt": lines(*(f"{path} {n // 3}" for n, path in enumerate(paths)))})
    assert data.class_names == ("air drumming", "yoga")
    assert [s.key for s in data.samples] == paths


@pytest.mark.parametrize(
    ("line", "class_names"),
    [
        ("videos/a{}.mp4 {} riding", ("bike riding", "horse riding")),
        ("videos/a{}.mp4 {} and back again", ("bike and back again", "horse and back again")),
        ("a{} 30 {}", ("bike", "horse")),
        ("a{}.mp4 0 2.5 {}", ("bike", "horse")),
        ("one, two a{}.mp4 {}", ("bike", "horse")),
    ],
)
def test_lines_may_hold_labels_of_words_and_paths_with_commas(line, class_names, opened):
    paths = [line.format(n, "").split(".mp4")[0].split(" 30")[0] + ".mp4" for n in range(6)]
    paths = [path if path.startswith("videos/") else f"videos/{path}" for path in paths]
    text = lines(*(line.format(n, ("horse", "bike")[n % 2]) for n in range(6)))
    data = opened(videos(*paths) | {"train.txt": text})
    assert (data.class_names, data.labels.tolist()) == (class_names, [0] * 3 + [1] * 3)


def test_something_something_is_read_with_its_templates_and_its_map(opened):
    templates = ["Pushing [something] left", "Covering [something] with [something]", "Holding [something]"]
    rows = [
        {"id": str(n), "label": f"pushing thing {n}", "template": templates[n % 3], "placeholders": ["a"]}
        for n in range(9)
    ]
    names = {
        "Holding something": "0",
        "Pushing something left": "1",
        "Covering something with something": "2",
        "Other": "3",
    }
    files = videos(*(f"20bn/{n}.webm" for n in range(9))) | {
        "labels/train.json": json.dumps(rows[:6]).encode(),
        "labels/validation.json": json.dumps(rows[6:]).encode(),
        "labels/test.json": json.dumps([{"id": "7"}, {"id": "8"}]).encode(),
        "labels/labels.json": json.dumps(names).encode(),
    }
    data = opened(files)
    assert data.class_names == tuple(names)[:3]
    assert (data.splits, data.columns) == (("train", "val"), ("id", "template"))
    assert labels_of(data)["0.webm"] == "Pushing something left"


def test_ucf101_lists_count_from_one(opened):
    names = ["ApplyEyeMakeup", "Archery", "Bowling"]
    paths = [f"{names[n % 3]}/v_{names[n % 3]}_g{n:02}_c01.avi" for n in range(9)]
    files = videos(*(f"UCF-101/{path}" for path in paths)) | {
        "split/trainlist01.txt": lines(*(f"{path} {n % 3 + 1}" for n, path in enumerate(paths[:6]))),
        "split/testlist01.txt": lines(*paths[6:]),
        "split/classInd.txt": lines(*(f"{n} {name}" for n, name in enumerate(names, 1))),
    }
    data = opened(files, label_column="column 2")
    assert data.class_names == tuple(names)
    assert len(data.samples) == 6
    del files["split/classInd.txt"]
    # Where each class has its own folder, this names it.
    assert opened(files, label_column="column 2").class_names == tuple(names)


# A list as the dataset


def test_a_list_is_a_dataset_with_the_lists_of_other_splits(tmp_path, settings):
    root = write_tree(
        tmp_path / "k400",
        videos(*KINETICS)
        | {
            "train.csv": lines(*(f"{path} {n % 3}" for n, path in enumerate(KINETICS[:6]))),
            "val.csv": lines(*(f"{path} {n % 3}" for n, path in enumerate(KINETICS[6:], 6))),
            "train_small.csv": lines(f"{KINETICS[0]} 2"),
        },
    )
    data = open_dataset(str(root / "train.csv"), settings=settings)
    assert (data.id, data.split, data.splits, len(data.samples)) == ("train.csv", "train", ("train", "val"), 6)
    assert open_dataset(str(root / "val.csv"), settings=settings).split == "val"
    other = open_dataset(str(root / "train.csv"), SourceOptions(split="val"), settings=settings)
    assert (other.split, len(other.samples)) == ("val", 3)
    info = describe_source(str(root / "val.csv"), settings=settings)
    assert (info.kind, info.split, info.label_column, info.num_rows) == ("list of files", "val", "column 2", 3)


@pytest.mark.parametrize("paths", ["full", "beside", "above", "bare"])
def test_paths_of_a_list_begin_in_its_folder_or_are_full(paths, tmp_path, settings):
    root = write_tree(tmp_path / "data", videos(*KINETICS))
    folder = {"above": root / "lists"}.get(paths, root)
    folder.mkdir(exist_ok=True)
    start = {"full": f"{root}/", "above": "../"}.get(paths, "")
    names = [path.split("/")[1][:-4] if paths == "bare" else f"{start}{path}" for path in KINETICS]
    (folder / "list.txt").write_bytes(lines(*(f"{name} {n % 3}" for n, name in enumerate(names))))
    data = open_dataset(str(folder / "list.txt"), settings=settings)
    assert (data.class_counts.tolist(), data.splits) == ([3, 3, 3], ())
    assert {s.key for s in data.samples} == {path.split("/")[1] for path in KINETICS}
    assert data.load(data.samples[0]).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"'list\.csv' names no images or videos that are here, or no labels\. Expected a csv"),
        (b"a.mp4 1\nb.mp4 2\n", "names no images or videos that are here"),
        (b"\xff\xe9\xe8,1\n", r"'list\.csv' is not valid UTF-8 \(byte 0\).*Save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", r"'list\.csv' is a Git LFS pointer"),
        (b'"' + b"x" * 200_000 + b'",1\n', r"'list\.csv' is damaged \(field larger"),
    ],
)
def test_a_list_that_cannot_be_read_is_told(content, message, tmp_path, settings):
    root = write_tree(tmp_path, videos("videos/1.mp4", "videos/2.mp4") | {"list.csv": content})
    with pytest.raises(DatasetError, match=message):
        open_dataset(str(root / "list.csv"), settings=settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"'a\.json' is not valid JSON"),
        ("a.json", b"[" * 100_000, r"'a\.json' is not valid JSON"),
        ("a.json", b"3", "holds neither a list nor an object"),
        ("a.jsonl", b"{}\n{", "is not valid JSON"),
        ("metadata.parquet", b"PAR1", r"'metadata\.parquet' begins like a Parquet file but its end is missing"),
        ("a.csv", b"a,b\n" * 1_000_001, "has more than 1,000,000 rows, the most that are read"),
        ("a.csv", b"a,b" * 400_000, r"has a line of 1,200,000 characters; at most 1,000,000"),
        ("a.json", b"[" + b"{}," * 4_000_000 + b"{}]", r"has 8,000,002 values; at most 6,000,000"),
        ("a.csv", bytes(33 * 2**20), r"has more than 33\.6 MB"),
    ],
)
def test_damaged_and_endless_lists_are_refused(name, content, message):
    with pytest.raises(DatasetError, match=message):
        read_list(name, content, {})


def test_metadata_that_unpacks_to_too_much_is_refused(tmp_path):
    same = pa.array(["x" * 1000] * 50_000)
    path = write(
        tmp_path / "metadata.parquet",
        pa.table({"file_name": same, "label": same}),
        use_dictionary=False,
        compression="zstd",
        row_group_size=50_000,
    )
    with pytest.raises(DatasetError, match=r"'metadata\.parquet' would unpack to \d+\.\d MB or more"):
        read_list("metadata.parquet", path.read_bytes(), {})


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("labels.json", b'{"a": "0", "b": 1}', {0: "a", 1: "b"}),
        ("labels.json", b'{"0": "a", "1": "b"}', {0: "a", 1: "b"}),
        ("labels.json", b'["a", "b"]', {0: "a", 1: "b"}),
        ("label_map.txt", b"a b\nc\n", {0: "a b", 1: "c"}),
        ("classInd.txt", b"1 A\r\n2 B c\r\n", {1: "A", 2: "B c"}),
        ("labels.csv", b"id,name\n0,a\n1,b, c\n", {0: "a", 1: "b, c"}),
        ("labels.json", b'{"0": "a", "1": "a"}', {}),
        ("labels.json", b"{", {}),
        ("labels.txt", b"\xff", {}),
    ],
)
def test_names_of_numbers_are_read(name, content, names):
    assert read_class_names(name, content) == names


def test_text_that_all_rows_share_is_read_once(tmp_path, run_python):
    # 2 GB if every row got a copy of its own.
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 2**21]))
    content = table(
        {"file_name": [f"{n}.png" for n in range(1000)], "label": [n % 2 for n in range(1000)], "x": shared}
    )
    options = {"row_group_size": 1000, "compression": "NONE", "dictionary_pagesize_limit": 2**24, "store_schema": False}
    path = write(tmp_path / "metadata.parquet", content, **options)
    program = f"""
import pyarrow as pa
from pathlib import Path
from labelrank.data.list_files import read_list
rows = read_list("metadata.parquet", Path({str(path)!r}).read_bytes(), {{}})
print(rows.num_rows, len(rows.columns["x"][999]), pa.default_memory_pool().max_memory() < 50 * 2**20)
"""
    assert run_python(program) == "1000 4096 True"


def test_names_that_no_file_can_have_are_no_files(tmp_path, settings):
    rows = [f"{n}.png {n % 3}" for n in range(6)] + [f"{'9' * 5000}.png 1", "a\0b.png 2"]
    write_tree(tmp_path, {f"{n}.png": png(n) for n in range(6)} | {"train.txt": lines(*rows)})
    data = open_dataset(str(tmp_path / "train.txt"), settings=settings)
    assert len(data.samples) == 6
