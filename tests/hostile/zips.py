"""Zips that a careless program would unpack to its harm, each with how it is refused."""

import stat
import struct
import warnings
import zipfile

from tests.helpers.datasets import CATS_AND_DOGS, png, write_zip


def entry(name, *, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name  # ZipInfo's constructor would tidy the name up
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def with_entry(name, content=b"x", **options):
    return lambda path: write_zip(path, [*CATS_AND_DOGS.items(), (entry(name, **options), content)])


def with_bytes(content):
    def make(path):
        path.write_bytes(content)
        return path

    return make


def patched(path, find, replace):
    """Replace some bytes of a zip."""
    data = path.read_bytes()
    assert find in data
    path.write_bytes(data.replace(find, replace))
    return path


def encrypted(path):
    """Set the flag of the first entry of the directory."""
    data = bytearray(write_zip(path, CATS_AND_DOGS).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    return path


def duplicate(path):
    with warnings.catch_warnings(action="ignore"):
        return write_zip(path, [*CATS_AND_DOGS.items(), ("cat/1.png", b"other")])


def cut_short(path):
    data = write_zip(path, CATS_AND_DOGS).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def overlapping(path):
    """Let two entries of the directory share the bytes of the first."""
    data = bytearray(write_zip(path, {"cat/1.png": png(1), "dog/1.png": png(1)}).read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(data)
    return path


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "dog/1.png"):
            with archive.open(name, "w") as file:
                for _ in range(55):
                    file.write(bytes(1 << 20))
    return path


def long_comments(path):
    """Write a zip whose directory is large though it has few entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(700):
            info = zipfile.ZipInfo(f"{n % 2}/{n}.png")
            info.comment = b"c" * 0xFFFF
            archive.writestr(info, b"")
    return path


def many_entries(path, count=100_000, declared=None, zip64=False):
    """Write a zip of empty entries by hand: zipfile would take seconds."""
    body, directory = bytearray(), bytearray()
    for n in range(count):
        name = b"%d/%d.png" % (n % 10, n)
        offset = len(body)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, offset
        )
        directory += name
    start = len(body)
    shown = count if declared is None else declared
    if zip64 or shown > 0xFFFF:
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, shown, shown, len(directory), start)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
        directory += end64 + locator
        shown, size = 0xFFFF, 0xFFFFFFFF
    else:
        size = len(directory)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, shown, shown, size, start, 0)
    path.write_bytes(bytes(body) + bytes(directory) + end)
    return path


HOSTILE = {
    "text": (with_bytes(b"hello"), r"is not a zip: it starts with 68656c6c\. Expected a \.zip of class folders"),
    "empty file": (with_bytes(b""), r"is not a zip: it is empty \(0 bytes\)"),
    "picture": (with_bytes(png()), r"is not a zip: it starts with 89504e47: a PNG image"),
    "gzip": (with_bytes(b"\x1f\x8b\x08\0"), r"starts with 1f8b0800: a gzip archive"),
    "tar": (with_bytes(bytes(257) + b"ustar\0"), r"starts with 00000000: a tar archive"),
    "empty zip": (
        lambda path: write_zip(path, {}),
        r"holds no images and no videos \(no files\)\. Expected one folder",
    ),
    "no class folders": (lambda path: write_zip(path, {"1.png": png()}), r"no class folders: 1 image, such as"),
    "no images": (lambda path: write_zip(path, {"cat/1.txt": b"x"}), r"the first is 'cat/1\.txt'"),
    "traversal": (with_entry("../evil.png"), r"leaves its folder: '\.\./evil\.png'; expected paths such as cat/1\.png"),
    "traversal inside": (with_entry("cat/../../evil.png"), r"leaves its folder: 'cat/\.\./\.\./evil\.png'"),
    "traversal of a text": (with_entry("cat/../../x.txt"), r"leaves its folder: 'cat/\.\./\.\./x\.txt'"),
    "traversal, backslash": (with_entry("cat\\..\\..\\evil.png"), r"leaves its folder"),
    "traversal, hidden": (with_entry("__MACOSX/../../evil.png"), r"leaves its folder"),
    "absolute": (with_entry("/etc/passwd"), r"absolute path: '/etc/passwd'.*from inside the folder"),
    "drive": (with_entry("C:\\x.png"), r"absolute path: 'C:\\\\x\.png'"),
    "drive, slash": (with_entry("c:/x.png"), r"absolute path: 'c:/x\.png'"),
    "server": (with_entry("\\\\server\\share\\x.png"), r"absolute path: "),
    "backslashes": (
        with_entry("cat\\3.png"),
        r"backslashes in its name, while .* slashes: 'cat\\\\3\.png'.*Pack the folder again",
    ),
    "link": (with_entry("cat/3.png", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), r"'cat/3\.png' that is a link"),
    "pipe": (with_entry("cat/3.png", mode=stat.S_IFIFO | 0o644), r"'cat/3\.png' that is a special file"),
    "duplicate": (duplicate, r"the entry 'cat/1\.png' twice\. Pack the folder again"),
    "duplicate after tidying": (with_entry("./cat//1.png"), r"the entry 'cat/1\.png' twice"),
    "NUL": (
        lambda p: patched(write_zip(p, CATS_AND_DOGS), b"dog/1.png", b"dog/1\0png"),
        r"a NUL character in its name: 'dog/1\\x00png'",
    ),
    "no name": (with_entry(""), r"an entry with no name: ''"),
    "encrypted": (encrypted, r"encrypted entry 'cat/1\.png'\. Pack the folder again without a password"),
    "bzip2": (
        lambda path: write_zip(path, CATS_AND_DOGS, zipfile.ZIP_BZIP2),
        r"'cat/1\.png' with the compression method bzip2; expected Deflate",
    ),
    "cut short": (cut_short, r"begins like a zip but its end is missing after \d+ bytes: it was cut short\. Fetch"),
    "broken directory": (
        lambda p: patched(write_zip(p, CATS_AND_DOGS), b"PK\1\2", b"PK\1\3"),
        r"damaged zip \(its directory is broken\)\. Fetch",
    ),
    "name not UTF-8": (
        lambda p: patched(write_zip(p, {"é/1.png": png()}), "é/1.png".encode(), b"\xff\xff/1.png"),
        r"an entry b'\\xff\\xff/1\.png' whose name is marked as UTF-8 but is not",
    ),
    "overlapping": (overlapping, r"entries that share the same bytes: 'cat/1\.png' and 'dog/1\.png'\. Zip bombs"),
    "bomb": (bomb, r"to 115,343,360 bytes, [\d,]+ times its size; at most 100 times.*MAX_COMPRESSION_RATIO"),
    "100,000 entries": (many_entries, r"has 100,000 entries or more; at most 75,000 .*MAX_ARCHIVE_ENTRIES"),
    "100,000 entries that claim to be 3": (
        lambda path: many_entries(path, declared=3),
        r"has 75,001 entries or more; at most 75,000",
    ),
    "a path of 30,000 folders": (
        with_entry("d/" * 30_000 + "1.png"),
        r"has a path of 60,005 characters; at most 4,096",
    ),
    "a path of 65 folders": (with_entry("d/" * 65 + "1.png"), r"a path through 65 folders; at most 64 are accepted\."),
    "a folder of 65 folders": (with_entry("d/" * 66), r"a path through 66 folders; .* begins with 'd/d/d/"),
    "a path of backslashes": (with_entry("d\\" * 99 + "1.png"), r"a path through 99 folders; at most 64"),
    "a name of 5,000 letters": (with_entry("d" * 5000 + "/1.png"), r"has a path of 5,006 characters; at most 4,096"),
    "long comments": (long_comments, r"has a directory of 45,\d+,\d+ bytes; at most 38,400,000 are accepted"),
    "missing 64-bit directory": (
        lambda path: patched(many_entries(path, 20, declared=70_000), b"PK\6\6", b"PK\6\5"),
        r"damaged zip \(its 64-bit directory is missing\)",
    ),
    "directory before the start": (
        lambda path: with_bytes(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 46, 0, 0))(path),
        r"damaged zip \(its directory is broken\)",
    ),
}
