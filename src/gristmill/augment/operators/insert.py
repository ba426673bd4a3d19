"""A character more, of the same kind as the one before it."""

import dataclasses
from typing import final

import numpy as np

from gristmill.augment.chinese import is_traditional
from gristmill.augment.operators.base import Operator, Text, Writer, same_kind

__all__ = ["Insert"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Insert(Operator):
    """After a letter a letter, after a digit a digit, after a Chinese character one by how frequent each is."""

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns each character with another one after it."""
        traditional = is_traditional(text.string)
        others = [same_kind(grapheme, traditional=traditional) for grapheme in text.graphemes]
        return [
            None if other is None else _After(grapheme, other)
            for grapheme, other in zip(text.graphemes, others, strict=True)
        ]


EXPORT = Insert


@dataclasses.dataclass(frozen=True, slots=True)
class _After:
    grapheme: str
    other: Writer

    def __call__(self, rng: np.random.Generator) -> str:
        return self.grapheme + self.other(rng)
