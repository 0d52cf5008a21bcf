"""Charts and pictures of data: frames and arrays in, altair charts and image bytes out.

No chart sets a background or a text colour, so that one specification reads well on a light and on a dark page.
"""

from __future__ import annotations

import base64
import io
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

STRIP_PIXELS = 72
"""Height and width of a picture in a strip."""
CLIP_PIXELS = 96
"""Height and width of a video in a strip."""
CLIP_FRAMES = 8
"""Frames of a video in a strip."""
CLIP_FRAME_MS = 160
MAX_POINTS = 20_000
"""Samples drawn in one chart; a browser's canvas stays quick up to here."""
MAX_PICTURES = 3_000
"""Samples whose picture travels with the chart; about 1 kB each."""
LABELLED_CLASSES = 60
"""Up to here every class has a row with a label of readable size."""
ROW_CLASSES = 200
"""Up to here every class has a row with a small label; beyond, rows melt into quantile ribbons."""
AXIS_HEIGHT = {"one line": 74, "two lines": 94}
"""Pixels that the x axis takes: the page fits a chart with its axes into the height asked for."""
SAMPLE_NOUNS = {"image": ("image", "images"), "clip": ("video", "videos")}
"""What a page calls one sample, and several, of each medium."""
STABILITY_HEIGHT = 300
TAUS = (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TAUS_FROM_REVERSE = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Ticks of an axis of tau, and of one far below 0."""
DIRECTION_GAP = 0.15
"""From so much more tau without the direction on, that is told and drawn."""
NEUTRAL = "#6b8aa0"
ACCENT = "#2f7f95"
_DIRECTION_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def visible(name: str) -> str:
    """Return `name` on one line, with each control or direction-changing character as its escape."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _DIRECTION_CONTROLS
        else character
        for character in name
    )


def shorten(name: str, length: int = 40) -> str:
    """Return `name` on one line with at most `length` characters."""
    text = visible(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Return the sRGB hex colour of an OKLCH one (Ottosson 2020); channels outside sRGB are clipped."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )

    def encode(value: float) -> int:
        value = min(max(value, 0.0), 1.0)
        return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))

    return "#" + "".join(f"{encode(value):02x}" for value in linear)


def position_colours(n_classes: int) -> list[str]:
    """Return one hex colour per position, even in OKLCH: violet first, then blue, green, ochre last.

    Lightness stays between 0.52 and 0.70, where a colour has a contrast of about 3:1 to a white and to a near-black
    page alike.
    """
    steps = [0.5] if n_classes == 1 else [i / (n_classes - 1) for i in range(n_classes)]
    return [_oklch(0.52 + 0.18 * t, 0.135, 295 - 225 * t) for t in steps]


def stratified_mask(labels: np.ndarray, limit: int) -> np.ndarray:
    """Return which rows to show so that at most about `limit` are, evenly over the classes.

    Args:
        labels: Class of each row, int (n,).
        limit: Rows wanted; every class keeps at least one, so that more classes than `limit` give more rows.

    Returns:
        bool (n,). Within a class the rows are evenly spaced, so that the same input gives the same rows.
    """
    if len(labels) <= limit:
        return np.ones(len(labels), dtype=bool)
    mask = np.zeros(len(labels), dtype=bool)
    classes = np.unique(labels)
    quota = max(1, limit // len(classes))
    for label in classes:
        rows = np.flatnonzero(labels == label)
        if len(rows) > quota:
            rows = rows[np.linspace(0, len(rows) - 1, quota).round().astype(int)]
        mask[rows] = True
    return mask


def thumbnail_uri(image: np.ndarray, size: int = 48) -> str:
    """Return `image`, uint8 (H, W, 3), as a data URI of at most `size` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    png = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    picture.save(png, format="PNG")
    kind, data = min(("jpeg", buffer.getvalue()), ("png", png.getvalue()), key=lambda pair: len(pair[1]))
    return data_uri(data, kind)


def data_uri(data: bytes, kind: str) -> str:
    """Return a picture's file, of the kind jpeg, png or webp, as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def fitted(image: np.ndarray, size: int = STRIP_PIXELS) -> np.ndarray:
    """Return a picture uint8 (H, W, 3) shrunk into a square of `size` pixels; smaller ones as they are."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(picture)


def picture_strip(images: Sequence[np.ndarray], *, columns: int, size: int = STRIP_PIXELS, gap: int = 6) -> bytes:
    """Return a PNG with `images`, uint8 (H, W, 3), side by side, each fitted into a square of `size` pixels.

    Empty places and gaps are transparent. The strip is as wide as `columns` pictures, so that the strips of
    classes with few pictures keep the scale of the others.
    """
    from PIL import Image

    strip = Image.new("RGBA", (columns * size + (columns - 1) * gap, size), (0, 0, 0, 0))
    for column, image in enumerate(images[:columns]):
        picture = Image.fromarray(image)
        scale = size / max(picture.size)
        shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(shape, Image.Resampling.LANCZOS)
        strip.paste(picture, (column * (size + gap) + (size - shape[0]) // 2, (size - shape[1]) // 2))
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG")
    return buffer.getvalue()


def clip_strip(clips: Sequence[np.ndarray], *, columns: int, size: int = CLIP_PIXELS, gap: int = 6) -> bytes:
    """Return an animated WebP of `clips`, each uint8 (T, H, W, 3), playing side by side without end.

    A clip with fewer frames than the longest waits on its last one. Empty places are transparent, as in
    `picture_strip`.
    """
    from PIL import Image

    length = max(len(clip) for clip in clips[:columns])
    frames = [
        Image.open(
            io.BytesIO(
                picture_strip([clip[min(t, len(clip) - 1)] for clip in clips], columns=columns, size=size, gap=gap)
            )
        )
        for t in range(length)
    ]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WebP",
        save_all=True,
        append_images=frames[1:],
        duration=CLIP_FRAME_MS,
        loop=0,
        quality=60,
        method=3,
    )
    return buffer.getvalue()


def class_counts_finding(class_names: Sequence[str], counts: np.ndarray, media: str = "image") -> str:
    """Return what the class counts say, in one sentence.

    Args:
        class_names: Names by label.
        counts: Samples per label, int (n_classes,).
        media: What a sample is; see `SAMPLE_NOUNS`.
    """
    one, many = SAMPLE_NOUNS[media]
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return f"Every class has {high:,} {one if high == 1 else many}"
    rarest, largest = shorten(class_names[int(counts.argmin())]), shorten(class_names[int(counts.argmax())])
    if low == 0:
        empty = int((counts == 0).sum())
        return f"{empty:,} {'class has' if empty == 1 else 'classes have'} no {one}; {largest} has {high:,}"
    ratio = f"{high / low:,.2f}"
    return f"The largest class has {ratio} times the {many} of the smallest ({largest} {high:,}, {rarest} {low:,})"


def class_counts_chart(class_names: Sequence[str], counts: np.ndarray, media: str = "image") -> alt.Chart:
    """Return the samples per class as bars, largest first.

    Args:
        class_names: Names by label.
        counts: Samples per label, int (n_classes,).
        media: What a sample is; see `SAMPLE_NOUNS`.
    """
    many = SAMPLE_NOUNS[media][1]
    order = np.argsort(-counts, kind="stable")
    frame = pd.DataFrame(
        {
            "rank": range(len(order)),
            "class": [shorten(class_names[i]) for i in order],
            "label": order,
            "count": counts[order],
        }
    )
    row, axis = rows(list(frame["class"]))
    return (
        alt.Chart(frame)
        .mark_bar(color=ACCENT, height={"band": 0.72})
        .encode(
            x=alt.X("count:Q", title=many.capitalize(), axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6)),
            y=alt.Y("rank:O", title=None, axis=axis),
            tooltip=[
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("count:Q", title=many, format=",d"),
                alt.Tooltip("label:Q", title="label"),
            ],
        )
        .properties(height=row * len(frame) + AXIS_HEIGHT["one line"])
    )


def rows(names: list[str]) -> tuple[float, alt.Axis]:
    """Return the height of one class's row in pixels and the axis that names the rows."""
    count = len(names)
    row = 26.0 if count <= 20 else 16.0 if count <= LABELLED_CLASSES else 9.0
    size = 12 if count <= 20 else 11 if count <= LABELLED_CLASSES else 8
    if count > ROW_CLASSES:
        row = 1800 / count
    return row, alt.Axis(
        # The names travel as string literals in the expression: a row is its index, so that no two names can merge.
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelFontSize=size,
        labelLimit=120,
        labelFlush=False,
        labelOverlap=count > ROW_CLASSES,
        labelPadding=6,
        ticks=False,
        domain=False,
        grid=False,
    )


def projection_finding(class_names: Sequence[str], share: float) -> str:
    """Return what the projection shows, in one sentence.

    Args:
        class_names: Names in ranked order.
        share: Between-class variance on this axis, as a fraction in [0, 1].
    """
    first, last = shorten(class_names[0], 30), shorten(class_names[-1], 30)
    return f"The order runs from {first} to {last}; this axis holds {share:.0%} of the variance between classes"


def projection_chart(samples: pd.DataFrame, classes: pd.DataFrame) -> alt.LayerChart:
    """Return the projection in the form of the paper's Fig. 3: one line per class, sorted by centroid.

    Args:
        samples: Columns position (int), projection (float, in within-class standard deviations), key, class, image
            (data URI or None); one row per sample drawn.
        classes: Columns position, class, centroid, count and the quantiles of `QUANTILES`; one row per class.

    Source: Xiang, Wu, Bai 2025, Fig. 3. Beyond `ROW_CLASSES` classes the samples are drawn as ribbons between
    quantiles.
    """
    classes = classes.sort_values("position")
    if len(classes) > ROW_CLASSES:
        return _ribbons(classes)
    names = [shorten(name) for name in classes["class"]]
    row, axis = rows(names)
    tick = min(row * 0.9, 20)
    x = alt.X(
        "projection:Q",
        title=["Projection on the first discriminant", "(within-class standard deviations)"],
        scale=alt.Scale(nice=True, zero=False, padding=8),
        axis=alt.Axis(grid=True, tickCount=7),
    )
    y = alt.Y("position:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(names)))))
    colour = alt.Color(
        "position:O",
        legend=None,
        scale=alt.Scale(domain=list(range(len(names))), range=position_colours(len(names))),
    )
    points = (
        alt.Chart(samples)
        .mark_circle(size=34 if row > 12 else 14, opacity=0.42)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                alt.Tooltip("image:N"),
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("projection:Q", title="projection", format=".2f"),
                alt.Tooltip("key:N", title="key"),
            ],
        )
    )
    # Dark with a light rim: readable on a light and on a dark page without asking which one it is.
    centroids = (
        alt.Chart(classes)
        .mark_point(
            shape="M-0.14,-1H0.14V1H-0.14Z", size=tick**2, fill="#14181d", stroke="#ffffff", strokeWidth=1, opacity=1
        )
        .encode(
            x=alt.X("centroid:Q"),
            y=y,
            tooltip=[
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("position:Q", title="position"),
                alt.Tooltip("centroid:Q", title="centroid", format=".2f"),
                alt.Tooltip("count:Q", title="samples", format=",d"),
            ],
        )
    )
    return alt.layer(points, centroids).properties(height=row * len(names) + AXIS_HEIGHT["two lines"])


def _ribbons(classes: pd.DataFrame) -> alt.LayerChart:
    """Return the classes' quantiles as ribbons down the positions."""
    y = alt.Y(
        "position:Q",
        title="Position",
        scale=alt.Scale(reverse=True, nice=False, domain=[0, int(classes["position"].max())]),
    )
    title = ["Projection on the first discriminant", "(within-class standard deviations)"]
    tooltip = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("position:Q", title="position", format=",d"),
        alt.Tooltip("centroid:Q", title="centroid", format=".2f"),
        alt.Tooltip("count:Q", title="samples", format=",d"),
    ]
    base = alt.Chart(classes)
    wide = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.25).encode(
        x=alt.X("q05:Q", title=title, scale=alt.Scale(zero=False)), x2="q95:Q", y=y
    )
    middle = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.45).encode(
        x=alt.X("q25:Q", title=title), x2="q75:Q", y=y
    )
    colours = position_colours(16)
    centroids = base.mark_circle(size=16).encode(
        x=alt.X("centroid:Q", title=title),
        y=y,
        color=alt.Color("position:Q", legend=None, scale=alt.Scale(range=colours)),
        tooltip=tooltip,
    )
    return alt.layer(wide, middle, centroids).properties(height=620)


def stability_points(stability: Mapping[str, Any]) -> pd.DataFrame:
    """Return the estimates that can be drawn, in what the target means.

    Args:
        stability: As an extraction reports it: target, either_direction, points, unknown, projection, needed, classes.

    Returns:
        Columns per_class, n_samples, tau, low, high, and aligned: what tau would be if an order and its reverse were
        the same, NaN where that is tau already or is not known; and segment, which counts on where counts of samples
        lie between for which there is no estimate. Estimates without a number are left out.
    """
    points, either = stability["points"], stability["either_direction"]
    names = {"tau": "aligned", "low": "aligned_low", "high": "aligned_high"} if either else {}
    frame = pd.DataFrame(
        {
            name: pd.to_numeric(pd.Series([point[names.get(name, name)] for point in points], dtype=object))
            for name in ("per_class", "n_samples", "tau", "low", "high", "aligned")
        }
    ).astype(float)
    # The order of two classes and its reverse are all there are: that these agree says nothing.
    if either or stability["classes"] == 2:
        frame["aligned"] = np.nan
    unknown = np.sort(np.asarray(stability["unknown"], dtype=float))
    frame["segment"] = np.searchsorted(unknown, frame["per_class"].to_numpy())
    return frame.dropna(subset=["per_class", "tau", "low", "high"]).reset_index(drop=True)


def direction_gap(points: pd.DataFrame) -> float | None:
    """Return the last tau but for the direction where that is much higher than tau, else None.

    Args:
        points: As `stability_points` returns them; at least one.
    """
    last = points.iloc[-1]
    # With NaN the comparison is false.
    return float(last["aligned"]) if last["aligned"] - last["tau"] >= DIRECTION_GAP else None


def stability_finding(stability: Mapping[str, Any], most: float | None = None) -> str:
    """Return how steady the order is and whether that is enough, in one sentence.

    Args:
        stability: As for `stability_points`.
        most: Mean samples per class at which the extraction ends at the latest; None: unknown.
    """
    target, needed, points = stability["target"], stability["needed"], stability_points(stability)
    if points.empty:
        return "Too few samples yet to tell how steady the order is"
    tau, whichever = points["tau"].iloc[-1], " in either direction" if stability["either_direction"] else ""
    finding = f"Expected tau {tau:.2f}{whichever} at {per_class_text(points['per_class'].iloc[-1])} per class"
    if (aligned := direction_gap(points)) is not None:
        finding += f" ({aligned:.2f} but for its direction)"
    if target is None:
        return finding
    if tau >= target:
        return f"{finding}: {target:.2f} is reached"
    if needed is None:
        return f"{finding}; when {target:.2f} is reached cannot be told yet"
    if most is not None and needed > most:
        here = per_class_text(most)
        return f"{finding}; {target:.2f} would take about {per_class_text(needed)}, more than the {here} here"
    return f"{finding}; {target:.2f} is expected at about {per_class_text(needed)}"


def per_class_text(count: float) -> str:
    """Return a mean number of samples per class in sensible digits: 8, 8.5, 120, 1,300."""
    if count >= 1000:
        return f"{round(count, -2):,.0f}"
    return f"{count:.0f}" if count >= 20 or count == int(count) else f"{count:.1f}"


def stability_chart(stability: Mapping[str, Any]) -> alt.LayerChart:
    """Return the expected Kendall tau over the samples per class, with its interval, projection and target.

    Where an order and its reverse do not count as the same and tau would be much higher if they did, that is a
    second, thin line.

    Args:
        stability: As for `stability_points`, which returns at least one.
    """
    target, points = stability["target"], stability_points(stability)
    last = points.iloc[-1]
    ahead = _ahead(stability, last)
    first, end = float(points["per_class"].iloc[0]), float(ahead["per_class"].iloc[-1])
    ticks = [2**power for power in range(21) if first / 2 < 2**power < 2 * end]
    low = min(0.0, float(points["low"].min()), float(points["tau"].min()))
    taus = [tau for tau in (TAUS if low > -0.3 else TAUS_FROM_REVERSE) if tau >= low]
    title = "Expected tau, either direction" if stability["either_direction"] else "Expected tau"
    x = alt.X(
        "per_class:Q",
        title="Samples per class",
        scale=alt.Scale(type="log", domain=[first / 1.15, end * 1.15], nice=False),
        axis=alt.Axis(values=ticks, format=",d", grid=False),
    )
    y = alt.Y("tau:Q", title=title, scale=alt.Scale(domain=[low, 1]), axis=alt.Axis(values=taus, format=".1f"))
    tooltip = [
        alt.Tooltip("per_class:Q", title="per class", format=",.3~g"),
        alt.Tooltip("n_samples:Q", title="samples", format=",d"),
        alt.Tooltip("tau:Q", title="expected tau", format=".2f"),
        alt.Tooltip("low:Q", title="90 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
    ]
    base = alt.Chart(points)
    band = base.mark_area(color=ACCENT, opacity=0.18).encode(
        x=x, y=alt.Y("low:Q", title=title), y2="high:Q", detail="segment:N"
    )
    if len(points) == 1:
        band = base.mark_rule(color=ACCENT, opacity=0.5, strokeWidth=3).encode(x=x, y="low:Q", y2="high:Q")
    line = base.mark_line(color=ACCENT, strokeWidth=2).encode(x=x, y=y, detail="segment:N")
    marks = base.mark_circle(color=ACCENT, size=48, opacity=1).encode(x=x, y=y, tooltip=tooltip)
    layers = [band, line, marks]
    if len(ahead) > 1:
        layers.insert(1, alt.Chart(ahead).mark_line(color=ACCENT, strokeDash=[5, 4], opacity=0.8).encode(x=x, y=y))
    if direction_gap(points) is not None:
        # About as much as the name takes of a narrow chart.
        room = end / float(last["per_class"]) >= (end / first) ** 0.25 > 1
        layers += _without_direction(points, x, target=target, room=room)
    if target is not None:
        wanted = alt.Chart(pd.DataFrame({"tau": [target], "text": [f"target {target:.2f}"]}))
        layers.insert(0, wanted.mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(y=y))
        layers.append(
            wanted.mark_text(align="left", baseline="bottom", dx=4, dy=-3, color=NEUTRAL).encode(
                x=alt.value(0), y=y, text="text:N"
            )
        )
    return alt.layer(*layers).properties(height=STABILITY_HEIGHT)


def _ahead(stability: Mapping[str, Any], last: pd.Series) -> pd.DataFrame:
    """Return what is drawn of the projection, columns per_class and tau, from the last estimate on."""
    ahead = pd.DataFrame(stability["projection"], columns=["per_class", "tau"], dtype=float).dropna()
    ahead = ahead[ahead["per_class"] > last["per_class"]]
    if stability["target"] is not None and stability["needed"] is not None:
        # As far as the answer to what the target takes, and one point beyond it.
        ahead = ahead[ahead["per_class"].shift(fill_value=0) <= stability["needed"]]
    else:
        ahead = ahead[ahead["per_class"] <= 4 * last["per_class"]]
    return pd.concat([last[["per_class", "tau"]].to_frame().T, ahead])


def _without_direction(points: pd.DataFrame, x: alt.X, *, target: float | None, room: bool) -> list[alt.Chart]:
    """Return the layers of the tau that leaves the direction out: a thin line with its name at the end.

    Args:
        room: Whether there is room for the name behind the end; else it is before that.
    """
    known = points.dropna(subset=["aligned"])
    last = known.tail(1).assign(text="either direction")
    # The name keeps off the line of the target.
    above = target is None or bool(last["aligned"].iloc[0] > target)
    line = alt.Chart(known).mark_line(
        color=ACCENT, strokeWidth=1, point=alt.OverlayMarkDef(color=ACCENT, size=12, filled=True)
    )
    name = alt.Chart(last).mark_text(
        align="left" if room else "right",
        baseline="bottom" if above else "top",
        dx=6 if room else 0,
        dy=-3 if above else 3,
        color=ACCENT,
    )
    y = alt.Y("aligned:Q")
    return [line.encode(x=x, y=y, detail="segment:N"), name.encode(x=x, y=y, text="text:N")]
