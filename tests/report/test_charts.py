import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.report import units
from gristmill.report.charts import Line, duration_ticks, interval_strip, line_chart, nice_ticks
from gristmill.report.markup import Markup, join, tag


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.38, 4.61, [1, 2, 3, 4, 5]),
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 0.004, [0, 0.001, 0.002, 0.003, 0.004]),
        (1.87, 2.12, [1.8, 1.9, 2.0, 2.1, 2.2]),
        (0, 14_880, [0, 5000, 10_000, 15_000]),
    ],
)
def test_ticks_are_round_numbers_that_enclose_the_data(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 8))
def test_ticks_enclose_and_are_few_and_even(a: float, b: float, wanted: int) -> None:
    low, high = sorted((a, b))
    if 0 < high - low < 1e-6 * max(1.0, abs(low), abs(high)):
        return  # closer than the ticks' own rounding
    ticks = nice_ticks(low, high, wanted)
    slack = 1e-6 * (ticks[-1] - ticks[0])
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= wanted + 2
    steps = [q - p for p, q in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)


@pytest.mark.parametrize(
    ("high", "names"),
    [
        (172, ["0", "1 min", "2 min"]),
        (40, ["0", "10 s", "20 s", "30 s", "40 s"]),
        (900, ["0", "5 min", "10 min", "15 min"]),
        (4 * 3600, ["0", "1 h", "2 h", "3 h", "4 h"]),
        (86400 * 30, ["0", "8 d", "16 d", "24 d"]),
    ],
)
def test_time_has_ticks_in_its_own_units(high: float, names: list[str]) -> None:
    assert [name for _, name in duration_ticks(high)] == names


def test_a_line_of_one_point_is_no_picture() -> None:
    assert line_chart("a", [Line(name="", points=[(0, 1)], tone="first")], x_name="x", y_name="y") == ""
    assert line_chart("a", [], x_name="x", y_name="y") == ""


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30), st.sampled_from(["steps", "log", "seconds"]))
def test_any_finite_line_is_drawn_inside_the_picture(values: list[float], scale: str) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    chart = line_chart(
        "a", [Line(name="v", points=points, tone="first")], x_name="x", y_name="y", x_scale=scale
    )
    path = chart.split(' d="M', 1)[1].split('"', 1)[0].replace("L", " ").split()
    assert all(0 <= float(x) <= 440 for x in path[::2])
    assert all(0 <= float(y) <= 270 for y in path[1::2])


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    lines = [
        Line(name="training", points=[(0, 2), (1, 1.00)], tone="first"),
        Line(name="validation", points=[(0, 2), (1, 1.01)], tone="second"),
    ]
    chart = line_chart("loss", lines, x_name="step", y_name="nats")
    heights = [
        float(part.split('y="')[1].split('"')[0])
        for part in chart.split("<text")[1:]
        if 'class="name' in part
    ]
    assert abs(heights[0] - heights[1]) >= 29


def test_an_interval_is_drawn_around_its_value() -> None:
    strip = interval_strip(1.4, [1.3, 1.5], [1.0, 2.0], name="all: 1.4")
    assert 'x1="52.8" x2="80"' in strip
    assert 'cx="66.4"' in strip
    assert "whisker" not in interval_strip(1.4, None, [1.0, 2.0], name="all")


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>", Markup("<i>"), None, title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></p>'
    assert join("a & b", None) == "a &amp; b"
    assert tag("line", x1=1.50, y1=None, stroke_width=2) == '<line x1="1.5" stroke-width="2"/>'


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (units.rounded_count(3_412_224), "3.41 million"),
        (units.rounded_count(999_999_999), "1.00 billion"),
        (units.rounded_count(4096), "4,096"),
        (units.bytes_text(662_118), "662 kB"),
        (units.bytes_text(1), "1 byte"),
        (units.bytes_text(None), "–"),
        (units.duration(0.1234), "0.12 s"),
        (units.duration(172.4), "2 min 52 s"),
        (units.duration(3599.7), "1 h"),
        (units.duration(200_000), "2.3 days"),
        (units.percent(0.0004), "< 0.1 %"),
        (units.percent(0.0343), "3.4 %"),
        (units.percent(0.4646), "46 %"),
        (units.percent(0.9997), "100.0 %"),
        (units.flop(653e9), "653 GFLOP"),
        (units.flop(12.0), "12 FLOP"),
        (units.figure(math.nan), "–"),
        (units.plural(1, "file"), "1 file"),
        (units.plural(2000, "file"), "2,000 files"),
        (units.moment("2026-11-22T04:27:33+00:00"), "22 November 2026, 04:27 UTC"),
        (units.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_are_written_as_people_read_them(written: str, text: str) -> None:
    assert written == text
