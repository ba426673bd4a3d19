"""The picture of what is taken for what: a square for each pair of classes, the stronger the larger its share of the row."""

import math
from collections.abc import Mapping, Sequence

from gristmill.report.markup import Markup, tag
from gristmill.report.units import percent

__all__ = ["confusion_map"]

NUMBERED, NAMED = 12, 40
"""Up to how many classes squares have their numbers in them, and rows and columns their names."""
COMPACT = 600.0
"""The side of a picture without names."""
LETTER = 6.6
LONGEST_NAME = 22


def confusion_map(confusion: Mapping[str, Mapping[str, int]]) -> Markup:
    """Returns the picture; rows are what is true, columns what was said. Classes that were only said have a row, too."""
    said = {name for row in confusion.values() for name in row}
    names = sorted(set(confusion) | said)
    cell = 38.0 if len(names) <= NUMBERED else 17.0 if len(names) <= NAMED else max(3.0, COMPACT / len(names))
    with_names = len(names) <= NAMED
    shown = [_cut(name) for name in names]
    room = LETTER * max(map(_width, shown)) if with_names else 0.0
    left, top = room + 12 + 16, room * math.sin(math.pi / 4) + 14 + 16
    side = cell * len(names)
    over = room * math.cos(math.pi / 4) if with_names else 0.0  # of the last name, which leans to the right
    width, height = left + side + over + 4, top + side + 4
    place = {name: i * cell for i, name in enumerate(names)}
    squares = [
        _square(
            name, other, number, sum(row.values()), left + place[other], top + place[name], cell, len(names)
        )
        for name, row in confusion.items()
        for other, number in row.items()
    ]
    frame = tag("rect", class_="frame", x=left, y=top, width=side, height=side)
    axes = [
        tag("text", "said", class_="axis-name", x=left, y=12.0),
        tag(
            "text",
            "true",
            class_="axis-name",
            x=12.0,
            y=top,
            transform=f"rotate(-90 12 {top:.1f})",
            text_anchor="end",
        ),
    ]
    labels = _labels(shown, left, top, cell) if with_names else []
    return tag(
        "div",
        tag(
            "svg",
            tag("title", f"What is taken for what, {len(names)} classes"),
            frame,
            *squares,
            *axes,
            *labels,
            viewBox=f"0 0 {width:.0f} {height:.0f}",
            style=f"width:{width:.0f}px" if with_names else f"width:100%;max-width:{width:.0f}px",
            class_="confusions",
            role="img",
        ),
        class_="scroll",
    )  # fmt: skip


def _square(
    true: str, said: str, number: int, whole: int, x: float, y: float, cell: float, classes: int
) -> Markup:
    share = number / max(1, whole)
    kind = "right" if true == said else "wrong"
    inset = 1.0 if cell > 8 else 0.0
    hover = tag("title", f"{true} taken for {said}: {number:,} of {whole:,}, {percent(share)}")
    # the root makes rare confusions seen beside a diagonal that has nearly all
    square = tag(
        "rect", class_=kind, x=x + inset, y=y + inset, width=cell - inset, height=cell - inset,
        fill_opacity=0.08 + 0.92 * math.sqrt(share),
    )  # fmt: skip
    if classes > NUMBERED:
        return tag("g", hover, square)
    tone = "number on-dark" if share > 0.3 else "number"
    text = tag("text", f"{number}", class_=tone, x=x + cell / 2, y=y + cell / 2 + 4.5, text_anchor="middle")
    return tag("g", hover, square, text)


def _labels(names: Sequence[str], left: float, top: float, cell: float) -> list[Markup]:
    found = []
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        x, y = left + middle + 3, top - 6
        found.append(tag("text", name, class_="tick", x=left - 6, y=top + middle + 4, text_anchor="end"))
        found.append(tag("text", name, class_="tick", x=x, y=y, transform=f"rotate(-45 {x:.1f} {y:.1f})"))
    return found


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _width(name: str) -> float:
    """In letters: a Chinese one is two wide."""
    return sum(2.0 if ord(letter) > 0x2E80 else 1.0 for letter in name)
