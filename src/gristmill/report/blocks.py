"""What the sections are built from: tables, definitions, bars, and how a setting reads."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gristmill.report.markup import Markup, join, tag
from gristmill.report.units import Number, bytes_text, percent

__all__ = [
    "LANGUAGES",
    "MOST_ROWS",
    "Facts",
    "all_settings",
    "brief",
    "data_table",
    "definitions",
    "dig",
    "file_name",
    "language_name",
    "language_tag",
    "plain",
    "share_bar",
    "share_of",
]

LANGUAGES = {"en": "English", "zh": "Chinese", "mixed": "mixed", "other": "other"}
FEW_COLUMNS = 4
MOST_ROWS = 40  # of a table of sources; report.json has them all

INTERVAL = re.compile(r"([^\[]+?) (\[[^\]]+\])([^,]*)(?:, (.+))?")

Facts = Mapping[str, Any]


def data_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, total: bool = False, more: int = 0
) -> Markup | None:
    """A table whose first column names the row; a head that begins with * is a column of numbers.

    With many columns, an interval in a column of numbers stands below its number: so they fit on the page.
    """
    rows = list(rows)
    if not rows:
        return None
    numeric = [head.startswith("*") for head in heads]
    classes = ["n" if is_number else None for is_number in numeric]
    shown = _figure if len(heads) > FEW_COLUMNS else _cell
    body = [
        tag(
            "tr",
            tag("th", _cell(row[0]), scope="row"),
            *[
                tag("td", shown(value) if class_ else _cell(value), class_=class_)
                for value, class_ in zip(row[1:], classes[1:], strict=True)
            ],
            class_="total" if total and row is rows[-1] else None,
        )
        for row in rows
    ]
    return tag(
        "div",
        tag(
            "table",
            tag(
                "thead",
                tag(
                    "tr",
                    *[
                        tag("th", h.removeprefix("*"), scope="col", class_=c)
                        for h, c in zip(heads, classes, strict=True)
                    ],
                ),
            ),
            tag("tbody", *body),
        ),
        tag("p", f"and {more:,} more, in report.json", class_="small soft") if more > 0 else None,
        class_="scroll",
    )


def _cell(value: Any) -> str:
    return value if isinstance(value, Markup) else "–" if value is None else str(value)


def _figure(value: Any) -> str:
    """A number; below it its interval, and below that what is said of both: "0.12 [0.10, 0.14] mark, said"."""
    found = None if isinstance(value, Markup) else INTERVAL.fullmatch(_cell(value))
    if found is None:
        return _cell(value)
    number, interval, mark, said = found.groups()
    below = [tag("br"), tag("small", interval), *([tag("br"), tag("small", said)] if said else [])]
    return join(f"{number}{mark}", *below)


def definitions(pairs: Mapping[str, Any], *, pairs_in_a_line: int = 1) -> Markup | None:
    """Returns names and values below each other, or two pairs in a line; what is not known is left out."""
    known = [(name, value) for name, value in pairs.items() if value not in (None, "")]
    cells = [join(tag("dt", name), tag("dd", str(value))) for name, value in known]
    return tag("dl", *cells, class_="facts" if pairs_in_a_line == 1 else "facts double") if cells else None


def all_settings(title: str, settings: Mapping[str, Any]) -> Markup | None:
    """Returns every setting, behind a title that opens."""
    flat = _flatten(settings)
    return tag("details", tag("summary", title), definitions(flat)) if flat else None


def share_bar(
    title: str, parts: Mapping[str, Number], show: Callable[[Number], str] = bytes_text
) -> Markup | None:
    """A bar divided by share, and its names below."""
    whole = sum(parts.values())
    if not whole:
        return None
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    tones = [f"tone-{min(i, 5)}" for i in range(len(ordered))]
    bar = [
        Markup(f'<i class="{tone}" style="flex:{size / whole:.4f}"></i>')
        for tone, (_, size) in zip(tones, ordered, strict=True)
    ]
    names = [
        tag("span", f"{name} {percent(size / whole)} ({show(size)})", class_=tone)
        for tone, (name, size) in zip(tones, ordered, strict=True)
    ]
    return join(
        tag("h3", title),
        tag(
            "div",
            tag("div", *bar, class_="share-bar", aria_hidden="true"),
            tag("div", *names, class_="share-key"),
            class_="shares",
        ),
    )


def _flatten(value: Any, where: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flatten(inner, f"{where}.{key}" if where else str(key))
        return flat
    return {where: brief(value) or "–"}


def plain(table: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns settings with their names as words and their values in one line."""
    return {str(name).replace("_", " ").capitalize(): brief(value) for name, value in table.items()}


def brief(value: Any) -> str | None:
    """A setting in one line."""
    if value is None or value == {} or value == []:
        return None
    if isinstance(value, Mapping):
        head = [str(value["name"])] if "name" in value else []
        rest = [
            f"{str(k).replace('_', ' ')} {brief(v)}" for k, v in value.items() if k != "name" and brief(v)
        ]
        return ", ".join(head + rest)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(brief, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def dig(table: Any, *keys: str) -> Any:
    """Returns a value inside tables, or None where the way ends."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def share_of(part: Number | None, whole: Number | None) -> Number | None:
    """Returns part / whole, or None where one is not known."""
    return part / whole if part is not None and whole else None


def language_name(code: str) -> str:
    """Returns the name of a language, or its code."""
    return LANGUAGES.get(code, code)


def file_name(path: Any) -> str:
    """The end of a path, which tells files apart; report.json has the whole."""
    parts = str(path).replace("\\", "/").split("/")
    return "/".join(parts[-2:]) if path is not None else "–"


def language_tag(text: str) -> str | None:
    """The language of the letters, so that a browser takes the right shapes for Chinese."""
    return "zh-Hans" if re.search("[\u3400-\u9fff]", text) else None
