"""Take a label map to a repository of the Hub: what would be written, the difference to what is there, and one commit.

What may be written where: a label map always. `id2label` of a model's config.json only where no weights lie, or weights
of this very order; else every prediction would get a wrong name. Nothing in a dataset: its rows keep their integers.
"""

from __future__ import annotations

import difflib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelrank.data.card import card_features, card_infos
from labelrank.errors import HubError, LabelMapError, UnknownRepo, Unreachable
from labelrank.hub import Account, HubFile, Repo, Target, check_target, commit, create, download, resolve, writer
from labelrank.hub.files import digest_of
from labelrank.label_map import LabelMap
from labelrank.settings import Settings
from labelrank.steps.publish.card import CARD, CHART, LABEL_MAP, front, with_section
from labelrank.steps.publish.model import CONFIG, check_weights, merged_config, trained_files

KINDS = ("model", "dataset")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Change:
    """One file that would be written."""

    path: str
    new: bytes | Path
    old: bytes | None
    """What is there now; None if nothing is, or it is no text."""
    old_size_bytes: int | None
    """None if there is no such file."""

    @property
    def size_bytes(self) -> int:
        return len(self.new) if isinstance(self.new, bytes) else self.new.stat().st_size

    @property
    def is_text(self) -> bool:
        return isinstance(self.new, bytes) and self.path != CHART

    def diff(self) -> list[str]:
        """Return the lines of the unified difference of two texts, without their line ends."""
        assert isinstance(self.new, bytes)
        old, new = ((text or b"").decode("utf-8", "replace").splitlines() for text in (self.old, self.new))
        before = "/dev/null" if self.old_size_bytes is None else f"a/{self.path}"
        return list(difflib.unified_diff(old, new, before, f"b/{self.path}", lineterm=""))


@dataclass(frozen=True)
class Plan:
    """What publishing a label map would do."""

    target: Target
    account: Account
    repo: Repo | None
    """The repository as it is; None if it has to be made."""
    changes: tuple[Change, ...]
    title: str

    @property
    def may_write(self) -> bool:
        """Whether the account may write there, as far as it is known before it tries."""
        return self.account.owns(self.target.repo_id)

    def carry_out(self, *, private: bool = True, pull_request: bool = False, settings: Settings) -> str:
        """Make the repository if there is none, write all changes in one commit, and return its address.

        Args:
            private: Whether only its owner sees a repository that is made.
            pull_request: Propose the changes in a pull request.

        Raises:
            HubError: The repository was changed after it was compared, the account may not do this, or the Hub cannot
                be asked.
        """
        if self.repo is None:
            create(self.target, self.account, private=private, settings=settings)
        return commit(
            self.target,
            self.account,
            {change.path: change.new for change in self.changes},
            title=self.title,
            parent=self.repo.revision if self.repo else None,
            pull_request=pull_request,
            settings=settings,
        )


def plan(
    label_map: LabelMap,
    repo_id: str,
    kind: str,
    *,
    section: str,
    chart: bytes,
    model: Path | None = None,
    may_create: bool = False,
    settings: Settings,
) -> Plan:
    """Return what would be written to a repository of the Hub, and how it differs from what is there; writes nothing.

    Args:
        kind: model or dataset.
        section: Of the card, in markdown.
        chart: PNG that the section shows, at `CHART`.
        model: Folder of a model to write too, which was trained in the order of the label map.
        may_create: Whether the repository may be missing.

    Raises:
        UnknownRepo: It is missing.
        HubError: It or its files cannot be read, or there is no access token that may write.
        LabelMapError: It holds classes or weights that the label map does not fit, or the model does not.
    """
    target = check_target(repo_id, kind)
    trained = trained_files(model, label_map) if model else {}
    account = writer(settings)
    try:
        repo = resolve(kind, repo_id, settings=settings)
    except UnknownRepo:
        if not may_create:
            raise
        repo = None
    if repo is not None and repo.from_cache:
        raise Unreachable(f"The Hub cannot be reached, so nothing can be written to {repo.name}. Try again later.")
    if repo is not None:
        target = Target(kind, repo.id)
    there = _Content(repo, settings)
    files: dict[str, bytes | Path] = {LABEL_MAP: label_map.to_bytes(), CHART: chart}
    if kind == "model":
        config = there.text(CONFIG)
        check_weights(config, there.paths, label_map, repo=there.name, replaced=trained)
        files |= trained or {CONFIG: merged_config(config, label_map, source=f"{CONFIG} of {there.name}")}
    else:
        _check_columns(there, label_map)
    card = trained.get(CARD)
    fresh = card.decode() if isinstance(card, bytes) else front(label_map, kind, repo_id)
    files[CARD] = with_section(there.text(CARD), section, fresh, source=f"{CARD} of {target.name}").encode()
    changes = tuple(
        change for path, new in sorted(files.items(), key=_last_read) if (change := there.change(path, new))
    )
    return Plan(target, account, repo, changes, "Add trained model and label map" if model else "Add label map")


def _last_read(file: tuple[str, Any]) -> tuple[bool, bool, str]:
    """Order files so that the long label map comes first and the card, which people should read, last."""
    return file[0] == CARD, file[0] != LABEL_MAP, file[0]


class _Content:
    """The files of a repository as they are; of one that has to be made, none."""

    def __init__(self, repo: Repo | None, settings: Settings) -> None:
        self._repo, self._settings = repo, settings
        self.name = repo.name if repo else "the new repository"
        self.paths = [file.path for file in repo.files] if repo else []
        self.card = repo.card if repo else {}

    def read(self, path: str) -> bytes | None:
        """Return what a file holds; None if there is none."""
        if self._repo is None or self._repo.file(path) is None:
            return None
        return download(self._repo, path, settings=self._settings).read_bytes()

    def text(self, path: str) -> str | None:
        content = self.read(path)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError:
            raise HubError(f"{path} of {self.name} is no text in UTF-8. Save it as one, then publish.") from None

    def change(self, path: str, new: bytes | Path) -> Change | None:
        """Return how a file would change; None if it holds this already."""
        file = self._repo.file(path) if self._repo else None
        if file is not None and _digest(new, file) == file.blob_id:
            return None
        is_text = isinstance(new, bytes) and path != CHART
        return Change(path, new, self.read(path) if is_text else None, file.size_bytes if file else None)


def _digest(content: bytes | Path, file: HubFile) -> str | None:
    """Return the hash of some content, of the kind that a file has; None if it has another length."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size != file.size_bytes:
        return None
    digest = digest_of(file)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as blocks:
        while block := blocks.read(_BLOCK_BYTES):
            digest.update(block)
    return str(digest.hexdigest())


def _check_columns(there: _Content, label_map: LabelMap) -> None:
    """Raise LabelMapError if the card of a dataset has columns of classes, and none of them has those of the map."""
    columns = {
        str(name): list(feature["names"] or ())
        for info in card_infos(there.card).values()
        for name, feature in card_features(info).items()
        if feature["_type"] == "ClassLabel"
    }
    names = [label_map.names[position] for position in label_map.position_of]
    if not columns or names in columns.values():
        return
    listed = ", ".join(f"{name!r} with {len(classes):,}" for name, classes in columns.items())
    raise LabelMapError(
        f"The card of {there.name} has the columns of classes {listed}, none with the {len(names):,} classes of the "
        "label map under the same integers. Choose the dataset whose labels were ranked."
    )
