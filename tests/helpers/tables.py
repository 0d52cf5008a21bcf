"""Parquet tables of images, as the datasets library and as others write them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.datasets import png

CLASS_NAMES = ["cat", "dog", "=1+1"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def class_label(names):
    return {"_type": "ClassLabel", "names": list(names)}


def images(count, paths=None):
    """Return a column of the datasets library: an image from each row's number, and a file name or null."""
    paths = paths or [None] * count
    return pa.array([{"bytes": png(n), "path": paths[n]} for n in range(count)], STRUCT)


def table(columns, features=None):
    """Return a table; `features` become the metadata that the datasets library writes."""
    result = pa.table(columns)
    if features is None:
        return result
    return result.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def pets(count=7, *, labels=None, paths=None, names=CLASS_NAMES, **more):
    """Return a table with the columns image and label as the datasets library writes them."""
    labels = [n % 3 for n in range(count)] if labels is None else labels
    features = {"image": {"_type": "Image"}, "label": class_label(names)}
    return table({"image": images(count, paths), "label": pa.array(labels, pa.int64()), **more}, features)


def write(path, content=None, *, row_group_size=2, **options):
    """Write a table, in small row groups so that there are several, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pets() if content is None else content, path, row_group_size=row_group_size, **options)
    return path


def content(path, **options):
    """Return the bytes of a table's file."""
    return write(path, **options).read_bytes()


def write_arrow(path, content, *, rows=1000, random_access=False, compression=None):
    """Write a table as an Arrow file, in record batches of some rows, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_file if random_access else pa.ipc.new_stream
    with new(str(path), content.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(content, max_chunksize=rows)
    return path


def save_to_disk(folder, splits, *, rows=1000):
    """Write {split: table} as `DatasetDict.save_to_disk` does."""
    for split, content in splits.items():
        file = write_arrow(folder / split / "data-00000-of-00001.arrow", content, rows=rows)
        state = {"_data_files": [{"filename": file.name}], "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [*splits]}))
    return folder
