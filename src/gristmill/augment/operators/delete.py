"""A character less."""

import dataclasses
from typing import final

from gristmill.augment.operators.base import Operator, Text, Writer, is_solid, one_of

__all__ = ["Delete"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Delete(Operator):
    """Anything that is not whitespace, but not all of a line."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns nothing for each character."""
        nothing = one_of(("",))
        return [nothing if is_solid(grapheme) else None for grapheme in text.graphemes]


EXPORT = Delete
