"""A zip equals the folder it was made from; a hostile one is refused before anything is read."""

import gc
import hashlib
import io
import re
import resource
import signal
import struct
import tempfile
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from labelrank.data import SourceOptions, describe_source, open_dataset
from labelrank.data.archive import open_archive
from labelrank.data.dataset import ClipSampling
from labelrank.data.folder import open_folder
from labelrank.data.uploads import save_upload, upload_name
from labelrank.errors import ArchiveError, DatasetError, HubError, MediaError, UntoldNames
from labelrank.settings import Settings
from tests.helpers.datasets import (
    CATS_AND_DOGS,
    HOSTILE_NAMES,
    SETTINGS,
    numbered_frames,
    png,
    unmarked,
    video,
    write_tree,
    write_zip,
)
from tests.hostile.zips import HOSTILE, many_entries

JHMDB = Path(__file__).parents[3] / "shared" / "data" / "jhmdb12-mini.zip"


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_zip_is_refused_with_value_and_way_out(case, tmp_path):
    make, message = HOSTILE[case]
    path = make(tmp_path / "pets.zip")
    start = time.process_time()
    with pytest.raises(ArchiveError, match=message) as error:
        open_archive(path, split=None, settings=SETTINGS)
    assert time.process_time() - start < 2
    assert str(error.value).startswith("'pets.zip' ")
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == ["pets.zip"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cat/1.png": png()}, "only one class, 'cat'; a ranking needs at least two"),
        ({"Cat/1.png": png(), "cat/1.png": png()}, "'Cat' and 'cat'"),
    ],
)
def test_zip_without_two_classes_is_refused(files, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        open_archive(write_zip(tmp_path / "pets.zip", files), split=None, settings=SETTINGS)


def test_zip_that_is_not_there_is_an_archive_error(tmp_path):
    with pytest.raises(ArchiveError, match=r"'pets\.zip' cannot be read \(No such file"):
        open_archive(tmp_path / "pets.zip", split=None, settings=SETTINGS)


def test_unpacked_size_is_limited(tmp_path):
    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS | {"notes.txt": bytes(10_000)})
    with pytest.raises(ArchiveError, match=r"would unpack to 10,\d+ bytes; at most 10,000 .*MAX_ARCHIVE_BYTES"):
        open_archive(path, split=None, settings=Settings(workspace=tmp_path, max_archive_bytes=10_000))


def test_entries_up_to_the_limit_are_accepted(tmp_path):
    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS)
    assert (
        len(open_archive(path, split=None, settings=Settings(workspace=tmp_path, max_archive_entries=3)).samples) == 3
    )
    with pytest.raises(ArchiveError, match="has 3 entries or more; at most 2"):
        open_archive(path, split=None, settings=Settings(workspace=tmp_path, max_archive_entries=2))


def test_zip64_is_read(tmp_path):
    path = many_entries(tmp_path / "pets.zip", count=50, zip64=True)
    dataset = open_archive(path, split=None, settings=SETTINGS)
    assert dataset.class_counts.tolist() == [5] * 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_comment_and_leading_bytes_are_no_obstacle(compression, tmp_path):
    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS, compression)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"about " * 500
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    dataset = open_archive(path, split=None, settings=SETTINGS)
    assert [dataset.load(s).shape for s in dataset.samples] == [(3, 4, 3)] * 3


def test_hostile_class_names_come_through(tmp_path):
    files = {f"{name}/1.png": png(i) for i, name in enumerate(HOSTILE_NAMES)}
    dataset = open_archive(write_zip(tmp_path / "pets.zip", files), split=None, settings=SETTINGS)
    assert dataset.class_names == tuple(sorted(HOSTILE_NAMES))


def unicode_path(raw, name, crc=None):
    """Return Info-ZIP's field of a name in UTF-8 (APPNOTE 4.6.9)."""
    content = struct.pack("<BL", 1, zlib.crc32(raw) if crc is None else crc) + name.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


def of_classes(*names):
    return {f"{name}/{n}.png": png(n) for name in names for n in range(2)}


WRITTEN = [
    ("gbk", "gbk", ("狗", "猫", "鸟")),
    ("GB2312", "gbk", ("大熊猫", "老虎")),
    ("shift_jis", "shift_jis", ("猫ソ", "表")),  # the last byte of either is a backslash
    ("big5", "big5", ("功夫", "許蓋")),
    ("euc_kr", "euc_kr", ("강아지", "고양이")),
    ("cp1252", "cp1252", ("Bär", "Frösche", "Käfer")),
    ("cp850", "cp850", ("Bär", "dog")),
    ("cp437", "cp437", ("Bär", "dog")),
    ("cp866", "cp866", ("кошка", "собака")),
]


@pytest.mark.parametrize(("codec", "encoding", "names"), WRITTEN)
def test_names_in_another_encoding_have_to_be_chosen(codec, encoding, names, tmp_path, settings):
    path = unmarked(tmp_path / "pets.zip", of_classes(*names), codec)
    with pytest.raises(
        UntoldNames, match=r"'pets\.zip' does not say in which encoding.*\(--archive-encoding\)"
    ) as error:
        open_dataset(str(path), settings=settings)
    assert dict(error.value.readings)[encoding] == tuple(sorted(names))
    offered = describe_source(str(path), settings=settings)
    assert offered.archive_readings == error.value.readings
    assert offered.archive_encoding is None
    chosen = SourceOptions(archive_encoding=encoding)
    data = open_dataset(str(path), chosen, settings=settings)
    assert data.class_names == tuple(sorted(names))
    assert data.archive_encoding == encoding
    assert [data.load(s).shape for s in data.samples] == [(3, 4, 3)] * 2 * len(names)
    described = describe_source(str(path), chosen, settings=settings)
    assert (described.archive_encoding, described.archive_readings) == (encoding, error.value.readings)
    same = open_archive(write_zip(tmp_path / "utf8.zip", of_classes(*names)), split=None, settings=SETTINGS)
    assert (data.digest, same.archive_encoding) == (same.digest, None)


@pytest.mark.parametrize(("codec", "encoding", "names"), [w for w in WRITTEN if w[1] in ("gbk", "cp1252", "cp866")])
def test_an_encoding_in_which_names_read_like_words_comes_first(codec, encoding, names, tmp_path):
    path = unmarked(tmp_path / "pets.zip", of_classes(*names), codec)
    with pytest.raises(UntoldNames) as error:
        open_archive(path, split=None, settings=SETTINGS)
    assert error.value.readings[0][0] == encoding


def test_an_upload_with_names_in_another_encoding_is_kept_to_be_chosen(tmp_path, settings):
    path = unmarked(tmp_path / "pets.zip", of_classes("猫", "狗"), "gbk")
    with path.open("rb") as stream:
        name = save_upload(stream, settings=settings)
    assert "gbk" in dict(describe_source(name, settings=settings).archive_readings)
    assert open_dataset(name, SourceOptions(archive_encoding="gbk"), settings=settings).class_names == ("狗", "猫")


def test_the_unicode_path_field_is_read_where_it_belongs_to_the_name(tmp_path):
    path = unmarked(tmp_path / "pets.zip", of_classes("Bär", "dog"), "cp850", unicode_path)
    data = open_archive(path, split=None, settings=SETTINGS)
    assert (data.class_names, data.archive_encoding) == (("Bär", "dog"), None)
    assert data.load(data.samples[0]).shape == (3, 4, 3)
    # The field of a name that was changed since does not count.
    stale = unmarked(tmp_path / "stale.zip", of_classes("Bär", "dog"), "cp850", lambda *a: unicode_path(*a, crc=1))
    with pytest.raises(UntoldNames):
        open_archive(stale, split=None, settings=SETTINGS)
    leaving = unmarked(
        tmp_path / "leaving.zip", of_classes("Bär", "dog"), "cp850", lambda raw, name: unicode_path(raw, "../" + name)
    )
    with pytest.raises(ArchiveError, match="leaves its folder"):
        open_archive(leaving, split=None, settings=SETTINGS)


def test_names_that_are_utf8_need_no_mark(tmp_path):
    path = unmarked(tmp_path / "pets.zip", of_classes("Bär", "猫"), "utf-8")
    data = open_archive(path, split=None, settings=SETTINGS)
    assert (data.class_names, data.archive_encoding) == (("Bär", "猫"), None)


def test_file_names_in_another_encoding_alone_are_told_and_read(tmp_path):
    path = unmarked(tmp_path / "pets.zip", {"cat/ä.png": png(), "dog/1.png": png()}, "cp1252")
    data = open_archive(path, split=None, settings=SETTINGS)
    assert data.class_names == ("cat", "dog")
    (problem,) = data.problems
    assert problem.reason.startswith("Of file names, 1 are neither marked nor valid as UTF-8; they are read as United")
    assert (
        open_archive(path, split=None, settings=SETTINGS, options=SourceOptions(archive_encoding="cp1252"))
        .samples[0]
        .key
        == "cat/ä.png"
    )


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("koi8", "The archive encoding is 'koi8'; expected one of gbk, big5"),
        ("utf-16", "The archive encoding is 'utf-16'; expected one of gbk"),
        ("euc_kr", r"'pets\.zip' has a name b'.*', which cannot be Korean \(EUC-KR\)\. Choose another"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused(encoding, message, tmp_path):
    path = unmarked(tmp_path / "pets.zip", of_classes("ä", "dog"), "cp1252")
    with pytest.raises(DatasetError, match=message):
        open_archive(path, split=None, settings=SETTINGS, options=SourceOptions(archive_encoding=encoding))


@pytest.mark.parametrize("codec", ["utf-8", "shift_jis"])
def test_backslashes_separate_folders_where_no_name_has_a_slash(codec, tmp_path):
    names = of_classes("pets\\cat", "pets\\表" if codec == "shift_jis" else "pets\\dog")
    files = {name.replace("/", "\\"): content for name, content in names.items()} | {"pets\\fox\\": b"", "a.txt": b""}
    path = unmarked(tmp_path / "pets.zip", files, codec)
    data = open_archive(path, split=None, settings=SETTINGS, options=SourceOptions(archive_encoding=codec))
    assert data.class_names == ("cat", "表" if codec == "shift_jis" else "dog")
    assert [s.key for s in data.samples][:2] == ["cat/0.png", "cat/1.png"]
    assert [p.subject for p in data.problems] == ["fox", "a.txt"]


@pytest.mark.parametrize(
    "name", ["..\\1.png", "cat\\..\\..\\1.png", "\\\\host\\share\\1.png", "\\1.png", "C:\\1.png", "c:1.png"]
)
def test_nothing_unsafe_comes_in_by_a_backslash(name, tmp_path):
    files = {"cat\\1.png": png(), "dog\\1.png": png(), name: png()}
    with pytest.raises(ArchiveError, match=r"leaves its folder|absolute path"):
        open_archive(unmarked(tmp_path / "pets.zip", files, "utf-8"), split=None, settings=SETTINGS)


def test_empty_class_and_loose_files_are_listed_as_for_a_folder(tmp_path):
    files = CATS_AND_DOGS | {"emu/": b"", "notes.txt": b"x", "1.png": png(), "__MACOSX/cat/._1.png": b"x"}
    dataset = open_archive(write_zip(tmp_path / "pets.zip", files), split=None, settings=SETTINGS)
    same = open_folder(write_tree(tmp_path / "pets", files), split=None, settings=SETTINGS)
    assert {p.subject for p in dataset.problems} == {"emu", "notes.txt", "1.png"}
    assert dataset.problems == same.problems


def test_a_large_picture_is_listed_and_the_rest_kept(tmp_path):
    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS | {"cat/big.png": bytes(5000)})
    dataset = open_archive(path, split=None, settings=Settings(workspace=tmp_path, max_media_bytes=4096))
    assert len(dataset.samples) == 3
    assert [p.subject for p in dataset.problems] == ["cat/big.png"]


def test_damaged_content_is_a_media_error_and_the_rest_kept(tmp_path):
    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(2)) + 30] ^= 0xFF
    path.write_bytes(data)
    dataset = open_archive(path, split=None, settings=SETTINGS)
    outcome = {}
    for sample in dataset.samples:
        try:
            outcome[sample.key] = dataset.load(sample).shape
        except MediaError as error:
            outcome[sample.key] = str(error)
    assert re.match(r"'cat/2\.png' cannot be unpacked from 'pets\.zip' \(Bad CRC.*Fetch or pack", outcome["cat/2.png"])
    assert outcome["cat/1.png"] == outcome["dog/1.png"] == (3, 4, 3)


def test_threads_read_the_same_as_one(tmp_path):
    files = {f"{c}/{n}.png": png(n) for c in "ab" for n in range(20)}
    dataset = open_archive(write_zip(tmp_path / "pets.zip", files), split=None, settings=SETTINGS)
    expected = {s.key: dataset.load(s) for s in dataset.samples}
    wrong = []

    def read():
        for _ in range(5):
            for sample in dataset.samples:
                if not np.array_equal(dataset.load(sample), expected[sample.key]):
                    wrong.append(sample.key)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files")
def test_zip_is_closed_with_its_dataset_and_after_an_error(tmp_path):
    def is_open(path):
        return path in [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]

    path = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS)
    dataset = open_archive(path, split=None, settings=SETTINGS)
    dataset.load(dataset.samples[0])
    assert is_open(path)
    del dataset
    gc.collect()
    assert not is_open(path)
    with pytest.raises(DatasetError) as kept:
        open_archive(path, split="val", settings=SETTINGS)
    assert not is_open(path)
    assert kept.value is not None


names = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 100 and not re.match("[A-Za-z]:$", name)
)
file_names = st.builds(lambda stem, suffix: stem + suffix, names, st.sampled_from([".png", ".JPG", ".txt", ""]))
folder_names = st.one_of(st.sampled_from(["cat", "dog", "Dog", "train", ".git"]), names)
trees = st.dictionaries(
    st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(folder_names, max_size=3), file_names),
    st.binary(max_size=12),
    min_size=2,
    max_size=12,
).filter(lambda files: not any(a != b and b.startswith(a + "/") for a in files for b in files))


def outcome(open_source):
    """Return everything that must not depend on what holds the files."""
    try:
        dataset = open_source()
    except DatasetError:
        return "refused"
    half = dataset.select(1, seed=3)
    return dataset.class_names, dataset.samples, dataset.digest, half.samples, half.selection


@hypothesis_settings(max_examples=60)
@given(files=trees, wrap=st.sampled_from(["", "root/"]), splits=st.booleans(), folders=st.booleans())
def test_zip_equals_the_folder_it_was_made_from(files, wrap, splits, folders):
    if splits:
        files = {f"{'train' if i % 2 else 'val'}/{path}": content for i, (path, content) in enumerate(files.items())}
    with tempfile.TemporaryDirectory() as temporary:
        root = write_tree(Path(temporary) / "data", files)
        entries = {f"{wrap}{path}": content for path, content in files.items()}
        if folders:
            parents = {str(parent) for path in entries for parent in Path(path).parents if str(parent) != "."}
            entries |= {f"{parent}/": b"" for parent in parents}
        path = write_zip(Path(temporary) / "data.zip", entries)
        from_folder = outcome(lambda: open_folder(root, split=None, settings=SETTINGS))
        from_zip = outcome(lambda: open_archive(path, split=None, settings=SETTINGS))
    assert from_zip == from_folder


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_videos_of_a_zip_are_those_of_the_folder(compression, tmp_path):
    frames = numbered_frames(20)
    files = {f"{name}/1.avi": video(frames[start:], "avi", "mpeg4") for start, name in enumerate(("jump", "run"))}
    files |= {"run/2.mp4": video(frames), "run/cover.png": png(), "run/bad.mkv": b"\x1a\x45\xdf\xa3"}
    zipped = open_archive(write_zip(tmp_path / "acts.zip", files, compression), split=None, settings=SETTINGS)
    folder = open_folder(write_tree(tmp_path / "acts", files), split=None, settings=SETTINGS)
    assert zipped.media == folder.media == "clip"
    assert (zipped.samples, zipped.digest, zipped.problems) == (folder.samples, folder.digest, folder.problems)
    sampling = ClipSampling(frames=2, stride=5, clips=2)
    for sample in zipped.samples:
        if sample.key == "run/bad.mkv":
            with pytest.raises(MediaError, match=r"^'run/bad\.mkv' "):
                zipped.load_clips(sample, sampling)
            continue
        clips = zipped.load_clips(sample, sampling)
        assert np.array_equal(clips, folder.load_clips(sample, sampling))
        assert np.array_equal(zipped.load(sample), clips[0, 0])
    assert listing(tmp_path) == ["acts", "acts.zip"]  # nothing is unpacked


class Remote(io.BytesIO):
    """A file that remembers which bytes were read."""

    def __init__(self, data):
        super().__init__(data)
        self.parts = []

    def read(self, size=-1):
        start = self.tell()
        data = super().read(size)
        self.parts.append((start, start + len(data)))
        return data


@pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\n"])
def test_a_fetch_is_told_the_bytes_that_its_samples_need(prefix, tmp_path):
    files = {f"{c}/{n}.png": png(n) + bytes(n * 100) for c in ("cat", "dog") for n in range(4)}
    data = prefix + write_zip(tmp_path / "pets.zip", files, zipfile.ZIP_STORED).read_bytes()
    remote = Remote(data)
    fetched = []
    dataset = open_archive(remote, split=None, settings=SETTINGS, id="far/pets", on_fetch=lambda *a: fetched.append(a))
    assert (dataset.id, fetched) == ("far/pets", [])
    by_key = {s.key: s for s in dataset.samples}
    wanted = [by_key["dog/2.png"], by_key["cat/1.png"], by_key["cat/0.png"]]
    dataset.fetch(wanted, "progress", "stop")
    ((ranges, *others),) = fetched
    assert others == ["progress", "stop"]
    # cat/0 and cat/1 are neighbours.
    starts = [data.index(name) - 30 for name in (b"cat/0.png", b"cat/2.png", b"dog/2.png", b"dog/3.png")]
    assert ranges == [(starts[0], starts[1]), (starts[2], starts[3])]
    remote.parts.clear()
    for sample in wanted:
        dataset.load(sample)
    assert all(any(start <= a and b <= end for start, end in ranges) for a, b in remote.parts)
    dataset.fetch([by_key["dog/3.png"]], None, None)
    assert fetched[-1][0] == [(starts[3], data.index(b"PK\1\2"))]
    del dataset
    gc.collect()
    assert not remote.closed  # it stays the caller's


def test_a_zip_at_hand_has_nothing_to_fetch(tmp_path):
    assert open_archive(write_zip(tmp_path / "pets.zip", CATS_AND_DOGS), split=None, settings=SETTINGS).fetch is None


def test_what_the_hub_says_is_passed_on(tmp_path):
    remote = io.BytesIO(write_zip(tmp_path / "pets.zip", CATS_AND_DOGS).read_bytes())
    dataset = open_archive(remote, split=None, settings=SETTINGS, id="far/pets")

    def refuse(*_):
        raise HubError("The Hub cannot be reached.")

    remote.read = refuse
    with pytest.raises(HubError, match=r"^The Hub cannot be reached\.$"):
        dataset.load(dataset.samples[0])
    with pytest.raises(HubError, match=r"^The Hub cannot be reached\.$"):
        open_archive(remote, split=None, settings=SETTINGS, id="far/pets")


@pytest.mark.skipif(not JHMDB.is_file(), reason="needs ../shared/data, the real videos")
def test_jhmdb_is_read_from_its_zip():
    for split, per_class in (("train", 10), ("val", 4), ("test", 4)):
        dataset = open_archive(JHMDB, split=split, settings=SETTINGS)
        assert (dataset.media, dataset.splits, dataset.problems) == ("clip", ("train", "val", "test"), ())
        assert dataset.class_counts.tolist() == [per_class] * 12
    known = set((JHMDB.parent / "labels" / "jhmdb21_classes.txt").read_text().split())
    assert set(dataset.class_names) <= known
    odd = next(s for s in dataset.samples if set("!(@)") & set(s.key))
    assert dataset.load_clips(odd, ClipSampling()).shape == (1, 16, 240, 320, 3)


def test_keys_do_not_depend_on_the_root_folder(tmp_path):
    bare = open_archive(write_zip(tmp_path / "a.zip", CATS_AND_DOGS), split=None, settings=SETTINGS)
    rooted = {f"x/pets/{path}": content for path, content in CATS_AND_DOGS.items()}
    wrapped = open_archive(write_zip(tmp_path / "b.zip", rooted), split=None, settings=SETTINGS)
    assert (wrapped.samples, wrapped.digest) == (bare.samples, bare.digest)


def test_upload_is_kept_once_and_opened_by_its_digest(tmp_path):
    settings = Settings(workspace=tmp_path / "home")
    data = write_zip(tmp_path / "pets.zip", CATS_AND_DOGS).read_bytes()
    stream = io.BytesIO(data)
    stream.read()  # as a page that has shown its size leaves it
    name = save_upload(stream, settings=settings)
    assert name == f"upload:{hashlib.sha256(data).hexdigest()}"
    assert save_upload(io.BytesIO(data), settings=settings) == name
    digest = name.removeprefix("upload:")
    assert listing(settings.workspace / "uploads") == [f"{digest}.name", f"{digest}.zip"]
    assert upload_name(name, settings=settings) == "upload.zip"
    assert upload_name("upload:" + "0" * 64, settings=settings) == "upload 00000000"
    dataset = open_dataset(name, settings=settings)
    assert dataset.id == name
    assert dataset.digest == open_dataset(str(tmp_path / "pets.zip"), settings=settings).digest


def test_upload_with_other_splits_than_train_is_kept(tmp_path):
    settings = Settings(workspace=tmp_path / "home")
    path = write_zip(tmp_path / "pets.zip", {"val/cat/1.png": png(), "test/dog/1.png": png()})
    with path.open("rb") as stream:
        name = save_upload(stream, settings=settings)
    assert open_dataset(name, SourceOptions(split="test"), settings=settings).split == "test"


@pytest.mark.parametrize("case", ["text", "traversal", "link", "bomb", "cut short", "no class folders", "too large"])
def test_refused_upload_leaves_nothing_behind(case, tmp_path):
    settings = Settings(workspace=tmp_path / "home")
    path = tmp_path / "pets.zip"
    message = r"has more than 100 bytes.*MAX_ARCHIVE_BYTES"
    if case == "too large":
        write_zip(path, CATS_AND_DOGS)
        settings = Settings(workspace=tmp_path / "home", max_archive_bytes=100)
    else:
        make, message = HOSTILE[case]
        make(path)
    with path.open("rb") as stream, pytest.raises(ArchiveError, match=message) as error:
        save_upload(stream, settings=settings)
    assert str(error.value).startswith("'pets.zip' ")
    assert listing(settings.workspace / "uploads") == []


def test_a_large_upload_is_kept_without_holding_it_in_memory(tmp_path):
    class Stream(io.RawIOBase):
        name, left = "zeros.zip", 64

        def readinto(self, buffer):
            self.left -= 1
            return len(buffer) if self.left >= 0 else 0

    tracemalloc.start()
    try:
        name = save_upload(Stream(), settings=Settings(workspace=tmp_path), check=lambda path, shown, settings: None)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "uploads" / f"{name.removeprefix('upload:')}.zip").stat().st_size == 64 * 2**20


def test_an_upload_beyond_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path):
    settings = Settings(workspace=tmp_path)
    write_zip(tmp_path / "pets.zip", CATS_AND_DOGS | {"cat/large.png": bytes(3_000_000)}, zipfile.ZIP_STORED)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The system refuses to make a file larger than this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        wanted = pytest.raises(DatasetError, match=r"'pets.zip' cannot be kept .*File too large.* Free some space")
        with (tmp_path / "pets.zip").open("rb") as file, wanted:
            save_upload(file, settings=settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path / "uploads") == []


def test_an_upload_into_a_workspace_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cannot be kept on this computer \(Not a directory\).*LABELRANK_HOME"):
        save_upload(io.BytesIO(b"x"), settings=Settings(workspace=tmp_path / "file" / "workspace"))


def test_upload_that_breaks_off_leaves_nothing_behind(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        save_upload(Broken(), settings=Settings(workspace=tmp_path))
    assert listing(tmp_path / "uploads") == []


def test_entry_that_lies_about_its_size_is_not_unpacked_in_memory(tmp_path):
    path = tmp_path / "lying.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("cat/1.png", bytes(200 * 2**20))
        file.writestr("dog/1.png", png())
    data = bytearray(path.read_bytes())
    true_size = struct.pack("<I", 200 * 2**20)
    for magic, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(magic) + offset
        assert data[at : at + 4] == true_size
        data[at : at + 4] = struct.pack("<I", 1_000)
    path.write_bytes(data)
    dataset = open_archive(path, split=None, settings=SETTINGS)
    tracemalloc.start()
    try:
        with pytest.raises(MediaError):
            dataset.load(dataset.samples[0])
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (
            "caf\u00e9",
            "cafe\u0301",
            r"'cafe\u0301' \('e\u0301' is U\+0065 U\+0301\) and 'caf\u00e9' \('\u00e9' is U\+00E9\)\. Merge",
        ),
        ("\u00b5m", "\u03bcm", r"'\u00b5m' \('\u00b5' is U\+00B5\) and '\u03bcm' \('\u03bc' is U\+03BC\)"),
        ("1\u212a", "1K", r"'1K' \('K' is U\+004B\) and '1\u212a' \('\u212a' is U\+212A\)"),
        ("Cat", "cat", "'Cat' and 'cat'. Merge"),
    ],
)
def test_names_that_look_alike_are_refused_with_what_tells_them_apart(one, other, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "forms.zip", "w") as file:
        for name in (one, other, "dog"):
            file.writestr(f"{name}/1.png", png())
    with pytest.raises(DatasetError, match="case or form of letters: " + message):
        open_archive(tmp_path / "forms.zip", split=None, settings=SETTINGS)
