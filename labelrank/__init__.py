"""Rank the labels of a dataset along one axis of a masked autoencoder's features.

The heavy parts are imported from their modules (`labelrank.ranking`, `labelrank.label_map`, ...), so that
`import labelrank` loads nothing.
"""

__version__ = "0.2.0.dev0"
__all__ = ["__version__"]
