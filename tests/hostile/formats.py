"""A small sound file of each format that labelrank reads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from labelrank.features.store import FeatureSet, write_features
from labelrank.settings import assets_dir
from tests.conftest import GOLDEN
from tests.helpers.datasets import encode, numbered_frames, png, video, write_tar, write_tree, write_zip
from tests.helpers.label_maps import PROVENANCE, three_cycle
from tests.helpers.tables import pets, write, write_arrow
from tests.hostile import readers
from tests.hostile.readers import ANIMALS


class Format(NamedTuple):
    """A file that is read."""

    make: Callable[[Path], Path]
    """Writes the file, with what else it needs, into an empty folder, and returns its path."""
    read: Callable


def _written(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


TREE = {f"{name}/{n}.png": png(n) for name in ANIMALS for n in range(3)}


def _beside_images(name: str, content: bytes) -> Callable[[Path], Path]:
    """Return what writes a list of labels, and the images beside it."""

    def make(folder: Path) -> Path:
        write_tree(folder, {f"images/{n}.png": png(n) for n in range(9)} | {name: content})
        return folder / name

    return make


def _shard() -> dict[str, bytes]:
    files = {}
    for n in range(6):
        facts = json.dumps({"label": ANIMALS[n % 3], "caption": f"no {n}"}).encode()
        files |= {f"{n:06}.png": png(n), f"{n:06}.json": facts}
    return files


def _image(image_format: str, *, mode: str = "RGB", **options) -> Format:
    def content() -> bytes:
        pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
        pixels[8:40] = pixels[8]  # so that compression has something to do
        return encode(Image.fromarray(pixels).convert(mode), image_format, **options)

    return Format(_written(f"a.{image_format.lower()}", content), readers.image)


def _animation() -> bytes:
    first, *others = (Image.fromarray(frame) for frame in numbered_frames(4))
    return encode(first, "GIF", save_all=True, append_images=others, duration=40)


def _video(ending: str, container: str, codec: str, **options) -> Format:
    return Format(
        _written(f"a.{ending}", lambda: video(numbered_frames(24), container, codec, options=options)), readers.video
    )


def _copied(source: Path, name: str) -> Callable[[Path], Path]:
    """Return what copies a folder and names one file of it."""

    def make(folder: Path) -> Path:
        shutil.copytree(source, folder / "model")
        return folder / "model" / name

    return make


def _features(folder: Path) -> Path:
    labels = np.arange(12) % 3
    X = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    found = FeatureSet(X, labels, tuple(f"{n}.png" for n in range(12)), ANIMALS, PROVENANCE)
    write_features(found, folder / "f.parquet")
    return folder / "f.parquet"


def _given_table(folder: Path) -> Path:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(48, dtype=np.float32)), 4)
    pq.write_table(pa.table({"embedding": vectors, "label": [ANIMALS[n % 3] for n in range(12)]}), folder / "f.parquet")
    return folder / "f.parquet"


def _given_arrays(save) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        X = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
        save(folder / "f.npz", X=X, y=np.arange(12) % 3, class_names=np.array(ANIMALS))
        return folder / "f.npz"

    return make


def _lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


_CSV = _lines("file_name,label", *(f"images/{n}.png,{ANIMALS[n % 3]}" for n in range(9)))
_JSONL = _lines(*(json.dumps({"file_name": f"images/{n}.png", "label": ANIMALS[n % 3]}) for n in range(9)))
_JSON = json.dumps([{"img": f"images/{n}.png", "class": ANIMALS[n % 3]} for n in range(9)]).encode()
_TXT = _lines(*(f"images/{n}.png {n % 3}" for n in range(9)))

FORMATS: dict[str, Format] = {
    "zip": Format(lambda folder: write_zip(folder / "a.zip", TREE), readers.dataset),
    "zip with a list": Format(
        lambda folder: write_zip(
            folder / "a.zip", {f"images/{n}.png": png(n) for n in range(9)} | {"metadata.csv": _CSV}, compression=0
        ),
        readers.dataset,
    ),
    "tar": Format(lambda folder: write_tar(folder / "a.tar", TREE), readers.dataset),
    "WebDataset": Format(lambda folder: write_tar(folder / "a.tar", _shard()), readers.dataset),
    "Parquet": Format(lambda folder: write(folder / "a.parquet"), readers.dataset),
    "Parquet, plain": Format(
        lambda folder: write(folder / "a.parquet", use_dictionary=False, compression="NONE"), readers.dataset
    ),
    "Arrow": Format(lambda folder: write_arrow(folder / "a.arrow", pets(7), rows=3), readers.dataset),
    "Arrow, random access": Format(
        lambda folder: write_arrow(folder / "a.arrow", pets(7), random_access=True), readers.dataset
    ),
    "list, CSV": Format(_beside_images("metadata.csv", _CSV), lambda path, s: readers.dataset(path.parent, s)),
    "list, JSONL": Format(_beside_images("metadata.jsonl", _JSONL), lambda path, s: readers.dataset(path.parent, s)),
    "list, JSON": Format(_beside_images("list.json", _JSON), readers.dataset),
    "list, text": Format(_beside_images("list.txt", _TXT), readers.dataset),
    "JPEG": _image("JPEG"),
    "JPEG, progressive": _image("JPEG", progressive=True),
    "PNG": _image("PNG"),
    "PNG, palette": _image("PNG", mode="P"),
    "TIFF": _image("TIFF"),
    "TIFF, LZW": _image("TIFF", compression="tiff_lzw"),
    "TIFF, Deflate": _image("TIFF", compression="tiff_adobe_deflate"),
    "TIFF, JPEG": _image("TIFF", compression="jpeg"),
    "WebP": _image("WEBP"),
    "WebP, lossless": _image("WEBP", lossless=True),
    "BMP": _image("BMP"),
    "GIF": Format(_written("a.gif", _animation), readers.image),
    "PPM": _image("PPM"),
    "AVI": _video("avi", "avi", "mpeg4", g="12"),
    "AVI, H.264": _video("avi", "avi", "libx264", g="12", bf="2"),
    "MP4": _video("mp4", "mp4", "libx264", g="12", bf="2"),
    "MP4, fragments": Format(
        _written(
            "a.mp4",
            lambda: video(numbered_frames(24), "mp4", "libx264", options={"g": "12", "movflags": "frag_keyframe"}),
        ),
        readers.video,
    ),
    "MOV": _video("mov", "mov", "prores_ks"),
    "WebM": _video("webm", "webm", "libvpx-vp9"),
    "WebM, VP8": _video("webm", "webm", "libvpx"),
    "Matroska": _video("mkv", "matroska", "libx264", g="12"),
    "MPEG": _video("mpg", "mpeg", "mpeg1video", g="12", bf="2"),
    "MPEG-TS": _video("ts", "mpegts", "libx264", g="12"),
    "FLV": _video("flv", "flv", "flv"),
    "WMV": _video("wmv", "asf", "wmv2"),
    "Ogg": _video("ogv", "ogg", "libvpx"),
    "safetensors": Format(_copied(GOLDEN / "vit_mae", "model.safetensors"), readers.checkpoint),
    "config.json": Format(_copied(GOLDEN / "vit_mae", "config.json"), readers.checkpoint),
    "preprocessor_config.json": Format(_copied(GOLDEN / "vit_mae", "preprocessor_config.json"), readers.checkpoint),
    "ranker": Format(_copied(assets_dir() / "rankers" / "ltrp-tiny-digits", "config.json"), readers.ranker),
    "features": Format(_features, readers.features),
    "features, table": Format(_given_table, readers.features),
    "features, npz": Format(_given_arrays(np.savez), readers.features),
    "features, packed npz": Format(_given_arrays(np.savez_compressed), readers.features),
    "label_map.json": Format(_written("label_map.json", lambda: three_cycle().to_bytes()), readers.label_map),
    "groups, CSV": Format(
        _written("groups.csv", lambda: _lines("name,group", "cat,pet", "dog,pet", "owl,bird")), readers.groups
    ),
    "groups, JSON": Format(
        _written("groups.json", lambda: b'{"cat": "pet", "dog": "pet", "owl": "bird"}'), readers.groups
    ),
    "costs, CSV": Format(_written("costs.csv", lambda: _lines("0,1,2", "1,0,3", "2,3,0")), readers.costs),
}
