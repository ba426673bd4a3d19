"""The same character in full or half width, as Chinese and Japanese input methods have both."""

import dataclasses
from typing import final

from gristmill.augment.operators.base import Operator, Text, Writer, one_of

__all__ = ["Width"]

SHIFT = 0xFEE0
"""How far ASCII "!" to "~" is from the same in full width."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Width(Operator):
    """Letters, digits and marks of ASCII, and their forms in full width."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns each character in the other width."""
        return [_in_other_width(grapheme) for grapheme in text.graphemes]


EXPORT = Width


def _in_other_width(grapheme: str) -> Writer | None:
    if len(grapheme) != 1:
        return None
    if "!" <= grapheme <= "~":
        return one_of((chr(ord(grapheme) + SHIFT),))
    if "！" <= grapheme <= "～":
        return one_of((chr(ord(grapheme) - SHIFT),))
    return None
