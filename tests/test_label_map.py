"""The label map itself: its two permutations, its JSON, its hash, and what it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelrank import label_map as module
from labelrank.errors import LabelMapError
from labelrank.label_map import LabelMap, RankedClass, read_label_map
from labelrank.notices import Notice
from labelrank.ranking import LabelRanker
from labelrank.ranking.methods import SIGN_RULE, TIE_RULE
from labelrank.settings import assets_dir
from tests.helpers.label_maps import PROVENANCE, make_map, orders, three_cycle

VALIDATOR = jsonschema.Draft202012Validator(json.loads((assets_dir() / "label_map.schema.json").read_text("utf-8")))


# Direction of the permutations


@given(orders(40))
def test_order_and_position_of_undo_each_other(order):
    label_map = make_map([f"class {label}" for label in range(len(order))], order)

    assert list(label_map.order) == order
    for label in range(len(order)):
        assert label_map.order[label_map.position_of[label]] == label
    for position in range(len(order)):
        assert label_map.position_of[label_map.order[position]] == position


@given(orders(), st.data())
def test_mapping_labels_to_positions_and_back_gives_the_labels(order, data):
    label_map = make_map([f"class {label}" for label in range(len(order))], order)
    labels = np.array(data.draw(st.lists(st.integers(0, len(order) - 1))), dtype=np.int32)

    positions = np.asarray(label_map.position_of)[labels]

    assert [label_map.names[position] for position in positions] == [f"class {label}" for label in labels]
    np.testing.assert_array_equal(np.asarray(label_map.order)[positions], labels)


def test_a_three_cycle_has_the_permutations_written_by_hand():
    label_map = three_cycle()

    assert label_map.order == (2, 0, 1)
    assert label_map.position_of == (1, 2, 0)
    assert label_map.names == ("cat", "ant", "bee")


# From a ranking


def fitted(**changes):
    """Return what `from_ranking` reads of a fitted ranker; `classes_` unsorted, so that an index is not a label."""
    values = {
        "classes_": np.array([1, 2, 0]),
        "order_": np.array([2, 0, 1]),  # indexes into classes_: labels 0, 1, 2 would be 1, 2, 0
        "centroids_": np.array([0.0, 3.0, -3.0]),
        "counts_": np.array([11, 12, 10]),
        "explained_variance_ratio_": np.array([0.75]),
        "method": "centroid",
        "solver": "auto",
        "solver_": "svd",
        "shrinkage": np.float64(0.5),
    }
    return SimpleNamespace(**{**values, **changes})


def test_a_ranking_gives_each_position_the_values_of_its_own_class():
    label_map = LabelMap.from_ranking(fitted(), ["ant", "bee", "cat"], PROVENANCE)

    assert label_map.classes == (
        RankedClass(0, 0, "ant", -3.0, 10),
        RankedClass(1, 1, "bee", 0.0, 11),
        RankedClass(2, 2, "cat", 3.0, 12),
    )
    assert label_map.parameters == {"solver": "svd", "shrinkage": 0.5}
    assert (label_map.sign_rule, label_map.tie_rule) == (SIGN_RULE, TIE_RULE)
    assert label_map.explained_variance_ratio == 0.75
    assert label_map.features == PROVENANCE


@pytest.mark.parametrize("method", ["centroid", "reference"])
def test_a_fitted_label_ranker_becomes_a_map_that_follows_its_order(method):
    rng = np.random.default_rng(0)
    centers = np.array([4.0, -2.0, 9.0, 1.0])
    y = np.repeat(np.arange(4), 30)
    X = rng.normal(size=(120, 3)) + np.outer(centers[y], [1.0, 0.5, 0.0])
    ranker = LabelRanker(method=method).fit(X, y)

    label_map = LabelMap.from_ranking(ranker, ["four", "minus two", "nine", "one"], PROVENANCE)

    assert label_map.names in (("minus two", "one", "four", "nine"), ("nine", "four", "one", "minus two"))
    assert label_map.order == tuple(ranker.order_)
    assert label_map.position_of == tuple(ranker.position_of_)
    assert [c.count for c in label_map.classes] == [30] * 4
    np.testing.assert_allclose([c.centroid for c in label_map.classes], ranker.centroids_[ranker.order_])
    VALIDATOR.validate(label_map.to_json())
    assert LabelMap.from_json(label_map.to_json()) == label_map
    again = LabelMap.from_ranking(
        LabelRanker(method=method).fit(X, y), ["four", "minus two", "nine", "one"], PROVENANCE
    )
    assert again.content_hash == label_map.content_hash


def test_classes_without_rows_are_named():
    names = ["ant", "bee", "cat", "dog", "eel\n", "fox", "gnu", "hen", "ibis"]

    with pytest.raises(LabelMapError, match=r"No rows in the features for class 'dog', 'eel\\n', .* and 1 more; .*Add"):
        LabelMap.from_ranking(fitted(), names, PROVENANCE)


def test_labels_without_a_name_are_given():
    with pytest.raises(LabelMapError, match="No class name for label 2; the class names are for labels 0 to 1"):
        LabelMap.from_ranking(fitted(), ["ant", "bee"], PROVENANCE)


@pytest.mark.parametrize(
    ("value", "stored"), [(float("nan"), None), (1 + 1e-15, 1.0), (-1e-17, 0.0), (0.5, 0.5)], ids=str
)
def test_explained_variance_ratio_is_a_share_or_null(value, stored):
    ranker = fitted(explained_variance_ratio_=np.array([value]))

    label_map = LabelMap.from_ranking(ranker, ["ant", "bee", "cat"], PROVENANCE)

    assert label_map.explained_variance_ratio == stored
    VALIDATOR.validate(label_map.to_json())


def test_created_at_is_now_unless_given():
    now = LabelMap.from_ranking(fitted(), ["ant", "bee", "cat"], PROVENANCE)
    then = LabelMap.from_ranking(fitted(), ["ant", "bee", "cat"], PROVENANCE, created_at="2001-02-03T04:05:06Z")

    assert now.created_at > "2026"
    assert then.created_at == "2001-02-03T04:05:06Z"
    assert now.content_hash == then.content_hash


# Class names


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat", "cat"),
        ("Cat", "cat"),
        ("STRASSE", "straße"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAF\u00c9", "cafe\u0301"),
        ("\u0390", "\u03b9\u0308\u0301"),
        ("\u1f80", "\u03b1\u0345\u0313"),  # marks in another order, one of which folds to a letter
    ],
    ids=ascii,
)
def test_names_that_differ_only_in_case_or_unicode_form_are_refused_by_name(first, second):
    with pytest.raises(LabelMapError) as caught:
        make_map(["dog", first, "eel", second], [3, 1, 0, 2])

    assert f"{first!r} (label 1)" in str(caught.value)
    assert f"{second!r} (label 3)" in str(caught.value)
    assert "dog" not in str(caught.value)
    # Names that may look the same are told apart by their code points.
    looks_alike = not (first + second).isascii()
    assert ("U+" in str(caught.value)) == looks_alike


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Name of label 1 is empty"),
        ("bad\udcff", r"Name of label 1 is 'bad\\udcff', which holds bytes that are not UTF-8"),
        (7, "Name of label 1 is 7; expected a text"),
    ],
    ids=["empty", "surrogate", "number"],
)
def test_a_name_that_cannot_be_written_is_refused(name, message):
    with pytest.raises(LabelMapError, match=message):
        LabelMap.from_ranking(fitted(), ["ant", name, "cat"], PROVENANCE)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_other_unicode_name_comes_back_from_a_file(tmp_path_factory, names):
    names = [f"{i}{name}" for i, name in enumerate(names)]
    label_map = make_map(names, range(len(names))[::-1])
    path = tmp_path_factory.getbasetemp() / "any.json"
    label_map.save(path)

    assert read_label_map(path).names == tuple(names[::-1])


# JSON and its schema


def test_json_of_a_three_cycle_is_the_one_written_by_hand():
    label_map = replace(three_cycle(), features={"pooling": "mean"})
    label_map = replace(
        label_map, classes=(replace(label_map.classes[0], rank_low=0, rank_high=1), *label_map.classes[1:])
    )

    assert label_map.to_json() == {
        "version": 1,
        "method": "centroid",
        "parameters": {"solver": "eigen", "shrinkage": None},
        "sign_rule": "a sign rule",
        "tie_rule": "a tie rule",
        "explained_variance_ratio": 0.25,
        "order": [2, 0, 1],
        "position_of": [1, 2, 0],
        "classes": [
            {"position": 0, "label": 2, "name": "cat", "centroid": -1.0, "count": 3, "rank_low": 0, "rank_high": 1},
            {
                "position": 1,
                "label": 0,
                "name": "ant",
                "centroid": -0.5,
                "count": 1,
                "rank_low": None,
                "rank_high": None,
            },
            {
                "position": 2,
                "label": 1,
                "name": "bee",
                "centroid": 0.0,
                "count": 2,
                "rank_low": None,
                "rank_high": None,
            },
        ],
        "features": {"pooling": "mean"},
        "content_hash": label_map.content_hash,
        "created_at": "2026-01-31T12:00:00+00:00",
        "library_version": "0.1.0",
    }


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@given(orders())
def test_every_map_fits_the_schema_and_comes_back_equal(order):
    label_map = make_map([f"class {label}" for label in range(len(order))], order)
    data = json.loads(json.dumps(label_map.to_json()))

    VALIDATOR.validate(data)
    assert LabelMap.from_json(data) == label_map


def test_a_file_comes_back_equal_and_as_the_same_bytes(tmp_path):
    label_map = three_cycle()
    label_map.save(tmp_path / "label_map.json")

    loaded = read_label_map(tmp_path / "label_map.json")

    assert loaded == label_map
    assert loaded.to_bytes() == (tmp_path / "label_map.json").read_bytes()
    assert loaded.to_bytes().endswith(b"}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["label_map.json"]


def test_a_map_that_another_json_tool_wrote_again_is_still_valid(tmp_path):
    # Such tools write 2.0 as 2, drop trailing digits, sort keys or start with a byte order mark.
    data = three_cycle().to_json()
    data["classes"][0]["centroid"] = -1
    data["explained_variance_ratio"] = 0.2500000000001
    path = tmp_path / "rewritten.json"
    path.write_text(json.dumps(data, sort_keys=True), encoding="utf-8-sig")

    assert read_label_map(path).names == ("cat", "ant", "bee")


NOTICED = (Notice("test_split", "This is the test split."), Notice("digits_alone", "x knows only digits."))


def test_notices_travel_in_the_map_and_leave_its_hash_as_it_is():
    plain, noticed = three_cycle(), replace(three_cycle(), notices=NOTICED)
    data = json.loads(noticed.to_bytes())

    VALIDATOR.validate(data)
    assert data["notices"][0] == {"kind": "test_split", "text": "This is the test split."}
    assert LabelMap.from_json(data) == noticed
    assert noticed.content_hash == plain.content_hash
    assert "notices" not in plain.to_json()


def test_ten_thousand_classes_come_back():
    n_classes = 10_000
    order = np.random.default_rng(0).permutation(n_classes).tolist()
    label_map = make_map([f"class {label}" for label in range(n_classes)], order)

    assert LabelMap.from_json(label_map.to_json()).order == tuple(order)


def change(path, value):
    """Return a function that sets the value at `path` of a label map's JSON."""

    def apply(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return apply


def drop(*path):
    def apply(data):
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return apply


# What is broken, what the message must say, and whether a schema can see it.
BROKEN = {
    "notices no list": (change(["notices"], {}), "'notices' is {}", True),
    "a notice of text": (change(["notices"], ["test split"]), r"'notices\[0\]' is 'test split'", True),
    "a notice without text": (change(["notices"], [{"kind": "a"}]), r"'notices\[0\]\.text' is missing", True),
    "an empty notice": (change(["notices"], [{"kind": "a", "text": ""}]), r"'notices\[0\]\.text' is ''", True),
    "no version": (drop("version"), "'version' is missing", True),
    "no hash": (drop("content_hash"), "'content_hash' is missing", True),
    "no name": (drop("classes", 1, "name"), r"'classes\[1\]\.name' is missing", True),
    "no rank": (drop("classes", 1, "rank_low"), r"'classes\[1\]\.rank_low' is missing", True),
    "unknown field": (change(["colour"], 1), "'colour' is unknown to format version 1", True),
    "unknown class field": (change(["classes", 0, "colour"], 1), r"'classes\[0\]\.colour' is unknown", True),
    "later version": (change(["version"], 2), r"format version 2; this labelrank .* reads version 1", True),
    "version true": (change(["version"], True), "format version True", True),
    "version text": (change(["version"], "1"), "format version '1'", True),
    "method number": (change(["method"], 3), "'method' is 3; expected a text", True),
    "method empty": (change(["method"], ""), "'method' is ''", True),
    "parameters list": (change(["parameters"], []), r"'parameters' is \[\]; expected a JSON object", True),
    "features null": (change(["features"], None), "'features' is None; expected a JSON object", True),
    "ratio above one": (change(["explained_variance_ratio"], 1.5), "'explained_variance_ratio' is 1.5", True),
    "ratio text": (change(["explained_variance_ratio"], "0.5"), "'explained_variance_ratio' is '0.5'", True),
    "time": (change(["created_at"], "yesterday"), "'created_at' is 'yesterday'; expected an ISO 8601 time", False),
    "time without offset": (change(["created_at"], "2026-01-31T12:00:00"), "'created_at' is", False),
    "time null": (change(["created_at"], None), "'created_at' is None", True),
    "library version": (change(["library_version"], 1), "'library_version' is 1", True),
    "classes object": (change(["classes"], {}), r"'classes' is \{\}; expected an array", True),
    "classes empty": (change(["classes"], []), r"'classes' is \[\]; expected at least one", True),
    "class list": (change(["classes", 1], []), r"'classes\[1\]' is \[\]; expected a JSON object", True),
    "class position": (change(["classes", 1, "position"], 2), r"'classes\[1\]\.position' is 2; expected 1", False),
    "class label text": (change(["classes", 0, "label"], "2"), r"'classes\[0\]\.label' is '2'", True),
    "class label true": (change(["classes", 2, "label"], True), r"'classes\[2\]\.label' is True", True),
    "class label out of range": (change(["classes", 0, "label"], 3), r"'classes\[0\]\.label' is 3; .* 0 to 2", False),
    "name number": (change(["classes", 0, "name"], 5), r"'classes\[0\]\.name' is 5; expected a text", True),
    "name empty": (change(["classes", 0, "name"], ""), "Name of label 2 is empty", True),
    "name twice": (change(["classes", 0, "name"], "ANT"), r"'ANT' \(label 2\) = 'ant' \(label 0\)", False),
    "centroid text": (change(["classes", 0, "centroid"], "low"), r"'classes\[0\]\.centroid' is 'low'", True),
    "centroid null": (change(["classes", 0, "centroid"], None), r"'classes\[0\]\.centroid' is None", True),
    "centroid huge": (change(["classes", 0, "centroid"], 10**400), r"'classes\[0\]\.centroid' is inf", False),
    "count zero": (change(["classes", 0, "count"], 0), r"'classes\[0\]\.count' is 0; .* at least 1", True),
    "rank out of range": (change(["classes", 0, "rank_high"], 3), r"'classes\[0\]\.rank_high' is 3", False),
    "rank fraction": (change(["classes", 0, "rank_low"], 0.5), r"'classes\[0\]\.rank_low' is 0\.5", True),
    "rank half given": (change(["classes", 0, "rank_low"], 0), r"'classes\[0\]\.rank_low' is 0; expected null", False),
    "order text": (change(["order"], "2 0 1"), r"'order' is '2 0 1'; expected an array of 3", True),
    "order short": (change(["order"], [2, 0]), r"'order' is \[2, 0\]; expected an array of 3", False),
    "order repeats": (change(["order"], [2, 0, 0]), r"'order\[2\]' is 0; .* once; order\[1\] has it too", True),
    "order out of range": (change(["order", 0], 3), r"'order\[0\]' is 3; expected a whole number from 0 to 2", False),
    "order negative": (change(["order", 0], -1), r"'order\[0\]' is -1", True),
    "order fraction": (change(["order", 0], 2.5), r"'order\[0\]' is 2.5", True),
    "position_of is order": (change(["position_of"], [2, 0, 1]), r"'position_of\[2\]' is 1; expected 0", False),
    "position_of repeats": (change(["position_of"], [1, 1, 0]), r"'position_of\[1\]' is 1", True),
    "hash": (change(["content_hash"], "0" * 64), "'content_hash' is '0.*the file was changed after", False),
    "hash number": (change(["content_hash"], 5), "'content_hash' is 5", True),
    "hash of other content": (change(["method"], "spectral"), "'content_hash' is .*changed after", False),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_map_is_refused_naming_the_field(case, tmp_path):
    break_it, message, seen_by_schema = BROKEN[case]
    data = copy.deepcopy(three_cycle().to_json())
    break_it(data)

    with pytest.raises(LabelMapError, match=message):
        LabelMap.from_json(data)
    assert VALIDATOR.is_valid(data) is not seen_by_schema

    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(LabelMapError, match=r"broken\.json: ") as caught:
        read_label_map(path)
    assert "\n" not in str(caught.value)


def test_classes_in_another_order_than_the_permutations_are_refused():
    # Both orders are valid by themselves; a reader that trusts one and one that trusts the other would disagree.
    data = three_cycle().to_json()
    first, second, third = data["classes"]
    data["classes"] = [{**second, "position": 0}, {**first, "position": 1}, third]

    with pytest.raises(LabelMapError, match=r"'classes\[0\]\.label' is 0; expected 2, since order\[0\] is 2"):
        LabelMap.from_json(data)


def test_a_label_in_two_classes_is_refused():
    classes = list(three_cycle().classes)
    classes[2] = replace(classes[2], label=2)

    with pytest.raises(LabelMapError, match=r"'order\[2\]' is 2; expected each of 0 to 2 once; order\[0\] has it too"):
        replace(three_cycle(), classes=tuple(classes))


def test_rank_bounds_in_the_wrong_order_are_refused():
    first, *others = three_cycle().classes

    with pytest.raises(LabelMapError, match=r"'classes\[0\]\.rank_low' is 2; expected at most rank_high, 1"):
        replace(three_cycle(), classes=(replace(first, rank_low=2, rank_high=1), *others))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"path": Path("x")}, r"'features\.path' is PosixPath\('x'\); expected a JSON value"),
        ({"mean": [0.5, float("nan")]}, r"'features\.mean\[1\]' is nan"),
        ({"id": "bad\udcff"}, r"'features\.id' is 'bad\\udcff'"),
        ({1: "x"}, "'features' is .* only texts as keys, not 1"),
    ],
    ids=["object", "nan", "surrogate", "key"],
)
def test_provenance_that_json_cannot_hold_is_refused(value, message):
    with pytest.raises(LabelMapError, match=message):
        replace(three_cycle(), features=value)


@pytest.mark.parametrize("data", [None, [], "label map", 3], ids=str)
def test_json_that_is_no_object_is_refused(data):
    with pytest.raises(LabelMapError, match="A label map is a JSON object; this is"):
        LabelMap.from_json(data)


@pytest.mark.parametrize(
    "content",
    [b"", b"new_id,old_id\n", b'{"version": 1', b"\xff\xfe{", b'{"version": NaN}', b"[" * 100_000, b"1" * 5000],
    ids=["empty", "csv", "cut off", "not utf-8", "nan", "deep", "digits"],
)
def test_a_file_that_is_not_json_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_bytes(content)

    with pytest.raises(LabelMapError, match=r"Label map is not JSON in UTF-8: '.*other\.json' .*labelrank rank"):
        read_label_map(path)


def test_json_nested_deeper_than_python_recurses_is_refused(tmp_path):
    data = three_cycle().to_json()
    nested: list = []
    for _ in range(600):
        nested = [nested]
    path = tmp_path / "deep.json"
    path.write_text(json.dumps({**data, "features": {"deep": nested}}))

    with pytest.raises(LabelMapError, match=r"deep\.json"):
        read_label_map(path)


def test_a_missing_file_and_a_folder_are_refused_with_their_path(tmp_path):
    with pytest.raises(LabelMapError, match=r"cannot be read: '.*gone\.json' \(No such file or directory\)"):
        read_label_map(tmp_path / "gone.json")
    with pytest.raises(LabelMapError, match=r"cannot be read: '.*' \(Is a directory\)"):
        read_label_map(tmp_path)


# Content hash


def test_the_content_hash_is_of_the_canonical_json_written_by_hand():
    label_map = replace(
        make_map(["café", "b"], [1, 0]),
        explained_variance_ratio=1 / 3,
        features={"pooling": "mean", "versions": {"numpy": "2"}, "dataset": {"created_at": "now", "id": "x"}},
    )
    canonical = (
        '{"classes":[{"centroid":-1,"count":2,"label":1,"name":"b","position":0,"rank_high":null,"rank_low":null},'
        '{"centroid":-0.5,"count":1,"label":0,"name":"caf\\u00e9","position":1,"rank_high":null,"rank_low":null}],'
        '"explained_variance_ratio":0.333333333,"features":{"dataset":{"id":"x"},"pooling":"mean"},'
        '"method":"centroid","order":[1,0],"parameters":{"shrinkage":null,"solver":"eigen"},"position_of":[1,0],'
        '"sign_rule":"a sign rule","tie_rule":"a tie rule","version":1}'
    )

    assert label_map.content_hash == hashlib.sha256(canonical.encode()).hexdigest()


def change_class(**changes):
    def apply(label_map):
        first, *others = label_map.classes
        return replace(label_map, classes=(replace(first, **changes), *others))

    return apply


def change_features(path, value):
    def apply(label_map):
        features = copy.deepcopy(label_map.features)
        change(path, value)(features)
        return replace(label_map, features=features)

    return apply


SAME_CONTENT = {
    "made at another time": lambda m: replace(m, created_at="2027-01-31T12:00:00+00:00"),
    "made by another version": lambda m: replace(m, library_version="9.9.9"),
    "features made at another time": change_features(["created_at"], "2027-01-31T12:00:00+00:00"),
    "features made in other time": change_features(["encoding_s"], 1.5),
    "licence told": change_features(["checkpoint_facts"], {"num_parameters": 5, "licence": "mit"}),
    "features made by other versions": change_features(["versions", "openvino"], "2027.1.0"),
    "centroid differs in its tenth digit": change_class(centroid=-1.0000000001),
}
OTHER_CONTENT = {
    "method": lambda m: replace(m, method="reference"),
    "solver": lambda m: replace(m, parameters={**m.parameters, "solver": "svd"}),
    "shrinkage": lambda m: replace(m, parameters={**m.parameters, "shrinkage": 0.1}),
    "sign rule": lambda m: replace(m, sign_rule="another"),
    "tie rule": lambda m: replace(m, tie_rule="another"),
    "ratio": lambda m: replace(m, explained_variance_ratio=0.26),
    "no ratio": lambda m: replace(m, explained_variance_ratio=None),
    "order": lambda m: make_map(["ant", "bee", "cat"], [1, 2, 0]),
    "name": change_class(name="Cat"),
    "centroid": change_class(centroid=-1.00000001),
    "count": change_class(count=4),
    "rank": change_class(rank_low=0, rank_high=0),
    "dataset digest": change_features(["dataset", "digest"], "ab13"),
    "dataset split": change_features(["dataset", "split"], "test"),
    "checkpoint digest": change_features(["checkpoint", "digest"], "cd35"),
    "preprocessing": change_features(["preprocessing", "mean"], [0.5, 0.5, 0.5]),
    "pooling": change_features(["pooling"], "cls"),
    "precision": change_features(["precision"], "bfloat16"),
}


@pytest.mark.parametrize("case", SAME_CONTENT)
def test_the_content_hash_ignores_times_versions_and_rounding(case):
    assert SAME_CONTENT[case](three_cycle()).content_hash == three_cycle().content_hash


@pytest.mark.parametrize("case", OTHER_CONTENT)
def test_the_content_hash_sees_any_change_of_content(case):
    assert OTHER_CONTENT[case](three_cycle()).content_hash != three_cycle().content_hash


def test_a_caller_cannot_change_a_map_behind_its_hash():
    features = copy.deepcopy(PROVENANCE)
    label_map = replace(three_cycle(), features=features)
    features["pooling"] = "cls"
    label_map.to_json()["features"]["pooling"] = "cls"
    label_map.to_json()["classes"][0]["name"] = "dog"

    assert label_map.features == PROVENANCE
    assert LabelMap.from_json(label_map.to_json()) == label_map
    with pytest.raises(AttributeError):
        label_map.method = "other"  # type: ignore[misc]


def test_a_map_can_be_hashed_and_pickled_for_streamlits_cache():
    label_map = three_cycle()

    assert hash(label_map) == hash(three_cycle())
    assert pickle.loads(pickle.dumps(label_map)) == label_map


def test_importing_the_label_map_loads_no_framework():
    heavy = "keras", "tensorflow", "torch", "openvino", "streamlit", "sklearn", "pyarrow", "pandas"
    code = f"import sys, {module.__name__}; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
