"""Images and clips small: thumbnails and strips."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

STRIP_PIXELS = 72
"""Height and width of an image in a strip."""
CLIP_PIXELS = 96
"""Height and width of a video in a strip."""
CLIP_FRAMES = 8
"""Frames of a video in a strip."""
CLIP_FRAME_MS = 160


def thumbnail_uri(image: np.ndarray, size: int = 48) -> str:
    """Return `image`, uint8 (H, W, 3), as a data URI of at most `size` pixels a side."""
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    png = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    small.save(png, format="PNG")
    kind, data = min(("jpeg", buffer.getvalue()), ("png", png.getvalue()), key=lambda pair: len(pair[1]))
    return data_uri(data, kind)


def data_uri(data: bytes, kind: str) -> str:
    """Return an image's file, of the kind jpeg, png or webp, as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def fitted(image: np.ndarray, size: int = STRIP_PIXELS) -> np.ndarray:
    """Return an image uint8 (H, W, 3) shrunk into a square of `size` pixels; smaller ones as they are."""
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(small)


def image_strip(images: Sequence[np.ndarray], *, columns: int, size: int = STRIP_PIXELS, gap: int = 6) -> bytes:
    """Return a PNG with `images`, uint8 (H, W, 3), side by side, each fitted into a square of `size` pixels.

    Empty places and gaps are transparent. The strip is as wide as `columns` images, so that the strips of
    classes with few images keep the scale of the others.
    """
    from PIL import Image

    strip = Image.new("RGBA", (columns * size + (columns - 1) * gap, size), (0, 0, 0, 0))
    for column, image in enumerate(images[:columns]):
        small = Image.fromarray(image)
        scale = size / max(small.size)
        shape = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        small = small.resize(shape, Image.Resampling.LANCZOS)
        strip.paste(small, (column * (size + gap) + (size - shape[0]) // 2, (size - shape[1]) // 2))
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG")
    return buffer.getvalue()


def clip_strip(clips: Sequence[np.ndarray], *, columns: int, size: int = CLIP_PIXELS, gap: int = 6) -> bytes:
    """Return an animated WebP of `clips`, each uint8 (T, H, W, 3), playing side by side without end.

    A clip with fewer frames than the longest waits on its last one. Empty places are transparent, as in
    `image_strip`.
    """
    from PIL import Image

    length = max(len(clip) for clip in clips[:columns])
    frames = [
        Image.open(
            io.BytesIO(
                image_strip([clip[min(t, len(clip) - 1)] for clip in clips], columns=columns, size=size, gap=gap)
            ),
            formats=["PNG"],
        )
        for t in range(length)
    ]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WebP",
        save_all=True,
        append_images=frames[1:],
        duration=CLIP_FRAME_MS,
        loop=0,
        quality=60,
        method=3,
    )
    return buffer.getvalue()
