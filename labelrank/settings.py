"""The workspace and every limit, read once from environment variables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from labelrank.errors import SettingsError
from labelrank.memory import total_memory_bytes

OWNERS = "owners"
"""Folder of the workspace with a folder for each owner, named by a digest."""


def _default_workspace() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("labelrank"))


def _most_of_memory() -> int:
    return (total_memory_bytes() or 2**40) * 9 // 10


def assets_dir() -> Path:
    """Return the folder of embedded files: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "assets"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "assets"


@dataclass(frozen=True)
class Settings:
    """The workspace and the limits.

    Every field that begins with `max_` is a limit that protects a shared server. Set a limit with the environment
    variable `LABELRANK_<FIELD>`, in capitals.
    """

    workspace: Path = field(default_factory=_default_workspace)
    """Folder of uploads, cached features and jobs (`LABELRANK_HOME`)."""
    shared: bool = False
    """Whether strangers use this server (`LABELRANK_SHARED=1`). Then the app cannot open its folders or show its
    paths, and a visitor sees only jobs of their own or of a link, of which they may change their own. Always true on a
    Space."""
    owner: str = ""
    """Whose work this is, on a shared server (`LABELRANK_OWNER`); empty: that of the person whose machine this is."""
    public: bool = False
    """Whether all that the work reads can be read by anyone (`LABELRANK_PUBLIC=1`)."""
    hub_token: str | None = field(default=None, repr=False)
    """The access token of whom the work is done for, in place of this computer's. Told to a child over a pipe, never in
    its environment, which `to_env` makes."""
    hub_wait_s: float = 300.0
    """Longest pause before a request to the Hub, where it asks for one; it counts requests in windows of this length.
    The app's own process waits less, as somebody looks at its pages."""
    max_archive_entries: int = 75_000
    """Entries in one zip."""
    max_archive_bytes: int = 50 * 2**30
    """Unpacked bytes of one zip; nothing is unpacked to disk."""
    max_compression_ratio: int = 100
    """Unpacked size divided by packed size, checked for zips of more than 100 MiB unpacked."""
    max_media_bytes: int = 64 * 2**20
    """Bytes of one image's file."""
    max_video_bytes: int = 2 * 2**30
    """Bytes of one video's file."""
    max_video_frames: int = 100_000
    """Frames of one video."""
    max_clip_bytes: int = 2**30
    """Bytes of the decoded frames of one video's clips, which are in memory together."""
    max_download_bytes: int = 20 * 2**30
    """Bytes downloaded from the Hub for one dataset or checkpoint."""
    max_rows: int = 2_000_000
    """Rows of one split of a table."""
    max_columns: int = 5_000
    """Columns of one table."""
    max_row_groups: int = 20_000
    """Row groups of one Parquet file."""
    max_footer_bytes: int = 32 * 2**20
    """Bytes in which a table describes itself: the footer of a Parquet file, the schema of an Arrow file."""
    max_classes: int = 50_000
    """Classes of one table."""
    max_pixels: int = 100_000_000
    """Width times height of one image."""
    max_preview_bytes: int = 2 * 2**30
    """Memory of a process that looks into files for a page (on Linux)."""
    max_preview_seconds: int = 30
    """Processor time of one such look at an upload or a dataset of the Hub."""
    max_cache_bytes: int = 20 * 2**30
    """Bytes of features, unfinished extractions, compiled encoders, fine-tuned runs and scored patches in the
    workspace; the least recently used are removed first. Results of comparisons stay until their job is deleted."""
    max_hub_bytes: int = 20 * 2**30
    """Bytes of repositories of the Hub that a shared server keeps in the Hub's cache (HF_HOME); the least recently used
    that no process reads are removed after each job. Elsewhere that cache is shared with other programs, and stays."""
    max_owner_bytes: int = 10 * 2**30
    """Bytes that one visitor of a shared server may keep: uploads, rankers and results; features and runs of their own
    data, of which the least recently used are removed first."""
    max_owner_upload_bytes: int = 5 * 2**30
    """Bytes of uploads that one visitor of a shared server may keep."""
    max_uploads_bytes: int = 20 * 2**30
    """Bytes of the uploads of all visitors of a shared server, as anyone can come as a new one. Where they take more,
    those that nobody has used for a day go first; then no more are kept."""
    max_upload_idle_seconds: int = 30 * 24 * 3600
    """After so long unused, an upload on a shared server is removed, unless a job that waits or runs needs it."""

    max_waiting_jobs: int = 20
    """Jobs of one visitor that may wait at once."""
    max_job_bytes: int = field(default_factory=_most_of_memory)
    """Memory of the process of one job, without a GPU (on Linux); by default nine tenths of the machine's. What
    libraries reserve and do not use is not counted."""
    max_job_seconds: int = 7 * 24 * 3600
    """How long one job may run at a time. It is then stopped as by its user: what is finished is kept, and Resume goes
    on behind the other jobs."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.startswith("max_") and value < 1:
                raise SettingsError(f"LABELRANK_{f.name.upper()} is {value}; expected a whole number of at least 1.")

    def of(self, owner: str, *, public: bool = False) -> Settings:
        """Return the settings for the work of somebody; on a machine of one's own, the same."""
        return replace(self, owner=owner, public=public) if self.shared else self

    @property
    def own(self) -> Path:
        """Folder of what belongs to the owner: uploads, rankers, results of comparisons."""
        if not self.owner:
            return self.workspace
        return self.workspace / OWNERS / hashlib.sha256(self.owner.encode()).hexdigest()[:32]

    @property
    def cache(self) -> Path:
        """Folder of features, parts, runs and scored patches.

        What is made from anything but public data lies with its owner: a digest that another one computes or guesses
        leads nowhere. Whoever gives an access token may read more than the public.
        """
        return self.workspace if self.public and not self.hub_token else self.own

    @property
    def encoders(self) -> Path:
        """Folder of encoders that were exported; a checkpoint that takes an access token lies with its owner."""
        return (self.own if self.hub_token else self.workspace) / "encoders"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of this process.

        Raises:
            SettingsError: A limit is not a positive whole number.
        """
        values: dict[str, Path | int | str] = {}
        for name in ("shared", "public"):
            variable = f"LABELRANK_{name.upper()}"
            if (given := env.get(variable, "0")) not in ("0", "1"):
                raise SettingsError(f"{variable} is {given!r}; expected 0 or 1.")
            values[name] = given == "1"
        values["shared"] = values["shared"] or bool(env.get("SPACE_ID"))
        if values["shared"]:
            values["owner"] = env.get("LABELRANK_OWNER", "")
        if home := env.get("LABELRANK_HOME"):
            values["workspace"] = Path(home).expanduser().resolve()
        for f in fields(cls):
            name = f"LABELRANK_{f.name.upper()}"
            if not f.name.startswith("max_") or name not in env:
                continue
            try:
                values[f.name] = int(env[name])
            except ValueError:
                raise SettingsError(f"{name} is {env[name]!r}; expected a whole number of at least 1.") from None
        return cls(**values)  # type: ignore[arg-type]

    def to_env(self) -> dict[str, str]:
        """Return the environment variables that `from_env` reads as this workspace and these limits."""
        named = {"LABELRANK_HOME": str(self.workspace), "LABELRANK_OWNER": self.owner}
        named |= {f"LABELRANK_{name.upper()}": str(int(getattr(self, name))) for name in ("shared", "public")}
        limits = [f.name for f in fields(self) if f.name.startswith("max_")]
        return named | {f"LABELRANK_{name.upper()}": str(getattr(self, name)) for name in limits}
