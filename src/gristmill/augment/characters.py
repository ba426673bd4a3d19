"""Noise in the characters of a text: what keyboards, input methods, scanners and eyes get wrong.

For tests of how a model takes it, and for labelled texts, of which there are never enough. Every change is told, so that
labelled spans can move with the text:

    noise = CharacterNoise(rate=0.1, operators=("keyboard", "homophone"))
    edits = noise.edits(text, stream(seed, "noise", name))
    edited(text, edits), [moved(place, edits) for place in span]
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple, final

import numpy as np
from annotated_types import Interval

from gristmill import plugins
from gristmill.augment.operators.base import Operator, Text
from gristmill.errors import InputError

__all__ = ["CharacterNoise", "Edit", "edited", "moved"]

PACKAGE = "augment.operators"


class Edit(NamedTuple):
    """What stands between two places of a text, and what is written there instead."""

    begin: int
    end: int
    written: str
    operator: str


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterNoise:
    """How much of a text is changed, and how. Whitespace never is, so lines stay lines."""

    rate: Annotated[float, Interval(ge=0, le=1)] = 0.05
    """Changes for each character that some operator can change. Characters are those that readers see: an emoji of
    several code points is one, and so is a letter with its accents."""
    operators: tuple[str, ...] = ("keyboard", "swap", "delete", "insert", "lookalike")
    """What is done; where several can be, each is as likely. "keyboard", "homoglyph", "case" and "width" change letters
    and digits, "homophone", "lookalike" and "script" Chinese characters, "replace", "insert", "delete", "swap" anything.
    For "homophone" and "script": pip install "gristmill[augment]"."""

    def __post_init__(self) -> None:
        if not self.operators:
            raise InputError("there are no operators", f"name some of {', '.join(plugins.names(PACKAGE))}")
        for operator in self._operators.values():
            operator.check()

    def apply(self, text: str, rng: np.random.Generator) -> str:
        """Returns the text with noise: a pure function of its arguments."""
        return edited(text, self.edits(text, rng))

    def edits(self, text: str, rng: np.random.Generator) -> tuple[Edit, ...]:
        """Returns what is changed, from the beginning of the text to its end; no two changes overlap.

        A line in which something stands never loses all of it.
        """
        read = Text.of(text)
        able = {name: operator.writers(read) for name, operator in self._operators.items()}
        hit = np.flatnonzero(rng.random(len(read.graphemes)) < self.rate).tolist()
        edits: list[Edit] = []
        deleted: dict[int, list[int]] = {}  # of each line, by number of the edit
        free = 0
        for at in hit:
            possible = [name for name, writers in able.items() if writers[at] is not None]
            if at < free or not possible:
                continue
            name = possible[int(rng.integers(len(possible)))] if len(possible) > 1 else possible[0]
            free = at + self._operators[name].reach
            writer = able[name][at]
            assert writer is not None
            written = writer(rng)
            if not written:
                deleted.setdefault(read.lines[at], []).append(len(edits))
            edits.append(Edit(read.begins[at], read.begins[free], written, name))
        for line, numbers in deleted.items():
            if len(numbers) == read.visible[line]:
                edits[numbers[0]] = edits[numbers[0]]._replace(end=-1)
        return tuple(edit for edit in edits if edit.end >= 0)

    @functools.cached_property
    def _operators(self) -> dict[str, Operator]:
        return {name: plugins.load(PACKAGE, name)() for name in self.operators}


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Returns a text with its changes made."""
    parts, after = [], 0
    for edit in edits:
        parts += [text[after : edit.begin], edit.written]
        after = edit.end
    return "".join([*parts, text[after:]])


def moved(place: int, edits: Sequence[Edit]) -> int:
    """Returns where a place between two characters is once the changes are made.

    A place within a change goes as far into what is written as it was, or to its end. So a labelled span keeps what is
    changed inside of it; what is inserted after its last character belongs to it.
    """
    shift = 0
    for begin, end, written, _ in edits:
        if place <= begin:
            break
        if place < end:
            return begin + shift + min(place - begin, len(written))
        shift += len(written) - (end - begin)
    return place + shift
