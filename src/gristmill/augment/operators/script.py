"""The same Chinese character in the other script: traditional for simplified, simplified for traditional."""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar, final

from gristmill.augment.chinese import is_traditional
from gristmill.augment.operators.base import Operator, Text, Writer, one_of

__all__ = ["Script"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Script(Operator):
    """Characters that the two scripts write differently, as OpenCC converts them in the words that they are in.

    The whole text counts as in one script, the one that more of its characters are typical of.
    """

    needs: ClassVar[str] = "opencc"

    def writers(self, text: Text) -> list[Writer | None]:
        """Returns each character in the other script."""
        convert = _converter("t2s" if is_traditional(text.string) else "s2t")
        converted = convert(text.string)
        if len(converted) != len(text.string):  # a word that has more characters in the other script
            converted = "".join(map(convert, text.string))
        return [
            one_of((converted[begin],)) if len(grapheme) == 1 and converted[begin] != grapheme else None
            for grapheme, begin in zip(text.graphemes, text.begins, strict=False)
        ]


EXPORT = Script


@functools.cache
def _converter(direction: str) -> Callable[[str], str]:
    import opencc

    converter: Callable[[str], str] = opencc.OpenCC(direction).convert
    return converter
