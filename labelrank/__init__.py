"""Rank the labels of a dataset along one axis of a masked autoencoder's features.

`open_label_map` takes an order into your own code. The heavy parts are imported from their modules
(`labelrank.ranking`, `labelrank.label_map`, ...), so that `import labelrank` loads nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "open_label_map"]


def __getattr__(name: str) -> Any:
    if name == "open_label_map":
        return import_module("labelrank.ranked_labels").open_label_map
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
