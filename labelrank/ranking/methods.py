"""How classes can be put in order, by name."""

METHODS = ("centroid", "reference")
SOLVERS = ("auto", "svd", "eigen")
