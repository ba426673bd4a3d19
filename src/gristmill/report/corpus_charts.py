"""What the page of a corpus is drawn with beside `charts`: columns as inline SVG, and rows with a bar in each.

Colours are those of the page, so they follow light, dark and print; a picture stands in a column of 440 units, as those of
`charts` do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gristmill.report.charts import nice_ticks
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, short

__all__ = ["Row", "Segment", "bar_rows", "columns_chart", "key"]

WIDTH, HEIGHT = 440.0, 214.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 428.0, 30.0, 40.0
TONES = 6
"""The colours that page.css has for parts of a whole."""


class Segment(NamedTuple):
    """A piece of a bar, in shares of its track."""

    start: float
    size: float
    style: str
    """A class: "tone-0", "pale", "taken" …"""


class Row(NamedTuple):
    """A name, what is below it in small letters, a bar, and figures."""

    name: str | Markup
    note: str | Markup | None
    segments: Sequence[Segment]
    figures: Sequence[str]
    kind: str | None = None
    """A class of the whole row: "total", "group"."""


def bar_rows(heads: Sequence[str], rows: Sequence[Row]) -> Markup | None:
    """Returns rows below each other. The first head is that of the names, the others those of the figures."""
    if not rows:
        return None
    columns = len(heads) - 1
    top = [tag("th", heads[0], scope="col"), tag("th", None, class_="track", aria_hidden="true")]
    top += [tag("th", head, scope="col", class_="n") for head in heads[1:]]
    body = []
    for row in rows:
        bars = [
            Markup(f'<i class="{s.style}" style="left:{100 * s.start:.2f}%;width:{100 * s.size:.2f}%"></i>')
            for s in row.segments
            if s.size > 0
        ]
        note = tag("small", row.note) if row.note else None
        body.append(
            tag(
                "tr",
                tag("th", row.name, note, scope="row"),
                tag("td", tag("div", *bars), class_="track", aria_hidden="true"),
                *[tag("td", figure, class_="n") for figure in (*row.figures, *[""] * columns)[:columns]],
                class_=row.kind,
            )
        )
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *top)), tag("tbody", *body), class_=f"bars of-{columns}"),
        class_="scroll",
    )


def columns_chart(
    title: str,
    stacks: Mapping[str, Sequence[Number]],
    *,
    ticks: Sequence[tuple[Number, str]],
    hovers: Sequence[str],
    x_name: str,
    y_name: str,
    y_format: Callable[[Number], str] = short,
) -> Markup:
    """Returns columns beside each other, or nothing where there are none.

    Args:
        title: what is shown.
        stacks: of each part the heights, from the bottom up; the parts have the colours of their order.
        ticks: where on the axis which label stands, counted in columns.
        hovers: what is said about each column.
        x_name: of the axis.
        y_name: of the heights.
        y_format: how a height is written.
    """
    totals = [sum(heights) for heights in zip(*stacks.values(), strict=True)]
    if not any(totals):
        return Markup("")
    levels = [tick for tick in nice_ticks(0.0, max(totals), 4) if tick >= 0]
    bottom, width = HEIGHT - BOTTOM, (RIGHT - LEFT) / len(totals)

    def y(value: Number) -> float:
        return bottom - value / levels[-1] * (bottom - TOP)

    drawn = []
    base = [0.0] * len(totals)
    for number, heights in enumerate(stacks.values()):
        for i, height in enumerate(heights):
            if height:
                top = y(base[i] + height)
                drawn.append(
                    tag(
                        "rect",
                        class_=f"column tone-{min(number, TONES - 1)}",
                        x=LEFT + i * width + 0.75, y=top, width=max(width - 1.5, 1.0), height=max(y(base[i]) - top, 0.6),
                    )
                )  # fmt: skip
                base[i] += height
    over = [
        tag(
            "g",
            tag("title", said),
            tag("rect", class_="over", x=LEFT + i * width, y=TOP, width=width, height=bottom - TOP),
        )
        for i, said in enumerate(hovers)
    ]
    return tag(
        "figure",
        tag("figcaption", title),
        tag(
            "svg",
            tag("title", title),
            tag("desc", f"{y_name} by {x_name}. " + "; ".join(hovers)),
            tag("text", y_name, class_="axis-name", x=0.0, y=14.0),
            *[_level(level, y(level), y_format(level), is_base=level == 0) for level in levels],
            *drawn,
            *[_tick(LEFT + at * width, bottom, label) for at, label in ticks],
            tag("text", x_name, class_="axis-name", x=RIGHT, y=bottom + 34, text_anchor="end"),
            *over,
            viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img",
        ),
        class_="chart",
    )


def key(names: Sequence[str]) -> Markup | None:
    """Returns which colour is what, where there is more than one."""
    if len(names) < 2:
        return None
    parts = [tag("span", name, class_=f"tone-{min(i, TONES - 1)}") for i, name in enumerate(names)]
    return tag("div", *parts, class_="share-key")


def _level(level: Number, height: float, label: str, *, is_base: bool) -> Markup:
    return join(
        tag("line", class_="base" if is_base else "grid", x1=LEFT, x2=RIGHT, y1=height, y2=height),
        tag("text", label, class_="tick", x=LEFT - 7, y=height + 4, text_anchor="end"),
    )


def _tick(at: float, bottom: float, label: str) -> Markup:
    return join(
        tag("line", class_="base", x1=at, x2=at, y1=bottom, y2=bottom + 4),
        tag("text", label, class_="tick", x=at, y=bottom + 17, text_anchor="middle"),
    )
