"""Datasets of the Hub, from a loopback server that speaks its protocol."""

import io
import json
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelrank.data import SourceOptions, card, describe_source, open_dataset
from labelrank.data.dataset import ClipSampling
from labelrank.errors import ArchiveError, Cancelled, DatasetError, HubError
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from tests.helpers.datasets import CATS_AND_DOGS, png, write_tar, write_zip
from tests.helpers.tables import class_label, content, images, pets, table, write

pytest_plugins = ["tests.helpers.hub_server"]

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this computer")

REPO = "me/pets"
CONVERTED = "refs/convert/parquet"


@pytest.fixture
def small_requests(monkeypatch):
    """Count a request as little, so that parts are fetched of the small files of these tests."""
    monkeypatch.setattr("labelrank.data.hub_source._REQUEST_BYTES", 0)
    monkeypatch.setattr("labelrank.data.hub_source._TAIL_BYTES", 20_000)
    monkeypatch.setattr("labelrank.hub.ranges._READ_AHEAD_BYTES", 4096)
    monkeypatch.setattr("labelrank.hub.ranges._GAP_BYTES", 1024)


def big_pets(tmp_path, rows=400, classes=4, row_group_size=20):
    """Return the path of a table of a few MB whose row groups each hold all classes."""
    rng = np.random.default_rng(0)

    def noise():
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    features = {"image": {"_type": "Image"}, "label": class_label([f"c{n}" for n in range(classes)])}
    column = [{"bytes": noise(), "path": None} for _ in range(rows)]
    return write(
        tmp_path / "source" / "train-00000-of-00001.parquet",
        table({"image": column, "label": [n * classes // rows for n in range(rows)]}, features),
        row_group_size=row_group_size,
    )


def storage_bytes(hub):
    return hub.bytes_sent("storage")


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_table_of_the_hub_is_the_dataset_that_a_local_copy_is(hub, settings, tmp_path):
    path = write(tmp_path / "copy" / "data" / "train-00000-of-00001.parquet", pets(20))
    test = write(tmp_path / "copy" / "data" / "test-00000-of-00001.parquet", pets(5))
    readme = "---\nlicense: mit\n---\nPets."
    files = {"README.md": readme, **{f"data/{p.name}": p for p in (path, test)}}
    hub.add("dataset", REPO, files)
    there, here = open_dataset(REPO, settings=settings), open_dataset(str(tmp_path / "copy"), settings=settings)
    assert (there.class_names, there.samples, there.digest) == (here.class_names, here.samples, here.digest)
    assert (there.id, there.split, there.splits, there.config) == (REPO, "train", ("train", "test"), None)
    assert len(there.revision) == 40
    assert there.select(2, seed=3).samples == here.select(2, seed=3).samples
    for a, b in zip(there.samples, here.samples, strict=True):
        np.testing.assert_array_equal(there.load(a), here.load(b))
    assert len(open_dataset(REPO, SourceOptions(split="test"), settings=settings).samples) == 5
    info = describe_source(REPO, settings=settings)
    assert (info.licence, info.kind, info.split, info.num_rows) == ("mit", "Parquet", "train", 20)
    assert (info.label_column, info.size_bytes) == ("label", path.stat().st_size)
    assert info.revision == there.revision


def test_few_samples_need_few_bytes(hub, settings, tmp_path, small_requests):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    data = open_dataset(REPO, settings=settings)
    opening = storage_bytes(hub)
    assert opening < path.stat().st_size / 10
    first_rows = [s for s in data.samples if int(s.key[4:]) < 40]
    stages = []
    data.fetch(first_rows, lambda done, total, stage: stages.append((done, total, stage)), None)
    fetched = storage_bytes(hub)
    assert path.stat().st_size / 20 < fetched - opening < path.stat().st_size / 5
    source = pq.read_table(path)["image"].to_pylist()
    for sample in first_rows:
        expected = np.asarray(Image.open(io.BytesIO(source[int(sample.key[4:])]["bytes"])))
        np.testing.assert_array_equal(data.load(sample), expected)
    assert storage_bytes(hub) == fetched
    assert stages[-1][0] == stages[-1][1]
    assert stages[-1][2] == Stage(Kind.DOWNLOAD, "Downloading the samples", "bytes")


def test_reading_works_without_fetching_first(hub, settings, tmp_path, small_requests):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    data = open_dataset(REPO, settings=settings)
    expected = np.asarray(Image.open(io.BytesIO(pq.read_table(path)["image"][399].as_py()["bytes"])))
    np.testing.assert_array_equal(data.load(data.samples[399]), expected)
    assert storage_bytes(hub) < path.stat().st_size / 5


def test_whole_file_is_kept_when_most_of_it_is_needed(hub, settings, tmp_path, small_requests):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    data = open_dataset(REPO, settings=settings)
    data.fetch(data.samples, None, None)
    sent = storage_bytes(hub)
    assert sent < path.stat().st_size * 1.2
    hub.stop()
    again = open_dataset(REPO, settings=settings)
    assert again.digest == data.digest
    assert again.load(again.samples[7]).shape == (48, 48, 3)


def test_fetching_goes_on_after_the_connection_was_cut(hub, settings, tmp_path, small_requests):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    data = open_dataset(REPO, settings=settings)
    hub.cut("storage", after=50_000, times=2)
    data.fetch(data.samples, None, None)
    assert data.load(data.samples[200]).shape == (48, 48, 3)


@pytest.mark.parametrize("kept", [0, 64 * 2**20])
def test_network_that_fails_while_reading_is_no_fault_of_the_picture(
    kept, hub, settings, tmp_path, small_requests, monkeypatch
):
    monkeypatch.setattr("labelrank.data.parquet_media._KEPT_GROUP_BYTES", kept)
    hub.add("dataset", REPO, {"train.parquet": big_pets(tmp_path)})
    data = open_dataset(REPO, settings=settings)
    hub.fail("storage", 500, times=100)
    with pytest.raises(HubError, match="HTTP 500"):
        data.load(data.samples[399])
    with pytest.raises(HubError, match="HTTP 500"):
        data.fetch(data.samples[:3], None, None)
    hub.faults.clear()
    assert data.load(data.samples[399]).shape == (48, 48, 3)


def test_stopping_ends_the_download(hub, settings, tmp_path, small_requests):
    hub.add("dataset", REPO, {"train.parquet": big_pets(tmp_path)})
    data = open_dataset(REPO, settings=settings)
    hub.slow("storage", 1.0, times=100)
    with pytest.raises(Cancelled):
        data.fetch(data.samples, None, lambda: True)


def test_conversion_of_the_hub_is_read_where_there_is_no_parquet(hub, settings, tmp_path):
    hub.add("dataset", REPO, {"README.md": "---\nlicense: mit\n---\n", "pets.py": "raise SystemExit"})
    hub.add(
        "dataset",
        REPO,
        {"cats/train/0000.parquet": content(tmp_path / "a.parquet", content=pets(6))},
        revision=CONVERTED,
    )
    data = open_dataset(REPO, settings=settings)
    assert (data.id, data.config, data.split, len(data.samples)) == (REPO, "cats", "train", 6)
    info = describe_source(REPO, settings=settings)
    assert (info.licence, info.revision, info.note) == ("mit", data.revision, None)
    # The commit is one of the conversion, and leads to the same data.
    assert open_dataset(REPO, SourceOptions(revision=data.revision), settings=settings).digest == data.digest
    hub.stop()
    assert open_dataset(REPO, settings=settings).digest == data.digest


def test_partial_conversion_is_told(hub, settings, tmp_path):
    hub.add("dataset", REPO, {"pets.py": ""})
    part = {"default/partial-train/0000.parquet": content(tmp_path / "a.parquet", content=pets(6))}
    hub.add("dataset", REPO, part, revision=CONVERTED)
    assert "first 5 GB" in describe_source(REPO, settings=settings).note
    assert open_dataset(REPO, settings=settings).split == "train"


def test_trouble_of_the_hub_does_not_change_what_is_read(hub, settings, tmp_path):
    hub.add("dataset", REPO, {"pets.zip": write_zip(tmp_path / "pets.zip", CATS_AND_DOGS)})
    hub.fail("convert", 500, times=100)
    with pytest.raises(HubError, match="HTTP 500"):
        open_dataset(REPO, settings=settings)


CARD = """---
license: cc-by-4.0
configs:
- config_name: small
  data_files:
  - split: train
    path: files/a-*
  - split: validation
    path: [files/b.parquet]
- config_name: all
  default: true
  data_files: files/*.parquet
dataset_info:
- config_name: small
  features:
  - name: picture
    dtype: image
  - name: kind
    dtype:
      class_label:
        names:
          '0': oak
          '1': elm
          '10': yew
  - name: size
    dtype: int64
  splits:
  - name: train
    num_examples: 1234
---
"""


def test_card_says_configurations_splits_and_class_names(hub, settings, tmp_path):
    plain = table({"picture": images(4), "kind": [0, 1, 1, 0], "size": [5, 6, 7, 8]})
    file = write(tmp_path / "a.parquet", plain)
    paths = ("files/a-1.parquet", "files/a-2.parquet", "files/b.parquet", "other/c.parquet")
    card = CARD.replace("'10'", "'2'")
    hub.add("dataset", REPO, {"README.md": card, **dict.fromkeys(paths, file)})
    info = describe_source(REPO, SourceOptions(config="small"), settings=settings)
    assert (info.configs, info.config, info.splits, info.split) == (
        ("small", "all"),
        "small",
        ("train", "val"),
        "train",
    )
    assert (info.media_column, info.label_column, info.num_rows) == ("picture", "kind", 1234)
    small = open_dataset(REPO, SourceOptions(config="small"), settings=settings)
    assert small.class_names == ("oak", "elm", "yew")
    assert len(small.samples) == 8
    assert len(open_dataset(REPO, SourceOptions("val", "small"), settings=settings).samples) == 4
    whole = open_dataset(REPO, SourceOptions(label_column="size"), settings=settings)
    assert (whole.config, len(whole.samples)) == ("all", 12)


def test_folder_of_a_card_is_read_by_its_splits(hub, settings, tmp_path):
    card = "---\nconfigs:\n- config_name: big\n  data_dir: ./big/\n- config_name: plain\n  data_dir: plain\n---\n"
    train, test = (write(tmp_path / f"{n}.parquet", pets(n)) for n in (6, 4))
    files = {"big/train-00000-of-00001.parquet": train, "big/test/0.parquet": test, "plain/a.parquet": train}
    hub.add("dataset", REPO, {"README.md": card, **files, "bigger/train.parquet": test})
    data = open_dataset(REPO, SourceOptions(config="big"), settings=settings)
    assert (data.split, data.splits, len(data.samples)) == ("train", ("train", "test"), 6)
    assert len(open_dataset(REPO, SourceOptions("test", "big"), settings=settings).samples) == 4
    plain = open_dataset(REPO, SourceOptions(config="plain"), settings=settings)
    assert (plain.split, plain.splits, len(plain.samples)) == ("train", ("train",), 6)


def test_splits_of_a_card_keep_their_names_where_two_mean_the_same(hub, settings, tmp_path):
    sizes = {"train": 8, "dev": 3, "validation": 4, "test": 5, "eval": 6}
    parts = "".join(f"  - split: {split}\n    path: files/{split}.parquet\n" for split in sizes)
    counts = "".join(f"  - name: {split}\n    num_examples: {n}\n" for split, n in sizes.items())
    card = f"---\nconfigs:\n- config_name: all\n  data_files:\n{parts}dataset_info:\n  splits:\n{counts}---\n"
    files = {f"files/{split}.parquet": write(tmp_path / f"{split}.parquet", pets(n)) for split, n in sizes.items()}
    hub.add("dataset", REPO, {"README.md": card, **files})
    for split, n in sizes.items():
        data = open_dataset(REPO, SourceOptions(split=split), settings=settings)
        assert (data.split, len(data.samples)) == (split, n)
    assert set(data.splits) == set(sizes)


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("data/train-*", ["data/train-0.parquet"], ["data/train/0.parquet", "train-0.parquet", "xdata/train-0"]),
        ("./a.b", ["a.b"], ["axb", "a.b/c"]),
        ("**/a?.parquet", ["a1.parquet", "x/y/a1.parquet"], ["xa1.parquet", "x/a12.parquet", "x/a/.parquet"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a", "ab"]),
        ("a/**/b/*", ["a/b/c", "a/x/y/b/c"], ["a/xb/c", "a/b/c/d"]),
        ("*a*b", ["ab", "aab", "xaxb"], ["ba", "a/b", "abx"]),
    ],
)
def test_patterns_of_a_card_fit_as_in_a_shell(pattern, fitting, others):
    fits = card._glob(pattern)
    assert [path for path in [*fitting, *others] if fits(path)] == fitting


@pytest.mark.parametrize("wild", ["**a", "**/", "*?"])
def test_pattern_of_many_wildcards_takes_no_time(wild):
    started = time.perf_counter()
    fits = card._glob(wild * 40 + "b")
    assert not any(fits("a/" * 60 + "a" * n) for n in range(50))
    assert not card._glob(wild * 10_000)("a" * 200)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "head",
    [
        "configs: 3",
        "configs: [1, {config_name: [x], data_files: {path: 5}}]",
        "configs: [{data_files: [{split: train, path: nothing/*}]}]",
        "dataset_info: [3, {features: 7}]",
        "dataset_info: {features: [{name: label, dtype: {class_label: {names: {a: b}}}}, 5], splits: [1]}",
    ],
)
def test_card_that_is_wrong_leaves_the_files_to_tell(head, hub, settings, tmp_path):
    file = write(tmp_path / "a.parquet", table({"image": images(4), "label": [0, 1, 1, 0]}))
    hub.add("dataset", REPO, {"README.md": f"---\n{head}\n---\n", "data/train-00000-of-00001.parquet": file})
    data = open_dataset(REPO, settings=settings)
    assert (data.class_names, data.split) == (("0", "1"), "train")


def test_describing_takes_few_requests(hub, settings, tmp_path):
    file = write(tmp_path / "a.parquet", pets(50))
    hub.add("dataset", REPO, {f"data/train-{n:05}-of-00040.parquet": file for n in range(40)})
    hub.page_size = 100
    describe_source(REPO, settings=settings)
    assert len(hub.requests) <= 8


def test_table_that_is_not_in_large_file_storage_has_the_digest_of_a_local_copy(hub, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.hub_server.LARGE", set())
    file = write(tmp_path / "copy" / "train.parquet", pets(5))
    hub.add("dataset", REPO, {"train.parquet": file})
    there, here = (open_dataset(name, settings=settings) for name in (REPO, str(file)))
    assert there.digest == here.digest


def test_damaged_table_of_the_hub_is_named(hub, settings):
    hub.add("dataset", REPO, {"train.parquet": b"PAR1 and then nothing of the kind"})
    with pytest.raises(DatasetError, match=r"'train.parquet' .*cut short"):
        open_dataset(REPO, settings=settings)


# --- Zips -------------------------------------------------------------------------------------------------------------


def noisy(seed, edge=64):
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (edge, edge, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def ucf_like(tmp_path, per_class=25):
    """Return the path of a zip laid out as UCF101.zip, and its entries."""
    files = {
        f"PETS/{split}/{name}/v_{n:03}.png": noisy(hash_of(split, name, n))
        for split, count in (("train", per_class), ("val", 2), ("test", 3))
        for name in ("cat", "dog", "eel")
        for n in range(count)
    }
    return write_zip(tmp_path / "PETS.zip", files, zipfile.ZIP_STORED), files


def hash_of(*parts):
    return sum(ord(c) * 31**i for i, c in enumerate("".join(map(str, parts)))) % 2**32


def test_zip_of_class_folders_is_read_in_parts(hub, settings, tmp_path, small_requests):
    path, files = ucf_like(tmp_path)
    hub.add("dataset", REPO, {"README.md": "---\nlicense: mit\n---\n", "PETS.zip": path})
    data = open_dataset(REPO, settings=settings)
    local = open_dataset(str(path), settings=settings)
    assert (data.class_names, data.samples, data.digest) == (local.class_names, local.samples, local.digest)
    assert (data.id, data.config, data.splits, data.split) == (REPO, "PETS", ("train", "val", "test"), "train")
    opening = storage_bytes(hub)
    assert opening < path.stat().st_size / 10
    chosen = data.select(2, seed=1)
    chosen.fetch(chosen.samples, None, None)
    assert storage_bytes(hub) - opening < path.stat().st_size / 5
    sent = storage_bytes(hub)
    for sample in chosen.samples:
        np.testing.assert_array_equal(
            data.load(sample), np.asarray(Image.open(io.BytesIO(files[f"PETS/{sample.key}"])))
        )
    assert storage_bytes(hub) == sent
    assert chosen.samples == local.select(2, seed=1).samples
    info = describe_source(REPO, settings=settings)
    assert (info.kind, info.configs, info.splits, info.num_rows, info.licence) == (
        "zip",
        ("PETS",),
        ("train", "val", "test"),
        75,
        "mit",
    )
    assert info.size_bytes == path.stat().st_size


def test_zip_is_downloaded_whole_when_most_of_it_is_needed(hub, settings, tmp_path, small_requests):
    path, _ = ucf_like(tmp_path)
    hub.add("dataset", REPO, {"PETS.zip": path})
    data = open_dataset(REPO, settings=settings)
    data.fetch(data.samples, None, None)
    assert storage_bytes(hub) < path.stat().st_size * 1.2
    hub.stop()
    again = open_dataset(REPO, settings=settings)
    assert again.samples == data.samples
    assert again.load(again.samples[5]).shape == (64, 64, 3)


def test_several_zips_are_configurations(hub, settings, tmp_path):
    for name in ("birds", "pets"):
        write_zip(tmp_path / f"{name}.zip", CATS_AND_DOGS if name == "pets" else {"a/1.png": png(), "b/1.png": png()})
    hub.add("dataset", REPO, {f"{n}.zip": tmp_path / f"{n}.zip" for n in ("birds", "pets")})
    with pytest.raises(DatasetError, match=r"2 configurations .*'birds', 'pets'. Choose one"):
        open_dataset(REPO, settings=settings)
    data = open_dataset(REPO, SourceOptions(config="pets"), settings=settings)
    assert (data.config, data.class_names, data.split) == ("pets", ("cat", "dog"), None)
    info = describe_source(REPO, settings=settings)
    assert (info.configs, info.config) == (("birds", "pets"), None)


@pytest.mark.parametrize("root", ["", "test/"])
def test_zips_called_like_splits_are_splits(root, hub, settings, tmp_path):
    inside = {f"{root}{path}": data for path, data in CATS_AND_DOGS.items()}
    files = {
        "data/train.zip": write_zip(tmp_path / "train.zip", CATS_AND_DOGS),
        "data/test.zip": write_zip(tmp_path / "test.zip", inside),
    }
    hub.add("dataset", REPO, files)
    data = open_dataset(REPO, settings=settings)
    assert (data.split, data.splits, data.config) == ("train", ("train", "test"), None)
    test = open_dataset(REPO, SourceOptions(split="test"), settings=settings)
    assert (test.split, test.splits, len(test.samples)) == ("test", ("train", "test"), 3)


def test_labels_are_the_same_in_the_zips_of_all_splits(hub, settings, tmp_path):
    of_test = {f"{name}/1.png": png() for name in ("ant", "dog")}
    zips = {"train.zip": write_zip(tmp_path / "a.zip", CATS_AND_DOGS), "test.zip": write_zip(tmp_path / "b", of_test)}
    hub.add("dataset", REPO, zips)
    train, test = (open_dataset(REPO, SourceOptions(split=split), settings=settings) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("ant", "cat", "dog")
    assert (train.class_counts.tolist(), test.class_counts.tolist()) == ([0, 2, 1], [1, 0, 1])
    assert [p.subject for p in train.problems] == ["ant"]


def test_unsafe_zip_of_the_hub_is_refused(hub, settings, tmp_path):
    path = write_zip(tmp_path / "pets.zip", {**CATS_AND_DOGS, "../evil.png": png()})
    hub.add("dataset", REPO, {"pets.zip": path})
    with pytest.raises(ArchiveError, match="leaves its folder"):
        open_dataset(REPO, settings=settings)


def test_columns_of_a_zip_are_refused(hub, settings, tmp_path):
    hub.add("dataset", REPO, {"pets.zip": write_zip(tmp_path / "pets.zip", CATS_AND_DOGS)})
    with pytest.raises(DatasetError, match="Label column 'x' was asked for, but 'me/pets' is a zip of class folders"):
        open_dataset(REPO, SourceOptions(label_column="x"), settings=settings)


# --- Loose files ------------------------------------------------------------------------------------------------------


def test_class_folders_of_loose_files_are_read(hub, settings):
    files = {f"images/{split}/{path}": data for split in ("train", "test") for path, data in CATS_AND_DOGS.items()}
    hub.add("dataset", REPO, {"README.md": "---\nlicense: mit\n---\n", "LICENSE": "MIT", **files})
    data = open_dataset(REPO, settings=settings)
    assert (data.class_names, data.splits, data.split) == (("cat", "dog"), ("train", "test"), "train")
    assert [s.key for s in data.samples] == ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
    assert data.problems == ()
    assert data.digest == open_dataset(REPO, settings=settings).digest
    before = len(hub.requests)
    data.fetch(data.samples[:2], None, None)
    hub.stop()
    for sample in data.samples[:2]:
        expected = np.asarray(Image.open(io.BytesIO(CATS_AND_DOGS[sample.key.removeprefix("train/")])))
        np.testing.assert_array_equal(data.load(sample), expected)
    assert len(hub.requests) > before
    hub.start()
    info = describe_source(REPO, settings=settings)
    assert (info.kind, info.splits, info.num_rows, info.licence) == ("class folders", ("train", "test"), 3, "mit")
    with pytest.raises(DatasetError, match="Config 'x' was asked for, but 'me/pets' is a tree of class folders"):
        open_dataset(REPO, SourceOptions(config="x"), settings=settings)


def test_same_loose_files_select_the_same_samples_as_a_folder(hub, settings, tmp_path):
    files = {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(12)}
    hub.add("dataset", REPO, files)
    for path, data in files.items():
        (tmp_path / "local" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / path).write_bytes(data)
    there, here = (open_dataset(name, settings=settings) for name in (REPO, str(tmp_path / "local")))
    assert there.select(3, seed=5).samples == here.select(3, seed=5).samples


# --- What cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pets.py": ""}, r"come from a script, 'pets.py', which is not run. Search for a copy"),
        (
            {"a.tar.gz": "x", "b.txt": ""},
            r"but 'a.tar.gz', which cannot be read in parts. Download it from http.*/me/pets",
        ),
        (
            {"dataset_dict.json": "{}", "train/data-00000-of-00001.arrow": "x"},
            r"but 'train/data-00000-of-00001.arrow', which `save_to_disk` wrote.* give the path of the folder",
        ),
        ({"notes.txt": ""}, r"holds no Parquet files, no zips and no class folders; its files: 'notes.txt'"),
    ],
)
def test_repository_without_data_says_why_and_the_way_out(files, message, hub, settings):
    hub.add("dataset", REPO, files)
    with pytest.raises(DatasetError, match=message):
        open_dataset(REPO, settings=settings)


def test_repository_that_is_not_there_is_told_with_the_folder_it_may_have_been(hub, settings):
    for look in (open_dataset, describe_source):
        with pytest.raises(HubError, match=r"no dataset me/nothing.*Nor is there a file or folder 'me/nothing' here"):
            look("me/nothing", settings=settings)
    hub.add("dataset", REPO, {"train.parquet": b""})
    with pytest.raises(HubError, match="no such branch, tag or commit"):
        open_dataset(REPO, SourceOptions(revision="v2"), settings=settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me /pets", "has a space in it.*Did you mean me/pets"),
        ("https://huggingface.co/datasets/uoft-cs/cifar100", "give the id uoft-cs/cifar100 instead"),
        ("huggingface.co/datasets/uoft-cs/cifar100", "give the id uoft-cs/cifar100 instead"),
        ("https://huggingface.co/facebook/vit-mae-base", "address of a model"),
        ("../me/pets", r"No file or folder '\.\./me/pets' exists"),
        ("me/../pets", r"No file or folder"),
        ("me/pets.zip", r"No file or folder 'me/pets.zip' exists"),
        ("datasets/me/pets", r"No file or folder.*Did you mean the dataset me/pets on the Hub"),
        ("me/pets/", r"No file or folder.*Did you mean the dataset me/pets on the Hub"),
        ("pets", r"No dataset 'pets' is known; expected .*owner/name"),
    ],
)
def test_name_that_is_no_id_is_told_without_asking_the_hub(name, message, hub, settings):
    for look in (open_dataset, describe_source):
        with pytest.raises((DatasetError, HubError), match=message):
            look(name, settings=settings)
    assert hub.requests == []


def test_address_of_another_endpoint_gives_the_id(hub, settings):
    with pytest.raises(HubError, match="is an address; give the id me/pets instead"):
        open_dataset(f"{hub.endpoint}/datasets/me/pets", settings=settings)


def test_folder_that_is_called_like_a_dataset_goes_before_it(hub, settings, tmp_path, monkeypatch):
    write(tmp_path / "me" / "pets" / "train.parquet")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("me/pets", settings=settings).id == "pets"
    assert hub.requests == []


def test_download_limit_is_kept(hub, tmp_path):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    settings = Settings(workspace=tmp_path / "w", max_download_bytes=300_000)
    with pytest.raises(HubError, match="MAX_DOWNLOAD_BYTES"):
        data = open_dataset(REPO, settings=settings)
        data.fetch(data.samples, None, None)


def test_download_limit_is_that_of_all_files_together(hub, tmp_path):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {f"data/train-{n:05}-of-00004.parquet": path for n in range(4)})
    limit = 2 * path.stat().st_size
    data = open_dataset(REPO, settings=Settings(workspace=tmp_path / "w", max_download_bytes=limit))
    before = storage_bytes(hub)
    with pytest.raises(HubError, match=r"4 files from 'data/train-00000-of-00004.parquet' on .*MAX_DOWNLOAD_BYTES"):
        data.fetch(data.samples, None, None)
    assert storage_bytes(hub) == before
    data.fetch(data.samples[:3], None, None)


@pytest.mark.parametrize("kind", ["zip", "class folders"])
def test_table_without_pictures_beside_other_data_is_passed_over(kind, hub, settings, tmp_path):
    stats = write(tmp_path / "stats.parquet", table({"mean": [0.5], "count": [2]}))
    files = CATS_AND_DOGS if kind == "class folders" else {"pets.zip": write_zip(tmp_path / "pets.zip", CATS_AND_DOGS)}
    hub.add("dataset", REPO, {"stats.parquet": stats, **files})
    data = open_dataset(REPO, settings=settings)
    assert data.class_names == ("cat", "dog")
    assert [p.subject for p in data.problems] == ["stats.parquet"]
    info = describe_source(REPO, settings=settings)
    assert info.kind == kind
    assert "'stats.parquet'" in info.note
    hub.add("dataset", "me/numbers", {"stats.parquet": stats, "assets/logo.png": png()})
    with pytest.raises(
        DatasetError, match=r"no column that can be the media column; it has 'mean' \(numbers\), 'count' \(labels\)"
    ):
        open_dataset("me/numbers", settings=settings)


def test_counts_and_labels_equal_the_source(hub, settings, tmp_path, small_requests):
    path = big_pets(tmp_path)
    hub.add("dataset", REPO, {"train.parquet": path})
    data = open_dataset(REPO, settings=settings)
    source = pq.read_table(path)["label"].to_pylist()
    assert data.labels.tolist() == source
    names = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    assert list(data.class_names) == names
    assert Counter(source) == Counter(dict.fromkeys(range(4), 100))


# --- Real data --------------------------------------------------------------------------------------------------------


@needs_shared
def test_cifar100_of_the_hub_is_read_by_its_row_groups(hub, settings):
    path = SHARED / "cifar100-test.parquet"
    hub.add("dataset", "uoft-cs/cifar100", {"cifar100/test-00000-of-00001.parquet": path})
    info = describe_source("uoft-cs/cifar100", settings=settings)
    assert (info.config, info.split, info.label_columns, info.label_column) == (
        "cifar100",
        "test",
        ("fine_label", "coarse_label"),
        None,
    )
    there = open_dataset("uoft-cs/cifar100", SourceOptions(label_column="coarse_label"), settings=settings)
    here = open_dataset(str(path), SourceOptions(label_column="coarse_label"), settings=settings)
    assert (there.samples, there.digest, there.class_names) == (here.samples, here.digest, here.class_names)
    chosen = there.select(1, seed=0)
    assert len(chosen.samples) == 20
    chosen.fetch(chosen.samples, None, None)
    for sample in chosen.samples:
        np.testing.assert_array_equal(there.load(sample), here.load(sample))
    assert storage_bytes(hub) < path.stat().st_size / 2


@needs_shared
def test_videos_in_a_zip_of_the_hub_are_read_by_their_parts(hub, settings):
    path = SHARED / "jhmdb12-mini.zip"
    hub.add("dataset", "me/jhmdb", {"JHMDB12.zip": path})
    there, here = (open_dataset(name, settings=settings) for name in ("me/jhmdb", str(path)))
    assert (there.config, there.split, there.media) == ("JHMDB12", "train", "clip")
    assert (there.samples, there.digest, len(there.class_names)) == (here.samples, here.digest, 12)
    assert there.class_counts.tolist() == [10] * 12
    chosen = there.select(1, seed=3)
    chosen.fetch(chosen.samples, None, None)
    sampling = ClipSampling(frames=4, stride=2, clips=2)
    for sample in chosen.samples:
        np.testing.assert_array_equal(there.load_clips(sample, sampling), here.load_clips(sample, sampling))
    assert storage_bytes(hub) < path.stat().st_size / 5


def test_tars_of_class_folders_are_downloaded_and_read(tmp_path, hub, settings):
    files = {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(2)}
    hub.add("dataset", REPO, {"pets.tar": write_tar(tmp_path / "pets.tar", files).read_bytes(), "README.md": "x"})
    data = open_dataset(REPO, settings=settings)
    assert (data.class_names, len(data.samples), data.revision is None) == (("cat", "dog"), 4, False)
    assert describe_source(REPO, settings=settings).kind == "tar"
