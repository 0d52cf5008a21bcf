"""Class folders are read the same way from a folder and from a list of names."""

import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from labelrank.data import SourceOptions, open_dataset
from labelrank.data.dataset import ClipSampling
from labelrank.data.folder import open_folder
from labelrank.data.layout import Fingerprint, read_layout
from labelrank.data.source import SPLIT_WORDS
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings
from tests.helpers.datasets import (
    CATS_AND_DOGS,
    HOSTILE_NAMES,
    SETTINGS,
    number_of,
    numbered_frames,
    png,
    video,
    write_tree,
    write_zip,
)


def layout(*files, folders=()):
    return read_layout(files, folders, source="pets")


def keys(found, split=None):
    return [(p.key, p.class_name) for p in found.places[split]]


def problems(found, split=None):
    return {p.subject: p.reason for p in found.problems[split]}


@pytest.mark.parametrize("root", ["", "pets/", "a/b/pets/", "train.zip/"])
def test_root_folders_are_stripped(root):
    found = layout(f"{root}cat/1.png", f"{root}cat/deep/er/2.JPG", f"{root}dog/1.webp")
    assert found.class_names == ("cat", "dog")
    assert found.splits == ()
    assert keys(found) == [("cat/1.png", "cat"), ("cat/deep/er/2.JPG", "cat"), ("dog/1.webp", "dog")]


@pytest.mark.parametrize("root", ["", "pets/", "test/"])
def test_splits_are_found_under_their_many_names(root):
    found = layout(f"{root}Training/cat/1.png", f"{root}valid/dog/1.png", f"{root}test/dog/1.png")
    assert found.splits == ("train", "val", "test")
    assert found.class_names == ("cat", "dog")
    assert keys(found, "train") == [("Training/cat/1.png", "cat")]
    assert keys(found, "val") == [("valid/dog/1.png", "dog")]


def test_splits_may_be_called_what_they_are_in_tables():
    for word, split in SPLIT_WORDS.items():
        assert layout(f"{word}/cat/1.png", f"{word}/dog/1.png").splits == (split,)


def test_a_single_split_is_a_split_and_not_a_root():
    found = layout("train/cat/1.png", "train/dog/1.png")
    assert found.splits == ("train",)
    assert keys(found, "train")[0] == ("train/cat/1.png", "cat")


def test_a_class_may_be_called_train():
    found = layout("train/1.png", "bus/1.png", "car/1.png")
    assert found.class_names == ("bus", "car", "train")
    assert found.splits == ()
    assert problems(found) == {}


def test_a_split_beside_classes_is_read_as_a_class_and_said_so():
    found = layout("train/cat/1.png", "extra/1.png")
    assert found.class_names == ("extra", "train")
    assert "read as a class, because 'extra' lies beside it" in problems(found)["train"]


def in_each(*folders):
    return [f"{folder}/{name}" for folder in folders for name in ("cat/1.png", "dog/1.png")]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Training_set", "Test_set"),
        ("images_train", "images_eval"),
        ("train-images", "test-images"),
        ("train2017", "test2017"),
        ("TrainSet", "testset"),
        ("my data.train", "test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train/train", "test/test"),
        ("train/images", "test/images"),
        ("pets/archive/train_1", "pets/archive/test_1"),
    ],
)
def test_a_split_may_have_more_in_its_name_or_folders_inside(train, test):
    found = layout(*in_each(train, test), f"{train}/cat/2.png")
    assert found.splits == ("train", "test")
    assert found.class_names == ("cat", "dog")
    assert [name for _, name in keys(found, "train")] == ["cat", "cat", "dog"]
    assert problems(found) == {}


def test_folders_that_name_splits_are_splits_beside_others_when_they_share_a_class():
    found = layout(*in_each("images_train", "images_val", "misc"))
    assert found.splits == ("train", "val")
    assert list(problems(found)) == ["misc"]
    # Neither of these holds a class of the other.
    classes = layout("test_tube/a/1.png", "bullet_train/b/1.png", "cat/1.png")
    assert (classes.splits, classes.class_names) == ((), ("bullet_train", "cat", "test_tube"))
    assert list(problems(classes)) == ["bullet_train", "test_tube"]
    assert "read as a class, because 'bullet_train' lies beside it" in problems(classes)["test_tube"]
    assert problems(layout("test_tube/1.png", "bullet_train/1.png", "cat/1.png")) == {}


def test_of_folders_for_one_split_the_plain_name_or_that_with_classes_is_it():
    fruits = layout(*in_each("Training", "Test"), "test-multiple_fruits/1.png", "test-multiple_fruits/2.png")
    assert (fruits.splits, len(fruits.places["test"])) == (("train", "test"), 2)
    assert "its 2 images are left out" in problems(fruits)["test-multiple_fruits"]
    hidden = layout(*in_each("train", "test", "test_hidden"))
    assert (hidden.splits, list(problems(hidden))) == (("train", "test"), ["test_hidden"])
    scenes = layout(*in_each("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred/1.png")
    assert (scenes.splits, scenes.class_names) == (("train", "test"), ("cat", "dog"))
    assert list(problems(scenes)) == ["seg_pred"]


def test_a_name_that_tells_two_splits_tells_none():
    found = layout(*in_each("train_val", "other"))
    assert found.class_names == ("other", "train_val")
    assert layout(*in_each("my-test-zip")).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (in_each("train2014", "train2017", "val2017"), "two folders for the split train: 'train2014' and 'train2017'"),
        (["train_images/1.png", "test_images/1.png"], "images lie directly in 'test_images', 'train_images'"),
    ],
)
def test_folders_that_name_splits_and_cannot_be_read_are_told(folders, message):
    with pytest.raises(DatasetError, match=message):
        layout(*folders)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("images_train", "images_test"), ("Training", "valid")])
def test_classes_may_hold_the_splits(train, test):
    files = [f"pets/{name}/{split}/{n}.png" for name in ("cat", "dog") for split in (train, test) for n in range(2)]
    found = layout(*files, "pets/notes.txt", "pets/cat/notes.txt")
    assert found.splits in (("train", "test"), ("train", "val"))
    assert found.class_names == ("cat", "dog")
    assert keys(found, "train") == [(f"{name}/{train}/{n}.png", name) for name in ("cat", "dog") for n in range(2)]
    assert list(problems(found)) == ["cat/notes.txt", "notes.txt"]


def test_splits_in_some_classes_alone_are_told():
    found = layout("cat/train/1.png", "cat/test/2.png", "dog/1.png", "eel/parts/1.png")
    assert (found.splits, found.class_names) == ((), ("cat", "dog", "eel"))
    assert list(problems(found)) == ["cat"]
    assert "one class with all that 'test' and 'train' in it hold" in problems(found)["cat"]


@pytest.mark.parametrize("folder", ["images/train", "all/images_train", "x/y/Test"])
def test_splits_deeper_in_classes_are_told(folder):
    other = folder.replace("train", "test").replace("Test", "valid")
    found = layout(*(f"{name}/{inner}/1.png" for name in ("cat", "dog") for inner in (folder, other)))
    assert (found.splits, found.class_names, list(problems(found))) == ((), ("cat", "dog"), ["cat", "dog"])
    assert f"{folder.split('/')[-1]!r}" in problems(found)["cat"]


@pytest.mark.parametrize(
    "tops", [("tr", "te"), ("colour", "grey", "segmented"), ("学習", "テスト"), ("fold1", "fold2")]
)
def test_classes_that_hold_the_same_folders_are_told(tops):
    files = [f"pets/{top}/{name}/{n}.png" for top in tops for name in ("cat", "dog") for n in range(2)]
    first, second = sorted(tops)[:2]
    for more in ([], ["pets/odd/1.png"]):
        assert problems(layout(*files, *more))[first].startswith(
            f"The folder is read as a class, as {second!r} is, though all such folders hold 'cat', 'dog'."
        )


def test_folds_of_splits_are_no_classes_of_splits():
    files = [f"fold{n}/{split}/{name}/1.png" for n in (1, 2) for split in ("train", "test") for name in ("cat", "dog")]
    found = layout(*files)
    assert (found.class_names, found.splits) == (("fold1", "fold2"), ())
    reasons = [p.reason for p in found.problems[None]]
    assert any("one class with all that 'test' and 'train' in it hold" in reason for reason in reasons)
    assert any("though all such folders hold 'cat', 'dog'" in reason for reason in reasons)
    parts = [f"{name}/train/{part}/1.png" for name in ("cat", "dog") for part in ("001", "002")]
    assert layout(*parts).splits == ("train",)


def test_folders_of_frames_or_parts_in_classes_are_nothing_to_tell():
    for folders in (["v1", "v2"], ["001", "002"], ["front"]):
        files = [f"{name}/{folder}/1.png" for name in ("cat", "dog") for folder in folders]
        assert not problems(layout(*files, "cat/tail/1.png"))


@pytest.mark.parametrize("deep", ["a/" * 65 + "1.png", "a" * 4097 + "/1.png"])
def test_a_path_that_is_too_deep_or_too_long_is_refused(deep):
    for listing in ({"files": ["cat/1.png", deep]}, {"files": ["cat/1.png"], "folders": [deep]}):
        with pytest.raises(DatasetError, match=r"'pets' has a path .*; at most .* accepted. It begins with 'a"):
            read_layout(**listing, source="pets")
    assert layout("b/" * 63 + "cat/1.png", "b/" * 63 + "dog/1.png").class_names == ("cat", "dog")


def test_memory_for_deep_paths_grows_with_their_length_alone():
    paths = [f"{c}/{'/'.join([f'{n:060}'] * 60)}/1.png" for c in "ab" for n in range(200)]
    tracemalloc.start()
    layout(*paths)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * sum(map(len, paths))


def test_folders_beside_splits_are_left_out_and_counted():
    found = layout("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "extra/1.png", "extra/cat/2.png")
    assert found.splits == ("train", "test")
    assert list(problems(found)) == ["extra"]
    assert "its 2 images are left out" in problems(found)["extra"]


def test_what_is_no_picture_of_a_class_is_listed():
    found = layout(
        *("root/cat/1.png", "root/dog/1.png", "root/dog/notes.txt", "root/loose.png", "cover.jpg", "README"),
        folders=["root", "root/cat", "root/fox", "root/fox/cubs"],
    )
    assert found.class_names == ("cat", "dog")
    assert list(problems(found)) == ["fox", "README", "cover.jpg", "dog/notes.txt", "loose.png"]
    assert "holds no images and is left out. Add images" in problems(found)["fox"]
    assert "no ending such as .jpg, .png or .webp" in problems(found)["dog/notes.txt"]
    assert "Move it into the folder of its class" in problems(found)["loose.png"]


def test_problems_of_a_split_stay_in_it():
    found = layout(*("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "train/loose.png", "test/cat/a.txt"))
    assert list(problems(found, "train")) == ["train/loose.png"]
    assert list(problems(found, "test")) == ["test/cat/a.txt"]
    assert problems(found) == {}


def test_most_files_decide_between_pictures_and_videos():
    videos = layout("cat/1.mp4", "cat/2.AVI", "dog/1.webm", "dog/2.png", "dog/notes.txt", "fox/1.png")
    assert videos.media == "clip"
    assert keys(videos) == [("cat/1.mp4", "cat"), ("cat/2.AVI", "cat"), ("dog/1.webm", "dog")]
    reasons = problems(videos)
    assert list(reasons) == ["fox", "dog/2.png", "dog/notes.txt"]
    assert reasons["fox"].startswith("The class folder holds no videos and is left out. Add videos")
    assert reasons["dog/2.png"] == (
        "2 images are left out, for most files here are videos and a dataset holds one kind. "
        "Put images into a dataset of their own, or remove them."
    )
    assert reasons["dog/notes.txt"].startswith("Not a video: its name has no ending such as .mp4")
    pictures = layout("cat/1.mp4", "cat/2.png", "dog/1.png", "dog/loose.mov")
    assert pictures.media == "image"
    assert problems(pictures)["cat/1.mp4"].startswith("2 videos are left out, for most files here are images")
    assert layout("cat/1.mp4", "cat/1.png", "dog/1.mp4", "dog/1.png").media == "image"


def test_files_of_the_other_kind_are_counted_in_their_split():
    found = layout("train/cat/1.mp4", "train/dog/1.mp4", "test/cat/1.mp4", "test/cat/1.jpg", "cover.png")
    assert problems(found, "test")["test/cat/1.jpg"].startswith("1 image is left out")
    assert problems(found)["cover.png"].startswith("1 image is left out")


def test_words_follow_the_kind_of_the_files():
    with pytest.raises(
        DatasetError, match=r"no class folders: 1 video, such as '1\.mp4', in no folder.*each video into"
    ):
        layout("1.mp4")
    with pytest.raises(DatasetError, match=r"videos lie directly in 'test', 'train'"):
        layout("train/1.mp4", "test/1.mp4")
    with pytest.raises(DatasetError, match=r"only one class, 'cat'.*without videos: 'dog'.*Add a folder of videos"):
        layout("x/cat/1.mp4", "x/dog/a.txt")
    found = layout("train/cat/1.mp4", "train/dog/1.mp4", "test/cat/1.mp4", "loose.mp4", "extra/1.mp4")
    assert problems(found)["loose.mp4"] == "The video lies in no class folder. Move it into the folder of its class."
    assert "its 1 video is left out" in problems(found)["extra"]


def test_a_hidden_class_folder_is_named():
    files = (
        "lang/c/1.png",
        "lang/go/1.png",
        "lang/.net/1.png",
        "lang/.net/2.png",
        "lang/.net/.x.png",
        "lang/.idea/a.xml",
    )
    assert problems(layout(*files)) == {
        "lang/.net": "The folder is hidden, for its name starts with a dot; 2 of its files are left out. "
        "Give it another name, or remove it."
    }
    found = layout("train/c/1.png", "train/go/1.png", "test/c/1.png", "train/.net/1.png")
    assert list(problems(found)) == ["train/.net"]


def test_a_hidden_class_folder_of_a_folder_is_named_and_not_a_link_to_one(tmp_path):
    root = write_tree(
        tmp_path / "pets", CATS_AND_DOGS | {".net/1.png": png(4), ".git/1.png": png(5), ".idea/x/1.png": b""}
    )
    (root / ".linked").symlink_to(root / ".net")
    dataset = open_folder(root, split=None, settings=SETTINGS)
    assert [p.subject for p in dataset.problems] == [".net"]
    assert len(dataset.samples) == 3


def test_clutter_of_file_managers_is_passed_over():
    clutter = (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "dog/desktop.ini", "__MACOSX/cat/._1.png", ".git/x.png")
    found = layout("cat/1.png", "dog/1.png", *clutter, folders=[".git", "__MACOSX", "__MACOSX/cat"])
    assert keys(found) == [("cat/1.png", "cat"), ("dog/1.png", "dog")]
    assert problems(found) == {}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [],
            r"'pets' holds no images and no videos \(no files\)\. Expected .*cat/1\.png.*images are files "
            r"such as \.jpg, \.png or \.webp, videos such as \.mp4",
        ),
        (["cat/1.txt"], r"holds no images and no videos \(1 file, the first is 'cat/1\.txt'\)"),
        (["1.png", "2.png"], r"no class folders: 2 images, such as '1\.png', in no folder.*named after its"),
        (
            ["train/1.png", "test/1.png"],
            r"no class folders: images lie directly in 'test', 'train'.*train/cat/1\.png",
        ),
        (["cat/1.png"], r"only one class, 'cat'; a ranking needs at least two\. Add a folder of images"),
        (["x/cat/1.png", "x/dog/a.txt"], r"only one class, 'cat'.*Folders without images: 'dog'\."),
        (["train/cat/1.png", "val/cat/1.png"], r"only one class, 'cat'"),
        (
            ["Cat/1.png", "cat/1.png", "dog/1.png"],
            r"only in the case or form of letters: 'Cat' and 'cat'\. Merge or rename",
        ),
        (["train/Straße/1.png", "val/STRASSE/1.png"], r"'STRASSE' \(.*\) and 'Straße' \("),
        (
            ["val/cat/1.png", "valid/dog/1.png", "train/cat/1.png"],
            r"two folders for the split val: 'val' and 'valid'\. Merge them",
        ),
    ],
)
def test_unusable_layouts_say_what_is_wrong(files, message):
    with pytest.raises(DatasetError, match=message):
        layout(*files)


def test_layout_ignores_the_order_of_names():
    files = ["train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "train/x.png", "extra/1.png", "README"]
    shuffled = files.copy()
    random.Random(1).shuffle(shuffled)
    assert layout(*shuffled) == layout(*files)


def test_samples_are_sorted_by_label_then_key(tmp_path):
    write_tree(tmp_path, {"b/1.png": png(), "a b/2.png": png(), "a b/1.png": png(), "a/z.png": png()})
    dataset = open_folder(tmp_path, split=None, settings=SETTINGS)
    assert dataset.class_names == ("a", "a b", "b")
    assert [(s.label, s.key) for s in dataset.samples] == [
        (0, "a/z.png"),
        (1, "a b/1.png"),
        (1, "a b/2.png"),
        (2, "b/1.png"),
    ]
    assert dataset.class_counts.tolist() == [1, 2, 1]
    assert dataset.load(dataset.samples[0]).shape == (3, 4, 3)


def test_hostile_class_names_come_through(tmp_path):
    files = {f"{name}/1.png": png(i) for i, name in enumerate(HOSTILE_NAMES)}
    dataset = open_folder(write_tree(tmp_path, files), split=None, settings=SETTINGS)
    assert dataset.class_names == tuple(sorted(HOSTILE_NAMES))
    for sample in dataset.samples:
        assert sample.key == f"{dataset.class_names[sample.label]}/1.png"
        assert dataset.load(sample).shape == (3, 4, 3)


@pytest.fixture
def splits(tmp_path):
    return write_tree(
        tmp_path / "pets",
        {"train/cat/1.png": png(1), "train/dog/1.png": png(2), "validation/cat/1.png": png(3), "train/emu/": b""},
    )


def test_train_is_read_when_there_are_splits(splits):
    dataset = open_folder(splits, split=None, settings=SETTINGS)
    assert (dataset.split, dataset.splits) == ("train", ("train", "val"))
    assert [p.subject for p in dataset.problems] == ["emu"]


def test_labels_are_the_same_in_every_split(splits):
    for name in ("val", "validation", "VAL"):
        dataset = open_folder(splits, split=name, settings=SETTINGS)
        assert dataset.split == "val"
        assert dataset.class_names == ("cat", "dog")
        assert dataset.class_counts.tolist() == [1, 0]
        reasons = {p.subject: p.reason for p in dataset.problems}
        assert "no usable image in the split val; a ranking needs some of every class" in reasons["dog"]


def test_a_split_that_is_not_there_lists_those_that_are(splits, tmp_path):
    with pytest.raises(DatasetError, match=r"'pets' has no split 'test'; it has train, val\. Ask for one of these"):
        open_folder(splits, split="test", settings=SETTINGS)
    flat = write_tree(tmp_path / "flat", CATS_AND_DOGS)
    with pytest.raises(DatasetError, match=r"'flat' has no splits, but split 'test' was asked for\. Leave the split"):
        open_folder(flat, split="test", settings=SETTINGS)
    no_train = write_tree(tmp_path / "late", {"val/cat/1.png": png(1), "test/dog/1.png": png(2)})
    with pytest.raises(DatasetError, match=r"no train split, which is the default; it has val, test"):
        open_folder(no_train, split=None, settings=SETTINGS)


def test_digest_follows_names_and_content_only(tmp_path):
    first = open_folder(write_tree(tmp_path / "a", CATS_AND_DOGS), split=None, settings=SETTINGS)
    with_clutter = CATS_AND_DOGS | {"cat/Thumbs.db": b"x", "notes.txt": b"x"}
    same = open_folder(write_tree(tmp_path / "b", with_clutter), split=None, settings=SETTINGS)
    assert same.digest == first.digest
    changes = [
        CATS_AND_DOGS | {"cat/1.png": png(9)},
        CATS_AND_DOGS | {"cat/3.png": png(1)},
        {path.replace("dog", "cow"): content for path, content in CATS_AND_DOGS.items()},
    ]
    for number, files in enumerate(changes):
        changed = open_folder(write_tree(tmp_path / str(number), files), split=None, settings=SETTINGS)
        assert changed.digest != first.digest


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    secret = write_tree(tmp_path / "outside", {"secret.png": png(7)})
    root = write_tree(tmp_path / "pets", CATS_AND_DOGS)
    (root / "cat" / "out.png").symlink_to(secret / "secret.png")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "linked").symlink_to(secret)
    (root / "loop").symlink_to(root)
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "1.png")
    dataset = open_folder(root, split=None, settings=SETTINGS)
    assert [s.key for s in dataset.samples] == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/inside.png"]
    reasons = {p.subject: p.reason for p in dataset.problems}
    assert reasons == {
        "cat/out.png": f"The link leads out of the folder, to '{secret}/secret.png'; not followed. Copy the files "
        "instead, or give a folder that holds both.",
        "dog/gone.png": f"The link leads to '{root}/nowhere.png', where nothing is. Mend or remove it.",
        "linked": f"The link leads out of the folder, to '{secret}'; not followed. Copy the files instead, or give a "
        "folder that holds both.",
        "loop": "The link leads to a folder that it lies in; not followed. Remove it.",
    }


def test_a_folder_of_nothing_but_links_out_of_it_says_so(tmp_path):
    real = write_tree(tmp_path / "real", CATS_AND_DOGS)
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(real / name)
    with pytest.raises(DatasetError, match=r"2 left out, such as 'cat': The link leads out of the folder, to") as error:
        open_folder(tmp_path / "links", split=None, settings=SETTINGS)
    assert "Expected" not in str(error.value)
    assert len(open_folder(tmp_path, split=None, settings=SETTINGS).samples) == 6


def test_files_that_git_writes_in_place_of_links_are_told(tmp_path):
    root = write_tree(
        tmp_path / "pets", CATS_AND_DOGS | {"cat/3.png": b"../dog/1.png", "cat/4.png": b"../dog/none.png"}
    )
    reasons = {p.subject: p.reason for p in open_folder(root, split=None, settings=SETTINGS).problems}
    assert list(reasons) == ["cat/3.png"]
    assert reasons["cat/3.png"].startswith("'cat/3.png' holds the path '../dog/1.png' alone: git wrote it in place of")
    flat = write_tree(tmp_path / "flat", {"cat": b"../pets/cat", "dog": b"../pets/dog\n"})
    why = r"no videos; 2 left out, such as 'cat': The file holds the path '\.\./pets/cat' alone: .* copy the files\.$"
    with pytest.raises(DatasetError, match=why):
        open_folder(flat, split=None, settings=SETTINGS)
    write_tree(flat, {"note": b"hello"})
    with pytest.raises(DatasetError, match=r"2 left out, such as 'cat': .* Expected one folder"):
        open_folder(flat, split=None, settings=SETTINGS)


def test_links_inside_the_folder_are_read_as_what_they_lead_to(tmp_path):
    root = write_tree(tmp_path / "pets", {f"pool/{name}": content for name, content in CATS_AND_DOGS.items()})
    for split in ("train", "test"):
        (root / split).mkdir()
        (root / split / "cat").symlink_to("../pool/cat")
        (root / split / "dog").mkdir()
        (root / split / "dog" / "1.png").symlink_to("../../pool/dog/1.png")
    copied = write_tree(
        tmp_path / "copy",
        {f"{split}/{name}": data for split in ("train", "test") for name, data in CATS_AND_DOGS.items()},
    )
    linked, copy = (open_folder(place, split="test", settings=SETTINGS) for place in (root, copied))
    assert (linked.digest, linked.samples) == (copy.digest, copy.samples)
    np.testing.assert_array_equal(linked.load(linked.samples[2]), copy.load(copy.samples[2]))
    assert [p.subject for p in linked.problems] == ["pool"]


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_snapshot_of_the_hubs_cache_is_read(inside, tmp_path):
    repo = tmp_path / "datasets--me--pets"
    snapshot = repo / "snapshots" / "0123abcd"
    (repo / "blobs").mkdir(parents=True)
    for n, (name, content) in enumerate(CATS_AND_DOGS.items()):
        (repo / "blobs" / f"hash{n}").write_bytes(content)
        link = snapshot / "train" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../../blobs/hash{n}")
    (snapshot / "train" / "dog" / "ref.png").symlink_to(tmp_path / "datasets--me--pets" / "snapshots")
    dataset = open_folder(snapshot / inside, split=None, settings=SETTINGS)
    assert len(dataset.samples) == 3
    assert dataset.load(dataset.samples[0]).shape == (3, 4, 3)
    assert [p.reason.split(",")[0] for p in dataset.problems] == ["The link leads out of the folder"]
    copied = write_tree(tmp_path / "copy", {f"train/{name}": data for name, data in CATS_AND_DOGS.items()})
    assert dataset.digest == open_folder(copied / inside, split=None, settings=SETTINGS).digest


def test_folders_that_link_to_each_other_are_read_to_an_end(tmp_path):
    root = write_tree(tmp_path / "pets", CATS_AND_DOGS)
    (root / "cat" / "friend").symlink_to(root / "dog")
    (root / "dog" / "friend").symlink_to(root / "cat")
    dataset = open_folder(root, split=None, settings=SETTINGS)
    assert {s.key for s in dataset.samples} == {
        *("cat/1.png", "cat/2.png", "cat/friend/1.png", "dog/1.png", "dog/friend/1.png", "dog/friend/2.png"),
    }
    assert {p.subject for p in dataset.problems} == {"cat/friend/friend", "dog/friend/friend"}
    (root / "cat" / "chase").symlink_to("tail")
    (root / "cat" / "tail").symlink_to("chase")
    reasons = {p.subject: p.reason for p in open_folder(root, split=None, settings=SETTINGS).problems}
    assert reasons["cat/chase"] == "The link leads to 'tail', where nothing is. Mend or remove it."
    for n in range(12):
        (root / f"level{n}").mkdir()
        (root / f"level{n}" / "next").symlink_to(root / f"level{n + 1}")
    (root / "level12").mkdir()
    reasons = {p.reason for p in open_folder(root, split=None, settings=SETTINGS).problems}
    assert "The link is one of more than 8 in a row; not followed. Link to the files themselves." in reasons


def test_tables_that_are_links_to_nothing_are_told(tmp_path):
    root = write_tree(tmp_path / "snapshot", {"README.md": b"A table."})
    (root / "train-0.parquet").symlink_to("../blobs/0123")
    with pytest.raises(
        DatasetError, match=r"1 left out, such as 'train-0\.parquet': The link leads to '\.\./blobs/0123'"
    ):
        open_dataset(str(root), settings=SETTINGS)
    write_tree(root, {"train-1.parquet": b""})
    with pytest.raises(
        DatasetError, match=r"'train-0\.parquet' is a link to '\.\./blobs/0123', where nothing is\. Fetch"
    ):
        open_dataset(str(root), settings=SETTINGS)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_git_lfs_pointers_among_the_files_are_told_at_opening(kind, tmp_path):
    def opened(name, files):
        if kind == "folder":
            return open_dataset(str(write_tree(tmp_path / name, files)), settings=SETTINGS)
        return open_dataset(str(write_zip(tmp_path / f"{name}.zip", files)), settings=SETTINGS)

    dataset = opened("some", CATS_AND_DOGS | {"cat/3.png": POINTER})
    assert [(p.subject, p.reason) for p in dataset.problems] == [
        (
            "cat/3.png",
            "'cat/3.png' is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository or "
            "download it.",
        )
    ]
    assert len(dataset.samples) == 3
    for ending in ("png", "mp4"):
        with pytest.raises(DatasetError, match=rf"can be used\. 'cat/1\.{ending}' is a Git LFS pointer.*git lfs pull"):
            opened(ending, {f"{name}/1.{ending}": POINTER for name in ("cat", "dog")})


def test_a_git_lfs_pointer_in_place_of_a_zip_is_told(tmp_path):
    (tmp_path / "pets.zip").write_bytes(POINTER)
    with pytest.raises(
        DatasetError, match=r"^'pets\.zip' is a Git LFS pointer, not the file itself\. Run `git lfs pull`"
    ):
        open_dataset(str(tmp_path / "pets.zip"), settings=SETTINGS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_not_utf8_are_listed_as_text(tmp_path):
    root = write_tree(tmp_path / "pets", CATS_AND_DOGS)
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / "cat" / os.fsdecode(b"\xff.png")).write_bytes(png())
    dataset = open_folder(root, split=None, settings=SETTINGS)
    assert dataset.class_names == ("cat", "dog")
    assert {p.subject for p in dataset.problems} == {"caf\\xe9", "cat/\\xff.png"}
    assert all("not valid UTF-8" in p.reason and "Rename it" in p.reason for p in dataset.problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_special_files_are_not_opened(tmp_path):
    root = write_tree(tmp_path, CATS_AND_DOGS)
    os.mkfifo(root / "cat" / "pipe.png")
    assert [p.subject for p in open_folder(root, split=None, settings=SETTINGS).problems] == ["cat/pipe.png"]


def test_bad_pictures_are_found_when_they_are_loaded(tmp_path):
    files = CATS_AND_DOGS | {"cat/bad.png": png()[:20], "dog/empty.png": b""}
    dataset = open_folder(write_tree(tmp_path, files), split=None, settings=SETTINGS)
    (tmp_path / "dog" / "1.png").unlink()
    outcome = {}
    for sample in dataset.samples:
        try:
            outcome[sample.key] = dataset.load(sample).shape
        except MediaError as error:
            outcome[sample.key] = str(error)
    assert outcome["cat/1.png"] == outcome["cat/2.png"] == (3, 4, 3)
    assert "'cat/bad.png' looks like a PNG image but is damaged" in outcome["cat/bad.png"]
    assert "'dog/empty.png' is empty (0 bytes)" in outcome["dog/empty.png"]
    assert "'dog/1.png' cannot be read (No such file" in outcome["dog/1.png"]


def test_a_picture_over_the_size_limit_is_listed_and_the_rest_kept(tmp_path):
    root = write_tree(tmp_path / "pets", CATS_AND_DOGS | {"cat/big.png": bytes(5000)})
    dataset = open_folder(root, split=None, settings=Settings(workspace=tmp_path, max_media_bytes=4096))
    assert len(dataset.samples) == 3
    assert [p.subject for p in dataset.problems] == ["cat/big.png"]
    assert "has 5,000 bytes; at most 4,096 are accepted" in dataset.problems[0].reason
    with pytest.raises(DatasetError, match=r"'pets' has no image that can be used\. 'cat/1\.png' has .* bytes"):
        open_folder(root, split=None, settings=Settings(workspace=tmp_path, max_media_bytes=1))


VIDEOS = {f"{name}/1.mp4": video(numbered_frames(20)[start:]) for start, name in enumerate(("jump", "run"))}
TWO_FRAMES = ClipSampling(frames=2, stride=5)


def test_videos_of_a_folder_give_clips_and_their_first_frame(tmp_path):
    root = write_tree(tmp_path / "acts", VIDEOS | {"jump/bad.avi": b"RIFF", "run/cover.png": png()})
    dataset = open_folder(root, split=None, settings=SETTINGS)
    assert (dataset.media, dataset.stride) == ("clip", 4)
    assert [s.key for s in dataset.samples] == ["jump/1.mp4", "jump/bad.avi", "run/1.mp4"]
    assert [p.subject for p in dataset.problems] == ["run/cover.png"]
    for label, sample in enumerate((dataset.samples[0], dataset.samples[2])):
        assert sample.label == label
        assert [number_of(f) for f in dataset.load_clips(sample, TWO_FRAMES)[0]] == [label, label + 5]
        assert number_of(dataset.load(sample)) == label
    with pytest.raises(MediaError, match=r"'jump/bad\.avi' starts with 52494646; expected a video"):
        dataset.load_clips(dataset.samples[1], TWO_FRAMES)


def test_a_video_over_its_own_limit_is_listed(tmp_path):
    root = write_tree(tmp_path / "acts", VIDEOS | {"run/big.mp4": bytes(60_000)})
    settings = Settings(workspace=tmp_path, max_video_bytes=50_000, max_media_bytes=1)
    dataset = open_folder(root, split=None, settings=settings)
    assert [s.key for s in dataset.samples] == ["jump/1.mp4", "run/1.mp4"]
    assert [p.subject for p in dataset.problems] == ["run/big.mp4"]
    assert "60,000 bytes; at most 50,000 are accepted for one video" in dataset.problems[0].reason


def test_a_layout_can_be_told_apart_by_names_of_content_and_fetched_by_path():
    found = layout("train/cat/1.png", "train/dog/1.png", "train/dog/2.png")
    fetched = []

    def dataset(**names):
        return found.to_dataset(
            id="pets",
            split=None,
            fingerprint=lambda path, key: Fingerprint(1, names.get(path[6:9], "same")),
            load=lambda path, key: np.zeros((1, 1, 3), np.uint8),
            fetch=lambda paths, on_progress, should_stop: fetched.extend(paths),
            settings=SETTINGS,
        )

    assert dataset().digest == dataset().digest != dataset(dog="other").digest
    dataset().fetch(dataset().samples[1:], None, None)
    assert fetched == ["train/dog/1.png", "train/dog/2.png"]


def test_problems_are_listed_up_to_a_number(tmp_path):
    found = layout("cat/1.png", "dog/1.png", *(f"cat/{n}.txt" for n in range(1500)), folders=["fox"])
    dataset = found.to_dataset(
        id="pets",
        split=None,
        fingerprint=lambda path, key: Fingerprint(1, 2),
        load=lambda path, key: np.zeros((1, 1, 3), np.uint8),
        settings=SETTINGS,
    )
    assert len(dataset.problems) == 1001
    assert dataset.problems[0].subject == "fox"
    assert dataset.problems[-1].reason.startswith("501 more problems")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/pets.zip", "is an address; expected digits, a folder .*Download it"),
        ("no/such/pets", "No file or folder 'no/such/pets' exists; expected digits"),
        ("pets.zip", "No file or folder 'pets.zip' exists"),
        ("digit", "No dataset 'digit' is known; expected digits"),
        ("", "name is empty; expected digits"),
        ("upload:../../etc/passwd", "does not name an upload; expected upload: and 64 hexadecimal digits"),
        ("upload:" + "A" * 64, "does not name an upload"),
        ("upload:" + "a" * 64 + "\n", "does not name an upload"),
        ("upload:" + "a" * 64, "not in this workspace any more. Upload the zip again"),
    ],
)
def test_names_that_lead_nowhere_say_what_data_can_be(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=message):
        open_dataset(name, settings=Settings(workspace=tmp_path))


def test_open_dataset_finds_folders_and_the_embedded_digits(tmp_path, monkeypatch):
    write_tree(tmp_path / "digits", CATS_AND_DOGS)
    monkeypatch.chdir(tmp_path)
    assert open_dataset("./digits", settings=SETTINGS).class_names == ("cat", "dog")
    assert open_dataset(str(tmp_path / "digits"), settings=SETTINGS).id == "digits"
    embedded = open_dataset("digits", settings=SETTINGS)
    assert (len(embedded.class_names), embedded.split) == (10, "train")
    assert open_dataset("digits", SourceOptions(split="test"), settings=SETTINGS).split == "test"


def test_opening_data_imports_no_heavy_library():
    code = (
        "import sys, labelrank.data; assert not {'PIL', 'pyarrow'} & sys.modules.keys(); import labelrank.data.folder; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "PIL" in loaded
    assert not {"keras", "tensorflow", "torch", "openvino", "streamlit", "sklearn", "pandas"} & set(loaded)


def test_folder_can_be_given_by_a_link_to_it(tmp_path):
    write_tree(tmp_path / "pets", CATS_AND_DOGS)
    (tmp_path / "alias").symlink_to(tmp_path / "pets")
    assert open_folder(Path(tmp_path / "alias"), split=None, settings=SETTINGS).problems == ()
