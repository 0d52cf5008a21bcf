"""The dataset repository in which jobs of the Hub put finished parts, as the machine sees it that asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import PurePosixPath

from labelrank import hub
from labelrank.errors import HubError, UnknownRepo
from labelrank.features.parts import Part, PartFolder
from labelrank.progress import ShouldStop
from labelrank.settings import Settings
from labelrank.steps.extract.engines.hub_work import folder_of
from labelrank.steps.extract.engines.keeping import worth_another_try
from labelrank.steps.extract.plan import Plan

_AT_ONCE = 50
"""Parts that are fetched before progress is told."""


class Store:
    """Finished parts of a plan on the Hub.

    Args:
        folder: Takes the parts that are fetched.
    """

    def __init__(
        self, target: hub.Target, account: hub.Account, plan: Plan, folder: PartFolder, settings: Settings
    ) -> None:
        self._target, self._account, self._settings = target, account, settings
        self._plan, self._folder = plan, folder
        self._unfit: dict[str, str] = {}
        """Name of a part -> hash of the file that is not to be taken for it."""

    @property
    def has_unfit(self) -> bool:
        """Whether there are files that are not taken."""
        return bool(self._unfit)

    def exists(self, *, anew: bool) -> bool:
        """Return whether there is a repository.

        Args:
            anew: Take no part that is there now.

        Raises:
            HubError: It is public, or the Hub cannot be asked.
        """
        try:
            there = self._look()
        except UnknownRepo:
            return False
        if anew:
            self._unfit = {name: file.blob_id for name, file in there.items()}
        return True

    def create(self) -> None:
        """Make the repository.

        Raises:
            HubError: The account may not, or the Hub cannot be asked.
        """
        hub.create(self._target, self._account, private=True, settings=self._settings)

    def take(self, missing: Mapping[str, Part], should_stop: ShouldStop | None, *, old: bool = False) -> list[Part]:
        """Fetch some of the missing parts that are there, the first ones first, and return them.

        Args:
            old: Whether they are of an earlier extraction: those with samples that can be read now are not taken.

        Raises:
            HubError: They cannot be fetched.
            Cancelled: `should_stop` returned true.
        """
        all_ = self._look()
        fit = (name for name in missing if name in all_ and self._unfit.get(name) != all_[name].blob_id)
        there = {name: all_[name] for name in islice(fit, _AT_ONCE)}
        if not there:
            return []
        self._folder.path.mkdir(parents=True, exist_ok=True)
        targets = {file.path: self._folder.path / name for name, file in there.items()}
        hub.download_to(self._repo, targets, settings=self._settings, should_stop=should_stop)
        taken = []
        for name, file in there.items():
            part = missing[name]
            features = self._folder.read(part)
            if features is None or (old and worth_another_try(self._plan, features)):
                self._folder.remove([part])
                self._unfit[name] = file.blob_id
            else:
                taken.append(part)
        return taken or self.take(missing, should_stop, old=old)

    def _look(self) -> dict[str, hub.HubFile]:
        self._repo = hub.look(
            "dataset", self._target.repo_id, folder_of(self._plan.part_digest), settings=self._settings
        )
        if not self._repo.private:
            raise HubError(
                f"{self._target.repo_id} is public, and features tell of the data they are of. Make it private, or "
                "name another dataset repository (--job-repo)."
            )
        return {PurePosixPath(file.path).name: file for file in self._repo.files}
