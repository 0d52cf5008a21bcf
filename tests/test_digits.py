"""The embedded dataset: scikit-learn's digits, in fixed splits."""

import numpy as np
import pytest

from labelrank.data.dataset import SPLITS
from labelrank.data.digits import digits
from labelrank.errors import DatasetError

DIGESTS = ["44f2c51d5f00", "e6b741fbe177", "481a27a8d097"]


def test_pictures_and_labels_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    found = {}
    for split in SPLITS:
        data = digits(split)
        for sample in data.samples:
            index = int(sample.key.split("/")[-1].removesuffix(".png"))
            found[index] = sample.label
            picture = data.load(sample)
            assert picture.shape == (32, 32, 3)
            assert picture.dtype == np.uint8
            # The centre of each 4x4 block is near the scan's own level (bicubic enlargement overshoots a little).
            levels = picture[:, :, 0].reshape(8, 4, 8, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3)) * (16 / 255)
            assert np.abs(levels - scans[index].reshape(8, 8)).mean() < 1
    assert found == dict(enumerate(labels))


def test_splits_are_fixed_and_stratified():
    counts = {split: digits(split).class_counts for split in SPLITS}
    assert counts["val"].tolist() == counts["test"].tolist() == [25] * 10
    assert counts["train"].sum() == 1297
    # Changing these changes every published number.
    assert [digits(split).digest[:12] for split in SPLITS] == DIGESTS
    assert digits(None).split == "train"


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(DatasetError, match="no split 'dev'; choose one of train, val, test"):
        digits("dev")


def test_importing_it_needs_no_scikit_learn(run_python):
    program = "import sys; from labelrank.data.digits import digits; digits('val'); print('sklearn' in sys.modules)"
    assert run_python(program) == "False"
