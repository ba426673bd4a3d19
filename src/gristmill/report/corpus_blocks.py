"""What the sections of the page of a corpus are built from: passages with their marks, places, legends."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gristmill.report.blocks import file_name, language_name, language_tag
from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, count

__all__ = ["REASONS", "excerpt", "legend", "measured", "nothing", "passage", "place", "why"]

REASONS = {
    "forgotten": "Forgotten on request",
    "held out": "Held out by another corpus",
    "left out": "Left out, as only a share is used",
    "too short": "Too short",
    "language": "Other languages",
    "script": "Other scripts",
    "duplicate": "The same as another document",
    "quality": "Judged bad by the classifier",
    "perplexity": "Judged odd by the n-gram model",
    "near duplicate": "Nearly the same as another",
    "contamination": "Has text of an evaluation set",
}
"""What a person calls a reason, in the order in which documents are decided about; rules, whose names have a dot, come
before duplicates."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")  # fmt: skip
"""What nobody sees, and what turns the direction of the text behind it."""


def passage(pieces: Iterable[Sequence[str]]) -> Markup:
    """Returns a passage with its marks; characters that can't be seen are written out."""
    written = []
    for text, what in pieces:
        if what == "hidden":
            written.append(tag("span", text, class_="hidden"))
        elif what == "more":
            written.append(tag("span", f" {text} ", class_="more"))
        elif what:
            written.append(tag("mark", _seen(text), class_=what))
        else:
            written.append(_seen(text))
    return join(*written)


def _seen(text: str) -> Markup:
    parts, done = [], 0
    for match in _UNSEEN.finditer(text):
        parts += [
            join(text[done : match.start()]),
            tag("span", f"U+{ord(match[0]):04X}", class_="unseen"),
        ]
        done = match.end()
    return join(*parts, text[done:])


def excerpt(
    pieces: Iterable[Sequence[str]], footer: str | Markup | None = None, *, title: str | Markup | None = None, kind: str = ""
) -> Markup:  # fmt: skip
    """Returns a text in a frame, with a title above and a line below it."""
    pieces = list(pieces)
    return tag(
        "div",
        tag("h4", title) if title else None,
        tag("p", passage(pieces), lang=language_tag("".join(text for text, _ in pieces)), dir="auto"),
        tag("footer", footer) if footer else None,
        class_=f"excerpt {kind}".strip(),
    )


def place(entry: Mapping[str, Any]) -> Markup:
    """Where a document stands: the end of its path and the byte, the whole of it when pointed at."""
    if "source" not in entry:
        return Markup("")
    start = entry.get("start")
    where = f"{file_name(entry['source'])}" + (f", from {start:,}" if start else "")
    return join(tag("span", where, title=entry["source"]), " · ", tag("code", str(entry.get("id") or "")))


def why(said: Mapping[str, Any]) -> str:
    """Returns what decided about a document: its figure and the threshold."""
    if not said:
        return ""
    value = said["value"]
    if isinstance(value, str):
        return f"{said['figure']}: {language_name(value)}"
    bound = "at least" if said["least"] else "at most"
    return f"{said['figure']} {measured(value)}, allowed {bound} {said['threshold']:g}"


def measured(value: Number) -> str:
    """As many digits as tell it from a threshold."""
    return count(value) if float(value).is_integer() else f"{value:.4g}"


def legend(names: Mapping[str, str]) -> Markup:
    """Returns what the colours of bars mean: a name for each class."""
    parts = [join(Markup(f'<i class="{style}"></i>'), name) for style, name in names.items()]
    return tag("p", *parts, class_="legend")


def nothing(said: str, setting: str) -> Markup:
    """Returns that something was not done, and what a recipe would say to have it done."""
    return tag("p", said, " In a recipe: ", tag("code", setting), ".", class_="soft")
