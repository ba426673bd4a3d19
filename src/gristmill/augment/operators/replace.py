"""Another character of the same kind."""

import dataclasses
from typing import final

from gristmill.augment.chinese import is_traditional
from gristmill.augment.operators.base import Operator, Text, Writer, same_kind

__all__ = ["Replace"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Replace(Operator):
    """A letter by a letter, a digit by a digit, a Chinese character by one as frequent characters are."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns others of the kind of each character."""
        traditional = is_traditional(text.string)
        return [same_kind(grapheme, traditional=traditional) for grapheme in text.graphemes]


EXPORT = Replace
