"""What a page does as a short Python script, from the requests of the steps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING

from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.patch_gallery.request import GalleryRequest, of_samples
from labelrank.steps.rank import RankRequest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from labelrank.steps.patch_training import TrainRequest

_LINE = 100
"""Longest line of a call that is not written with an argument a line."""
_FEATURES = """\
settings = Settings.from_env()
request = {request}
features = obtain(plan(request, settings), settings).features
"""
_FEATURES_IMPORTS = """\
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain
"""


def _guarded(script: str) -> str:
    """Return a script that works where a process of its own is started from it, as extraction and training do."""
    lines = script.splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith(("from ", "import ")))
    body = textwrap.indent("\n".join(lines[first:]), "    ")
    return "\n".join([*lines[:first], 'if __name__ == "__main__":', body]) + "\n"


def dataset(request: Request) -> str:
    """Return a script that opens the dataset of an extraction."""
    return f"""\
from labelrank.data import SourceOptions, open_dataset
from labelrank.settings import Settings

options = {call(request.options)}
dataset = open_dataset({request.dataset!r}, options, settings=Settings.from_env())
print(len(dataset.samples), dataset.media, dataset.class_names)
"""


def extraction(request: Request, out: str) -> str:
    """Return a script that extracts features and writes them."""
    return _guarded(f"""\
from pathlib import Path

from labelrank.features.store import write_features
{_FEATURES_IMPORTS}
{_FEATURES.format(request=call(request))}write_features(features, Path({out!r}))
""")


def ranking(request: Request, ranked_as: RankRequest, out: str) -> str:
    """Return a script that extracts features, unless they are here, and ranks their classes."""
    return _guarded(f"""\
from pathlib import Path

{_FEATURES_IMPORTS}from labelrank.steps.rank import RankRequest, rank

{_FEATURES.format(request=call(request))}{_rank(ranked_as, out)}""")


def ranking_of_file(features: str, ranked_as: RankRequest, out: str) -> str:
    """Return a script that ranks the classes of a features file."""
    return f"""\
from pathlib import Path

from labelrank.features.joining import read_features
from labelrank.steps.rank import RankRequest, rank

features = read_features(Path({features!r}))
{_rank(ranked_as, out)}"""


def _rank(request: RankRequest, out: str) -> str:
    return f"""\
ranked = rank(features, {call(request)})
ranked.label_map_with_intervals.save(Path({out!r}))
print(ranked.label_map.names)
"""


def comparison(
    request: Request,
    design: Design,
    ranked_as: RankRequest,
    *,
    test_split: str | None,
    groups: Mapping[str, str] | None,
    out: str,
) -> str:
    """Return a script that compares orders or targets.

    Args:
        test_split, groups: As `labelrank.steps.finetune.request.job_params` takes them.
    """
    more = {"test_split": test_split, "groups": dict(groups) if groups else None}
    words = [f"ranking={call(ranked_as)}", *(f"{name}={value!r}" for name, value in more.items() if value)]
    return _guarded(f"""\
from dataclasses import asdict
from pathlib import Path

from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.inputs import gather
from labelrank.steps.finetune.request import Design, job_params
from labelrank.steps.finetune.results import write_report
from labelrank.steps.finetune.run import compare
from labelrank.steps.rank import RankRequest

settings = Settings.from_env()
request = {call(request)}
design = {call(design)}
params = job_params(asdict(request), design, {", ".join(words)})
outcome = compare(gather(params, design, settings), design, settings)
write_report(Path({out!r}), outcome.report)
print(outcome.report.verdict.text)
""")


def scoring(request: Request, asked: GalleryRequest, out: str) -> str:
    """Return a script that scores the patches of a few samples and writes the scores."""
    from labelrank.steps.patches import Scoring  # more than the web process needs at its start

    how = Scoring(asked.visible, asked.rounds, asked.variant)
    return _guarded(f"""\
from pathlib import Path

from labelrank.features.store import write_features
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patches import Scoring, plan, score

settings = Settings.from_env()
request = {call(of_samples(request, max_per_class=asked.per_class))}
scores = score(plan(request, {call(how)}, settings), settings)
write_features(scores, Path({out!r}))
""")


def training(asked: TrainRequest, command: str, out: str) -> str:
    """Return a script that trains a ranker of patches.

    Args:
        command: The command that does the same, for the ranker's card.
    """
    return _guarded(f"""\
from pathlib import Path

from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_training import TrainRequest, plan, train

settings = Settings.from_env()
request = {call(asked)}
train(plan(request, settings), Path({out!r}), settings, command={command!r})
""")


def call(value: DataclassInstance) -> str:
    """Return the Python that makes a request, with the fields alone that are not at their defaults."""
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    needed = [field.name for field in fields(value) if field.default is MISSING]
    defaults = {field.name: field.default for field in fields(value)}
    texts = {
        name: call(one) if is_dataclass(one) and not isinstance(one, type) else repr(one) for name, one in given.items()
    }
    words = [texts[name] for name in needed]
    words += [f"{name}={texts[name]}" for name in given if name not in needed and given[name] != defaults[name]]
    name = type(value).__name__
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= _LINE else "\n".join([f"{name}(", *(f"    {word}," for word in words), ")"])
