"""The section of a card on the Hub, and its chart."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labelrank.notices import Notice
from labelrank.views.card import LISTED, card_chart, card_section
from tests.helpers.label_maps import make_map, three_cycle


def many(count):
    return make_map([f"class {n}" for n in range(count)], list(range(count)))


@pytest.mark.parametrize(
    "label_map",
    [three_cycle(), three_cycle().with_ranks([0, 0, 1], [1, 2, 2], resamples=10), many(230)],
    ids=["without intervals", "with intervals", "many classes"],
)
def test_a_chart_is_an_image_that_is_read_on_any_page(label_map):
    drawn = Image.open(io.BytesIO(card_chart(label_map)))
    pixels = np.asarray(drawn.convert("RGBA"))
    assert drawn.format == "PNG"
    assert drawn.width >= 1700
    assert (pixels[0, :, :] == 255).all()
    assert (pixels[..., :3].sum(axis=2) < 150).mean() > 0.001  # text and ticks


def test_a_chart_is_the_same_each_time():
    assert card_chart(three_cycle()) == card_chart(three_cycle())


def test_a_section_tells_where_the_order_comes_from():
    text = card_section(three_cycle(), "model")
    assert "| 0 | cat | 2 | -1.000 | 3 |" in text
    assert "- Dataset: digits, split train, selection all" in text
    assert "- Checkpoint: mae-tiny-digits" in text
    assert f"`{three_cycle().content_hash}`" in text
    assert "10.1145/3731715.3733369" in text
    assert "> **Note:**" not in text


def test_what_is_of_the_hub_is_linked():
    whole = three_cycle()
    dataset = {"id": "uoft-cs/cifar100", "revision": "ab" * 20, "split": "train"}
    text = card_section(replace(whole, features={**whole.features, "dataset": dataset}), "dataset")
    assert "](https://huggingface.co/datasets/uoft-cs/cifar100) at commit `abababababab`, split train" in text


def test_what_makes_an_order_doubtful_stands_in_the_section():
    doubtful = replace(three_cycle(), notices=(Notice("few", "Only *2* samples\nof a class."),))
    assert "> **Note:** Only \\*2\\* samples of a class\\." in card_section(doubtful, "model")


def test_of_very_many_classes_both_ends_are_listed():
    text = card_section(many(2 * LISTED + 1), "model")
    assert f"| {LISTED - 1} |" in text
    assert f"| class {LISTED} |" not in text
    assert f"first and the last {LISTED} of {2 * LISTED + 1} classes" in text


def test_intervals_are_explained():
    text = card_section(three_cycle().with_ranks([0, 0, 1], [1, 2, 2], resamples=10), "model")
    assert "bars, and the column Likely position, are intervals" in text
    assert "from 10 draws" in text


def test_features_without_a_known_source_have_a_section():
    text = card_section(replace(three_cycle(), features={"encoder": "unknown", "dataset": "mine"}), "model")
    assert "Licence of the checkpoint: not known" in text
    assert "Dataset" not in text
