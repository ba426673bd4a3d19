"""Numbers as people read them."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = [
    "MISSING",
    "Number",
    "bytes_text",
    "count",
    "duration",
    "figure",
    "flop",
    "moment",
    "percent",
    "plural",
    "range_text",
    "rounded_count",
    "short",
]

Number = float | int  # beartype takes annotations at their word: an int is no float
MISSING = "–"
MINUTE, HOUR, DAY = 60, 3600, 86400


def count(value: Number | None) -> str:
    """1234567 -> "1,234,567"."""
    return MISSING if value is None else f"{value:,.0f}"


def rounded_count(value: Number | None) -> str:
    """1234567 -> "1.23 million"."""
    if value is None:
        return MISSING
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size * 0.9995:
            return f"{_significant(value / size)} {name}"
    return count(value)


def short(value: Number) -> str:
    """1234567 -> "1.2M", for the ticks of an axis."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.4g}"


def bytes_text(value: Number | None) -> str:
    """1234567 -> "1.23 MB"; decimal units, as disks are sold."""
    if value is None:
        return MISSING
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size * 0.9995:
            return f"{_significant(value / size)} {name}"
    return plural(int(value), "byte")


def flop(value: Number) -> str:
    """653e9 -> "653 GFLOP"."""
    text = short(value)
    number, letter = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
    return f"{number} {letter.replace('k', 'K')}FLOP"


def duration(seconds: Number | None) -> str:
    """158.2 -> "2 min 38 s"."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{_significant(seconds)} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min" + (f" {whole % MINUTE} s" if whole % MINUTE else "")
    whole = round(seconds / MINUTE)
    if whole < 48 * 60:
        return f"{whole // 60} h" + (f" {whole % 60} min" if whole % 60 else "")
    return f"{seconds / DAY:.1f} days"


def figure(value: Number | None, digits: int = 3) -> str:
    """1.87352 -> "1.874": a measured figure."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def range_text(interval: Sequence[Number] | None, digits: int = 3) -> str | None:
    """[1.84, 1.90] -> "1.840 to 1.900"."""
    return None if not interval else f"{figure(interval[0], digits)} to {figure(interval[1], digits)}"


def percent(share: Number | None) -> str:
    """0.0123 -> "1.2 %"."""
    if share is None:
        return MISSING
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.0f} %" if share in (0, 1) or 0.0995 <= share < 0.9995 else f"{share * 100:.1f} %"


def plural(number: Number, word: str, words: str | None = None) -> str:
    """2, "file" -> "2 files"."""
    return f"{count(number)} {word if number == 1 else words or word + 's'}"


def moment(text: Any) -> str:
    """An ISO instant -> "22 November 2026, 04:27 UTC"; anything else as it is."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def _significant(value: Number) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
