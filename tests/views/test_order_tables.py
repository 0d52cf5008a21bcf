"""What the table of orders says of them."""

import pytest

from labelrank.ranking.criteria import Judged, OrderCriteria
from labelrank.views.order_tables import orders_finding


def found(values: dict[str, tuple[float, float]]) -> OrderCriteria:
    of = {
        order: {
            "path_length": Judged(value=length, random=2.0, p=0.5),
            "distance_correlation": Judged(value=correlation, random=0.0, p=0.5),
        }
        for order, (length, correlation) in values.items()
    }
    return OrderCriteria(of=of, n_random=199, n_triples=None, left_out=())


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
