"""Files made to do harm, each with what has to become of it.

`python -m tests.hostile.corpus FOLDER` writes them all.
"""

import io
import json
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from tests.conftest import GOLDEN
from tests.helpers.datasets import encode, numbered_frames, png, png_header, video, write_tar, write_tree, write_zip
from tests.helpers.tables import class_label, images, table, write
from tests.hostile import readers, zips

SECRET = b"the content of another file"
_SIDE = 9_999


class Case(NamedTuple):
    """A file, and what has to become of it."""

    make: Callable[[Path], Path]
    """Writes it into an empty folder, and returns its path."""
    read: Callable
    message: str | None
    """What the refusal says (a pattern); None: it is read."""
    limits: Mapping[str, int] = {}
    """Settings that are not the usual ones."""


def _file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


# Archives


def deep_zip(depth: int = 30_000) -> bytes:
    """Return a zip of images below very many folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "xy":
            archive.writestr(f"{'d/' * depth}{name}/0.png", png())
    return buffer.getvalue()


def many_names(folder: Path) -> Path:
    """Write a zip of folders with names of a few hundred letters, which a directory holds at no cost."""
    return write_zip(folder / "a.zip", {f"{n:05}{'n' * 240}/0.png": b"" for n in range(60_000)}, zipfile.ZIP_STORED)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def _tar_with(member: tarfile.TarInfo) -> Callable[[Path], Path]:
    sound = {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(2)}
    return lambda folder: write_tar(folder / "a.tar", [*sound.items(), (member, b"")])


def tar_that_claims(size: int) -> bytes:
    """Return a tar whose only member says that it is so large."""
    member = tarfile.TarInfo("cat/0.png")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT) + png()


# Tables


def repeated_picture(path: Path, rows: int = 20_000, side: int = 1500) -> Path:
    """Write a Parquet whose dictionary holds one picture of some MB, which stands in all rows."""
    tile = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    picture = encode(Image.fromarray(tile), "PNG", compress_level=0)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([picture]))
    content = pa.table({"image": column, "label": pa.array(["x", "y"] * (rows // 2))})
    pq.write_table(content, path, use_dictionary=True, compression="NONE", dictionary_pagesize_limit=1 << 30)
    return path


def many_columns(folder: Path) -> Path:
    """Write a table of 50,000 columns."""
    schema = pa.schema([(f"c{n}", pa.int8()) for n in range(50_000)])
    pq.write_table(pa.table([pa.nulls(2, pa.int8())] * 50_000, schema=schema), folder / "a.parquet")
    return folder / "a.parquet"


def many_rows(folder: Path) -> Path:
    """Write a table of 4.9 million rows, a few bytes each."""
    count = 4_900_000
    picture = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([png()]))
    pq.write_table(pa.table({"image": picture, "label": np.arange(count) % 2}), folder / "a.parquet")
    return folder / "a.parquet"


def many_classes(folder: Path) -> Path:
    """Write a table with a million class names."""
    features = {"image": {"_type": "Image"}, "label": class_label(f"class {n}" for n in range(1_000_000))}
    return write(folder / "a.parquet", table({"image": images(4), "label": pa.array([0, 1, 2, 3])}, features))


def many_texts(folder: Path) -> Path:
    """Write a table in which 100,000 different texts are the labels, each twice."""
    labels = [f"class {n // 2}" for n in range(200_000)]
    picture = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(labels), np.int32)), pa.array([png()]))
    pq.write_table(pa.table({"image": picture, "label": labels}), folder / "a.parquet")
    return folder / "a.parquet"


# Images and videos


def progressive(scans: int, side: int) -> bytes:
    """Return a JPEG whose last scan is repeated; a decoder goes through the whole image for each."""
    jpeg = encode(Image.new("RGB", (side, side), "grey"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + b"\xff\xd9"


def _large(image_format: str, mode: str = "L", **options: Any) -> Callable[[], bytes]:
    return lambda: encode(Image.new(mode, (_SIDE, _SIDE)), image_format, **options)


def in_other_file(folder: Path) -> Path:
    """Write an MP4 whose data reference names another file, from which the frames are to come."""
    (folder / "secret.mp4").write_bytes(data := video(numbered_frames(3)))
    own = struct.pack(">I4sI", 12, b"url ", 1)
    reference = str(folder / "secret.mp4").encode() + b"\0"
    other = struct.pack(">I4sI", 12 + len(reference), b"url ", 0) + reference
    data = data.replace(own, other)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):  # which grow by as much
        at = data.index(box) - 4
        (size,) = struct.unpack_from(">I", data, at)
        data = data[:at] + struct.pack(">I", size + len(other) - len(own)) + data[at + 4 :]
    start = data.index(b"mdat") + 4
    size = struct.unpack_from(">I", data, start - 8)[0] - 8
    (folder / "a.mp4").write_bytes(data[:start] + bytes(size) + data[start + size :])
    return folder / "a.mp4"


_URL = "http://192.0.2.1/a.mp4"  # an address that belongs to nobody
TEXTS = {
    "an HLS playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{{path}}\n#EXTINF:9,\n{_URL}\n#EXT-X-ENDLIST\n",
    "a concat list": f"ffconcat version 1.0\nfile '{{path}}'\nfile '{_URL}'\n",
    "a DASH manifest": f'<?xml version="1.0"?><MPD><Period><BaseURL>{_URL}</BaseURL></Period></MPD>',
    "an SDP session": "v=0\no=- 0 0 IN IP4 192.0.2.1\ns=x\nc=IN IP4 192.0.2.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "an RTSP redirection": f"RTSPtext\n{_URL}\n",
    "an ASX playlist": f'<asx version="3.0"><entry><ref href="{_URL}"/></entry></asx>',
    "an SMIL file": f'<smil><body><video src="{_URL}"/></body></smil>',
    "an FFmetadata file": ";FFMETADATA1\ntitle=x\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:01,000\n{path}\n",
}
"""What FFmpeg would read as a video whose frames are elsewhere; {path} is a file of another user."""
IMAGES = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/ran) (w) file closefile showpage\n",
    "binary PostScript": b"\xc5\xd0\xd3\xc6" + struct.pack("<6L", 32, 99, 0, 0, 0, 0) + b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "a PDF": b"%PDF-1.4\n%%EOF\n",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "an icon": b"\0\0\1\0\1\0" + bytes(16),
    "a WMF": b"\xd7\xcd\xc6\x9a" + bytes(18),
    "a Targa": bytes([0, 0, 2]) + bytes(9) + struct.pack("<2H2B", 2, 2, 24, 0) + bytes(12),
    "JPEG 2000": b"\xff\x4f\xff\x51" + bytes(40),
    "an FLI": struct.pack("<L3H", 128, 0xAF11, 1, 4) + bytes(120),
    "a Windows cursor": b"\0\0\2\0\1\0" + bytes(16),
    "a BLP": b"BLP2" + bytes(200),
    "an SGI image": b"\x01\xda" + bytes(510),
    "a PCX": b"\x0a\x05\x01\x08" + bytes(124),
    "an XBM": b"#define a_width 2\n#define a_height 2\nstatic char a_bits[] = {0x00, 0x00};\n",
    "a DDS": b"DDS " + bytes(124),
    "FITS": b"SIMPLE  =                    T" + bytes(2850),
    "an MPO of nothing": b"\xff\xd8\xff\xe2\x00\x08MPF\0" + bytes(8),
    "an AVIF": b"\0\0\0\x1cftypavif" + bytes(40),
}
"""Files of which Pillow reads some, by another program (Ghostscript) or a decoder that nobody here needs."""


def _tree_of(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_tree(folder / "a", {f"{one}/{name}": content for one in ("cat", "dog")})
        return folder / "a"

    return make


# Checkpoints


def _checkpoint(change: Callable[[Path], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        shutil.copytree(GOLDEN / "vit_mae", folder / "model")
        change(folder / "model")
        return folder / "model" / "config.json"

    return make


def _config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _header(change: Callable[[dict], Any], *, length: int | None = None) -> Callable[[Path], None]:
    """Return what rewrites the header of the weights, and states another length of it."""

    def write_header(folder: Path) -> None:
        data = (path := folder / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header = change(header) or header
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data[8 + size :])

    return write_header


def _first_tensor(**values: Any) -> Callable[[dict], None]:
    return lambda header: header[next(name for name in header if name != "__metadata__")].update(values)


def _index(weight_map: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "secret.safetensors")
        shutil.move(folder / "secret.safetensors", folder.parent / "secret.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


def _weights(tensors: Mapping[str, np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: save_file(dict(tensors), folder / "model.safetensors")


CHECKPOINTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a header of 2**63 bytes": (_header(lambda header: None, length=2**63), "a header of"),
    "a header of 90 MB": (_header(lambda header: b"{" + b" " * 90_000_000 + b"}"), "not a readable"),
    "a header nested 100,000 deep": (_header(lambda header: b"[" * 100_000), "not a readable safetensors file"),
    "a tensor of 2**60 values": (_header(_first_tensor(shape=[2**30, 2**30])), "not a readable safetensors file"),
    "a tensor of 5,000 digits": (
        _header(lambda header: json.dumps(header).replace("[", "[" + "9" * 5000 + ",", 1).encode()),
        "not a readable safetensors file",
    ),
    "a negative shape": (_header(_first_tensor(shape=[-1, 4])), "not a readable safetensors file"),
    "a tensor behind the end": (_header(_first_tensor(data_offsets=[10**12, 10**12 + 4])), "not a readable"),
    "tensors that overlap": (_header(_first_tensor(data_offsets=[0, 4])), "not a readable safetensors file"),
    "a list for a header": (_header(lambda header: b"[]"), "not a readable safetensors file"),
    "numbers for tensors": (_header(lambda header: dict.fromkeys(header, 1)), "not a readable safetensors file"),
    "no tensors": (_weights({"x": np.zeros(1, np.float32)}), r"[Tt]ensor"),
    "an encoder of 10**9 channels": (_config(hidden_size=10**9), "parameters or more"),
    "an encoder of 10**6 layers": (_config(num_hidden_layers=10**6), "layers|million|tensor|parameters"),
    "an image of 10**6 pixels a side": (_config(image_size=10**6), "image_size|1,?000,?000"),
    "patches of no size": (_config(patch_size=0), "patch_size"),
    "a size of text": (_config(hidden_size="64; rm -rf /"), "hidden_size"),
    "a config of 40 MB": (
        lambda folder: (folder / "config.json").write_text(f'{{"a": "{"x" * 40_000_000}"}}'),
        "has 40,000,009 bytes",
    ),
    "a config nested 100,000 deep": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000 + "]" * 100_000),
        "cannot be read as JSON",
    ),
    "code to be run": (_config(auto_map={"AutoModel": "evil.Model"}, model_type="evil"), "evil"),
    "an index of files elsewhere": (_index({"x": "../secret.safetensors"}), r"\.\./secret|model\.safetensors\.index"),
    "an index of a path": (_index({"x": "/etc/passwd"}), r"/etc/passwd|model\.safetensors\.index"),
    "an index of numbers": (_index({"x": 1}), r"model\.safetensors\.index"),
    "an index that is a list": (_index([]), r"model\.safetensors\.index"),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"pytorch_model\.bin.*runs code",
    ),
}

# Label maps, features and lists


def _lying_npz(folder: Path) -> Path:
    """Write an npz whose array claims to be of 2**40 values."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    return write_zip(folder / "f.npz", {"X.npy": array, "y.npy": array})


def _pickled_npz(folder: Path) -> Path:
    class Runs:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    np.savez(folder / "f.npz", X=np.array([Runs()], dtype=object), y=np.array([Runs()], dtype=object))
    return folder / "f.npz"


def _packed_npz(folder: Path) -> Path:
    """Write an npz of 6 MB that unpacks to 6 GB."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1500000, 1000), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(folder / "f.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as file:
            file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
            for _ in range(600):
                file.write(bytes(10_000_000))
        archive.writestr("y.npy", b"")
    return folder / "f.npz"


def _list_of(content: bytes, name: str = "list.csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "secret").mkdir()
        (folder / "secret" / "0.png").write_bytes(png())
        write_tree(folder / "a", {f"images/{n}.png": png(n) for n in range(4)} | {name: content})
        return folder / "a"

    return make


def _link(folder: Path) -> Path:
    """Write a folder with a link to a file outside it."""
    write_tree(folder / "a", {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(2)})
    (folder / "secret.png").write_bytes(png())
    (folder / "a" / "cat" / "3.png").symlink_to(folder / "secret.png")
    (folder / "a" / "cat" / "all").symlink_to("/etc", target_is_directory=True)
    return folder / "a"


_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"

CORPUS: dict[str, Case] = {
    "zip: 30,000 folders deep": Case(_file("a.zip", deep_zip), readers.dataset, "path of .* at most"),
    "zip: 60,000 classes of long names": Case(many_names, readers.dataset, "MAX_CLASSES"),
    "tar: a link out": Case(_tar_with(_member("cat/9.png", tarfile.SYMTYPE, "/etc/passwd")), readers.dataset, "link"),
    "tar: a hard link out": Case(_tar_with(_member("cat/9.png", tarfile.LNKTYPE, "/etc/passwd")), readers.dataset, "l"),
    "tar: a path out": Case(_tar_with(_member("../9.png")), readers.dataset, r"\.\./9\.png"),
    "tar: an absolute path": Case(_tar_with(_member("/etc/9.png")), readers.dataset, "/etc/9.png"),
    "tar: a device": Case(_tar_with(_member("cat/9.png", tarfile.CHRTYPE)), readers.dataset, "special|device"),
    "tar: 8 EB in 600 bytes": Case(_file("a.tar", lambda: tar_that_claims(2**62)), readers.dataset, "."),
    "Parquet: a picture of 7 MB in 20,000 rows": Case(
        lambda folder: repeated_picture(folder / "a.parquet"), readers.dataset, None
    ),
    "Parquet: 50,000 columns": Case(many_columns, readers.dataset, "50,000 columns; at most"),
    "Parquet: 4.9 million rows": Case(many_rows, readers.dataset, "4,900,000 rows; at most"),
    "Parquet: a million class names": Case(many_classes, readers.dataset, "1,000,000 .*class|MAX_CLASSES|FOOTER"),
    "Parquet: 100,000 labels": Case(many_texts, readers.dataset, "MAX_CLASSES"),
    "JPEG: 20,000 scans": Case(_file("a.jpg", lambda: progressive(20_000, _SIDE)), readers.image, "scans, the most"),
    "JPEG: just under the limit": Case(_file("a.jpg", _large("JPEG")), readers.image, None),
    "JPEG: just under the limit, progressive": Case(
        _file("a.jpg", _large("JPEG", progressive=True)), readers.image, None
    ),
    "PNG: just under the limit": Case(_file("a.png", _large("PNG", compress_level=1)), readers.image, None),
    "WebP: as large as it can be": Case(
        _file("a.webp", lambda: encode(Image.new("RGB", (16_383, 6_000)), "WEBP", lossless=True, quality=0, method=0)),
        readers.image,
        None,
    ),
    "PNG: 4 billion pixels": Case(_file("a.png", lambda: png_header(65_535, 65_535)), readers.image, "MAX_PIXELS"),
    "image: a Git LFS pointer": Case(_file("a.png", lambda: _LFS), readers.image, "Git LFS"),
    **{
        f"image: {name}": Case(_tree_of(content, "0.png"), readers.dataset, "expected a JPEG|damaged|not read")
        for name, content in IMAGES.items()
    },
    **{
        f"video: {name}": Case(
            _tree_of(text.format(path="/etc/passwd").encode(), "0.mp4"), readers.dataset, "expected a video in AVI"
        )
        for name, text in TEXTS.items()
    },
    "video: frames in another file": Case(in_other_file, readers.video, "refers to another file|cannot be|damaged"),
    "video: a picture as a sequence": Case(_file("a%02d.mp4", png), readers.video, "expected a video in AVI"),
    **{
        f"checkpoint: {name}": Case(_checkpoint(change), readers.checkpoint, message)
        for name, (change, message) in CHECKPOINTS.items()
    },
    "features: 2**42 numbers in 500 bytes": Case(_lying_npz, readers.features, "."),
    "features: a pickle": Case(_pickled_npz, readers.features, "Python objects|without"),
    "features: 6 GB in 6 MB": Case(_packed_npz, readers.features, "."),
    "list: files of others": Case(
        _list_of(b"file_name,label\n../secret/0.png,a\n/etc/passwd,b\nimages/0.png,a\nimages/1.png,b\n"),
        readers.dataset,
        None,
    ),
    "list: a cell of 40 MB": Case(
        _list_of(b"file_name,label\nimages/0.png,a\nimages/1.png," + b"b" * 40_000_000), readers.dataset, "."
    ),
    "folder: links out": Case(_link, readers.dataset, None),
    "label map: nested 100,000 deep": Case(
        _file("label_map.json", lambda: b"[" * 100_000), readers.label_map, "cannot be read|not JSON"
    ),
    "groups: 40 MB": Case(_file("g.csv", lambda: b"name,group\n" + b"x" * 40_000_000), readers.groups, "."),
    **{
        f"zip: {name}": Case(lambda folder, make=make: make(folder / "pets.zip"), readers.dataset, message)
        for name, (make, message) in zips.HOSTILE.items()
    },
}

if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name, case in CORPUS.items():
        (place := target / name.replace("/", "-")).mkdir(parents=True)
        print(case.make(place))
