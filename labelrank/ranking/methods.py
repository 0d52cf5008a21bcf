"""The names of the ranking methods and solvers."""

METHODS = ("centroid", "reference")
SOLVERS = ("auto", "svd", "eigen")
