"""What holds for every source of data, wherever it lies."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from labelrank.data import EMBEDDED, SourceOptions, describe_source, open_dataset
from labelrank.data.dataset import ClipSampling
from labelrank.data.source import SPLIT_WORDS
from labelrank.data.uploads import save_upload
from labelrank.errors import DatasetError, HubError, MediaError
from tests.helpers.datasets import png, write_tar, write_tree, write_zip
from tests.helpers.tables import class_label, save_to_disk, table, write

pytest_plugins = ["tests.helpers.hub_server"]

CLASSES = ("cat", "dog", "eel")
# The same images, under the same names, in every source.
PICTURES = {f"train/{name}/{n:02}.png": png(10 * c + n) for c, name in enumerate(CLASSES) for n in range(8)}
BROKEN = "train/eel/99.png"
SOURCES = [
    "digits",
    "moving-digits",
    "folder",
    "zip",
    "listed folder",
    "listed zip",
    "list",
    "table",
    "table of texts",
    "uploaded zip",
    "uploaded table",
    "hive folder",
    "saved folder",
    "folder of shards",
    "tar of class folders",
    "uploaded tar",
    "hub shards",
    "hub table",
    "hub hive",
    "converted hub table",
    "hub zip",
    "hub folders",
]
OURS = [source for source in SOURCES if source not in EMBEDDED]
UNDECLARED = ["table of texts", "hive folder", "hub hive"]
IN_PARTS = ["hive folder", "hub hive", "folder of shards", "hub shards"]
REPO = "me/pets"


def as_table(files=None, *, texts=False, without_path=None):
    """Return the images as the datasets library converts a folder: of each path, the file's name is kept."""
    files = {**PICTURES, BROKEN: b"not an image"} if files is None else files
    names = [path.split("/")[1] for path in files]
    rows = pa.array(
        [{"bytes": data, "path": None if p == without_path else p.split("/")[-1]} for p, data in files.items()]
    )
    if texts:
        return table({"image": rows, "label": names})
    labels = [CLASSES.index(name) for name in names]
    return table({"image": rows, "label": labels}, {"image": {"_type": "Image"}, "label": class_label(CLASSES)})


@pytest.fixture(params=SOURCES)
def source(request):
    return request.param


@pytest.fixture
def name(source, tmp_path, settings, hub):
    """The name under which `open_dataset` finds the source."""
    root = tmp_path / "data"
    root.mkdir()
    files = {**PICTURES, BROKEN: b"not an image"}
    if source in EMBEDDED:
        return source
    if "list" in source:
        rows = [f"{path},{path.split('/')[1]},{n % 5}" for n, path in enumerate(files)]
        files["metadata.csv"] = "\n".join(["file_name,label,size", *rows]).encode()
    if source in ("folder", "listed folder", "list"):
        write_tree(root, files)
        return str(root / "metadata.csv" if source == "list" else root)
    if source in ("zip", "listed zip", "uploaded zip", "hub zip"):
        path = write_zip(root / "pets.zip", files, zipfile.ZIP_STORED)
    elif source in ("folder of shards", "hub shards"):
        shards = [{}, {}]
        for n, (path, data) in enumerate(files.items()):
            name = path.removeprefix("train/")
            shards[n % 2] |= {name: data, f"{name[:-4]}.cls": str(CLASSES.index(path.split("/")[1])).encode()}
        for n, shard in enumerate(shards):
            write_tar(root / f"pets-train-{n:06}.tar", shard)
        (root / "classes.txt").write_text("\n".join(CLASSES))
        if source == "folder of shards":
            return str(root)
        path = None
        hub.add("dataset", REPO, {p.name: p for p in root.iterdir()})
    elif source == "tar of class folders":
        return str(write_tar(root / "pets.tar", files))
    elif source == "uploaded tar":
        path = write_tar(root / "pets.tar", files)
    elif source == "saved folder":
        return str(save_to_disk(root, {"train": as_table()}, rows=7))
    elif source.endswith(("hive", "hive folder")):
        for label in CLASSES:
            kept = {path: data for path, data in files.items() if path.split("/")[1] == label}
            rows = as_table(kept).drop_columns(["label"]).replace_schema_metadata(None)
            write(root / "split=train" / f"label={label}" / "part-0.parquet", rows)
        path = None
        if source == "hub hive":
            tables = {p.relative_to(root).as_posix(): p for p in root.rglob("*.parquet")}
            hub.add("dataset", REPO, tables)
        else:
            return str(root)
    elif source == "hub folders":
        path = None
        hub.add("dataset", REPO, files)
    else:
        path = write(root / "train.parquet", as_table(texts=source == "table of texts"), row_group_size=7)
    if source.startswith("uploaded"):
        with path.open("rb") as stream:
            return save_upload(stream, settings=settings)
    if source.startswith("hub") and path:
        hub.add("dataset", REPO, {path.name: path})
    if source.startswith("converted"):
        hub.add("dataset", REPO, {"README.md": "Pets."})
        hub.add("dataset", REPO, {"default/train/0000.parquet": path}, revision="refs/convert/parquet")
    return REPO if "hub" in source else str(path)


def test_source_keeps_what_a_dataset_promises(name, source, settings):
    data = open_dataset(name, settings=settings)
    again = open_dataset(name, settings=settings)
    assert data.digest == again.digest
    assert len(data.digest) == 64
    assert data.samples == again.samples
    assert len({s.key for s in data.samples}) == len(data.samples)
    assert set(data.labels.tolist()) == set(range(len(data.class_names)))
    assert data.class_counts.sum() == len(data.samples)
    assert data.split is None or data.split in data.splits
    chosen = data.select(2, seed=4)
    assert set(chosen.class_counts.tolist()) == {2}
    assert chosen.samples == again.select(2, seed=4).samples
    assert data.media == ("clip" if source == "moving-digits" else "image")
    if data.fetch:
        data.fetch(chosen.samples, None, None)
    for sample in chosen.samples:
        if sample.key == BROKEN:
            continue
        image = data.load(sample)
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        if data.load_clips:
            assert data.load_clips(sample, ClipSampling(4, 1, 2)).shape == (2, 4, *image.shape)


def test_description_says_what_opening_gives(name, source, settings):
    info, data = describe_source(name, settings=settings), open_dataset(name, settings=settings)
    assert (info.id, info.config, info.split, info.splits) == (data.id, data.config, data.split, data.splits)
    # Without a feature only the content tells whether a column holds images or videos; it is not read for this.
    assert info.media == (None if source in UNDECLARED else data.media)
    assert info.revision == data.revision
    assert (info.media_column, info.label_column) == (data.columns or (None, None))
    # One footer is read, and not all of them count the rows of several files.
    assert info.num_rows in (len(data.samples), None if source in IN_PARTS else len(data.samples))


@pytest.mark.parametrize("source", OURS)
def test_same_pictures_give_the_same_classes_keys_and_selection(name, settings):
    data = open_dataset(name, settings=settings)
    assert data.class_names == CLASSES
    assert {s.key: CLASSES[s.label] for s in data.samples} == {p: p.split("/")[1] for p in [*PICTURES, BROKEN]}
    for sample in data.samples:
        if sample.key != BROKEN:
            expected = np.asarray(Image.open(io.BytesIO(PICTURES[sample.key])))
            np.testing.assert_array_equal(data.load(sample), expected)
    # Drawn by the hash of seed and key, so written here once for all sources.
    drawn = {"cat/00.png", "cat/05.png", "dog/00.png", "dog/04.png", "eel/00.png", "eel/99.png"}
    assert {s.key for s in data.select(2, seed=7).samples} == {f"train/{name}" for name in drawn}


@pytest.mark.parametrize("source", OURS)
def test_unreadable_picture_is_named_and_the_rest_kept(name, settings):
    data = open_dataset(name, settings=settings)
    broken = next(s for s in data.samples if s.key == BROKEN)
    with pytest.raises(MediaError, match=rf"{BROKEN}.* starts with 6e6f7420; expected a JPEG"):
        data.load(broken)


def test_table_with_a_row_without_a_path_has_rows_as_keys(tmp_path, settings):
    path = write(tmp_path / "train.parquet", as_table(without_path="train/dog/03.png"))
    data = open_dataset(str(path), settings=settings)
    assert [s.key for s in data.samples] == [f"row-{n:08}" for n in range(len(PICTURES) + 1)]


def test_folder_zip_and_table_of_the_same_splits_draw_the_same_samples(tmp_path, settings):
    files = {f"{split}/{name}/{n}.png": png(n) for split in ("train", "val") for name in CLASSES for n in range(12)}
    rows = {split: [path for path in files if path.startswith(split)] for split in ("train", "val")}
    for split, paths in rows.items():
        pictures = pa.array([{"bytes": files[path], "path": path.split("/")[-1]} for path in paths])
        labels = [CLASSES.index(path.split("/")[1]) for path in paths]
        features = {"image": {"_type": "Image"}, "label": class_label(CLASSES)}
        name = {"val": "validation"}.get(split, split)
        content = table({"image": pictures, "label": labels}, features)
        write(tmp_path / "table" / "data" / f"{name}-00000-of-00001.parquet", content)
    places = [
        write_tree(tmp_path / "folder", files),
        write_zip(tmp_path / "pets.zip", files),
        tmp_path / "table",
    ]
    for split in rows:
        drawn = [
            {
                s.key
                for s in open_dataset(str(place), SourceOptions(split=split), settings=settings)
                .select(3, seed=5)
                .samples
            }
            for place in places
        ]
        assert drawn[0] == drawn[1] == drawn[2]
        assert len(drawn[0]) == 9


def test_split_that_is_not_there_is_named(name, settings):
    with pytest.raises(DatasetError, match="split 'nope'"):
        open_dataset(name, SourceOptions(split="nope"), settings=settings)


@pytest.mark.parametrize("option", ["config", "revision", "media_column", "label_column"])
def test_option_that_a_source_does_not_have_is_refused(option, name, settings):
    with pytest.raises((DatasetError, HubError), match=r"\bnope\b"):
        open_dataset(name, SourceOptions(**{option: "nope"}), settings=settings)


def test_digest_is_the_same_here_and_on_the_hub(tmp_path, settings, hub):
    path = write(tmp_path / "train.parquet", as_table(), row_group_size=7)
    zipped = write_zip(tmp_path / "pets.zip", PICTURES)
    folder = write_tree(tmp_path / "folder", PICTURES)
    hub.add("dataset", "me/table", {"data/train-00000-of-00001.parquet": path})
    hub.add("dataset", "me/zip", {"pets.zip": zipped})

    def digest(name):
        return open_dataset(str(name), settings=settings).digest

    assert digest(path) == digest("me/table")
    assert digest(zipped) == digest(folder) == digest("me/zip")
    assert digest(path) != digest(zipped)


def test_words_of_splits_lead_to_the_splits_of_a_dataset():
    assert set(SPLIT_WORDS.values()) == {"train", "val", "test"}
