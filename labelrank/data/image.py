"""Image files to RGB arrays, with every limit checked before a pixel is decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from labelrank.data import image_depth, image_files
from labelrank.data.reading import one_sample, take_memory
from labelrank.errors import MediaError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that are read as images."""

READABLE = "JPEG, PNG, BMP, GIF, WebP, TIFF or PPM"


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Reads uncompressed TIFF whose channels lie apart with libtiff, as Pillow does for all that is compressed.

    Pillow's own reader takes the bytes of 16-bit channels for pixels, without an error, and fails at other channels.
    """

    @property
    def _compression(self) -> str:
        is_apart = self._stored_compression == "raw" and self._planar_configuration == 2
        return "raw, channels apart" if is_apart else self._stored_compression

    @_compression.setter
    def _compression(self, value: str) -> None:
        self._stored_compression = value


_Decoder = Callable[[io.BytesIO, str], ImageFile.ImageFile]
_Examine = Callable[[bytes, str, Settings], bytes]


class _Kind(NamedTuple):
    title: str
    offset: int
    magic: bytes
    decoder: _Decoder | None = None
    examine: _Examine = lambda data, name, settings: data
    """Returns what the decoder gets of a file; raises MediaError where that would keep it busy."""


# Only these decoders can be reached by a file's content. Pillow knows forty more formats, some of which start
# other programs (EPS) or are rarely exercised; none of them is needed for photographs.
_KINDS = (
    _Kind("a JPEG-LS image", 0, b"\xff\xd8\xff\xf7"),
    _Kind("a JPEG image", 0, b"\xff\xd8\xff", JpegImagePlugin.jpeg_factory, image_files.examine_jpeg),
    _Kind("a PNG image", 0, b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile, image_files.examine_png),
    _Kind("a GIF image", 0, b"GIF87a", GifImagePlugin.GifImageFile, image_files.examine_gif),
    _Kind("a GIF image", 0, b"GIF89a", GifImagePlugin.GifImageFile, image_files.examine_gif),
    _Kind("a WebP image", 8, b"WEBP", WebPImagePlugin.WebPImageFile),
    _Kind("a TIFF image", 0, b"II*\0", _Tiff, image_files.examine_tiff),
    _Kind("a TIFF image", 0, b"MM\0*", _Tiff, image_files.examine_tiff),
    _Kind("a TIFF image", 0, b"II+\0", _Tiff, image_files.examine_tiff),
    _Kind("a TIFF image", 0, b"MM\0+", _Tiff, image_files.examine_tiff),
    *(_Kind("a PPM image", 0, b"P%d" % n, PpmImagePlugin.PpmImageFile, image_files.examine_ppm) for n in range(1, 7)),
    _Kind("a BMP image", 0, b"BM", BmpImagePlugin.BmpImageFile, image_files.examine_bmp),
    _Kind("a HEIC image", 4, b"ftyphei"),
    _Kind("a HEIC image", 4, b"ftypmif1"),
    _Kind("a HEIC image", 4, b"ftyphev"),
    _Kind("a HEIC image", 4, b"ftypmsf1"),
    _Kind("an AVIF image", 4, b"ftypavif"),
    _Kind("an AVIF image", 4, b"ftypavis"),
    _Kind("a JPEG 2000 image", 0, b"\0\0\0\x0cjP  "),
    _Kind("a JPEG 2000 image", 0, b"\xff\x4f\xff\x51"),
    _Kind("a JPEG XL image", 0, b"\xff\x0a"),
    _Kind("a JPEG XL image", 0, b"\0\0\0\x0cJXL "),
    _Kind("a Photoshop document", 0, b"8BPS"),
    _Kind("a PostScript document", 0, b"%!PS"),
    _Kind("an OpenEXR image", 0, b"\x76\x2f\x31\x01"),
    _Kind("a Radiance HDR image", 0, b"#?RADIANCE"),
    _Kind("a PFM image", 0, b"PF"),
    _Kind("a PAM image", 0, b"P7\n"),
    _Kind("a DICOM image", 128, b"DICM"),
    _Kind("a FITS image", 0, b"SIMPLE  ="),
    _Kind("a NumPy array", 0, b"\x93NUMPY"),
    _Kind("a video", 4, b"ftyp"),
    _Kind("a video", 4, b"moov"),
    _Kind("a video", 188, b"\x47"),
    _Kind("a video", 196, b"\x47"),
    _Kind("a video", 8, b"AVI "),
    _Kind("a video", 0, b"\x1a\x45\xdf\xa3"),
    _Kind("a video", 0, b"\0\0\x01\xba"),
    _Kind("a video", 0, b"\0\0\x01\xb3"),
    _Kind("a video", 0, b"FLV\x01"),
    _Kind("a video", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    _Kind("an Ogg file", 0, b"OggS"),
    _Kind("a PDF document", 0, b"%PDF"),
    _Kind("a zip", 0, b"PK\x03\x04"),
    _Kind("an empty zip", 0, b"PK\x05\x06"),
    _Kind("a RAR archive", 0, b"Rar!"),
    _Kind("a 7-Zip archive", 0, b"7z\xbc\xaf\x27\x1c"),
    _Kind("a gzip archive", 0, b"\x1f\x8b"),
    _Kind("a bzip2 archive", 0, b"BZh"),
    _Kind("an xz archive", 0, b"\xfd7zXZ\0"),
    _Kind("a zstd archive", 0, b"\x28\xb5\x2f\xfd"),
    _Kind("a tar archive", 257, b"ustar"),
    _Kind("a Parquet file", 0, b"PAR1"),
    _Kind("an HDF5 file", 0, b"\x89HDF"),
)
# Servers send these in place of a file that is not there, or not for everyone.
_TEXT_KINDS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML text",
    b"<!": "a web page",
    b"{": "JSON text",
}
"""Beginnings of texts in lower case, after blanks -> what these are."""
HEAD_BYTES = 512
"""How many bytes of the start of a file `describe_head` needs."""

_BAND_PIXELS = 2**22
"""A larger image is converted band by band."""

# Pillow keeps pixels in blocks of 16 MiB, of which the C library keeps some for each thread after they are freed.
# Larger blocks always go back to the system. Eight images of 100 million pixels, read one after another by eight
# threads, then take 0.8 GB and not 3.4 GB.
_imaging.set_block_size(2**26)

# What Pillow's decoders raise on damaged or hostile bytes: UnidentifiedImageError and truncation are OSError, a
# broken PNG chunk or TIFF tag is a SyntaxError, ValueError, struct.error, zlib.error, LookupError, TypeError or
# AttributeError, absurd sizes are ArithmeticError or MemoryError, a missing codec is NotImplementedError (a
# RuntimeError). MemoryError is here because the header, not our code, asked for the memory.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def _kind_of(head: bytes) -> _Kind | None:
    return next((k for k in _KINDS if head[k.offset : k.offset + len(k.magic)] == k.magic), None)


def describe_head(head: bytes) -> str:
    """Describe a file by its first bytes, in words that follow "the file".

    >>> describe_head(bytes.fromhex("89504e470d0a1a0a"))
    'starts with 89504e47: a PNG image'
    """
    if not head:
        return "is empty (0 bytes)"
    kind = _kind_of(head)
    title = kind.title if kind else _text_title(head)
    return f"starts with {head[:4].hex()}" + (f": {title}" if title else "")


def _text_title(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    title = next((title for start, title in _TEXT_KINDS.items() if text.startswith(start)), None)
    return "an SVG drawing" if title == "XML text" and b"<svg" in text else title


def refuse_pointer(head: bytes, name: str) -> None:
    """Raise MediaError if a file is a Git LFS pointer."""
    if is_lfs_pointer(head):
        raise MediaError(f"{name!r} {LFS_POINTER_TEXT}")


def decode_image(data: bytes, *, name: str, settings: Settings) -> np.ndarray:
    """Return the upright image, RGB uint8 (H, W, 3), read-only.

    The EXIF orientation is applied. An animation gives its first frame. Transparency is dropped as Pillow's
    `convert("RGB")` does: hidden pixels keep the colour they are stored with. Grey images of 16 bits are scaled
    by 1/257 to 8 bits (Pillow would clip them to white); colour images of 16 bits lose their low byte. If all values
    are small, `image_depth.white_of` decides which one is white, or notes that the image is dark (`reading.note`).
    Colour profiles are not applied.

    Args:
        data: The content of the file.
        name: The image's key, for messages.
        settings: Gives `max_media_bytes` and `max_pixels`; both are checked before anything is decoded.

    Raises:
        MediaError: The file is not an image in a supported format, is damaged, or exceeds a limit.
    """
    if len(data) > settings.max_media_bytes:
        raise too_large(name, len(data), settings)
    refuse_pointer(data[:HEAD_BYTES], name)
    kind = _kind_of(data[:HEAD_BYTES])
    if kind is None or kind.decoder is None:
        raise MediaError(
            f"{name!r} {describe_head(data[:HEAD_BYTES])}; expected a {READABLE} image. "
            "Save it in one of these formats or leave it out."
        )
    decoder = kind.decoder
    # Pillow has its own limit. It stays as a second guard inside decoders (a GIF allocates its background while its
    # header is read), but it must never be below ours.
    if Image.MAX_IMAGE_PIXELS is not None and settings.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = settings.max_pixels
    try:
        # Not Image.open: it refuses a large image itself, without naming its width and height.
        examined = kind.examine(data, name, settings)
        with one_sample(), decoder(io.BytesIO(examined), name) as image:
            width, height = image.size
            if width * height > settings.max_pixels:
                raise MediaError(
                    f"{name!r} is {width:,} x {height:,} pixels; at most {settings.max_pixels:,} pixels are accepted "
                    "(LABELRANK_MAX_PIXELS). Make it smaller or raise the limit."
                )
            if width < 1 or height < 1:
                raise MediaError(f"{name!r} is {width} x {height} pixels; expected at least 1 x 1. Leave it out.")
            take_memory(width * height * _bytes_per_pixel(image))
            low = _LowBytes(image, lambda: decoder(io.BytesIO(examined), name)) if _has_wide_colours(image) else None
            _load(image, examined)
            return _to_rgb(image, data, low, name)
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow's guard acts at twice its limit, which is at least ours.
        raise MediaError(
            f"{name!r} asks for memory for more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; at most "
            f"{settings.max_pixels:,} pixels are accepted (LABELRANK_MAX_PIXELS). Make it smaller or raise the limit."
        ) from error
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _refuse_unread(kind, data, name, reason)
        raise MediaError(
            f"{name!r} looks like {kind.title} but is damaged or cut short ({reason}). "
            "Save or fetch it again, or leave it out."
        ) from error


def too_large(name: str, size_bytes: int, settings: Settings) -> MediaError:
    """Return the error for an image file above `max_media_bytes`."""
    return MediaError(
        f"{name!r} has {size_bytes:,} bytes; at most {settings.max_media_bytes:,} are accepted for one image "
        "(LABELRANK_MAX_MEDIA_BYTES). Make it smaller or raise the limit."
    )


def _bytes_per_pixel(image: ImageFile.ImageFile) -> int:
    """Return about how much memory a pixel takes while an image is decoded and prepared, in bytes."""
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    at_work = 3  # the result
    if image.format == "WEBP":
        at_work = 12  # the canvas, the one before it, and a copy
    elif image.info.get("progressive"):
        at_work = 6  # all coefficients
    return max(stored + at_work, 7)  # 7: the result, and the copy that is resized


def _refuse_unread(kind: _Kind, data: bytes, name: str, reason: str) -> None:
    """Raise MediaError if an image may be sound, but is of a kind that Pillow does not read."""
    if (what := image_files.unread(data, reason)) is not None:
        raise MediaError(
            f"{name!r} is {kind.title} of a kind that is not read: {what}; expected grey or colours of 8 or 16 bits "
            "per channel. Save it as an 8-bit PNG or JPEG image, or leave it out."
        )


def _load(image: ImageFile.ImageFile, data: bytes) -> None:
    """Decode an image whose header was read."""
    tile = image.tile[0] if image.tile else None
    if tile is None or tile.codec_name != "ppm":
        image.load()
        return
    # Pillow reads PPM of other depths than 8 and 16 bits value by value, which takes ten seconds for a photograph.
    assert isinstance(tile.args, tuple)
    white = int(tile.args[1])
    bands, full = len(image.getbands()), image_depth.FULL if image.mode == "I" else 255
    values = np.frombuffer(data, "u1" if white < 256 else ">u2", offset=tile.offset)
    count = image.width * image.height * bands
    if len(values) < count:
        raise OSError("not enough image data")
    scaled = np.minimum(full, np.rint(values[:count] / white * full)).astype(np.int32 if full > 255 else np.uint8)
    shape = (image.height, image.width, bands)[: 2 + (bands > 1)]
    loaded = Image.fromarray(scaled.reshape(shape))
    image.im, image.tile = loaded.im, []


def _has_wide_colours(image: ImageFile.ImageFile) -> bool:
    """Return whether an image, not yet decoded, has colours of 16 bits, of which Pillow keeps the high bytes."""
    return image.mode in ("RGB", "RGBA") and bool(image.tile) and ";16" in _raw_mode(image)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


class _LowBytes:
    """The low bytes of an image with colours of 16 bits, decoded when they are asked for."""

    def __init__(self, image: ImageFile.ImageFile, again: Callable[[], ImageFile.ImageFile]) -> None:
        self._raw_mode = _OTHER_BYTES.get(_raw_mode(image))
        self._again = again
        # Of channels that lie apart, and of grey with alpha, Pillow gives no low bytes.
        self.can_decode = self._raw_mode is not None and getattr(image, "_planar_configuration", 1) == 1

    def decode(self) -> Image.Image:
        image = self._again()
        for place, tile in enumerate(image.tile):
            args = (self._raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else self._raw_mode
            image.tile[place] = tile._replace(args=args)
        image.load()
        _turn(image)
        return image


# Pillow's names for the order of bytes in a file -> the name of the other order. N is that of this computer.
_OTHER_BYTES = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def _turn(image: Image.Image) -> None:
    """Turn an image upright, as its EXIF data say."""
    # If these are damaged, the pixels are still good: the image keeps its stored orientation.
    with contextlib.suppress(*_DECODER_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: ImageFile.ImageFile, data: bytes, low: _LowBytes | None, name: str) -> np.ndarray:
    _turn(image)
    # PNG and PPM use mode "I" for 16 bits in some Pillow versions; in TIFF it means 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _grey_of_16_bits(image, data)
    if image.mode in ("I", "F") or image_depth.is_signed(image):
        values = "floating-point numbers" if image.mode == "F" else "32-bit or signed whole numbers"
        raise MediaError(
            f"{name!r} holds {values}, for which no value is agreed to be white; expected 8 or 16 bits per channel. "
            "Save it as an 8-bit image."
        )
    if low is not None and (top := _largest(image)) < image_depth.DARK_BELOW >> 8:
        if low.can_decode:
            return _dark_rgb_of_16_bits(image, low.decode(), data)
        image_depth.note_if_dark(top << 8 | 255)
    return _in_bands(image, _rgb_of_8_bits)


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Return an image converted to RGB uint8 (H, W, 3), read-only; a large one in bands, to keep few copies."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    if rows >= height:
        return convert(image)
    result = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        result[top : top + rows] = convert(image.crop((0, top, width, min(height, top + rows))))
    result.flags.writeable = False
    return result


def _rgb_of_8_bits(image: Image.Image) -> np.ndarray:
    rgb = image
    if image.mode in ("P", "PA") and "transparency" in image.info:
        rgb = image.convert("RGBA")  # Pillow warns about transparent palettes that are converted in one step
    if rgb.mode != "RGB":
        rgb = rgb.convert("RGB")
    return np.asarray(rgb)  # (H, W, 3)


def _grey_of_16_bits(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    values = np.asarray(image)
    white = image_depth.white_of(image, data, values)
    inverted = image_depth.is_inverted(image)

    def grey_of(band: Image.Image) -> np.ndarray:
        grey = image_depth.to_8_bits(np.asarray(band), white)
        return np.repeat((255 - grey if inverted else grey)[:, :, None], 3, axis=2)

    return _in_bands(image, grey_of)


def _largest(image: Image.Image) -> int:
    """Return the largest value of the three colours."""
    extrema: tuple[Any, ...] = image.getextrema()
    return max(int(high) for _, high in extrema[:3])


def _dark_rgb_of_16_bits(high: ImageFile.ImageFile, low: Image.Image, data: bytes) -> np.ndarray:
    high_bytes, low_bytes = (np.asarray(image)[:, :, :3] for image in (high, low))
    values = high_bytes.astype(np.uint16) << 8 | low_bytes
    white = image_depth.white_of(high, data, values)
    result = high_bytes if white == image_depth.FULL else image_depth.to_8_bits(values, white)
    result.flags.writeable = False
    return result
