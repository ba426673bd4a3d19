"""The kinds of tokenizer, one file each; `EXPORT` is a frozen dataclass with the kind's own settings."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

__all__ = ["Kind", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a kind learns from."""

    texts: Sequence[str]
    cuts: list[Any]
    """The pre-tokenizers that cut text, before bytes are written as characters."""
    size: int | None
    """How many tokens to learn, special tokens not among them; None leaves it to the kind."""
    minimum_frequency: int

    @property
    def derived_size(self) -> int:
        """A size that suits so much text: `size` where it is set.

        8,192 at 55 MB (10M English words) and twice that at ten times the text, which is what GPT-BERT found best
        (Charpentier and Samuel 2024); and one token for each common character beyond ASCII, since a character
        that is split from its neighbours can't become a part of anything longer, and is three tokens without.
        """
        if self.size is not None:
            return self.size
        characters: Counter[str] = Counter()
        for text in self.texts:
            characters.update(text)
        size_bytes = sum(len(character.encode()) * count for character, count in characters.items())
        learned = 8192 * 2 ** math.log10(max(size_bytes, 1) / 55e6)
        common = sum(count >= 50 for character, count in characters.items() if character > "\x7f")
        return 64 * round((256 + min(max(learned, 256), 65536) + common) / 64)


@runtime_checkable
class Kind(Protocol):
    """Learns a vocabulary in which any text can be written."""

    smallest_size: ClassVar[int]
    """The tokens that there are before anything is learned."""

    def train(self, sample: Sample) -> Any:
        """Returns a `tokenizers.Tokenizer` without special tokens, of the size asked for or of what there is.

        The same sample gives the same tokenizer, byte for byte.
        """
        ...
