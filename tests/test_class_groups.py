"""Files of groups: what is read, what is refused, what is written."""

import json

import numpy as np
import pytest

from labelrank.class_groups import check_telling, groups_csv, groups_json, newick, read_groups
from labelrank.errors import GroupsError
from labelrank.ranking.tree import ClassTree

CLASSES = ("cat", "dog", "a, b")
GOOD = 'name,group\ncat,pets\ndog,pets\n"a, b",letters\n'


def written(tmp_path, content, name="groups.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (GOOD, "groups.csv"),
        ("\ufeff" + GOOD.replace("\n", "\r\n"), "groups.csv"),
        (GOOD.encode("utf-16"), "groups.csv"),
        (' Group , NAME,more\n\n pets, cat ,1\npets ,dog,2\n letters, "a, b" ,3\n', "groups.csv"),
        ("name;group\ncat;pets\ndog;pets\na, b;letters\n", "groups.csv"),
        ('{"cat": "pets", "dog": "pets", "a, b": "letters"}', "groups.JSON"),
    ],
    ids=["plain", "mark and CRLF", "UTF-16", "spaces and columns", "semicolons", "JSON"],
)
def test_what_is_read(tmp_path, content, name):
    found = read_groups(written(tmp_path, content, name), CLASSES)
    assert found.groups.tolist() == [0, 0, 1]
    assert found.names == ("pets", "letters")
    assert found.unknown == ()


def test_accents_are_read_in_either_form(tmp_path):
    path = written(tmp_path, "name,group\nc\u00e1t,pets\n")
    assert read_groups(path, ["ca\u0301t"]).names == ("pets",)


def test_names_that_are_no_classes_are_told(tmp_path):
    path = written(tmp_path, GOOD + "cow,farm\nhen,farm\n")
    found = read_groups(path, CLASSES, known=("hen",))
    assert found.unknown == ("cow",)
    assert found.names == ("pets", "letters")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("name,group\ncat,pets\n", "g.csv", r"lacks 2 classes of 3: 'dog', 'a, b'\. Add a line"),
        (GOOD + "cat,wild\n", "g.csv", r"has 'cat' more than once"),
        (GOOD.replace("dog,pets", "dog, "), "g.csv", r"no group for 'dog': the value is empty"),
        ("cat,pets\ndog,pets\n", "g.csv", r"begins with 'cat,pets'; expected a first line"),
        ("name,group,group\ncat,a,b\n", "g.csv", "one column name and one column group"),
        ("", "g.csv", r"begins with ''; expected a first line"),
        ("name,group\na, b,letters\n", "g.csv", r"3 values in row 2, which begins with 'a'; its first line has 2"),
        ("name,group\nc\xe4t,pets\n".encode("latin-1"), "g.csv", "not valid UTF-8"),
        ('{"cat": "pets", "cat": "wild"}', "g.json", r"has 'cat' more than once"),
        ('{"cat": ["pets"]}', "g.json", "no text or whole number as the group of 'cat'"),
        ("[1, 2]", "g.json", "no object of names and groups"),
        ("{", "g.json", "is not JSON"),
    ],
)
def test_what_is_refused(tmp_path, content, name, message):
    with pytest.raises(GroupsError, match=message):
        read_groups(written(tmp_path, content, name), CLASSES)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(GroupsError, match="Cannot read .*none.csv: No such file"):
        read_groups(tmp_path / "none.csv", CLASSES)


@pytest.mark.parametrize(("groups", "said"), [([3, 3, 3], "one group of all 3 classes"), ([2, 0, 5], "of its own")])
def test_groups_that_tell_nothing_are_refused(groups, said):
    with pytest.raises(GroupsError, match=said):
        check_telling(np.array(groups))
    check_telling(np.array([3, 3, 0]))


def test_a_csv_that_was_written_is_read(tmp_path):
    content = groups_csv(CLASSES, [4, 5, 6], np.array([1, 0, 1]))
    assert content.decode() == 'name,group,label\ndog,0,5\ncat,1,4\n"a, b",1,6\n'
    assert read_groups(written(tmp_path, content), CLASSES).groups.tolist() == [0, 1, 0]


def test_names_in_a_csv_run_nothing_in_a_spreadsheet_and_are_read_again(tmp_path):
    names = ("=1+1", "new\nline", "plain")
    content = groups_csv(names, [0, 1, 2], np.array([0, 0, 1]))
    assert content.decode() == "name,group,label\n'=1+1,0,0\nnew\\x0aline,0,1\nplain,1,2\n"
    assert read_groups(written(tmp_path, content), names).groups.tolist() == [0, 0, 1]
    assert read_groups(written(tmp_path, "name,group\n=1+1,a\nplain,b\n"), ("=1+1", "plain")).names == ("a", "b")


def test_the_tree_as_json_and_newick():
    linkage = np.array([[1, 0, 0.25, 2], [3, 2, 1.5, 3]])
    tree = ClassTree(linkage=linkage, order=np.array([1, 0, 2]), points=np.eye(3))
    assert json.loads(groups_json(tree, CLASSES, [4, 5, 6], tree.cut(2))) == {
        "distance": 1.5,
        "children": [
            {
                "distance": 0.25,
                "children": [{"name": "dog", "label": 5, "group": 0}, {"name": "cat", "label": 4, "group": 0}],
            },
            {"name": "a, b", "label": 6, "group": 1},
        ],
    }
    assert newick(tree, CLASSES) == b"(('dog':0.125,'cat':0.125):0.625,'a, b':0.75);\n"


def test_a_chain_of_many_joins_is_written():
    count = 1500
    linkage = np.column_stack(
        (np.r_[0, count : 2 * count - 2], np.arange(1, count), np.arange(1, count) / count, np.arange(2, count + 1))
    )
    tree = ClassTree(linkage=linkage, order=np.arange(count), points=np.eye(count, 1))
    names = [str(number) for number in range(count)]
    content = groups_json(tree, names, range(count), tree.cut(1)).decode()
    assert content.count("children") == count - 1
    assert newick(tree, names).decode().startswith("(" * (count - 1))
