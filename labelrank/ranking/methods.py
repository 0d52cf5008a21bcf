"""The names of the ranking methods, solvers and priors, and which shrinkage they take by default."""

from __future__ import annotations

METHODS = ("centroid", "reference")
SOLVERS = ("auto", "svd", "eigen")
DEFAULT_SHRINKAGE = "default"
PRIORS = ("auto", "equal", "frequency")
EQUAL_PRIORS_FROM = 3
"""Priors auto are equal where the largest class has this many times the rows of the smallest, else by frequency."""
AUTO_IS = (
    "auto is the Oracle Approximating Shrinkage (OAS) of the pooled within-class covariance, not scikit-learn's "
    "shrinkage='auto', which is another estimator"
)


def shrinkage_asked(shrinkage: float | str | None, method: str, solver: str) -> float | str | None:
    """Return the shrinkage that is meant: None, "auto" or a number in [0, 1].

    The default is "auto", and None where nothing may shrink: method "reference" stays as published, and the svd solver
    forms no covariance.
    """
    if shrinkage != DEFAULT_SHRINKAGE:
        return shrinkage
    return None if method == "reference" or solver == "svd" else "auto"
