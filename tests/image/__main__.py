"""Build the image of the Dockerfile without a Docker engine, start it as one does, and see that it works.

`make image`, as root on Debian with a network; it takes ten minutes, 10 GB in build/image, and these packages:
buildah debootstrap uidmap. In place of python:3.11-slim, which only a registry has, the image is
built on Debian 12 with its own Python 3.11. The container has a root that it cannot write, a workspace and an empty
/tmp; it runs as the image says. Exits with an error at the first thing that is not as it should be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

from labelrank.jobs.store import JobStore
from labelrank.settings import Settings
from tests.helpers.processes import wait_for

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "image"
BASE, IMAGE = "docker.io/library/python:3.11-slim", "localhost/labelrank:latest"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
LIKE_THE_BASE = "ln -s python3 /usr/bin/python && rm /usr/lib/python3.11/EXTERNALLY-MANAGED"
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# A network may have certificates of its own.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
URL = "http://127.0.0.1:8501"
DOCKER_S = 10
MOUNT = """
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs "$root/tmp"
mount --bind "$workspace" "$root$inside"
run='cd "$folder" && exec setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs --bounding-set=-all "$@"'
exec chroot "$root" sh -c "$run" sh "$@"
"""
# Also where the root can be written, as it can be unless one asks Docker for --read-only.
CHANGEABLE = ["find", "/home/user/app", "/usr", "(", "-user", "user", "-o", "-perm", "-o+w", ")", "!", "-type", "l"]
NEW_JOB = """
from labelrank.jobs.store import JobStore
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from dataclasses import asdict
request = Request(dataset="digits", checkpoint="mae-tiny-digits", max_per_class=None, precision="float32")
print(JobStore.for_settings(Settings.from_env()).create("extract", asdict(request), "somebody", "digits").id)
"""
ORPHAN = "(sleep 0.2 &); sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status; exit 0"


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
    return done.stdout.strip()


def buildah(*arguments: str, **options: Any) -> str:
    places = (f"--root={PLACE / 'storage'}", f"--runroot={PLACE / 'run'}", "--storage-driver=overlay")
    return run("buildah", *places, *arguments, **options)


def images() -> dict[str, Any]:
    return {name: one for one in json.loads(buildah("images", "--json")) for name in one.get("names") or ()}


def build_base() -> None:
    """Make the stand-in of the base image, once."""
    if BASE in images():
        return
    if not (PLACE / "debian").exists():
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(PLACE / "debootstrap"))
        (PLACE / "debootstrap").rename(PLACE / "debian")
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, str(PLACE / "debian"), "/")
    buildah("config", "--env", f"PATH={PATH}", container)
    buildah("run", "--isolation=chroot", container, "--", "sh", "-c", LIKE_THE_BASE)
    buildah("commit", "--quiet", "--rm", "--format=docker", container, BASE)


def build() -> dict[str, Any]:
    """Build the image, with the layers of an earlier time, and return its configuration."""
    options = ("--layers", "--pull-never", "--isolation=chroot", "--format=docker")
    buildah("bud", *options, f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--tag={IMAGE}", str(ROOT))
    config: dict[str, Any] = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    return config


class Container:
    """A running container: its processes see nothing but the image, a workspace and an empty /tmp.

    Args:
        config: Configuration of the image.
        root: Folder of the files of the image.
        workspace: Folder that is mounted as the workspace.
    """

    def __init__(self, config: dict[str, Any], root: str, workspace: Path) -> None:
        self._env = ["env", "--ignore-environment", *config["Env"], "HOME=/home/user"]
        places = {
            "root": root,
            "workspace": str(workspace),
            "inside": next(value.split("=", 1)[1] for value in config["Env"] if value.startswith("LABELRANK_HOME=")),
            "folder": config["WorkingDir"],
            "user": config["User"],
        }
        command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "sh", "-ec", MOUNT, "sh"]
        with (PLACE / "app.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self._env, *config["Entrypoint"], *config["Cmd"]],
                env=os.environ | places,
                stdout=log,
                stderr=log,
            )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self._first = wait_for(children.read_text).split()[0]

    def run(self, *command: str, **options: Any) -> str:
        """Run a command in it, as its user, and return what it prints."""
        spaces = ("--mount", "--pid", "--ipc", "--uts", "--root", "--wd", "--setuid=1000", "--setgid=1000")
        return run("nsenter", f"--target={self._first}", *spaces, *self._env, *command, **options)

    def signal(self, number: int) -> None:
        """Send a signal to its first process, with which all others end."""
        os.kill(int(self._first), number)


def forget(root: str) -> None:
    """Take the files of the image out of the page cache, as they are not there after a machine was started."""
    os.sync()
    for path in Path(root).rglob("*"):
        if path.is_file() and not path.is_symlink():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


@contextlib.contextmanager
def started(config: dict[str, Any], workspace: Path) -> Iterator[Container]:
    """Start a container of the image."""
    layer = buildah("from", "--pull-never", IMAGE)
    try:
        root = buildah("mount", layer)
        forget(root)
        container = Container(config, root, workspace)
        try:
            yield container
        finally:
            if container.process.poll() is None:
                container.signal(signal.SIGKILL)
                container.process.wait()
    finally:
        buildah("rm", layer)


def answers(path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(URL + path, timeout=1) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def parts(workspace: Path) -> int:
    """Return how many parts of features are finished; not from its jobs, whose files would then be of this user."""
    return len(list(workspace.glob("**/parts/*/*.parquet")))


def check(workspace: Path, config: dict[str, Any]) -> None:
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]).new_page()
        begin = time.monotonic()
        with started(config, workspace) as container:
            wait_for(lambda: answers("/_stcore/health") == b"ok", 120)
            print(f"From start to health: {time.monotonic() - begin:.1f} s")
            page.goto(URL)
            expect(page.get_by_text("palm tree, pine tree, oak tree")).to_be_visible(timeout=60_000)
            print(f"From start to the first page in a browser: {time.monotonic() - begin:.1f} s")
            container.run("sh", "-c", config["Healthcheck"]["Test"][1])

            print("It runs as", container.run("id"))
            changeable = container.run(*CHANGEABLE)
            assert not changeable, f"The user can change the application: {changeable}"
            assert container.run("sh", "-c", ORPHAN) == "", "A process that has ended stays."

            begin = time.monotonic()
            order = container.run("labelrank", "demo", stderr=subprocess.STDOUT)
            digest = re.search(r"Content hash (\w+)", order)
            assert digest, order
            print(f"labelrank demo inside: {time.monotonic() - begin:.1f} s, content hash {digest[1][:12]}")

            before = parts(workspace)
            job = container.run("python", "-c", NEW_JOB)
            wait_for(lambda: parts(workspace) > before, 120)
            begin = time.monotonic()
            container.signal(signal.SIGTERM)
            status = container.process.wait(DOCKER_S)
            stopped = JobStore.for_settings(Settings(workspace=workspace)).get(job)
            assert (stopped.state, stopped.resumable) == ("interrupted", True), stopped
            print(f"SIGTERM: ended after {time.monotonic() - begin:.1f} s with status {status}, its job is resumable")


def main() -> None:
    assert os.geteuid() == 0, "Run it as root: it makes a root folder and mounts it."
    PLACE.mkdir(parents=True, exist_ok=True)
    build_base()
    begin = time.monotonic()
    config = build()
    before, after = (images()[name]["size"] for name in (BASE, IMAGE))
    print(f"Built in {time.monotonic() - begin:.0f} s: {after} on a base of {before}")
    workspace = Path(run("mktemp", "--directory", "--tmpdir=/tmp", "labelrank-image-XXXXXX"))
    os.chown(workspace, 1000, 1000)
    try:
        check(workspace, config)
    finally:
        run("rm", "-r", str(workspace))


if __name__ == "__main__":
    sys.exit(main())
