"""Images, folders and zips made by hand, for the tests of labelrank.data."""

import io
import struct
import tarfile
import zipfile
import zlib
from fractions import Fraction
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


class Unmarked(zipfile.ZipInfo):
    def _encodeFilenameFlags(self):
        return self.raw, 0


def unmarked(path, files, codec, extra=None):
    """Write a zip as old tools do: names in `codec`, without the mark of UTF-8; `extra` makes a name's extra field."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = Unmarked("placeholder")
            info.raw = name.encode(codec)
            info.filename = info.orig_filename = info.raw.decode("cp437")
            info.extra = extra(info.raw, name) if extra else b""
            archive.writestr(info, content)
    return path


def write_tar(path, files, form=tarfile.GNU_FORMAT):
    """Write {name or TarInfo: bytes} to a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
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


def numbered_frames(count, size=(64, 96)):
    """Return frames uint8 (count, H, W, 3), each of which shows its number, see `number_of`, before a moving ramp."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((count, height, width, 3), np.uint8)
    for n in range(count):
        frames[n] = (60 + (rows + columns + 3 * n) % 120)[:, :, None]
        for bit in range(10):
            frames[n, :16, bit * width // 10 : (bit + 1) * width // 10] = 255 * (n >> bit & 1)
    return frames


def number_of(frame):
    """Return the number that a frame of `numbered_frames` shows, whatever a codec did to it."""
    width = frame.shape[1]
    cells = [frame[4:12, bit * width // 10 + 3 : (bit + 1) * width // 10 - 2].mean() for bit in range(10)]
    return sum((cell > 127) << bit for bit, cell in enumerate(cells))


def video(frames, container="mp4", codec="libx264", *, times=None, options=None, rotation=0, sound=False):
    """Return a video file's bytes.

    Args:
        times: When each frame is shown, in 1/30 s; one after the other by default.
        rotation: Degrees counter-clockwise that players turn it by.
    """
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        formats = [f.name for f in stream.codec.video_formats]
        stream.pix_fmt = next((f for f in ("yuv420p", "yuvj420p") if f in formats), formats[0])
        stream.codec_context.time_base = Fraction(1, 30)
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            tone = output.add_stream("aac", rate=8000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.rate = 8000
        for time, pixels in zip(range(len(frames)) if times is None else times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            output.mux(stream.encode(frame))
            if sound:
                silence.pts = None
                output.mux(tone.encode(silence))
        output.mux(stream.encode(None))
        if sound:
            output.mux(tone.encode(None))
    return buffer.getvalue()
