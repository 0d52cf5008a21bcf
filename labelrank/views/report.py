"""The report: what is known of the classes as one HTML page that needs nothing else, with drawn charts and tables."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from labelrank.errors import RankingError
from labelrank.features.store import KEPT, dataset_name
from labelrank.patches.choosing import kept_text
from labelrank.ranking.methods import GOOD_FOR
from labelrank.steps.class_summary import NamedPair, summary_of
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import Ranked
from labelrank.views import (
    chart_files,
    class_heatmap,
    class_map,
    class_tree,
    class_words,
    marks,
    order_tables,
    ranking_charts,
    ranking_words,
    sample_list,
)
from labelrank.views.chart_theme import alt
from labelrank.words import CITATION, percent

SAMPLES = 50
"""So many samples to look at are listed."""
PAIRS = 20
DRAWN_SAMPLES = 2_500
"""So many samples are drawn in the projection."""
LISTED = 500
"""Of more classes than twice this, so many of either end are listed; of more groups, twice as many of the largest."""
_STYLE = """
:root { color-scheme: light dark; --text: #1c2730; --soft: #55646f; --line: #d5dde2; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e9ed; --soft: #a3b1bb; --line: #33414b; --page: #11161a; }
}
@media print { :root { --text: #000; --soft: #333; --line: #bbb; --page: #fff; } section { break-inside: avoid-page; } }
body { background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 900px; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; line-height: 1.25; } h3 { margin-top: 2rem; }
p.note, figcaption { color: var(--soft); font-size: 0.9rem; }
.warning { border-left: 4px solid #c0652a; padding: 0.3rem 0.8rem; }
figure { margin: 1rem 0; } .wide { overflow-x: auto; }
svg { max-width: 100%; min-width: 640px; height: auto; color: var(--text); }
@media print { svg { min-width: 0; } }
table { border-collapse: collapse; font-size: 0.9rem; }
caption { text-align: left; font-weight: 600; padding: 0.6rem 0; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: color-mix(in srgb, currentColor 8%, transparent); padding: 0.8rem; white-space: pre-wrap; }
"""


def report_html(ranked: Ranked, space: LabelSpace, *, command: str, version: str) -> str:
    """Return the report as an HTML document, which loads nothing.

    What the features do not allow is told in its place. Names are data: nothing in them becomes markup.

    Args:
        ranked: The order.
        space: Of the same features.
        command: That makes this report again.
        version: Of labelrank.
    """
    title = f"Classes of {_of(ranked)}"
    parts = [
        _order(ranked),
        *(_told(section, space, ranked) for section in (_map, _heatmap, _groups, _pairs, _orders, _samples)),
        _origin(ranked, command, version),
    ]
    warnings = "".join(f'<p class="warning">{_text(notice.text)}</p>' for notice in ranked.notices)
    # What several sections lack for one reason is told once.
    body = "\n".join(dict.fromkeys(parts))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Whatever slips into the page, no browser fetches it.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_text(title)}</h1>\n"
        f"{warnings}\n{body}\n</main>\n</body>\n</html>\n"
    )


def _of(ranked: Ranked) -> str:
    origin = ranked.features.provenance.get("dataset") or {}
    parts = (dataset_name(ranked.features.provenance), origin.get("config"), origin.get("split"))
    return ", ".join(str(part) for part in parts if part) or "given features"


def _told(section: Callable[[LabelSpace, Ranked], str], space: LabelSpace, ranked: Ranked) -> str:
    try:
        return section(space, ranked)
    except RankingError as problem:
        return f'<section><p class="warning">{_text(str(problem))}</p></section>'


def _order(ranked: Ranked) -> str:
    label_map = ranked.label_map_with_intervals
    names = label_map.names
    drawn = ranking_charts.stratified_mask(ranked.position, DRAWN_SAMPLES)
    samples = pd.DataFrame(
        {
            "position": ranked.position[drawn],
            "projection": ranked.projection[drawn].round(3),
            "class": [marks.shorten(names[p]) for p in ranked.position[drawn]],
            "key": "",
            "image": None,
        }
    )
    classes = pd.DataFrame(
        {
            "position": [entry.position for entry in label_map.classes],
            "class": [marks.shorten(name) for name in names],
            "centroid": [entry.centroid for entry in label_map.classes],
            "count": [entry.count for entry in label_map.classes],
            "low": [entry.rank_low for entry in label_map.classes],
            "high": [entry.rank_high for entry in label_map.classes],
        }
    )
    by_position = pd.Series(ranked.projection).groupby(ranked.position)
    for column, quantile in ranking_charts.QUANTILES.items():
        classes[column] = classes["position"].map(by_position.quantile(quantile))
    if classes["low"].isna().any():
        classes = classes.drop(columns=["low", "high"])
    finding = f"The order runs from {marks.shorten(names[0], 30)} to {marks.shorten(names[-1], 30)}"
    listed, thinned = label_map.classes, ""
    if len(listed) > 2 * LISTED:
        listed = listed[:LISTED] + listed[-LISTED:]
        thinned = _note(
            f"Listed are the first and the last {LISTED:,} of {len(names):,} classes; the label map has all of them."
        )
    spaced, spaced_text = marks.drawn_classes(classes)
    rows = [
        (
            entry.position,
            entry.name,
            entry.label,
            f"{entry.centroid:.3f}",
            "-" if entry.rank_low is None else f"{entry.rank_low} to {entry.rank_high}",
            f"{entry.count:,}",
        )
        for entry in listed
    ]
    told = ranking_words.confidence_text(len(names), ranked.resamples)
    caption = "Positions" if label_map.classes[0].rank_low is None else f"Positions; Likely: {told}"
    withheld = ranked.intervals.withheld if ranked.intervals is not None else None
    sure = ranking_words.agreement(ranked.intervals)
    if label_map.method != "centroid":
        withheld = ranking_words.CENTROID_ALONE
    return _section(
        finding,
        f"Order: {label_map.method}. {GOOD_FOR.get(label_map.method, '')} The axis of the projection holds "
        f"{percent(ranked.share)} of the variance between class means; the rest is in the sections below.",
        _figure(
            ranking_charts.projection_chart(samples, spaced),
            f"{len(samples):,} of {len(ranked.position):,} samples on the axis that separates the classes best. "
            f"{ranking_charts.projection_marks_text(spaced)}{spaced_text}",
        ),
        _note(withheld or ("{}: {}. {}".format(*sure) if sure else "")),
        _table(
            caption,
            ("Position", "Class", "Label", "Centroid", "Likely", "Samples"),
            rows,
            numbers=(0, 2, 3, 4, 5),
        ),
        thinned,
    )


def _map(space: LabelSpace, ranked: Ranked) -> str:
    places, geometry, names = space.places, space.geometry, space.names
    position = space.positions(ranked.label_map.position_of)
    frame = class_map.map_frame(places.points, names, position, geometry.count, [[]] * len(names), {})
    frame, thinned = marks.drawn_classes(frame)
    return _section(
        class_map.map_finding(space.nearest_pair, places.kept, len(space.names)),
        "",
        _figure(
            class_map.class_map(frame),
            "The line follows the order of the label map, and colour is the position in it. Names are written where "
            "there is room. "
            + class_map.map_text(places.neighbours, places.kept, places.kept_by_chance, places.embedded)
            + thinned,
        ),
    )


def _heatmap(space: LabelSpace, ranked: Ranked) -> str:
    points, order = space.geometry.points, space.tree.order
    groups = space.tree.cut(space.suggestion.n_groups)
    return _section(
        class_heatmap.distance_finding(points, order, "order optimal-leaf"),
        "",
        _figure(
            class_heatmap.distance_heatmap(points, order, space.names, groups, hover=False),
            f"{class_heatmap.distance_text(len(order))} Outlined are the groups of the tree.",
        ),
        _agreement(space),
    )


def _groups(space: LabelSpace, ranked: Ranked) -> str:
    tree, names, n_groups = space.tree, space.names, space.suggestion.n_groups
    table = class_tree.groups_table(tree, names, n_groups)
    listed, thinned = table, ""
    if len(table) > 2 * LISTED:
        listed = table.nlargest(2 * LISTED, "Classes")
        thinned = _note(
            f"Listed are the {2 * LISTED:,} largest of {len(table):,} groups; labelrank classes --groups-out writes "
            "all of them."
        )
    return _section(
        class_tree.groups_finding(space.suggestion),
        class_tree.groups_text(space.suggestion),
        _figure(class_tree.tree_chart(tree, names, n_groups), class_tree.tree_text(len(names))),
        _table("Groups", tuple(table.columns), listed.itertuples(index=False), numbers=(0, 1, 2)),
        thinned,
    )


def _pairs(space: LabelSpace, ranked: Ranked) -> str:
    summary = summary_of(space, pairs=PAIRS)

    def table(title: str, pairs: Iterable[NamedPair]) -> str:
        rows = [
            (
                pair.first,
                pair.second,
                "-" if pair.place_by_distance is None else f"{pair.distance:.2f}",
                pair.place_by_distance or "-",
                f"{percent(pair.mixed.value)} ({100 * pair.mixed.low:.1f} to {100 * pair.mixed.high:.1f})",
                pair.place_by_confusion or "-",
            )
            for pair in pairs
        ]
        header = ("Class", "Class", "Distance", "Place", "Mixed up", "Place")
        return _table(title, header, rows, numbers=(2, 3, 4, 5))

    return _section(
        class_words.pairs_finding(summary.pairs),
        class_words.differing_text(summary.pairs),
        _paragraph(class_words.expected_text(summary.expected)),
        table("Nearest pairs", summary.pairs.nearest) if summary.pairs.nearest else "",
        table("Pairs most mixed up", summary.pairs.most_confused) if summary.pairs.most_confused else "",
        _note(class_words.COLUMNS),
    )


def _orders(space: LabelSpace, ranked: Ranked) -> str:
    orders, refused = space.orders()
    judged = space.criteria(orders)
    header, rows = order_tables.criteria_rows(judged)
    return _section(
        "How orders compare",
        f"{order_tables.ASTERISK.format(judged.n_random)} {order_tables.limits_text(judged, refused)}",
        _table("Criteria of orders", header, rows, numbers=range(1, len(header))),
        _note(order_tables.definitions_text(judged)),
    )


def _agreement(space: LabelSpace) -> str:
    try:
        return _paragraph(class_words.agreement_text(space.distance_agreement))
    except RankingError as problem:
        return _note(str(problem))


def _samples(space: LabelSpace, ranked: Ranked) -> str:
    audit, names, keys = space.samples, space.names, space.features.keys
    first = [row for row in audit.order[:SAMPLES] if audit.elsewhere[row]]
    rows = [
        (
            place,
            keys[row],
            names[audit.own[row]],
            names[audit.other[row]],
            percent(audit.own_fit[row]),
            percent(audit.other_fit[row]),
        )
        for place, row in enumerate(first, start=1)
    ]
    return _section(
        sample_list.audit_text(audit, space.features.X.shape[1]),
        "They may be labelled as they should be and look unusual, or belong to the other class: look at them.",
        _table(
            "Samples to look at first",
            ("", "Key", "Class", "Nearest other", "Fit", "There"),
            rows,
            numbers=(0, 4, 5),
        ),
        _note(
            sample_list.too_well_text(
                len(space.features.y), space.features.X.shape[1], accuracy_at="with the pairs above"
            )
        ),
        _note(
            "Fit: how well the sample fits its own class, taken without it, and the nearest other one. The fits of all "
            "classes sum to 100\u00a0%."
        ),
    )


def _origin(ranked: Ranked, command: str, version: str) -> str:
    provenance = ranked.features.public_provenance
    rows: list[tuple[str, str]] = [("labelrank", version), ("label map", ranked.label_map.content_hash)]
    for name, value in provenance.items():
        if name == KEPT:
            rows.append(("patches", kept_text(value)))
        if isinstance(value, dict):
            rows += [(f"{name}: {part}", str(inner)) for part, inner in value.items() if inner not in (None, {}, [])]
        elif value is not None:
            rows.append((name, str(value)))
    rows += [(f"order: {name}", str(value)) for name, value in ranked.label_map.parameters.items()]
    return _section(
        "Where this comes from",
        "",
        _table("Provenance", ("What", "Value"), rows),
        f"<h3>To make this report again</h3>\n<pre>{_text(command)}</pre>",
        f"<h3>Citation</h3>\n<pre>{html.escape(CITATION)}</pre>",
    )


def svg(chart: alt.Chart | alt.LayerChart, width: int = chart_files.WIDTH) -> str:
    """Return a chart as an SVG element whose text has the colour of the page around it."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(chart_files.spec_of(chart, width), allowed_base_urls=[])
    # Every chart has a clip0, and a page may have each id once. HTML needs no namespaces.
    own = hashlib.sha256(drawn.encode()).hexdigest()[:8]
    drawn = re.sub(r'(<\w+ id="|url\(#)(clip|gradient)', rf"\g<1>{own}\g<2>", drawn)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn, count=2)


def _figure(chart: alt.Chart | alt.LayerChart, caption: str) -> str:
    return f'<figure><div class="wide">{svg(chart)}</div><figcaption>{_text(caption)}</figcaption></figure>'


def _section(finding: str, lead: str, *contents: str) -> str:
    parts = [f"<h2>{_text(finding)}</h2>", _paragraph(lead) if lead else "", *contents]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>' if text else ""


def _table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()
) -> str:
    right, kind = set(numbers), ' class="number"'

    def line(cells: Sequence[object], tag: str) -> str:
        shown = (
            f"<{tag}{kind if place in right else ''}>{_text(str(cell))}</{tag}>" for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<div class="wide"><table><caption>{_text(caption)}</caption>\n<thead>{line(header, "th")}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _text(text: str) -> str:
    return html.escape(marks.visible(text))
