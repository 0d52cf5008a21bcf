"""Random damage to a file: the same for the same seed."""

import re
import struct
import zlib

import numpy as np

_NUMBERS = re.compile(rb"\d+")
_VALUES = (0, 1, 2, *(2**n + d for n in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, 0)))
_TEXTS = (
    b"0",
    b"-1",
    b"1e309",
    b"NaN",
    b"-0.5",
    b"9" * 20,
    b"9" * 5000,
    b"null",
    b'""',
    b"[[]]",
    b"{}",
    b"\x00",
    b"\xff",
)


def mutate(data: bytes, seed: tuple[int, ...], *, repair_png: bool = False) -> bytes:
    """Return data with one to four damages: bits, bytes, cuts, splices, and fields of lengths and numbers."""
    random = np.random.default_rng(seed)
    result = bytearray(data)
    for _ in range(random.integers(1, 5)):
        if not result:
            break
        _DAMAGES[random.integers(len(_DAMAGES))](result, random)
    return png_with_sums(bytes(result)) if repair_png and random.random() < 0.7 else bytes(result)


def _place(data, random) -> int:
    """Return a place in a file; headers and directories, at its ends, are met more often."""
    where = random.random()
    near = min(len(data), 256)
    if where < 0.3:
        return int(random.integers(near))
    if where < 0.5:
        return int(len(data) - 1 - random.integers(near))
    return int(random.integers(len(data)))


def _span(data, random) -> slice:
    start = _place(data, random)
    return slice(start, start + int(random.integers(1, 2 + min(len(data), 4096))))


def _flip_bits(data, random) -> None:
    for _ in range(random.integers(1, 33)):
        data[_place(data, random)] ^= 1 << int(random.integers(8))


def _set_bytes(data, random) -> None:
    for _ in range(random.integers(1, 17)):
        data[_place(data, random)] = int(random.integers(256))


def _cut(data, random) -> None:
    del data[_place(data, random) :]


def _remove(data, random) -> None:
    del data[_span(data, random)]


def _repeat(data, random) -> None:
    span = _span(data, random)
    data[span.stop : span.stop] = data[span] * int(random.integers(1, 9))


def _splice(data, random) -> None:
    data[_span(data, random)] = data[_span(data, random)]


def _fill(data, random) -> None:
    span = _span(data, random)
    data[span] = bytes([int(random.choice([0, 0xFF, 0x20]))]) * len(data[span])


def _set_length(data, random) -> None:
    size = int(random.choice([1, 2, 4, 8]))
    value = int(random.choice([*_VALUES, len(data), len(data) + 1, int(random.integers(2**32))]))
    order = "little" if random.random() < 0.5 else "big"
    at = _place(data, random)
    data[at : at + size] = (value % 256**size).to_bytes(size, order)


def _set_number(data, random) -> None:
    if found := [*_NUMBERS.finditer(data)]:
        start, stop = found[random.integers(len(found))].span()
        data[start:stop] = _TEXTS[random.integers(len(_TEXTS))]


_DAMAGES = (_flip_bits, _set_bytes, _cut, _remove, _repeat, _splice, _fill, _set_length, _set_length, _set_number)


def png_with_sums(data: bytes) -> bytes:
    """Return a PNG with right checksums, as a decoder reads no chunk with a wrong one."""
    result, at = bytearray(data), 8
    while at + 12 <= len(result):
        (length,) = struct.unpack_from(">I", result, at)
        end = at + 8 + length
        if end + 4 > len(result):
            break
        struct.pack_into(">I", result, end, zlib.crc32(result[at + 4 : end]))
        at = end + 4
    return bytes(result)
