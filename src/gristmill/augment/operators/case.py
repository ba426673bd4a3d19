"""The letter in the other case."""

import dataclasses
import functools
from typing import final

from gristmill.augment.operators.base import Operator, Text, Writer, one_of

__all__ = ["Case"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Case(Operator):
    """Letters of any script that come in two cases, one letter each: not ß, which would be two."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns each letter in the other case."""
        return [_in_other_case(grapheme) for grapheme in text.graphemes]


EXPORT = Case


@functools.lru_cache(maxsize=4096)
def _in_other_case(grapheme: str) -> Writer | None:
    other = grapheme.swapcase()
    returns = other != grapheme and other.swapcase() == grapheme and len(other) == len(grapheme)
    return one_of((other,)) if returns else None
