"""Every kind of image decodes to what a person sees, or says why not."""

import io
import struct
import threading
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
from labelrank.data.reading import one_sample
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
    start = time.process_time()
    with pytest.raises(MediaError, match=rf"{value}; at most 100,000,000 pixels .*LABELRANK_MAX_PIXELS"):
        decode(data)
    assert time.process_time() - start < 1


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
        (b"%!PS-Adobe-3.0 EPSF-3.0", "starts with 25215053: a PostScript document; expected a JPEG"),
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


def test_no_decoder_is_looked_up_by_content_but_those_that_are_named(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Pillow looks for a decoder")

    for name in ("open", "init", "preinit"):
        monkeypatch.setattr(Image, name, refuse)
    decoders = {kind.decoder.__name__ for kind in image_module._KINDS if kind.decoder}
    assert decoders == {
        *("jpeg_factory", "PngImageFile", "GifImageFile", "WebPImageFile", "_Tiff", "PpmImageFile", "BmpImageFile"),
    }
    for kind in image_module._KINDS:
        if kind.decoder is None:
            with pytest.raises(MediaError):
                decode(bytes(kind.offset) + kind.magic + bytes(600))


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


def test_signed_values_of_8_bits_are_refused_too():
    data = encode(Image.fromarray(np.full((3, 4), 200, np.uint8)), "TIFF", tiffinfo={339: 2})
    with pytest.raises(MediaError, match="holds 32-bit or signed whole numbers"):
        decode(data)


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
    if 324 in entries:  # tiles, and no strips
        entries = {tag: entry for tag, entry in entries.items() if tag not in (273, 278, 279)}
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
    "a progressive JPEG of many scans": (lambda: progressive(9999, 9999, 2000), "more than 20 scans, the most that"),
    "a small JPEG of many more": (lambda: progressive(9, 9, 31_000), "more than 30,517 scans, the most"),
    "many scans behind many comments": (
        lambda: (
            (jpeg := progressive(9999, 9999, 2000))
            .replace(b"\xff\xda", b"\xff\xfe\0\2" * 11_000 + b"\xff\xda", jpeg.count(b"\xff\xda") - 1990)
            .replace(b"\xff\xfe\0\2" * 11_000, b"", 1)
        ),
        "more than 20 scans, the most that",
    ),
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
    start = time.process_time()
    with pytest.raises(MediaError, match=message):
        decode(data)
    assert time.process_time() - start < 1


def test_usual_progressive_images_are_read_whatever_follows_their_pixels():
    image = Image.effect_noise((640, 480), 90).convert("RGB")
    data = encode(image, "JPEG", progressive=True)
    assert np.array_equal(decode(data), decode(data + b"\xff\xda" * 50_000))  # as the video of a motion photo might


def test_texts_and_colour_profiles_of_a_png_are_not_unpacked():
    long = zlib.compress(bytes(2**24))
    texts = [(b"zTXt", b"Comment\0\0" + long), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long)]
    profiles = [(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20), 9))] * 3000
    data = png_with(*texts, *profiles, (b"tEXt", b"Author\0" + b"a" * 2**21))
    start = time.process_time()
    assert np.array_equal(decode(data), decode(encode(picture())))
    assert time.process_time() - start < 1


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
    at_work, most, company = [], [], threading.Condition()

    def load(self, actual=ImageFile.ImageFile.load):
        if not self.tile:
            return actual(self)
        with company:
            at_work.append(id(self))
            most.append(len(at_work))
            company.notify_all()
            # Wait for as many as should come, and a little for one more than that.
            company.wait_for(lambda: max(most) >= together, timeout=10)
            company.wait_for(lambda: max(most) > together, timeout=0.02)
            at_work.remove(id(self))
        return actual(self)

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


def notices_of(data):
    with one_sample() as notices:
        return decode(data), notices


def ramp(bits):
    """Return grey values (8, 64) from 0 to the most that this many bits hold, and the 8 bits that they stand for."""
    share = np.tile(np.linspace(0, 1, 64), (8, 1))
    return np.round(share * ((1 << bits) - 1)).astype(np.uint16), np.round(share * 255).astype(np.uint8)


def colours(grey):
    return np.dstack([grey, grey[:, ::-1], grey[:, ::-1]])


def tiff_of(values, tags=None, order="<", apart=False, alpha=False, packed=False):
    """Return a TIFF of an array (H, W) or (H, W, channels), unless its tags differ."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    planes = np.moveaxis(values, 2, 0) if apart else values[np.newaxis]
    strips = [plane.astype(values.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    own = {258: ("H", [8 * values.itemsize] * channels), 277: ("H", [channels]), 259: ("H", [8 if packed else 1])}
    own |= {262: ("H", [2 if channels > 2 else 1]), 284: ("H", [2 if apart else 1]), 338: ("H", [2])}
    own |= {273: ("L", starts), 279: ("L", [len(strip) for strip in strips])}
    if not alpha:
        del own[338]
    return tiff(width, height, own | (tags or {}), b"".join(strips), order)


def png_of(values, *chunks):
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fewer_bits_in_16_are_scaled_where_the_file_names_its_largest_value(bits, order):
    values, grey = ramp(bits)
    top = (1 << bits) - 1
    for name in (281, 341):
        decoded, notices = notices_of(tiff_of(values, {name: ("H", [top])}, order))
        assert np.array_equal(decoded, np.dstack([grey] * 3))
        assert notices == []
    for packed in (False, True):
        wide = np.dstack([colours(values), values])
        for data in (
            tiff_of(colours(values), {281: ("H", [top] * 3)}, order, packed=packed),
            tiff_of(wide, {281: ("H", [top] * 4)}, order, alpha=True, packed=packed),
            png_of(colours(values), (b"sBIT", bytes([bits] * 3))),
        ):
            decoded, notices = notices_of(data)
            assert np.array_equal(decoded, colours(grey))
            assert notices == []
    assert np.array_equal(decode(png_of(values, (b"sBIT", bytes([bits])))), np.dstack([grey] * 3))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_noted_where_the_file_says_nothing_of_them(bits):
    values, _ = ramp(bits)
    top = (1 << bits) - 1
    wrong = {281: ("H", [top // 2])}  # less than the image holds
    apart = tiff_of(colours(values), {281: ("H", [top] * 3)}, apart=True)
    for data in (tiff_of(values), png_of(values), tiff_of(colours(values)), png_of(colours(values)), apart):
        decoded, (notice,) = notices_of(data)
        assert notice.kind == "dark"
        assert f"largest value {top:,} of 65,535" in notice.text
        assert decoded.max() == (values.max() + 128) // 257 or decoded.max() == values.max() >> 8
    assert [notice.kind for notice in notices_of(tiff_of(values, wrong))[1]] == ["dark"]


def test_values_spread_over_16_bits_stay_as_they_are():
    values, grey = ramp(12)
    spread = values << 4 | values >> 8
    for data in (png_of(spread, (b"sBIT", b"\x0c")), tiff_of(spread), tiff_of(spread, {281: ("H", [65535])})):
        decoded, notices = notices_of(data)
        assert np.array_equal(decoded, np.dstack([grey] * 3))
        assert notices == []
    assert notices_of(tiff_of(np.zeros((8, 64), np.uint16)))[1] == []  # black, whatever white is
    # 0 is white
    assert np.array_equal(decode(tiff_of(65535 - spread, {262: ("H", [0])})), np.dstack([grey] * 3))


def test_twelve_bits_without_gaps_between_them_are_read():
    packed = bytes.fromhex("fff000800fff") * 3
    decoded = decode(tiff(4, 3, {258: ("H", [12]), 279: ("L", [18])}, packed))
    assert decoded[:, :, 0].tolist() == [[255, 0, 128, 255]] * 3


@pytest.mark.parametrize("white", [7, 127, 1000, 1023, 4095, 40_000])
@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_every_depth_of_ppm_equals_pillows_slow_decoder(white, magic):
    shape = (5, 6) if magic == b"P5" else (5, 6, 3)
    values = np.random.default_rng(0).integers(0, white + 9 if white < 200 else white + 1, shape)
    data = magic + b"\n# made by hand\n6 5\n%d\n" % white + values.astype("u1" if white < 256 else ">u2").tobytes()
    slow = Image.open(io.BytesIO(data))
    expected = (np.asarray(slow, np.int32) + 128) // 257 if slow.mode == "I" else np.asarray(slow)
    decoded = decode(data)
    assert np.array_equal(decoded[..., 0] if magic == b"P5" else decoded, expected)
    with pytest.raises(MediaError, match="damaged or cut short"):
        decode(data[:-1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_channels_that_lie_apart_are_read(order, packed):
    noise = np.random.default_rng(0).integers(0, 65536, (40, 30, 3)).astype(np.uint16)
    high = (noise >> 8).astype(np.uint8)
    assert np.array_equal(decode(tiff_of(noise, order=order, apart=True, packed=packed)), high)
    assert np.array_equal(decode(tiff_of(high, order=order, apart=True, packed=packed)), high)
    extra = np.dstack([high, high[..., :1]])
    for meaning in (0, 2):  # unknown, alpha
        data = tiff_of(extra, {338: ("H", [meaning])}, order, apart=True, packed=packed)
        assert np.array_equal(decode(data), high)


SOUND_BUT_UNREAD = {
    "float colours": (
        lambda: tiff_of(np.ones((3, 4, 3), np.float32), {339: ("H", [3] * 3)}),
        "3 channels of 32-bit float",
    ),
    "half floats": (lambda: tiff_of(np.ones((3, 4), np.float16), {339: ("H", [3])}), "1 channel of 16-bit floating"),
    "doubles": (lambda: tiff_of(np.ones((3, 4), np.float64), {339: ("H", [3])}), "1 channel of 64-bit floating"),
    "32-bit colours": (lambda: tiff_of(np.ones((3, 4, 3), np.uint32)), "3 channels of 32-bit whole numbers"),
    "grey and alpha": (lambda: tiff_of(np.ones((3, 4, 2), np.uint16), alpha=True), "2 channels of 16-bit whole"),
    "CIE Lab": (lambda: tiff_of(np.ones((3, 4, 3), np.uint8), {262: ("H", [9])}), "colours of kind 9 of TIFF"),
    "a raw photograph": (lambda: tiff_of(np.ones((3, 4), np.uint16), {262: ("H", [32803])}), "of kind 32803 of TIFF"),
    "JPEG 2000 in TIFF": (lambda: tiff(4, 3, {259: ("H", [34712])}, bytes(12)), "compression 34712 of TIFF"),
    "JPEG of 12 bits": (lambda: encode(picture(), "JPEG").replace(b"\0\x11\x08", b"\0\x11\x0c"), "12-bit layers"),
    "lossless JPEG": (lambda: encode(picture(), "JPEG").replace(b"\xff\xc0", b"\xff\xc3"), "lossless or hierarchical"),
    "JPEG in BMP": (lambda: (bmp := encode(picture(), "BMP"))[:30] + b"\4" + bmp[31:], "Unsupported BMP compression"),
}


@pytest.mark.parametrize("case", SOUND_BUT_UNREAD)
def test_sound_images_of_unread_kinds_are_not_called_damaged(case):
    make, what = SOUND_BUT_UNREAD[case]
    with pytest.raises(MediaError) as error:
        decode(make())
    message = str(error.value)
    assert "of a kind that is not read: " in message
    assert what in message
    assert "Save it as an 8-bit PNG or JPEG image" in message
    assert "damaged" not in message


def test_a_png_of_an_iphone_app_says_how_to_convert_it():
    data = png()
    with pytest.raises(MediaError, match=r"form of iPhone apps \(CgBI\).* Convert it on a Mac with `xcrun pngcrush"):
        decode(data[:8] + png_chunk(b"CgBI", bytes(4)) + data[8:])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>404", "a web page"),
        (b"<HTML><head>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML text"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b'{"error": "Not Found"}', "JSON text"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"8BPS\0\1", "a Photoshop document"),
        (bytes(128) + b"DICM", "a DICOM image"),
        ((b"G" + bytes(187)) * 3, "a video"),
    ],
)
def test_what_lies_in_place_of_an_image_is_named(data, what):
    with pytest.raises(MediaError, match=rf"starts with [0-9a-f]+: {what}; expected a JPEG"):
        decode(data)
    with pytest.raises(MediaError, match="Git LFS pointer, not the file itself. Run `git lfs pull`"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
