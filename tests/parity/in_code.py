"""Hand a label map to the libraries that train, each as it is installed: datasets, torchvision, transformers, Keras.

    python tests/parity/in_code.py

Runs the examples of docs/python.md whose libraries are installed, and more of `apply`, in an environment of its own:
for example `pip install datasets` beside NumPy and Pillow. labelrank itself need not be installed; pytest does not
collect this. Prints what ran; exits 1 where something fails, or where nothing was there to run.
"""
# ruff: noqa: E402 (labelrank is found by the path that is set first)

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from labelrank.errors import LabelMapError
from labelrank.ranked_labels import RankedLabels
from tests.helpers.python_page import NAMES, ORDER, pets_map, prepare, run_page

LABELS = RankedLabels(pets_map())
POSITION_OF = [ORDER.index(label) for label in range(len(NAMES))]


def check_datasets() -> None:
    """Hand `apply` each sort of column and dataset; raise AssertionError where a row has another class than before."""
    import datasets

    y = [0, 1, 2, 3, 3, 1]
    features = datasets.Features(
        {
            "a": datasets.Value("int64"),
            "label": datasets.ClassLabel(names=list(NAMES)),
            "text": datasets.Value("string"),
            "number": datasets.Value("int32"),
        }
    )
    rows = {"a": list(range(6)), "label": y, "text": [NAMES[n] for n in y], "number": y}
    data = datasets.Dataset.from_dict(rows, features=features)
    before = data.to_dict()
    positions = [POSITION_OF[n] for n in y]
    for column in ("label", "text", "number"):
        ranked = LABELS.apply(data, column)
        assert ranked.features[column] == datasets.ClassLabel(names=LABELS.class_names), ranked.features
        assert ranked.column_names == data.column_names
        assert list(ranked[column]) == positions
        assert ranked.features[column].int2str(positions) == [NAMES[n] for n in y]
        assert list(ranked["a"]) == rows["a"]
    assert data.to_dict() == before
    # A dataset that was reordered and cut, and one whose numbers go another way.
    cut = data.shuffle(seed=0).select(range(4))
    assert [NAMES[n] for n in cut["label"]] == LABELS.apply(cut).features["label"].int2str(LABELS.apply(cut)["label"])
    turned = data.cast_column("text", datasets.ClassLabel(names=list(NAMES)[::-1]))
    assert list(LABELS.apply(turned, "text")["text"]) == positions
    # Applied twice, nothing changes.
    assert LABELS.apply(LABELS.apply(data)).to_dict() == LABELS.apply(data).to_dict()
    both = LABELS.apply(datasets.DatasetDict(train=data, test=data.select([5])), "label")
    assert isinstance(both, datasets.DatasetDict)
    assert list(both["test"]["label"]) == [POSITION_OF[1]]
    streamed = LABELS.apply(data.to_iterable_dataset())
    assert [row["label"] for row in streamed] == positions
    assert streamed.features["label"].names == LABELS.class_names
    missing = datasets.Dataset.from_dict({"label": [-1, 2]}, features=datasets.Features({"label": features["label"]}))
    assert list(LABELS.apply(missing)["label"]) == [-1, POSITION_OF[2]]
    other = datasets.Dataset.from_dict(
        {"label": [0]}, features=datasets.Features({"label": datasets.ClassLabel(names=["cat", "gnu"])})
    )
    for bad, column in ((other, None), (data, "a"), (data, "none"), (data.remove_columns("label"), None)):
        try:
            LABELS.apply(bad, column)
        except LabelMapError as error:
            print(f"  refused: {error}")
        else:
            raise AssertionError(f"{column} was not refused")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        ran = run_page(Path(folder))
    for title, done in ran.items():
        print(f"{title}: {'ok' if done else 'left out, its library is not installed'}")
    if find_spec("datasets"):
        check_datasets()
        print("apply: ok")
    if sum(ran.values()) < 2:
        raise SystemExit("Nothing to run: install datasets, torchvision, transformers or keras.")


if __name__ == "__main__":
    main()
