"""Extract: from the names of a dataset and a checkpoint to a features file.

`features` takes an open dataset and encoder; this package opens them. It finds stored results by the digest of
everything that determines them, and stops an extraction early if its ranking needs no more samples. Pages need only
some of its modules, so nothing is imported here.
"""
