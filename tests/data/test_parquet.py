import hashlib
import io
import json
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelrank.data import SourceOptions, describe_source, open_dataset, parquet_pages, parquet_table
from labelrank.data.source import LocalTable, arrange
from labelrank.data.uploads import save_upload, upload_name
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import CATS_AND_DOGS, HOSTILE_NAMES, SETTINGS, encode, picture, png, png_header, write_tree
from tests.helpers.tables import CLASS_NAMES, STRUCT, class_label, images, pets, table, write

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this computer")


def opened(path, settings=SETTINGS, **options):
    return open_dataset(str(path), SourceOptions(**options), settings=settings)


def pixels(seed):
    return np.asarray(Image.open(io.BytesIO(png(seed))))


# --- What is read -----------------------------------------------------------------------------------------------------


def test_table_of_the_datasets_library_gives_its_classes_labels_and_pictures(tmp_path):
    data = opened(write(tmp_path / "train.parquet"))
    assert data.class_names == tuple(CLASS_NAMES)
    assert data.columns == ("image", "label")
    assert data.id == "train.parquet"
    assert (data.split, data.splits, data.config, data.media) == ("train", ("train",), None, "image")
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [s.key for s in data.samples][:2] == ["row-00000000", "row-00000001"]
    for n, sample in enumerate(data.samples):
        np.testing.assert_array_equal(data.load(sample), pixels(n))
    assert data.problems == ()
    assert data.fetch is None


def test_rows_may_be_read_in_any_order_and_from_several_threads(tmp_path):
    data = opened(write(tmp_path / "a.parquet", pets(41), row_group_size=5))
    order = np.random.default_rng(0).permutation(41).tolist() * 5

    def is_right(n):
        return np.array_equal(data.load(data.samples[n]), pixels(n))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, order))


@pytest.mark.parametrize("kept", [0, 64 * 2**20])
def test_large_row_groups_are_read_in_passing_with_the_same_pictures(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("labelrank.data.parquet_media._KEPT_GROUP_BYTES", kept)
    monkeypatch.setattr("labelrank.data.parquet_media._BATCH_BYTES", 400)
    data = opened(write(tmp_path / "a.parquet", pets(30), row_group_size=20))
    for n in [0, 1, 19, 20, 29, 7, 3, 3, 28, 0]:
        np.testing.assert_array_equal(data.load(data.samples[n]), pixels(n))


def test_file_names_are_keys_where_every_row_has_one_of_its_own(tmp_path):
    paths = [f"{name}.png" for name in "abcdefg"]
    data = opened(write(tmp_path / "a.parquet", pets(7, paths=paths)))
    assert [s.key for s in data.samples] == [f"{CLASS_NAMES[n % 3]}/{path}" for n, path in enumerate(paths)]
    of_split = opened(write(tmp_path / "val.parquet", pets(7, paths=[f"below/{path}" for path in paths])))
    assert [s.key for s in of_split.samples] == [f"val/{s.key}" for s in data.samples]
    same_in_other_class = opened(write(tmp_path / "a.parquet", pets(7, paths=[*paths[:6], "b.png"])))
    assert same_in_other_class.samples[6].key == "cat/b.png"
    for wrong in ([*paths[:6], "a.png"], [*paths[:6], None], [*paths[:6], ""], [*paths[:6], "a" * 2000]):
        again = opened(write(tmp_path / "a.parquet", pets(7, paths=wrong)))
        assert again.samples[6].key == "row-00000006"
    unlabelled = pets(7, paths=paths, labels=[0, 1, -1, 0, 1, 2, 2])
    data = opened(write(tmp_path / "a.parquet", unlabelled))
    assert [s.key for s in data.samples][:3] == ["cat/a.png", "dog/b.png", "cat/d.png"]
    assert [p.subject for p in data.problems] == ["row-00000002"]


@pytest.mark.parametrize(
    ("labels", "class_names", "expected"),
    [
        (pa.array(["dog", "cat", "dog", "ant"]), ("ant", "cat", "dog"), [2, 1, 2, 0]),
        (pa.array(["dog", "cat", "dog", "ant"], pa.large_string()), ("ant", "cat", "dog"), [2, 1, 2, 0]),
        (pa.array(["dog", "cat", "dog", "ant"]).dictionary_encode(), ("ant", "cat", "dog"), [2, 1, 2, 0]),
        (pa.array([10, 9, 10, -1], pa.int32()), ("-1", "9", "10"), [2, 1, 2, 0]),
        (pa.array([10, 9, 10, 200], pa.uint8()), ("9", "10", "200"), [1, 0, 1, 2]),
        (pa.array([True, False, True, True]), ("false", "true"), [1, 0, 1, 1]),
        (pa.array(HOSTILE_NAMES[:4]), tuple(sorted(HOSTILE_NAMES[:4])), None),
    ],
    ids=["text", "large text", "categories", "integers", "small integers", "booleans", "hostile"],
)
def test_labels_may_be_texts_or_bare_numbers(labels, class_names, expected, tmp_path):
    data = opened(write(tmp_path / "a.parquet", table({"image": images(4), "kind": labels})))
    assert data.class_names == class_names
    assert data.columns == ("image", "kind")
    if expected is not None:
        assert data.labels.tolist() == expected
    assert [data.class_names[s.label] for s in data.samples] == [
        str(v).lower() if isinstance(v, bool) else str(v) for v in labels.to_pylist()
    ]


def test_pictures_may_be_a_bare_column_of_bytes(tmp_path):
    for kind in (pa.binary(), pa.large_binary()):
        column = pa.array([png(n) for n in range(4)], kind)
        data = opened(write(tmp_path / "a.parquet", table({"picture": column, "label": ["b", "a", "a", "b"]})))
        assert data.columns == ("picture", "label")
        np.testing.assert_array_equal(data.load(data.samples[3]), pixels(3))


def test_pictures_may_be_stored_once_for_several_rows(tmp_path):
    column = pa.array([png(1), png(0), png(1)]).dictionary_encode()
    data = opened(write(tmp_path / "a.parquet", table({"image": column, "label": [0, 1, 1]})))
    assert data.columns == ("image", "label")
    for n, seed in enumerate([1, 0, 1]):
        np.testing.assert_array_equal(data.load(data.samples[n]), pixels(seed))


def test_class_names_of_texts_are_those_of_all_splits(tmp_path):
    write(tmp_path / "train.parquet", table({"image": images(2), "label": ["cat", "dog"]}))
    write(tmp_path / "test.parquet", table({"image": images(3), "label": ["cat", "dog", "ant"]}))
    train, test = opened(tmp_path), opened(tmp_path, split="test")
    assert train.class_names == test.class_names == ("ant", "cat", "dog")
    assert train.labels.tolist() == [1, 2]
    assert [p.subject for p in train.problems] == ["ant"]
    assert "no row in the split train; a ranking needs rows of every class" in train.problems[0].reason


def test_ten_thousand_classes_are_read(tmp_path):
    names = [f"class {n:05}" for n in range(10_000)]
    labels = pa.array([n for n in range(10_000) for _ in range(2)])
    column = pa.array([png(0)] * 20_000, pa.binary())
    content = table({"image": column, "label": labels}, {"image": {"_type": "Image"}, "label": class_label(names)})
    data = opened(write(tmp_path / "a.parquet", content, row_group_size=5000))
    assert data.class_names == tuple(names)
    assert set(data.class_counts.tolist()) == {2}


def video(frames, size=(32, 24)):
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(frames):
            picture = np.full((size[1], size[0], 3), n * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("told_by", ["feature", "file name", "content"])
def test_column_of_videos_gives_clips(told_by, tmp_path):
    from labelrank.data.dataset import ClipSampling

    path = "b.mp4" if told_by == "file name" else None
    column = [{"bytes": video(6), "path": path}, {"bytes": video(9), "path": path and "c.mp4"}]
    features = {"clip": {"_type": "Video"}} if told_by == "feature" else None
    content = table({"clip": pa.array(column), "label": ["fall", "jump"]}, features)
    data = opened(write(tmp_path / "a.parquet", content))
    assert data.media == "clip"
    clips = data.load_clips(data.samples[1], ClipSampling(frames=3, stride=2, clips=1))
    assert clips.shape == (1, 3, 24, 32, 3)
    assert clips[0, :, 0, 0, 0].tolist() == pytest.approx([0, 20, 40], abs=8)
    assert data.load(data.samples[0]).shape == (24, 32, 3)


# --- Files, configurations and splits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.parquet"], {None: {None: ["a.parquet"]}}),
        (["cifar100-test.parquet"], {None: {"test": ["cifar100-test.parquet"]}}),
        (["cifar100-train-100pc.parquet"], {None: {"train": ["cifar100-train-100pc.parquet"]}}),
        (
            [
                "data/train-00001-of-00002.parquet",
                "data/train-00000-of-00002.parquet",
                "data/extra-00000-of-00001.parquet",
            ],
            {
                None: {
                    "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
                    "extra": ["data/extra-00000-of-00001.parquet"],
                }
            },
        ),
        (
            ["train/0.parquet", "validation/0.parquet"],
            {None: {"train": ["train/0.parquet"], "val": ["validation/0.parquet"]}},
        ),
        (
            ["default/train/0000.parquet", "default/test/0000.parquet", "small/partial-train/0000.parquet"],
            {
                "default": {"train": ["default/train/0000.parquet"], "test": ["default/test/0000.parquet"]},
                "small": {"train": ["small/partial-train/0000.parquet"]},
            },
        ),
        (["data/train/cats/0001.parquet"], {None: {"train": ["data/train/cats/0001.parquet"]}}),
        (
            [f"data/{s}-00000-of-00001.parquet" for s in ("test", "test_hidden", "train", "train_extra")],
            {None: {s: [f"data/{s}-00000-of-00001.parquet"] for s in ("test", "test_hidden", "train", "train_extra")}},
        ),
        (
            ["glue/validation_matched-00000-of-00001.parquet", "glue/validation_mismatched-00000-of-00001.parquet"],
            {
                "glue": {
                    s: [f"glue/{s}-00000-of-00001.parquet"] for s in ("validation_matched", "validation_mismatched")
                }
            },
        ),
        (
            ["test.parquet", "test_hidden.parquet", "train-1.parquet", "train-2.parquet"],
            {
                None: {
                    "test": ["test.parquet"],
                    "test_hidden": ["test_hidden.parquet"],
                    "train": ["train-1.parquet", "train-2.parquet"],
                }
            },
        ),
        (
            ["test-cifar10.parquet", "test-cifar100.parquet"],
            {None: {"test-cifar10": ["test-cifar10.parquet"], "test-cifar100": ["test-cifar100.parquet"]}},
        ),
        (
            ["train1.parquet", "train2.parquet", "val_2023-01-05.parquet", "val_2023-02-06.parquet"],
            {
                None: {
                    "train": ["train1.parquet", "train2.parquet"],
                    "val": ["val_2023-01-05.parquet", "val_2023-02-06.parquet"],
                }
            },
        ),
        (
            ["default/train.parquet", "small/train.parquet", "train.parquet"],
            {
                "default": {"train": ["default/train.parquet", "train.parquet"]},
                "small": {"train": ["small/train.parquet"]},
            },
        ),
        (
            ["a-val.parquet", "b-val.parquet", "a-train.parquet"],
            {None: {"train": ["a-train.parquet"], "a-val": ["a-val.parquet"], "b-val": ["b-val.parquet"]}},
        ),
        (
            ["cifar100/train-00000-of-00001.parquet", "cifar10/test-00000-of-00001-0123456789abcdef.parquet"],
            {
                "cifar10": {"test": ["cifar10/test-00000-of-00001-0123456789abcdef.parquet"]},
                "cifar100": {"train": ["cifar100/train-00000-of-00001.parquet"]},
            },
        ),
        (["dev.parquet", "validation.parquet"], {None: {"dev": ["dev.parquet"], "validation": ["validation.parquet"]}}),
        (
            ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"],
            {None: {None: ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"]}},
        ),
        (["contest.parquet"], {None: {None: ["contest.parquet"]}}),
    ],
)
def test_configuration_and_split_are_read_off_the_paths(paths, expected):
    for order in (paths, paths[::-1]):
        tables = arrange([LocalTable(p, Path(p)) for p in order], source="x")
        found = {c: {s: [f.path for f in files] for s, files in by.items()} for c, by in tables.files.items()}
        assert found == expected


def hive(root, values, **options):
    """Write a table of two rows into each folder."""
    for n, value in enumerate(values):
        write(root / value / "part-0.parquet", table({"image": [png(2 * n), png(2 * n + 1)], **options}))
    return root


def test_partitions_are_columns_and_no_configurations(tmp_path):
    data = opened(hive(tmp_path, ["label=caf%C3%A9", "label=10", "label=__HIVE_DEFAULT_PARTITION__"]))
    assert (data.class_names, data.config, data.columns) == (("10", "caf\u00e9"), None, ("image", "label"))
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert len(data.problems) == 2
    np.testing.assert_array_equal(data.load(data.samples[3]), pixels(1))
    digest = data.digest
    (tmp_path / "label=10").rename(tmp_path / "label=9")
    assert opened(tmp_path).digest != digest


def test_numbers_in_partitions_are_sorted_as_numbers(tmp_path):
    data = opened(hive(tmp_path, [f"year=2020/label={n}" for n in (10, 9, 100)]))
    assert data.class_names == ("9", "10", "100")
    assert opened(hive(tmp_path / "b", ["x=1", "x=2"], x=["a", "b"])).class_names == ("a", "b")


def test_escapes_in_partitions_that_are_no_utf8_stay_as_they_are(tmp_path):
    data = opened(hive(tmp_path, ["label=New%20York", "label=%FF", "label=%FE"]))
    assert data.class_names == ("%FE", "%FF", "New York")


def test_partition_of_another_name_gives_way_to_a_column_called_label(tmp_path):
    root = hive(tmp_path, ["fold=1", "fold=2"], label=[0, 1], width=[4, 5])
    with pytest.raises(DatasetError, match=r"2 columns that can be the label column: 'fold', 'label'\. Choose one"):
        opened(root)
    assert opened(root, label_column="label").class_names == ("0", "1")


def test_partition_names_a_split_and_classes_are_those_of_all_splits(tmp_path):
    hive(tmp_path, ["split=train/label=cat", "split=train/label=dog", "split=validation/label=eel"])
    data = opened(tmp_path)
    assert (data.split, data.splits, data.class_names) == ("train", ("train", "val"), ("cat", "dog", "eel"))
    assert opened(tmp_path, split="val").labels.tolist() == [2, 2]


def test_partition_that_a_file_lacks_is_missed(tmp_path):
    hive(tmp_path, ["label=cat", "label=dog", "."])
    with pytest.raises(
        DatasetError, match=r"'part-0.parquet': the column 'label' is missing; in 'label=cat/part-0.par"
    ):
        opened(tmp_path)


def test_conversion_of_the_hub_has_a_folder_for_each_split():
    paths = ["default/odd/0000.parquet", "default/partial-train/0000.parquet"]
    tables = arrange([LocalTable(p, Path(p)) for p in paths], source="x", converted=True)
    assert tables.configs == ("default",)
    assert tables.splits("default") == ("train", "odd")


def test_folder_of_tables_is_read_by_split_in_the_order_of_its_names(tmp_path):
    write(tmp_path / "data" / "train-00001-of-00002.parquet", pets(2, labels=[2, 2]))
    write(tmp_path / "data" / "train-00000-of-00002.parquet", pets(3, labels=[0, 1, 1]))
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", pets(4))
    write(tmp_path / ".cache" / "train-00000-of-00001.parquet")
    data = opened(tmp_path)
    assert (data.split, data.splits) == ("train", ("train", "val"))
    assert data.labels.tolist() == [0, 1, 1, 2, 2]
    assert data.samples[4].key == "row-00000004"
    np.testing.assert_array_equal(data.load(data.samples[4]), pixels(1))
    assert len(opened(tmp_path, split="validation").samples) == 4
    with pytest.raises(DatasetError, match=r"no split 'tset'; it has 'train', 'val'"):
        opened(tmp_path, split="tset")


def test_configuration_has_to_be_chosen_where_there_are_several(tmp_path):
    write(tmp_path / "big" / "train.parquet")
    write(tmp_path / "small" / "train.parquet", pets(4))
    with pytest.raises(DatasetError, match=r"2 configurations .*'big', 'small'. Choose one"):
        opened(tmp_path)
    data = opened(tmp_path, config="small")
    assert (data.config, len(data.samples)) == ("small", 4)
    with pytest.raises(DatasetError, match="no configuration 'tiny'; it has 'big', 'small'"):
        opened(tmp_path, config="tiny")
    info = describe_source(str(tmp_path), settings=SETTINGS)
    assert (info.configs, info.config, info.splits) == (("big", "small"), None, ())


def test_file_whose_name_tells_no_split_is_listed_where_others_do(tmp_path):
    write(tmp_path / "train.parquet")
    write(tmp_path / "notes.parquet")
    assert [p.subject for p in opened(tmp_path).problems] == ["notes.parquet"]


def test_only_split_is_read_when_none_is_asked_for(tmp_path):
    assert opened(write(tmp_path / "pets-test.parquet")).split == "test"
    write(tmp_path / "two" / "test.parquet")
    write(tmp_path / "two" / "val.parquet")
    with pytest.raises(DatasetError, match=r"no train split.*'val', 'test'"):
        opened(tmp_path / "two")


def test_table_without_pictures_beside_class_folders_is_a_problem(tmp_path):
    path = write(tmp_path / "stats.parquet", table({"mean": [0.5], "count": [2]}))
    with pytest.raises(DatasetError, match="no column that can be the media column"):
        opened(tmp_path)
    write_tree(tmp_path, CATS_AND_DOGS)
    data = opened(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert [p.subject for p in data.problems] == [path.name]
    assert describe_source(str(tmp_path), settings=SETTINGS).kind == "class folders"


def test_tables_beside_class_folders_are_read_unless_they_are_metadata(tmp_path):
    write_tree(tmp_path, CATS_AND_DOGS)
    write(tmp_path / "metadata.parquet")
    assert opened(tmp_path).class_names == ("cat", "dog")
    write(tmp_path / "train.parquet")
    assert opened(tmp_path).columns == ("image", "label")


# --- Columns ----------------------------------------------------------------------------------------------------------


def fine_and_coarse():
    features = {
        "img": {"_type": "Image"},
        "fine": class_label(["cat", "dog", "oak"]),
        "coarse": class_label(["animal", "plant"]),
        "id": {"_type": "Value", "dtype": "int64"},
    }
    return table({"id": [7, 8, 9], "img": images(3), "fine": [0, 1, 2], "coarse": [0, 0, 1]}, features)


def test_label_column_is_chosen_where_there_are_several(tmp_path):
    path = write(tmp_path / "a.parquet", fine_and_coarse())
    with pytest.raises(DatasetError, match=r"2 columns that can be the label column: 'fine', 'coarse'. Choose one"):
        opened(path)
    fine, coarse = (opened(path, label_column=name) for name in ("fine", "coarse"))
    assert (fine.class_names, coarse.class_names) == (("cat", "dog", "oak"), ("animal", "plant"))
    assert coarse.labels.tolist() == [0, 0, 1]
    assert coarse.columns == ("img", "coarse")
    assert fine.digest != coarse.digest
    assert opened(path, label_column="id").class_names == ("7", "8", "9")


def test_what_can_be_chosen_is_told_before_it_is(tmp_path):
    path = write(tmp_path / "train.parquet", fine_and_coarse())
    info = describe_source(str(path), settings=SETTINGS)
    assert (info.media_columns, info.media_column) == (("img",), "img")
    assert (info.label_columns, info.label_column) == (("fine", "coarse", "id"), None)
    assert (info.kind, info.media, info.splits, info.split, info.num_rows) == (
        "Parquet",
        "image",
        ("train",),
        "train",
        3,
    )
    assert info.size_bytes == path.stat().st_size
    chosen = describe_source(str(path), SourceOptions(label_column="coarse"), settings=SETTINGS)
    assert chosen.label_column == "coarse"
    with pytest.raises(DatasetError, match="no column 'nope'"):
        describe_source(str(path), SourceOptions(label_column="nope"), settings=SETTINGS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "lable"}, r"no column 'lable'; it has 'image', 'label'. .*label column: 'label'"),
        ({"label_column": "image"}, r"'image' cannot be the label column: it holds images.*: 'label'"),
        ({"media_column": "label"}, r"'label' cannot be the media column: it holds labels.*: 'image'"),
        ({"media_column": "nope"}, r"no column 'nope'"),
        ({"config": "x"}, r"no configuration 'x'; it has none to choose"),
        ({"revision": "main"}, r"Revision 'main' was asked for, but 'a.parquet' is on this computer"),
        ({"split": "val"}, r"has no splits, but split 'val' was asked for"),
    ],
)
def test_choice_that_is_not_there_names_what_there_is(options, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        opened(write(tmp_path / "a.parquet"), **options)


def test_two_columns_of_pictures_have_to_be_chosen_from(tmp_path):
    path = write(tmp_path / "a.parquet", table({"left": images(3), "right": images(3), "label": [1, 2, 2]}))
    with pytest.raises(DatasetError, match=r"2 columns that can be the media column: 'left', 'right'"):
        opened(path)
    assert opened(path, media_column="right").columns == ("right", "label")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1, 2]}, r"can be the media column; it has 'label' \(labels\). Expected a column of images"),
        ({"image": images(2)}, "no column that can be the label column; it has 'image' "),
        (
            {"image": images(2), "__key__": ["a", "b"]},
            r"the label column; it has 'image' .*, '__key__' \(names of samples, as a WebDataset has them\)",
        ),
        (
            {"image_path": ["1.png", "2.png"], "label": [1, 2]},
            r"the media column; .*\. The column 'image_path' seems to hold paths.* Put the files themselves into",
        ),
        ({"image": images(2), "x": [[1], [2]]}, r"'x' \(lists, several values to a row\)"),
        ({"image": [[png()], [png()]], "label": [1, 2]}, r"media column; it has 'label' \(labels\), 'image' \(lists"),
        ({"image": [{"url": "a"}, {"url": "b"}], "label": [1, 2]}, "media column; .* 'image' .type struct"),
    ],
)
def test_table_without_usable_columns_says_what_it_has(columns, message, tmp_path):
    path = write(tmp_path / "a.parquet", table(columns))
    for look in (open_dataset, describe_source):
        with pytest.raises(DatasetError, match=message):
            look(str(path), settings=SETTINGS)


def test_empty_file_of_a_split_is_no_trouble(tmp_path):
    write(tmp_path / "train-00000-of-00003.parquet", pets(0))
    write(tmp_path / "train-00002-of-00003.parquet", pets(4, paths=["a.png", "b.png", "c.png", "d.png"]))
    with pq.ParquetWriter(tmp_path / "train-00001-of-00003.parquet", pets(0).schema):
        pass  # not even an empty row group
    keys = ["train/cat/a.png", "train/dog/b.png", "train/=1+1/c.png", "train/cat/d.png"]
    assert [s.key for s in opened(tmp_path).samples] == keys
    with pytest.raises(DatasetError, match="no row with a usable label"):
        opened(tmp_path / "train-00001-of-00003.parquet")


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_row_group_without_rows_is_no_trouble(use_dictionary, tmp_path):
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, pets().schema, use_dictionary=use_dictionary) as writer:
        for part in (pets(0), pets(4), pets(0)):
            writer.write_table(part)
    data = opened(path)
    np.testing.assert_array_equal(data.load(data.samples[3]), pixels(3))
    with pytest.raises(DatasetError, match="no row with a usable label"):
        opened(write(tmp_path / "b.parquet", pets(0), use_dictionary=use_dictionary))


def test_files_of_one_split_must_have_the_same_columns(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet")
    write(tmp_path / "train-00001-of-00002.parquet", table({"image": images(2), "label": ["a", "b"]}))
    with pytest.raises(
        DatasetError, match=r"'train-00001-of-00002.parquet': the column 'label' is of type string; in .* int64"
    ):
        opened(tmp_path)


def test_files_of_one_split_must_name_the_same_classes(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", pets(4, names=["cat", "dog", "eel"]))
    for other in (pets(4, names=["dog", "cat", "eel"]), table({"image": images(2), "label": [0, 1]})):
        write(tmp_path / "train-00001-of-00002.parquet", other)
        with pytest.raises(DatasetError, match=r"'train-00001-of.* in 'train-00000-of.*'cat', 'dog', 'eel'"):
            opened(tmp_path)


def test_labels_of_different_types_in_two_splits_are_told(tmp_path):
    texts, numbers = (table({"image": images(2), "label": labels}) for labels in (["a", "b"], [0, 1]))
    for train, test, found in ((numbers, texts, "string"), (texts, numbers, "int64")):
        write(tmp_path / "train.parquet", train)
        write(tmp_path / "test.parquet", test)
        with pytest.raises(DatasetError, match=rf"'test.parquet': the column 'label' is of type {found}; in 'train.pa"):
            opened(tmp_path)


def test_number_too_large_for_a_label_is_told(tmp_path):
    content = table({"image": images(2), "label": pa.array([1, 2**64 - 1], pa.uint64())})
    with pytest.raises(DatasetError, match="column 'label' of type uint64 holds a value that is no label"):
        opened(write(tmp_path / "a.parquet", content))


def test_columns_of_the_same_name_are_named(tmp_path):
    twice = pa.Table.from_arrays([images(2), pa.array([0, 1]), pa.array([1, 0])], ["image", "label", "label"])
    for look in (open_dataset, describe_source):
        with pytest.raises(DatasetError, match=r"'a.parquet' has several columns of the same name: 'label'. Rename"):
            look(str(write(tmp_path / "a.parquet", twice)), settings=SETTINGS)


def test_metadata_that_is_not_as_expected_leaves_the_types_to_tell(tmp_path):
    for value in (
        b"{",
        b"[]",
        b'{"info": 1}',
        b'{"info": {"features": {"image": 3, "label": {"_type": "ClassLabel"}}}}',
    ):
        content = pets(6).replace_schema_metadata({b"huggingface": value})
        assert opened(write(tmp_path / "a.parquet", content)).class_names == ("0", "1", "2")


# --- Rows that cannot be used -----------------------------------------------------------------------------------------


def test_rows_without_a_usable_label_are_named_and_the_rest_kept(tmp_path):
    data = opened(write(tmp_path / "a.parquet", pets(6, labels=[0, -1, 1, None, 103, 2])))
    assert [s.key for s in data.samples] == ["row-00000000", "row-00000002", "row-00000005"]
    reasons = {p.subject: p.reason for p in data.problems}
    assert "Row 1 has the label -1, which stands for none" in reasons["row-00000001"]
    assert "Row 3 has no label" in reasons["row-00000003"]
    assert "Row 4 has the label 103, but the classes are numbered 0 to 2" in reasons["row-00000004"]
    np.testing.assert_array_equal(data.load(data.samples[2]), pixels(5))


def test_missing_texts_are_no_class(tmp_path):
    data = opened(write(tmp_path / "a.parquet", table({"image": images(4), "label": ["b", "", None, "a"]})))
    assert data.class_names == ("a", "b")
    assert len(data.problems) == 2


def test_many_rows_without_a_label_are_counted(tmp_path):
    column = pa.array([png(0)] * 3000, pa.binary())
    labels = pa.array([n if n < 2 else -1 for n in range(3000)])
    content = table({"image": column, "label": labels}, {"label": class_label("ab")})
    data = opened(write(tmp_path / "a.parquet", content, row_group_size=1000))
    assert len(data.samples) == 2
    assert len(data.problems) == 1001
    assert "1,998 more problems" in data.problems[-1].reason


def test_split_without_any_label_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no row with a usable label in the split test. Row 0 has the label -1"):
        opened(write(tmp_path / "test.parquet", pets(3, labels=[-1, -1, -1])))


def test_media_that_cannot_be_read_are_named_by_row_and_the_rest_kept(tmp_path):
    column = [png(0)] * 7400
    column[7341] = b"not an image"
    column[7342] = None
    column[7343] = png(3)[:40]
    column[7344] = png_header(100_000, 100_000)
    labels = [n % 2 for n in range(7400)]
    content = table({"image": pa.array(column, pa.binary()), "label": labels})
    data = opened(write(tmp_path / "a.parquet", content, row_group_size=1000))
    assert len(data.samples) == 7400
    for row, message in [
        (7341, r"'row 7,341' starts with 6e6f7420; expected a JPEG"),
        (7342, r"row 7,342 holds nothing in column 'image'"),
        (7343, r"'row 7,343' looks like a PNG image but is damaged"),
        (7344, r"'row 7,344' is 100,000 x 100,000 pixels"),
    ]:
        with pytest.raises(MediaError, match=message):
            data.load(data.samples[row])
    np.testing.assert_array_equal(data.load(data.samples[7345]), pixels(0))


def test_picture_that_is_only_named_or_missing_is_told(tmp_path):
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": png(), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None], struct_type)
    data = opened(write(tmp_path / "a.parquet", table({"image": column, "label": [0, 1, 1]})))
    for sample in data.samples[1:]:
        with pytest.raises(MediaError, match=r"row \d holds nothing in column 'image'"):
            data.load(sample)


def test_damaged_row_group_leaves_the_others_readable(tmp_path):
    path = write(tmp_path / "a.parquet", pets(6), compression="snappy")
    chunk = pq.read_metadata(path).row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    dataset = opened(path)
    for n in (0, 5, 1):
        np.testing.assert_array_equal(dataset.load(dataset.samples[n]), pixels(n))
    for _ in range(2):
        with pytest.raises(MediaError, match=r"row 2 cannot be read from 'a.parquet' \("):
            dataset.load(dataset.samples[2])


# --- Class names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "cat"], r"same name to several classes of column 'label': 'cat'. Rename"),
        (["cat", "Cat", "dog"], r"differ only in the case or form of letters: 'cat' and 'Cat'"),
        (["caf\u00e9", "cafe\u0301", "dog"], "differ only in the case or form"),
        (["cat"], r"only one class, 'cat'"),
        (["cat", "", "dog"], "a class without a name"),
    ],
)
def test_class_names_that_no_label_map_could_carry_are_named(names, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        opened(write(tmp_path / "a.parquet", pets(3, labels=[0, 0, 0], names=names)))


def with_labels(tmp_path, labels, rows=None, **more):
    rows = rows or len(labels)
    columns = {"image": pa.array([png(0)] * rows, pa.binary()), "label": labels, **more}
    return write(tmp_path / "a.parquet", table(columns), row_group_size=rows)


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ([f"a photo of {n}" for n in range(9)], "9 different values in 9 rows, 9 of them in one row alone"),
        ([f"{n:08}" for n in range(1000)], "1,000 different values in 1,000 rows"),
        ([*range(100, 190), *[7] * 10], "91 different values in 100 rows, 90 of them"),
        ([float(n) for n in range(20)], "20 different values in 20 rows"),
    ],
)
def test_column_that_is_nearly_different_in_every_row_is_no_label(labels, counts, tmp_path):
    with pytest.raises(DatasetError, match=rf"'label' has {counts}.* not classes.* Add a column of labels"):
        opened(with_labels(tmp_path, labels))
    kind = pa.array([n % 2 for n in range(len(labels))])
    path = with_labels(tmp_path, labels, kind=kind)
    with pytest.raises(DatasetError, match=rf"'label' has {counts}.* Choose another: 'kind' \(--label-column\)"):
        opened(path, label_column="label")
    assert opened(path, label_column="kind").class_counts.tolist() == [-(-len(labels) // 2), len(labels) // 2]


@pytest.mark.parametrize("labels", [[n // 2 for n in range(400)], ["a", "b", "c", "d"], [*"abcdefgh", *"xxyy"]])
def test_few_rows_of_each_class_are_enough(labels, tmp_path):
    assert len(opened(with_labels(tmp_path, labels)).class_names) == len(set(labels))


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16(), pa.decimal128(9, 2)])
def test_whole_numbers_of_any_type_are_labels(kind, tmp_path):
    data = opened(with_labels(tmp_path, pa.array([0, 1, 10, 2, 2, None], pa.int64()).cast(pa.float32()).cast(kind)))
    assert data.class_names == ("0", "1", "2", "10")
    assert data.labels.tolist() == [0, 1, 3, 2, 2]
    assert [p.subject for p in data.problems] == ["row-00000005"]


def test_numbers_that_are_not_whole_are_named_and_missing_ones_counted(tmp_path):
    data = opened(with_labels(tmp_path, [0.0, float("nan"), 1.0, -0.0]))
    assert data.labels.tolist() == [0, 1, 0]
    assert "has no label" in data.problems[0].reason
    for value in (0.37, float("inf"), 2.0**60):
        with pytest.raises(
            DatasetError, match=rf"type double holds a value that is no label: {value}".replace("+", ".")
        ):
            opened(with_labels(tmp_path, [1.0, 1.0, value, value]))


def test_numbers_with_decimals_are_labels_only_where_nothing_else_is(tmp_path):
    path = with_labels(tmp_path, [0, 1, 0], score=[0.5, 0.1, 0.2])
    assert opened(path).columns == ("image", "label")


def test_truth_values_are_labels(tmp_path):
    assert opened(with_labels(tmp_path, [True, False, True, None])).class_names == ("false", "true")


# --- Digest and selection ---------------------------------------------------------------------------------------------


def test_digest_follows_content_and_columns_and_nothing_else(tmp_path):
    path = write(tmp_path / "one" / "train.parquet")
    digest = opened(path).digest
    assert opened(path).digest == digest
    copy = tmp_path / "two" / "data" / "train-00000-of-00001.parquet"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    assert opened(copy.parent.parent).digest == digest
    assert opened(write(path, pets(6))).digest != digest
    assert opened(write(path, pets(7, names=["cat", "dog", "eel"]))).digest != digest


def test_same_seed_selects_the_same_rows(tmp_path):
    data = opened(write(tmp_path / "a.parquet", pets(30)))
    chosen = data.select(4, seed=1)
    assert Counter(chosen.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert chosen.samples == opened(tmp_path / "a.parquet").select(4, seed=1).samples
    assert chosen.samples != data.select(4, seed=2).samples
    numbers = [int(s.key.removeprefix("row-")) for s in chosen.samples]
    assert numbers == sorted(numbers)


# --- Files that are not what they should be ---------------------------------------------------------------------------


def footer_with(path, **changes):
    """Write a table whose footer declares a length that is not its own."""
    data = bytearray(write(path).read_bytes())
    data[-8:-4] = struct.pack("<I", changes["length"])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b""), r"is not a Parquet file: it is empty \(0 bytes\)"),
        (lambda p: p.write_bytes(png()), r"is not a Parquet file: it starts with 89504e47: a PNG image"),
        (lambda p: p.write_bytes(write(p).read_bytes()[:-100]), "cut short"),
        (lambda p: p.write_bytes(b"PAR1" + b"x" * 20 + b"\x08\0\0\0PARE"), "encrypted"),
        (lambda p: footer_with(p, length=2**32 - 1), r"declares a footer of 4,294,967,295 bytes"),
        (lambda p: footer_with(p, length=12), "cannot be read as Parquet"),
        (lambda p: p.write_bytes(write(p).read_bytes()[4:]), r"cannot be read|damaged"),
    ],
    ids=["empty", "picture", "cut", "encrypted", "huge footer", "short footer", "shifted"],
)
def test_file_that_is_no_sound_table_is_refused(spoil, message, tmp_path):
    path = tmp_path / "a.parquet"
    spoil(path)
    with pytest.raises(DatasetError, match=message):
        data = opened(path)
        data.load(data.samples[0])


def test_any_damaged_byte_gives_an_error_of_ours_or_a_dataset(tmp_path):
    path = write(tmp_path / "a.parquet", pets(6))
    sound = path.read_bytes()
    footer = int.from_bytes(sound[-8:-4], "little")
    for place in range(len(sound) - footer - 8, len(sound), 3):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            data = opened(path)
        except DatasetError:
            continue
        for sample in data.samples:
            try:
                data.load(sample)
            except MediaError:
                continue


def test_table_with_more_rows_than_accepted_is_refused(tmp_path):
    settings = Settings(workspace=tmp_path, max_rows=6)
    with pytest.raises(DatasetError, match=r"has 7 rows; at most 6 are accepted \(LABELRANK_MAX_ROWS\)"):
        opened(write(tmp_path / "a.parquet"), settings)
    write(tmp_path / "b" / "train-00000-of-00002.parquet", pets(4))
    write(tmp_path / "b" / "train-00001-of-00002.parquet", pets(4))
    with pytest.raises(DatasetError, match=r"'b' has 8 rows in the split train; at most 6"):
        opened(tmp_path / "b", settings)


def test_media_column_that_would_unpack_to_absurd_sizes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("labelrank.data.parquet_table._BOMB_FROM_BYTES", 2**20)
    column = pa.array([bytes(2**20 + n) for n in range(8)], pa.binary())
    path = write(tmp_path / "a.parquet", table({"image": column, "label": [0, 1] * 4}), compression="zstd")
    with pytest.raises(DatasetError, match=r"would unpack 'image' from .*MAX_COMPRESSION_RATIO"):
        opened(path)


def repeating(image, rows, how):
    """Return the content of a table that stores an image once, in an encoding that gives it to every row."""
    labels = pa.array([n % 2 for n in range(rows)])
    options = {"compression": "NONE", "row_group_size": rows, "store_schema": False}
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([image]))
    if how == "prefix":
        column = pa.array([image] * rows)
        options |= {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}
    else:
        options |= {"dictionary_pagesize_limit": 1 << 30, "store_schema": how == "typed dictionary"}
    if how == "dictionary in structs":
        column = pa.StructArray.from_arrays([column, pa.nulls(rows, pa.string())], ["bytes", "path"])
    return pa.table({"image": column, "label": labels}), options


@pytest.mark.parametrize(
    ("how", "kept"),
    [("dictionary", 2**26), ("dictionary in structs", 1000), ("typed dictionary", 1000), ("prefix", 2**26)],
)
def test_image_that_is_stored_once_does_not_fill_the_memory(how, kept, tmp_path, run_python):
    # 4 GB if every row got a copy of its own, 500 MB if every batch of 256 rows did; 170 MB by prefix.
    content, options = repeating(encode(picture(size=(900, 800)), "BMP"), 80 if how == "prefix" else 2000, how)
    path = write(tmp_path / "a.parquet", content, **options)
    assert path.stat().st_size < 3 * 2**20
    program = f"""
import pyarrow as pa
from labelrank.data import open_dataset, parquet_media
from labelrank.settings import Settings
parquet_media._KEPT_GROUP_BYTES = {kept}
data = open_dataset({str(path)!r}, settings=Settings())
for place in (0, 1, 79, 7, len(data.samples) - 1):
    assert data.load(data.samples[place]).shape == (800, 900, 3)
print(pa.default_memory_pool().max_memory() < 150 * 2**20)
"""
    assert run_python(program) == "True"


def test_rows_of_one_image_are_left_out_where_they_unpack_to_absurd_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr("labelrank.data.parquet_table._BOMB_FROM_BYTES", 2**20)
    content, options = repeating(encode(picture(size=(90, 80)), "BMP"), 300, "prefix")
    data = opened(write(tmp_path / "a.parquet", content, **options))
    with pytest.raises(MediaError, match=r"row 299 cannot be read: 'a.parquet' would unpack 'image' .*MAX_COMPRESSION"):
        data.load(data.samples[299])


def test_pages_that_hold_more_than_the_footer_says_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("labelrank.data.parquet_table._BOMB_FROM_BYTES", 2**20)
    path = with_labels(tmp_path, [0, 1] * 4)
    opened(path)
    header = parquet_pages.read_pages
    monkeypatch.setattr(
        "labelrank.data.parquet_table.read_pages", lambda *place: replace(header(*place), unpacked_bytes=2**30)
    )
    with pytest.raises(DatasetError, match=r"would unpack 'label' from [\d,]+ to 1,073,741,824 bytes or more"):
        opened(path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_page_headers_tell_sizes_and_encodings(version, tmp_path):
    values = pa.array([bytes([n % 7]) * 5000 for n in range(3000)])
    options = {"row_group_size": 3000, "compression": "NONE", "data_page_version": version}
    for name, encoding, expected in (
        ("repeated", {}, (True, False, False)),
        ("plain", {"use_dictionary": False}, (False, True, False)),
        ("fallen back", {"dictionary_pagesize_limit": 6000}, (True, True, False)),
        ("prefix", {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}, (False, True, True)),
    ):
        path = write(tmp_path / f"{name}.parquet", pa.table({"x": values}), **options, **encoding)
        chunk = pq.read_metadata(path).row_group(0).column(0)
        with path.open("rb") as file:
            pages = parquet_pages.read_pages(file, *parquet_table.extent(chunk))
        assert (pages.by_dictionary, pages.by_value, pages.by_prefix) == expected, name
        headers = chunk.total_uncompressed_size - pages.unpacked_bytes
        assert 0 < headers < 100 + 0.01 * pages.unpacked_bytes


@pytest.mark.parametrize(
    "content", [b"", b"\x15", b"\xff" * 40, b"\x15\x00\x15\x02\x15\x80", b"\x1c" * 300, b"\x15\x04\0"]
)
def test_damaged_page_headers_are_told(content):
    with pytest.raises(ValueError, match="page"):
        parquet_pages.read_pages(io.BytesIO(content), 0, 100)


def test_tables_beyond_a_limit_are_refused_when_they_are_looked_at(tmp_path):
    path = write(tmp_path / "a.parquet", pets(6))
    for limit, message in (
        ({"max_columns": 2}, r"has 3 columns; at most 2 are accepted \(LABELRANK_MAX_COLUMNS\)"),
        ({"max_footer_bytes": 99}, r"has a footer of [\d,]+ bytes; at most 99 .*MAX_FOOTER_BYTES"),
        ({"max_classes": 2}, r"names 3 classes of column 'label'; at most 2 .*MAX_CLASSES"),
        ({"max_rows": 5}, "has 6 rows; at most 5"),
        ({"max_row_groups": 2}, r"has 3 row groups; at most 2 are accepted \(LABELRANK_MAX_ROW_GROUPS\)"),
    ):
        for look in (open_dataset, describe_source):
            with pytest.raises(DatasetError, match=message):
                look(str(path), settings=Settings(workspace=tmp_path, **limit))
    texts = with_labels(tmp_path, [*"aabbcc"])
    with pytest.raises(DatasetError, match=r"more than 2 different values .* at most 2 classes .*MAX_CLASSES"):
        opened(texts, Settings(workspace=tmp_path, max_classes=2))


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(("empty", "kind"), [(None, STRUCT), (b"", STRUCT), (None, None)])
def test_table_that_only_names_its_images_is_refused_when_looked_at(empty, kind, statistics, tmp_path):
    rows = pa.array([{"bytes": empty, "path": f"/data/{n}.png"} for n in range(6)], kind)
    content = table({"image": rows, "label": [0, 1] * 3}, {"image": {"_type": "Image"}})
    path = write(tmp_path / "a.parquet", content, write_statistics=statistics)
    for look in (open_dataset, describe_source):
        with pytest.raises(
            DatasetError, match=r"holds no images or videos, only the paths of files, in column 'image'"
        ):
            look(str(path), settings=SETTINGS)


@pytest.mark.parametrize("how", ["texts", "structs without bytes"])
def test_images_beside_a_table_that_only_names_them_are_read(how, tmp_path):
    names = [f"images/{n}.png" for n in range(6)]
    write_tree(tmp_path, {name: png(n) for n, name in enumerate(names)})
    rows = names if how == "texts" else pa.array([{"bytes": None, "path": name} for name in names], STRUCT)
    content = table({"image": rows, "label": [n % 2 for n in range(6)]}, {"label": class_label(["cat", "dog"])})
    data = opened(write(tmp_path / "pets.parquet", content))
    assert data.class_names == ("cat", "dog")
    assert [s.label for s in sorted(data.samples, key=lambda s: s.key[-5:])] == [0, 1] * 3
    assert {data.load(s).tobytes() for s in data.samples} == {pixels(n).tobytes() for n in range(6)}
    for above in ("..", str(tmp_path)):  # the files are there, but not in the folder of the table
        outside = table({"image": [f"{above}/{name}" for name in names], "label": [0, 1] * 3})
        with pytest.raises(DatasetError, match="Put the files themselves into the table"):
            opened(write(tmp_path / "deeper" / "pets.parquet", outside))


def test_git_lfs_pointers_are_told(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    (tmp_path / "a.parquet").write_bytes(pointer)
    with pytest.raises(DatasetError, match=r"'a.parquet' is a Git LFS pointer.*`git lfs pull`"):
        opened(tmp_path / "a.parquet")
    data = opened(write(tmp_path / "b.parquet", table({"image": [pointer, png(0)], "label": [0, 1]})))
    with pytest.raises(MediaError, match="row 0 is a Git LFS pointer"):
        data.load(data.samples[0])


@pytest.mark.parametrize("column", ["label", "path"])
def test_few_texts_repeated_do_not_fill_the_memory(column, tmp_path, run_python):
    # 1,000 rows that repeat two texts of 1 MB: 1 GB if every row got a copy of its own.
    texts = pa.array(["a" * 2**20, "b" * 2**20])
    repeated = pa.DictionaryArray.from_arrays(pa.array([n % 2 for n in range(1000)], pa.int32()), texts)
    rows = pa.array([png(0)] * 1000, pa.binary())
    if column == "label":
        content = table({"image": rows, "label": repeated})
    else:
        content = table(
            {"image": pa.StructArray.from_arrays([rows, repeated], ["bytes", "path"]), "label": [0, 1] * 500}
        )
    path = write(
        tmp_path / "a.parquet", content, row_group_size=1000, dictionary_pagesize_limit=2**24, store_schema=False
    )
    assert path.stat().st_size < 8 * 2**20
    program = f"""
import pyarrow as pa
from labelrank.data import open_dataset
from labelrank.settings import Settings
data = open_dataset({str(path)!r}, settings=Settings())
print(len(data.class_names), len(data.samples), pa.default_memory_pool().max_memory() < 200 * 2**20)
"""
    assert run_python(program) == "2 1000 True"


# --- Uploads ----------------------------------------------------------------------------------------------------------


def test_uploaded_table_is_kept_and_opened_with_the_split_of_its_name(tmp_path):
    settings = Settings(workspace=tmp_path / "home")
    path = write(tmp_path / "pets-test.parquet")
    with path.open("rb") as stream:
        name = save_upload(stream, settings=settings)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert name == f"upload:{digest}"
    assert sorted(p.name for p in (settings.workspace / "uploads").iterdir()) == [f"{digest}.name", f"{digest}.parquet"]
    assert upload_name(name, settings=settings) == "pets-test.parquet"
    data = open_dataset(name, settings=settings)
    assert (data.id, data.split) == (name, "test")
    assert data.digest == opened(path).digest
    assert describe_source(name, settings=settings).label_columns == ("label",)


@pytest.mark.parametrize("case", ["no images", "cut short", "too many rows"])
def test_refused_table_leaves_nothing_behind(case, tmp_path):
    settings = Settings(workspace=tmp_path / "home", max_rows=5 if case == "too many rows" else 100)
    path = write(tmp_path / "pets.parquet", table({"label": [1, 2]}) if case == "no images" else None)
    if case == "cut short":
        path.write_bytes(path.read_bytes()[:-9])
    with path.open("rb") as stream, pytest.raises(DatasetError, match=r"'pets.parquet'"):
        save_upload(stream, settings=settings)
    assert list((settings.workspace / "uploads").iterdir()) == []


# --- Real data --------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(("level", "per_class"), [("fine", 100), ("coarse", 500)])
@pytest.mark.parametrize("file", ["cifar100-test", "cifar100-train-100pc"])
def test_cifar100_has_the_counts_names_and_labels_of_its_source(file, level, per_class):
    path = SHARED / f"{file}.parquet"
    data = opened(path, label_column=f"{level}_label")
    names = json.loads((SHARED / "labels" / "cifar100_labels.json").read_text())[level]
    assert list(data.class_names) == names
    assert data.split == ("test" if "test" in file else "train")
    assert data.class_counts.tolist() == [per_class] * len(names)
    source = pq.read_table(path)
    assert data.labels.tolist() == source[f"{level}_label"].to_pylist()
    stored = source["img"].to_pylist()
    for n in (0, 1, 99, 100, 5_000, 7_341, 9_999):
        expected = np.asarray(Image.open(io.BytesIO(stored[n]["bytes"])).convert("RGB"))
        np.testing.assert_array_equal(data.load(data.samples[n]), expected)
        name = f"{data.split}/{names[data.samples[n].label]}/{stored[n]['path']}"
        assert data.samples[n].key == (f"row-{n:08}" if stored[n]["path"] is None else name)


@needs_shared
def test_cifar100_asks_which_of_its_labels_is_meant():
    with pytest.raises(DatasetError, match=r"'fine_label', 'coarse_label'. Choose one \(--label-column\)"):
        opened(SHARED / "cifar100-test.parquet")


def test_jpeg_pictures_are_read_too(tmp_path):
    column = pa.array([encode(picture(), "JPEG"), encode(picture(), "WEBP")], pa.binary())
    data = opened(write(tmp_path / "a.parquet", table({"image": column, "label": [0, 1]})))
    assert [data.load(s).shape for s in data.samples] == [(3, 4, 3), (3, 4, 3)]
