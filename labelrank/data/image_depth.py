"""Images of more than 8 bits per channel: which value is white, and what is told where none is near it."""

from __future__ import annotations

import numpy as np
from PIL import ImageFile

from labelrank.data.image_files import significant_bits
from labelrank.data.reading import note

FULL = 65535
DARK = "dark"
"""The kind of notice about an image of which no value is near white."""
DARK_BELOW = 2**14
"""Values of 14 bits are below it."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE, _PHOTOMETRIC = 258, 281, 341, 262
_SAMPLE_FORMAT = 339


def white_of(image: ImageFile.ImageFile, data: bytes, values: np.ndarray) -> int:
    """Return the value that is white in an image of 16 bits per channel.

    A TIFF may name its largest value, or hold fewer bits. A PNG may name the bits that its values had; they count where
    the values were stored as they are, and not spread over 16 bits as the format asks for. Where no white is named and
    no value comes near 65,535, that is noted.

    Args:
        data: The content of the file.
        values: Of the pixels, 0 to 65,535.
    """
    top = int(values.max())
    named = _named(image, data, values)
    if named is not None and top <= named:
        return named
    if not is_inverted(image):
        note_if_dark(top)
    return FULL


def note_if_dark(top: int) -> None:
    """Note that no value of an image is near white if its largest is far below 65,535."""
    if 0 < top < DARK_BELOW:
        note(
            DARK,
            f"largest value {top:,} of {FULL:,}; if white is less than {FULL:,}, save it with its values scaled to 16 "
            "bits, or as TIFF with the tag MaxSampleValue",
        )


def _named(image: ImageFile.ImageFile, data: bytes, values: np.ndarray) -> int | None:
    if image.format == "PNG":
        bits = significant_bits(data)
        if bits is None or not 8 < bits < 16:
            return None
        # Spread values end in zeros, or in a copy of their first bits.
        ends = values & ((1 << 16 - bits) - 1)
        return (1 << bits) - 1 if bool((ends * (ends != values >> bits)).any()) else None
    tags = getattr(image, "tag_v2", {})
    for tag in (_MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE):
        value = tags.get(tag)
        white = max(value) if isinstance(value, tuple) and value else value
        if isinstance(white, int | float) and 0 < white < FULL:
            return max(1, round(white))
    bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
    return (1 << bits) - 1 if 8 < bits < 16 else None


def is_inverted(image: ImageFile.ImageFile) -> bool:
    """Return whether 0 is white, as a TIFF may say; Pillow heeds that for 8 bits, but not for 16."""
    return bool(getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0)


def is_signed(image: ImageFile.ImageFile) -> bool:
    """Return whether the values of a TIFF may be negative; Pillow heeds that for 16 bits, but not for 8."""
    return 2 in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())


def to_8_bits(values: np.ndarray, white: int) -> np.ndarray:
    """Return values 0 to `white` as uint8, 0 to 255."""
    wide = values.astype(np.int32)
    if white == FULL:
        return ((np.clip(wide, 0, FULL) + 128) // 257).astype(np.uint8)
    return ((np.clip(wide, 0, white) * 255 + white // 2) // white).astype(np.uint8)
