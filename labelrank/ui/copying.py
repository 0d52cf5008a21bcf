"""What a page does as a command and as Python, to copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import streamlit as st

from labelrank.data.uploads import known_upload_name
from labelrank.errors import LabelRankError
from labelrank.finetune.decision import GROUPS
from labelrank.jobs.store import Job
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import evaluation_splits
from labelrank.ui import choices, datasets, feature_files, messages, session
from labelrank.views import questions, scripts

FEATURES, LABEL_MAP, REPORT, SCORES = "features.parquet", "label_map.json", "report.json", "patches.parquet"
RANKER = "ranker"


@dataclass(frozen=True)
class Copied:
    """What a page does, to run it elsewhere."""

    command: str
    """One command a line."""
    script: str
    """Python."""
    files: tuple[str, ...] = ()
    """Files that must lie where it is run."""


def show(page: str, copied: Callable[[], Copied], title: str = "Copy as command or Python") -> None:
    """Show a folded place that has what a page does as a command and as Python; made when it is opened.

    Args:
        page: Name of the page; no two have the same.
        copied: Returns what is shown; an error of ours is shown instead.
        title: Of the place.
    """
    with st.expander(title, icon=":material/terminal:", key=f"copy_{page}", on_change="rerun") as place:
        if not place.open:
            return
        try:
            found = copied()
        except LabelRankError as error:
            messages.error_box(error)
            return
        st.caption("The present choices as a command and in Python, for any computer with labelrank.")
        if found.files:
            names = " and ".join(messages.escape(name) for name in found.files)
            st.caption(f"Run it in the folder that has {names}.")
        # Without a language: some of its colours have too little contrast, and the highlighter is 1.5 MB of script.
        st.code(found.command, language=None, wrap_lines=True)
        st.code(found.script, language=None, wrap_lines=True)


def of_dataset(source: choices.Source) -> Copied:
    """Return how the features of a dataset are extracted, and how it is opened in Python."""
    chosen = session.choices()
    extraction = replace(chosen.extraction, dataset=source.dataset, **asdict(source.options))
    request, _ = _elsewhere(extraction)
    return replace(of_features(replace(chosen, extraction=extraction)), script=scripts.dataset(request))


def of_features(chosen: choices.Choices) -> Copied:
    """Return how features are extracted."""
    from labelrank.cli import written

    request, files = _elsewhere(chosen.request)
    return Copied(written.extraction(request, FEATURES), scripts.extraction(request, FEATURES), files)


def of_ranking(found: feature_files.ChosenFeatures) -> Copied:
    """Return how the classes of some features are ranked."""
    from labelrank.cli import written
    from labelrank.ui import fine_tune  # its charts are more than the first page needs

    asked = session.choices().ranking
    if found.example:
        command = written.ranking(found.example.id, asked, LABEL_MAP)
        return Copied(command, scripts.ranking_of_file(found.example.id, asked, LABEL_MAP))
    request, files = _elsewhere(fine_tune.choices_for(found).request)
    lines = (written.extraction(request, FEATURES), written.ranking(FEATURES, asked, LABEL_MAP))
    return Copied("\n".join(lines), scripts.ranking(request, asked, LABEL_MAP), files)


def of_comparison(chosen: choices.Choices) -> Copied:
    """Return how orders or targets are compared."""
    from labelrank.cli import written

    assert chosen.source is not None
    request, files = _elsewhere(chosen.request)
    design = chosen.compared
    splits = dict(
        zip(("test", "val"), evaluation_splits(datasets.dataset(chosen.source), chosen.test_split), strict=True)
    )
    names = {role: f"{role}.parquet" if split else None for role, split in splits.items()}
    lines = [written.extraction(request, FEATURES)]
    for role, split in splits.items():
        if split is not None:
            other = replace(request, split=split, until_stable=None, either_direction=False)
            lines.append(written.extraction(other, f"{role}.parquet"))
    groups = chosen.groups if design.compares_targets or design.cost == GROUPS else None
    more = {"groups": "groups.csv" if groups else None, "out": REPORT}
    if questions.question_of(design) == questions.MODEL:
        more["files"] = "results"
    lines.append(written.comparison(FEATURES, design, chosen.ranking, **names, **more))
    script = scripts.comparison(
        request, design, chosen.ranking, test_split=chosen.test_split, groups=groups, out=REPORT
    )
    return Copied("\n".join(lines), script, (*files, *(["groups.csv, your groups of classes,"] if groups else [])))


def of_patches(chosen: choices.Choices) -> Copied:
    """Return how the patches of a few samples are scored."""
    from labelrank.cli import written

    request, files = _elsewhere(chosen.request)
    command = written.scoring(request, chosen.gallery, SCORES)
    return Copied(command, scripts.scoring(request, chosen.gallery, SCORES), files)


def of_training(job: Job) -> Copied:
    """Return how a ranker of patches is trained."""
    from labelrank.cli import written
    from labelrank.steps.patch_training import TrainRequest  # more than the web process needs at its start

    asked = TrainRequest.from_params(job.params)
    request, files = _elsewhere(asked.request)
    asked = replace(asked, request=request)
    command = written.training(asked, RANKER)
    return Copied(command, scripts.training(asked, command, RANKER), files)


def _elsewhere(request: Request) -> tuple[Request, tuple[str, ...]]:
    """Return a request as it is made elsewhere, where an upload is a file, and the files that it needs."""
    name = known_upload_name(request.dataset, settings=session.settings())
    return (request, ()) if name is None else (replace(request, dataset=name), (name,))
