"""The lineage of a run as a list with arcs: a straight line to the stage before, a bow to one further back."""

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.report.markup import Markup, tag
from gristmill.report.units import bytes_text, moment

__all__ = ["diagram"]

ROW = 62.0  # the height of a list item in page.css
MIDDLE = 34.0


def diagram(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Returns the list of stages, oldest first, with the links between them drawn at its side."""
    heights = {row["stage"]: i * ROW + 11 for i, row in enumerate(rows)}
    links = [
        _link(heights[parent["stage"]], heights[row["stage"]])
        for row in rows
        for parent in row["parents"]
        if parent["stage"] in heights
    ]
    nodes = [tag("circle", class_="node", cx=MIDDLE, cy=y, r=5.0) for y in heights.values()]
    picture = tag("svg", tag("title", "which stage was made of which"), *links, *nodes, role="img")
    return tag("ol", picture, *[_item(row) for row in rows], class_="lineage")


def _item(row: Mapping[str, Any]) -> Markup:
    made_of = ", ".join(f"{p['stage']} {p['content_hash'][:8]}" for p in row["parents"])
    stale = [p for p in row["parents"] if p["state"] != "unchanged"]
    warning = (
        tag("span", "; " + ", ".join(f"{p['stage']} {p['state']}" for p in stale), class_="stale")
        if stale
        else None
    )
    return tag(
        "li",
        tag("b", row["stage"]),
        " ",
        tag("code", row["content_hash"][:16], title=row["content_hash"]),
        tag("div", f"made of {made_of}" if made_of else "made of the sources above", warning),
        tag("div", f"{bytes_text(row['size_bytes'])}, {moment(row['created_at'])}"),
    )


def _link(start: float, end: float) -> Markup:
    if end - start <= ROW + 1:
        return tag("path", class_="link", d=f"M{MIDDLE} {start + 5:.0f}V{end - 5:.0f}")
    bow = 10.0 * (end - start) / ROW  # further back, further out
    return tag(
        "path",
        class_="link",
        d=f"M{MIDDLE - 5} {start:.0f}C{MIDDLE - bow - 6:.0f} {start:.0f} {MIDDLE - bow - 6:.0f} {end:.0f} {MIDDLE - 5} {end:.0f}",
    )
