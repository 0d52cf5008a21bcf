"""Folders of `Dataset.save_to_disk`, and Arrow files of others."""

import json
import struct

import numpy as np
import pyarrow as pa
import pytest

from labelrank.data import SourceOptions, describe_source, open_dataset
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import SETTINGS, png
from tests.helpers.tables import STRUCT, images, pets, save_to_disk, table, write_arrow


def opened(path, settings=SETTINGS, **options):
    return open_dataset(str(path), SourceOptions(**options), settings=settings)


def test_saved_dataset_has_its_splits_classes_and_images(tmp_path):
    save_to_disk(tmp_path, {"train": pets(7), "validation": pets(3)}, rows=2)
    data = opened(tmp_path)
    assert (data.split, data.splits, data.class_names) == ("train", ("train", "val"), ("cat", "dog", "=1+1"))
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for n in (6, 0, 3):
        assert np.array_equal(data.load(data.samples[n]), opened(tmp_path, split="val").load(data.samples[n % 3])) == (
            n < 3
        )
    info = describe_source(str(tmp_path), settings=SETTINGS)
    assert (info.kind, info.media, info.label_columns, info.num_rows) == ("Arrow", "image", ("label",), 7)


def test_one_saved_split_and_one_file_are_read(tmp_path):
    save_to_disk(tmp_path, {"train": pets(5)})
    assert (opened(tmp_path / "train").split, opened(tmp_path / "train").splits) == ("train", ("train",))
    file = next((tmp_path / "train").glob("*.arrow"))
    assert opened(file).split is None
    assert opened(file).labels.tolist() == [0, 1, 2, 0, 1]


def test_cache_of_the_library_datasets_is_read_by_the_names_of_its_files(tmp_path):
    folder = tmp_path / "pets" / "0.0.0"
    write_arrow(folder / "pets-train-00000-of-00002.arrow", pets(4))
    write_arrow(folder / "pets-train-00001-of-00002.arrow", pets(3))
    write_arrow(folder / "pets-test.arrow", pets(3))
    write_arrow(folder / "cache-0123456789abcdef.arrow", pa.table({"indices": [0]}))
    data = opened(folder)
    assert (data.split, data.splits, len(data.samples)) == ("train", ("train", "test"), 7)


def test_names_of_classes_may_stand_beside_the_table(tmp_path):
    bare = pets(6).replace_schema_metadata(None)
    save_to_disk(tmp_path, {"train": bare})
    assert opened(tmp_path).class_names == ("0", "1", "2")
    features = json.loads(pets().schema.metadata[b"huggingface"])["info"]["features"]
    (tmp_path / "train" / "dataset_info.json").write_text(json.dumps({"features": features}))
    assert opened(tmp_path).class_names == ("cat", "dog", "=1+1")


@pytest.mark.parametrize("random_access", [True, False])
def test_dictionaries_and_empty_rows_are_read(random_access, tmp_path):
    rows = pa.array([{"bytes": png(0), "path": None}, None, {"bytes": png(2), "path": None}, {"bytes": None}], STRUCT)
    content = table({"image": rows, "label": pa.array(["b", "a", "b", None]).dictionary_encode()})
    data = opened(write_arrow(tmp_path / "a.arrow", content, random_access=random_access))
    assert data.class_names == ("a", "b")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.load(data.samples[2]).shape == (3, 4, 3)
    with pytest.raises(MediaError, match="row 1 holds nothing in column 'image'"):
        data.load(data.samples[1])


def test_saved_folder_that_is_not_whole_is_told(tmp_path):
    save_to_disk(tmp_path, {"train": pets(5)})
    file = next((tmp_path / "train").glob("*.arrow"))
    file.unlink()
    with pytest.raises(DatasetError, match=r"saved by the library datasets, but '.*arrow' is missing. Copy the whole"):
        opened(tmp_path)
    (tmp_path / "train" / "state.json").write_text('{"_indices_data_files": [{"filename": "indices.arrow"}]}')
    with pytest.raises(DatasetError, match="selection of rows.*flatten_indices"):
        opened(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["../train", ".."]}')
    with pytest.raises(DatasetError, match=r"dataset_dict.json names no split"):
        opened(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset_dict.json' is no sound JSON"):
        opened(tmp_path)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-500])


def not_arrow(path):
    path.write_bytes(png(0))


def empty(path):
    path.write_bytes(b"")


def pointer(path):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n")


def packed(path):
    write_arrow(path, pets(7), compression="zstd")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, "cut short"),
        (not_arrow, "no sound Arrow file: it starts with 89504e47: a PNG image"),
        (empty, "it is empty"),
        (pointer, "is a Git LFS pointer"),
        (packed, "compressed record batches"),
    ],
)
def test_file_that_is_no_sound_table_is_refused(spoil, message, tmp_path):
    path = write_arrow(tmp_path / "a.arrow", pets(7))
    spoil(path)
    for look in (open_dataset, describe_source):
        with pytest.raises(DatasetError, match=message):
            look(str(path), settings=SETTINGS)


def test_tables_beyond_a_limit_are_refused(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", pets(7))
    for limit, message in (
        ({"max_columns": 1}, "has 2 columns; at most 1"),
        ({"max_footer_bytes": 99}, "at most 99 are accepted .LABELRANK_MAX_FOOTER_BYTES"),
        ({"max_classes": 2}, "names 3 classes"),
        ({"max_rows": 5}, "more than 5 rows"),
    ):
        with pytest.raises(DatasetError, match=message):
            opened(path, Settings(workspace=tmp_path, **limit))


def test_table_that_only_names_its_images_is_refused(tmp_path):
    rows = pa.array([{"bytes": None, "path": f"/data/{n}.png"} for n in range(4)], STRUCT)
    path = write_arrow(tmp_path / "a.arrow", table({"image": rows, "label": [0, 1, 0, 1]}))
    with pytest.raises(DatasetError, match="only the paths of files"):
        opened(path)


def test_any_damaged_byte_gives_an_error_of_ours_or_a_dataset(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", pets(4, paths=[f"{n}.png" for n in range(4)]))
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(sound), 400, replace=False):
        damaged = bytearray(sound)
        damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            data = opened(path)
            for sample in data.samples:
                data.load(sample)
        except (DatasetError, MediaError):
            continue


def test_views_that_share_one_text_do_not_fill_the_memory(tmp_path, run_python):
    # 400 MB if all rows got a copy of their own at once.
    texts = pa.py_buffer(b"x" * 2**20 + b"y" * 2**20)
    views = [struct.pack("<i4sii", 2**20, (b"xxxx", b"yyyy")[n % 2], 0, n % 2 * 2**20) for n in range(400)]
    labels = pa.Array.from_buffers(pa.string_view(), 400, [None, pa.py_buffer(b"".join(views)), texts])
    content = table({"image": pa.array([png(0)] * 400), "label": labels})
    path = write_arrow(tmp_path / "a.arrow", content)
    program = f"""
import pyarrow as pa
from labelrank.data import open_dataset
from labelrank.settings import Settings
data = open_dataset({str(path)!r}, settings=Settings())
print(len(data.class_names), len(data.samples), pa.default_memory_pool().max_memory() < 100 * 2**20)
"""
    assert path.stat().st_size < 8 * 2**20
    assert run_python(program) == "2 400 True"


def test_large_images_are_read_where_they_lie(tmp_path):
    content = table({"image": images(200), "label": [n % 2 for n in range(200)]})
    data = opened(write_arrow(tmp_path / "a.arrow", content, rows=7))
    before = pa.total_allocated_bytes()
    for sample in data.samples:
        data.load(sample)
    assert pa.total_allocated_bytes() - before < 2**20
