"""Pictures, folders and zips made by hand, for the tests of labelrank.data."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from labelrank.settings import Settings

SETTINGS = Settings(workspace=Path("/nonexistent"))


def picture(colour=(200, 30, 60), size=(4, 3)):
    return Image.new("RGB", size, colour)


def encode(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(seed=0):
    """Return a small PNG whose pixels follow from the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels))


def png_header(width, height):
    """Return a PNG that declares a size and holds next to no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def write_tree(root, files):
    """Write {relative path: bytes} below a folder; a path that ends in a slash is an empty folder."""
    for path, content in files.items():
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return root


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    """Write {name or ZipInfo: bytes} to a zip."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return path


CATS_AND_DOGS = {"cat/1.png": png(1), "cat/2.png": png(2), "dog/1.png": png(3)}
HOSTILE_NAMES = [
    "it's",
    'say "hi"',
    "a,b;c",
    "two\nlines",
    "<script>alert(1)",
    "=1+1",
    "😀",
    "-x",
    " ",
    "%s{0}",
]
