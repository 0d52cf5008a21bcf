"""Every exception labelrank raises on purpose.

Each message says what is wrong (with the value), what was expected, and what to do next. The command line
prints it in one line and exits 1; a page shows it as it is.
"""

from __future__ import annotations

import re

_MOST_QUOTED = 200
_BREAKS = re.compile("\\s*[\n-\r\x85\u2028\u2029]\\s*")
_LONG = re.compile(r"(\S{200})\S{800,}")
# Other control characters, half surrogates, and what turns the direction of the text around it.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LabelRankError(Exception):
    """Base of all errors that a user can act on.

    Its text is one line without control characters, which files and libraries may bring into it, and without words of
    thousands of letters.
    """

    def __str__(self) -> str:
        text = _LONG.sub(r"\1...", _BREAKS.sub(" ", super().__str__()))
        return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """Return what a library says of an error, to be quoted in a sentence; the name of its class where that is nothing.

    Some quote a whole file.
    """
    lines = str(error).splitlines()
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."


class SettingsError(LabelRankError, ValueError):
    """An environment variable or option holds a value that cannot work."""


class DatasetError(LabelRankError, ValueError):
    """A dataset cannot be opened, or has nothing to rank."""


class NoTrainSplit(DatasetError):
    """A dataset has splits, but no train split, and no split was given."""

    def __init__(self, message: str, splits: tuple[str, ...]) -> None:
        super().__init__(message)
        self.splits = splits
        """The splits of the dataset; at least one."""


class UnclearColumn(DatasetError):
    """Several columns of a list may be the labels, and none is chosen."""

    def __init__(self, message: str, label_columns: tuple[str, ...]) -> None:
        super().__init__(message)
        self.label_columns = label_columns


class ArchiveError(DatasetError):
    """A file is not a zip, or the zip is unsafe or has no class folders."""


class UntoldNames(ArchiveError):
    """A zip does not say in which encoding its names are, class names depend on it, and none was given."""

    def __init__(self, message: str, readings: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        super().__init__(message)
        self.readings = readings
        """Encodings that can be meant, with the class names in each; the likeliest first."""


class MediaError(DatasetError):
    """One image or video cannot be used; the rest of its dataset can."""


class HubError(LabelRankError, OSError):
    """The Hugging Face Hub refuses a request, does not know a name, or cannot be reached."""


class Unreachable(HubError):
    """The Hub cannot answer now; a later try, or the cache, may help."""

    def __init__(self, message: str, *, wait_s: float = 0.0, no_network: bool = False, retry: bool = True) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.no_network = no_network
        self.retry = retry


class Refused(HubError):
    """The Hub has understood a request and does not do it; nothing was changed."""


class UnknownRepo(HubError):
    """The Hub has no repository of this name, or access is not allowed."""


class UnknownFile(HubError):
    """A repository of the Hub has no such file or folder."""


class Conflict(HubError):
    """Someone else has written to a repository of the Hub meanwhile; nothing was written."""


class CheckpointError(LabelRankError, ValueError):
    """The files of a checkpoint are missing or unsafe, or do not belong together."""


class FeaturesError(LabelRankError, ValueError):
    """A features file cannot be read, or holds values that cannot be ranked."""


class RankingError(LabelRankError, ValueError):
    """The features cannot be ranked with this method."""


class LabelMapError(LabelRankError, ValueError):
    """A label map is not a bijection, or a format cannot carry its names."""


class GroupsError(LabelRankError, ValueError):
    """A file of groups cannot be read, or does not give each class one group."""


class CostsError(LabelRankError, ValueError):
    """A file of costs cannot be read, or is no table of what each mistake costs."""


class FinetuneError(LabelRankError, ValueError):
    """Orders cannot be compared with this input, or the results of a comparison cannot be read or written."""


class JobError(LabelRankError, RuntimeError):
    """A background job does not exist, or a request to it is not possible."""


class ProcessError(LabelRankError, RuntimeError):
    """A child process failed with an unexpected error, or ended before its work was done."""

    def __init__(self, message: str, *, exit_status: int | None = None) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        """Exit status of the process, or the negative number of the signal that killed it; None if it sent an error."""


class TooCostly(LabelRankError, RuntimeError):
    """Looking at something for a page needs more memory or time than this server gives to that."""


class Cancelled(LabelRankError):
    """The work was stopped because its caller asked for it."""
