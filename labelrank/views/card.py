"""What a card on the Hub says of a label map: a section in markdown, and its chart. Names are data in both."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from labelrank.label_map import LabelMap
from labelrank.ranking.methods import GOOD_FOR
from labelrank.steps.publish.card import CHART, LABEL_MAP, licence_of, source_of
from labelrank.views import marks, ranking_charts, ranking_words
from labelrank.views.chart_files import png
from labelrank.words import CITATION, escape, percent, plural

LISTED = 50
"""Of more classes than twice this, so many of either end are listed."""
_PLAIN = re.compile(r"(?!.*www\.)[a-z0-9]([a-z0-9 ,.+/-]*[a-z0-9])?", re.IGNORECASE)
_USES = {
    "trained": "Output `i` of this model stands for the class at position `i`: `id2label` in `config.json`, and "
    "`label_map.json`, which says how the order was found.",
    "model": "`config.json` names the outputs in this order, which fits a head that was trained in it. Weights of "
    "another order would give every prediction a wrong name.",
    "dataset": "The rows of this dataset keep their integers, the column Label. `position_of[label]` in "
    "`label_map.json` is the position of a row's class.",
}


def card_chart(label_map: LabelMap) -> bytes:
    """Return the classes on the axis of the projection, with the intervals of their positions, as a PNG."""
    columns = ("position", "name", "centroid", "count", "rank_low", "rank_high")
    values = {name: [getattr(ranked, name) for ranked in label_map.classes] for name in columns}
    classes = pd.DataFrame(values).rename(columns={"name": "class", "rank_low": "low", "rank_high": "high"})
    classes["class"] = classes["class"].map(marks.shorten)
    if label_map.classes[0].rank_low is None:
        classes = classes.drop(columns=["low", "high"])
    samples = pd.DataFrame(columns=["position", "projection", "key", "image"])
    return png(ranking_charts.projection_chart(samples, classes), ranking_charts.projection_finding(label_map.names))


def card_section(label_map: LabelMap, kind: str, *, trained: bool = False) -> str:
    """Return the section, in markdown.

    Args:
        kind: model or dataset.
        trained: Whether the weights of a model that was trained in this order lie beside it.
    """
    names = label_map.names
    finding = ranking_charts.projection_finding(names)
    sections = [
        "## Order of the labels",
        f"{escape(finding)}: {plural(len(names), 'class', 'classes')} in the order `{label_map.method}`. "
        f"{GOOD_FOR.get(label_map.method, '')}".strip(),
        _USES["trained" if trained else kind],
        *(f"> **Note:** {escape(' '.join(notice.text.split()))}" for notice in label_map.notices),
        f"![{escape(finding)}. The same figures are in the table below.]({CHART})",
        _marks(label_map),
        _table(label_map),
        "### Where this order comes from",
        "\n".join(f"- {name}: {value}" for name, value in _provenance(label_map)),
        f"### Citation\n\n```\n{CITATION}\n```",
    ]
    return "\n\n".join(sections)


def _marks(label_map: LabelMap) -> str:
    if label_map.classes[0].rank_low is None:
        return "The dark marks are the centroids of the classes."
    told = ranking_words.confidence_text(len(label_map.classes), label_map.parameters.get("resamples", 0))
    return f"The dark marks are the centroids of the classes; bars, and the column Likely position, are {told}."


def _table(label_map: LabelMap) -> str:
    has_ranks = label_map.classes[0].rank_low is not None
    listed, thinned = label_map.classes, ""
    if len(listed) > 2 * LISTED:
        first = f"\n\nListed are the first and the last {LISTED:,} of {len(listed):,} classes; "
        thinned = f"{first}`{LABEL_MAP}` has all of them."
        listed = listed[:LISTED] + listed[-LISTED:]
    header = ["Position", "Class", "Label", "Centroid", *(["Likely position"] if has_ranks else []), "Samples"]
    rows = [
        [
            str(ranked.position),
            _text(ranked.name),
            str(ranked.label),
            f"{ranked.centroid:.3f}",
            *([f"{ranked.rank_low} to {ranked.rank_high}"] if has_ranks else []),
            f"{ranked.count:,}",
        ]
        for ranked in listed
    ]
    rules = [":--" if name == "Class" else "--:" for name in header]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows)) + thinned


def _provenance(label_map: LabelMap) -> list[tuple[str, str]]:
    dataset, checkpoint = (source_of(label_map, name) for name in ("dataset", "checkpoint"))
    licence, ratio = licence_of(label_map), label_map.explained_variance_ratio
    method = {name: value for name, value in label_map.parameters.items() if value is not None}
    rows = [
        ("Dataset", _source(dataset, "datasets/", ("config", "split", "selection"))),
        ("Checkpoint", _source(checkpoint, "", ())),
        ("Licence of the checkpoint", _text(licence) if licence else "not known here; it binds what is made with it"),
        ("Pooling", _text(label_map.features.get("pooling", ""))),
        ("Order", ", ".join([_text(label_map.method), *(f"{_text(k)} {_text(v)}" for k, v in method.items())])),
        ("Between-class variance on the axis", percent(ratio) if ratio is not None else ""),
        ("Content hash of the label map", f"`{label_map.content_hash}`"),
        ("Made with", f"labelrank {_text(label_map.library_version)}, {_text(label_map.created_at[:10])}"),
    ]
    return [(name, value) for name, value in rows if value]


def _source(source: dict[str, Any], path: str, details: tuple[str, ...]) -> str:
    """Return where features come from; what the Hub has is linked."""
    if not source.get("id"):
        return ""
    name, revision = _text(source["id"]), source.get("revision")
    if revision:
        name = f"[{name}](https://huggingface.co/{path}{source['id']}) at commit `{str(revision)[:12]}`"
    return ", ".join([name, *(f"{detail} {_text(source[detail])}" for detail in details if source.get(detail))])


def _text(value: Any) -> str:
    """Return markdown that shows a value; what is nothing but text in markdown stays as it is, to read it there too."""
    text = f"{value:.3g}" if isinstance(value, float) else marks.visible(str(value))
    return text if _PLAIN.fullmatch(text) else escape(text)
