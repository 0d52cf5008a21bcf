"""Put classes in order by their features. NumPy, SciPy and scikit-learn only.

`METHODS`, `ORDERS` and `SOLVERS` can be imported without loading scikit-learn, so that a menu of them is fast.
"""

from typing import TYPE_CHECKING, Any

from labelrank.ranking.methods import METHODS, ORDERS, SOLVERS

if TYPE_CHECKING:
    from labelrank.ranking.moments import ClassMoments
    from labelrank.ranking.ranker import LabelRanker
    from labelrank.ranking.stability import OrderStability

__all__ = ["METHODS", "ORDERS", "SOLVERS", "ClassMoments", "LabelRanker", "OrderStability"]


def __getattr__(name: str) -> Any:
    if name == "ClassMoments":
        from labelrank.ranking.moments import ClassMoments

        return ClassMoments
    if name == "LabelRanker":
        from labelrank.ranking.ranker import LabelRanker

        return LabelRanker
    if name == "OrderStability":
        from labelrank.ranking.stability import OrderStability

        return OrderStability
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
