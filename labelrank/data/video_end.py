"""Whether a video file ends before it should, by what its container says of its own size."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import BinaryIO

_HEAD_BYTES = 4096
_TAIL_BYTES = 2**16
_MAX_PARTS = 1000
"""Parts of a file that are looked at."""
_TS_PACKET_BYTES = 188
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML_SEGMENT = bytes.fromhex("18538067")


def is_cut(file: BinaryIO, container: str) -> bool:
    """Return whether the container says that bytes are missing at the end; False if it does not say.

    Args:
        container: FFmpeg's name of the demuxer.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    check = _CHECKS.get(container)
    try:
        return check is not None and check(file, size_bytes)
    except (struct.error, IndexError):
        return True  # a field lies past the end of the file


def asf_duration_s(file: BinaryIO) -> float | None:
    """Return how long an ASF file (WMV) says that it plays, in seconds."""
    head = _read(file, 0, _HEAD_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 88:
        return None
    # In units of 100 ns; the time that is buffered first, in ms, counts as played.
    duration, _, preroll = struct.unpack_from("<QQQ", head, at + 64)
    return float(duration / 1e7 - preroll / 1e3)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _riff_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    """AVI: a list of RIFF chunks. One of size 0 was never finished and says nothing."""
    at = 0
    for _ in range(_MAX_PARTS):
        head = _read(file, at, 8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return False
        length: int = struct.unpack_from("<L", head, 4)[0]
        # Some programs count the 8 bytes of the head, too.
        if at + length > size_bytes:
            return True
        at += 8 + length
    return False


def _boxes_are_cut(file: BinaryIO, size_bytes: int) -> bool:
    """MP4, MOV: a list of boxes. One of size 0 lasts to the end."""
    at = 0
    for _ in range(_MAX_PARTS):
        head = _read(file, at, 16)
        if len(head) < 8:
            return any(head)  # zeros may fill the end of a sound file
        length: int = struct.unpack_from(">L", head)[0]
        if length == 1:
            length = struct.unpack_from(">Q", head, 8)[0]
        if length < 8:
            return False
        at += length
        if at > size_bytes:
            return True
    return False


def _segment_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    """Matroska, WebM: one segment after the header. That of a live recording has no size."""
    head = _read(file, 0, _HEAD_BYTES)
    at = head.find(_EBML_SEGMENT)
    if at < 0:
        return False
    at += len(_EBML_SEGMENT)
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length]) & ((1 << 7 * length) - 1)
    return value != (1 << 7 * length) - 1 and at + length + value > size_bytes


def _flv_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    """FLV: each tag is followed by its size."""
    tag_bytes = int.from_bytes(_read(file, size_bytes - 4, 4))
    if not 11 <= tag_bytes <= size_bytes - 4:
        return True
    tag = _read(file, size_bytes - 4 - tag_bytes, 4)
    return int.from_bytes(tag[1:4]) != tag_bytes - 11


def _asf_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    head = _read(file, 0, _HEAD_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    return at >= 0 and bool(struct.unpack_from("<Q", head, at + 40)[0] > size_bytes)


def _ogg_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    """Ogg: pages; the last must be whole."""
    tail = _read(file, max(0, size_bytes - _TAIL_BYTES), _TAIL_BYTES)
    at = tail.rfind(b"OggS")
    if at < 0:
        return True
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    return at + 27 + tail[at + 26] + sum(segments) > len(tail)


def _ts_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    """MPEG-TS: packets of one size, which is 4 bytes more in the form of Blu-ray discs."""
    head = _read(file, 0, _TS_PACKET_BYTES + 1)
    packet_bytes = _TS_PACKET_BYTES if head[:1] == head[-1:] == b"\x47" else _TS_PACKET_BYTES + 4
    return size_bytes % packet_bytes != 0


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "avi": _riff_is_cut,
    "mov": _boxes_are_cut,
    "matroska": _segment_is_cut,
    "flv": _flv_is_cut,
    "asf": _asf_is_cut,
    "ogg": _ogg_is_cut,
    "mpegts": _ts_is_cut,
}
