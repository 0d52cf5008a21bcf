"""How accurate encoders are expected to be, beside what they cost, as a chart."""

from __future__ import annotations

import pandas as pd

from labelrank.steps.encoders import EncoderComparison
from labelrank.views.chart_theme import alt
from labelrank.views.marks import ACCENT, shorten

_HEIGHT = 300


def encoder_chart(found: EncoderComparison) -> alt.LayerChart | None:
    """Return expected accuracy against seconds for 1,000 samples; None where fewer than two files say how long it took.

    Bars are the 95 % intervals of the accuracy. Encoders without a time are left out; see `untimed_text`.
    """
    timed = [one for one in found.encoders if one.seconds_per_1000 is not None]
    if len(timed) < 2:
        return None
    frame = pd.DataFrame(
        {
            "name": [shorten(one.name, 60) for one in timed],
            "seconds": [one.seconds_per_1000 for one in timed],
            "lda": [100 * one.lda.value for one in timed],
            "low": [100 * one.lda.low for one in timed],
            "high": [100 * one.lda.high for one in timed],
        }
    )
    # Names point inwards, so that none leaves the chart.
    least, most = frame["seconds"].min(), frame["seconds"].max()
    frame["inwards"] = frame["seconds"] > (least * most) ** 0.5
    x = alt.X(
        "seconds:Q",
        title="Seconds for 1,000 samples (log scale)",
        scale=alt.Scale(type="log", domain=[least / 1.6, most * 1.6], nice=False),
        axis=alt.Axis(tickCount=5, format="~g", grid=False),
    )
    low, y = (
        alt.Y(f"{name}:Q", title="Expected accuracy, LDA (%)", scale=alt.Scale(zero=False, nice=True, padding=12))
        for name in ("low", "lda")
    )
    tooltip = [
        alt.Tooltip("name:N", title="encoder"),
        alt.Tooltip("lda:Q", title="expected accuracy (%)", format=".1f"),
        alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("seconds:Q", title="s for 1,000 samples", format=",.3~g"),
    ]
    base = alt.Chart(frame)
    bars = base.mark_rule(color=ACCENT, strokeWidth=2, opacity=0.6).encode(x=x, y=low, y2="high:Q")
    points = base.mark_circle(color=ACCENT, size=90, opacity=1).encode(x=x, y=y, tooltip=tooltip)
    texts = [
        base.transform_filter(f"datum.inwards === {str(inwards).lower()}")
        .mark_text(align=align, dx=gap, dy=-9, fontSize=12, limit=190)
        .encode(x=x, y=y, text="name:N", tooltip=tooltip)
        for inwards, align, gap in ((False, "left", 4), (True, "right", -4))
    ]
    return alt.layer(bars, points, *texts).properties(height=_HEIGHT)
