"""Every kind of image decodes to what a person sees, or says why not."""

import io
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from labelrank.data import image as image_module
from labelrank.data import reading
from labelrank.data.archive import open_archive
from labelrank.data.image import EXTENSIONS, decode_image, describe_head
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import SETTINGS, encode, picture, png, png_header, write_zip

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "image-format-samples.zip"


def decode(data, settings=SETTINGS):
    return decode_image(data, name="cat/1.png", settings=settings)


@pytest.mark.parametrize(
    ("mode", "image_format", "tolerance"),
    [
        ("RGB", "PNG", 0),
        ("RGB", "BMP", 0),
        ("RGB", "PPM", 0),
        ("RGB", "TIFF", 0),
        ("RGB", "JPEG", 3),
        ("RGB", "WEBP", 3),
        ("RGB", "GIF", 6),
        ("RGBA", "PNG", 0),
        ("RGBA", "TIFF", 0),
        ("RGBA", "WEBP", 3),
        ("P", "PNG", 0),
        ("P", "GIF", 0),
        ("PA", "TIFF", 0),
        ("CMYK", "JPEG", 3),
        ("CMYK", "TIFF", 0),
        ("YCbCr", "TIFF", 3),
    ],
)
def test_colour_survives_every_mode_and_format(mode, image_format, tolerance):
    source = picture()
    image = source.quantize(2).convert(mode) if mode in ("P", "PA") else source.convert(mode)
    decoded = decode(encode(image, image_format))
    assert decoded.shape == (3, 4, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), np.full((3, 4, 3), (200, 30, 60)), atol=tolerance)


@pytest.mark.parametrize(
    ("image", "image_format", "grey"),
    [
        (Image.new("L", (4, 3), 84), "PNG", 84),
        (Image.new("LA", (4, 3), (84, 0)), "PNG", 84),
        (Image.new("1", (4, 3), 1), "PNG", 255),
        (Image.new("1", (4, 3), 1), "TIFF", 255),
        (Image.new("I;16", (4, 3), 257 * 84), "PNG", 84),
        (Image.new("I;16", (4, 3), 257 * 84), "TIFF", 84),
        (Image.new("I;16B", (4, 3), 257 * 84), "TIFF", 84),
        (Image.new("I;16", (4, 3), 257 * 84), "PPM", 84),
        (Image.new("I;16", (4, 3), 65535), "PNG", 255),
        (Image.new("I;16", (4, 3), 128), "PNG", 0),
        (Image.new("I;16", (4, 3), 129), "PNG", 1),
    ],
)
def test_grey_of_any_depth_becomes_equal_channels(image, image_format, grey):
    np.testing.assert_array_equal(decode(encode(image, image_format)), np.full((3, 4, 3), grey))


def test_one_pixel_is_a_picture():
    assert decode(encode(picture(size=(1, 1)))).tolist() == [[[200, 30, 60]]]


@pytest.mark.filterwarnings("error")
def test_transparent_palette_keeps_its_colours():
    image = picture().quantize(2)
    data = encode(image, transparency=bytes([0, 255]))
    np.testing.assert_array_equal(decode(data), np.full((3, 4, 3), (200, 30, 60)))


def test_alpha_is_dropped_not_blended():
    assert decode(encode(Image.new("RGBA", (1, 1), (200, 30, 60, 0)))).tolist() == [[[200, 30, 60]]]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format, orientation):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("black", (0, 0, 16, 8))  # top left quarter
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    decoded = decode(encode(stored, image_format, exif=exif))
    assert decoded.shape == (16, 32, 3)
    np.testing.assert_allclose(decoded.astype(int), np.asarray(upright).astype(int), atol=40)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_leaves_the_picture_usable():
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).shape == (3, 4, 3)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_taken(image_format):
    data = encode(picture(), image_format, save_all=True, append_images=[picture((0, 0, 255))])
    np.testing.assert_allclose(decode(data)[0, 0].astype(int), (200, 30, 60), atol=6)


def test_first_picture_of_a_phone_camera_file_is_taken():
    data = encode(picture(), "MPO", save_all=True, append_images=[picture((0, 0, 255))])
    np.testing.assert_allclose(decode(data)[0, 0].astype(int), (200, 30, 60), atol=6)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_truncated_picture_is_named(image_format):
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)), image_format)
    with pytest.raises(MediaError, match=r"'cat/1.png' .*damaged or cut short \(.+\)\. Save or fetch it again"):
        decode(data[: len(data) // 2])


GIF_50000 = (
    b"GIF89a" + struct.pack("<HH", 50000, 50000) + b"\x80\0\0" + bytes(6) + b"!\xf9\x04\x08\0\0\0\0"  # disposal 2
    b"," + struct.pack("<HHHH", 0, 0, 50000, 50000) + b"\0\x02\x02L\x01\0;"
)
BMP_50000 = (
    b"BM"
    + struct.pack("<IHHI", 58, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 50000, 50000, 1, 24, *[0] * 6)
    + b"abcd"
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (png_header(50_000, 50_000), "50,000 x 50,000 pixels"),
        (BMP_50000, "50,000 x 50,000 pixels"),
        (b"P6 50000 50000 255 abc", "50,000 x 50,000 pixels"),
        (GIF_50000, "more than 200,000,000 pixels"),
    ],
)
def test_enormous_picture_costs_nothing(data, value):
    start = time.perf_counter()
    with pytest.raises(MediaError, match=rf"{value}; at most 100,000,000 pixels .*LABELRANK_MAX_PIXELS"):
        decode(data)
    assert time.perf_counter() - start < 1


def test_our_pixel_limit_decides_not_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    small = Settings(workspace=Path("/nonexistent"), max_pixels=12)
    assert decode(encode(picture(size=(4, 3))), small).shape == (3, 4, 3)
    with pytest.raises(MediaError, match="5 x 3 pixels; at most 12 pixels"):
        decode(encode(picture(size=(5, 3))), small)


def test_file_size_limit_is_checked_first():
    small = Settings(workspace=Path("/nonexistent"), max_media_bytes=10)
    with pytest.raises(MediaError, match=r"'cat/1.png' has 11 bytes; at most 10 .*LABELRANK_MAX_MEDIA_BYTES"):
        decode(b"hello world", small)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello", "starts with 68656c6c; expected a JPEG"),
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "starts with 25215053; expected a JPEG"),
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"PK\x03\x04", "a zip"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
    ],
)
def test_other_files_say_what_they_look_like(data, found):
    with pytest.raises(MediaError) as error:
        decode(data)
    assert found in str(error.value)
    assert "leave it out" in str(error.value)


def test_decoders_of_other_formats_are_never_reached():
    buffer = io.BytesIO()
    picture().save(buffer, "ICO")
    with pytest.raises(MediaError, match="starts with 00000100; expected"):
        decode(buffer.getvalue())


@pytest.mark.parametrize(
    ("dtype", "what"), [(np.float32, "floating-point numbers"), (np.int32, "32-bit or signed whole numbers")]
)
def test_pictures_without_an_agreed_white_are_refused(dtype, what):
    with pytest.raises(MediaError, match=f"{what}.*expected 8 or 16 bits.*Save it as an 8-bit image"):
        decode(encode(Image.fromarray(np.ones((3, 4), dtype)), "TIFF"))


def test_messages_stay_on_one_line_for_any_name():
    with pytest.raises(MediaError) as error:
        decode_image(b"", name="a\nb/'1'.png", settings=SETTINGS)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_damaged_bytes_only_ever_give_a_media_error(image_format):
    rng = np.random.default_rng(7)
    data = encode(Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)), image_format)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = rng.integers(0, 256)
        try:
            # The small limit keeps sizes that the damage invents from costing memory.
            decoded = decode(bytes(damaged), Settings(workspace=Path("/nonexistent"), max_pixels=10_000))
            assert decoded.ndim == 3
        except MediaError:
            refused += 1
    assert refused > 0


def test_describe_head_names_what_it_knows():
    assert describe_head(png()) == "starts with 89504e47: a PNG image"
    assert describe_head(b"\x01\x02") == "starts with 0102"
    for head in (b"RIFF\0\0\0\0AVI ", b"\0\0\0\x20ftypisom", b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba"):
        assert describe_head(head).endswith(": a video")


@pytest.mark.skipif(not SAMPLES.is_file(), reason=f"the real images of {SAMPLES} are not on this machine")
def test_one_photograph_is_nearly_the_same_in_every_format(tmp_path):
    with zipfile.ZipFile(SAMPLES) as archive:
        pictures = {Path(n).suffix: archive.read(n) for n in archive.namelist() if "360p" in n}
    assert set(pictures) == {".bmp", ".gif", ".jpg", ".png", ".tif", ".webp"} <= EXTENSIONS
    decoded = {suffix: decode_image(data, name=suffix, settings=SETTINGS) for suffix, data in pictures.items()}
    exact = decoded[".bmp"].astype(int)
    assert exact.shape == (360, 640, 3)
    for suffix, tolerance in {".png": 0, ".tif": 0, ".jpg": 12, ".webp": 12, ".gif": 20}.items():
        assert np.abs(decoded[suffix] - exact).mean() <= tolerance, suffix

    # As it is, its images lie in one folder; sorted into classes it is a dataset.
    with pytest.raises(DatasetError, match="only one class, 'image-format-samples'"):
        open_archive(SAMPLES, split=None, settings=SETTINGS)
    files = {f"{'lossy' if s in ('.jpg', '.webp') else 'exact'}/nature{s}": data for s, data in pictures.items()}
    dataset = open_archive(write_zip(tmp_path / "photos.zip", files), split=None, settings=SETTINGS)
    assert dataset.class_names == ("exact", "lossy")
    assert all(dataset.load(sample).shape == exact.shape for sample in dataset.samples)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks):
    """Return a PNG of 4 x 3 pixels with these chunks before its pixels."""
    data = encode(picture())
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def progressive(width, height, scans):
    """Return a progressive JPEG that says it has this size, with its last scan again and again."""
    data = bytearray(encode(picture(size=(64, 64)), "JPEG", progressive=True))
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", height, width)
    last = bytes(data[data.rindex(b"\xff\xda") : -2])
    return bytes(data[:-2]) + last * scans + b"\xff\xd9"


def tiff(width, height, tags=None, pixels=b"", order="<"):
    """Return an uncompressed TIFF of 8-bit grey pixels, unless its tags {number: (code of struct, values)} differ."""
    entries = {256: ("L", [width]), 257: ("L", [height]), 258: ("H", [8]), 259: ("H", [1]), 262: ("H", [1])}
    entries |= {277: ("H", [1]), 278: ("L", [height]), 273: ("L", [8]), 279: ("L", [len(pixels)])} | (tags or {})
    start = 8 + len(pixels)
    after, directory, values = start + 2 + 12 * len(entries) + 4, b"", b""
    for tag, (code, numbers) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(value) > 4:
            value, values = struct.pack(order + "L", after + len(values)), values + value
        kind = {"B": 1, "H": 3, "L": 4}[code]
        directory += struct.pack(order + "HHL", tag, kind, len(numbers)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", start)
    return head + pixels + struct.pack(order + "H", len(entries)) + directory + bytes(4) + values


def bmp_of_runs(width, height):
    header = struct.pack("<IHHI", 0, 0, 0, 1078) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, *[0] * 5)
    return b"BM" + header + bytes(1024) + b"\1\1" * (width * height)


BUSY = {
    "a progressive JPEG of many scans": (lambda: progressive(9999, 9999, 2000), r"2,0\d\d scans; at most 20 are"),
    "a small JPEG of many more": (lambda: progressive(9, 9, 31_000), r"31,0\d\d scans; at most 30,517 are"),
    "a JPEG of many headers": (
        lambda: (jpeg := encode(picture(), "JPEG"))[:2] + b"\xff\xe1\0\x0eExif\0\0abcdef" * 100_000 + jpeg[2:],
        "101 segments",
    ),
    "a PNG of many chunks": (lambda: png_with(*[(b"abCd", b"")] * 200_001), "more than 200,000 chunks"),
    "a GIF of many comments": (
        lambda: (gif := encode(picture(), "GIF"))[:25] + b"!\xfe" + b"\1a" * 100_001 + b"\0" + gif[25:],
        "more than 100,000 blocks of comments",
    ),
    "a TIFF that decodes the same strip again and again": (
        lambda: tiff(4000, 4000, {278: ("L", [3999]), 273: ("L", [8] * 2000)}, bytes(16_000_000)),
        "2,000 strips or tiles; 2 would do",
    ),
    "a TIFF with a tile much larger than the image": (
        lambda: tiff(9, 9, {322: ("L", [60_000]), 323: ("L", [60_000]), 324: ("L", [8])}, bytes(81)),
        "tiles of 60,000 x 60,000 pixels for an image of 9 x 9",
    ),
    "a large compressed BMP": (lambda: bmp_of_runs(3000, 3000), "a compressed BMP of 18,001,078 pixels or bytes"),
    "a large PPM of text": (lambda: b"P2 3000 3000 255 " + b"1 " * 9_000_000, "values as text of 18,000,017"),
    "a PPM with a long comment": (lambda: b"P5 #" + bytes(2**20) + b"\n1 1 255 a", "no size within its first 65,536"),
}


@pytest.mark.parametrize("case", BUSY)
def test_what_would_keep_a_decoder_busy_is_refused_at_once(case):
    make, message = BUSY[case]
    data = make()
    start = time.perf_counter()
    with pytest.raises(MediaError, match=message):
        decode(data)
    assert time.perf_counter() - start < 1


def test_usual_progressive_images_are_read_whatever_follows_their_pixels():
    image = Image.effect_noise((640, 480), 90).convert("RGB")
    data = encode(image, "JPEG", progressive=True)
    assert np.array_equal(decode(data), decode(data + b"\xff\xda" * 50_000))  # as the video of a motion photo might


def test_texts_and_colour_profiles_of_a_png_are_not_unpacked():
    long = zlib.compress(bytes(2**24))
    texts = [(b"zTXt", b"Comment\0\0" + long), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long)]
    profiles = [(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20), 9))] * 3000
    data = png_with(*texts, *profiles, (b"tEXt", b"Author\0" + b"a" * 2**21))
    start = time.perf_counter()
    assert np.array_equal(decode(data), decode(encode(picture())))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("packed", [True, False])
def test_the_orientation_in_a_text_of_a_png_is_applied(packed):
    body = b'<x tiff:Orientation="6"/>'
    body = b"\1\0\0\0" + zlib.compress(body) if packed else b"\0\0\0\0" + body
    assert decode(png_with((b"iTXt", b"XML:com.adobe.xmp\0" + body))).shape == (4, 3, 3)


def test_a_large_image_is_converted_in_bands_to_the_same_pixels(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    images = {
        **{mode: Image.fromarray(noise).convert(mode) for mode in ("L", "RGB", "P", "CMYK", "1")},
        "RGBA": Image.fromarray(noise),
        "I;16": Image.fromarray(noise[..., 0].astype(np.uint16) * 257),
    }
    for mode, image in images.items():
        data = encode(image, "TIFF" if mode == "CMYK" else "PNG")
        monkeypatch.setattr(image_module, "_BAND_PIXELS", 2**22)
        whole = decode(data)
        monkeypatch.setattr(image_module, "_BAND_PIXELS", 40 * 7)
        bands = decode(data)
        assert np.array_equal(bands, whole), mode
        assert not bands.flags.writeable


def test_large_images_are_decoded_one_after_another(monkeypatch):
    data = encode(Image.new("L", (1000, 1000), 84))
    one_needs = 1000 * 1000 * 7
    at_work, most = [], []

    def load(self, actual=ImageFile.ImageFile.load):
        if not self.tile:
            return actual(self)
        at_work.append(self)
        most.append(len(at_work))
        time.sleep(0.05)
        result = actual(self)
        at_work.remove(self)
        return result

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    for room, together in ((one_needs, 1), (one_needs - 1, 1), (2 * one_needs, 2)):
        monkeypatch.setattr(reading, "MAX_BYTES", room)
        most.clear()
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(decode, [data] * 4))) == 4
        assert max(most) == together
    with pytest.raises(MediaError):
        decode(data[:-60])
    assert reading._bytes_in_use == 0
