"""A Chinese character that sounds the same: what an input method by pinyin offers, and a hurried writer takes."""

import dataclasses
import functools
import re
from typing import ClassVar, final

import numpy as np

from gristmill.augment.chinese import Weighted, frequent, is_chinese, is_traditional
from gristmill.augment.operators.base import Operator, Text, Writer

__all__ = ["Homophone"]

CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Homophone(Operator):
    """Characters by others with the same syllable, whatever its tone, the frequent ones more often.

    A character with several readings has the one of the word that it is in, as pypinyin knows it.
    """

    needs: ClassVar[str] = "pypinyin"

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns the homophones of each character."""
        traditional = is_traditional(text.string)
        readings = iter(_readings(text.string))
        return [
            _others(grapheme, next(readings), traditional) if is_chinese(grapheme[0]) else None
            for grapheme in text.graphemes
        ]


EXPORT = Homophone


def _readings(text: str) -> list[str]:
    """The syllable of each Chinese character of a text."""
    import pypinyin

    found: list[str] = []
    for run in CHINESE.findall(text):
        readings = pypinyin.lazy_pinyin(run, errors=list)  # type: ignore[arg-type]
        # a character that it does not know stands for itself, and sounds like none
        found += readings if len(readings) == len(run) else run
    return found


@functools.lru_cache(maxsize=8192)
def _others(grapheme: str, reading: str, traditional: bool) -> Writer | None:
    alike = _by_reading(traditional).get(reading, {})
    others = {character: weight for character, weight in alike.items() if character != grapheme}
    return Weighted.of(others, others.values()).draw if others and len(grapheme) == 1 else None


@functools.cache
def _by_reading(traditional: bool) -> dict[str, dict[str, float]]:
    """The characters of a script by the syllable that they most often are, with how frequent they are."""
    import pypinyin

    table = frequent(traditional=traditional)
    found: dict[str, dict[str, float]] = {}
    for character, weight in zip(table.strings, np.diff(table.sums, prepend=0.0).tolist(), strict=True):
        (reading,) = pypinyin.lazy_pinyin(character, errors=list)  # type: ignore[arg-type]
        found.setdefault(reading, {})[character] = weight
    return found
