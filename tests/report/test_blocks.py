"""Tables: where an interval stands, and that what a user wrote stays text."""

import pytest

from gristmill.report.blocks import data_table

FIGURE = "0.595 [0.590, 0.599] *"


@pytest.mark.parametrize(
    ("figure", "cell"),
    [
        (FIGURE, "0.595 *<br><small>[0.590, 0.599]</small>"),
        (
            "-0.012 [-0.3, +0.2], within noise",
            "-0.012<br><small>[-0.3, +0.2]</small><br><small>within noise</small>",
        ),
        ("over 1.68", "over 1.68"),
        ("<b> [1, 2]", "&lt;b&gt;<br><small>[1, 2]</small>"),
        (None, "–"),
    ],
)
def test_an_interval_stands_below_its_number_where_columns_are_many(figure: str | None, cell: str) -> None:
    heads = ("name", *["*n"] * 4)
    assert f'<td class="n">{cell}</td>' in str(data_table(heads, [("x", figure, 1, 2, 3)]))


def test_a_text_with_brackets_is_no_interval() -> None:
    heads = ("name", "where", *["*n"] * 3)
    assert "<td>notes [1, 2]</td>" in str(data_table(heads, [("x", "notes [1, 2]", 1, 2, 3)]))


def test_with_few_columns_it_stands_beside_it() -> None:
    assert FIGURE in str(data_table(("name", "*n"), [("x", FIGURE)]))
