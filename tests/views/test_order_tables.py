"""What the table of orders says of them."""

from dataclasses import replace

import pytest

from labelrank.ranking.criteria import Judged, OrderCriteria
from labelrank.views.order_tables import criteria_rows, criteria_table, orders_finding


def found(values: dict[str, tuple[float, float]]) -> OrderCriteria:
    of = {
        order: {
            "path_length": Judged(value=length, random=2.0, p=0.5),
            "distance_correlation": Judged(value=correlation, random=0.0, p=0.5),
        }
        for order, (length, correlation) in values.items()
    }
    return OrderCriteria(of=of, n_random=199, n_triples=None, left_out=(), together=tuple((name,) for name in of))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"path": (1.0, 0.2), "spectral": (1.5, 0.6)}, "path takes the shortest steps; spectral follows the distances"),
        ({"path": (1.0, 0.6), "spectral": (1.5, 0.2)}, "path puts similar classes nearest together"),
        (
            {"path": (1.0, 0.2), "optimal-leaf": (1.0, 0.2), "spectral": (1.5, 0.6)},
            "path and optimal-leaf take the shortest steps; spectral follows",
        ),
        ({"path": (1.0, 0.0), "original": (1.0, 0.0)}, "All orders have steps of the same length"),
    ],
)
def test_the_sentence_on_the_orders_names_those_that_are_best(values, says):
    assert orders_finding(found(values)).startswith(says)


def test_names_of_the_same_order_share_a_row():
    judged = replace(
        found({"path": (1.0, 0.2), "original": (2.0, 0.1), "alphabetical": (2.0, 0.1), "spectral": (2.0, 0.1)}),
        left_out=("anti_robinson_events", "anti_robinson_deviation", "group_share"),
        together=(("path",), ("original", "alphabetical"), ("spectral",)),
    )
    rows = ["path", "original, alphabetical", "spectral", "random"]
    assert [row[0] for row in criteria_rows(judged)[1]] == rows
    assert list(criteria_table(judged, "alphabetical").index) == [
        "path",
        "original, alphabetical (chosen)",
        "spectral",
        "random",
    ]


def test_the_table_of_the_page_has_minus_signs():
    judged = replace(
        found({"path": (1.0, 0.2), "original": (2.0, -0.14)}),
        left_out=("anti_robinson_events", "anti_robinson_deviation", "group_share"),
    )
    assert criteria_table(judged, "path").loc["original", "Correlation"] == "\u22120.14 · p\u00a00.50"
