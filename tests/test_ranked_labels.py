"""A label map in the code that trains; tests/parity/in_code.py has what needs datasets, torchvision or transformers."""

import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import labelrank
from labelrank.errors import LabelMapError
from labelrank.ranked_labels import RankedLabels
from tests.helpers.label_maps import make_map, three_cycle
from tests.helpers.python_page import ORDER, prepare


@pytest.fixture
def labels(tmp_path):
    # Label 0 ant -> position 1, label 1 bee -> position 2, label 2 cat -> position 0.
    three_cycle().save(tmp_path / "map.json")
    return labelrank.open_label_map(tmp_path / "map.json")


def test_names_and_positions_are_those_of_the_map(labels):
    assert labels.class_names == ["cat", "ant", "bee"]
    assert labels.id2label == {0: "cat", 1: "ant", 2: "bee"}
    assert labels.label2id == {"cat": 0, "ant": 1, "bee": 2}
    assert labels.label_map == three_cycle()


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.array])
def test_a_target_becomes_its_position(labels, kind):
    assert [labels.target_transform(kind(label)) for label in range(3)] == [1, 2, 0]
    assert type(labels.target_transform(kind(0))) is int


def test_a_dataset_with_its_own_numbers_goes_by_names(labels):
    transform = labels.target_transform_for(["cat", "bee", "ant"])
    assert [transform(number) for number in range(3)] == [0, 2, 1]
    assert pickle.loads(pickle.dumps(transform))(1) == 2
    assert pickle.loads(pickle.dumps(labels.target_transform))(1) == 2


def test_a_number_that_may_be_a_name_or_a_label_is_not_guessed():
    """Labels 1, 2, 3 of a table become the classes '1', '2', '3' of labels 0, 1, 2."""
    named = RankedLabels(make_map(["1", "2", "3"], [2, 0, 1]))
    with pytest.raises(LabelMapError, match=r"label 0 is '1'.*target_transform_for.*label2id\[str"):
        named.target_transform(1)
    assert [named.label2id[str(label)] for label in (1, 2, 3)] == [1, 2, 0]
    assert RankedLabels(make_map(["0", "1"], [1, 0])).target_transform(1) == 0


@pytest.mark.parametrize(
    ("names", "order", "positions"),
    [
        (["1", "2", "3"], [2, 0, 1], {1: 1, 2: 2, 3: 0}),
        (["-1", "1"], [1, 0], {-1: 1, 1: 0}),
        (["ant", "bee"], [1, 0], {0: 1, 1: 0, -1: -1}),
        (["0", "1"], [1, 0], {0: 1, 1: 0, -1: -1}),
    ],
)
def test_a_column_of_numbers_goes_by_the_names_that_these_are(names, order, positions):
    library = SimpleNamespace(ClassLabel=type("ClassLabel", (), {}), Value=SimpleNamespace)
    recode = RankedLabels(make_map(names, order))._recoding(SimpleNamespace(dtype="int64"), "number", library)
    assert recode([*positions, None]) == [*positions.values(), None]
    with pytest.raises(LabelMapError):
        recode([7])


@pytest.mark.parametrize("label", [-1, 3, "ant", 1.5, None])
def test_a_target_that_there_is_not_is_an_error(labels, label):
    for transform in (labels.target_transform, labels.target_transform_for(["ant", "bee", "cat"])):
        with pytest.raises(
            LabelMapError, match="expected 0 to 2" if isinstance(label, int) else "expected a whole number"
        ):
            transform(label)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "bee"], "this dataset lacks 'cat'"),
        (["ant", "bee", "dog"], "does not know 'dog'; this dataset lacks 'cat'"),
        (["ant", "bee", "cat", "cat"], "a name is there twice"),
        ("abc", "expected a list of texts"),
        ([0, 1, 2], "expected a list of texts"),
    ],
)
def test_a_dataset_of_other_classes_is_refused(labels, names, message):
    with pytest.raises(LabelMapError, match=message):
        labels.target_transform_for(names)


@pytest.mark.parametrize("what", [[1, 2], {"label": [0]}, np.arange(3)])
def test_what_is_no_dataset_is_told(labels, what):
    with pytest.raises(LabelMapError, match="expected a Dataset or DatasetDict of the library datasets"):
        labels.apply(what)


def test_a_file_that_is_no_label_map_is_told(tmp_path):
    with pytest.raises(LabelMapError, match=r"none\.json"):
        labelrank.open_label_map(tmp_path / "none.json")


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'open_labelmap'"):
        _ = labelrank.open_labelmap


def test_opening_a_label_map_loads_no_framework(tmp_path):
    three_cycle().save(tmp_path / "map.json")
    code = (
        "import sys, labelrank; assert 'numpy' not in sys.modules; labelrank.open_label_map(sys.argv[1]);"
        "heavy = {'keras', 'tensorflow', 'torch', 'openvino', 'streamlit', 'sklearn', 'pandas', 'pyarrow', 'datasets'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "map.json")], check=True)


def test_the_examples_of_the_page_work(tmp_path):
    prepare(tmp_path)
    code = "import json, sys; from pathlib import Path; from tests.helpers.python_page import run_page; "
    code += "print(json.dumps(run_page(Path(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout.splitlines()[-1])
    assert ran["The order in your own code"]
    assert ran["Keras"]
    assert set(ran) == {"The order in your own code", "Hugging Face datasets", "Trainer", "torchvision", "Keras"}
    assert sorted(ORDER) != list(ORDER)
