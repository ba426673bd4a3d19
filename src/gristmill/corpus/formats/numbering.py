"""The numbers of lists and headings in Word files, which stand in no text: counted as Word counts them.

Format: ECMA-376 part 1, 17.9 (Numbering).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gristmill.corpus.formats.xml_events import End, Event, Start

__all__ = ["Level", "Numbering", "read_numbering"]

_MOST_LEVELS = 9
_PLACE = re.compile("%([1-9])")
_DIGITS = "零一二三四五六七八九"
_COUNTING = ("chinese", "japanese", "taiwanese", "ideograph", "korean")
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"),
    (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip


class Level(NamedTuple):
    """How a level of a list is numbered."""

    kind: str = "decimal"
    text: str = "%1."
    """The label; %1 stands for the number of the first level, and so on."""
    start: int = 1


class Numbering:
    """The lists of a document, and how far each has counted."""

    def __init__(
        self,
        schemes: dict[str, dict[int, Level]],
        lists: dict[str, str],
        restarts: dict[str, dict[int, int]],
    ) -> None:
        self._schemes = schemes
        self._lists = lists
        self._restarts = restarts
        self._counts: dict[str, dict[int, int]] = {}
        self._begun: set[str] = set()

    def label(self, number: str, level: int) -> str | None:
        """Returns the label of the next item of a list at this level, or None where it has no list."""
        scheme = self._lists.get(number)
        if scheme is None or level >= _MOST_LEVELS:
            return None
        levels = self._schemes.get(scheme, {})
        counts = self._counts.setdefault(scheme, {})
        if number not in self._begun:
            self._begun.add(number)
            for restarted, start in self._restarts.get(number, {}).items():
                counts[restarted] = start - 1
        this = levels.get(level, Level())
        counts[level] = counts.get(level, this.start - 1) + 1
        for deeper in [key for key in counts if key > level]:
            del counts[deeper]
        if this.kind == "bullet":
            return "-"
        if this.kind == "none":
            return ""

        def figure(match: re.Match[str]) -> str:
            place = int(match.group(1)) - 1
            shown = levels.get(place, Level())
            return _figure(counts.get(place, shown.start), shown.kind)

        return _PLACE.sub(figure, this.text)


def read_numbering(events: Iterable[Event]) -> Numbering:
    """Returns the lists that the numbering part of a document defines."""
    schemes: dict[str, dict[int, Level]] = {}
    lists: dict[str, str] = {}
    restarts: dict[str, dict[int, int]] = {}
    scheme = number = None
    level = 0
    for event in events:
        if not isinstance(event, Start | End):
            continue
        tag = event.name.rpartition(" ")[2]
        if isinstance(event, End):
            scheme = None if tag == "abstractNum" else scheme
            number = None if tag == "num" else number
            continue
        values = {key.rpartition(" ")[2]: value for key, value in event.attributes.items()}
        value = values.get("val", "")
        if tag == "abstractNum":
            scheme = values.get("abstractNumId", "")
            schemes[scheme] = {}
        elif tag == "num":
            number = values.get("numId", "")
        elif tag == "abstractNumId" and number is not None:
            lists[number] = value
        elif tag in ("lvl", "lvlOverride"):
            level = _small(values.get("ilvl", ""), 0)
            if scheme is not None:
                schemes[scheme][level] = Level()
        elif tag == "startOverride" and number is not None:
            restarts.setdefault(number, {})[level] = _small(value, 1)
        elif scheme is not None and level in schemes[scheme]:
            schemes[scheme][level] = _changed(schemes[scheme][level], tag, value)
    return Numbering(schemes, lists, restarts)


def _changed(level: Level, tag: str, value: str) -> Level:
    if tag == "start":
        return level._replace(start=_small(value, 1))
    if tag == "numFmt":
        return level._replace(kind=value)
    return level._replace(text=value[:100]) if tag == "lvlText" else level


def _small(value: str, default: int) -> int:
    return int(value) if re.fullmatch("[0-9]{1,5}", value) else default


def _figure(number: int, kind: str) -> str:
    if kind.endswith("Letter") and number > 0:
        letter = chr(ord("a") + (number - 1) % 26) * min(-(-number // 26), 10)
        return letter.upper() if kind.startswith("upper") else letter
    if kind.endswith("Roman") and number > 0:
        return _roman(number).upper() if kind.startswith("upper") else _roman(number)
    if kind.startswith(_COUNTING) and 0 < number < 100:
        return _chinese(number)
    return f"{number:02d}" if kind == "decimalZero" else str(number)


def _roman(number: int) -> str:
    text, number = "", min(number, 9999)
    for value, letters in _ROMAN:
        count, number = divmod(number, value)
        text += letters * count
    return text


def _chinese(number: int) -> str:
    """Returns a number below a hundred as it is said: 一, 十, 二十一."""
    tens, ones = divmod(number, 10)
    return (
        (_DIGITS[tens] if tens > 1 else "")
        + ("十" if tens else "")
        + (_DIGITS[ones] if ones or not tens else "")
    )
