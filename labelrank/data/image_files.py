"""Image files, looked through before a decoder gets them: what would keep it busy, and what it does not need."""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterator

from labelrank.errors import MediaError
from labelrank.settings import Settings
from labelrank.words import plural

# A decoder passes over all pixels for each scan of a JPEG. Encoders write about ten scans.
_SCANS_OF_THE_LARGEST = 20
_PIXELS_OF_A_SCAN = 2**16
"""A scan of a smaller image costs as much as one of this size."""
_MAX_SEGMENTS = 10_000
"""A file of 64 MiB has 1,000 of the largest segments before its first scan."""
_MAX_EXIF_SEGMENTS = 100
_MAX_JUNK_BYTES = 2**20
_MAX_CHUNKS = 200_000
_MAX_BLOCKS = 100_000
_MAX_HEADER_BYTES = 2**16
_MAX_SLOW = 2**24
"""Pixels, and bytes, of images whose decoders work value by value: about five seconds."""
_MAX_TEXT_BYTES = 2**20
"""Pillow refuses a PNG with a longer text."""
_MAX_TEXTS = 8
_ADVICE = "Save it again in another program, or leave it out."


def examine_jpeg(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a JPEG as it is.

    Raises:
        MediaError: It has many more scans than an image of its size needs, or many more segments than any image.
    """
    pixels, exif, end = 0, 0, 2
    for number, (marker, start) in enumerate(_segments(data)):
        if marker == 0xDA:
            break
        junk, end = start - 2 - end, start + int.from_bytes(data[start : start + 2])
        exif += marker == 0xE1 and data[start + 2 : start + 8] == b"Exif\0\0"
        if number > _MAX_SEGMENTS or exif > _MAX_EXIF_SEGMENTS or junk > _MAX_JUNK_BYTES:
            raise _costly(name, f"{number + 1:,} segments or {max(0, junk):,} bytes without use before its pixels")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data[start : start + 7].ljust(7, b"\0"), 3)
            pixels = max(pixels, width * height)
    most = _SCANS_OF_THE_LARGEST * max(settings.max_pixels, 10**8) // max(pixels, _PIXELS_OF_A_SCAN)
    # The marker of a scan is no part of coded pixels, so most files need no closer look.
    if data.count(b"\xff\xda") > most:
        scans = 0
        for number, (marker, _) in enumerate(_segments(data)):
            scans += marker == 0xDA
            if scans > most or number > _MAX_SEGMENTS + 8 * most:
                raise _costly(name, f"more than {most:,} scans, the most that are accepted at its size")
    return data


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the start of each segment of a JPEG, up to the end of its first image."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[0][1], found.end()
        if marker == 0xD9:
            return
        if marker in (0x01, 0xD8) or (marker >= 0xF0 and marker < 0xFE):
            continue
        yield marker, at
        at += int.from_bytes(data[at : at + 2])


# Coded pixels have FF only before 00 or, where decoders may start again, before D0 to D7.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def examine_png(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a PNG without texts, colour profiles and all else that changes no pixel.

    Pillow unpacks each of these, and refuses a sound image for a long text.

    Raises:
        MediaError: It has more chunks than any image needs, or is of a kind that only Apple's programs read.
    """
    if data[12:16] == b"CgBI":
        raise MediaError(
            f"{name!r} is a PNG in the form of iPhone apps (CgBI), which is not read. Convert it on a Mac with "
            "`xcrun pngcrush -revert-iphone-optimizations`, or leave it out."
        )
    spans: list[tuple[int, int]] = []
    start, at, texts = 0, 8, 0
    for number, (kind, after) in enumerate(_chunks(data)):
        if number > _MAX_CHUNKS:
            raise _costly(name, f"more than {_MAX_CHUNKS:,} chunks")
        is_needed = kind[0] < 0x60 or kind in (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
        if not is_needed and texts < _MAX_TEXTS and _tells_orientation(kind, data[at + 8 : after - 4]):
            is_needed, texts = True, texts + 1
        if not is_needed:
            spans.append((start, at))
            start = after
        at = after
    if not spans:
        return data
    view = memoryview(data)
    return b"".join([*(view[first:last] for first, last in spans), view[start:]])


def significant_bits(data: bytes) -> int | None:
    """Return the most bits that a channel of a PNG had before it was stored in more; None if it does not say."""
    at = 8
    for kind, after in itertools.islice(_chunks(data), _MAX_CHUNKS):
        if kind == b"IDAT":
            return None
        if kind == b"sBIT" and after - at > 12:
            return max(data[at + 8 : after - 4])
        at = after
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and the end of each whole chunk of a PNG."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            return
        yield kind, at


def _tells_orientation(kind: bytes, body: bytes) -> bool:
    """Return whether a chunk is a text that may say which side of an image is up, and that Pillow reads."""
    key, _, rest = body.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or key not in (b"Raw profile type exif", b"XML:com.adobe.xmp", b"exif"):
        return False
    if len(body) > _MAX_TEXT_BYTES:
        return False
    packed = rest[1:] if kind == b"zTXt" else b""
    if kind == b"iTXt" and rest[:1] != b"\0":
        packed = rest[2:].split(b"\0", 2)[-1]
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def examine_gif(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a GIF as it is.

    Raises:
        MediaError: Comments in many small blocks lie before its first image.
    """
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)
    blocks = 0
    while data[at : at + 1] == b"!":
        at += 2
        while at < len(data) and (size := data[at]):
            at += 1 + size
            blocks += 1
            if blocks > _MAX_BLOCKS:
                raise _costly(name, f"more than {_MAX_BLOCKS:,} blocks of comments before its pixels")
        at += 1
    return data


def examine_bmp(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a BMP as it is.

    Raises:
        MediaError: It is compressed and large.
    """
    if len(data) >= 34 and data[14] >= 40 and data[30] in (1, 2):
        width, height = struct.unpack_from("<ii", data, 18)
        _check_slow(name, "a compressed BMP", max(abs(width * height), len(data)))
    return data


def examine_ppm(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a PPM as it is.

    Raises:
        MediaError: It is large and has its values as text, or a long comment lies before its pixels.
    """
    if data[1:2] in b"123":
        _check_slow(name, "a PPM that holds its values as text", len(data))
    if _PPM_HEADER.match(data[:_MAX_HEADER_BYTES]) is None and len(data) > _MAX_HEADER_BYTES:
        raise _costly(name, f"no size within its first {_MAX_HEADER_BYTES:,} bytes")
    return data


_PPM_HEADER = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+\d")


def _check_slow(name: str, what: str, size: int) -> None:
    if size > _MAX_SLOW:
        raise MediaError(
            f"{name!r} is {what} of {size:,} pixels or bytes; at most {_MAX_SLOW:,} are accepted, because it is "
            "decoded slowly. Save it as PNG, or leave it out."
        )


def examine_tiff(data: bytes, name: str, settings: Settings) -> bytes:
    """Return a TIFF as it is.

    Raises:
        MediaError: It has more strips or tiles than its size takes, or larger tiles than an image may be.
    """
    counts, values = _directory(data)
    width, height = values.get(256, 0), values.get(257, 0)
    tile_width, tile_height = values.get(322, width), values.get(323, values.get(278, height))
    pieces = max((counts.get(tag, 0) for tag in (273, 279, 324, 325)), default=0)
    if min(width, height) < 1 or width * height > settings.max_pixels:
        return data  # the decoder tells the size before it reads a strip
    if 324 in counts and tile_width * tile_height > max(settings.max_pixels, 2 * width * height):
        raise _costly(name, f"tiles of {tile_width:,} x {tile_height:,} pixels for an image of {width:,} x {height:,}")
    planes = values.get(277, 1) if values.get(284, 1) == 2 else 1
    most = -(-width // max(1, tile_width)) * -(-height // max(1, tile_height)) * planes
    if pieces > 2 * most + 8 or pieces > _MAX_CHUNKS:
        raise _costly(name, f"{pieces:,} strips or tiles; {min(most, _MAX_CHUNKS):,} would do")
    return data


def unread(data: bytes, reason: str) -> str | None:
    """Return why a decoder does not know a kind of JPEG or TIFF, in words that follow "not read:"; None if it might.

    Args:
        reason: What the decoder says.
    """
    is_unknown = _UNKNOWN.search(reason) is not None
    if data[:2] == b"\xff\xd8":
        header = itertools.takewhile(lambda segment: segment[0] != 0xDA, _segments(data))
        markers = {marker for marker, _ in itertools.islice(header, _MAX_SEGMENTS)}
        return "lossless or hierarchical coding" if _UNREAD_FRAMES & markers else reason if is_unknown else None
    if data[:2] in (b"II", b"MM"):
        _, values = _directory(data)
        if (compression := values.get(259, 1)) in _UNREAD_COMPRESSIONS:
            return f"compression {compression} of TIFF"
        number = {2: "signed whole", 3: "floating-point"}.get(values.get(339, 1), "whole")
        if is_unknown or number != "whole":
            channels, colours = plural(values.get(277, 1), "channel"), values.get(262, 0)
            return f"{channels} of {values.get(258, 1)}-bit {number} numbers, colours of kind {colours} of TIFF"
    return reason if is_unknown else None


# What Pillow says of files that are no error, but that it does not know.
_UNKNOWN = re.compile(r"cannot handle|[Uu]nsupported|unknown (pixel mode|data organization)|not yet supported")
# JPEG frames other than baseline, extended, progressive and their arithmetic forms.
_UNREAD_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
# The JPEG of TIFF 6.0, JPEG 2000, JPEG XL, and what only single programs write.
_UNREAD_COMPRESSIONS = {6, 262, 32766, 32809, 33003, 33005, 34661, 34676, 34677, 34712, 34892, 50002, 52546}


def _directory(data: bytes) -> tuple[dict[int, int], dict[int, int]]:
    """Return the number of values of each tag of a TIFF's first image, and the first value where it is a whole number.

    What does not lie inside the file is left out.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    head, entry, size = ("Q", "HHQ8s", 20) if is_big else ("H", "HHL4s", 12)
    counts: dict[int, int] = {}
    values: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(order + ("Q" if is_big else "L"), data, 8 if is_big else 4)
        (number,) = struct.unpack_from(order + head, data, at)
        at += struct.calcsize("=" + head)
        for place in range(min(number, _MAX_SEGMENTS)):
            tag, kind, count, raw = struct.unpack_from(order + entry, data, at + place * size)
            # The first of several entries counts, as for Pillow.
            if tag in counts or kind not in _WHOLE or not count:
                continue
            counts[tag] = count
            code = _WHOLE[kind]
            if count * struct.calcsize("=" + code) <= len(raw):
                (values[tag],) = struct.unpack_from(order + code, raw)
            else:
                (where,) = struct.unpack(order + ("Q" if is_big else "L"), raw)
                (values[tag],) = struct.unpack_from(order + code, data, where)
    except (struct.error, OverflowError):
        pass  # cut short: the decoder says so
    return counts, values


_WHOLE = {1: "B", 3: "H", 4: "L", 16: "Q"}
"""Types of TIFF values that are whole numbers -> codes of struct."""


def _costly(name: str, what: str) -> MediaError:
    return MediaError(f"{name!r} has {what}. Decoding it could take minutes. {_ADVICE}")
