"""What an operator is, and the text that it is given."""

import abc
import dataclasses
import functools
import importlib.util
import unicodedata
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from gristmill.augment.chinese import frequent, is_chinese
from gristmill.augment.graphemes import graphemes
from gristmill.errors import InputError

__all__ = ["Operator", "Text", "Writer", "is_letter", "is_solid", "one_of", "same_kind"]

Writer = Callable[[np.random.Generator], str]
"""Gives what is written instead; never what is there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text as operators read it."""

    string: str
    graphemes: tuple[str, ...]
    begins: tuple[int, ...]
    """Where each grapheme begins, and after them where the text ends."""
    lines: tuple[int, ...]
    """The line that each grapheme is in."""
    visible: tuple[int, ...]
    """How many graphemes of each line are not whitespace."""

    @classmethod
    def of(cls, string: str) -> "Text":
        """Returns a string as a text."""
        found = graphemes(string)
        begins, lines, visible = [0], [], [0]
        for grapheme in found:
            begins.append(begins[-1] + len(grapheme))
            lines.append(len(visible) - 1)
            visible[-1] += not grapheme.isspace()
            if grapheme.splitlines()[0] != grapheme:  # it ends a line
                visible.append(0)
        return cls(
            string=string,
            graphemes=tuple(found),
            begins=tuple(begins),
            lines=tuple(lines),
            visible=tuple(visible),
        )


class Operator(abc.ABC):
    """Abstract. A frozen dataclass; its module's EXPORT."""

    reach: ClassVar[int] = 1
    """How many graphemes, side by side, it changes at once."""
    needs: ClassVar[str] = ""
    """The module that has to be installed."""

    @abc.abstractmethod
    def writers(self, text: Text) -> list[Writer | None]:
        """Returns, for each grapheme, what it makes of it (and of those after it, up to `reach`), or None."""

    def check(self) -> None:
        """Refuses to work without the package that it needs, before work starts.

        Raises:
            InputError: it is not installed.
        """
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise InputError(
                f'the operator "{type(self).__module__.rsplit(".", 1)[-1]}" needs {self.needs}, which is not installed',
                'pip install "gristmill[augment]"',
            )


def is_solid(grapheme: str) -> bool:
    """Returns whether it is something to see that can stand anywhere: a letter, digit, mark or symbol."""
    return is_letter(grapheme) or unicodedata.category(grapheme[0])[0] in "PS"


def is_letter(grapheme: str) -> bool:
    """Returns whether it is a letter, a digit, or a Chinese character, with what belongs to it."""
    return grapheme[0].isalnum()


def one_of(choices: Sequence[str]) -> Writer:
    """Returns a writer of one of these, each as likely."""
    return lambda rng: choices[int(rng.integers(len(choices)))]


@functools.lru_cache(maxsize=8192)
def same_kind(grapheme: str, *, traditional: bool) -> Writer | None:
    """Returns a writer of other characters of the same kind, or None where there are none.

    A Chinese character by how frequent each is; another letter or digit by one of the same category (lower case for
    instance) from the same 128 code points.
    """
    if is_chinese(grapheme):
        return functools.partial(_other, frequent(traditional=traditional).draw, grapheme)
    kind = _kind(ord(grapheme) >> 7, unicodedata.category(grapheme)) if len(grapheme) == 1 else ()
    if len(kind) < 2 or grapheme not in kind:
        return None
    return functools.partial(_other, one_of(kind), grapheme)


def _other(draw: Writer, grapheme: str, rng: np.random.Generator) -> str:
    while (drawn := draw(rng)) == grapheme:
        pass
    return drawn


@functools.cache
def _kind(block: int, category: str) -> tuple[str, ...]:
    if category[0] not in "LN":
        return ()
    every = (chr(point) for point in range(block << 7, (block + 1) << 7))
    # what joins its neighbours would change them, as letters of Hangul do
    return tuple(one for one in every if unicodedata.category(one) == category and not _joins(one))


def _joins(character: str) -> bool:
    return any(
        first <= character <= last
        for first, last in (
            ("\u1100", "\u11ff"),
            ("\ua960", "\ua97f"),
            ("\ud7b0", "\ud7ff"),
            ("\uff9e", "\uff9f"),
        )
    )
