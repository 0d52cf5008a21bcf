"""What errors say fits into one line, whatever they quote."""

import pytest

from labelrank.errors import DatasetError, HubError, LabelRankError, first_line


@pytest.mark.parametrize("kind", [LabelRankError, DatasetError, HubError])
def test_the_text_of_an_error_is_one_line_without_control_characters(kind):
    error = kind("'a\x1b[31mb' is\n  damaged (\u202etype \x0f,\r\n\u2028 50\u00a0%, 日本\u3000語). \udcffFetch it.")
    assert str(error) == "'a\\x1b[31mb' is damaged (\\u202etype \\x0f, 50\u00a0%, 日本\u3000語). \\udcffFetch it."


def test_a_value_of_thousands_of_letters_is_cut_and_what_to_do_stays():
    assert str(DatasetError(f"The label {'9' * 5000!r} is too long. Use another.")) == (
        f"The label '{'9' * 199}... is too long. Use another."
    )
    path = "/data" + "/folder" * 100
    assert str(DatasetError(f"{path} is not there.")) == f"{path} is not there."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one thing.\nanother"), "one thing"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 5000), "x" * 200 + "..."),
    ],
)
def test_what_a_library_says_is_quoted_by_its_first_line(error, line):
    assert first_line(error) == line
