"""Export the encoders that come with labelrank, for a first run that needs no Keras.

    python -m tests.models.shipped_encoders [FOLDER]

`make encoders` writes assets/encoders with it: after a new version of labelrank, Keras or OpenVINO, and after a change
of the model. Each process gives the same bytes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from unittest import mock

from labelrank.models.checkpoint import open_checkpoint
from labelrank.models.runtime import compile_encoder, shipped_encoders

NAMES = ("mae-tiny-digits",)
"""Those of `labelrank demo`; each takes 2 MB."""


def main(folder: Path) -> None:
    """Write the encoders to a folder, in place of those that are there."""
    shutil.rmtree(folder, ignore_errors=True)
    # Those that came with labelrank are not copied.
    with mock.patch("labelrank.models.runtime.shipped_encoders", return_value=folder / "none"):
        for name in NAMES:
            compile_encoder(open_checkpoint(name), cache=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else shipped_encoders())
