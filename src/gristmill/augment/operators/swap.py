"""Two neighbours in each other's place."""

import dataclasses
import itertools
from typing import ClassVar, final

from gristmill.augment.operators.base import Operator, Text, Writer, is_letter, one_of

__all__ = ["Swap"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Swap(Operator):
    """Letters, digits and Chinese characters that are different; none is swapped twice."""

    reach: ClassVar[int] = 2

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns each character after the one that follows it."""
        letters = [is_letter(grapheme) for grapheme in text.graphemes]
        pairs = itertools.pairwise(zip(text.graphemes, letters, strict=True))
        found: list[Writer | None] = [
            one_of((after + grapheme,)) if letter and other_letter and after != grapheme else None
            for (grapheme, letter), (after, other_letter) in pairs
        ]
        return [*found, None] if letters else []


EXPORT = Swap
