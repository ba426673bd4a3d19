"""Training examples once more with noise, so that a model does not hold on to single words or spellings.

    characters     what keyboards, input methods and eyes get wrong (`gristmill.augment`)
    words          left out, or changed places with their neighbour (Wei and Zou 2019, arXiv:1901.11196: EDA)

A word is what letters and digits side by side make, and each Chinese character. Labels stay as they are: rates should be low enough
that a reader would still give the same one. Only training examples are changed, and those that self-training labels.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, final

import numpy as np
from annotated_types import Gt, Interval

from gristmill import rng
from gristmill.adapt.task import SWAPPED, Example, Task
from gristmill.adapt.tasks.tagging import words_of
from gristmill.augment.characters import CharacterNoise, Edit
from gristmill.errors import InputError

__all__ = ["Augmentation", "augmented"]

Share = Annotated[float, Interval(ge=0, lt=1)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How often training examples are there once more, and what is changed."""

    copies: Annotated[int, Gt(0)] = 1
    """Noisy copies of each example, beside the example itself."""
    characters: CharacterNoise | None = None
    """Noise in characters; `operators` are those of `gristmill.augment`, "homophone" and "lookalike" for Chinese."""
    deleted_words: Share = 0.0
    """Share of the words that are left out; never all of a text."""
    swapped_words: Share = 0.0
    """Share of the words that change places with the next one."""

    def __post_init__(self) -> None:
        if self.characters is None and not self.deleted_words and not self.swapped_words:
            raise InputError(
                "nothing is changed: all rates are 0",
                "set augment.deleted_words = 0.1, or write [augment.characters]",
            )

    def of_words(self, text: str, rng: np.random.Generator) -> tuple[Edit, ...]:
        """Returns what is changed of the words of a text."""
        words = words_of(text)
        deleted = rng.random(len(words)) < self.deleted_words
        swapped = rng.random(len(words)) < self.swapped_words
        if deleted.all() and len(words):
            deleted[int(rng.integers(len(words)))] = False
        edits: list[Edit] = []
        at = 0
        while at < len(words):
            start, end = words[at]
            if deleted[at]:
                after = len(text) - len(text[end:].lstrip())
                edits.append(Edit(start, after, "", "deleted words"))
            elif swapped[at] and at + 1 < len(words) and not deleted[at + 1]:
                begin, last = words[at + 1]
                if not (text[start].isalnum() and text[begin].isalnum()):  # signs stay where they are
                    at += 1
                    continue
                edits += [
                    Edit(start, end, text[begin:last], SWAPPED),
                    Edit(begin, last, text[start:end], SWAPPED),
                ]
                at += 1
            at += 1
        return tuple(edits)


def augmented(task: Task[Any], examples: Sequence[Example], settings: Augmentation, seed: int) -> list[Any]:
    """Returns noisy copies of examples, one copy of all of them after the other.

    A function of settings, seed and each example's text: the order of the examples does not matter.

    Raises:
        InputError: examples of this task can't be changed without their labels.
    """
    found = []
    for copy in range(settings.copies):
        for example in examples:
            stream = rng.stream(seed, "augment", copy, example.key)
            changed = task.noised(example, functools.partial(settings.of_words, rng=stream))
            if (noise := settings.characters) is not None:
                changed = task.noised(changed, functools.partial(noise.edits, rng=stream))
            found.append(changed)
    return found
