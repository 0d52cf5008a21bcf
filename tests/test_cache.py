"""The cache: the longest unused goes first, what a process works with stays, and nobody sees half of an entry."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from labelrank import cache
from labelrank.settings import Settings

NOW = time.time()


def settings_of(tmp_path, max_cache_bytes=1):
    return Settings(workspace=tmp_path, max_cache_bytes=max_cache_bytes)


def a_file(tmp_path, name, size_bytes=100, *, unused_s=0.0, kind="features"):
    path = tmp_path / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size_bytes)
    os.utime(path, (NOW - unused_s, NOW - unused_s))
    return path


def a_folder(tmp_path, name, size_bytes=100, *, unused_s=0.0, kind="encoders"):
    path = tmp_path / kind / name
    (path / "inner").mkdir(parents=True)
    (path / "a").write_bytes(b"x" * (size_bytes // 2))
    (path / "inner" / "b").write_bytes(b"x" * (size_bytes - size_bytes // 2))
    os.utime(path, (NOW - unused_s, NOW - unused_s))
    return path


HOLD = """
import sys, time
from pathlib import Path
from labelrank.cache import using
with using(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path, code=HOLD):
    """Another process that holds an entry."""
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_longest_unused_go_until_the_rest_is_within_the_limit(tmp_path):
    old = a_file(tmp_path, "old.parquet", unused_s=300)
    older = a_folder(tmp_path, "older", unused_s=400)
    recent = a_file(tmp_path, "recent.parquet", unused_s=10)
    part = a_folder(tmp_path, "part", kind="parts", unused_s=200)
    settings = settings_of(tmp_path, 399)
    assert cache.evict(settings) == (older,)
    assert cache.evict(settings_of(tmp_path, 200)) == (old,)
    assert cache.evict(settings_of(tmp_path, 200)) == ()
    assert [entry.path for entry in cache.entries(settings)] == [part, recent]
    assert cache.evict(settings_of(tmp_path)) == (part, recent)
    assert not [path for kind in cache.KINDS for path in (tmp_path / kind).glob("*")]


def test_an_entry_is_listed_with_what_it_takes(tmp_path):
    a_folder(tmp_path, "one", 501, unused_s=60)
    (entry,) = cache.entries(settings_of(tmp_path))
    assert (entry.kind, entry.size_bytes, entry.in_use) == ("encoders", 501, False)
    assert entry.used_at == pytest.approx(NOW - 60, abs=1)


def test_what_entries_share_counts_once_and_is_free_once_the_last_of_them_goes(tmp_path):
    parts = a_folder(tmp_path, "work", 600, kind="parts", unused_s=300)
    features = tmp_path / "features" / "all.parquet"
    features.mkdir(parents=True)
    os.link(parts / "a", features / "part-00000-of-00002.parquet")
    os.link(parts / "inner" / "b", features / "part-00001-of-00002.parquet")
    os.utime(features, (NOW - 200, NOW - 200))
    other = a_file(tmp_path, "other.parquet", unused_s=100)
    assert cache.evict(settings_of(tmp_path, 700)) == (), "700 bytes lie there"
    assert cache.evict(settings_of(tmp_path, 699)) == (parts, features), "the parts alone free nothing"
    assert other.exists()


def test_what_an_owner_keeps_counts_once_and_without_what_may_be_removed(tmp_path):
    ada = Settings(workspace=tmp_path, shared=True, max_owner_bytes=1000).of("ada")
    run = a_folder(ada.own, "run", 600, kind="runs", unused_s=300)
    sent = ada.own / "publishing" / "model"
    sent.mkdir(parents=True)
    os.link(run / "a", sent / "a")
    unfinished = a_file(ada.own, ".f.parquet.1.0a1b2c3d.partial", 900)
    assert cache.lasting_bytes(ada) == 300
    assert cache.evict(ada) == () and unfinished.exists()
    a_file(ada.own, "1.zip", 500, kind="uploads")
    assert cache.evict(ada) == (run,)
    assert cache.lasting_bytes(ada) == 800


HOLD_REPOSITORY = HOLD.replace("labelrank.cache import using", "labelrank.hub.storage import hold").replace(
    "with using(Path(sys.argv[1])):", "if hold(Path(sys.argv[1])) is None:"
)


def test_a_shared_server_keeps_so_much_of_the_hub_and_all_that_is_read(tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    names = ("datasets--a--old", "models--a--read", "datasets--a--new")
    old, read, new = (a_folder(tmp_path, name, 400, kind="hub", unused_s=900 - n) for n, name in enumerate(names))
    other = a_folder(tmp_path, ".locks", 400, kind="hub", unused_s=1000)
    mine = Settings(workspace=tmp_path, max_hub_bytes=1)
    assert cache.evict(mine) == (), "on a machine of one's own other programs use it too"
    shared = Settings(workspace=tmp_path, shared=True, max_hub_bytes=1200)
    assert cache.evict(shared.of("ada")) == ()
    with holder(read, HOLD_REPOSITORY):
        assert read.stat().st_mtime > NOW - 10
        assert cache.evict(replace(shared, max_hub_bytes=1199)) == (old,)
        assert cache.evict(replace(shared, max_hub_bytes=1)) == (new,)
    assert cache.evict(replace(shared, max_hub_bytes=1)) == (read,)
    assert other.exists() and [path.name for path in hub.iterdir()] == [".locks"]


@pytest.mark.parametrize("make", [a_file, a_folder])
def test_use_makes_an_entry_the_last_to_go(tmp_path, make):
    used, other = make(tmp_path, "used", unused_s=500), make(tmp_path, "other", unused_s=100)
    with cache.using(used):
        pass
    assert [entry.path for entry in cache.entries(settings_of(tmp_path))] == [other, used]
    assert cache.evict(settings_of(tmp_path, 150)) == (other,)


def test_looking_at_entries_is_no_use(tmp_path):
    paths = [a_folder(tmp_path, str(n), unused_s=200_000 - n) for n in range(3)]
    for _ in range(2):
        assert [entry.path for entry in cache.entries(settings_of(tmp_path))] == paths


def test_use_leaves_the_time_when_features_were_made(tmp_path):
    path = a_file(tmp_path, "f.parquet", unused_s=500)
    with cache.using(path):
        pass
    assert path.stat().st_mtime == pytest.approx(NOW - 500, abs=1)
    assert path.stat().st_atime > NOW - 1


@pytest.mark.parametrize("make", [a_file, a_folder])
def test_what_another_process_holds_stays_whatever_the_limit(tmp_path, make):
    held, free = make(tmp_path, "held", unused_s=500), make(tmp_path, "free", unused_s=100)
    settings = settings_of(tmp_path)
    with holder(held):
        assert {entry.path: entry.in_use for entry in cache.entries(settings)} == {held: True, free: False}
        assert cache.evict(settings) == (free,)
        assert held.exists()


@pytest.mark.parametrize("make", [a_file, a_folder])
def test_a_killed_process_holds_nothing(tmp_path, make):
    path = make(tmp_path, "held")
    with holder(path) as child:
        child.kill()
        child.wait()
        assert cache.evict(settings_of(tmp_path)) == (path,)


def test_what_this_process_holds_stays_until_all_let_go(tmp_path):
    path, settings = a_folder(tmp_path, "held"), settings_of(tmp_path)
    with cache.using(path):
        with cache.using(path):
            assert cache.evict(settings) == ()
        assert cache.evict(settings) == ()
    assert cache.evict(settings) == (path,)


def test_an_error_lets_go(tmp_path):
    path = a_file(tmp_path, "f.parquet")
    with pytest.raises(ZeroDivisionError), cache.using(path):
        _ = 1 / 0
    assert cache.evict(settings_of(tmp_path)) == (path,)


def test_what_is_spared_stays_though_nobody_holds_it(tmp_path):
    spared, other = a_file(tmp_path, "s.parquet", unused_s=500), a_file(tmp_path, "o.parquet")
    assert cache.evict(settings_of(tmp_path), spare=[spared]) == (other,)


def test_within_the_limit_nothing_goes(tmp_path):
    a_file(tmp_path, "f.parquet", 100)
    assert cache.evict(settings_of(tmp_path, 100)) == ()
    assert cache.evict(settings_of(tmp_path / "none")) == ()
    assert cache.entries(settings_of(tmp_path / "none")) == []


def test_a_held_entry_does_not_shield_the_others(tmp_path):
    held = a_file(tmp_path, "held.parquet", 300, unused_s=500)
    older, newer = a_file(tmp_path, "a.parquet", unused_s=200), a_file(tmp_path, "b.parquet", unused_s=100)
    with cache.using(held):
        assert cache.evict(settings_of(tmp_path, 400)) == (older,)
    assert newer.exists()


def test_nothing_but_entries_is_touched(tmp_path):
    kept = [
        a_file(tmp_path, "upload.zip", kind="uploads", unused_s=10**7),
        a_file(tmp_path, "jobs.sqlite", kind=".", unused_s=10**7),
        a_file(tmp_path, "model.bin", kind="hub", unused_s=10**7),
    ]
    outside = a_folder(tmp_path, "outside", kind="elsewhere")
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "link").symlink_to(outside)
    a_file(tmp_path, "f.parquet")
    cache.evict(settings_of(tmp_path))
    assert all(path.exists() for path in kept)
    assert (outside / "a").exists()


def test_an_entry_that_is_not_there_cannot_be_held(tmp_path):
    with pytest.raises(FileNotFoundError), cache.using(tmp_path / "none"):
        pass


def test_leftovers_of_killed_processes_go_when_they_are_a_day_old(tmp_path):
    name = ".f.parquet.123.0a1b2c3d.partial"
    a_folder(tmp_path, "work", kind="parts")
    stale = a_file(tmp_path, name, unused_s=90_000)
    inner = a_file(tmp_path, name, kind="parts/work", unused_s=90_000)
    folder = a_folder(tmp_path, ".key.123.partial", unused_s=90_000)
    half_sent = [a_file(tmp_path, ".incoming-1.partial", kind=kind, unused_s=90_000) for kind in ("uploads", "rankers")]
    half_removed = a_folder(tmp_path, ".key.0a1b2c3d.evicted")
    in_work = a_file(tmp_path, ".g.parquet.124.0a1b2c3d.partial", unused_s=3600)
    settings = settings_of(tmp_path, 10**6)
    assert cache.evict(settings) == ()
    assert not any(path.exists() for path in (stale, inner, folder, half_removed, *half_sent))
    assert in_work.exists()
    assert [entry.path.name for entry in cache.entries(settings)] == ["work"]


def test_a_removal_that_is_interrupted_leaves_no_half_entry(tmp_path, monkeypatch):
    path, settings = a_folder(tmp_path, "key"), settings_of(tmp_path)

    def killed(folder, **_):
        (folder / "a").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache.shutil, "rmtree", killed)
        cache.evict(settings)
    assert not path.exists()
    assert cache.entries(settings) == []
    with pytest.raises(FileNotFoundError), cache.using(path):
        pass
    cache.evict(settings)
    assert list((tmp_path / "encoders").iterdir()) == []


def test_whoever_waits_for_an_entry_never_holds_one_that_is_gone(tmp_path):
    """One thread makes and evicts an entry over and over, others hold it: what is held is whole."""
    path, settings = tmp_path / "encoders" / "key", settings_of(tmp_path)
    ends = time.monotonic() + 1.0
    held, broken = [0], []

    def hold():
        while time.monotonic() < ends:
            try:
                with cache.using(path):
                    held[0] += 1
                    if {file.name for file in path.rglob("*")} != {"a", "inner", "b"}:
                        broken.append(held[0])
            except FileNotFoundError:
                pass
            time.sleep(0.001)  # time for the other thread to remove it

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    evicted = 0
    while time.monotonic() < ends:
        if not path.exists():
            made = a_folder(tmp_path, ".new")
            made.rename(path)
        evicted += len(cache.evict(settings))
    for thread in threads:
        thread.join()
    assert not broken
    assert held[0] > 10
    assert evicted > 10


def test_without_locks_entries_can_be_used_and_none_is_evicted(tmp_path, monkeypatch):
    path = a_file(tmp_path, "f.parquet")

    def no_locks(*_):
        raise OSError(cache.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    with cache.using(path):
        pass
    assert cache.evict(settings_of(tmp_path)) == ()
    assert path.exists()
