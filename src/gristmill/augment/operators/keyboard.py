"""The key beside the right one, on a QWERTY keyboard."""

import dataclasses
import functools
from typing import final

from gristmill.augment.operators.base import Operator, Text, Writer, one_of

__all__ = ["Keyboard"]

KEYS = {"1234567890": 0.0, "qwertyuiop": 0.5, "asdfghjkl": 0.75, "zxcvbnm": 1.25}
"""The rows of keys, and how far each is indented, in keys."""
REACHED = 1.3
"""How far away the wrong key is at most, in keys: the six around a key."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Keyboard(Operator):
    """Letters and digits, by their neighbours; a capital letter by a capital letter."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns the neighbours of each key."""
        neighbours = _neighbours()
        return [neighbours.get(grapheme) for grapheme in text.graphemes]


EXPORT = Keyboard


@functools.cache
def _neighbours() -> dict[str, Writer]:
    places = {
        key: (row, indent + column)
        for row, (keys, indent) in enumerate(KEYS.items())
        for column, key in enumerate(keys)
    }
    near = {
        key: "".join(
            other for other, (r, c) in places.items() if 0 < (r - row) ** 2 + (c - at) ** 2 < REACHED**2
        )
        for key, (row, at) in places.items()
    }
    capitals = {
        key.upper(): "".join(other.upper() for other in others if other.isalpha())
        for key, others in near.items()
        if key.isalpha()
    }
    return {key: one_of(others) for key, others in (near | capitals).items()}
