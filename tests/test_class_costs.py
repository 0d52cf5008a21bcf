"""Files of costs: what is read, and what is refused."""

import numpy as np
import pytest

from labelrank.class_costs import read_costs
from labelrank.errors import CostsError

CLASSES = ("cat", "dog", "=sum, 1")
TABLE = [[0, 0.5, 1], [2, 0, 1], [1, 3, 0]]


def written(tmp_path, content):
    path = tmp_path / "costs.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "0,.5,1\n2,0,1\n1,3,0\n",
        'cat,dog,"=sum, 1"\n0,.5,1\n2,0,1\n1,3,0\n',
        '"\'=sum, 1",dog,cat\n0,3,1\n1,0,2\n1,.5,0\n',
        'true,dog,cat,"=sum, 1"\ndog,0,2,1\ncat,0.5,0,1\n"=sum, 1",3,1,0\n',
        "true;cat;dog;'=sum, 1\ncat;0;0.5;1\ndog;2;0;1\n=sum, 1;1;3;0\n",
    ],
    ids=["numbers", "names", "another order", "names of lines", "semicolons"],
)
def test_what_is_read(tmp_path, content):
    np.testing.assert_array_equal(read_costs(written(tmp_path, content), CLASSES), TABLE)


@pytest.mark.parametrize("content", ["2,0,1\n0,3,1\n1,0,2\n1,.5,0\n", "true,0,1,2\n0,0,.5,1\n1,2,0,1\n2,1,3,0\n"])
def test_names_may_be_numbers(tmp_path, content):
    expected = [[0, 2, 1], [0.5, 0, 1], [3, 1, 0]] if content[0] == "2" else TABLE
    np.testing.assert_array_equal(read_costs(written(tmp_path, content), ("0", "1", "2")), expected)


def test_costs_may_look_like_names(tmp_path):
    np.testing.assert_array_equal(read_costs(written(tmp_path, "0,1\n1,0\n"), ("0", "1")), [[0, 1], [1, 0]])


def test_accents_are_read_in_either_form(tmp_path):
    table = read_costs(written(tmp_path, "dog,c\u00e1t\n0,2\n1,0\n"), ("ca\u0301t", "dog"))
    np.testing.assert_array_equal(table, [[0, 1], [2, 0]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("0,1\n1,0\n", "has 2 lines of 2 numbers; expected 3 of 3"),
        ("0,1,1\n1,0\n1,1,0\n", "has 3 lines of 2, 3 numbers"),
        ("0,1,1\n1,0,x\n1,1,0\n", "says 'x' of predicting '=sum, 1' for 'dog'"),
        ("0,1,1\n1,0,-1\n1,1,0\n", "says '-1'"),
        ("0,1,1\n1,0,nan\n1,1,0\n", "says 'nan'"),
        ("1,1,1\n1,0,1\n1,1,0\n", "says 1 of predicting 'cat' where it is true"),
        ("0,1e300,1\n1,0,1\n1,1,0\n", r"dearest mistake costs 1e\+300; expected 1e-09 to 1e\+09"),
        ("0,1e-12,0\n0,0,0\n0,0,0\n", "dearest mistake costs 1e-12"),
        ("0,1,1,1\n1,0,1,1\n1,1,0,1\n1,1,1,0\n", "has 4 lines of 4 numbers; expected 3 of 3"),
        ("0,0,0\n0,0,0\n0,0,0\n", "no mistake costs anything"),
        ("cat,dog,bird\n0,1,1\n1,0,1\n1,1,0\n", "names 'bird', which is no class here"),
        ("cat,dog\n0,1\n1,0\n", "lacks '=sum, 1'"),
        ("cat,dog,'=sum, 1\n", "names"),
        ('true,cat,dog,"=sum, 1"\ndog,0,1,1\ncat,1,0,1\n"=sum, 1",1,1,0\n', "a line of 'dog' where that of 'cat'"),
    ],
)
def test_what_is_refused(tmp_path, content, said):
    with pytest.raises(CostsError, match=said):
        read_costs(written(tmp_path, content), CLASSES)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CostsError, match=r"Cannot read .* Give geometry, groups, or a csv with"):
        read_costs(tmp_path / "costs.csv", CLASSES)
