"""A Chinese character that looks like it: what a scanner, or an eye, takes for it."""

import dataclasses
import functools
from typing import final

from gristmill.augment.chinese import Weighted, is_traditional, lookalikes
from gristmill.augment.operators.base import Operator, Text, Writer

__all__ = ["Lookalike"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookalike(Operator):
    """Characters by those whose drawings are most alike, the most alike more often (as 1, 1/2, 1/3, …)."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns the look-alikes of each character."""
        writers = _writers(is_traditional(text.string))
        return [writers.get(grapheme) for grapheme in text.graphemes]


EXPORT = Lookalike


@functools.cache
def _writers(traditional: bool) -> dict[str, Writer]:
    return {
        character: Weighted.of(alike, (1 / rank for rank in range(1, len(alike) + 1))).draw
        for character, alike in lookalikes(traditional=traditional).items()
    }
