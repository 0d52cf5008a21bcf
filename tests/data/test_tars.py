"""WebDataset shards, and tars of class folders."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pytest

from labelrank.data import SourceOptions, describe_source, open_dataset
from labelrank.data.dataset import ClipSampling
from labelrank.data.digits import moving_digits
from labelrank.data.tar_index import read_members
from labelrank.data.uploads import save_upload
from labelrank.errors import ArchiveError, DatasetError, MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import CATS_AND_DOGS, SETTINGS, png, write_tar, write_tree


def opened(path, settings=SETTINGS, **options):
    return open_dataset(str(path), SourceOptions(**options), settings=settings)


def shard(labels, *, first=0, extension="cls", media="png"):
    """Return the files of samples, an image with a file of its label each."""
    files = {}
    for n, label in enumerate(labels, first):
        content = json.dumps(label) if extension == "json" else str(label)
        files |= {f"{n:06}.{media}": png(n), f"{n:06}.{extension}": content.encode()}
    return files


def test_shards_are_read_by_split_with_the_classes_of_all(tmp_path):
    write_tar(tmp_path / "shard-train-000000.tar", shard([3, 10, 3]))
    write_tar(tmp_path / "shard-train-000001.tar", shard([10, 3], first=3))
    write_tar(tmp_path / "shard-val-000000.tar", shard([4, 3]))
    data = opened(tmp_path)
    assert (data.split, data.splits, data.class_names) == ("train", ("train", "val"), ("3", "4", "10"))
    assert [s.key for s in data.samples][:2] == ["train/3/000000.png", "train/10/000001.png"]
    assert data.labels.tolist() == [0, 2, 0, 2, 0]
    expected = open_dataset(
        str(write_tree(tmp_path.parent / "expected", {"a/1.png": png(4), "b/1.png": png(0)})), settings=SETTINGS
    )
    np.testing.assert_array_equal(data.load(data.samples[4]), expected.load(expected.samples[0]))
    assert [p.subject for p in data.problems] == ["4"]
    info = describe_source(str(tmp_path), settings=SETTINGS)
    assert (info.kind, info.media, info.media_columns, info.label_columns) == (
        "WebDataset",
        "image",
        ("png",),
        ("cls",),
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "cat\n\ndog\r\neel\n"),
        ("labels.json", '["cat", "dog", "eel"]'),
        ("classes.json", '{"1": "dog", "0": "cat", "2": "eel"}'),
    ],
)
def test_file_beside_the_tars_names_the_classes(name, content, tmp_path):
    path = write_tar(tmp_path / "a.tar", shard([0, 1, 1]))
    (tmp_path / name).write_text(content)
    for place in (tmp_path, path):
        assert opened(place).class_names == ("cat", "dog", "eel")
    write_tar(tmp_path / "a.tar", shard([0, 1, 7, 7]))
    with pytest.raises(DatasetError, match=r"label 7 in 'cls', but the file beside the tars names 3 classes"):
        opened(tmp_path)
    (tmp_path / name).write_text("{" if name.endswith("json") else "")
    with pytest.raises(DatasetError, match="names 0 classes|does not name classes"):
        opened(tmp_path)


def test_labels_may_be_names_or_values_in_json_or_texts(tmp_path):
    for extension, labels in (("cls", ["dog", "cat", "dog"]), ("txt", ["dog", "cat", "dog"])):
        assert opened(write_tar(tmp_path / "a.tar", shard(labels, extension=extension))).class_names == ("cat", "dog")
    found = [{"label": n % 2, "class_name": "ab"[n % 2], "width": 4, "caption": f"image {n}"} for n in range(6)]
    path = write_tar(tmp_path / "a.tar", shard(found, extension="json"))
    data = opened(path)
    assert (data.class_names, data.columns) == (("a", "b"), ("png", "class_name"))
    assert opened(path, label_column="label").class_names == ("0", "1")
    info = describe_source(str(path), settings=SETTINGS)
    assert info.label_columns == ("class_name", "label", "caption", "width")
    with pytest.raises(
        DatasetError, match=r"'caption' has 6 different values in 6 rows.* Choose another: 'class_name'"
    ):
        opened(path, label_column="caption")
    with pytest.raises(DatasetError, match="only one class, '4',"):
        opened(path, label_column="width")


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (["\ufeffcat\r\n", "dog", "cat"], ("cat", "dog")),
        (["1.0", "0.0", "1"], ("0", "1")),
        (["-1", "10", "-1", "2"], ("-1", "2", "10")),
        (["cat".encode("utf-16"), "dog".encode("utf-16")], ("cat", "dog")),
    ],
)
def test_texts_of_labels_may_be_written_in_many_ways(labels, class_names, tmp_path):
    files = {}
    for n, label in enumerate(labels):
        files |= {f"{n}.png": png(n), f"{n}.cls.txt": label if isinstance(label, bytes) else label.encode()}
    assert opened(write_tar(tmp_path / "a.tar", files)).class_names == class_names


def test_labels_in_another_encoding_are_refused(tmp_path):
    files = {"1.png": png(1), "1.cls.txt": "猫".encode("gbk"), "2.png": png(2), "2.cls.txt": "狗".encode("gbk")}
    with pytest.raises(DatasetError, match=r"'a\.tar: 2\.cls\.txt' is not valid UTF-8 .* Save it as UTF-8"):
        opened(write_tar(tmp_path / "a.tar", files))


def test_notes_and_captions_leave_class_folders_what_they_are(tmp_path):
    captions = {f"{name}/{n}.txt": f"{name} {n}" for name in ("cat", "dog") for n in range(3)}
    files = {name.replace("txt", "png"): png(len(name)) for name in captions}
    for more in (captions, {"README.txt": "Pets"}, {"cat/info.json": '{"label": "pets"}'}):
        path = write_tar(tmp_path / "a.tar", files | {name: text.encode() for name, text in more.items()})
        assert opened(path).class_names == ("cat", "dog")
        assert describe_source(str(path), settings=SETTINGS).kind == "tar"
    path = write_tar(tmp_path / "a.tar", shard(["cat", "dog", "cat"], extension="txt") | {"README.txt": b"Pets"})
    assert opened(path).class_names == ("cat", "dog")


def test_captions_are_no_labels(tmp_path):
    captions = [f"a photo of {n}" for n in range(9)]
    with pytest.raises(DatasetError, match=r"'txt' has 9 different values in 9 rows.* Add a column of labels"):
        opened(write_tar(tmp_path / "a.tar", shard(captions, extension="txt")))


def test_media_have_to_be_chosen_where_a_sample_has_several(tmp_path):
    files = shard([0, 1, 0]) | {f"{n:06}.left.jpg": png(n + 5) for n in range(3)}
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DatasetError, match=r"2 columns that can be the media column: .* \(--media-column\)"):
        opened(path)
    assert describe_source(str(path), settings=SETTINGS).media_column is None
    data = opened(path, media_column="left.jpg")
    assert [s.key for s in data.samples] == ["0/000000.left.jpg", "1/000001.left.jpg", "0/000002.left.jpg"]


def test_samples_of_any_extension_are_read_and_incomplete_ones_named(tmp_path):
    files = shard([0, 1], media="jpg") | shard([0, 1], first=2)
    files |= {"a.cls": b"1", "b.png": png(1), "c.png": b"", "c.cls": b"", "__MACOSX/x.png": b"", ".hidden": b""}
    data = opened(write_tar(tmp_path / "a.tar", files))
    assert len(data.samples) == 4
    reasons = {p.subject: p.reason for p in data.problems}
    assert "has no image" in reasons["a.tar: a"]
    assert "no label in 'cls'" in reasons["a.tar: b"]
    assert set(reasons) == {"a.tar: a", "a.tar: b", "a.tar: c"}


def test_same_names_in_two_shards_get_keys_of_their_own(tmp_path):
    for n in range(2):
        write_tar(tmp_path / f"{n}.tar", shard([0, 1]))
    assert len({s.key for s in opened(tmp_path).samples}) == 4


def test_videos_in_shards_give_clips(tmp_path, video_bytes):
    files = {f"{n}.{end}": data for n in range(2) for end, data in (("mp4", video_bytes), ("cls", str(n).encode()))}
    data = opened(write_tar(tmp_path / "a.tar", files))
    assert data.media == "clip"
    assert data.load_clips(data.samples[1], ClipSampling(4, 1, 1)).shape[:2] == (1, 4)


@pytest.fixture(scope="module")
def video_bytes():
    import av

    digits = moving_digits("train")
    clip = digits.load_clips(digits.samples[0], ClipSampling(8, 1, 1))[0]
    buffer = io.BytesIO()
    with av.open(buffer, "w", "mp4") as file:
        stream = file.add_stream("mpeg4", 10)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        for frame in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        file.mux(stream.encode())
    return buffer.getvalue()


def test_tars_that_are_a_class_each_are_read(tmp_path):
    for name in ("n01440764", "n01443537"):
        write_tar(tmp_path / f"{name}.tar", {f"{name}_{n}.JPEG": png(n) for n in range(3)})
    data = opened(tmp_path)
    assert data.class_names == ("n01440764", "n01443537")
    assert data.samples[0].key == "n01440764/n01440764_0.JPEG"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_of_class_folders_is_the_folder(form, tmp_path):
    names = {"caf\u00e9/" + "x" * 60 + f"/{n}.png": png(n) for n in range(2)} | {f"dog/{'y' * 90}.png": png(3)}
    if form != tarfile.USTAR_FORMAT:
        names |= {f"dog/{'z' * 120}/{'y' * 120}.png": png(3)}
    path, folder = write_tar(tmp_path / "a.tar", names, form), write_tree(tmp_path / "a", names)
    assert opened(path).samples == opened(folder).samples
    assert opened(path).digest == opened(folder).digest


def special(kind, **more):
    member = tarfile.TarInfo("cat/1.png")
    member.type, member.linkname = kind, "/etc/passwd"
    return [(member, b"")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (special(tarfile.SYMTYPE), "'cat/1.png' that is a link; expected plain files"),
        (special(tarfile.LNKTYPE), "that is a link"),
        (special(tarfile.CHRTYPE), "that is a device"),
        (special(tarfile.FIFOTYPE), "that is a pipe"),
        ({"../cat/1.png": b""}, "leaves its folder: '../cat/1.png'"),
        ({"/cat/1.png": b""}, "leaves its folder"),
        ([("cat/1.png", png(0)), ("cat/1.png", png(1)), ("cat/1.cls", b"1")], "has the file 'cat/1.png' twice"),
        ({"a.npy": b"", "b.npy": b""}, r"no images and no videos.* Expected WebDataset shards"),
        ({"a.png": png(0), "b.png": png(0)}, r"no class folders: 2 images.* Expected WebDataset shards"),
    ],
)
def test_tar_that_is_unsafe_or_holds_no_samples_is_refused(files, message, tmp_path):
    path = write_tar(tmp_path / "a.tar", files)
    for look in (open_dataset, describe_source):
        if look is describe_source and "twice" in message:
            continue
        with pytest.raises(ArchiveError, match=message):
            look(str(path), settings=SETTINGS)


def test_tar_that_is_damaged_or_no_tar_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", CATS_AND_DOGS)
    sound = path.read_bytes()
    for content, message in (
        (sound[:600], "is cut short: 600 bytes are there"),
        (sound[:1024] + b"x" * 512 + sound[1536:], r"is a damaged tar \(no header at 1,024"),
        (png(0) * 20, "is no tar: it starts with 89504e47: a PNG image"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n" * 80,
            "Git LFS pointer",
        ),
        (b"", "is no tar"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match=message):
            opened(path)
    with pytest.raises(ArchiveError, match=r"more than 2 entries.*MAX_ARCHIVE_ENTRIES"):
        opened(write_tar(path, CATS_AND_DOGS), Settings(workspace=tmp_path, max_archive_entries=2))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_compressed_tars_are_told_with_the_way_out(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(50))
    for place in (tmp_path, tmp_path / name):
        with pytest.raises(DatasetError, match=rf"'{name}' is a compressed tar.* Unpack it into a .tar"):
            opened(place)


def test_lying_headers_cost_no_memory(tmp_path):
    long = tarfile.TarInfo("x" * 90)
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 50 * 2**20
    content = long.tobuf() + bytes(50 * 2**20)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="has a name of 52,428,800 bytes"):
        list(read_members(io.BytesIO(content), "a.tar", len(content), SETTINGS))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_any_damaged_byte_gives_an_error_of_ours_or_a_dataset(tmp_path):
    path = write_tar(tmp_path / "a.tar", shard([0, 1, 0, 1]), tarfile.PAX_FORMAT)
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(sound), 300, replace=False):
        damaged = bytearray(sound)
        damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            data = opened(path)
            for sample in data.samples:
                data.load(sample)
        except (DatasetError, MediaError):
            continue


def test_tar_beside_the_files_that_came_out_of_it_is_passed_over(tmp_path):
    write_tree(tmp_path, CATS_AND_DOGS)
    write_tar(tmp_path / "pets.tar", shard([0, 1]))
    (tmp_path / "pets.tar.gz").write_bytes(b"")
    assert opened(tmp_path).class_names == ("cat", "dog")


def test_uploaded_shard_is_kept_and_a_bad_one_leaves_nothing_behind(tmp_path):
    settings = Settings(workspace=tmp_path / "home")
    with write_tar(tmp_path / "pets-test.tar", shard(["cat", "dog", "cat"])).open("rb") as stream:
        name = save_upload(stream, settings=settings)
    data = opened(name, settings)
    assert (data.split, data.class_names, len(data.samples)) == ("test", ("cat", "dog"), 3)
    link = [*((name, png(0)) for name in ("0.png", "1.png")), ("0.cls", b"0"), *special(tarfile.SYMTYPE)]
    with write_tar(tmp_path / "bad.tar", link).open("rb") as stream, pytest.raises(ArchiveError, match="is a link"):
        save_upload(stream, settings=settings)
    assert len(list((tmp_path / "home" / "uploads").glob("*.tar"))) == 1
