"""How a ranker learns: its agreement with the scores, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labelrank.patches.ranker_recipe import RankerEpoch
from labelrank.views import marks
from labelrank.views.chart_theme import alt


def ranker_chart(epochs: Sequence[RankerEpoch]) -> alt.Chart:
    """Return Spearman's correlation with the held-out scores over the epochs.

    Args:
        epochs: At least one.
    """
    frame = pd.DataFrame(
        {
            "epoch": range(1, len(epochs) + 1),
            "spearman": [one.spearman for one in epochs],
            "ndcg": [one.ndcg for one in epochs],
            "loss": [one.loss for one in epochs],
        }
    )
    return (
        alt.Chart(frame)
        .mark_line(point=True, color=marks.ACCENT)
        .encode(
            x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("spearman:Q", title="Spearman with the scores", scale=alt.Scale(zero=True)),
            tooltip=[
                alt.Tooltip("epoch:Q", title="epoch"),
                alt.Tooltip("spearman:Q", title="Spearman", format=".3f"),
                alt.Tooltip("ndcg:Q", title="NDCG", format=".3f"),
                alt.Tooltip("loss:Q", title="loss", format=".3f"),
            ],
        )
        .properties(height=220)
    )
