"""Line charts and interval strips as inline SVG: colours come from the page, so they follow light, dark and print.

A picture is drawn for a column 440 units wide: two stand side by side on a desk, one fills a phone, and the
letters stay readable in both. Lines carry their names at their ends, so there is no legend to decode.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, short

__all__ = ["Line", "duration_ticks", "interval_strip", "line_chart", "nice_ticks", "strip_axis"]

WIDTH, HEIGHT = 440.0, 270.0
LEFT, TOP, BOTTOM = 46.0, 34.0, 44.0
LABEL_GAP, LABEL_WIDTH = 30.0, 60.0  # an end label has two lines
MOST_STEPS_EACH = 10
TIME_STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)

Tone = Literal["first", "second"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, named at its end if the name is not empty; `band` is the range (x, low, high) around it.

    `dots` marks every point; with `joined` off there are only those.
    """

    name: str
    points: Sequence[tuple[Number, Number]]
    tone: Tone
    band: Sequence[tuple[Number, Number, Number]] = ()
    dots: bool = False
    joined: bool = True


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    x_scale: Literal["steps", "log", "seconds"] = "steps",
    y_format: Callable[[Number], str] = short,
    y_from_zero: bool = False,
    ring: tuple[Number, Number, str] | None = None,
) -> Markup:
    """Returns the chart with its title, or nothing when no line has two points.

    `ring` marks one point (x, y, what it is). The scale "seconds" puts ticks at whole seconds, minutes or hours.
    """
    lines = [line for line in lines if len(line.points) > 1 or (line.points and len(lines) > 1)]
    if not any(len(line.points) > 1 for line in lines):
        return Markup("")
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    ys += [v for line in lines for _, low, high in line.band for v in (low, high)]
    y_ticks = nice_ticks(0.0 if y_from_zero else min(ys), max(ys))
    x_ticks = _x_ticks(min(xs), max(xs), x_scale)
    right = WIDTH - 16 - 7.4 * max(max(len(line.name), len(y_format(line.points[-1][1]))) for line in lines)
    x = _scale(min(xs), max(xs), LEFT, right, log=x_scale == "log")
    y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    return tag(
        "figure",
        tag("figcaption", title),
        tag(
            "svg",
            tag("title", title),
            tag("desc", _in_words(lines, x_name, y_name, y_format)),
            *_y_axis(y_ticks, y, right, y_name, y_format),
            *_x_axis(x_ticks, x, right, x_name),
            *[_band(line, x, y) for line in lines],
            *[_line(line, x, y, y_format) for line in lines],
            _ring(ring, x, y, right) if ring else None,
            *_end_labels(lines, x, y, y_format),
            viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img",
        ),
        class_="chart",
    )


def interval_strip(
    value: Number, interval: Sequence[Number] | None, ticks: Sequence[Number], *, name: str
) -> Markup:
    """Returns a dot with its interval as whiskers, on an axis from the first tick to the last."""
    x = _strip_scale(ticks)
    ends = [x(v) for v in interval] if interval else []
    return tag(
        "svg",
        tag("title", name),
        *[tag("line", class_="grid", x1=x(tick), x2=x(tick), y1=-8.0, y2=26.0) for tick in ticks],
        tag("line", class_="whisker", x1=ends[0], x2=ends[1], y1=9.0, y2=9.0) if ends else None,
        *[tag("line", class_="whisker end", x1=end, x2=end, y1=5.0, y2=13.0) for end in ends],
        tag("circle", class_="dot first", cx=x(value), cy=9.0, r=4.0),
        viewBox="0 0 160 18",
        class_="strip",
        role="img",
    )


def strip_axis(ticks: Sequence[Number]) -> Markup:
    """Returns the numbers above a column of strips."""
    x = _strip_scale(ticks)
    numbers = [
        tag("text", f"{tick:g}", class_="tick", x=x(tick), y=13.0, text_anchor="middle") for tick in ticks
    ]
    return tag("svg", *numbers, viewBox="0 0 160 18", class_="strip", aria_hidden="true")


def _strip_scale(ticks: Sequence[Number]) -> Callable[[Number], Number]:
    return _scale(ticks[0], ticks[-1], 12.0, 148.0)


def nice_ticks(low: Number, high: Number, wanted: int = 5) -> list[Number]:
    """Returns round numbers, evenly spaced, that enclose low and high: about `wanted` of them.

    The step is 1, 2, 2.5 or 5 times a power of ten (Heckbert, Graphics Gems, 1990).

        >>> nice_ticks(1.38, 4.61)
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-12):  # a flat line has its value in the middle
        reach = 0.1 * size if size > 1e-9 else 1.0
        low, high = low - reach, high + reach
    rough = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= rough * 0.999), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def duration_ticks(high: Number, wanted: int = 4) -> list[tuple[Number, str]]:
    """Returns at most about `wanted` instants from 0 to high seconds, with names in one unit."""
    step = next((s for s in TIME_STEPS if high / s <= wanted + 0.5), math.ceil(high / 86400 / wanted) * 86400)
    size, unit = next((s, u) for s, u in ((86400, "d"), (3600, "h"), (60, "min"), (0, "s")) if step >= s)
    ticks = [i * step for i in range(int(high / step + 1e-9) + 1)]
    return [(t, "0" if t == 0 else f"{t / (size or 1):g} {unit}") for t in ticks]


def _scale(
    low: Number, high: Number, start: Number, end: Number, *, log: bool = False
) -> Callable[[Number], Number]:
    if log:
        low, high = math.log(max(low, 1.0)), math.log(max(high, 1.0))
    span = (high - low) or 1.0

    def place(value: Number) -> Number:
        return start + ((math.log(max(value, 1.0)) if log else value) - low) / span * (end - start)

    return place


def _x_ticks(low: Number, high: Number, scale: str) -> list[tuple[Number, str]]:
    if scale == "seconds":
        ticks = duration_ticks(high)
    elif scale == "log":
        powers = [10.0**power for power in range(math.ceil(math.log10(max(high, 1.0))) + 1)]
        within = [power for power in powers if low <= power <= high]
        steps = (1, 2, 5) if len(within) < 3 else (1,)
        ticks = [(step * power, short(step * power)) for power in powers for step in steps]
    else:
        few = high - low <= MOST_STEPS_EACH  # then each has its tick: there is no half step
        at = range(math.ceil(low), math.floor(high) + 1) if few else nice_ticks(low, high, 4)
        ticks = [(float(t), f"{t:,.0f}" if high < 20_000 else short(t)) for t in at]
    return [(at, label) for at, label in ticks if low <= max(at, 1e-9) * 1.0001 and at <= high * 1.0001]


def _y_axis(
    ticks: Sequence[Number],
    y: Callable[[Number], Number],
    right: Number,
    name: str,
    show: Callable[[Number], str],
) -> list[Markup]:
    parts = [tag("text", name, class_="axis-name", x=0.0, y=14.0)]
    for i, value in enumerate(ticks):
        parts.append(
            tag("line", class_="base" if i == 0 else "grid", x1=LEFT, x2=right, y1=y(value), y2=y(value))
        )
        parts.append(tag("text", show(value), class_="tick", x=LEFT - 7, y=y(value) + 4, text_anchor="end"))
    return parts


def _x_axis(
    ticks: Sequence[tuple[Number, str]], x: Callable[[Number], Number], right: Number, name: str
) -> list[Markup]:
    bottom = HEIGHT - BOTTOM
    parts = [tag("text", name, class_="axis-name", x=right, y=bottom + 36, text_anchor="end")]
    for value, label in ticks:
        parts.append(tag("line", class_="base", x1=x(value), x2=x(value), y1=bottom, y2=bottom + 4))
        parts.append(tag("text", label, class_="tick", x=x(value), y=bottom + 17, text_anchor="middle"))
    return parts


def _band(line: Line, x: Callable[[Number], Number], y: Callable[[Number], Number]) -> Markup | None:
    if not line.band:
        return None
    there = [(x(at), y(high)) for at, _, high in line.band]
    back = [(x(at), y(low)) for at, low, _ in reversed(line.band)]
    return tag("path", class_=f"band {line.tone}", d=_path([*there, *back]) + "Z")


def _line(
    line: Line, x: Callable[[Number], Number], y: Callable[[Number], Number], show: Callable[[Number], str]
) -> Markup:
    path = tag("path", class_=f"line {line.tone}", d=_path([(x(a), y(b)) for a, b in line.points]))
    parts = [path] if line.joined else []
    if line.dots and len(line.points) <= 60:
        for a, b in line.points:
            hover = tag("title", f"{line.name} {show(b)} at {short(a)}")
            parts.append(tag("g", hover, tag("circle", class_=f"dot {line.tone}", cx=x(a), cy=y(b), r=2.4)))
    return join(*parts)


def _ring(
    ring: tuple[Number, Number, str],
    x: Callable[[Number], Number],
    y: Callable[[Number], Number],
    right: Number,
) -> Markup:
    at, value, label = ring
    near_end = x(at) > right - 90
    return join(
        tag("circle", class_="ring", cx=x(at), cy=y(value), r=6.0),
        tag(
            "text",
            label,
            class_="note",
            x=x(at) if not near_end else right - 4,
            y=y(value) - 13,
            text_anchor="end" if near_end else "middle",
        ),
    )


def _end_labels(
    lines: Sequence[Line],
    x: Callable[[Number], Number],
    y: Callable[[Number], Number],
    show: Callable[[Number], str],
) -> list[Markup]:
    """Names at the ends of the lines, pushed apart where they would overlap."""
    ordered = sorted(lines, key=lambda line: y(line.points[-1][1]))
    ends = [x(line.points[-1][0]) for line in ordered]
    heights: list[Number] = []
    for line, end in zip(ordered, ends, strict=True):
        wanted = y(line.points[-1][1]) - (2 if len(lines) > 1 else -4)
        near = [
            height for height, other in zip(heights, ends, strict=False) if abs(other - end) < LABEL_WIDTH
        ]
        heights.append(max([wanted, *(height + LABEL_GAP for height in near)]))
    overflow = max(0.0, max(heights, default=0.0) + 18 - (HEIGHT - BOTTOM))
    return [
        tag(
            "text",
            tag("tspan", line.name, x=x(line.points[-1][0]) + 8) if line.name else None,
            tag(
                "tspan", show(line.points[-1][1]), x=x(line.points[-1][0]) + 8, dy="14" if line.name else None
            ),
            class_=f"name {line.tone}",
            y=height - overflow,
        )
        for line, height in zip(ordered, heights, strict=True)
    ]


def _in_words(lines: Sequence[Line], x_name: str, y_name: str, show: Callable[[Number], str]) -> str:
    """What the picture shows, for those who hear the page."""
    return f"{y_name} over {x_name}. " + " ".join(
        f"{line.name or y_name}: from {show(line.points[0][1])} to {show(line.points[-1][1])}, "
        f"lowest {show(min(p[1] for p in line.points))}."
        for line in lines
    )


def _path(points: Sequence[tuple[Number, Number]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
