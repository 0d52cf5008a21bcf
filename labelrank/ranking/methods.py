"""The names of orders of classes, solvers and priors, what each is good for, and which settings go with it."""

from __future__ import annotations

METHODS = ("centroid", "reference")
"""Orders along one axis: the methods of `LabelRanker`."""
GEOMETRY_ORDERS = ("optimal-leaf", "spectral", "path")
"""Orders by the cosine distances of `ClassGeometry`."""
NAME_ORDERS = ("original", "alphabetical", "frequency")
"""Orders that do not look at the features."""
ORDERS = METHODS + GEOMETRY_ORDERS + NAME_ORDERS
NEIGHBOURS = 10
"""Nearest classes of each class in the graph of the spectral order."""
LINKAGE = "average"
"""How the tree of the optimal leaf order measures the distance of two groups of classes."""

SOLVERS = ("auto", "svd", "eigen")
DEFAULT_SHRINKAGE = "default"
RESAMPLES, RESAMPLES_OF_MANY, MANY_CLASSES = 200, 60, 300
"""Draws that intervals of positions come from unless another number is asked for, and those of more than so many
classes, where each draw takes long: the ends of 90 % intervals of 60 draws hold 88.5 %."""
PRIORS = ("auto", "equal", "frequency")
EQUAL_PRIORS_FROM = 3
"""Priors auto are equal where the largest class has this many times the rows of the smallest, else by frequency."""
AUTO_IS = (
    "auto is the Oracle Approximating Shrinkage (OAS) of the pooled within-class covariance, not scikit-learn's "
    "shrinkage='auto', which is another estimator"
)

GOOD_FOR = {
    "centroid": "Ranks as the Label Ranker paper means it, by the one axis that separates the classes best; the axis "
    "holds only a part of what separates them. Good for models that output one score.",
    "reference": "Follows the published procedure step by step; it needs as many samples in every class.",
    "optimal-leaf": "Puts similar classes beside each other, in groups. Good for people, heat maps, confusion "
    "matrices, soft targets and trees.",
    "spectral": "Shows the coarse picture along a whole order, where groups matter less: neighbours are less alike "
    "than in optimal-leaf.",
    "path": "Takes the smallest steps from each class to the next; groups are torn apart, which spoils the picture as "
    "a whole.",
    "original": "Keeps the numbers that the dataset has, as an order to compare others with; it says nothing about "
    "the features.",
    "alphabetical": "Sorts the names, so that a class is found; it says nothing about the features.",
    "frequency": "Shows the long tail of rare classes; it says nothing about the features.",
}
"""Order -> what it is good for, in a sentence."""

SIGN_RULE = (
    "The class whose centroid lies farthest from the mean of all centroids is on the negative side; where both ends "
    "are equally far (within 1e-6 of the range), the feature with the largest loading in within-class standard "
    "deviations (the first of equals) loads positively."
)
TIE_RULE = (
    "Values closer than 1e-8 of the range are equal; then the smaller class mean vector, compared feature by feature, "
    "goes first (values closer than 1e-8 of the feature's largest mean are equal); then the smaller label."
)
_STANDS_OUT = (
    "The classes that stand out more come first: of an order and its reverse, the one in which the mean distance of a "
    "class to all, times its position counted from the middle, adds up to less than 0; where this is 0 (within 1e-6 "
    "of a position), the one that begins with the smaller class mean vector, compared feature by feature."
)
END_RULES = {
    **dict.fromkeys(METHODS, SIGN_RULE),
    **dict.fromkeys(GEOMETRY_ORDERS, _STANDS_OUT),
    "original": "The class with label 0 comes first.",
    "alphabetical": "The first name of the alphabet comes first: case and accents are ignored, and digits count as "
    "whole numbers, so that class 2 comes before class 10.",
    "frequency": "The class with most samples comes first.",
}
"""Order -> which end comes first."""
_DISTANCE_TIES = (
    "Distances are compared after 9 decimals; of equal choices, the one with the smaller class mean vector, compared "
    "feature by feature, is taken; then the smaller label."
)
TIE_RULES = {
    **dict.fromkeys(METHODS, TIE_RULE),
    **dict.fromkeys(GEOMETRY_ORDERS, _DISTANCE_TIES),
    "original": "There are no ties: labels differ.",
    "alphabetical": "Names that differ in case or accents alone are compared by their code points.",
    "frequency": "Classes with equally many samples are in alphabetical order.",
}
"""Order -> how equal classes are put in order."""


def shrinkage_asked(shrinkage: float | str | None, method: str, solver: str) -> float | str | None:
    """Return the shrinkage that is meant: None, "auto" or a number in [0, 1].

    The default is "auto", and None where nothing may shrink: method "reference" stays as published, and the svd solver
    forms no covariance.
    """
    if shrinkage != DEFAULT_SHRINKAGE:
        return shrinkage
    return None if method == "reference" or solver == "svd" else "auto"


def refusal(order: str, solver: str, shrinkage: float | str | None) -> str | None:
    """Return why an order does not take these settings, as a sentence with the way out; None where it does."""
    if order not in ORDERS:
        return f"There is no order {order!r}; choose one of {', '.join(ORDERS)}."
    if order in NAME_ORDERS and (solver != "auto" or shrinkage != DEFAULT_SHRINKAGE):
        setting = f"solver {solver}" if solver != "auto" else f"shrinkage {shrinkage or 'none'}"
        return f"Order {order} does not look at the features and takes no {setting}. Leave it out."
    if order in GEOMETRY_ORDERS and solver == "svd":
        return f"Order {order} needs the within-class covariance, which solver svd does not form. Use auto or eigen."
    if solver == "svd" and shrinkage_asked(shrinkage, order, solver) is not None:
        return (
            f"Shrinkage {shrinkage} needs the within-class covariance, which solver svd does not form. "
            "Use solver auto or eigen, or no shrinkage."
        )
    return None
